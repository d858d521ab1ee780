//! Small multi-layer perceptrons in plain memory: forward and analytic backward pass, without an autograd graph.
//!
//! At the sizes of control tasks libtorch spends its time around the arithmetic, not in it. Here a layer is one
//! matrix product (the `gemm` crate, which picks AVX-512 or AVX2 at run time) and one pass over its output. The
//! parameters are those of [`Flat`](super::Flat), so both paths can be taken with the same network, and a test
//! holds their gradients against each other.

use super::flat::Slot;
use super::torso::{Activation, Linear, Mlp};
use gemm::{Parallelism, gemm};

/// Runs a loop with the widest vectors this processor has.
///
/// The closure must be marked `#[inline(always)]`, and so must what it calls: only what is inlined is compiled for
/// those vectors.
#[inline(always)]
pub fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// tanh x to 3e-7 of its value, as a quotient of polynomials that vectorises; libtorch's is exact to 1e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Beyond this the quotient is 1 to the last bit. The coefficients are the minimax ones that Eigen uses too.
    let x = x.clamp(-7.905_311, 7.905_311);
    let x2 = x * x;
    let p = x2.mul_add(-2.760_768_5e-16, 2.000_188e-13);
    let p = x2.mul_add(p, -8.604_672e-11);
    let p = x2.mul_add(p, 5.122_297_3e-8);
    let p = x2.mul_add(p, 1.485_722_35e-5);
    let p = x2.mul_add(p, 6.372_619_4e-4);
    let p = x2.mul_add(p, 4.893_524_6e-3);
    let q = x2.mul_add(1.198_258_4e-6, 1.185_347_1e-4);
    let q = x2.mul_add(q, 2.268_434_7e-3);
    let q = x2.mul_add(q, 4.893_525e-3);
    x * p / q
}

/// A layer's place in the parameter buffer.
#[derive(Clone, Debug)]
struct Layer {
    /// First float of W, `[output, input]`.
    weight: usize,
    /// First float of b, `[output]`.
    bias: usize,
    input: usize,
    output: usize,
}

/// An [`Mlp`] with a linear layer after it, over a flat parameter buffer that is given to every call.
#[derive(Clone, Debug)]
pub struct Dense {
    layers: Vec<Layer>,
    activation: Activation,
}

/// What a forward pass leaves for the backward pass. Grows to the largest batch and is used again.
#[derive(Debug, Default)]
pub struct Trace {
    /// Output of each layer, `[rows, width]`.
    outputs: Vec<Vec<f32>>,
    /// Gradients of two neighbouring layers' outputs.
    gradients: [Vec<f32>; 2],
    rows: usize,
}

impl Trace {
    /// Output of the last layer, `[rows, outputs]`.
    pub fn output(&self) -> &[f32] {
        self.outputs.last().map_or(&[], Vec::as_slice)
    }

    /// As [`Trace::output`], to turn into what it stands for in place.
    pub fn output_mut(&mut self) -> &mut [f32] {
        self.outputs.last_mut().map_or(&mut [], Vec::as_mut_slice)
    }

    /// Where the caller writes the loss's gradient by [`Trace::output`] before [`Dense::backward`]: the same shape,
    /// beside the output itself.
    pub fn output_and_gradient(&mut self) -> (&[f32], &mut [f32]) {
        let output = self.outputs.last().map_or(&[][..], Vec::as_slice);
        self.gradients[0].resize(output.len(), 0.0);
        (output, &mut self.gradients[0])
    }
}

