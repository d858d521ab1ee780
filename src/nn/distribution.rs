//! Action distributions and their closed forms.

use crate::memory::slice;
use crate::random::Stream;
use std::f64::consts::PI;
use tch::{Kind, Tensor};

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
}

impl Distribution {
    /// From unnormalised logits, `[B, A]`.
    pub fn categorical(logits: &Tensor) -> Self {
        Distribution::Categorical { log_probs: logits.log_softmax(-1, Kind::Float) }
    }

    /// log π(a): `[B]`. `action` is int64 `[B]` for choices, float32 of A values a row for normals:
    /// Σ −½((a − μ)/σ)² − log σ − ½ log 2π.
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
        }
    }

    /// Entropy in nats, `[B]`: −Σ p log p, or Σ ½ + ½ log 2π + log σ.
    pub fn entropy(&self) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => {
                -(log_probs.exp() * log_probs).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
            }
            Distribution::DiagonalGaussian { mean, log_std } => {
                let one: Tensor = log_std + 0.5 * (1.0 + (2.0 * PI).ln());
                one.sum(Kind::Float).expand([mean.size()[0]], true)
            }
        }
    }

    /// The most probable action of each.
    pub fn mode(&self) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => log_probs.argmax(-1, false),
            Distribution::DiagonalGaussian { mean, .. } => mean.shallow_clone(),
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
        }
    }
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
