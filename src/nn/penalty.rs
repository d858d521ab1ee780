//! The gradient penalty (Gulrajani et al. 2017) of a perceptron in plain memory: a derivative of a derivative without an
//! autograd graph.
//!
//! With g = ∇ₓ f and v = ∂P/∂g, the penalty's gradient by a weight is that of Σ v · g with v held still, and v · g is
//! the change of f along v: one pass forward that carries the change along (Pearlmutter 1994), and one back.

use super::dense::{Dense, Matrix, Trace, product, sum_rows, through_activation, vectorised};
use super::torso::Activation;

/// What [`Dense::penalty`] computes with; grows to the largest batch and is used again.
#[derive(Debug, Default)]
pub struct PenaltyScratch {
    trace: Trace,
    /// ∇ₓ f, then v; `[rows, input]`.
    slope: Vec<f32>,
    /// What each layer's output changes by along v.
    changes: Vec<Vec<f32>>,
    /// Derivatives by a layer's change and by its output, and those of the layer before it.
    by_change: [Vec<f32>; 2],
    by_output: [Vec<f32>; 2],
    bias: Vec<f32>,
}

/// Takes derivatives by an activation's output y and by its change ẏ to those by its input x and ẋ, in place: by ẋ that
/// of ẏ times φ′, by x that of y times φ′ and that of ẏ times ẋ φ″.
fn back_through(
    by_change: &mut [f32],
    by_output: &mut [f32],
    y: &[f32],
    change: &[f32],
    activation: Activation,
) {
    // ẋ φ″ from ẏ = ẋ φ′: −2 y ẏ of tanh, ẏ of ELU below 0.
    vectorised(
        #[inline(always)]
        || {
            let all = by_change.iter().zip(by_output.iter_mut()).zip(y.iter().zip(change));
            match activation {
                Activation::Tanh => {
                    all.for_each(|((p, q), (y, dy))| *q = *q * (1.0 - y * y) - 2.0 * p * y * dy);
                }
                Activation::Relu => all.for_each(|((_, q), (y, _))| *q = if *y > 0.0 { *q } else { 0.0 }),
                Activation::Elu => all.for_each(|((p, q), (y, dy))| {
                    *q = if *y > 0.0 { *q } else { *q * (y + 1.0) + p * dy };
                }),
            }
        },
    );
    through_activation(by_change, y, activation);
}

