//! The actor-critic of control tasks in plain memory: separate small perceptrons for policy and value over a
//! vector observation. Workers, evaluation and the fused learner step all take this path where it fits.

use super::dense::{Dense, Trace};
use super::normaliser::RunningNorm;
use crate::memory::{leaf_of, slice};
use crate::random::Stream;
use imago_envs::{LeafBuf, Space};
use std::f32::consts::PI;
use tch::Tensor;

/// Layers wider than this are libtorch's: its kernels win there, and may use several threads.
pub(super) const WIDEST: usize = 512;

/// An [`ActorCritic`](super::ActorCritic)'s two networks, their places in its parameter buffer, and its head.
#[derive(Clone, Debug)]
pub struct Compact {
    /// Observation features → logits or means, `[rows, A]`.
    pub policy: Dense,
    /// Observation features → values, `[rows, H]`.
    pub value: Dense,
    /// First float of log σ, `[A]`, of independent normals; `None` where the action is one of `A` choices.
    pub log_std: Option<usize>,
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
    features: Vec<f32>,
    trace: Trace,
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
    /// Decides in `n` states of `observation`, `[n, F]`, with `weights` and the statistics that belong to them.
    /// Allocates nothing once `to` has been used for as many states.
    pub fn decide(
        &self,
        weights: &[f32],
        normaliser: Option<&RunningNorm>,
        observation: &[f32],
        n: usize,
        mut choice: Choice,
        to: &mut Decision,
    ) {
        let Scratch { features, trace } = &mut to.scratch;
        let features = match normaliser {
            Some(normaliser) => {
                features.resize(observation.len(), 0.0);
                normaliser.normalise_rows(observation, features);
                &features[..]
            }
            None => observation,
        };
        self.value.forward(weights, features, n, trace);
        to.value.clear();
        to.value.extend_from_slice(trace.output());
        self.policy.forward(weights, features, n, trace);
        let (width, out) = (self.policy.outputs(), trace.output_mut());
        to.log_prob.clear();
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

/// −½z² − log σ − ½ log 2π of one normal, z = (a − μ)/σ.
pub fn gaussian_log_prob(z: f32, log_std: f32) -> f32 {
    -0.5 * z * z - log_std - 0.5 * (2.0 * PI).ln()
}
