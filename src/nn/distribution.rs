//! Action distributions and their closed forms.

use super::squash::{Bounds, LOG_STD_RANGE, log_slope_of};
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
    /// tanh of independent normals, stretched to the bounds of a box (Haarnoja et al. 2018, appendix C).
    SquashedGaussian {
        /// Of the normals, `[B, A]`.
        mean: Tensor,
        /// `[B, A]`
        log_std: Tensor,
        /// The box.
        bounds: Bounds,
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

    /// Squashed normals from a network's output `[B, 2 A]`: means, then log standard deviations, which are kept within
    /// [`LOG_STD_RANGE`].
    pub fn squashed(out: &Tensor, bounds: &Bounds) -> Self {
        let mut halves = out.chunk(2, -1);
        let [low, high] = LOG_STD_RANGE.map(f64::from);
        let log_std = halves.remove(1).clamp(low, high);
        Distribution::SquashedGaussian { mean: halves.remove(0), log_std, bounds: bounds.clone() }
    }

    /// Normals of deviation `noise` · half the box around centre + half · tanh of a network's output, `[B, A]`.
    pub fn around(out: &Tensor, bounds: &Bounds, noise: f64) -> Self {
        let (centre, half) = bounds.tensors();
        let log_std = (&half * noise).log();
        Distribution::DiagonalGaussian { mean: out.tanh() * half + centre, log_std }
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
                let log_std =
                    log_std.as_mut().unwrap_or_else(|| panic!("no log standard deviation of {space}"));
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
            Distribution::SquashedGaussian { mean, log_std, bounds } => {
                // At the bounds themselves the normal would have to be infinite.
                let x = bounds.unit(&action.reshape_as(mean)).clamp(-1.0 + 1e-6, 1.0 - 1e-6).atanh();
                let z = (&x - mean) * (-log_std).exp();
                let stretched: Tensor = bounds.tensors().1.log() + log_slope_of(&x);
                let summed: Tensor = z.square() * -0.5 - log_std - 0.5 * (2.0 * PI).ln() - stretched;
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

    /// Entropy in nats, `[B]`: −Σ p log p, or Σ ½ + ½ log 2π + log σ; of independent parts the sum. That of squashed
    /// normals has no closed form: the logarithm of the slope, whose mean it adds to the normals', is taken at their
    /// means.
    pub fn entropy(&self) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => {
                -(log_probs.exp() * log_probs).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
            }
            Distribution::DiagonalGaussian { mean, log_std } => {
                let one: Tensor = log_std + 0.5 * (1.0 + (2.0 * PI).ln());
                one.sum(Kind::Float).expand([mean.size()[0]], true)
            }
            Distribution::SquashedGaussian { mean, log_std, bounds } => {
                let slope: Tensor = log_slope_of(mean) + bounds.tensors().1.log();
                let one: Tensor = log_std + slope + 0.5 * (1.0 + (2.0 * PI).ln());
                one.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
            }
            // −p log p − (1 − p) log(1 − p) = log(1 + eˣ) − x p
            Distribution::Bernoulli { logits } => (logits.softplus() - logits * logits.sigmoid())
                .sum_dim_intlist([-1i64].as_slice(), false, Kind::Float),
            Distribution::MultiCategorical(parts) | Distribution::Joint { parts, .. } => {
                parts.iter().map(Distribution::entropy).sum()
            }
        }
    }

    /// Kullback–Leibler divergence of `other` from this one, in nats, `[B]`: Σ p (log p − log q), or
    /// log σ_q/σ_p + (σ_p² + (μ_p − μ_q)²) / 2σ_q² − ½; of independent parts the sum.
    ///
    /// # Panics
    /// If the two are of different kinds.
    pub fn kl(&self, other: &Self) -> Tensor {
        let summed = |x: Tensor| x.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        match (self, other) {
            (Distribution::Categorical { log_probs: p }, Distribution::Categorical { log_probs: q }) => {
                summed(p.exp() * (p - q))
            }
            (
                Distribution::DiagonalGaussian { mean: p_mean, log_std: p_log_std },
                Distribution::DiagonalGaussian { mean: q_mean, log_std: q_log_std },
            ) => {
                let squares = (p_log_std * 2.0).exp() + (p_mean - q_mean).square();
                summed(q_log_std - p_log_std + squares * (q_log_std * -2.0).exp() * 0.5 - 0.5)
            }
            (Distribution::Bernoulli { logits: p }, Distribution::Bernoulli { logits: q }) => {
                // p (x − y) + log(1 − p) − log(1 − q), and log(1 − p) = −softplus(x).
                summed(p.sigmoid() * (p - q) - p.softplus() + q.softplus())
            }
            (Distribution::MultiCategorical(p), Distribution::MultiCategorical(q))
            | (Distribution::Joint { parts: p, .. }, Distribution::Joint { parts: q, .. }) => {
                p.iter().zip(q).map(|(p, q)| p.kl(q)).sum()
            }
            _ => panic!("{self:?} and {other:?} are over different actions"),
        }
    }

    /// The most probable action of each.
    pub fn mode(&self) -> Tensor {
        match self {
            Distribution::Categorical { log_probs } => log_probs.argmax(-1, false),
            Distribution::DiagonalGaussian { mean, .. } => mean.shallow_clone(),
            // That of the normals, squashed; the density may have its maximum elsewhere.
            Distribution::SquashedGaussian { mean, bounds, .. } => squash(mean, bounds),
            Distribution::MultiCategorical(parts) => stacked(parts.iter().map(Distribution::mode)),
            Distribution::Bernoulli { logits } => logits.gt(0.0).to_kind(Kind::Uint8),
            Distribution::Joint { fields, parts } => records(fields, parts.iter().map(Distribution::mode)),
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
            Distribution::SquashedGaussian { mean, log_std, bounds } => {
                let width = bounds.width();
                let normals: Vec<f32> =
                    (0..mean.numel()).map(|i| noise[i / width % streams].normal()).collect();
                squash(&(mean + Tensor::from_slice(&normals).view_as(mean) * log_std.exp()), bounds)
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

/// centre + half · tanh x.
fn squash(x: &Tensor, bounds: &Bounds) -> Tensor {
    let (centre, half) = bounds.tensors();
    x.tanh() * half + centre
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
    fn squashed_closed_forms() {
        let space = Space::floats(&[2], -2.0, 2.0);
        let bounds = Bounds::of(&space).unwrap();
        // Means 0 and ½, deviations 1 and 2.
        let out = Tensor::from_slice2(&[[0f32, 0.5, 0.0, 2f32.ln()]]);
        let d = Distribution::squashed(&out, &bounds);
        close(&d.mode().view(-1), &[0.0, 2.0 * 0.5f64.tanh()]);
        // The action of x = (1, ½): density of the normals over the slope 2 (1 − tanh² x) of what is made of them.
        let action = Tensor::from_slice2(&[[2.0 * 1f32.tanh(), 2.0 * 0.5f32.tanh()]]);
        let slopes = [1f64, 0.5].map(|x| (2.0 * (1.0 - x.tanh().powi(2))).ln());
        let normals = -0.5 - (2.0 * PI).ln() - 2f64.ln();
        close(&d.log_prob(&action), &[normals - slopes[0] - slopes[1]]);
        // Beyond the range of deviations nothing moves any more.
        let wild = Distribution::squashed(&Tensor::from_slice2(&[[0f32, 0.0, 50.0, -50.0]]), &bounds);
        let Distribution::SquashedGaussian { log_std, .. } = &wild else { unreachable!() };
        close(&log_std.view(-1), &[2.0, -20.0]);
        // An action at the bound has a probability.
        assert!(d.log_prob(&Tensor::from_slice2(&[[2f32, -2.0]])).double_value(&[0]).is_finite());
        let drawn = d.sample(&mut [Stream::new(0, "sample", 0, 0)]);
        assert!(drawn.abs().max().double_value(&[]) < 2.0);
    }

    /// The density integrates to 1 over the box, and its entropy is near the estimate where it is narrow.
    #[test]
    fn squashed_normals_are_a_density() {
        let bounds = Bounds::of(&Space::floats(&[1], -1.0, 3.0)).unwrap();
        let points = 40_000;
        let grid: Vec<f32> = (0..points).map(|i| -1.0 + 4.0 * (i as f32 + 0.5) / points as f32).collect();
        let grid = Tensor::from_slice(&grid).view([-1, 1]);
        for (mean, log_std) in [(0.0f32, 0.0f32), (0.4, -2.5)] {
            let out = Tensor::from_slice(&[mean, log_std]).expand([points, 2], false);
            let d = Distribution::squashed(&out, &bounds);
            let log_prob = d.log_prob(&grid);
            let width = 4.0 / points as f64;
            let mass = log_prob.exp().sum(Kind::Double).double_value(&[]) * width;
            assert!((mass - 1.0).abs() < 1e-3, "{mass}");
            let entropy = -(log_prob.exp() * &log_prob).sum(Kind::Double).double_value(&[]) * width;
            let estimate = d.entropy().double_value(&[0]);
            assert!(log_std > -1.0 || (entropy - estimate).abs() < 0.02, "{entropy} is not about {estimate}");
        }
    }

    #[test]
    fn noise_around_a_decision_is_in_units_of_the_box() {
        let bounds = Bounds::of(&Space::floats(&[1], -2.0, 2.0)).unwrap();
        let d = Distribution::around(&Tensor::from_slice2(&[[0.5f32]]), &bounds, 0.1);
        close(&d.mode().view(-1), &[2.0 * 0.5f64.tanh()]);
        close(&d.entropy(), &[0.5 * (1.0 + (2.0 * PI).ln()) + 0.2f64.ln()]);
    }

    #[test]
    fn divergences_by_hand() {
        let categorical =
            |p: [f32; 2]| Distribution::categorical(&Tensor::from_slice2(&[[p[0].ln(), p[1].ln()]]));
        // ¼ log(¼ / ½) + ¾ log(¾ / ½)
        let wanted = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        close(&categorical([0.25, 0.75]).kl(&categorical([0.5, 0.5])), &[wanted]);
        let bernoulli =
            |p: f32| Distribution::Bernoulli { logits: Tensor::from_slice2(&[[(p / (1.0 - p)).ln()]]) };
        close(&bernoulli(0.75).kl(&bernoulli(0.5)), &[wanted]);
        let normal = |mean: f32, deviation: f32| Distribution::DiagonalGaussian {
            mean: Tensor::from_slice2(&[[mean, 0.0]]),
            log_std: Tensor::from_slice(&[deviation.ln(), 0.0]),
        };
        // log 2 + (1 + 9) / 8 − ½
        close(&normal(1.0, 1.0).kl(&normal(4.0, 2.0)), &[2f64.ln() + 10.0 / 8.0 - 0.5]);
        let choices =
            Distribution::MultiCategorical(vec![categorical([0.25, 0.75]), categorical([0.5, 0.5])]);
        let even = Distribution::MultiCategorical(vec![categorical([0.5, 0.5]), categorical([0.5, 0.5])]);
        close(&choices.kl(&even), &[wanted]);
        close(&even.kl(&even), &[0.0]);
    }

    /// Logits of two states; the wanted values below were computed from the definitions in 64 bits with NumPy.
    fn logits() -> Tensor {
        Tensor::from_slice2(&[[0.3f32, -1.2, 0.7, 0.5, -0.5], [2.0, 0.1, -0.4, 1.5, -2.5]])
    }

    #[test]
    fn several_choices_closed_forms() {
        let d = Distribution::over(&Space::multi_discrete(&[3, 2]), &logits(), None, None);
        let action = Tensor::from_slice2(&[[2i64, 1], [0, 0]]);
        close(&d.log_prob(&action), &[-1.912_037, -0.233_492]);
        close(&d.entropy(), &[1.484_463, 0.710_105]);
        assert_eq!(d.mode(), Tensor::from_slice2(&[[2i64, 0], [0, 0]]));
    }

    #[test]
    fn switches_closed_forms() {
        let logits = logits().narrow(1, 0, 3);
        let d = Distribution::over(&Space::multi_binary(&[3]), &logits, None, None);
        close(&d.log_prob(&Tensor::from_slice2(&[[1u8, 0, 1], [0, 0, 1]])), &[-1.220_824, -3.784_340]);
        close(&d.entropy(), &[1.858_530, 1.730_773]);
        assert_eq!(d.mode(), Tensor::from_slice2(&[[1u8, 0, 1], [1, 1, 0]]));
        // Logits at which 1 − p rounds to 0.
        let sure = Distribution::Bernoulli { logits: Tensor::from_slice2(&[[80f32, -80.0]]) };
        close(&sure.log_prob(&Tensor::from_slice2(&[[1u8, 0]])), &[0.0]);
        close(&sure.log_prob(&Tensor::from_slice2(&[[0u8, 1]])), &[-160.0]);
        close(&sure.entropy(), &[0.0]);
    }

    #[test]
    fn fields_are_the_sum_of_their_parts() {
        let space = Space::fields([
            ("turn", Space::floats(&[2], -1.0, 1.0)),
            ("gear", Space::discrete(3)),
            ("lights", Space::multi_binary(&[2])),
        ])
        .unwrap();
        let Space::Fields(fields) = &space else { unreachable!() };
        let out = Tensor::from_slice2(&[[1.0f32, -1.0, 0.0, 0.0, 2f32.ln(), 0.0, 3f32.ln()]]);
        let log_std = Tensor::from_slice(&[0.0f32, 2f32.ln()]);
        let d = Distribution::over(&space, &out, Some(&log_std), None);
        let turn = Tensor::from_slice2(&[[2.0f32, -1.0]]);
        let lights = Tensor::from_slice2(&[[0u8, 1]]);
        let gear = Tensor::from_slice(&[2i64]);
        let record = records(fields, [turn, gear.shallow_clone(), lights.shallow_clone()].into_iter());
        assert_eq!(record.size(), [1, 24]);
        // As in the tests above: normals, a probability of ½, switches on with ½ and ¾.
        let normals = -0.5 - (2.0 * PI).ln() - 2f64.ln();
        close(&d.log_prob(&record), &[normals + 0.5f64.ln() + 0.5f64.ln() + 0.75f64.ln()]);
        let switches = 2f64.ln() - 0.75 * 0.75f64.ln() - 0.25 * 0.25f64.ln();
        let entropy = 1.0 + (2.0 * PI).ln() + 2f64.ln() + 0.5 * 4f64.ln() + 0.5 * 2f64.ln() + switches;
        close(&d.entropy(), &[entropy]);
        let mode = d.mode();
        assert_eq!(field_of(&mode, &fields[0]), Tensor::from_slice2(&[[1.0f32, -1.0]]));
        assert_eq!(field_of(&mode, &fields[1]), gear);
        assert_eq!(field_of(&mode, &fields[2]), lights);
        // The same row twice from one stream each is the same record twice.
        let two = Distribution::over(&space, &out.repeat([2, 1]), Some(&log_std), None);
        let stream = || Stream::new(0, "sample", 7, 0);
        let drawn = two.sample(&mut [stream(), stream()]);
        assert_eq!(drawn.get(0), drawn.get(1));
        assert_eq!(drawn.get(0), d.sample(&mut [stream()]).get(0));
    }

    #[test]
    fn what_a_mask_forbids_has_no_probability_no_entropy_and_no_gradient() {
        let logits = logits().narrow(1, 0, 3).set_requires_grad(true);
        let mask = Tensor::from_slice2(&[[true, false, true], [false, true, true]]);
        let d = Distribution::over(&Space::discrete(3), &logits, None, Some(&mask));
        let log_prob = d.log_prob(&Tensor::from_slice(&[0i64, 2]));
        close(&log_prob, &[-0.913_015, -0.974_077]);
        close(&d.entropy(), &[0.673_540, 0.662_847]);
        assert_eq!(d.mode(), Tensor::from_slice(&[2i64, 1]));
        let sum = (log_prob * 2.0 + d.entropy()).sum(Kind::Float);
        let gradient = Tensor::run_backward(&[sum], &[&logits], false, false);
        let gradient = Vec::<f32>::try_from(gradient[0].contiguous().view(-1)).unwrap();
        assert!(gradient.iter().all(|x| x.is_finite()), "{gradient:?}");
        assert_eq!((gradient[1], gradient[3]), (0.0, 0.0));
        assert!(gradient[0] != 0.0 && gradient[5] != 0.0, "{gradient:?}");

        // Of two choices only the last of each.
        let mask = Tensor::from_slice2(&[[false, true, false, false, true]]);
        let even = Tensor::zeros([1, 5], (Kind::Float, Device::Cpu));
        let d = Distribution::over(&Space::multi_discrete(&[2, 3]), &even, None, Some(&mask));
        close(&d.log_prob(&Tensor::from_slice2(&[[1i64, 2]])), &[0.0]);
        close(&d.entropy(), &[0.0]);
        // Switches that must be off, must be on, may be either.
        let mask = Tensor::from_slice2(&[[true, false, false, true, true, true]]);
        let logits = Tensor::from_slice2(&[[5f32, -5.0, 0.0]]);
        let d = Distribution::over(&Space::multi_binary(&[3]), &logits, None, Some(&mask));
        close(&d.log_prob(&Tensor::from_slice2(&[[0u8, 1, 1]])), &[0.5f64.ln()]);
        close(&d.entropy(), &[2f64.ln()]);
        for step in 0..100 {
            let drawn = d.sample(&mut [Stream::new(0, "sample", 3, step)]);
            assert_eq!(Vec::<u8>::try_from(drawn.view(-1)).unwrap()[..2], [0, 1]);
        }
    }

    #[test]
    fn samples_of_several_have_the_right_frequencies() {
        let share = |hits: Tensor, wanted: f64| {
            let share = hits.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!((share - wanted).abs() < 0.01, "{share} is not {wanted}");
        };
        let rows = |row: &[f32]| Tensor::from_slice(row).expand([20_000, row.len() as i64], false);
        let drawn = |space: &Space, row: &[f32], index| {
            let d = Distribution::over(space, &rows(row), None, None);
            d.sample(&mut [Stream::new(0, "sample", index, 0)])
        };
        let choices = drawn(&Space::multi_discrete(&[2, 3]), &[0.0, 3f32.ln(), 0.0, 0.0, 2f32.ln()], 4);
        assert_eq!((choices.size(), choices.kind()), (vec![20_000, 2], Kind::Int64));
        share(choices.select(1, 0).eq(1), 0.75);
        share(choices.select(1, 1).eq(2), 0.5);
        share(choices.select(1, 0).eq(1).logical_and(&choices.select(1, 1).eq(2)), 0.375);
        let switches = drawn(&Space::multi_binary(&[2]), &[3f32.ln(), -(9f32.ln())], 5);
        assert_eq!((switches.size(), switches.kind()), (vec![20_000, 2], Kind::Uint8));
        share(switches.select(1, 0).eq(1), 0.75);
        share(switches.select(1, 1).eq(1), 0.1);
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
