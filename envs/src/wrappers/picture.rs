//! From a game's picture to what a network reads.

use super::resize::{Area, Bilinear, ResizeMethod, Rows};
use crate::error::{Error, Result};

/// What is done to a picture, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PictureConfig {
    /// Pixels that are cut off: top, bottom, left, right.
    pub crop: Option<[usize; 4]>,
    /// One plane of brightness in place of the colours.
    pub grayscale: bool,
    /// Height and width in the end.
    pub resize: Option<[usize; 2]>,
    /// How that is done.
    pub method: ResizeMethod,
}

impl PictureConfig {
    /// The recipe key that asks for pictures; that of the stack if none of these does.
    pub(super) fn first_key(&self) -> &'static str {
        match self {
            Self { crop: Some(_), .. } => "crop",
            Self { grayscale: true, .. } => "grayscale",
            Self { resize: Some(_), .. } => "resize",
            _ => "frame_stack",
        }
    }
}

/// Pixels of the largest picture whose sums fit into 32 bits.
const MOST: usize = 1 << 24;

/// Crops, greys and resizes pictures of one shape, a row at a time, without a picture in between.
///
/// The arithmetic is OpenCV's: `cvtColor` with `COLOR_RGB2GRAY` to the bit; then, on the rounded bytes, `resize` with
/// `INTER_LINEAR` to the bit, or with `INTER_AREA`, of which this is the exact value: OpenCV's 32-bit sums err
/// sometimes where the mean lies exactly between two bytes.
///
/// The bilinear filter of Pathak et al. 2017 is Pillow's, which in making smaller weighs a whole area, too, with a
/// triangle. Means are the nearer ones to it: on a frame of Breakout they differ by 1.4 levels of 255 in the mean,
/// OpenCV's bilinear, which sees four pixels only, by 7.2.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Height, width, colours of what comes in.
    from: [usize; 3],
    /// First row and column that is kept, number of them.
    top: usize,
    left: usize,
    height: usize,
    width: usize,
    grey: bool,
    resize: Resize,
    /// One row of one plane.
    row: Vec<u8>,
    /// Planes, height, width of what goes out.
    shape: [usize; 3],
}

#[derive(Clone, Debug)]
enum Resize {
    None,
    Area(Area),
    Bilinear(Bilinear),
}

impl Picture {
    /// For pictures of `from = [height, width, colours]` bytes; errors name the environment `id`.
    ///
    /// # Errors
    /// A crop that leaves nothing; grey of anything but 1 or 3 colours; a size of 0, or a larger one by the mean of
    /// areas; pictures of more than 16 million pixels.
    pub fn new(id: &str, config: &PictureConfig, from: [usize; 3]) -> Result<Self> {
        let refuse = |argument: &str, message: String| {
            Err(Error::BadArgument { id: id.into(), argument: argument.into(), message })
        };
        let [height, width, colours] = from;
        let [top, bottom, left, right] = config.crop.unwrap_or_default();
        let (Some(rows), Some(columns)) = (
            height.checked_sub(top.saturating_add(bottom)).filter(|&rows| rows > 0),
            width.checked_sub(left.saturating_add(right)).filter(|&columns| columns > 0),
        ) else {
            let margins = format!("[top, bottom, left, right] = [{top}, {bottom}, {left}, {right}]");
            return refuse("crop", format!("{margins} leaves nothing of {height} × {width} pixels"));
        };
        if config.grayscale && !matches!(colours, 1 | 3) {
            return refuse(
                "grayscale",
                format!("expected red, green and blue, found {colours} values a pixel"),
            );
        }
        let grey = config.grayscale && colours == 3;
        let planes = if grey { 1 } else { colours };
        let [h, w] = config.resize.unwrap_or([rows, columns]);
        if h == 0 || w == 0 {
            return refuse("resize", format!("expected at least 1 × 1 pixel, found {h} × {w}"));
        }
        if rows.saturating_mul(columns) > MOST || h.saturating_mul(w) > MOST {
            return refuse("resize", format!("{rows} × {columns} to {h} × {w}: more than 16 million pixels"));
        }
        let halved = rows == 2 * h && columns == 2 * w;
        let resize = match config.method {
            _ if [h, w] == [rows, columns] => Resize::None,
            ResizeMethod::Area if h > rows || w > columns => {
                let message = format!(
                    "[{h}, {w}] is larger than the picture of {rows} × {columns} pixels, and means of areas only make \
                     it smaller; for a larger one take resize_method = \"bilinear\""
                );
                return refuse("resize", message);
            }
            // OpenCV takes the mean of four there, too.
            ResizeMethod::Bilinear if !halved => Resize::Bilinear(Bilinear::new([rows, columns], [h, w])),
            _ => Resize::Area(Area::new([rows, columns], [h, w])),
        };
        let row = vec![0; columns];
        let shape = [planes, h, w];
        Ok(Self { from, top, left, height: rows, width: columns, grey, resize, row, shape })
    }

