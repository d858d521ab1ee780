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

/// eˣ − 1 for x ≤ 0, to 2e-7 of its value: 2ⁿ (eʳ − 1) + (2ⁿ − 1) with x = n log 2 + r, |r| ≤ ½ log 2.
#[inline(always)]
fn exp_minus_one(x: f32) -> f32 {
    // Not `max`, which would take a NaN for a number.
    let x = if x < -80.0 { -80.0 } else { x };
    // Adding and taking away 1.5 · 2²³ rounds to a whole number.
    let n = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0) - 12_582_912.0;
    // log 2 in two parts, so that the difference keeps its last bits.
    let r = n.mul_add(-1.428_606_8e-6, n.mul_add(-0.693_145_75, x));
    let p = r.mul_add(1.0 / 5040.0, 1.0 / 720.0);
    let p = r.mul_add(p, 1.0 / 120.0);
    let p = r.mul_add(p, 1.0 / 24.0);
    let p = r.mul_add(p, 1.0 / 6.0);
    let p = r.mul_add(p, 0.5);
    let p = (r * r).mul_add(p, r);
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    power.mul_add(p, power - 1.0)
}

/// Adds `bias` to every row of `y`, `[…, width]`, then applies the activation, if there is one.
pub(super) fn activate(y: &mut [f32], bias: &[f32], activation: Option<Activation>) {
    vectorised(
        #[inline(always)]
        || {
            for row in y.chunks_exact_mut(bias.len()) {
                let pairs = row.iter_mut().zip(bias);
                match activation {
                    None => pairs.for_each(|(y, b)| *y += b),
                    Some(Activation::Relu) => pairs.for_each(|(y, b)| {
                        let x = *y + b;
                        *y = if x < 0.0 { 0.0 } else { x };
                    }),
                    Some(Activation::Tanh) => pairs.for_each(|(y, b)| *y = tanh(*y + b)),
                    Some(Activation::Elu) => pairs.for_each(|(y, b)| {
                        let x = *y + b;
                        let below = exp_minus_one(if x > 0.0 { 0.0 } else { x });
                        *y = if x > 0.0 { x } else { below };
                    }),
                }
            }
        },
    );
}

/// Takes a gradient by the outputs `y` of an activation to one by its inputs: times 1 − y², \[y > 0\], or y + 1 where
/// y < 0.
pub(super) fn through_activation(gradient: &mut [f32], y: &[f32], activation: Activation) {
    vectorised(
        #[inline(always)]
        || {
            let pairs = gradient.iter_mut().zip(y);
            match activation {
                Activation::Tanh => pairs.for_each(|(d, &y)| *d *= 1.0 - y * y),
                Activation::Relu => pairs.for_each(|(d, &y)| *d = if y > 0.0 { *d } else { 0.0 }),
                Activation::Elu => pairs.for_each(|(d, &y)| *d *= if y > 0.0 { 1.0 } else { y + 1.0 }),
            }
        },
    );
}

/// A matrix in plain memory, in rows or transposed.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `[…, width]` as it lies there.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, strides: [width, 1] }
    }

    /// `[…, width]` transposed.
    pub fn columns(values: &'a [f32], width: usize) -> Self {
        Self { values, strides: [1, width] }
    }
}

/// `y[m, n] = x[m, k] · w[k, n]`, or with `add` is increased by it; `y` in rows.
pub(super) fn product(y: &mut [f32], (m, k, n): (usize, usize, usize), x: Matrix, w: Matrix, add: bool) {
    assert!(
        y.len() >= m * n && x.values.len() >= m * k && w.values.len() >= k * n,
        "operands hold what is multiplied"
    );
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
            add,
            x.values.as_ptr(),
            x.strides[1] as isize,
            x.strides[0] as isize,
            w.values.as_ptr(),
            w.strides[1] as isize,
            w.strides[0] as isize,
            f32::from(u8::from(add)),
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Column sums of `[rows, width]`.
pub(super) fn sum_rows(matrix: &[f32], sums: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            sums.fill(0.0);
            for row in matrix.chunks_exact(sums.len()) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        },
    );
}

/// A layer's place in the parameter buffer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// First float of W, `[output, input]`.
    pub weight: usize,
    /// First float of b, `[output]`.
    pub bias: usize,
    pub input: usize,
    pub output: usize,
}

/// Fully connected layers over a flat parameter buffer that is given to every call, the activation after each but,
/// for a head, the last.
#[derive(Clone, Debug)]
pub struct Dense {
    pub(super) layers: Vec<Layer>,
    pub(super) activation: Activation,
    has_head: bool,
}

