//! One picture: decoded, the middle cut out, resized.

use crate::{Error, Result};
use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How a picture gets its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// A pixel is the mean of the area that it covers.
    #[default]
    Area,
    /// Cubic interpolation, over a wider area where it makes smaller.
    Bicubic,
}

/// 24-bit colours, rows from top to bottom.
#[derive(Clone, Debug)]
pub struct Picture(RgbImage);

impl Picture {
    /// Decodes a file; what is transparent becomes white.
    ///
    /// # Errors
    /// A file that cannot be read or is no image.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let decoded = image::load_from_memory(&bytes);
        Ok(Self::over_white(decoded.map_err(|error| Error::bad_file(path, error.to_string()))?))
    }

    fn over_white(image: DynamicImage) -> Self {
        if !image.color().has_alpha() {
            return Self(image.into_rgb8());
        }
        let image = image.into_rgba8();
        let mut flat = RgbImage::new(image.width(), image.height());
        for (to, from) in flat.pixels_mut().zip(image.pixels()) {
            let [red, green, blue, alpha] = from.0.map(u32::from);
            to.0 = [red, green, blue].map(|x| ((x * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
        }
        Self(flat)
    }

    /// From rows of pixels, `height · width · 3` bytes; `None` if they are not so many.
    pub fn from_rgb(width: usize, height: usize, bytes: Vec<u8>) -> Option<Self> {
        RgbImage::from_raw(width as u32, height as u32, bytes).map(Self)
    }

    /// Width and height, in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.0.width() as usize, self.0.height() as usize]
    }

    /// Its middle square, of side `crop` or as large as fits, as a square of side `size`: `size · size · channels` bytes,
    /// channels last.
    ///
    /// # Errors
    /// A picture that is smaller than `crop`, or empty.
    pub fn squared(
        &self,
        crop: Option<usize>,
        size: usize,
        channels: usize,
        resize: Resize,
    ) -> Result<Vec<u8>, String> {
        let (width, height) = (self.0.width() as usize, self.0.height() as usize);
        let side = crop.unwrap_or(width.min(height));
        if side == 0 || side > width || side > height {
            return Err(format!("it has {width} × {height} pixels, data.crop needs {side} × {side}"));
        }
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let square = image::imageops::crop_imm(&self.0, left as u32, top as u32, side as u32, side as u32);
        let square = square.to_image();
        let resized = match resize {
            _ if side == size => square.into_raw(),
            Resize::Area if size < side => area(&square, side, size),
            Resize::Area | Resize::Bicubic => {
                image::imageops::resize(&square, size as u32, size as u32, FilterType::CatmullRom).into_raw()
            }
        };
        Ok(match channels {
            3 => resized,
            // Rec. 601, as Pillow's and OpenCV's.
            _ => resized.as_chunks().0.iter().map(|&[r, g, b]| luma(r, g, b)).collect(),
        })
    }
}

fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114 + 500) / 1000) as u8
}

/// Each pixel the mean of the area that it covers, parts of pixels counted as such.
fn area(image: &RgbImage, from: usize, to: usize) -> Vec<u8> {
    // In units of 1 / to of a pixel of `image`, pixel i of the result reaches from i · from to (i + 1) · from.
    let weights = |i: usize| {
        (i * from / to..((i + 1) * from).div_ceil(to)).map(move |source| {
            let (start, end) = ((i * from).max(source * to), ((i + 1) * from).min((source + 1) * to));
            (source, (end - start) as u64)
        })
    };
    let pixels = image.as_raw();
    let mut sums = vec![0u64; from * 3];
    let mut result = Vec::with_capacity(to * to * 3);
    let whole = (from * from) as u64;
    for y in 0..to {
        sums.fill(0);
        for (row, weight) in weights(y) {
            let row = &pixels[row * from * 3..(row + 1) * from * 3];
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * u64::from(x));
        }
        for x in 0..to {
            for channel in 0..3 {
                let sum: u64 = weights(x).map(|(column, weight)| weight * sums[column * 3 + channel]).sum();
                result.push(((sum + whole / 2) / whole) as u8);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn grey(width: usize, values: &[u8]) -> Picture {
        let bytes = values.iter().flat_map(|&x| [x; 3]).collect();
        Picture::from_rgb(width, values.len() / width, bytes).unwrap()
    }

    #[test]
    fn areas_are_means_and_count_parts_of_pixels() {
        let picture = grey(2, &[10, 20, 30, 41]);
        assert_eq!(picture.squared(None, 1, 1, Resize::Area).unwrap(), [25]);
        // Three pixels become two: (2·10 + 1·40)/3 and (1·40 + 2·70)/3 in each direction.
        let picture = grey(3, &[10, 40, 70, 10, 40, 70, 10, 40, 70]);
        assert_eq!(picture.squared(None, 2, 1, Resize::Area).unwrap(), [20, 60, 20, 60]);
    }

    #[test]
    fn the_middle_is_cut_out() {
        let picture = grey(4, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(picture.squared(None, 2, 1, Resize::Area).unwrap(), [2, 3, 6, 7]);
        assert_eq!(picture.squared(Some(1), 1, 3, Resize::Area).unwrap(), [2; 3]);
        let refused = picture.squared(Some(3), 2, 1, Resize::Area).unwrap_err();
        assert_eq!(refused, "it has 4 × 2 pixels, data.crop needs 3 × 3");
        let larger = picture.squared(None, 8, 3, Resize::Bicubic).unwrap();
        assert_eq!(larger.len(), 8 * 8 * 3);
    }

    #[test]
    fn transparent_is_white_and_grey_is_weighted() {
        let pixels = vec![0, 0, 0, 0, 0, 0, 0, 255, 200, 100, 0, 128];
        let image = image::RgbaImage::from_raw(3, 1, pixels).unwrap();
        let picture = Picture::over_white(DynamicImage::ImageRgba8(image));
        assert_eq!(picture.0.as_raw()[..], [255, 255, 255, 0, 0, 0, 227, 177, 127]);
        assert_eq!(luma(255, 0, 0), 76);
    }
}