impl Dense {
    /// Adds the gradient of factor · mean (‖∇ₓ f(x)‖ − target)² over `rows` of `input` to `gradient`; gives the mean
    /// itself. The last layer has one output and no activation.
    pub fn penalty(
        &self,
        weights: &[f32],
        gradient: &mut [f32],
        (input, rows): (&[f32], usize),
        (factor, target): (f64, f64),
        scratch: &mut PenaltyScratch,
    ) -> f64 {
        let PenaltyScratch { trace, slope, changes, by_change, by_output, bias } = scratch;
        self.forward(weights, input, rows, trace);
        trace.output_and_gradient().1.fill(1.0);
        slope.resize(input.len(), 0.0);
        self.input_gradient(weights, slope, trace);
        let width = input.len() / rows;
        let mut sum = 0.0;
        for row in slope.chunks_exact_mut(width) {
            // The 1e-12 is `adversarial::gradient_penalty`'s.
            let norm = (row.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>() + 1e-12).sqrt();
            sum += (norm - target) * (norm - target);
            let scale = (2.0 * factor / rows as f64 * (norm - target) / norm) as f32;
            row.iter_mut().for_each(|g| *g *= scale);
        }

        let (head, hidden) = match self.layers.split_last() {
            Some(split) => split,
            None => return 0.0,
        };
        changes.resize_with(hidden.len(), Vec::new);
        for (i, layer) in hidden.iter().enumerate() {
            let (before, after) = changes.split_at_mut(i);
            let x = before.last().map_or(&slope[..], Vec::as_slice);
            let y = &mut after[0];
            y.resize(rows * layer.output, 0.0);
            let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
            let shape = (rows, layer.input, layer.output);
            product(y, shape, Matrix::rows(x, layer.input), Matrix::columns(w, layer.input), false);
            through_activation(y, &trace.outputs[i], self.activation);
        }

        let w = &weights[head.weight..head.weight + head.input];
        let last = changes.last().map_or(&slope[..], Vec::as_slice);
        bias.resize(head.input, 0.0);
        sum_rows(last, bias);
        gradient[head.weight..head.weight + head.input]
            .iter_mut()
            .zip(bias.iter())
            .for_each(|(d, more)| *d += more);
        let [mut p, mut p_before] = by_change.each_mut();
        let [mut q, mut q_before] = by_output.each_mut();
        p.clear();
        (0..rows).for_each(|_| p.extend_from_slice(w));
        q.clear();
        q.resize(rows * head.input, 0.0);
        for (i, layer) in hidden.iter().enumerate().rev() {
            back_through(p, q, &trace.outputs[i], &changes[i], self.activation);
            let (change, output) = match i {
                0 => (&slope[..], input),
                _ => (&changes[i - 1][..], &trace.outputs[i - 1][..]),
            };
            let d = &mut gradient[layer.weight..layer.weight + layer.output * layer.input];
            let shape = (layer.output, rows, layer.input);
            product(d, shape, Matrix::columns(p, layer.output), Matrix::rows(change, layer.input), true);
            product(d, shape, Matrix::columns(q, layer.output), Matrix::rows(output, layer.input), true);
            bias.resize(layer.output, 0.0);
            sum_rows(q, bias);
            let d = &mut gradient[layer.bias..layer.bias + layer.output];
            d.iter_mut().zip(bias.iter()).for_each(|(d, more)| *d += more);
            if i > 0 {
                let w = &weights[layer.weight..layer.weight + layer.output * layer.input];
                let shape = (rows, layer.output, layer.input);
                for (from, to) in [(&*p, &mut *p_before), (&*q, &mut *q_before)] {
                    to.resize(rows * layer.input, 0.0);
                    product(to, shape, Matrix::rows(from, layer.output), Matrix::rows(w, layer.input), false);
                }
                std::mem::swap(&mut p, &mut p_before);
                std::mem::swap(&mut q, &mut q_before);
            }
        }
        sum / rows as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::generative::adversarial::gradient_penalty;
    use crate::memory::{slice, slice_mut};
    use crate::nn::{Flat, Init, Layout, Linear, Mlp};
    use crate::random::Stream;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn it_is_autograds(
            seed in 0u64..1000,
            rows in 1i64..40,
            input in 1i64..20,
            hidden in prop::collection::vec(1i64..40, 0..4),
            activation in prop::sample::select(vec![Activation::Relu, Activation::Tanh, Activation::Elu]),
            (factor, target) in (0.1f64..10.0, 0.0f64..2.0),
        ) {
            let mut layout = Layout::default();
            let mlp = Mlp::new(&mut layout, "net", input, &hidden, activation, Init::GlorotUniform);
            let last = *hidden.last().unwrap_or(&input);
            let out = Linear::new(&mut layout, "out", last, 1, Init::GlorotUniform);
            let mut rng = Stream::new(seed, "penalty", 0, 0);
            let mut flat = Flat::new(layout, &mut rng);
            slice_mut::<f32>(&mut flat.weights).iter_mut().for_each(|w| *w += 0.1 * rng.normal());
            let x = rng.normals(&[rows, input]);
            let half = rng.uniforms(&[rows, 1]);
            let f = |x: &tch::Tensor| out.forward(&flat, &mlp.forward(&flat, x)).squeeze_dim(1);
            let theirs = gradient_penalty(f, &x, &x, &half, target).unwrap();
            flat.backward(&(&theirs * factor)).unwrap();
            let wanted: Vec<f32> = slice::<f32>(&flat.gradient).iter().map(|g| g + 0.5).collect();

            let dense = Dense::new(&flat.layout, &mlp, Some(&out));
            let mut gradient = vec![0.5f32; wanted.len()];
            let mut scratch = PenaltyScratch::default();
            let weights = slice::<f32>(&flat.weights);
            let ours =
                dense.penalty(weights, &mut gradient, (slice(&x), rows as usize), (factor, target), &mut scratch);
            let theirs = theirs.double_value(&[]);
            prop_assert!((ours - theirs).abs() < 1e-4 * theirs.max(1.0), "{ours} is not {theirs}");
            let scale = wanted.iter().fold(1f32, |scale, g| scale.max(g.abs()));
            for (slot, (a, b)) in gradient.iter().zip(&wanted).enumerate() {
                prop_assert!((a - b).abs() < 3e-5 * scale, "{slot}: {a} is not {b} of at most {scale}");
            }
        }
    }
}
