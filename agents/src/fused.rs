//! The gradients of PPO and of GAIL's discriminator for small perceptrons: forward pass, loss and analytic backward
//! pass in one go over plain memory, equal to autograd's to 1e-5 (a property test holds them together).
//!
//! For control tasks this is where the time goes: 64-64 networks on minibatches of 64 cost libtorch 300 µs a
//! gradient, nearly all of it around the arithmetic.

use crate::ppo::{Losses, PpoConfig};
use imago::memory::{slice, slice_mut};
use imago::nn::{ActorCritic, Compact, CompactTrace, Dense, Trace, gaussian_log_prob, log_softmax};
use imago_envs::Leaf;

/// Rows of a rollout as plain memory, B of them.
pub struct Minibatch<'a> {
    /// Observations as the networks read them: floats `[B, F]`, or images in the shape in which they were seen.
    pub input: Leaf<'a>,
    /// Choices `[B]` or floats `[B, A]`.
    pub action: Leaf<'a>,
    /// log π_old, `[B]`.
    pub log_prob: &'a [f32],
    /// Â, `[B]`.
    pub advantage: &'a [f32],
    /// V_old, `[B, H]`.
    pub value: &'a [f32],
    /// R, `[B, H]`.
    pub returns: &'a [f32],
}

/// The gradient of PPO's loss for policies with a fast path.
pub struct FusedPpo {
    compact: Compact,
    trace: CompactTrace,
    advantage: Vec<f32>,
}

