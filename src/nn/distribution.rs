//! Action distributions and their closed forms.

use crate::memory::{field_of, slice};
use crate::random::Stream;
use imago_envs::{Fields, Space};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// Logit of what a mask forbids, and minus that of a switch that must be on: far enough for a probability of
/// exactly 0, near enough for 0 · log 0 to be 0.
const FORBIDDEN: f64 = -1e8;

/// A batch of action distributions, `[B]` of them.
#[derive(Debug)]
pub enum Distribution {
    /// One of `A` choices.
    Categorical {
        /// Normalised logarithms of the probabilities, `[B, A]`.
        log_probs: Tensor,
    },
    /// Independent normals, unsquashed: environments clip, probabilities do not.
    DiagonalGaussian {
        /// `[B, A]`
        mean: Tensor,
        /// `[A]`, the same in every state.
        log_std: Tensor,
    },
    /// Independent choices at once, each [`Distribution::Categorical`]: one column of the action each.
    MultiCategorical(Vec<Distribution>),
    /// Independent switches.
    Bernoulli {
        /// log p − log(1 − p) of being on, `[B, A]`.
        logits: Tensor,
    },
    /// Independent fields of a record, each with the distribution that its space has.
    Joint {
        /// The action space.
        fields: Fields,
        /// One for each field.
        parts: Vec<Distribution>,
    },
}

/// Consecutive columns of a tensor.
struct Columns<'a> {
    tensor: &'a Tensor,
    next: i64,
}

impl Columns<'_> {
    fn take(&mut self, count: usize) -> Tensor {
        let taken = self.tensor.narrow(-1, self.next, count as i64);
        self.next += count as i64;
        taken
    }
}

impl Distribution {
    /// From unnormalised logits, `[B, A]`.
    pub fn categorical(logits: &Tensor) -> Self {
        Distribution::Categorical { log_probs: logits.log_softmax(-1, Kind::Float) }
    }

    /// Over the actions of `space`, from a network's output `[B, features]`, log standard deviations of all its
    /// box values in order, and a mask `[B, choices]` of what is allowed ([`Space::choices`]). What is forbidden
    /// has probability 0 and no gradient, and the entropy is that of the rest (Huang & Ontañón 2020).
    ///
    /// # Panics
    /// A space with boxes without `log_std`, or tensors of other widths.
    pub fn over(space: &Space, out: &Tensor, log_std: Option<&Tensor>, mask: Option<&Tensor>) -> Self {
        let columns = |tensor| Columns { tensor, next: 0 };
        Self::of_leaf(space, &mut columns(out), &mut log_std.map(columns), &mut mask.map(columns))
    }

    fn of_leaf(
        space: &Space,
        out: &mut Columns,
        log_std: &mut Option<Columns>,
        mask: &mut Option<Columns>,
    ) -> Self {
        let allowed = |logits: Tensor, mask: &mut Option<Columns>, count: usize| match mask {
            Some(mask) => logits.masked_fill(&mask.take(count).logical_not(), FORBIDDEN),
            None => logits,
        };
        match space {
            Space::Box { .. } => {
                let log_std = log_std.as_mut().unwrap_or_else(|| panic!("no log standard deviation of {space}"));
                let count = space.len();
                Distribution::DiagonalGaussian { mean: out.take(count), log_std: log_std.take(count) }
            }
            Space::Discrete { n, .. } => {
                let count = *n as usize;
                Self::categorical(&allowed(out.take(count), mask, count))
            }
            Space::MultiDiscrete { n, .. } => Distribution::MultiCategorical(
                n.iter()
                    .map(|&n| Self::categorical(&allowed(out.take(n as usize), mask, n as usize)))
                    .collect(),
            ),
            Space::MultiBinary { .. } => {
                let count = space.len();
                let logits = out.take(count);
                let Some(mask) = mask else { return Distribution::Bernoulli { logits } };
                // [B, A, 2]: off, on.
                let forbidden = mask.take(2 * count).logical_not().reshape([-1, count as i64, 2]);
                let logits = logits.masked_fill(&forbidden.select(-1, 0), -FORBIDDEN);
                Distribution::Bernoulli { logits: logits.masked_fill(&forbidden.select(-1, 1), FORBIDDEN) }
            }
            Space::Fields(fields) => {
                let parts = fields.iter().map(|field| Self::of_leaf(&field.space, out, log_std, mask));
                Distribution::Joint { parts: parts.collect(), fields: fields.clone() }
            }
        }
    }

