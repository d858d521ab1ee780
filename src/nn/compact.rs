//! Small actor-critics in plain memory, without libtorch: perceptrons over vectors, convolutions over small images.
//! Workers, evaluation and the fused learner step all take this path where it fits.

use super::convolution::{Convolutions, ImageTrace};
use super::dense::{Dense, Trace};
use super::flat::Slot;
use super::normaliser::RunningNorm;
use super::squash::{Bounds, BoxHead, LOG_STD_RANGE, log_slope};
use super::torso::{Linear, Torso};
use crate::memory::{leaf_of, slice};
use crate::random::Stream;
use imago_envs::{Dtype, Leaf, LeafBuf, Space};
use std::f32::consts::PI;
use tch::Tensor;

/// Layers wider than this are libtorch's: its kernels win there, and may use several threads.
const WIDEST: usize = 512;

/// An [`ActorCritic`](super::ActorCritic)'s networks, their places in its parameter buffer, and its head.
#[derive(Clone, Debug)]
pub struct Compact {
    /// What policy and value share, if they do.
    trunk: Option<Trunk>,
    /// Features → logits or means, `[rows, A]`.
    pub policy: Dense,
    /// Features → values, `[rows, H]`.
    pub value: Dense,
    /// First float of log σ, `[A]`, of independent normals; `None` where the action is one of `A` choices.
    pub log_std: Option<usize>,
    /// How actions are kept within their bounds, where the head does that.
    pub bounded: Option<(BoxHead, Bounds)>,
}

/// A torso that policy and value share: convolutions, then fully connected layers.
#[derive(Clone, Debug)]
struct Trunk {
    convolutions: Option<Convolutions>,
    mlp: Dense,
}

/// What a forward pass of [`Compact`] leaves for the backward pass.
#[derive(Debug, Default)]
pub struct CompactTrace {
    images: ImageTrace,
    trunk: Trace,
    /// Of the policy network.
    pub policy: Trace,
    /// Of the value network.
    pub value: Trace,
    d_features: Vec<f32>,
    d_image_features: Vec<f32>,
}

/// What a policy decided in some states, as plain memory that is used again from step to step.
#[derive(Debug)]
pub struct Decision {
    /// Actions of the policy's space, `[n, …]`, floats before any clipping to it.
    pub action: LeafBuf,
    /// log π(action), `[n]`.
    pub log_prob: Vec<f32>,
    /// `[n, H]`, one column for each value head.
    pub value: Vec<f32>,
    scratch: Scratch,
}

impl Default for Decision {
    fn default() -> Self {
        let action = LeafBuf::F32(Vec::new());
        Self { action, log_prob: Vec::new(), value: Vec::new(), scratch: Scratch::default() }
    }
}

impl Decision {
    /// Takes over what libtorch decided: actions of `space`, log_prob `[n]`, values `[n, H]`.
    pub(super) fn copy_from(&mut self, space: &Space, action: &Tensor, log_prob: &Tensor, value: &Tensor) {
        self.action = LeafBuf::zeros(space, log_prob.size()[0] as usize);
        self.action.leaf_mut().copy_from(leaf_of(&action.contiguous()));
        for (to, from) in [(&mut self.log_prob, log_prob), (&mut self.value, value)] {
            to.clear();
            to.extend_from_slice(slice(&from.contiguous()));
        }
    }
}

#[derive(Debug, Default)]
struct Scratch {
    standardised: Vec<f32>,
    trace: CompactTrace,
}

/// Which action to take.
pub enum Choice<'a> {
    /// A sample, with noise from one stream for all rows or from one for each.
    Sample(&'a mut [Stream]),
    /// The most probable one.
    Mode,
}

/// Turns logits into normalised logarithms of probabilities, in place: x − log Σ eˣ.
pub fn log_softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - highest).exp()).sum();
    let shift = highest + sum.ln();
    logits.iter_mut().for_each(|x| *x -= shift);
}

/// The index a uniform `u` in `[0, 1)` falls on, of choices with these logarithms of probabilities.
fn choose(log_probs: &[f32], u: f32) -> usize {
    let mut sum = 0.0;
    let chosen = log_probs.iter().position(|log_prob| {
        sum += log_prob.exp();
        u < sum
    });
    // Rounding may leave the sum just below u: then it is the last possible choice.
    let last = || log_probs.iter().rposition(|&x| x > f32::NEG_INFINITY).unwrap_or(log_probs.len() - 1);
    chosen.unwrap_or_else(last)
}

fn argmax(values: &[f32]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (1..values.len()).fold(0, better)
}

