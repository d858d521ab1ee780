//! Resizing one plane of bytes with OpenCV's arithmetic, weights computed once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a picture is resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMethod {
    /// A pixel is the mean of the area that it covers, as OpenCV's `INTER_AREA`; only makes smaller.
    #[default]
    Area,
    /// A pixel is interpolated between the four nearest ones, as OpenCV's `INTER_LINEAR`.
    Bilinear,
}

/// A plane that is read row by row.
pub(super) trait Rows {
    /// Writes row `y` to `row`.
    fn read(&self, y: usize, row: &mut [u8]);
}

/// Which pixels of a line make each pixel of a shorter one, with which weights: `taps` neighbours each, some of them
/// perhaps of weight 0.
#[derive(Clone, Debug)]
struct Overlaps {
    first: Vec<usize>,
    /// `[pixels, taps]`
    weight: Vec<u32>,
    taps: usize,
    /// Sum of each pixel's weights.
    total: u32,
}

impl Overlaps {
    /// With the greatest common divisor taken out, a line of `from` pixels becomes one of `to` in whole numbers: a
    /// pixel of the long line is `to` units wide, one of the short line `from`, and a weight is how many units of
    /// the one lie in the other.
    fn new(from: usize, to: usize) -> Self {
        let divisor = greatest_common_divisor(from, to);
        let (wide, narrow) = (from / divisor, to / divisor);
        let taps = (0..to).map(|i| ((i + 1) * wide).div_ceil(narrow) - i * wide / narrow).max().unwrap_or(1);
        let first: Vec<usize> = (0..to).map(|i| (i * wide / narrow).min(from - taps)).collect();
        let overlap = |i: usize, source: usize| {
            let (start, end) = ((i * wide).max(source * narrow), ((i + 1) * wide).min((source + 1) * narrow));
            end.saturating_sub(start) as u32
        };
        let weight = first
            .iter()
            .enumerate()
            .flat_map(|(i, &first)| (first..first + taps).map(move |source| overlap(i, source)))
            .collect();
        Self { first, weight, taps, total: wide as u32 }
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Means of areas.
///
/// Columns are summed first, over whole rows, and only the sums are summed along the row: the other way round, most
/// of the work would be in short sums that no vector fits. Everything up to the last division is in whole numbers,
/// so the order changes nothing.
#[derive(Clone, Debug)]
pub(super) struct Area {
    rows: Overlaps,
    columns: Overlaps,
    /// Rounds halves up and not to even numbers: OpenCV's short cut for means of four.
    half_up: bool,
    /// Weighted sum of some rows, `[from width]`, and of its pixels, `[to width]`.
    sums: Vec<u32>,
    totals: Vec<u32>,
}

impl Area {
    /// From `[height, width]` to `[height, width]`, neither larger; at most 2²⁴ pixels.
    pub fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        Self {
            rows: Overlaps::new(from[0], to[0]),
            columns: Overlaps::new(from[1], to[1]),
            half_up: from == [2 * to[0], 2 * to[1]],
            sums: vec![0; from[1]],
            totals: vec![0; to[1]],
        }
    }

    /// `row` is room for one row of `plane`.
    #[inline(always)]
    pub fn resize(&mut self, plane: &impl Rows, row: &mut [u8], to: &mut [u8]) {
        let Self { rows, columns, half_up, sums, totals } = self;
        let area = f64::from(rows.total) * f64::from(columns.total);
        let mut read = usize::MAX;
        let weights = rows.weight.chunks_exact(rows.taps);
        for ((to, &first), weights) in to.chunks_exact_mut(totals.len()).zip(&rows.first).zip(weights) {
            sums.fill(0);
            for (y, &weight) in (first..).zip(weights).filter(|(_, weight)| **weight > 0) {
                // The last row of one pixel is often the first of the next.
                if y != read {
                    plane.read(y, row);
                    read = y;
                }
                for (sum, &value) in sums.iter_mut().zip(&*row) {
                    *sum += weight * u32::from(value);
                }
            }
            let weights = columns.weight.chunks_exact(columns.taps);
            for ((total, &first), weights) in totals.iter_mut().zip(&columns.first).zip(weights) {
                let sums = &sums[first..first + columns.taps];
                *total = sums.iter().zip(weights).map(|(sum, weight)| sum * weight).sum();
            }
            // A quotient that is a half is one exactly in 64 bits.
            for (to, &total) in to.iter_mut().zip(&*totals) {
                let mean = f64::from(total) / area;
                let rounded = if *half_up { (mean + 0.5).floor() } else { mean.round_ties_even() };
                *to = rounded as i32 as u8;
            }
        }
    }
}

/// Of each pixel of a line the two neighbours in the other one, and their weights times 2¹¹.
#[derive(Clone, Debug)]
struct Neighbours {
    first: Vec<usize>,
    second: Vec<usize>,
    weight: Vec<[i32; 2]>,
}

/// 1 in the weights of [`Neighbours`].
const ONE: f32 = 2048.0;

impl Neighbours {
    /// Pixels are squares, so that the middle of the first is at a half. Outside the line is its last pixel; along a
    /// row (`whole`) with its whole weight, which in OpenCV's integers can make a difference.
    fn new(from: usize, to: usize, whole: bool) -> Self {
        let mut neighbours = Self { first: Vec::new(), second: Vec::new(), weight: Vec::new() };
        let scale = 1.0 / (to as f64 / from as f64);
        let last = from as i64 - 1;
        for i in 0..to {
            let place = ((i as f64 + 0.5) * scale - 0.5) as f32;
            let (mut first, mut part) = (place.floor() as i64, place - place.floor());
            if whole && !(0..last).contains(&first) {
                (first, part) = (first.clamp(0, last), 0.0);
            }
            neighbours.first.push(first.clamp(0, last) as usize);
            neighbours.second.push((first + 1).clamp(0, last) as usize);
            let weight = [1.0 - part, part].map(|weight| (weight * ONE).round_ties_even() as i32);
            neighbours.weight.push(weight);
        }
        neighbours
    }
}

/// Interpolation between four pixels.
#[derive(Clone, Debug)]
pub(super) struct Bilinear {
    rows: Neighbours,
    columns: Neighbours,
    /// The two rows, interpolated along the row, `[to width]` each, times 2¹¹.
    upper: Vec<i32>,
    lower: Vec<i32>,
}

impl Bilinear {
    /// From `[height, width]` to `[height, width]`.
    pub fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        Self {
            rows: Neighbours::new(from[0], to[0], false),
            columns: Neighbours::new(from[1], to[1], true),
            upper: vec![0; to[1]],
            lower: vec![0; to[1]],
        }
    }

    /// `row` is room for one row of `plane`.
    #[inline(always)]
    pub fn resize(&mut self, plane: &impl Rows, row: &mut [u8], to: &mut [u8]) {
        let Self { rows, columns, upper, lower } = self;
        for (y, to) in to.chunks_exact_mut(upper.len()).enumerate() {
            for (line, source) in [(&mut *upper, rows.first[y]), (&mut *lower, rows.second[y])] {
                plane.read(source, row);
                let pixels = columns.first.iter().zip(&columns.second).zip(&columns.weight);
                for (value, ((&first, &second), weight)) in line.iter_mut().zip(pixels) {
                    *value = i32::from(row[first]) * weight[0] + i32::from(row[second]) * weight[1];
                }
            }
            // OpenCV cuts bits off in three places, to stay within 16 bits.
            let [above, below] = rows.weight[y];
            for ((to, &upper), &lower) in to.iter_mut().zip(&*upper).zip(&*lower) {
                let sum = ((above * (upper >> 4)) >> 16) + ((below * (lower >> 4)) >> 16);
                *to = ((sum + 2) >> 2) as u8;
            }
        }
    }
}