    /// log π(a): `[B]`. `action` is int64 `[B]` for choices, float32 of A values a row for normals:
    /// Σ −½((a − μ)/σ)² − log σ − ½ log 2π; int64 of a column for each of several choices; bytes for switches,
    /// Σ a log p + (1 − a) log(1 − p), and for records. Independent parts are added.
    pub fn log_prob(&self, action: &Tensor) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => {
                log_probs.gather(-1, &action.unsqueeze(-1), false).squeeze_dim(-1)
            }
            Distribution::DiagonalGaussian { mean, log_std } => {
                let z = (action.reshape_as(mean) - mean) * (-log_std).exp();
                let summed: Tensor = z.square() * -0.5 - log_std - 0.5 * (2.0 * PI).ln();
                summed.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
            }
            Distribution::MultiCategorical(parts) => {
                let action = action.flatten(1, -1);
                let columns = parts.iter().enumerate();
                columns.map(|(i, part)| part.log_prob(&action.select(1, i as i64))).sum()
            }
            Distribution::Bernoulli { logits } => {
                let on = action.reshape_as(logits).to_kind(Kind::Float);
                let sign: Tensor = on * 2.0 - 1.0;
                -(sign * logits).neg().softplus().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
            }
            Distribution::Joint { fields, parts } => {
                let fields = fields.iter().zip(parts);
                fields.map(|(field, part)| part.log_prob(&field_of(action, field))).sum()
            }
        }
    }

    /// Entropy in nats, `[B]`: −Σ p log p, or Σ ½ + ½ log 2π + log σ; of independent parts the sum.
    pub fn entropy(&self) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => {
                -(log_probs.exp() * log_probs).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
            }
            Distribution::DiagonalGaussian { mean, log_std } => {
                let one: Tensor = log_std + 0.5 * (1.0 + (2.0 * PI).ln());
                one.sum(Kind::Float).expand([mean.size()[0]], true)
            }
            // −p log p − (1 − p) log(1 − p) = log(1 + eˣ) − x p
            Distribution::Bernoulli { logits } => (logits.softplus() - logits * logits.sigmoid())
                .sum_dim_intlist([-1i64].as_slice(), false, Kind::Float),
            Distribution::MultiCategorical(parts) | Distribution::Joint { parts, .. } => {
                parts.iter().map(Distribution::entropy).sum()
            }
        }
    }

    /// The most probable action of each.
    pub fn mode(&self) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => log_probs.argmax(-1, false),
            Distribution::DiagonalGaussian { mean, .. } => mean.shallow_clone(),
            Distribution::MultiCategorical(parts) => stacked(parts.iter().map(Distribution::mode)),
            Distribution::Bernoulli { logits } => logits.gt(0.0).to_kind(Kind::Uint8),
            Distribution::Joint { fields, parts } => {
                records(fields, parts.iter().map(Distribution::mode))
            }
        }
    }

    /// One action of each, row by row, with noise from one stream for all rows or from one for each.
    pub fn sample(&self, noise: &mut [Stream]) -> Tensor {
        let streams = noise.len();
        match self {
            Distribution::Categorical { log_probs } => {
                let probs = log_probs.exp().contiguous();
                let choices = log_probs.size()[1] as usize;
                let actions: Vec<i64> = slice::<f32>(&probs)
                    .chunks_exact(choices)
                    .enumerate()
                    .map(|(row, probs)| {
                        let (u, mut sum) = (noise[row % streams].uniform(), 0.0);
                        let chosen = probs.iter().position(|p| {
                            sum += p;
                            u < sum
                        });
                        // Rounding may leave the sum just below u: then it is the last possible choice.
                        let last = || probs.iter().rposition(|&p| p > 0.0).unwrap_or(choices - 1);
                        chosen.unwrap_or_else(last) as i64
                    })
                    .collect();
                Tensor::from_slice(&actions)
            }
            Distribution::DiagonalGaussian { mean, log_std } => {
                let width = log_std.numel();
                let normals: Vec<f32> =
                    (0..mean.numel()).map(|i| noise[i / width % streams].normal()).collect();
                mean + Tensor::from_slice(&normals).view_as(mean) * log_std.exp()
            }
            Distribution::MultiCategorical(parts) => stacked(parts.iter().map(|part| part.sample(noise))),
            Distribution::Bernoulli { logits } => {
                let (width, on) = (logits.size()[1] as usize, logits.sigmoid().contiguous());
                let on = slice::<f32>(&on).iter().enumerate();
                let switches: Vec<u8> =
                    on.map(|(i, &p)| u8::from(noise[i / width % streams].uniform() < p)).collect();
                Tensor::from_slice(&switches).view_as(logits)
            }
            Distribution::Joint { fields, parts } => {
                records(fields, parts.iter().map(|part| part.sample(noise)))
            }
        }
    }
}