    /// Planes, height and width of what [`Picture::make`] makes.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Makes the picture `to`, `[planes, h, w]`, of `from`, `[height, width, colours]`.
    ///
    /// # Panics
    /// If either has another length.
    pub fn make(&mut self, from: &[u8], to: &mut [u8]) {
        assert_eq!(
            from.len(),
            self.from.iter().product::<usize>(),
            "the picture that comes in is {:?}",
            self.from
        );
        assert_eq!(
            to.len(),
            self.shape.iter().product::<usize>(),
            "the picture that goes out is {:?}",
            self.shape
        );
        // With the widest vectors this processor has, for which everything below must be inlined. A closure that
        // could be called twice is not: the compiler puts a function of its own around it.
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let once = self;
                once.make_planes(from, to);
            },
        );
    }

    #[inline(always)]
    fn make_planes(&mut self, from: &[u8], to: &mut [u8]) {
        let [_, width, colours] = self.from;
        let [planes, h, w] = self.shape;
        for plane in 0..planes {
            let rows = Kept {
                from,
                stride: width * colours,
                first: (self.top * width + self.left) * colours,
                colours,
                colour: (!self.grey).then_some(plane),
            };
            let to = &mut to[plane * h * w..(plane + 1) * h * w];
            match &mut self.resize {
                Resize::None => {
                    for (y, to) in to.chunks_exact_mut(w).enumerate().take(self.height) {
                        rows.read(y, to);
                    }
                }
                Resize::Area(area) => area.resize(&rows, &mut self.row[..self.width], to),
                Resize::Bilinear(bilinear) => bilinear.resize(&rows, &mut self.row[..self.width], to),
            }
        }
    }
}

/// The rows that the crop leaves, of one colour or in grey.
struct Kept<'a> {
    from: &'a [u8],
    /// Bytes from one row to the next, and before the first kept pixel.
    stride: usize,
    first: usize,
    colours: usize,
    /// `None` for grey.
    colour: Option<usize>,
}

impl Rows for Kept<'_> {
    #[inline(always)]
    fn read(&self, y: usize, row: &mut [u8]) {
        let first = self.first + y * self.stride;
        let pixels = &self.from[first..first + row.len() * self.colours];
        match (self.colour, self.colours) {
            (Some(_), 1) => row.copy_from_slice(pixels),
            (Some(0), 3) => every::<0>(pixels, row),
            (Some(1), 3) => every::<1>(pixels, row),
            (Some(2), 3) => every::<2>(pixels, row),
            (Some(colour), colours) => {
                for (to, pixel) in row.iter_mut().zip(pixels.chunks_exact(colours)) {
                    *to = pixel[colour];
                }
            }
            (None, _) => {
                for (to, pixel) in row.iter_mut().zip(pixels.as_chunks().0) {
                    *to = grey(*pixel);
                }
            }
        }
    }
}

/// Byte `COLOUR` of each pixel of three: a constant, so that the loop becomes shuffles.
#[inline(always)]
fn every<const COLOUR: usize>(pixels: &[u8], row: &mut [u8]) {
    for (to, pixel) in row.iter_mut().zip(pixels.as_chunks::<3>().0) {
        *to = pixel[COLOUR];
    }
}

/// Brightness of a colour after Rec. 601, in OpenCV's integers: 0.299, 0.587 and 0.114 times 2¹⁵, rounded.
#[inline(always)]
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 9_798 + u32::from(green) * 19_235 + u32::from(blue) * 3_735 + (1 << 14)) >> 15) as u8
}
