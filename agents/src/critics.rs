//! Twin action-value functions with slowly following targets (Fujimoto et al. 2018), in plain memory.

use imago::memory::{slice, slice_mut};
use imago::nn::{Activation, Adam, Dense, Flat, Init, Layout, Linear, Mlp, Trace, vectorised};
use imago::run::State;
use imago::{Result, Stream};
use tch::Tensor;

/// Q₁ and Q₂, both in one parameter buffer, and their targets in another.
pub struct Critics {
    flat: Flat,
    target: Tensor,
    adam: Adam,
    networks: [Dense; 2],
    traces: [Trace; 2],
}

/// Figures of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct CriticLosses {
    /// Σ over both of mean (Q − y)².
    pub loss: f64,
    /// Mean of Q₁.
    pub value: f64,
    /// Norm of the gradient.
    pub gradient_norm: f64,
}

impl Critics {
    /// Of `inputs` numbers: what is seen and what is done. Orthogonal, gain √2 in the hidden layers and 1 before the
    /// values; the targets begin as copies.
    pub fn new(inputs: usize, hidden: &[i64], activation: Activation, rng: &mut Stream) -> Self {
        let mut layout = Layout::default();
        let layers = [1, 2].map(|i| {
            let gain = Init::Orthogonal(2f64.sqrt());
            let mlp = Mlp::new(&mut layout, &format!("critic{i}"), inputs as i64, hidden, activation, gain);
            let last = *hidden.last().unwrap_or(&(inputs as i64));
            let out = Linear::new(&mut layout, &format!("critic{i}/out"), last, 1, Init::Orthogonal(1.0));
            (mlp, out)
        });
        let flat = Flat::new(layout, rng);
        let networks = layers.map(|(mlp, out)| Dense::new(&flat.layout, &mlp, Some(&out)));
        let (target, adam) = (flat.weights.copy(), Adam::new(&flat, 1e-8));
        Self { flat, target, adam, networks, traces: Default::default() }
    }

    /// min(Q₁′, Q₂′) by the targets of `rows` inputs, into `to`.
    pub fn target_minimum(&mut self, input: &[f32], rows: usize, to: &mut Vec<f32>) {
        minimum(&self.networks, &mut self.traces, slice(&self.target), input, rows, to);
    }

    /// One step of Adam towards the `target`s, `[rows]`, down Σ mean (Q − y)². (Stable-Baselines3 halves the loss of
    /// SAC, which Adam does not notice.)
    ///
    /// # Errors
    /// A gradient that is not finite.
    pub fn improve(&mut self, input: &[f32], target: &[f32], learning_rate: f64) -> Result<CriticLosses> {
        let rows = target.len();
        let share = 1.0 / rows as f32;
        let mut losses = CriticLosses::default();
        let Flat { weights, gradient, .. } = &mut self.flat;
        let (weights, gradient) = (slice(weights), slice_mut(gradient));
        for (i, (network, trace)) in self.networks.iter().zip(&mut self.traces).enumerate() {
            network.forward(weights, input, rows, trace);
            let (values, d) = trace.output_and_gradient();
            let (mut squares, mut sum) = (0f64, 0f64);
            for ((value, d), target) in values.iter().zip(d).zip(target) {
                let error = value - target;
                squares += f64::from(error) * f64::from(error);
                sum += f64::from(*value);
                *d = 2.0 * share * error;
            }
            losses.loss += squares / rows as f64;
            if i == 0 {
                losses.value = sum / rows as f64;
            }
            network.backward(weights, gradient, input, None, trace);
        }
        losses.gradient_norm = self.flat.gradient_norm();
        if !losses.gradient_norm.is_finite() {
            let batch = vec![
                ("critic input".into(), Tensor::from_slice(input)),
                ("target".into(), Tensor::from_slice(target)),
            ];
            return Err(self.flat.diverged("critics", batch));
        }
        self.adam.update(&mut self.flat, learning_rate);
        Ok(losses)
    }