/// `y[m, n] = x[m, k] · w[k, n]`, each with the strides of its rows and columns; `y` in rows.
fn product(
    y: &mut [f32],
    (m, k, n): (usize, usize, usize),
    x: (&[f32], [usize; 2]),
    w: (&[f32], [usize; 2]),
) {
    let (x, [x_row, x_column]) = x;
    let (w, [w_row, w_column]) = w;
    assert!(y.len() >= m * n && x.len() >= m * k && w.len() >= k * n, "operands hold what is multiplied");
    // SAFETY: the operands hold m·k, k·n and m·n floats (just checked); strides are those of dense matrices, in
    // rows or transposed; `y` is borrowed mutably and overlaps neither.
    unsafe {
        gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.as_ptr(),
            x_column as isize,
            x_row as isize,
            w.as_ptr(),
            w_column as isize,
            w_row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

impl Dense {
    /// The layers of `mlp` and `out` as they lie in `layout`; `None` for activations that have no fast form here.
    pub fn new(layout: &[Slot], mlp: &Mlp, out: &Linear) -> Option<Self> {
        let layer = |linear: &Linear| Layer {
            weight: layout[linear.weight].offset,
            bias: layout[linear.bias].offset,
            input: layout[linear.weight].shape[1] as usize,
            output: layout[linear.weight].shape[0] as usize,
        };
        let layers = mlp.layers.iter().chain([out]).map(layer).collect();
        let fast = matches!(mlp.activation, Activation::Tanh | Activation::Relu);
        fast.then_some(Self { layers, activation: mlp.activation })
    }

    /// The widest layer.
    pub fn width(&self) -> usize {
        self.layers.iter().map(|layer| layer.input.max(layer.output)).max().unwrap_or(0)
    }

    /// Numbers that the last layer gives for each row.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.output)
    }

    /// Outputs of `rows` inputs, `[rows, input]`, into `trace`: y = x Wᵀ + b, then the activation except after the
    /// last layer.
    pub fn forward(&self, weights: &[f32], input: &[f32], rows: usize, trace: &mut Trace) {
        trace.rows = rows;
        trace.outputs.resize_with(self.layers.len(), Vec::new);
        for (i, layer) in self.layers.iter().enumerate() {
            let (before, after) = trace.outputs.split_at_mut(i);
            let x = before.last().map_or(input, Vec::as_slice);
            let y = &mut after[0];
            y.resize(rows * layer.output, 0.0);
            let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
            product(y, (rows, layer.input, layer.output), (x, [layer.input, 1]), (w, [1, layer.input]));
            let bias = &weights[layer.bias..layer.bias + layer.output];
            let last = i + 1 == self.layers.len();
            let activation = self.activation;
            vectorised(
                #[inline(always)]
                || {
                    for row in y.chunks_exact_mut(layer.output) {
                        let pairs = row.iter_mut().zip(bias);
                        match activation {
                            _ if last => pairs.for_each(|(y, b)| *y += b),
                            Activation::Relu => pairs.for_each(|(y, b)| *y = (*y + b).max(0.0)),
                            _ => pairs.for_each(|(y, b)| *y = tanh(*y + b)),
                        }
                    }
                },
            );
        }
    }

    /// Writes d loss / d W and d loss / d b of every layer into `gradient`, laid out like the weights, from the
    /// gradient in [`Trace::output_and_gradient`]; `input` and `trace` are those of the forward pass.
    ///
    /// dW = dYᵀ X, db = Σ dY, dX = dY W; then dX · (1 − x²) through tanh, dX · [x > 0] through a rectifier.
    pub fn backward(&self, weights: &[f32], gradient: &mut [f32], input: &[f32], trace: &mut Trace) {
        let rows = trace.rows;
        let [mut dy, mut dx] = trace.gradients.each_mut();
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let x = if i == 0 { input } else { &trace.outputs[i - 1] };
            let dw = &mut gradient[layer.weight..layer.weight + layer.output * layer.input];
            product(dw, (layer.output, rows, layer.input), (dy, [1, layer.output]), (x, [layer.input, 1]));
            let db = &mut gradient[layer.bias..layer.bias + layer.output];
            vectorised(
                #[inline(always)]
                || {
                    db.fill(0.0);
                    for row in dy.chunks_exact(layer.output) {
                        db.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
                    }
                },
            );
            if i == 0 {
                break;
            }
            dx.resize(rows * layer.input, 0.0);
            let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
            product(dx, (rows, layer.output, layer.input), (dy, [layer.output, 1]), (w, [layer.input, 1]));
            let activation = self.activation;
            vectorised(
                #[inline(always)]
                || {
                    let pairs = dx.iter_mut().zip(x);
                    match activation {
                        Activation::Relu => pairs.for_each(|(d, &x)| *d = if x > 0.0 { *d } else { 0.0 }),
                        _ => pairs.for_each(|(d, &x)| *d *= 1.0 - x * x),
                    }
                },
            );
            std::mem::swap(&mut dy, &mut dx);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::slice;
    use crate::nn::{Flat, Init, Layout};
    use crate::random::Stream;
    use proptest::prelude::*;
    use tch::Kind;

    #[test]
    fn tanh_is_near_to_the_last_bits() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 1e-4;
            let (ours, exact) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((ours - exact).abs() <= 3e-7 * exact.abs().max(1e-3), "tanh({x}) is {ours}, not {exact}");
        }
        assert!(tanh(f32::NAN).is_nan());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn both_passes_equal_autograds(
            seed in 0u64..1000,
            rows in 1i64..70,
            input in 1i64..20,
            hidden in prop::collection::vec(1i64..70, 0..4),
            output in 1i64..8,
            relu: bool,
        ) {
            let activation = if relu { Activation::Relu } else { Activation::Tanh };
            let mut layout = Layout::default();
            let mlp = Mlp::new(&mut layout, "net", input, &hidden, activation, Init::GlorotUniform);
            let last = *hidden.last().unwrap_or(&input);
            let out = Linear::new(&mut layout, "out", last, output, Init::GlorotUniform);
            let mut rng = Stream::new(seed, "dense", 0, 0);
            let mut flat = Flat::new(layout, &mut rng);
            let (x, direction) = (rng.normals(&[rows, input]), rng.normals(&[rows, output]));
            let y = out.forward(&flat, &mlp.forward(&flat, &x));
            flat.backward(&(&y * &direction).sum(Kind::Float)).unwrap();

            let dense = Dense::new(&flat.layout, &mlp, &out).unwrap();
            let mut trace = Trace::default();
            dense.forward(slice(&flat.weights), slice(&x), rows as usize, &mut trace);
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs().max(1.0));
            prop_assert!(near(trace.output(), slice(&y.detach().contiguous())));
            trace.output_and_gradient().1.copy_from_slice(slice(&direction));
            let mut gradient = vec![0.0; flat.gradient.numel()];
            dense.backward(slice(&flat.weights), &mut gradient, slice(&x), &mut trace);
            let scale = flat.gradient.abs().max().double_value(&[]).max(1.0) as f32;
            let difference = gradient.iter().zip(slice::<f32>(&flat.gradient)).map(|(a, b)| (a - b).abs());
            prop_assert!(difference.fold(0.0, f32::max) < 1e-5 * scale);
        }
    }
}
