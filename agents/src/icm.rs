//! The intrinsic curiosity module (Pathak et al. 2017): pays for what the agent cannot predict yet, in features that hold
//! what it can influence.
//!
//! An inverse model â = g(φ(s), φ(s′)) teaches the encoder φ which action led from s to s′; a forward model
//! φ̂ = f(φ(s), a) predicts φ(s′), and how badly it does so is the reward: r = η · ½ ‖φ̂ − φ(s′)‖². Both learn together,
//! (1 − β) · L_I + β · L_F, and the encoder from both. The authors' code scores every step with the predictor of the
//! rollout's beginning, and so does this: once a rollout, before it learns from it.
//!
//! What later work has changed (Burda et al. 2018, "large-scale curiosity") is a key each: mean errors, gradients that
//! stop before φ, other features, a residual forward model.
//!
//! Two things are not the code's: its convolutions pad pictures of even size at the bottom and on the right only, these
//! on all sides (the same shapes); and it scales the loss by 10 and gradients by the 20 steps of a rollout before it
//! clips them to 40, which with Adam is the clip of 0.2 here.

use crate::discriminator::executed;
use crate::encoder::Standardise;
use crate::features::{FeatureKind, FeatureSpec, Features, Taught, clipped_step};
use crate::forward_model::{ErrorForm, ForwardKind, ForwardModel};
use crate::transitions::{Gathered, Transitions};
use imago::nn::{Adam, Flat, Layout, TorsoKind};
use imago::rollout::Batch;
use imago::run::{Log, State};
use imago::signal::RewardSignal;
use imago::{Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of [`Icm`]. Defaults are the paper's, but for minibatches in place of twenty asynchronous workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IcmConfig {
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
    /// Shift and scale each φ to mean 0 and deviation 1 over its numbers, so that features neither grow nor shrink, and with
    /// them the reward (Burda et al. 2018 normalise by batches).
    pub layer_norm: bool,
    /// What predicts.
    pub forward_model: ForwardKind,
    /// Width of the layers of inverse and forward model.
    #[schemars(range(min = 1, max = 65_536))]
    pub width: i64,
    /// How far a prediction is from what came: as loss and, times `eta`, as reward.
    pub error: ErrorForm,
    /// η: the reward is η times the error.
    #[schemars(range(min = 0), extend("x-default" = "0.01 for \"sum\", 1 for \"mean\""))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// β: the loss is (1 − β) times that of the features and β times that of the forward model.
    #[schemars(range(min = 0, max = 1), extend("x-default" = "0.2 for \"sum\", 0.5 for \"mean\""))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// The forward model's loss does not move the features (Burda et al. 2018).
    pub stop_gradient: bool,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Passes over each rollout.
    pub epochs: usize,
    /// Transitions in a gradient step.
    #[schemars(range(min = 1))]
    pub minibatch_size: usize,
    /// Consecutive steps of one environment that stay together in a minibatch, in which s′ of one is s of the next and is
    /// encoded once; the paper's workers learnt from 20 at a time.
    #[schemars(range(min = 1))]
    pub run_length: usize,
    /// The global gradient norm is clipped to this.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: f64,
    /// Steps that end an episode count, with its final observation as s′. Off for VizDoom, which shows black there.
    pub final_pairs: bool,
}

impl Default for IcmConfig {
    fn default() -> Self {
        Self {
            features: FeatureKind::Inverse,
            downsample: 1,
            torso: None,
            hidden: None,
            standardise: Standardise::Vectors,
            layer_norm: false,
            forward_model: ForwardKind::Mlp,
            width: 256,
            error: ErrorForm::Sum,
            eta: None,
            beta: None,
            stop_gradient: false,
            learning_rate: 1e-3,
            epochs: 1,
            minibatch_size: 256,
            run_length: 16,
            max_gradient_norm: 0.2,
            final_pairs: true,
        }
    }
}