    /// min(Q₁, Q₂) of `rows` inputs into `values`, and −d/d input of Σ weight · min(Q₁, Q₂) into `d_input`,
    /// `[rows, inputs]`.
    pub fn minimum_and_slope(
        &mut self,
        input: &[f32],
        weight: &[f32],
        values: &mut Vec<f32>,
        d_input: &mut Vec<f32>,
        scratch: &mut Vec<f32>,
    ) {
        let rows = weight.len();
        let weights = slice(&self.flat.weights);
        minimum(&self.networks, &mut self.traces, weights, input, rows, values);
        let [first, second] = &mut self.traces;
        let first_is_lower: Vec<bool> =
            first.output().iter().zip(second.output()).map(|(first, second)| first <= second).collect();
        for (trace, own) in [(&mut *first, true), (&mut *second, false)] {
            let (_, d) = trace.output_and_gradient();
            for ((d, lower), weight) in d.iter_mut().zip(&first_is_lower).zip(weight) {
                *d = if *lower == own { -weight } else { 0.0 };
            }
        }
        d_input.resize(input.len(), 0.0);
        scratch.resize(input.len(), 0.0);
        self.networks[0].input_gradient(weights, d_input, first);
        self.networks[1].input_gradient(weights, scratch, second);
        d_input.iter_mut().zip(scratch.iter()).for_each(|(sum, more)| *sum += more);
    }

    /// As [`Critics::minimum_and_slope`] of Q₁ alone.
    pub fn first_and_slope(
        &mut self,
        input: &[f32],
        weight: &[f32],
        values: &mut Vec<f32>,
        d_input: &mut Vec<f32>,
    ) {
        let weights = slice(&self.flat.weights);
        let (network, trace) = (&self.networks[0], &mut self.traces[0]);
        network.forward(weights, input, weight.len(), trace);
        let (output, d) = trace.output_and_gradient();
        values.clear();
        values.extend_from_slice(output);
        d.iter_mut().zip(weight).for_each(|(d, weight)| *d = -weight);
        d_input.resize(input.len(), 0.0);
        network.input_gradient(weights, d_input, trace);
    }

    /// Moves the targets by `rate` of the way.
    pub fn follow(&mut self, rate: f64) {
        follow(&mut self.target, &self.flat.weights, rate);
    }

    /// Number of parameters, targets not counted.
    pub fn count(&self) -> usize {
        self.flat.count()
    }

    /// Saves or restores networks, targets and optimiser.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        self.flat.state(state)?;
        state.tensor("target", &mut self.target)?;
        state.scope("adam", |state| self.adam.state(state))
    }
}

/// target ← target + rate · (weights − target), over a whole parameter buffer (Polyak averaging).
pub fn follow(target: &mut Tensor, weights: &Tensor, rate: f64) {
    let rate = rate as f32;
    let pairs = slice_mut::<f32>(target).iter_mut().zip(slice::<f32>(weights));
    vectorised(
        #[inline(always)]
        || pairs.for_each(|(target, weight)| *target += rate * (weight - *target)),
    );
}

fn minimum(
    networks: &[Dense; 2],
    traces: &mut [Trace; 2],
    weights: &[f32],
    input: &[f32],
    rows: usize,
    to: &mut Vec<f32>,
) {
    for (network, trace) in networks.iter().zip(traces.iter_mut()) {
        network.forward(weights, input, rows, trace);
    }
    let [first, second] = traces;
    to.clear();
    to.extend(first.output().iter().zip(second.output()).map(|(first, second)| first.min(*second)));
}

#[cfg(test)]
impl Critics {
    /// Q₁ and Q₂ of inputs `[B, F + A]` by libtorch, with gradients; by the targets if asked for.
    pub(crate) fn by_libtorch(&self, input: &Tensor, activation: Activation, target: bool) -> [Tensor; 2] {
        let half = self.flat.layout.len() / 2;
        let parameter = |index: usize| {
            let slot = &self.flat.layout[index];
            match target {
                true => self.target.narrow(0, slot.offset as i64, slot.len() as i64).view(&slot.shape[..]),
                false => self.flat.get(index).shallow_clone(),
            }
        };
        [0, half].map(|first| {
            let layers = (first..first + half).step_by(2);
            let x = layers.fold(input.shallow_clone(), |x, at| {
                let y = x.linear(&parameter(at), Some(&parameter(at + 1)));
                if at + 2 < first + half { activation.apply(y) } else { y }
            });
            x.squeeze_dim(1)
        })
    }

