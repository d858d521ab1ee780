//! Game assets from images: colours of a palette, tiles, and which of them are the same. All on pictures of 24-bit
//! colours, where two pixels are equal or not.

use crate::{Error, Result};
use color_quant::NeuQuant;
use imago_envs::Frame;
use std::collections::BTreeSet;
use std::path::Path;

/// Side of the blocks in which a Nintendo Entertainment System chooses its colours, in pixels.
pub const BLOCK: usize = 16;

/// The 64 colours of the NES's picture unit 2C02, one row for each brightness; 54 of them are different. Emulators differ
/// in them: these are those of the table for the 2C02 in the NESdev wiki, which many emulators have.
#[rustfmt::skip]
const NES: [[u8; 3]; 64] = [
    [84, 84, 84], [0, 30, 116], [8, 16, 144], [48, 0, 136], [68, 0, 100], [92, 0, 48], [84, 4, 0], [60, 24, 0],
    [32, 42, 0], [8, 58, 0], [0, 64, 0], [0, 60, 0], [0, 50, 60], [0, 0, 0], [0, 0, 0], [0, 0, 0],
    [152, 150, 152], [8, 76, 196], [48, 50, 236], [92, 30, 228], [136, 20, 176], [160, 20, 100], [152, 34, 32], [120, 60, 0],
    [84, 90, 0], [40, 114, 0], [8, 124, 0], [0, 118, 40], [0, 102, 120], [0, 0, 0], [0, 0, 0], [0, 0, 0],
    [236, 238, 236], [76, 154, 236], [120, 124, 236], [176, 98, 236], [228, 84, 236], [236, 88, 180], [236, 106, 100], [212, 136, 32],
    [160, 170, 0], [116, 196, 0], [76, 208, 32], [56, 204, 108], [56, 180, 204], [60, 60, 60], [0, 0, 0], [0, 0, 0],
    [236, 238, 236], [168, 204, 236], [188, 188, 236], [212, 178, 236], [236, 174, 236], [236, 174, 212], [236, 180, 176], [228, 196, 144],
    [204, 210, 120], [180, 222, 120], [168, 226, 144], [152, 226, 180], [160, 214, 228], [160, 162, 160], [0, 0, 0], [0, 0, 0],
];