/// What a forward pass leaves for the backward pass. Grows to the largest batch and is used again.
#[derive(Debug, Default)]
pub struct Trace {
    /// Output of each layer, `[rows, width]`.
    pub(super) outputs: Vec<Vec<f32>>,
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

impl Dense {
    /// The layers of `mlp`, then `head`, as they lie in `layout`.
    pub fn new(layout: &[Slot], mlp: &Mlp, head: Option<&Linear>) -> Self {
        Self::of(layout, mlp.layers.iter().chain(head), mlp.activation, head.is_some())
    }

    /// No layer and no output.
    pub fn nothing() -> Self {
        Self { layers: Vec::new(), activation: Activation::Relu, has_head: true }
    }

    /// One linear layer.
    pub fn linear(layout: &[Slot], layer: &Linear) -> Self {
        Self::of(layout, std::iter::once(layer), Activation::Relu, true)
    }

    fn of<'a>(
        layout: &[Slot],
        layers: impl Iterator<Item = &'a Linear>,
        activation: Activation,
        has_head: bool,
    ) -> Self {
        let layer = |linear: &Linear| Layer {
            weight: layout[linear.weight].offset,
            bias: layout[linear.bias].offset,
            input: layout[linear.weight].shape[1] as usize,
            output: layout[linear.weight].shape[0] as usize,
        };
        Self { layers: layers.map(layer).collect(), activation, has_head }
    }

    /// The widest layer.
    pub fn width(&self) -> usize {
        self.layers.iter().map(|layer| layer.input.max(layer.output)).max().unwrap_or(0)
    }

    /// Numbers that the last layer gives for each row.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.output)
    }

    /// Whether there are no layers at all.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Outputs of `rows` inputs, `[rows, input]`, into `trace`: y = x Wᵀ + b, then the activation.
    pub fn forward(&self, weights: &[f32], input: &[f32], rows: usize, trace: &mut Trace) {
        trace.rows = rows;
        trace.outputs.resize_with(self.layers.len(), Vec::new);
        for (i, layer) in self.layers.iter().enumerate() {
            let (before, after) = trace.outputs.split_at_mut(i);
            let x = before.last().map_or(input, Vec::as_slice);
            let y = &mut after[0];
            y.resize(rows * layer.output, 0.0);
            let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
            let (x, w) = (Matrix::rows(x, layer.input), Matrix::columns(w, layer.input));
            product(y, (rows, layer.input, layer.output), x, w, false);
            let linear = self.has_head && i + 1 == self.layers.len();
            let bias = &weights[layer.bias..layer.bias + layer.output];
            activate(y, bias, (!linear).then_some(self.activation));
        }
    }

    /// Writes d loss / d W and d loss / d b of every layer into `gradient`, laid out like the weights, from the
    /// gradient in [`Trace::output_and_gradient`]; `input` and `trace` are those of the forward pass. Increases
    /// `d_input`, `[rows, input]`, by d loss / d input where it is wanted.
    ///
    /// dW = dYᵀ X, db = Σ dY, dX = dY W, then back through the activation.
    pub fn backward(
        &self,
        weights: &[f32],
        gradient: &mut [f32],
        input: &[f32],
        d_input: Option<&mut [f32]>,
        trace: &mut Trace,
    ) {
        let rows = trace.rows;
        let [mut dy, mut dx] = trace.gradients.each_mut();
        if let Some(output) = trace.outputs.last().filter(|_| !self.has_head) {
            through_activation(dy, output, self.activation);
        }
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let x = if i == 0 { input } else { &trace.outputs[i - 1] };
            let dw = &mut gradient[layer.weight..layer.weight + layer.output * layer.input];
            let shape = (layer.output, rows, layer.input);
            product(dw, shape, Matrix::columns(dy, layer.output), Matrix::rows(x, layer.input), false);
            sum_rows(dy, &mut gradient[layer.bias..layer.bias + layer.output]);
            let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
            let (dy_rows, w) = (Matrix::rows(dy, layer.output), Matrix::rows(w, layer.input));
            let shape = (rows, layer.output, layer.input);
            if i == 0 {
                if let Some(d_input) = d_input {
                    product(d_input, shape, dy_rows, w, true);
                }
                break;
            }
            dx.resize(rows * layer.input, 0.0);
            product(dx, shape, dy_rows, w, false);
            through_activation(dx, x, self.activation);
            std::mem::swap(&mut dy, &mut dx);
        }
    }
}

