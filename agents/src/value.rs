//! A value function of its own: of the state and, if asked for, of the time, as in Ho & Ermon's code (2016).

use crate::trust_region::{Problem, Step, TrustRegion};
use imago::nn::{Activation, Flat, Init, Layout, Linear, Mlp, RunningNorm};
use imago::run::State;
use imago::{Result, Stream};
use tch::{Kind, Tensor};

/// V(s, t / T), fitted to standardised returns by natural gradient.
pub struct ValueFunction {
    flat: Flat,
    mlp: Mlp,
    out: Linear,
    /// Of the returns.
    scale: RunningNorm,
}

impl ValueFunction {
    /// Of `features` numbers; the last layer is zero, so that every value is at first the mean of the returns.
    pub fn new(features: usize, hidden: &[i64], activation: Activation, rng: &mut Stream) -> Self {
        let mut layout = Layout::default();
        let mlp = Mlp::new(&mut layout, "value", features as i64, hidden, activation, Init::GlorotUniform);
        let last = *hidden.last().unwrap_or(&(features as i64));
        let out = Linear::new(&mut layout, "value/out", last, 1, Init::Constant(0.0));
        Self { flat: Flat::new(layout, rng), mlp, out, scale: RunningNorm::new(1, 1e-6, None) }
    }

    /// Standardised values `[B]` of inputs `[B, features]`.
    fn standardised(&self, input: &Tensor) -> Tensor {
        self.out.forward(&self.flat, &self.mlp.forward(&self.flat, input)).squeeze_dim(1)
    }

    /// Values `[B]` of inputs `[B, features]`, without gradients.
    pub fn values(&self, input: &Tensor) -> Tensor {
        let deviation = (self.scale.variance[0] + self.scale.epsilon).sqrt();
        tch::no_grad(|| self.standardised(input) * deviation + self.scale.mean[0])
    }

    /// One step towards `returns`, `[B]`: natural gradient of −mean (V − R)², the mean squared change of V being the
    /// divergence, whose curvature is measured in the rows `sample`. Both in units of the returns' running standard
    /// deviation.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn fit(
        &mut self,
        input: &Tensor,
        returns: &Tensor,
        sample: &Tensor,
        region: &TrustRegion,
    ) -> Result<Step> {
        self.scale.update(&returns.unsqueeze(1));
        let wanted = self.scale.normalise(&returns.unsqueeze(1)).squeeze_dim(1);
        let distance = |a: &Tensor, b: &Tensor| (a - b).square().mean(Kind::Float);
        let values = self.standardised(input);
        let objective = -distance(&values, &wanted);
        let before = values.detach();
        let (few, few_before) = (input.index_select(0, sample), before.index_select(0, sample));
        let problem = Problem {
            objective,
            measure: &|value: &Self| {
                let values = value.standardised(input);
                (-distance(&values, &wanted), distance(&values, &before))
            },
            curvature: &|value: &Self| distance(&value.standardised(&few), &few_before),
        };
        region.step(self, |value| &mut value.flat, &problem)
    }

    /// Saves or restores parameters and statistics.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        self.flat.state(state)?;
        state.scope("scale", |state| self.scale.state(state))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_papers_value_function_has_its_parameters() {
        let value = ValueFunction::new(5, &[100, 100], Activation::Tanh, &mut Stream::new(0, "value", 0, 0));
        assert_eq!(value.flat.count(), 10_801, "of CartPole's four numbers and the time");
    }

    #[test]
    fn it_learns_a_function_and_its_scale() {
        let mut rng = Stream::new(3, "value", 0, 0);
        let mut value = ValueFunction::new(2, &[32], Activation::Tanh, &mut rng);
        let input = rng.normals(&[400, 2]);
        let returns = (input.select(1, 0) * 50.0 + input.select(1, 1).square() * 20.0 + 300.0).contiguous();
        let region = TrustRegion::default();
        let error = |value: &ValueFunction| {
            ((value.values(&input) - &returns).square().mean(Kind::Float).double_value(&[])).sqrt()
        };
        let all = Tensor::arange(400, (Kind::Int64, tch::Device::Cpu));
        value.fit(&input, &returns, &all, &region).unwrap();
        let first = error(&value);
        for _ in 0..200 {
            let step = value.fit(&input, &returns, &all, &region).unwrap();
            assert!(step.divergence <= 2.0 * region.max_divergence || !step.accepted, "{step:?}");
        }
        let last = error(&value);
        assert!(first > 40.0 && last < 8.0, "{first} became {last}");
    }
}
