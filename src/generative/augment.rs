//! Augmentation that a discriminator sees in place of images, so that it cannot learn few images by heart. It is applied
//! to real and generated images alike and lets the generator's gradient through; what it does cannot leak into the
//! generated images as long as it can be undone on average.

use crate::random::Stream;
use crate::run::State;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use tch::{Kind, Tensor};

/// What discriminators see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// The images themselves.
    #[default]
    None,
    /// DiffAugment (Zhao et al. 2020): colours, a shift and a hole, all of them on every image.
    Diff,
    /// Adaptive augmentation (Karras et al. 2020): flips, turns, shifts, scales and colours, each with a probability that
    /// rises while the discriminator is too sure of real images.
    Adaptive,
}

/// DiffAugment's "color,translation,cutout" of images `[B, C, H, W]`, in this order, each image with numbers of its own.
pub fn diff_augment(images: &Tensor, rng: &mut Stream) -> Tensor {
    let [rows, _, height, width] = sizes(images);
    let of = |values: Vec<f32>| Tensor::from_slice(&values).view([rows, 1, 1, 1]);
    let mut uniform = || of((0..rows).map(|_| rng.uniform()).collect());
    let (brightness, saturation, contrast) = (uniform(), uniform(), uniform());
    let x = images + (brightness - 0.5);
    let grey = x.mean_dim([1i64].as_slice(), true, Kind::Float);
    let x = (&x - &grey) * (saturation * 2.0) + grey;
    let mean = x.mean_dim([1i64, 2, 3].as_slice(), true, Kind::Float);
    let x = (&x - &mean) * (contrast + 0.5) + mean;

    let mut places = Vec::with_capacity(rows as usize);
    for _ in 0..rows {
        let [down, right] = [height, width].map(|side| {
            let most = (side as f64 * 0.125).round() as i64;
            rng.below(2 * most as usize + 1) as i64 - most
        });
        let [top, left] = [height, width].map(|side| {
            let hole = (side as f64 * 0.5).round() as i64;
            rng.below((side + 1 - hole % 2) as usize) as i64 - hole / 2
        });
        places.push(Place { shift: [down, right], hole: [top, left] });
    }
    moved(&x, &places)
}

/// Where an image is moved, and where its hole begins, both as rows down and columns to the right.
struct Place {
    shift: [i64; 2],
    hole: [i64; 2],
}

/// Images moved, zeros where nothing comes from, with a hole of zeros half as high and wide as they are.
fn moved(images: &Tensor, places: &[Place]) -> Tensor {
    let [rows, channels, height, width] = sizes(images);
    let area = (height * width) as usize;
    let (mut source, mut seen) = (vec![0i64; places.len() * area], vec![0f32; places.len() * area]);
    let hole = [height, width].map(|side| (side as f64 * 0.5).round() as i64);
    for (i, Place { shift, hole: corner }) in places.iter().enumerate() {
        for y in 0..height {
            for x in 0..width {
                let (from_y, from_x) = (y - shift[0], x - shift[1]);
                let inside = (0..height).contains(&from_y) && (0..width).contains(&from_x);
                let cut = (corner[0]..corner[0] + hole[0]).contains(&y)
                    && (corner[1]..corner[1] + hole[1]).contains(&x);
                if inside && !cut {
                    let at = i * area + (y * width + x) as usize;
                    (source[at], seen[at]) = (from_y * width + from_x, 1.0);
                }
            }
        }
    }
    let source = Tensor::from_slice(&source).view([rows, 1, -1]).expand([rows, channels, -1], false);
    let seen = Tensor::from_slice(&seen).view([rows, 1, height, width]);
    images.flatten(2, 3).gather(2, &source, false).view([rows, channels, height, width]) * seen
}

fn sizes(images: &Tensor) -> [i64; 4] {
    let size = images.size();
    [size[0], size[1], size[2], size[3]]
}

/// The controller of adaptive augmentation: the probability with which each change is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Adaptive {
    /// The probability, in `[0, 1]`.
    pub probability: f64,
    signs: f64,
    images: u64,
    batches: u64,
}

impl Adaptive {
    /// Batches between two changes of the probability.
    const EVERY: u64 = 4;
    /// The share of real images on the real side minus that on the other one that is aimed at.
    const TARGET: f64 = 0.6;
    /// Images in which the probability goes from 0 to 1.
    const SPEED: f64 = 500_000.0;

