//! A picture of an environment, for people.

/// An image of 24-bit colours, rows from top to bottom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green and blue of each pixel: `width · height` of them.
    pub pixels: Vec<[u8; 3]>,
}

impl Frame {
    /// An image of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, pixels: vec![colour; width * height] }
    }

    /// Colours the pixel `(x, y)`; outside the image nothing happens.
    pub fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = colour;
        }
    }

    /// The image in another size, each pixel the mean of the area it covers.
    ///
    /// # Panics
    /// If one of the two images has no pixels.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        assert!(self.width * self.height * width * height > 0, "an image has at least one pixel");
        let mut pixels = Vec::with_capacity(width * height);
        // The part of the source that pixel `i` of `to` covers: never empty.
        let part = |i: usize, from: usize, to: usize| {
            let first = i * from / to;
            first..((i + 1) * from / to).max(first + 1)
        };
        for y in 0..height {
            let rows = part(y, self.height, height);
            for x in 0..width {
                let columns = part(x, self.width, width);
                let mut sum = [0; 3];
                for row in rows.clone() {
                    for pixel in &self.pixels[row * self.width..][columns.clone()] {
                        for (sum, &value) in sum.iter_mut().zip(pixel) {
                            *sum += usize::from(value);
                        }
                    }
                }
                let count = rows.len() * columns.len();
                pixels.push(sum.map(|sum| ((sum + count / 2) / count) as u8));
            }
        }
        Self { width, height, pixels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_images_are_means_and_larger_ones_repeat() {
        let grey = |values: &[u8]| values.iter().map(|&v| [v; 3]).collect();
        let image = Frame { width: 4, height: 2, pixels: grey(&[0, 10, 100, 100, 20, 31, 100, 104]) };
        // (0 + 10 + 20 + 31) / 4 = 15.25, (100 + 100 + 100 + 104) / 4 = 101
        assert_eq!(image.resized(2, 1).pixels, [[15; 3], [101; 3]]);
        let small = Frame { width: 2, height: 1, pixels: grey(&[1, 2]) };
        assert_eq!(small.resized(4, 1).pixels, [[1; 3], [1; 3], [2; 3], [2; 3]]);
        assert_eq!(image.resized(4, 2), image);
    }
}