    /// Where gradients land.
    pub(crate) fn flat(&mut self) -> &mut Flat {
        &mut self.flat
    }

    /// Moves weights and targets somewhere else, apart from each other.
    pub(crate) fn shake(&mut self, rng: &mut Stream) {
        slice_mut::<f32>(&mut self.flat.weights).iter_mut().for_each(|w| *w += 0.1 * rng.normal());
        slice_mut::<f32>(&mut self.target).iter_mut().for_each(|w| *w += 0.1 * rng.normal());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// Q(s, a) = w (s, a) + b by hand: networks without hidden layers.
    fn linear() -> Critics {
        let mut critics = Critics::new(2, &[], Activation::Relu, &mut Stream::new(0, "critics", 0, 0));
        for (i, values) in [[1.0f32, 2.0], [3.0, -1.0]].into_iter().enumerate() {
            let (weight, bias) = (critics.flat.layout[2 * i].offset, critics.flat.layout[2 * i + 1].offset);
            let weights = slice_mut::<f32>(&mut critics.flat.weights);
            weights[weight..weight + 2].copy_from_slice(&values);
            weights[bias] = 0.5;
        }
        critics
    }

    #[test]
    fn the_lower_of_both_and_its_slope() {
        let mut critics = linear();
        let (mut values, mut d, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        // Q₁ = 3.5, Q₂ = 2.5; then Q₁ = −0.5, Q₂ = 4.5.
        critics.minimum_and_slope(&[1.0, 1.0, 1.0, -1.0], &[1.0, 0.5], &mut values, &mut d, &mut scratch);
        assert_eq!(values, [2.5, -0.5]);
        assert_eq!(d, [-3.0, 1.0, -0.5, -1.0]);
        critics.first_and_slope(&[1.0, 1.0], &[2.0], &mut values, &mut d);
        assert_eq!((values, d), (vec![3.5], vec![-2.0, -4.0]));
    }

    #[test]
    fn the_loss_and_its_gradient_by_hand() {
        let mut critics = linear();
        let losses = critics.improve(&[1.0, 1.0, 1.0, -1.0], &[2.5, 0.5], 1e-3);
        // Errors of Q₁: 1, −1; of Q₂: 0, 4.
        let losses = losses.unwrap_or_default();
        assert!((losses.loss - (1.0 + 8.0)).abs() < 1e-6 && (losses.value - 1.5).abs() < 1e-6, "{losses:?}");
        // d/dw₁ = 2/2 Σ error · input = (0, 2), d/db₁ = 0; d/dw₂ = (4, −4), d/db₂ = 4.
        let wanted = (4.0f64 + 16.0 + 16.0 + 16.0).sqrt();
        assert!((losses.gradient_norm - wanted).abs() < 1e-5, "{losses:?}");
    }

    #[test]
    fn targets_follow_at_their_rate() {
        let mut critics = linear();
        critics.target = critics.flat.weights.zeros_like();
        let mut values = Vec::new();
        critics.target_minimum(&[1.0, 1.0], 1, &mut values);
        assert_eq!(values, [0.0]);
        critics.follow(0.25);
        critics.target_minimum(&[1.0, 1.0], 1, &mut values);
        assert_eq!(values, [0.25 * 2.5], "of the lower one, which is linear in the weights");
        let halfway = Tensor::from_slice(&[1f32, 3.0]);
        let mut target = Tensor::from_slice(&[0f32, -1.0]);
        follow(&mut target, &halfway, 0.5);
        assert_eq!(target, Tensor::from_slice(&[0.5f32, 1.0]));
        assert_eq!(halfway.kind(), Kind::Float);
    }
}