    /// Begins without any augmentation.
    pub fn new() -> Self {
        Self { probability: 0.0, signs: 0.0, images: 0, batches: 0 }
    }

    /// Takes in how far real images lay on the real side, `[B]`. After every fourth batch:
    /// p ← p + sign(mean sign(x) − 0.6) · images / 500,000, kept in `[0, 1]` (Karras et al. 2020, section 4).
    pub fn observe(&mut self, margins: &Tensor) {
        self.signs += margins.sign().sum(Kind::Double).double_value(&[]);
        self.images += margins.numel() as u64;
        self.batches += 1;
        if self.batches == Self::EVERY {
            let excess = self.signs / self.images as f64 - Self::TARGET;
            let change = if excess == 0.0 { 0.0 } else { excess.signum() };
            self.probability += change * self.images as f64 / Self::SPEED;
            self.probability = self.probability.clamp(0.0, 1.0);
            (self.signs, self.images, self.batches) = (0.0, 0, 0);
        }
    }

    /// Images `[B, C, H, W]` with each change made or not: one bilinear resampling, one change of colours. (The original
    /// resamples at twice the size, between two filters.)
    ///
    /// # Errors
    /// libtorch's.
    pub fn augment(&self, images: &Tensor, rng: &mut Stream) -> Result<Tensor> {
        let [rows, channels, height, width] = sizes(images);
        let (mut places, mut colours) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            let place = geometry(self.probability, rng);
            places.extend(place[..2].iter().flatten().map(|&x| x as f32));
            colours.extend(colour(self.probability, rng)[..3].iter().flatten().map(|&x| x as f32));
        }
        let theta = Tensor::from_slice(&places).view([rows, 2, 3]);
        let grid = Tensor::f_affine_grid_generator(&theta, [rows, channels, height, width], false)?;
        const BILINEAR: i64 = 0;
        const REFLECTION: i64 = 2;
        let x = images.f_grid_sampler(&grid, BILINEAR, REFLECTION, false)?;
        let colours = Tensor::from_slice(&colours).view([rows, 3, 4]);
        let (matrix, offset) = (colours.narrow(2, 0, 3), colours.narrow(2, 3, 1));
        let x = x.flatten(2, 3);
        let x = match channels {
            3 => matrix.f_bmm(&x)? + offset,
            // Grey images are of three equal colours.
            1 => {
                let factor =
                    matrix.sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Float).view([rows, 1, 1]) / 3.0;
                x * factor + offset.mean_dim([1i64].as_slice(), true, Kind::Float)
            }
            other => {
                return Err(Error::Invalid(format!(
                    "augmentation knows grey and colour, not {other} channels"
                )));
            }
        };
        Ok(x.view([rows, channels, height, width]))
    }

    /// Saves or restores the probability and what it will next follow from.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("probability", &mut self.probability)?;
        state.value("signs", &mut self.signs)?;
        state.value("images", &mut self.images)?;
        state.value("batches", &mut self.batches)
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self::new()
    }
}

type Matrix<const N: usize> = [[f64; N]; N];

fn identity<const N: usize>() -> Matrix<N> {
    let mut matrix = [[0.0; N]; N];
    (0..N).for_each(|i| matrix[i][i] = 1.0);
    matrix
}

fn product<const N: usize>(a: Matrix<N>, b: Matrix<N>) -> Matrix<N> {
    let mut out = [[0.0; N]; N];
    for (row, a) in out.iter_mut().zip(&a) {
        for (j, x) in row.iter_mut().enumerate() {
            *x = a.iter().zip(&b).map(|(a, b)| a * b[j]).sum();
        }
    }
    out
}

/// Draws whether a change is made, and always the number it is made with, so that the probability alone decides.
fn chance<T>(probability: f64, rng: &mut Stream, draw: impl FnOnce(&mut Stream) -> T) -> Option<T> {
    let happens = f64::from(rng.uniform()) < probability;
    let drawn = draw(rng);
    happens.then_some(drawn)
}