impl Compact {
    /// The fast path of a network whose parameters lie in `layout`: perceptrons of moderate width over vectors of
    /// floats, or convolutions over small images, with one torso for both or one each. `None` for anything else.
    pub(super) fn new(
        layout: &[Slot],
        observation: &Space,
        (torso, value_torso): (&Torso, Option<&Torso>),
        (policy, value): (&Linear, Option<&Linear>),
        log_std: Option<usize>,
        bounded: Option<(BoxHead, Bounds)>,
    ) -> Option<Self> {
        let Space::Box { dtype, .. } = observation else { return None };
        let convolutions = Convolutions::new(layout, torso, observation);
        // Bytes are scaled on the way into the convolutions; vectors of bytes are rare.
        if convolutions.is_none() && (*dtype != Dtype::F32 || !torso.convolutions().is_empty()) {
            return None;
        }
        let no_value = value.is_none();
        let value = |mlp| match (mlp, value) {
            (_, None) => Dense::nothing(),
            (Some(mlp), value) => Dense::new(layout, mlp, value),
            (None, Some(value)) => Dense::linear(layout, value),
        };
        let compact = match value_torso {
            None if no_value && convolutions.is_none() => Self {
                trunk: None,
                policy: Dense::new(layout, torso.mlp(), Some(policy)),
                value: value(None),
                log_std,
                bounded,
            },
            Some(_) if convolutions.is_some() => return None,
            Some(value_torso) => Self {
                trunk: None,
                policy: Dense::new(layout, torso.mlp(), Some(policy)),
                value: value(Some(value_torso.mlp())),
                log_std,
                bounded,
            },
            None => Self {
                trunk: Some(Trunk { convolutions, mlp: Dense::new(layout, torso.mlp(), None) }),
                policy: Dense::linear(layout, policy),
                value: value(None),
                log_std,
                bounded,
            },
        };
        let trunk_width = |trunk: &Trunk| match &trunk.convolutions {
            // The first fully connected layer reads many features, and that does no harm.
            Some(_) => trunk.mlp.outputs(),
            None => trunk.mlp.width(),
        };
        let widths =
            [compact.policy.width(), compact.value.width(), compact.trunk.as_ref().map_or(0, trunk_width)];
        let empty = compact.trunk.as_ref().is_some_and(|trunk| trunk.mlp.is_empty());
        (!empty && widths.into_iter().all(|width| width <= WIDEST)).then_some(compact)
    }

    /// Outputs of both networks in `rows` states into `trace`. `input` are floats `[rows, F]` as the networks read
    /// them, or images in the shape in which they were seen.
    pub fn forward(&self, weights: &[f32], input: Leaf, rows: usize, trace: &mut CompactTrace) {
        let features = match (&self.trunk, input) {
            (None, Leaf::F32(input)) => input,
            (Some(Trunk { convolutions, mlp }), input) => {
                let read = match (convolutions, input) {
                    (Some(convolutions), images) => {
                        convolutions.forward(weights, images, rows, &mut trace.images);
                        trace.images.features()
                    }
                    (None, input) => input.f32(),
                };
                mlp.forward(weights, read, rows, &mut trace.trunk);
                trace.trunk.output()
            }
            (None, other) => unreachable!("perceptrons read floats, not {other:?}"),
        };
        self.policy.forward(weights, features, rows, &mut trace.policy);
        self.value.forward(weights, features, rows, &mut trace.value);
    }

    /// Writes the gradient of every weight into `gradient` from those by both networks' outputs (see
    /// [`Trace::output_and_gradient`]). `input` and `trace` are those of the forward pass.
    pub fn backward(&self, weights: &[f32], gradient: &mut [f32], input: Leaf, trace: &mut CompactTrace) {
        let Some(Trunk { convolutions, mlp }) = &self.trunk else {
            self.policy.backward(weights, gradient, input.f32(), None, &mut trace.policy);
            self.value.backward(weights, gradient, input.f32(), None, &mut trace.value);
            return;
        };
        let CompactTrace { images, trunk, policy, value, d_features, d_image_features } = trace;
        let features = trunk.output();
        d_features.clear();
        d_features.resize(features.len(), 0.0);
        self.policy.backward(weights, gradient, features, Some(d_features), policy);
        self.value.backward(weights, gradient, features, Some(d_features), value);
        trunk.output_and_gradient().1.copy_from_slice(d_features);
        match convolutions {
            None => mlp.backward(weights, gradient, input.f32(), None, trunk),
            Some(convolutions) => {
                d_image_features.clear();
                d_image_features.resize(images.features().len(), 0.0);
                mlp.backward(weights, gradient, images.features(), Some(d_image_features), trunk);
                convolutions.backward(weights, gradient, d_image_features, images);
            }
        }
    }