impl Dense {
    /// As [`Dense::backward`] for the input alone: d loss / d input into `d_input`, `[rows, input]`, and no weight's
    /// gradient.
    pub fn input_gradient(&self, weights: &[f32], d_input: &mut [f32], trace: &mut Trace) {
        let rows = trace.rows;
        let [mut dy, mut dx] = trace.gradients.each_mut();
        if let Some(output) = trace.outputs.last().filter(|_| !self.has_head) {
            through_activation(dy, output, self.activation);
        }
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
            let (dy_rows, w) = (Matrix::rows(dy, layer.output), Matrix::rows(w, layer.input));
            let shape = (rows, layer.output, layer.input);
            if i == 0 {
                product(d_input, shape, dy_rows, w, false);
                break;
            }
            dx.resize(rows * layer.input, 0.0);
            product(dx, shape, dy_rows, w, false);
            through_activation(dx, &trace.outputs[i - 1], self.activation);
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
    use tch::{Kind, Tensor};

    #[test]
    fn tanh_is_near_to_the_last_bits() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 1e-4;
            let (ours, exact) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((ours - exact).abs() <= 3e-7 * exact.abs().max(1e-3), "tanh({x}) is {ours}, not {exact}");
        }
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn the_exponential_is_near_to_the_last_bits() {
        for i in 0..=900_000 {
            let x = i as f32 * -1e-4;
            let (ours, exact) = (f64::from(exp_minus_one(x)), f64::from(x).exp_m1());
            assert!((ours - exact).abs() <= 3e-7 * exact.abs(), "eˣ − 1 of {x} is {ours}, not {exact}");
        }
        let mut not_a_number = [f32::NAN];
        for activation in [Activation::Tanh, Activation::Relu, Activation::Elu] {
            activate(&mut not_a_number, &[0.0], Some(activation));
            assert!(not_a_number[0].is_nan(), "{activation:?} hides what went wrong");
        }
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
            activation in prop::sample::select(vec![Activation::Relu, Activation::Tanh, Activation::Elu]),
            head: bool,
        ) {
            let mut layout = Layout::default();
            let mlp = Mlp::new(&mut layout, "net", input, &hidden, activation, Init::GlorotUniform);
            let last = *hidden.last().unwrap_or(&input);
            let out = Linear::new(&mut layout, "out", last, output, Init::GlorotUniform);
            let mut rng = Stream::new(seed, "dense", 0, 0);
            let mut flat = Flat::new(layout, &mut rng);
            let (x, direction) = (rng.normals(&[rows, input]), rng.normals(&[rows, output]));
            let x = x.set_requires_grad(true);
            let features = mlp.forward(&flat, &x);
            let (y, direction) = match head {
                true => (out.forward(&flat, &features), direction),
                false => (features, rng.normals(&[rows, last])),
            };
            let loss = (&y * &direction).sum(Kind::Float);
            let d_input = Tensor::run_backward(&[&loss], &[&x], true, false).remove(0);
            flat.backward(&loss).unwrap();
            let x = x.detach();

            if !head && hidden.is_empty() {
                return Ok(());
            }
            let dense = Dense::new(&flat.layout, &mlp, head.then_some(&out));
            let mut trace = Trace::default();
            dense.forward(slice(&flat.weights), slice(&x), rows as usize, &mut trace);
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs().max(1.0));
            prop_assert!(near(trace.output(), slice(&y.detach().contiguous())));
            trace.output_and_gradient().1.copy_from_slice(slice(&direction));
            let mut gradient = vec![0.0; flat.gradient.numel()];
            let mut ours = vec![1.0; slice::<f32>(&x).len()];
            dense.backward(slice(&flat.weights), &mut gradient, slice(&x), Some(&mut ours), &mut trace);
            let theirs: Vec<f32> = slice::<f32>(&d_input.contiguous()).iter().map(|d| d + 1.0).collect();
            prop_assert!(near(&ours, &theirs), "the input's gradient");
            let mut alone = vec![7.0; ours.len()];
            dense.forward(slice(&flat.weights), slice(&x), rows as usize, &mut trace);
            trace.output_and_gradient().1.copy_from_slice(slice(&direction));
            dense.input_gradient(slice(&flat.weights), &mut alone, &mut trace);
            prop_assert!(near(&alone, slice(&d_input.contiguous())), "the input's gradient alone");
            let scale = flat.gradient.abs().max().double_value(&[]).max(1.0) as f32;
            let difference = gradient.iter().zip(slice::<f32>(&flat.gradient)).map(|(a, b)| (a - b).abs());
            prop_assert!(difference.fold(0.0, f32::max) < 1e-5 * scale);
        }
    }
}
