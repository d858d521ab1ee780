//! Convolutions over small images in plain memory: patches side by side and one matrix product a layer, forward and
//! backward. Measured end to end in `experiments/bench`, row `pixels`.
//!
//! Images are kept with channels last: a patch's row is then one run of memory. Weights are those of
//! [`Flat`](super::Flat) in libtorch's order `[out, in, height, width]` and are put into the order of the patches
//! once a call.

use super::dense::{Matrix, activate, product, sum_rows, through_activation, vectorised};
use super::flat::Slot;
use super::torso::{Activation, Torso, image_shape};
use imago_envs::{Leaf, Space};

/// Rows of a matrix product that keep patches and weights in the second-level cache.
const ROWS: usize = 256;

/// One layer: its place in the parameter buffer and its geometry.
#[derive(Clone, Debug)]
struct Layer {
    /// First float of the weights, `[output, input, kernel, kernel]`.
    weight: usize,
    /// First float of the bias, `[output]`.
    bias: usize,
    /// Channels it reads.
    input: usize,
    /// Channels it gives.
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    /// Height and width it reads.
    from: [usize; 2],
    /// Height and width it gives.
    to: [usize; 2],
}

impl Layer {
    /// Floats in a patch.
    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.input
    }

    /// Pixels it gives.
    fn pixels(&self) -> usize {
        self.to[0] * self.to[1]
    }

    /// Floats of an image it reads.
    fn image(&self) -> usize {
        self.from[0] * self.from[1] * self.input
    }

    /// Images whose patches go into one matrix product.
    fn together(&self) -> usize {
        (ROWS / self.pixels()).max(1)
    }

    /// Calls `visit(patch offset, image offset, floats)` for every run of memory that a patch shares with the image;
    /// what lies in the padding is left out.
    #[inline(always)]
    fn runs(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let ([height, width], channels) = (self.from, self.input);
        for y in 0..self.to[0] {
            for x in 0..self.to[1] {
                let pixel = (y * self.to[1] + x) * self.patch();
                // The columns of the patch that lie within the image.
                let left = self.padding.saturating_sub(x * self.stride);
                let start = x * self.stride + left - self.padding;
                let columns = (self.kernel - left).min(width.saturating_sub(start));
                for row in 0..self.kernel {
                    let Some(image_row) = (y * self.stride + row).checked_sub(self.padding) else { continue };
                    if image_row < height {
                        let at = pixel + (row * self.kernel + left) * channels;
                        visit(at, (image_row * width + start) * channels, columns * channels);
                    }
                }
            }
        }
    }

    /// The weights in the order of patches, `[kernel, kernel, input, output]`.
    fn pack(&self, weights: &[f32], packed: &mut Vec<f32>) {
        packed.resize(self.patch() * self.output, 0.0);
        self.reorder(|libtorch, ours| packed[ours] = weights[self.weight + libtorch]);
    }

    /// Calls `visit` with the places of each weight in libtorch's order and in that of patches.
    fn reorder(&self, mut visit: impl FnMut(usize, usize)) {
        let area = self.kernel * self.kernel;
        for output in 0..self.output {
            for input in 0..self.input {
                for tap in 0..area {
                    visit(
                        (output * self.input + input) * area + tap,
                        (tap * self.input + input) * self.output + output,
                    );
                }
            }
        }
    }
}

/// A stack of convolutions, each followed by the activation.
#[derive(Clone, Debug)]
pub struct Convolutions {
    layers: Vec<Layer>,
    activation: Activation,
    /// Whether images come with channels last.
    channels_last: bool,
}

/// What a forward pass leaves for the backward pass. Grows to the largest batch and is used again.
#[derive(Debug, Default)]
pub struct ImageTrace {
    /// The images as floats, channels last, then the output of each layer, `[rows, height, width, channels]`.
    images: Vec<Vec<f32>>,
    /// Output of the last layer as the next one reads it, `[rows, channels · height · width]`.
    features: Vec<f32>,
    /// Gradients of two neighbouring layers' outputs.
    gradients: [Vec<f32>; 2],
    patches: Vec<f32>,
    packed: Vec<f32>,
    packed_gradient: Vec<f32>,
}

