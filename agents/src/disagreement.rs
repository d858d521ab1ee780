//! Exploration by disagreement (Pathak et al. 2019): several forward models learn the same from different beginnings; where
//! they differ, there is something to learn.
//!
//! Reward: the variance over the models of their predictions φ̂(s′), averaged over the features. It needs no s′, so what
//! cannot be predicted at all (a noisy television) pays nothing in the end: all models come to predict its mean.
//! Features are random ones or those of an inverse model, which the forward models' losses do not move.

use crate::discriminator::executed;
use crate::encoder::Standardise;
use crate::features::{FeatureKind, FeatureSpec, Features, Taught, clipped_step};
use crate::forward_model::{ErrorForm, ForwardKind, ForwardModel};
use crate::transitions::Transitions;
use imago::nn::{Adam, Flat, Layout, TorsoKind};
use imago::rollout::Batch;
use imago::run::{Log, State};
use imago::signal::RewardSignal;
use imago::{Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of [`Disagreement`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DisagreementConfig {
    /// In what space the future is predicted.
    pub features: FeatureKind,
    /// Images are averaged over squares of so many pixels a side before they are read: fine textures are slow to learn, and
    /// what stays unlearnt where the agent has long been is no news.
    #[schemars(range(min = 1, max = 64))]
    pub downsample: usize,
    /// What reads the observations.
    #[schemars(extend("x-default" = "\"icm\" for images, \"mlp\" for everything else"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torso: Option<TorsoKind>,
    /// Widths of its fully connected layers, after the convolutions if there are any.
    #[schemars(inner(range(min = 1, max = 65_536)), extend("x-default" = "[] for icm, [512] for nature, [64, 64] for mlp"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Vec<i64>>,
    /// Which observations are standardised before they are read.
    pub standardise: Standardise,
    /// How many models predict.
    #[schemars(range(min = 2, max = 1_000))]
    pub models: usize,
    /// What each of them is.
    pub forward_model: ForwardKind,
    /// Width of the layers of inverse and forward models.
    #[schemars(range(min = 1, max = 65_536))]
    pub width: i64,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Passes over each rollout.
    pub epochs: usize,
    /// Transitions in a gradient step.
    #[schemars(range(min = 1))]
    pub minibatch_size: usize,
    /// Consecutive steps of one environment that stay together in a minibatch, in which s′ of one is s of the next and is
    /// encoded once.
    #[schemars(range(min = 1))]
    pub run_length: usize,
    /// The global gradient norm is clipped to this.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: f64,
    /// Steps that end an episode count, with its final observation as s′. Off for VizDoom, which shows black there.
    pub final_pairs: bool,
}

impl Default for DisagreementConfig {
    fn default() -> Self {
        Self {
            features: FeatureKind::Random,
            downsample: 1,
            torso: None,
            hidden: None,
            standardise: Standardise::Vectors,
            models: 5,
            forward_model: ForwardKind::Mlp,
            width: 256,
            learning_rate: 1e-4,
            epochs: 3,
            minibatch_size: 256,
            run_length: 16,
            max_gradient_norm: 0.5,
            final_pairs: true,
        }
    }
}

/// Several forward models as a reward signal.
pub struct Disagreement {
    config: DisagreementConfig,
    action: Space,
    flat: Flat,
    adam: Adam,
    features: Features,
    models: Vec<ForwardModel>,
}

/// Variance over the first dimension of predictions `[M, B, F]`, averaged over the features: `[B]`.
fn disagreement(predicted: &Tensor) -> Tensor {
    predicted.var_dim([0i64].as_slice(), false, false).mean_dim([-1i64].as_slice(), false, Kind::Float)
}

impl Disagreement {
    /// Models for these spaces.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(
        config: DisagreementConfig,
        observation: &Space,
        action: &Space,
        rng: &mut Stream,
    ) -> Result<Self> {
        let mut layout = Layout::default();
        let spec = FeatureSpec {
            kind: config.features,
            downsample: config.downsample,
            torso: config.torso,
            hidden: config.hidden.as_deref(),
            standardise: config.standardise,
            layer_norm: false,
            width: config.width,
        };
        let mut features = Features::new(&mut layout, spec, observation, action)?;
        let (count, actions) = (features.count, action.features() as i64);
        let model = |i: usize| {
            let name = format!("forward{i}");
            ForwardModel::new(&mut layout, &name, config.forward_model, count, actions, config.width)
        };
        let models = (0..config.models).map(model).collect();
        let flat = Flat::new(layout, rng);
        features.settle(&flat);
        Ok(Self { adam: Adam::new(&flat, 1e-8), config, action: action.clone(), flat, features, models })
    }

    /// What each model expects, `[M, B, F]`.
    fn predicted(models: &[ForwardModel], flat: &Flat, from: &Tensor, action: &Tensor) -> Tensor {
        let each: Vec<Tensor> = models.iter().map(|model| model.forward(flat, from, action)).collect();
        Tensor::stack(&each, 0)
    }

    /// Sum over the models of their mean errors, from φ(s), actions as executed, to φ(s′).
    fn loss(models: &[ForwardModel], flat: &Flat, from: &Tensor, action: &Tensor, to: &Tensor) -> Tensor {
        let predicted = Self::predicted(models, flat, from, action);
        ErrorForm::Mean.error(&predicted, to).mean_dim([1i64].as_slice(), false, Kind::Float).sum(Kind::Float)
    }

    /// Takes the step that the gradient says. `inputs` is dumped if it is not finite.
    fn step(&mut self, taught: Taught, forward: f64, inputs: &Tensor, log: &mut Log) -> Result<()> {
        let DisagreementConfig { learning_rate, max_gradient_norm, .. } = self.config;
        let about = ("disagreement", inputs);
        clipped_step(&mut self.flat, &mut self.adam, learning_rate, max_gradient_norm, about, log)?;
        self.features.log(taught, log);
        log.scalar("forward_loss", forward / self.models.len() as f64);
        Ok(())
    }
}

impl RewardSignal for Disagreement {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let transitions = Transitions::of(batch, self.config.final_pairs)?;
        self.features.begin(batch);
        let phi = transitions.of_each(|observation| self.features.of(&self.flat, observation));
        let rows = Tensor::from_slice(&transitions.rows());
        let action = executed(&self.action, &transitions.actions(&rows));
        let from = phi.index_select(0, &rows);
        let reward = disagreement(&Self::predicted(&self.models, &self.flat, &from, &action));
        Ok(transitions.spread(&rows, &reward))
    }

    fn update(&mut self, recent: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let transitions = Transitions::of(recent, self.config.final_pairs)?;
        self.features.observe(recent);
        let fixed = self.features.fixed();
        let phi = fixed.then(|| transitions.of_each(|observation| self.features.of(&self.flat, observation)));
        let run = if fixed { 1 } else { self.config.run_length };
        for _ in 0..self.config.epochs {
            let order = transitions.shuffled(run, rng);
            for rows in order.chunks(self.config.minibatch_size) {
                if let Some(phi) = &phi {
                    let next = transitions.successors(rows);
                    let rows = Tensor::from_slice(rows);
                    let (from, to) = (phi.index_select(0, &rows), phi.index_select(0, &next));
                    let action = executed(&self.action, &transitions.actions(&rows));
                    let loss = Self::loss(&self.models, &self.flat, &from, &action, &to);
                    self.flat.backward(&loss)?;
                    self.step(Taught::default(), loss.double_value(&[]), &from, log)?;
                } else {
                    let gathered = transitions.gather(rows);
                    let (mut forward, models) = (0.0, &self.models);
                    let action = executed(&self.action, &gathered.action);
                    let taught =
                        self.features.descend(&mut self.flat, &gathered, rng, |flat, phi, taught| {
                            let phi = phi.detach();
                            let (from, to) =
                                (phi.index_select(0, &gathered.from), phi.index_select(0, &gathered.to));
                            let loss = Self::loss(models, flat, &from, &action, &to);
                            forward = loss.double_value(&[]);
                            taught + loss
                        })?;
                    self.step(taught, forward, &gathered.observation, log)?;
                }
            }
        }
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        self.flat.state(state)?;
        state.scope("adam", |state| self.adam.state(state))?;
        self.features.state(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transitions::tests::rollout;
    use imago::memory::slice;
    use std::collections::BTreeMap;

    #[test]
    fn variance_by_hand() {
        // Three models, two transitions, two features: (1, 2, 3) and (0, 0, 6) of the first, none of the second.
        let predicted =
            Tensor::from_slice(&[1f32, 0., 5., 5., 2., 0., 5., 5., 3., 6., 5., 5.]).view([3, 2, 2]);
        let found = disagreement(&predicted);
        // Variances 2/3 and 8.
        assert!((found.double_value(&[0]) - (2.0 / 3.0 + 8.0) / 2.0).abs() < 1e-6);
        assert_eq!(found.double_value(&[1]), 0.0);
    }

    fn vectors() -> Batch {
        let mut rng = Stream::new(2, "vectors", 0, 0);
        let done = Tensor::from_slice(&[0i64, 1, 2, 1, 0, 2]).view([3, 2]);
        rollout(rng.normals(&[4, 2, 3]), done, rng.normals(&[1, 3]))
    }

    fn made(features: FeatureKind) -> Disagreement {
        let config = DisagreementConfig { features, width: 32, learning_rate: 3e-3, ..Default::default() };
        let space = Space::floats(&[3], -9.0, 9.0);
        Disagreement::new(config, &space, &Space::discrete(3), &mut Stream::new(0, "models", 0, 0)).unwrap()
    }

    #[test]
    fn models_come_to_agree_and_a_resumed_signal_is_the_same() {
        for features in [FeatureKind::Random, FeatureKind::Inverse] {
            let batch = vectors();
            let mut signal = made(features);
            let update = |signal: &mut Disagreement, i: u64| {
                signal.update(&batch, &mut Stream::new(0, "update", 0, i), &mut Log::in_memory()).unwrap();
            };
            (0..30).for_each(|i| update(&mut signal, i));
            let early = signal.reward(&batch).unwrap();
            assert_eq!(slice::<f32>(&early)[4], 0.0, "the invalid row");
            (30..300).for_each(|i| update(&mut signal, i));
            let mut state = State::saving();
            signal.state(&mut state).unwrap();
            let (tensors, values) = state.finish().unwrap();
            let tensors: BTreeMap<String, Tensor> = tensors.into_iter().map(|(k, t)| (k, t.copy())).collect();
            let mut other = made(features);
            other.state(&mut State::loading(tensors, values)).unwrap();
            update(&mut signal, 300);
            update(&mut other, 300);
            let late = signal.reward(&batch).unwrap();
            assert_eq!(other.reward(&batch).unwrap(), late);
            let mean = |x: &Tensor| x.mean(Kind::Float).double_value(&[]);
            assert!(mean(&late) < 0.5 * mean(&early), "{features:?}: {} then {}", mean(&early), mean(&late));
        }
    }
}
