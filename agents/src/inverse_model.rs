//! Which action led from s to s′: the task by which features learn what an agent can influence (Pathak et al. 2017,
//! equation 2).

use crate::discriminator::executed;
use imago::memory::field_of;
use imago::nn::{Flat, Init, Layout, Linear};
use imago_envs::Space;
use tch::{Kind, Tensor};

/// One hidden layer on φ(s) and φ(s′) side by side.
pub(crate) struct InverseModel {
    action: Space,
    hidden: Linear,
    out: Linear,
}

impl InverseModel {
    /// Reserves the parameters.
    pub fn new(layout: &mut Layout, features: i64, width: i64, action: &Space) -> Self {
        let init = Init::OutputNorm(0.01);
        Self {
            action: action.clone(),
            hidden: Linear::new(layout, "inverse/hidden", 2 * features, width, init),
            out: Linear::new(layout, "inverse/out", width, action.features() as i64, init),
        }
    }

    /// What it makes of φ(s) and φ(s′), `[B, F]` each: logits of choices and switches, means of floats, `[B, A]`.
    pub fn forward(&self, flat: &Flat, from: &Tensor, to: &Tensor) -> Tensor {
        let hidden = self.hidden.forward(flat, &Tensor::cat(&[from, to], 1)).relu();
        self.out.forward(flat, &hidden)
    }

    /// [`loss`] for its action space.
    pub fn loss(&self, out: &Tensor, action: &Tensor) -> Tensor {
        loss(&self.action, out, action)
    }

    /// [`accuracy`] for its action space.
    pub fn accuracy(&self, out: &Tensor, action: &Tensor) -> Option<f64> {
        accuracy(&self.action, out, action)
    }
}

/// Mean negative log-likelihood of actions `[B, …]`: cross-entropy of each choice and switch; for floats half the
/// squared error, which is that of a normal of deviation 1 but for a constant. Several of them add up.
pub(crate) fn loss(space: &Space, out: &Tensor, action: &Tensor) -> Tensor {
    let rows = out.size()[0];
    match space {
        Space::Discrete { .. } => out.cross_entropy_for_logits(&action.reshape(-1)),
        Space::MultiDiscrete { n, .. } => {
            let action = action.reshape([rows, n.len() as i64]);
            let parts = columns(n).zip(0..);
            let each = parts.map(|((start, n), i)| {
                out.narrow(1, start, n).cross_entropy_for_logits(&action.select(1, i))
            });
            each.sum()
        }
        Space::MultiBinary { .. } => {
            let wanted = action.reshape([rows, -1]).to_kind(Kind::Float);
            // −log σ(x) for 1, −log σ(−x) for 0.
            (out.softplus() - out * wanted)
                .sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
                .mean(Kind::Float)
        }
        Space::Box { .. } => {
            let error = (out - executed(space, action)).square();
            error.sum_dim_intlist([1i64].as_slice(), false, Kind::Float).mean(Kind::Float) * 0.5
        }
        Space::Fields(fields) => {
            let mut start = 0;
            let each = fields.iter().map(|field| {
                let width = field.space.features() as i64;
                start += width;
                loss(&field.space, &out.narrow(1, start - width, width), &field_of(action, field))
            });
            each.sum()
        }
    }
}

/// Share of choices and switches that are guessed right, in `[0, 1]`; `None` of floats and of several fields.
pub(crate) fn accuracy(space: &Space, out: &Tensor, action: &Tensor) -> Option<f64> {
    let rows = out.size()[0];
    let share = |right: Tensor| Some(right.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]));
    match space {
        Space::Discrete { .. } => share(out.argmax(1, false).eq_tensor(&action.reshape(-1))),
        Space::MultiDiscrete { n, .. } => {
            let guesses: Vec<Tensor> =
                columns(n).map(|(start, n)| out.narrow(1, start, n).argmax(1, false)).collect();
            share(Tensor::stack(&guesses, 1).eq_tensor(&action.reshape([rows, -1])))
        }
        Space::MultiBinary { .. } => share(out.gt(0.0).eq_tensor(&action.reshape([rows, -1]).gt(0.5))),
        Space::Box { .. } | Space::Fields(_) => None,
    }
}

/// First logit and number of logits of each choice.
fn columns(n: &[i64]) -> impl Iterator<Item = (i64, i64)> {
    n.iter().scan(0, |end, &n| {
        *end += n;
        Some((*end - n, n))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn close(x: f64, wanted: f64) {
        assert!((x - wanted).abs() < 1e-6, "{x} is not {wanted}");
    }

    #[test]
    fn likelihoods_by_hand() {
        let log = |x: f64| x.ln() as f32;
        // Logits are log-probabilities of 0.5, 0.25, 0.25; then all three the same.
        let out = Tensor::from_slice2(&[[log(0.5), log(0.25), log(0.25)], [0.0, 0.0, 0.0]]);
        let choice = Tensor::from_slice(&[1i64, 2]);
        let wanted = (4f64.ln() + 3f64.ln()) / 2.0;
        close(loss(&Space::discrete(3), &out, &choice).double_value(&[]), wanted);
        // The first of three equal logits is the guess: both wrong.
        assert_eq!(accuracy(&Space::discrete(3), &out, &choice), Some(0.0));
        assert_eq!(accuracy(&Space::discrete(3), &out, &Tensor::from_slice(&[0i64, 2])), Some(0.5));

        // Two choices, of 2 and of 1, and switches with logits log 3 (σ = ¾) and 0.
        let out = Tensor::from_slice2(&[[log(0.75), log(0.25), 7.0]]);
        let space = Space::multi_discrete(&[2, 1]);
        close(loss(&space, &out, &Tensor::from_slice2(&[[0i64, 0]])).double_value(&[]), -(0.75f64.ln()));
        assert_eq!(accuracy(&space, &out, &Tensor::from_slice2(&[[1i64, 0]])), Some(0.5));
        let out = Tensor::from_slice2(&[[log(3.0), 0.0]]);
        let switches = Tensor::from_slice2(&[[0u8, 1]]);
        let space = Space::multi_binary(&[2]);
        close(loss(&space, &out, &switches).double_value(&[]), 4f64.ln() + 2f64.ln());
        assert_eq!(accuracy(&space, &out, &switches), Some(0.0));

        // ½ (0.5² + 2²), the second action counting as 1, its bound; and 0.
        let space = Space::floats(&[2], -1.0, 1.0);
        let out = Tensor::from_slice2(&[[0.5f32, -1.0], [0.25, 0.0]]);
        let action = Tensor::from_slice2(&[[0.0f32, 9.0], [0.25, 0.0]]);
        close(loss(&space, &out, &action).double_value(&[]), (0.25 + 4.0) / 2.0 / 2.0);
        assert_eq!(accuracy(&space, &out, &action), None);
    }
}