/// Â minus its mean over its unbiased deviation + 1e-8, into `to`; unchanged if there is only one.
fn standardise(advantage: &[f32], to: &mut Vec<f32>) {
    let count = advantage.len() as f64;
    let mean = advantage.iter().map(|&a| f64::from(a)).sum::<f64>() / count;
    let variance = advantage.iter().map(|&a| (f64::from(a) - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let (mean, scale) = match advantage.len() {
        1 => (0.0, 1.0),
        _ => (mean as f32, (1.0 / (variance.sqrt() + 1e-8)) as f32),
    };
    to.clear();
    to.extend(advantage.iter().map(|a| (a - mean) * scale));
}

impl FusedPpo {
    /// For the networks of `policy`; `None` where only autograd knows their gradients.
    pub fn new(policy: &ActorCritic) -> Option<Self> {
        // Of squashed normals only autograd knows the gradient.
        let compact = policy.compact().filter(|compact| compact.bounded.is_none())?.clone();
        Some(Self { compact, trace: CompactTrace::default(), advantage: Vec::new() })
    }

    /// Writes the gradient of L = L_policy + c_v · L_value − c_e · mean entropy into `policy.parameters.gradient`.
    pub fn gradient(
        &mut self,
        policy: &mut ActorCritic,
        minibatch: &Minibatch,
        config: &PpoConfig,
    ) -> Losses {
        let weights = slice::<f32>(&policy.parameters.weights);
        let gradient = slice_mut::<f32>(&mut policy.parameters.gradient);
        let rows = minibatch.log_prob.len();
        let mut losses = Losses::default();
        self.compact.forward(weights, minibatch.input, rows, &mut self.trace);
        match config.normalise_advantage {
            true => standardise(minibatch.advantage, &mut self.advantage),
            false => minibatch.advantage.clone_into(&mut self.advantage),
        }
        self.policy_loss(weights, gradient, minibatch, config, &mut losses);
        self.value_loss(minibatch, config, &mut losses);
        self.compact.backward(weights, gradient, minibatch.input, &mut self.trace);
        losses
    }

    /// −mean min(r Â, clip(r, 1 ± ε) Â) − c_e · mean entropy, and its gradient by the outputs of the policy network.
    ///
    /// d/d log π = −r Â / B where the minimum is the unclipped term, else 0. Through a softmax, d log π(a)/d xⱼ =
    /// \[j = a\] − pⱼ and dH/d xⱼ = −pⱼ (log pⱼ + H); of a normal with z = (a − μ)/σ, d log π/d μ = z/σ,
    /// d log π/d log σ = z² − 1 and dH/d log σ = 1.
    fn policy_loss(
        &mut self,
        weights: &[f32],
        gradient: &mut [f32],
        minibatch: &Minibatch,
        config: &PpoConfig,
        losses: &mut Losses,
    ) {
        let rows = minibatch.log_prob.len();
        let (share, clip) = (1.0 / rows as f32, config.clip as f32);
        let entropy_share = config.entropy_coefficient as f32 * share;
        let (mut policy_loss, mut entropy, mut divergence, mut clipped) = (0f64, 0f64, 0f64, 0usize);
        let width = self.compact.policy.outputs();
        let (output, d_output) = self.trace.policy.output_and_gradient();
        // What a row's log-probability adds to the loss; returns the gradient by it.
        let mut surrogate = |row: usize, log_prob: f32| {
            let log_ratio = log_prob - minibatch.log_prob[row];
            let (ratio, advantage) = (log_ratio.exp(), self.advantage[row]);
            let bounded = ratio.clamp(1.0 - clip, 1.0 + clip);
            let (free, bound) = (ratio * advantage, bounded * advantage);
            policy_loss -= f64::from(free.min(bound));
            divergence += f64::from(ratio) - 1.0 - f64::from(log_ratio);
            clipped += usize::from((ratio - 1.0).abs() > clip);
            // A NaN must reach the gradient, where the run stops.
            if free > bound { 0.0 } else { -free * share }
        };
        match (self.compact.log_std, minibatch.action) {
            (None, Leaf::I64(actions)) => {
                let pairs = output.chunks_exact(width).zip(d_output.chunks_exact_mut(width));
                for (row, ((logits, d), &action)) in pairs.zip(actions).enumerate() {
                    // `d` holds the logarithms of the probabilities until the gradient takes their place.
                    d.copy_from_slice(logits);
                    log_softmax(d);
                    let d_log_prob = surrogate(row, d[action as usize]);
                    let row_entropy: f32 = -d.iter().map(|log_p| log_p.exp() * log_p).sum::<f32>();
                    entropy += f64::from(row_entropy);
                    for (j, d) in d.iter_mut().enumerate() {
                        let (log_p, p) = (*d, d.exp());
                        let taken = f32::from(u8::from(j == action as usize));
                        *d = d_log_prob * (taken - p) + entropy_share * p * (log_p + row_entropy);
                    }
                }
            }
            (Some(at), Leaf::F32(actions)) => {
                let log_std = &weights[at..at + width];
                let d_log_std = &mut gradient[at..at + width];
                // The entropy's share of the gradient is the same in every row.
                d_log_std.fill(-config.entropy_coefficient as f32);
                let pairs = output.chunks_exact(width).zip(d_output.chunks_exact_mut(width));
                for (row, ((means, d), actions)) in pairs.zip(actions.chunks_exact(width)).enumerate() {
                    let mut log_prob = 0.0;
                    for (((d, action), mean), log_std) in d.iter_mut().zip(actions).zip(means).zip(log_std) {
                        // `d` holds z until the gradient takes its place.
                        *d = (action - mean) * (-log_std).exp();
                        log_prob += gaussian_log_prob(*d, *log_std);
                        entropy -= f64::from(gaussian_log_prob(1.0, *log_std));
                    }
                    let d_log_prob = surrogate(row, log_prob);
                    for ((d, log_std), d_log_std) in d.iter_mut().zip(log_std).zip(d_log_std.iter_mut()) {
                        *d_log_std += d_log_prob * (*d * *d - 1.0);
                        *d *= d_log_prob * (-log_std).exp();
                    }
                }
            }
            _ => unreachable!("the action space decides head and actions alike"),
        }
        let count = rows as f64;
        losses.policy = policy_loss / count;
        losses.entropy = entropy / count;
        losses.approximate_kl = divergence / count;
        losses.clip_fraction = clipped as f64 / count;
    }

    /// mean (V − R)² summed over heads, or of the larger of it and its clipped form, and its gradient by V:
    /// 2 c_v (V − R) / B, and 0 where the clipped form is the larger one and V is beyond the clip.
    fn value_loss(&mut self, minibatch: &Minibatch, config: &PpoConfig, losses: &mut Losses) {
        let rows = minibatch.log_prob.len();
        let scale = 2.0 * config.value_coefficient as f32 / rows as f32;
        let (output, d_output) = self.trace.value.output_and_gradient();
        let mut loss = 0f64;
        for (((&v, &old), &target), d) in
            output.iter().zip(minibatch.value).zip(minibatch.returns).zip(d_output)
        {
            let error = v - target;
            let (mut counted, mut slope) = (error * error, error);
            if let Some(clip) = config.value_clip {
                let clip = clip as f32;
                let bounded = old + (v - old).clamp(-clip, clip) - target;
                if bounded * bounded > counted {
                    // Beyond the clip the bounded value does not move with V; within, the two differ by rounding.
                    let moves = (v - old).abs() <= clip;
                    (counted, slope) = (bounded * bounded, if moves { bounded } else { 0.0 });
                }
            }
            loss += f64::from(counted);
            *d = scale * slope;
        }
        losses.value = loss / rows as f64;
    }
}

/// Pairs as a discriminator reads them, in plain memory: one half the expert's, the other the policy's.
pub struct DiscriminatorBatch<'a> {
    /// `[rows, F]`, the expert's first.
    pub features: &'a [f32],
    /// Which logit counts, `[rows]`, where there is one for each action.
    pub choice: Option<&'a [i64]>,
    /// How much each of the expert's pairs counts, `[rows / 2]`; all the same if absent.
    pub weight: Option<&'a [f32]>,
    /// Pairs of both sides together, an even number.
    pub rows: usize,
}

/// Figures of one discriminator step.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscriminatorLosses {
    /// Class-balanced cross-entropy, in nats.
    pub loss: f64,
    /// Mean entropy of its verdicts, both classes weighing the same, in nats.
    pub entropy: f64,
    /// Share of expert pairs, and of policy pairs, judged rightly.
    pub accuracy: [f64; 2],
    /// Mean logit of expert pairs, and of policy pairs.
    pub logit: [f64; 2],
}