/// Different colours in a fixed order.
#[derive(Clone, Debug, PartialEq)]
pub struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// The different ones of `colours`, in order of their first appearance.
    ///
    /// # Errors
    /// No colour.
    pub fn new(colours: impl IntoIterator<Item = [u8; 3]>) -> Result<Self> {
        let mut known = BTreeSet::new();
        let different: Vec<[u8; 3]> = colours.into_iter().filter(|colour| known.insert(*colour)).collect();
        match different.is_empty() {
            true => Err(Error::Invalid("a palette of no colours".into())),
            false => Ok(Self(different)),
        }
    }

    /// The NES's 54.
    ///
    /// # Errors
    /// None.
    pub fn nes() -> Result<Self> {
        Self::new(NES)
    }

    /// At most `count` colours, 64 to 256, that stand for those of `pixels` (NeuQuant, Dekker 1994).
    ///
    /// # Errors
    /// Another count; no pixels.
    pub fn of_pixels(pixels: &[[u8; 3]], count: usize) -> Result<Self> {
        if !(64..=256).contains(&count) {
            return Err(Error::Invalid(format!("a palette of {count} colours: it may have 64 to 256")));
        }
        // With few pixels its network learns nothing: they are shown several times.
        let opaque = pixels.iter().flat_map(|&[red, green, blue]| [red, green, blue, 255]);
        let bytes: Vec<u8> = opaque.cycle().take(4 * pixels.len().max(10_000)).collect();
        if pixels.is_empty() {
            return Self::new([]);
        }
        Self::new(NeuQuant::new(1, count, &bytes).color_map_rgb().as_chunks::<3>().0.iter().copied())
    }

    /// Reads a GIMP palette (`.gpl`: red, green and blue a line) or a list of `RRGGBB` (`.hex`).
    ///
    /// # Errors
    /// Another ending; a file that cannot be read; the line that is no colour.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |what: String| Error::bad_file(path, what);
        let gimp = match path.extension().and_then(|ending| ending.to_str()) {
            Some("gpl") => true,
            Some("hex") => false,
            _ => return Err(wrong("a palette is a GIMP palette (.gpl) or a list of RRGGBB (.hex)".into())),
        };
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut colours = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let about = ["GIMP Palette", "Name:", "Columns:", "#"];
            if line.is_empty() || (gimp && about.iter().any(|start| line.starts_with(start))) {
                continue;
            }
            let colour = if gimp { decimal(line) } else { hexadecimal(line) };
            colours.push(colour.ok_or_else(|| wrong(format!("line {}: `{line}` is no colour", number + 1)))?);
        }
        if colours.is_empty() {
            return Err(wrong("there is no colour in it".into()));
        }
        Self::new(colours)
    }

    /// The colours.
    pub fn colours(&self) -> &[[u8; 3]] {
        &self.0
    }

    /// As the text of a `.hex` file.
    pub fn hex(&self) -> String {
        self.0.iter().map(|[red, green, blue]| format!("{red:02x}{green:02x}{blue:02x}\n")).collect()
    }

    /// The colour with the smallest squared distance in red, green and blue; the first one of several.
    pub fn nearest(&self, colour: [u8; 3]) -> [u8; 3] {
        nearest(&self.0, colour)
    }

    /// Gives each pixel the nearest colour.
    pub fn apply(&self, frame: &mut Frame) {
        frame.pixels.iter_mut().for_each(|pixel| *pixel = self.nearest(*pixel));
    }
}

fn nearest(colours: &[[u8; 3]], colour: [u8; 3]) -> [u8; 3] {
    let distance = |other: &&[u8; 3]| squared_distance(**other, colour);
    colours.iter().min_by_key(distance).copied().unwrap_or(colour)
}

fn squared_distance(a: [u8; 3], b: [u8; 3]) -> u64 {
    a.iter().zip(b).map(|(&a, b)| u64::from(a.abs_diff(b)).pow(2)).sum()
}

fn decimal(line: &str) -> Option<[u8; 3]> {
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

fn hexadecimal(line: &str) -> Option<[u8; 3]> {
    let digits = line.strip_prefix('#').unwrap_or(line);
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 6)?;
    Some([16, 8, 0].map(|shift| (number >> shift) as u8))
}

/// Leaves at most `count` colours in each block of [`BLOCK`] pixels: the most frequent ones (of equally frequent ones the
/// darker, as bytes compare); all others become the nearest of these.
pub fn limit_colours(frame: &mut Frame, count: usize) {
    for top in (0..frame.height).step_by(BLOCK) {
        for left in (0..frame.width).step_by(BLOCK) {
            let rows = top..(top + BLOCK).min(frame.height);
            let (start, end) = (left, (left + BLOCK).min(frame.width));
            let mut found = std::collections::BTreeMap::<[u8; 3], usize>::new();
            for y in rows.clone() {
                for &pixel in &frame.pixels[y * frame.width + start..y * frame.width + end] {
                    *found.entry(pixel).or_default() += 1;
                }
            }
            let mut found: Vec<([u8; 3], usize)> = found.into_iter().collect();
            found.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
            let kept: Vec<[u8; 3]> = found.into_iter().take(count).map(|(colour, _)| colour).collect();
            for y in rows {
                for pixel in &mut frame.pixels[y * frame.width + start..y * frame.width + end] {
                    *pixel = nearest(&kept, *pixel);
                }
            }
        }
    }
}