impl IcmConfig {
    /// η. The two errors differ by half the number of features; their constants are never mixed.
    fn eta(&self) -> f64 {
        self.eta.unwrap_or(match self.error {
            ErrorForm::Sum => 0.01,
            ErrorForm::Mean => 1.0,
        })
    }

    /// β.
    fn beta(&self) -> f64 {
        self.beta.unwrap_or(match self.error {
            ErrorForm::Sum => 0.2,
            ErrorForm::Mean => 0.5,
        })
    }
}

/// The module as a reward signal.
pub struct Icm {
    config: IcmConfig,
    action: Space,
    flat: Flat,
    adam: Adam,
    features: Features,
    forward: ForwardModel,
}

/// Figures of a minibatch.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    taught: Taught,
    forward: f64,
}

impl Icm {
    /// A module for these spaces.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(config: IcmConfig, observation: &Space, action: &Space, rng: &mut Stream) -> Result<Self> {
        let mut layout = Layout::default();
        let spec = FeatureSpec {
            kind: config.features,
            downsample: config.downsample,
            torso: config.torso,
            hidden: config.hidden.as_deref(),
            standardise: config.standardise,
            layer_norm: config.layer_norm,
            width: config.width,
        };
        let mut features = Features::new(&mut layout, spec, observation, action)?;
        let (count, actions) = (features.count, action.features() as i64);
        let forward =
            ForwardModel::new(&mut layout, "forward", config.forward_model, count, actions, config.width);
        let flat = Flat::new(layout, rng);
        features.settle(&flat);
        Ok(Self { adam: Adam::new(&flat, 1e-8), config, action: action.clone(), flat, features, forward })
    }

    /// Forward errors `[B]` between features `[B, F]` with actions `[B, …]` in between.
    fn error(&self, from: &Tensor, action: &Tensor, to: &Tensor) -> Tensor {
        let predicted = self.forward.forward(&self.flat, from, &executed(&self.action, action));
        self.config.error.error(&predicted, to)
    }

    /// The loss's gradient on some transitions: (1 − β) times the teacher's loss and β times the forward model's.
    fn gradient(&mut self, transitions: &Gathered, rng: &mut Stream) -> Result<Losses> {
        let Self { config, action, flat, features, forward, .. } = self;
        let Gathered { from, to, action: done, .. } = transitions;
        let (beta, mut error) = (config.beta(), 0.0);
        let taught = features.descend(flat, transitions, rng, |flat, phi, taught| {
            let phi = if config.stop_gradient { phi.detach() } else { phi };
            let predicted = forward.forward(flat, &phi.index_select(0, from), &executed(action, done));
            let loss = config.error.error(&predicted, &phi.index_select(0, to)).mean(Kind::Float);
            error = loss.double_value(&[]);
            taught * (1.0 - beta) + loss * beta
        })?;
        Ok(Losses { taught, forward: error })
    }

    /// The forward model's gradient alone, on features that stay as they are.
    fn forward_gradient(&mut self, from: &Tensor, action: &Tensor, to: &Tensor) -> Result<Losses> {
        let loss = self.error(from, action, to).mean(Kind::Float);
        self.flat.backward(&loss)?;
        Ok(Losses { forward: loss.double_value(&[]), ..Losses::default() })
    }

    /// Takes the step that the gradient says. `inputs` is dumped if it is not finite.
    fn step(&mut self, losses: Losses, inputs: &Tensor, log: &mut Log) -> Result<()> {
        let IcmConfig { learning_rate, max_gradient_norm, .. } = self.config;
        let about = ("curiosity", inputs);
        clipped_step(&mut self.flat, &mut self.adam, learning_rate, max_gradient_norm, about, log)?;
        self.features.log(losses.taught, log);
        log.scalar("forward_loss", losses.forward);
        Ok(())
    }
}