/// From a place in the augmented image to one in the original, both in `[−1, 1]²` (Karras et al. 2020, appendix B: pixel
/// blits and general geometric changes, with its numbers).
fn geometry(p: f64, rng: &mut Stream) -> Matrix<3> {
    let signed = |rng: &mut Stream| 2.0 * f64::from(rng.uniform()) - 1.0;
    let rotation =
        |angle: f64| [[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0], [0.0, 0.0, 1.0]];
    let scale = |x: f64, y: f64| [[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]];
    // The whole image is 2 wide.
    let shift = |x: f64, y: f64| [[1.0, 0.0, 2.0 * x], [0.0, 1.0, 2.0 * y], [0.0, 0.0, 1.0]];
    let mut place = identity();
    let mut then = |change: Option<Matrix<3>>| {
        if let Some(change) = change {
            place = product(place, change);
        }
    };
    // Half of the flips and a quarter of the turns are none.
    then(chance(p, rng, |rng| if rng.below(2) == 1 { scale(-1.0, 1.0) } else { identity() }));
    then(chance(p, rng, |rng| rotation(rng.below(4) as f64 * PI / 2.0)));
    then(chance(p, rng, |rng| shift(0.125 * signed(rng), 0.125 * signed(rng))));
    then(chance(p, rng, |rng| {
        let s = (0.2 * f64::from(rng.normal())).exp2();
        scale(s, s)
    }));
    // A turn before and one after the stretching: together they happen with probability p.
    let turn = 1.0 - (1.0 - p).sqrt();
    then(chance(turn, rng, |rng| rotation(PI * signed(rng))));
    then(chance(p, rng, |rng| {
        let s = (0.2 * f64::from(rng.normal())).exp2();
        scale(s, 1.0 / s)
    }));
    then(chance(turn, rng, |rng| rotation(PI * signed(rng))));
    then(chance(p, rng, |rng| shift(0.125 * f64::from(rng.normal()), 0.125 * f64::from(rng.normal()))));
    place
}