/// The part of `frame` with the upper left corner `(left, top)`, `width` × `height` pixels that lie in it.
pub fn part(frame: &Frame, [left, top]: [usize; 2], [width, height]: [usize; 2]) -> Frame {
    let row = |y: usize| &frame.pixels[y * frame.width + left..][..width];
    Frame { width, height, pixels: (top..top + height).flat_map(row).copied().collect() }
}

/// Squares of side `side`, row after row; what is left at the right and at the bottom is left out.
pub fn slice(frame: &Frame, side: usize) -> Vec<Frame> {
    let (columns, rows) = (frame.width / side, frame.height / side);
    let corner = |i: usize| [i % columns * side, i / columns * side];
    (0..columns * rows).map(|i| part(frame, corner(i), [side; 2])).collect()
}

/// √ of the mean squared difference of the bytes of two pictures of one size: 0 for the same, at most 255.
pub fn difference(a: &Frame, b: &Frame) -> f64 {
    let sum: u64 = a.pixels.iter().zip(&b.pixels).map(|(&a, &b)| squared_distance(a, b)).sum();
    (sum as f64 / (3 * a.pixels.len()).max(1) as f64).sqrt()
}

/// Which tile each of `tiles` becomes if those that differ from an earlier one by at most `threshold` are replaced by it;
/// and these first ones.
pub fn unique(tiles: &[Frame], threshold: f64) -> (Vec<usize>, Vec<Frame>) {
    let mut kept: Vec<Frame> = Vec::new();
    let mut becomes = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let same = |other: &Frame| tile.pixels == other.pixels || difference(tile, other) <= threshold;
        becomes.push(kept.iter().position(same).unwrap_or_else(|| {
            kept.push(tile.clone());
            kept.len() - 1
        }));
    }
    (becomes, kept)
}

