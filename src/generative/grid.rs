//! Images side by side, as pictures of 24-bit colours and as files.

use crate::{Error, Result};
use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use imago_envs::Frame;
use tch::{Kind, Tensor};

/// Pixels between two images of a grid.
const GAP: usize = 2;

/// One image, `[C, H, W]` in `[−1, 1]` with 1 or 3 channels.
pub fn frame(image: &Tensor) -> Frame {
    tiles(&image.unsqueeze(0), 1)
}

/// Images `[N, C, H, W]` in `[−1, 1]`, row after row, on white.
pub fn tiles(images: &Tensor, columns: usize) -> Frame {
    let size = images.size();
    let (count, channels, height, width) = (size[0] as usize, size[1], size[2] as usize, size[3] as usize);
    let columns = columns.clamp(1, count.max(1));
    let rows = count.div_ceil(columns);
    let side = |tiles: usize, length: usize| tiles * length + tiles.saturating_sub(1) * GAP;
    let mut whole = Frame::filled(side(columns, width), side(rows, height), [255; 3]);
    let bytes = tch::no_grad(|| ((images.to_kind(Kind::Float) + 1.0) * 127.5).round().clamp(0.0, 255.0));
    let bytes = bytes.expand([-1, 3.max(channels), -1, -1], false).permute([0, 2, 3, 1]).to_kind(Kind::Uint8);
    let bytes = bytes.contiguous();
    let pixels = crate::memory::slice::<u8>(&bytes).as_chunks::<3>().0;
    for (i, image) in pixels.chunks_exact((height * width).max(1)).enumerate() {
        let (top, left) = ((i / columns) * (height + GAP), (i % columns) * (width + GAP));
        for (y, row) in image.chunks_exact(width).enumerate() {
            let at = (top + y) * whole.width + left;
            whole.pixels[at..at + width].copy_from_slice(row);
        }
    }
    whole
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// None but for pictures without pixels.
pub fn png(frame: &Frame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (width, height) = (frame.width as u32, frame.height as u32);
    PngEncoder::new(&mut bytes)
        .write_image(frame.pixels.as_flattened(), width, height, image::ExtendedColorType::Rgb8)
        .map_err(|error| Error::Invalid(format!("a picture of {width} × {height} is no PNG: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tiles_lie_row_after_row() {
        let images = Tensor::from_slice(&[-1.0f32, 0.0, 1.0]).view([3, 1, 1, 1]).expand([3, 1, 2, 2], false);
        let grid = tiles(&images, 2);
        assert_eq!((grid.width, grid.height), (6, 6));
        let at = |x: usize, y: usize| grid.pixels[y * grid.width + x];
        assert_eq!((at(0, 0), at(2, 0), at(4, 1), at(1, 4)), ([0; 3], [255; 3], [128; 3], [255; 3]));
        let read = image::load_from_memory(&png(&grid).unwrap()).unwrap().into_rgb8();
        assert_eq!(read.into_raw(), grid.pixels.as_flattened());
    }

    #[test]
    fn colours_keep_their_order() {
        let image = Tensor::from_slice(&[-1.0f32, 0.0, 1.0]).view([3, 1, 1]);
        assert_eq!(frame(&image).pixels, [[0, 128, 255]]);
    }
}