    /// Decides in `n` states of `observation` as it was seen, with `weights` and the statistics that belong to them.
    /// Once `to` has been used for as many states, only the matrix products allocate (a few bytes each).
    pub fn decide(
        &self,
        weights: &[f32],
        normaliser: Option<&RunningNorm>,
        observation: Leaf,
        n: usize,
        mut choice: Choice,
        to: &mut Decision,
    ) {
        let Scratch { standardised, trace } = &mut to.scratch;
        let input = match (normaliser, observation) {
            (Some(normaliser), Leaf::F32(observation)) => {
                standardised.resize(observation.len(), 0.0);
                normaliser.normalise_rows(observation, standardised);
                Leaf::F32(standardised)
            }
            (Some(normaliser), Leaf::U8(bytes)) => {
                let normalised = normaliser.normalised_bytes();
                standardised.clear();
                standardised.extend(bytes.iter().map(|&byte| normalised[usize::from(byte)]));
                Leaf::F32(standardised)
            }
            _ => observation,
        };
        self.forward(weights, input, n, trace);
        to.value.clear();
        to.value.extend_from_slice(trace.value.output());
        let (width, out) = (self.policy.outputs(), trace.policy.output_mut());
        to.log_prob.clear();
        if let Some((head, bounds)) = &self.bounded {
            return to_bounds(*head, bounds, out, width, choice, (&mut to.action, &mut to.log_prob));
        }
        match self.log_std {
            None => {
                if !matches!(to.action, LeafBuf::I64(_)) {
                    to.action = LeafBuf::I64(Vec::with_capacity(n));
                }
                let LeafBuf::I64(actions) = &mut to.action else { return };
                actions.clear();
                for (row, logits) in out.chunks_exact_mut(width).enumerate() {
                    log_softmax(logits);
                    let action = match &mut choice {
                        Choice::Sample(noise) => {
                            let streams = noise.len();
                            choose(logits, noise[row % streams].uniform())
                        }
                        Choice::Mode => argmax(logits),
                    };
                    actions.push(action as i64);
                    to.log_prob.push(logits[action]);
                }
            }
            Some(log_std) => {
                if !matches!(to.action, LeafBuf::F32(_)) {
                    to.action = LeafBuf::F32(Vec::with_capacity(n * width));
                }
                let LeafBuf::F32(actions) = &mut to.action else { return };
                actions.clear();
                let log_std = &weights[log_std..log_std + width];
                for (row, mean) in out.chunks_exact(width).enumerate() {
                    let mut log_prob = 0.0;
                    for (mean, log_std) in mean.iter().zip(log_std) {
                        let z = match &mut choice {
                            Choice::Sample(noise) => {
                                let streams = noise.len();
                                noise[row % streams].normal()
                            }
                            Choice::Mode => 0.0,
                        };
                        actions.push(mean + z * log_std.exp());
                        log_prob += gaussian_log_prob(z, *log_std);
                    }
                    to.log_prob.push(log_prob);
                }
            }
        }
    }
}

/// Actions within `bounds` of a network's outputs, `[n, width]`, with their log-probabilities.
fn to_bounds(
    head: BoxHead,
    bounds: &Bounds,
    out: &[f32],
    width: usize,
    mut choice: Choice,
    (action, log_prob): (&mut LeafBuf, &mut Vec<f32>),
) {
    let count = bounds.width();
    if !matches!(action, LeafBuf::F32(_)) {
        *action = LeafBuf::F32(Vec::new());
    }
    let LeafBuf::F32(actions) = action else { return };
    actions.clear();
    for (row, out) in out.chunks_exact(width).enumerate() {
        let mut sum = 0.0;
        for i in 0..count {
            let z = match &mut choice {
                Choice::Sample(noise) => {
                    let streams = noise.len();
                    noise[row % streams].normal()
                }
                Choice::Mode => 0.0,
            };
            match head {
                BoxHead::Deterministic { noise } => {
                    let deviation = bounds.half[i] * noise as f32;
                    actions.push(bounds.stretch(i, out[i].tanh()) + z * deviation);
                    sum += gaussian_log_prob(z, deviation.ln());
                }
                BoxHead::Gaussian | BoxHead::SquashedGaussian => {
                    let log_std = out[count + i].clamp(LOG_STD_RANGE[0], LOG_STD_RANGE[1]);
                    let x = out[i] + z * log_std.exp();
                    actions.push(bounds.stretch(i, x.tanh()));
                    sum += gaussian_log_prob(z, log_std) - log_slope(x) - bounds.half[i].ln();
                }
            }
        }
        log_prob.push(sum);
    }
}

/// −½z² − log σ − ½ log 2π of one normal, z = (a − μ)/σ.
pub fn gaussian_log_prob(z: f32, log_std: f32) -> f32 {
    -0.5 * z * z - log_std - 0.5 * (2.0 * PI).ln()
}