/// Pictures of one size without gaps, row after row, on black.
pub fn sheet(tiles: &[Frame], columns: usize) -> Frame {
    let Some(first) = tiles.first() else { return Frame::filled(0, 0, [0; 3]) };
    let (width, height) = (first.width, first.height);
    let mut whole = Frame::filled(columns * width, tiles.len().div_ceil(columns) * height, [0; 3]);
    for (i, tile) in tiles.iter().enumerate() {
        let (left, top) = (i % columns * width, i / columns * height);
        for (y, row) in tile.pixels.chunks_exact(width).enumerate() {
            let at = (top + y) * whole.width + left;
            whole.pixels[at..at + width].copy_from_slice(row);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const BLACK: [u8; 3] = [0; 3];
    const WHITE: [u8; 3] = [255; 3];

    fn frame(width: usize, pixels: &[[u8; 3]]) -> Frame {
        Frame { width, height: pixels.len() / width, pixels: pixels.to_vec() }
    }

    #[test]
    fn the_nearest_colour_by_hand() {
        let palette = Palette::new([BLACK, [10, 0, 0], BLACK, WHITE]).unwrap();
        assert_eq!(palette.colours(), [BLACK, [10, 0, 0], WHITE]);
        // 5 is as far from 0 as from 10: the first one. (6, 3, 0): 45 from black, 25 from the other.
        assert_eq!(palette.nearest([5, 0, 0]), BLACK);
        assert_eq!(palette.nearest([6, 3, 0]), [10, 0, 0]);
        assert_eq!(palette.nearest([130, 130, 130]), WHITE);
        assert_eq!(palette.hex(), "000000\n0a0000\nffffff\n");
        let nes = Palette::nes().unwrap();
        assert_eq!(nes.colours().len(), 54);
        // The sky of many of its games.
        assert_eq!(nes.nearest([120, 130, 240]), [120, 124, 236]);
    }

    #[test]
    fn palettes_are_read_and_made_of_images() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            Palette::read(&folder.path().join(name))
        };
        let gimp = write("a.gpl", "GIMP Palette\nName: two\n#\n  0   0   0 black\n10 0 0\n").unwrap();
        assert_eq!(gimp.colours(), [BLACK, [10, 0, 0]]);
        assert_eq!(write("a.hex", "000000\n#0A0000\n").unwrap(), gimp);
        let message = |name: &str, text: &str| write(name, text).unwrap_err().to_string();
        assert!(message("b.hex", "000000\nblue").contains("line 2: `blue` is no colour"));
        assert!(message("b.gpl", "GIMP Palette\n").contains("no colour in it"));
        assert!(message("b.txt", "").contains(".gpl"));
        // Two colours, and what the network leaves between them is near one of them.
        let pixels: Vec<[u8; 3]> =
            (0..500).map(|i| if i % 2 == 0 { [200, 30, 30] } else { [20, 20, 220] }).collect();
        let palette = Palette::of_pixels(&pixels, 64).unwrap();
        for colour in [[200, 30, 30], [20, 20, 220]] {
            assert!(squared_distance(palette.nearest(colour), colour) < 50, "{colour:?}");
        }
        assert!(Palette::of_pixels(&pixels, 12).is_err() && Palette::of_pixels(&[], 64).is_err());
    }

    #[test]
    fn a_block_keeps_its_most_frequent_colours() {
        // One row of 18 pixels: a block of 16 and a rest of 2.
        let mut row = vec![BLACK; 9];
        row.extend([WHITE; 5]);
        row.extend([[100, 0, 0], [200, 200, 200]]);
        row.extend([[1, 2, 3], [4, 5, 6]]);
        let mut limited = frame(18, &row);
        limit_colours(&mut limited, 2);
        assert_eq!(limited.pixels[14..16], [BLACK, WHITE]);
        assert_eq!(limited.pixels[16..], [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn slicing_and_removing_what_is_there_by_hand() {
        let (a, b, c, d) = ([1; 3], [2; 3], [3; 3], [4; 3]);
        // Two tiles of 2 × 2 side by side, a column and a row too many.
        let picture = frame(5, &[[a, a, b, b, d], [a, a, b, c, d], [d, d, d, d, d]].concat());
        let tiles = slice(&picture, 2);
        assert_eq!(tiles.len(), 2);
        assert_eq!(tiles[1].pixels, [b, b, b, c]);
        // Differences: the second from the first √((3 · 1 + 4) / 4) = 1.32…, from itself 0.
        assert!((difference(&tiles[0], &tiles[1]) - (7.0f64 / 4.0).sqrt()).abs() < 1e-12);
        let all = [tiles[0].clone(), tiles[1].clone(), tiles[0].clone()];
        assert_eq!(unique(&all, 0.0).0, [0, 1, 0]);
        assert_eq!(unique(&all, 1.4).0, [0, 0, 0]);
        assert_eq!(unique(&all, 1.3).1.len(), 2);
        let back = sheet(&tiles, 2);
        assert_eq!(back.pixels, [[a, a, b, b], [a, a, b, c]].concat());
        assert_eq!(sheet(&tiles, 3).pixels[4..6], [BLACK, BLACK]);
    }

    proptest! {
        /// Done twice is done once, and every pixel is in the palette.
        #[test]
        fn mapping_is_idempotent(
            colours in prop::collection::vec(any::<[u8; 3]>(), 1..20),
            pixels in prop::collection::vec(any::<[u8; 3]>(), 400),
            count in 1usize..6,
        ) {
            let palette = Palette::new(colours).unwrap();
            let mut once = frame(20, &pixels);
            palette.apply(&mut once);
            limit_colours(&mut once, count);
            prop_assert!(once.pixels.iter().all(|pixel| palette.colours().contains(pixel)));
            let mut twice = once.clone();
            palette.apply(&mut twice);
            limit_colours(&mut twice, count);
            prop_assert!(once.pixels == twice.pixels);
            let block = part(&once, [0, 0], [BLOCK, BLOCK]);
            prop_assert!(block.pixels.iter().collect::<BTreeSet<_>>().len() <= count);
        }
    }
}