impl ImageTrace {
    /// Features of the last forward pass, channel by channel as libtorch flattens images.
    pub fn features(&self) -> &[f32] {
        &self.features
    }
}

impl Convolutions {
    /// The convolutions of `torso` over images of `space` as they lie in `layout`; `None` if there are none.
    pub fn new(layout: &[Slot], torso: &Torso, space: &Space) -> Option<Self> {
        let ([_, mut height, mut width], channels_last) = image_shape(space)?;
        let layers: Vec<Layer> = torso
            .convolutions()
            .iter()
            .map(|convolution| {
                let weight = &layout[convolution.weight];
                let shrink =
                    |x: i64| (x + 2 * convolution.padding - weight.shape[2]) / convolution.stride + 1;
                let from = [height as usize, width as usize];
                (height, width) = (shrink(height), shrink(width));
                Layer {
                    weight: weight.offset,
                    bias: layout[convolution.bias].offset,
                    input: weight.shape[1] as usize,
                    output: weight.shape[0] as usize,
                    kernel: weight.shape[2] as usize,
                    stride: convolution.stride as usize,
                    padding: convolution.padding as usize,
                    from,
                    to: [height as usize, width as usize],
                }
            })
            .collect();
        let activation = torso.mlp().activation;
        (!layers.is_empty()).then_some(Self { layers, activation, channels_last })
    }

    /// Features of `rows` images into `trace`. Bytes count as `[0, 1]`.
    pub fn forward(&self, weights: &[f32], images: Leaf, rows: usize, trace: &mut ImageTrace) {
        trace.images.resize_with(self.layers.len() + 1, Vec::new);
        self.read(images, rows, &mut trace.images[0]);
        for (i, layer) in self.layers.iter().enumerate() {
            let (before, after) = trace.images.split_at_mut(i + 1);
            let (x, y) = (&before[i], &mut after[0]);
            y.resize(rows * layer.pixels() * layer.output, 0.0);
            layer.pack(weights, &mut trace.packed);
            let (patch, output) = (layer.patch(), layer.output);
            let images = x.chunks(layer.together() * layer.image());
            for (x, y) in images.zip(y.chunks_mut(layer.together() * layer.pixels() * output)) {
                let m = y.len() / output;
                gather(layer, x, &mut trace.patches);
                let (patches, packed) =
                    (Matrix::rows(&trace.patches, patch), Matrix::rows(&trace.packed, output));
                product(y, (m, patch, output), patches, packed, false);
            }
            activate(y, &weights[layer.bias..layer.bias + output], Some(self.activation));
        }
        // libtorch flattens images channel by channel.
        let Some(layer) = self.layers.last() else { return };
        let (pixels, channels) = (layer.pixels(), layer.output);
        trace.features.resize(rows * pixels * channels, 0.0);
        let last = &trace.images[self.layers.len()];
        let samples =
            last.chunks_exact(pixels * channels).zip(trace.features.chunks_exact_mut(pixels * channels));
        for (from, to) in samples {
            transpose(from, channels, to);
        }
    }