impl RewardSignal for Icm {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let transitions = Transitions::of(batch, self.config.final_pairs)?;
        let rows = transitions.rows();
        self.features.begin(batch);
        let phi = transitions.of_each(|observation| self.features.of(&self.flat, observation));
        let next = transitions.successors(&rows);
        let rows = Tensor::from_slice(&rows);
        let (from, to) = (phi.index_select(0, &rows), phi.index_select(0, &next));
        let error = self.error(&from, &transitions.actions(&rows), &to);
        Ok(transitions.spread(&rows, &(error * self.config.eta())))
    }

    fn update(&mut self, recent: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let transitions = Transitions::of(recent, self.config.final_pairs)?;
        self.features.observe(recent);
        // Features that stay as they are, are computed once.
        let fixed = self.features.fixed();
        let phi = fixed.then(|| transitions.of_each(|observation| self.features.of(&self.flat, observation)));
        let run = if fixed { 1 } else { self.config.run_length };
        for _ in 0..self.config.epochs {
            let order = transitions.shuffled(run, rng);
            for rows in order.chunks(self.config.minibatch_size) {
                match &phi {
                    Some(phi) => {
                        let next = transitions.successors(rows);
                        let rows = Tensor::from_slice(rows);
                        let (from, to) = (phi.index_select(0, &rows), phi.index_select(0, &next));
                        let losses = self.forward_gradient(&from, &transitions.actions(&rows), &to)?;
                        self.step(losses, &from, log)?;
                    }
                    None => {
                        let gathered = transitions.gather(rows);
                        let losses = self.gradient(&gathered, rng)?;
                        self.step(losses, &gathered.observation, log)?;
                    }
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
    use imago::memory::{slice, slice_mut};
    use imago::rollout::Lead;
    use std::collections::BTreeMap;
    use tch::Device;

    fn image(side: usize) -> Space {
        Space::bytes(&[4, side, side])
    }

    fn module(config: IcmConfig, observation: &Space, action: &Space) -> Icm {
        Icm::new(config, observation, action, &mut Stream::new(0, "icm", 0, 0)).unwrap()
    }

    /// Random pictures in a rollout with an end and an invalid row.
    fn pictures() -> Batch {
        let mut rng = Stream::new(1, "pictures", 0, 0);
        let mut bytes = |shape: &[i64]| (rng.uniforms(shape) * 255.0).to_kind(Kind::Uint8);
        let (seen, last) = (bytes(&[4, 2, 4, 16, 16]), bytes(&[1, 4, 16, 16]));
        rollout(seen, Tensor::from_slice(&[0i64, 1, 2, 3, 0, 1]).view([3, 2]), last)
    }

    fn vectors() -> Batch {
        let mut rng = Stream::new(2, "vectors", 0, 0);
        rollout(rng.normals(&[4, 2, 3]), rng.normals(&[3, 2, 2]), rng.normals(&[1, 3]))
    }

    /// Modules for observations of this space.
    fn kinds(observation: &Space) -> Vec<IcmConfig> {
        let small = IcmConfig { width: 16, ..IcmConfig::default() };
        let mut kinds = vec![
            small.clone(),
            IcmConfig { error: ErrorForm::Mean, stop_gradient: true, ..small.clone() },
            IcmConfig { forward_model: ForwardKind::Residual, run_length: 1, ..small.clone() },
            IcmConfig { layer_norm: true, ..small.clone() },
            IcmConfig { features: FeatureKind::Random, ..small.clone() },
            IcmConfig { features: FeatureKind::Vae, ..small.clone() },
            IcmConfig { features: FeatureKind::Pixels, final_pairs: false, ..small.clone() },
        ];
        if observation.shape().len() == 3 {
            kinds.extend([
                IcmConfig { downsample: 2, torso: Some(TorsoKind::Mlp), ..small.clone() },
                IcmConfig { downsample: 2, features: FeatureKind::Pixels, ..small },
            ]);
        }
        kinds
    }

    #[test]
    fn has_the_papers_numbers_of_parameters() {
        for (actions, wanted) in [(4, 326_692), (14, 331_822)] {
            let icm = module(IcmConfig::default(), &image(42), &Space::discrete(actions));
            assert_eq!((icm.features.count, icm.flat.count()), (288, wanted));
        }
    }

    #[test]
    fn constants_of_one_error_are_never_those_of_the_other() {
        let of = |error, eta, beta| {
            let config = IcmConfig { error, eta, beta, ..IcmConfig::default() };
            (config.eta(), config.beta())
        };
        assert_eq!(of(ErrorForm::Sum, None, None), (0.01, 0.2));
        assert_eq!(of(ErrorForm::Mean, None, None), (1.0, 0.5));
        assert_eq!(of(ErrorForm::Mean, Some(0.3), Some(0.7)), (0.3, 0.7));
    }

    /// Observations are their own features and the forward model gives its bias 2: the reward is what is left.
    #[test]
    fn bonus_by_hand() {
        let space = Space::floats(&[2], -99.0, 99.0);
        let config = IcmConfig {
            features: FeatureKind::Pixels,
            standardise: Standardise::Nothing,
            ..IcmConfig::default()
        };
        let seen = Tensor::from_slice(&[0f32, 0., 1., 1., 2., 5., 2., 2., 0., 2., 7., 7., 9., 9., 3., 2.])
            .view([4, 2, 2]);
        let done = Tensor::from_slice(&[0i64, 1, 2, 3, 0, 1]).view([3, 2]);
        let batch = rollout(seen, done, Tensor::from_slice(&[2f32, 4.]).view([1, 2]));
        for (error, eta, wanted) in [
            // From row 0 to (2, 5) and (2, 2), from row 1 to (0, 2) and the end (2, 4), from row 2 to (3, 2).
            (ErrorForm::Sum, 0.01, [4.5, 0.0, 2.0, 2.0, 0.0, 0.5]),
            (ErrorForm::Mean, 1.0, [4.5, 0.0, 2.0, 2.0, 0.0, 0.5]),
        ] {
            let mut icm = module(IcmConfig { error, ..config.clone() }, &space, &Space::discrete(4));
            let bias = icm.flat.layout.iter().find(|slot| slot.name == "forward/out/bias").unwrap().offset;
            let weights = slice_mut::<f32>(&mut icm.flat.weights);
            weights.fill(0.0);
            weights[bias..bias + 2].fill(2.0);
            let reward = icm.reward(&batch).unwrap();
            assert_eq!(reward.size(), [3, 2]);
            // Of two features, ½ the sum is the mean; η is not.
            for (found, wanted) in slice::<f32>(&reward).iter().zip(wanted) {
                assert!(
                    (f64::from(*found) - eta * wanted).abs() < 1e-6,
                    "{error:?}: {found}, not {eta} · {wanted}"
                );
            }
            icm.config.final_pairs = false;
            assert_eq!(slice::<f32>(&icm.reward(&batch).unwrap())[3], 0.0);
        }
    }

    /// (1 − β) L_I + β L_F, of both forms; undecided inverse logits cost log 4.
    #[test]
    fn loss_by_hand() {
        let batch = pictures();
        for error in [ErrorForm::Sum, ErrorForm::Mean] {
            let config = IcmConfig { error, beta: Some(0.25), width: 16, ..IcmConfig::default() };
            let mut icm = module(config, &image(16), &Space::discrete(4));
            for slot in icm.flat.layout.clone().iter().filter(|slot| slot.name.starts_with("inverse/out")) {
                slice_mut::<f32>(&mut icm.flat.weights)[slot.offset..slot.offset + slot.len()].fill(0.0);
            }
            let gathered = Transitions::of(&batch, true).unwrap().gather(&[0, 1, 2, 3, 5]);
            let losses = icm.gradient(&gathered, &mut Stream::new(0, "loss", 0, 0)).unwrap();
            assert!((losses.taught.loss - 4f64.ln()).abs() < 1e-6, "{losses:?}");
            let reward = icm.reward(&batch).unwrap().sum(Kind::Float).double_value(&[]);
            // The bonus is η times the loss of each row.
            assert!(
                (losses.forward - reward / icm.config.eta() / 5.0).abs() < 1e-4 * losses.forward,
                "{losses:?}"
            );
            // β weighs: the forward model's gradient is β times that of its own loss.
            let weighed = icm.flat.gradient.copy();
            let phi = icm.features.of(&icm.flat, &gathered.observation);
            let (from, to) = (phi.index_select(0, &gathered.from), phi.index_select(0, &gathered.to));
            icm.forward_gradient(&from, &gathered.action, &to).unwrap();
            let slot = icm.flat.layout.iter().find(|slot| slot.name == "forward/out/weight").unwrap();
            let range = slot.offset..slot.offset + slot.len();
            let alone = &slice::<f32>(&icm.flat.gradient)[range.clone()];
            for (weighed, alone) in slice::<f32>(&weighed)[range].iter().zip(alone) {
                assert!((weighed - 0.25 * alone).abs() < 1e-5, "{weighed} {alone}");
            }
        }
    }

    /// Without the inverse loss (β = 1) only the forward loss can move the encoder.
    #[test]
    fn the_forward_loss_reaches_the_features_unless_it_is_stopped() {
        for (stop_gradient, moves) in [(false, true), (true, false)] {
            let config = IcmConfig { stop_gradient, beta: Some(1.0), width: 16, ..IcmConfig::default() };
            let mut icm = module(config, &image(16), &Space::discrete(4));
            let batch = pictures();
            let gathered = Transitions::of(&batch, true).unwrap().gather(&[0, 1, 2]);
            icm.gradient(&gathered, &mut Stream::new(0, "loss", 0, 0)).unwrap();
            let encoder = icm.flat.layout.iter().filter(|slot| slot.name.starts_with("encoder"));
            let gradient = slice::<f32>(&icm.flat.gradient);
            let moved =
                encoder.flat_map(|slot| &gradient[slot.offset..slot.offset + slot.len()]).any(|&g| g != 0.0);
            assert_eq!(moved, moves);
        }
    }

    /// The original's workers score each step as they take it: so does one look at the whole rollout.
    #[test]
    fn a_rollouts_bonus_is_that_of_its_steps() {
        let spaces = [(image(16), Space::discrete(4), pictures()), {
            (Space::floats(&[3], -9.0, 9.0), Space::floats(&[2], -1.0, 1.0), vectors())
        }];
        for (observation, action, batch) in &spaces {
            for config in kinds(observation) {
                let mut icm = module(config.clone(), observation, action);
                let together = icm.reward(batch).unwrap();
                let last = batch.ends.as_ref().unwrap();
                for (t, n) in (0..3).flat_map(|t| (0..2).map(move |n| (t, n))) {
                    let seen = batch.observations.get(t).get(n).unsqueeze(0);
                    let done = batch.action.get(t).get(n).unsqueeze(0);
                    let ends = (t, n) == (1, 1);
                    let followed = match ends {
                        true => last.observation.shallow_clone(),
                        false => batch.observations.get(t + 1).get(n).unsqueeze(0),
                    };
                    let (from, to) =
                        (icm.features.of(&icm.flat, &seen), icm.features.of(&icm.flat, &followed));
                    let alone = icm.error(&from, &done, &to).double_value(&[0]) * config.eta();
                    let counts = (t, n) != (2, 0) && (config.final_pairs || !ends);
                    let (found, wanted) = (together.double_value(&[t, n]), if counts { alone } else { 0.0 });
                    assert!(
                        (found - wanted).abs() < 1e-5 * alone.max(1.0),
                        "{config:?} {t} {n}: {found}, not {wanted}"
                    );
                    assert_eq!(found == 0.0, !counts, "{config:?}");
                }
            }
        }
    }

    /// What it has seen often it pays less for; a resumed module goes on like one that never stopped.
    #[test]
    fn novelty_wears_off_and_a_resumed_module_is_the_same() {
        let spaces = [(image(16), Space::discrete(4), pictures()), {
            (Space::floats(&[3], -9.0, 9.0), Space::floats(&[2], -1.0, 1.0), vectors())
        }];
        for (observation, action, batch) in &spaces {
            for config in kinds(observation) {
                let mut icm = module(config.clone(), observation, action);
                let update = |icm: &mut Icm, i: u64| {
                    let mut log = Log::in_memory();
                    icm.update(batch, &mut Stream::new(0, "update", 0, i), &mut log).unwrap();
                    log
                };
                // The statistics of vectors begin with the first update.
                update(&mut icm, 0);
                let mean = |icm: &mut Icm| icm.reward(batch).unwrap().mean(Kind::Float).double_value(&[]);
                let new = mean(&mut icm);
                (1..60).for_each(|i| drop(update(&mut icm, i)));
                let mut state = State::saving();
                icm.state(&mut state).unwrap();
                let (tensors, values) = state.finish().unwrap();
                let tensors: BTreeMap<String, Tensor> =
                    tensors.into_iter().map(|(k, t)| (k, t.copy())).collect();
                let mut other = module(config.clone(), observation, action);
                other.state(&mut State::loading(tensors, values)).unwrap();
                let logs = [update(&mut icm, 60), update(&mut other, 60)];
                assert_eq!(logs[0].current("forward_loss"), logs[1].current("forward_loss"), "{config:?}");
                assert_eq!(icm.reward(batch).unwrap(), other.reward(batch).unwrap(), "{config:?}");
                // Features of the first two change, and with them the unit of the error.
                let fixed = matches!(config.features, FeatureKind::Random | FeatureKind::Pixels);
                let old = mean(&mut icm);
                assert!(!fixed || old < 0.9 * new, "{config:?}: {new} then {old}");
            }
        }
    }

    #[test]
    fn the_inverse_model_learns_which_action_it_was() {
        let space = Space::floats(&[1], -9.0, 9.0);
        let config =
            IcmConfig { standardise: Standardise::Nothing, learning_rate: 1e-2, ..IcmConfig::default() };
        let mut icm = module(config, &space, &Space::discrete(2));
        let mut rng = Stream::new(4, "walk", 0, 0);
        let mut log = Log::in_memory();
        for i in 0..120 {
            // Action 1 leads up by 1, action 0 down.
            let done: Vec<i64> = (0..64).map(|_| rng.below(2) as i64).collect();
            let mut seen = vec![rng.normal()];
            done.iter().for_each(|&a| seen.push(seen[seen.len() - 1] + 2.0 * a as f32 - 1.0));
            let mut batch = vectors();
            batch.lead = Lead::Time { steps: 64, envs: 1 };
            (batch.observations, batch.action) =
                (Tensor::from_slice(&seen).view([65, 1, 1]), Tensor::from_slice(&done).view([64, 1]));
            batch.valid = Tensor::ones([64, 1], (Kind::Bool, Device::Cpu));
            batch.ends = None;
            log = Log::in_memory();
            icm.update(&batch, &mut Stream::new(0, "update", 0, i), &mut log).unwrap();
        }
        let accuracy = log.current("inverse_accuracy").unwrap();
        assert!(accuracy > 0.95, "{accuracy}");
    }

    #[test]
    fn a_rollout_without_a_valid_row_pays_and_teaches_nothing() {
        for config in kinds(&image(16)) {
            let mut icm = module(config, &image(16), &Space::discrete(4));
            let mut batch = pictures();
            batch.valid = Tensor::zeros([3, 2], (Kind::Bool, Device::Cpu));
            let before = icm.flat.weights.copy();
            icm.update(&batch, &mut Stream::new(0, "update", 0, 0), &mut Log::in_memory()).unwrap();
            assert_eq!(icm.flat.weights, before);
            assert_eq!(icm.reward(&batch).unwrap(), Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)));
        }
    }
}