/// Writes the gradient of the discriminator's loss minus `entropy_bonus` times both classes' entropy into `gradient`.
///
/// With label y, d/dx of softplus(x) − y x is σ(x) − y; dH/dx is −x σ(x) (1 − σ(x)). Each class is averaged by itself.
pub fn discriminator_gradient(
    dense: &Dense,
    weights: &[f32],
    gradient: &mut [f32],
    batch: &DiscriminatorBatch,
    smoothing: f64,
    entropy_bonus: f64,
    trace: &mut Trace,
) -> DiscriminatorLosses {
    let DiscriminatorBatch { features, choice, weight, rows } = *batch;
    dense.forward(weights, features, rows, trace);
    let width = dense.outputs();
    let (output, d_output) = trace.output_and_gradient();
    d_output.fill(0.0);
    let count = rows / 2;
    let share = 1.0 / count as f64;
    let mut figures = DiscriminatorLosses::default();
    for row in 0..rows {
        let class = usize::from(row >= count);
        let at = row * width + choice.map_or(0, |choice| choice[row] as usize);
        let x = f64::from(output[at]);
        let label = if class == 0 { 1.0 - smoothing } else { smoothing };
        let probability = 1.0 / (1.0 + (-x).exp());
        let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
        let counts = weight.filter(|_| class == 0).map_or(1.0, |weight| f64::from(weight[row]));
        figures.loss += share * counts * (softplus - label * x);
        figures.entropy += 0.5 * share * ((1.0 - probability) * x + softplus - x);
        figures.accuracy[class] += share * f64::from(u8::from((x > 0.0) == (class == 0)));
        figures.logit[class] += share * x;
        let d_entropy = -x * probability * (1.0 - probability);
        d_output[at] = (share * (counts * (probability - label) - entropy_bonus * d_entropy)) as f32;
    }
    dense.backward(weights, gradient, features, None, trace);
    figures
}