    /// Adds up d loss / d weight of every layer into `gradient`, laid out like the weights, from the gradient by the
    /// features of the last forward pass, `[rows, channels · height · width]`.
    pub fn backward(
        &self,
        weights: &[f32],
        gradient: &mut [f32],
        d_features: &[f32],
        trace: &mut ImageTrace,
    ) {
        let Some(last) = self.layers.last() else { return };
        let [mut dy, mut dx] = trace.gradients.each_mut();
        dy.resize(d_features.len(), 0.0);
        let size = last.pixels() * last.output;
        for (from, to) in d_features.chunks_exact(size).zip(dy.chunks_exact_mut(size)) {
            transpose(from, last.pixels(), to);
        }
        through_activation(dy, &trace.images[self.layers.len()], self.activation);
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let (patch, output) = (layer.patch(), layer.output);
            let db = &mut gradient[layer.bias..layer.bias + output];
            sum_rows(dy, db);
            trace.packed_gradient.clear();
            trace.packed_gradient.resize(patch * output, 0.0);
            layer.pack(weights, &mut trace.packed);
            let x = &trace.images[i];
            if i > 0 {
                dx.clear();
                dx.resize(x.len(), 0.0);
            }
            let step = layer.together();
            for (group, x) in x.chunks(step * layer.image()).enumerate() {
                let start = group * step * layer.pixels() * output;
                let dy = &dy[start..(start + step * layer.pixels() * output).min(dy.len())];
                let m = dy.len() / output;
                gather(layer, x, &mut trace.patches);
                // dW = patchesᵀ · dy, summed over the groups of images.
                let patches = Matrix::columns(&trace.patches, patch);
                let dw = &mut trace.packed_gradient;
                product(dw, (patch, m, output), patches, Matrix::rows(dy, output), true);
                if i > 0 {
                    let packed = Matrix::columns(&trace.packed, output);
                    product(&mut trace.patches, (m, output, patch), Matrix::rows(dy, output), packed, false);
                    let at = group * step * layer.image();
                    scatter(layer, &trace.patches, &mut dx[at..at + x.len()]);
                }
            }
            let dw = &trace.packed_gradient;
            layer.reorder(|libtorch, ours| gradient[layer.weight + libtorch] = dw[ours]);
            if i > 0 {
                through_activation(dx, x, self.activation);
                std::mem::swap(&mut dy, &mut dx);
            }
        }
    }

    /// Images as floats with channels last.
    fn read(&self, images: Leaf, rows: usize, to: &mut Vec<f32>) {
        let layer = &self.layers[0];
        let (size, channels) = (layer.image(), layer.input);
        to.resize(rows * size, 0.0);
        let area = size / channels;
        let channels_last = self.channels_last;
        match images {
            Leaf::U8(images) => {
                for (from, to) in images.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
                    vectorised(
                        #[inline(always)]
                        || {
                            let scaled = |byte: u8| f32::from(byte) / 255.0;
                            if channels_last {
                                to.iter_mut().zip(from).for_each(|(to, &from)| *to = scaled(from));
                            } else {
                                for (channel, plane) in from.chunks_exact(area).enumerate() {
                                    let places = to.iter_mut().skip(channel).step_by(channels);
                                    places.zip(plane).for_each(|(to, &from)| *to = scaled(from));
                                }
                            }
                        },
                    );
                }
            }
            Leaf::F32(images) => {
                for (from, to) in images.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
                    if channels_last { to.copy_from_slice(from) } else { transpose(from, area, to) }
                }
            }
            Leaf::I64(_) => unreachable!("images are bytes or floats"),
        }
    }
}

/// `from`, `[rows, columns]`, into `to`, `[columns, rows]`.
fn transpose(from: &[f32], columns: usize, to: &mut [f32]) {
    let rows = from.len() / columns;
    for (r, row) in from.chunks_exact(columns).enumerate() {
        to.iter_mut().skip(r).step_by(rows).zip(row).for_each(|(to, &from)| *to = from);
    }
}

/// The patches of some images, one a row: `[images · pixels, patch]`.
fn gather(layer: &Layer, images: &[f32], patches: &mut Vec<f32>) {
    let size = layer.pixels() * layer.patch();
    let count = images.len() / layer.image();
    // The padding stays zero only if nothing else was there.
    patches.clear();
    patches.resize(count * size, 0.0);
    for (image, patches) in images.chunks_exact(layer.image()).zip(patches.chunks_exact_mut(size)) {
        layer.runs(|at, from, floats| patches[at..at + floats].copy_from_slice(&image[from..from + floats]));
    }
}

/// Adds patches to the images they came from.
fn scatter(layer: &Layer, patches: &[f32], images: &mut [f32]) {
    let size = layer.pixels() * layer.patch();
    for (image, patches) in images.chunks_exact_mut(layer.image()).zip(patches.chunks_exact(size)) {
        vectorised(
            #[inline(always)]
            || {
                layer.runs(
                    #[inline(always)]
                    |at, to, floats| {
                        let sums = image[to..to + floats].iter_mut();
                        sums.zip(&patches[at..at + floats]).for_each(|(sum, x)| *sum += x);
                    },
                );
            },
        );
    }
}