/// From a colour (red, green, blue, 1) to the augmented one (ibid.: colour changes).
fn colour(p: f64, rng: &mut Stream) -> Matrix<4> {
    let along = 1.0 / 3f64.sqrt();
    // v vᵀ of the grey axis v.
    let grey = {
        let mut matrix = [[0.0; 4]; 4];
        matrix[..3].iter_mut().for_each(|row| row[..3].fill(along * along));
        matrix
    };
    let combine = |a: f64, b: f64| {
        let one = identity::<4>();
        let mut matrix = [[0.0; 4]; 4];
        for i in 0..4 {
            for j in 0..4 {
                matrix[i][j] = a * one[i][j] + b * grey[i][j];
            }
        }
        matrix[3][3] = 1.0;
        matrix
    };
    let mut colour = identity();
    let mut then = |change: Option<Matrix<4>>| {
        if let Some(change) = change {
            colour = product(change, colour);
        }
    };
    then(chance(p, rng, |rng| {
        let mut brighter = identity();
        let by = 0.2 * f64::from(rng.normal());
        brighter[..3].iter_mut().for_each(|row: &mut [f64; 4]| row[3] = by);
        brighter
    }));
    then(chance(p, rng, |rng| combine((0.5 * f64::from(rng.normal())).exp2(), 0.0)));
    // Light and dark change places: what lies along the grey axis is mirrored.
    then(chance(p, rng, |rng| if rng.below(2) == 1 { combine(1.0, -2.0) } else { identity() }));
    // A turn of the hue is one around the grey axis (Rodrigues' formula).
    then(chance(p, rng, |rng| {
        let angle = PI * (2.0 * f64::from(rng.uniform()) - 1.0);
        let mut turn = combine(angle.cos(), 1.0 - angle.cos());
        let cross = [[0.0, -along, along], [along, 0.0, -along], [-along, along, 0.0]];
        for (row, cross) in turn.iter_mut().zip(&cross) {
            row.iter_mut().zip(cross).for_each(|(x, c)| *x += angle.sin() * c);
        }
        turn
    }));
    then(chance(p, rng, |rng| {
        let s = f64::from(rng.normal()).exp2();
        combine(s, 1.0 - s)
    }));
    colour
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbers(x: &Tensor) -> Vec<f32> {
        Vec::try_from(x.detach().contiguous().view(-1)).unwrap()
    }

    #[test]
    fn an_image_is_moved_and_gets_its_hole() {
        let image = Tensor::arange(16, (Kind::Float, tch::Device::Cpu)).view([1, 1, 4, 4]) + 1.0;
        let place = Place { shift: [1, -1], hole: [2, 0] };
        #[rustfmt::skip]
        let wanted = [
            0.0, 0.0, 0.0, 0.0,
            2.0, 3.0, 4.0, 0.0,
            0.0, 0.0, 8.0, 0.0,
            0.0, 0.0, 12.0, 0.0,
        ];
        assert_eq!(numbers(&moved(&image, &[place])), wanted);
        // A hole that hangs over the edge.
        let place = Place { shift: [0, 0], hole: [-1, 3] };
        assert_eq!(numbers(&moved(&image, &[place]))[..4], [1.0, 2.0, 3.0, 0.0]);
    }

    #[test]
    fn differentiable_and_each_image_by_itself() {
        let images = Tensor::ones([32, 3, 8, 8], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let seen = diff_augment(&images, &mut Stream::new(0, "augment", 0, 0));
        // On grey images without contrast only brightness shows: 1 + U(−½, ½), and zeros of shift and hole.
        let brightest: Vec<f32> = numbers(&seen.amax([1i64, 2, 3], false));
        assert!(brightest.iter().all(|x| (0.5..1.5).contains(x)), "{brightest:?}");
        assert!(brightest.iter().any(|x| *x < 0.8) && brightest.iter().any(|x| *x > 1.2));
        let gradient = Tensor::run_backward(&[seen.sum(Kind::Float)], &[&images], false, false).remove(0);
        let seen_pixels = seen.ne(0.0).to_kind(Kind::Float).sum(Kind::Float).double_value(&[]);
        // Colours keep the sum of an image but for what is cut away afterwards: the mean gradient is the share seen.
        let mean = gradient.sum(Kind::Float).double_value(&[]);
        assert!((mean - seen_pixels).abs() < 1e-2 * seen_pixels, "{mean} {seen_pixels}");
        let again = diff_augment(&images, &mut Stream::new(0, "augment", 0, 0));
        assert_eq!(numbers(&again), numbers(&seen));
    }

    #[test]
    fn the_probability_follows_how_sure_the_discriminator_is() {
        let mut adaptive = Adaptive::new();
        let sure = Tensor::ones([1000], (Kind::Float, tch::Device::Cpu));
        (0..3).for_each(|_| adaptive.observe(&sure));
        assert_eq!(adaptive.probability, 0.0);
        adaptive.observe(&sure);
        assert!((adaptive.probability - 4000.0 / 500_000.0).abs() < 1e-12);
        // 700 of 1,000 on the real side: 0.4 is below 0.6.
        let unsure = Tensor::from_slice(&[1.0f32; 700]);
        let unsure = Tensor::cat(&[unsure, Tensor::from_slice(&[-1.0f32; 300])], 0);
        (0..4).for_each(|_| adaptive.observe(&unsure));
        assert!(adaptive.probability.abs() < 1e-12);
        (0..4).for_each(|_| adaptive.observe(&unsure));
        assert_eq!(adaptive.probability, 0.0);
    }

    #[test]
    fn nothing_is_changed_with_probability_zero_and_much_with_one() {
        let images = Stream::new(0, "x", 0, 0).uniforms(&[4, 3, 16, 16]);
        let mut adaptive = Adaptive::new();
        let mut rng = Stream::new(0, "augment", 0, 0);
        let same = adaptive.augment(&images, &mut rng).unwrap();
        assert!((same - &images).abs().max().double_value(&[]) < 1e-5);
        adaptive.probability = 1.0;
        let changed = adaptive.augment(&images, &mut rng).unwrap();
        assert!((changed - &images).abs().mean(Kind::Float).double_value(&[]) > 0.1);
        let grey = images.narrow(1, 0, 1).set_requires_grad(true);
        let seen = adaptive.augment(&grey, &mut rng).unwrap();
        let gradient = Tensor::run_backward(&[seen.sum(Kind::Float)], &[&grey], false, false).remove(0);
        assert!(gradient.abs().sum(Kind::Float).double_value(&[]) > 1.0);
    }

    #[test]
    fn colours_turn_around_grey_and_turns_keep_lengths() {
        let mut rng = Stream::new(0, "augment", 0, 0);
        for _ in 0..100 {
            // Whatever happens to colours, grey stays grey.
            let matrix = colour(1.0, &mut rng);
            let grey: Vec<f64> =
                matrix[..3].iter().map(|row| row[..3].iter().sum::<f64>() + row[3]).collect();
            assert!((grey[0] - grey[1]).abs() < 1e-9 && (grey[1] - grey[2]).abs() < 1e-9, "{grey:?}");
            // Flips, turns and shifts keep areas; scaling multiplies them by s², stretching by 1.
            let place = geometry(1.0, &mut rng);
            let area = place[0][0] * place[1][1] - place[0][1] * place[1][0];
            assert!((0.1..10.0).contains(&area.abs()), "{area}");
        }
    }
}