/// Choices `[B]` as columns `[B, A]`.
fn stacked(parts: impl Iterator<Item = Tensor>) -> Tensor {
    Tensor::stack(&parts.collect::<Vec<_>>(), 1)
}

/// Elements of each field as records `[B, bytes]`.
fn records(fields: &Fields, parts: impl Iterator<Item = Tensor>) -> Tensor {
    let bytes: usize = fields.iter().map(|field| field.bytes()).sum();
    let mut records: Option<Tensor> = None;
    for (field, part) in fields.iter().zip(parts) {
        let shape = [part.size()[0], bytes as i64];
        let records = records.get_or_insert_with(|| Tensor::zeros(shape, (Kind::Uint8, Device::Cpu)));
        let mut view = field_of(records, field);
        view.copy_(&part.reshape(view.size()));
    }
    records.unwrap_or_else(|| Tensor::zeros([0, 0], (Kind::Uint8, Device::Cpu)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn close(tensor: &Tensor, wanted: &[f64]) {
        let got: Vec<f64> = Vec::try_from(tensor.to_kind(Kind::Double)).unwrap();
        assert_eq!(got.len(), wanted.len());
        for (a, b) in got.iter().zip(wanted) {
            assert!((a - b).abs() < 1e-5, "{got:?} is not {wanted:?}");
        }
    }

    #[test]
    fn categorical_closed_forms() {
        // Probabilities 1/4, 1/4, 1/2 and a certain choice.
        let logits = Tensor::from_slice2(&[[0.0f32, 0.0, 2f32.ln()], [0.0, -100.0, -100.0]]);
        let d = Distribution::categorical(&logits);
        close(&d.log_prob(&Tensor::from_slice(&[2i64, 0])), &[0.5f64.ln(), 0.0]);
        close(&d.entropy(), &[0.5 * 4f64.ln() + 0.5 * 2f64.ln(), 0.0]);
        assert_eq!(Vec::<i64>::try_from(d.mode()).unwrap(), [2, 0]);
    }

    #[test]
    fn gaussian_closed_forms() {
        let d = Distribution::DiagonalGaussian {
            mean: Tensor::from_slice2(&[[1.0f32, -1.0]]),
            log_std: Tensor::from_slice(&[0.0f32, 2f32.ln()]),
        };
        // Standard normal density at 1, and that of σ = 2 at its mean.
        let wanted = -0.5 - 0.5 * (2.0 * PI).ln() - 2f64.ln() - 0.5 * (2.0 * PI).ln();
        close(&d.log_prob(&Tensor::from_slice2(&[[2.0f32, -1.0]])), &[wanted]);
        close(&d.entropy(), &[1.0 + (2.0 * PI).ln() + 2f64.ln()]);
        close(&d.mode().view(-1), &[1.0, -1.0]);
    }

    #[test]
    fn samples_have_the_right_frequencies() {
        let logits = Tensor::from_slice2(&[[0.0f32, 3f32.ln()]]).expand([20_000, 2], false);
        let sampled = Distribution::categorical(&logits).sample(&mut [Stream::new(0, "sample", 0, 0)]);
        assert!((sampled.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]) - 0.75).abs() < 0.01);
        let d = Distribution::DiagonalGaussian {
            mean: Tensor::full([20_000, 1], 3.0, (Kind::Float, tch::Device::Cpu)),
            log_std: Tensor::from_slice(&[0.5f32.ln()]),
        };
        let sampled = d.sample(&mut [Stream::new(0, "sample", 1, 0)]);
        assert!((sampled.mean(Kind::Float).double_value(&[]) - 3.0).abs() < 0.02);
        assert!((sampled.std(true).double_value(&[]) - 0.5).abs() < 0.01);
    }
}
