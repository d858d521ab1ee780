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

    /// Draws a line with round ends and smooth edges. Coordinates and `width` in pixels, `(0, 0)` being the upper
    /// left corner; what lies outside is left out.
    pub fn line(&mut self, from: [f64; 2], to: [f64; 2], width: f64, colour: [u8; 3]) {
        let along = [to[0] - from[0], to[1] - from[1]];
        let squared = along[0] * along[0] + along[1] * along[1];
        let reach = width / 2.0 + 1.0;
        let [columns, rows] = [(0, self.width), (1, self.height)].map(|(axis, size)| {
            let (low, high) = (from[axis].min(to[axis]) - reach, from[axis].max(to[axis]) + reach);
            low.max(0.0) as usize..(high.max(0.0).ceil() as usize).min(size)
        });
        for y in rows {
            for x in columns.clone() {
                let place = [x as f64 + 0.5 - from[0], y as f64 + 0.5 - from[1]];
                // The nearest point of the line is this share of it away from its beginning.
                let dot = place[0] * along[0] + place[1] * along[1];
                let share = if squared > 0.0 { (dot / squared).clamp(0.0, 1.0) } else { 0.0 };
                let distance = (place[0] - share * along[0]).hypot(place[1] - share * along[1]);
                let cover = (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0);
                let pixel = &mut self.pixels[y * self.width + x];
                for (old, new) in pixel.iter_mut().zip(colour) {
                    *old = (f64::from(*old) + (f64::from(new) - f64::from(*old)) * cover).round() as u8;
                }
            }
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
    fn lines_cover_what_they_should() {
        let mut image = Frame::filled(8, 6, [0; 3]);
        // Two pixels wide, on the border of rows 2 and 3.
        image.line([2.0, 3.0], [6.0, 3.0], 2.0, [200, 100, 50]);
        let row = |y: usize| image.pixels[y * 8..][..8].to_vec();
        for y in [2, 3] {
            assert_eq!(row(y)[2..6], [[200, 100, 50]; 4]);
            assert_eq!(row(y)[0], [0; 3]);
        }
        assert_eq!(row(0), [[0; 3]; 8]);
        assert_eq!(row(5), [[0; 3]; 8]);
        // Outside nothing is drawn, and nothing breaks.
        let before = image.clone();
        image.line([-50.0, -9.0], [-20.0, 90.0], 4.0, [255; 3]);
        assert_eq!(image, before);
    }

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
