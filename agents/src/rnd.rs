//! Random network distillation (Burda et al. 2018b): a network learns to give what a fixed random one gives; where it
//! fails, the agent has seldom been.
//!
//! Reward: the mean squared error over the outputs for what followed the step, s′. No action takes part, and so nothing is
//! paid for noise in what actions do. Observations are standardised by running statistics, one mean and deviation a pixel,
//! and clipped; of a stack of frames only the newest counts. The statistics begin with the first rollout, before its first
//! bonus (the original takes random steps for that; a fresh policy's are as good), and grow once a rollout, after its
//! bonuses. In the paper these rewards have a value head of their own whose returns do not end with episodes, and are
//! divided by the running deviation of their returns: `episodic = false` and `reward_norm = "returns"` beside this.
//!
//! The paper's networks are 32 × 8×8, 64 × 4×4, 64 × 3×3 convolutions for 84×84 pictures with leaky ReLU: `torso =
//! "nature"`. The activation is ELU here.

use crate::encoder::{Encoder, Sight, Standardise, torso_for};
use crate::forward_model::ErrorForm;
use crate::transitions::{TOGETHER, Transitions};
use imago::nn::{Adam, Flat, Init, Layout, Linear, RunningNorm, TorsoKind, TorsoSpec, features_of};
use imago::rollout::Batch;
use imago::run::{Log, State};
use imago::signal::RewardSignal;
use imago::{Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of [`Rnd`]. Defaults are the paper's, but for the torso, which is that of small pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RndConfig {
    /// What reads the observations, in the random network and in the one that learns.
    #[schemars(extend("x-default" = "\"icm\" for images, \"mlp\" for everything else"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torso: Option<TorsoKind>,
    /// Widths of its fully connected layers, after the convolutions if there are any.
    #[schemars(inner(range(min = 1, max = 65_536)), extend("x-default" = "[] for icm, [512] for nature, [64, 64] for mlp"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Vec<i64>>,
    /// Images are averaged over squares of so many pixels a side before anything else, as states are told apart in Go-Explore
    /// (Ecoffet et al. 2021): a random network's view of fine textures is slow to learn, and what stays unlearnt where the
    /// agent has long been is no news.
    #[schemars(range(min = 1, max = 64))]
    pub downsample: usize,
    /// Numbers that the random network gives.
    #[schemars(range(min = 1, max = 65_536))]
    pub outputs: i64,
    /// Widths of the layers that only the network that learns has, before its output.
    #[schemars(inner(range(min = 1, max = 65_536)))]
    pub predictor_hidden: Vec<i64>,
    /// Standardised observations are clipped to ± this.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub observation_clip: f64,
    /// Share of a rollout's transitions that an epoch learns from, drawn anew each time.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub update_share: f64,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Passes over each rollout.
    pub epochs: usize,
    /// Transitions in a gradient step.
    #[schemars(range(min = 1))]
    pub minibatch_size: usize,
    /// Steps that end an episode count, with its final observation as s′. Off for VizDoom, which shows black there.
    pub final_pairs: bool,
}

impl Default for RndConfig {
    fn default() -> Self {
        Self {
            torso: None,
            hidden: None,
            downsample: 1,
            outputs: 512,
            predictor_hidden: vec![512, 512],
            observation_clip: 5.0,
            update_share: 0.25,
            learning_rate: 1e-4,
            epochs: 4,
            minibatch_size: 256,
            final_pairs: true,
        }
    }
}

/// One of the two networks.
struct Network {
    flat: Flat,
    encoder: Encoder,
    /// After the encoder, with ReLU between them.
    layers: Vec<Linear>,
}

impl Network {
    /// `widths` are those of the layers after the encoder, the output's last.
    fn new(spec: &TorsoSpec, space: &Space, widths: &[i64], rng: &mut Stream) -> Result<Self> {
        let mut layout = Layout::default();
        let gain = Init::Orthogonal(2f64.sqrt());
        let mut encoder =
            Encoder::new(&mut layout, "encoder", spec, Sight::new(space, 1)?, Standardise::Nothing, gain)?;
        let inputs: Vec<i64> = std::iter::once(&encoder.features).chain(widths).copied().collect();
        let pairs = inputs.iter().zip(widths).enumerate();
        let layers = pairs.map(|(i, (&input, &output))| {
            Linear::new(&mut layout, &format!("layer{i}"), input, output, gain)
        });
        let layers = layers.collect();
        let flat = Flat::new(layout, rng);
        encoder.settle(&flat);
        Ok(Self { flat, encoder, layers })
    }

    /// `[B, O]` of what the encoder gave.
    fn head(layers: &[Linear], flat: &Flat, encoded: &Tensor) -> Tensor {
        layers.iter().enumerate().fold(encoded.shallow_clone(), |x, (i, layer)| {
            layer.forward(flat, &if i == 0 { x } else { x.relu() })
        })
    }

    /// `[B, O]` of standardised observations, without gradients.
    fn output(&mut self, observation: &Tensor) -> Tensor {
        let encoded = self.encoder.encode(&self.flat, observation);
        tch::no_grad(|| Self::head(&self.layers, &self.flat, &encoded))
    }
}

/// The two networks as a reward signal.
pub struct Rnd {
    config: RndConfig,
    /// Of a single frame.
    sight: Sight,
    /// Frames in an observation.
    stack: usize,
    /// What the networks read: floats of the frame's shape.
    shape: Vec<i64>,
    normaliser: RunningNorm,
    /// The first rollout is in the statistics already.
    begun: bool,
    target: Network,
    predictor: Network,
    adam: Adam,
}

/// The newest of `stack` frames in an observation.
fn newest(space: &Space, stack: usize) -> Space {
    let mut frame = space.clone();
    // A single number has no first dimension, and no stack either.
    if let (Space::Box { shape, low, high, .. }, 2..) = (&mut frame, stack) {
        shape[0] /= stack;
        let count = low.len() / stack;
        low.truncate(count);
        high.truncate(count);
    }
    frame
}

impl Rnd {
    /// Networks for observations of `space`, which are stacks of `stack` frames, joined along their first dimension.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(config: RndConfig, space: &Space, stack: usize, rng: &mut Stream) -> Result<Self> {
        let frame = newest(space, stack);
        let sight = Sight::new(&frame, config.downsample)?;
        let shape = match &sight.space {
            Space::Box { shape, .. } if sight.is_image() => shape.clone(),
            vector => vec![vector.features()],
        };
        let floats = Space::floats(&shape, f64::NEG_INFINITY, f64::INFINITY);
        let mut spec = torso_for(&frame, config.torso, config.hidden.as_deref());
        if shape.len() == 1 && config.torso.is_none() {
            // Of several fields the images are seen as vectors, too.
            spec = torso_for(&floats, None, config.hidden.as_deref());
        }
        let target = Network::new(&spec, &floats, &[config.outputs], rng)?;
        let widths = [&config.predictor_hidden[..], &[config.outputs]].concat();
        let predictor = Network::new(&spec, &floats, &widths, rng)?;
        Ok(Self {
            normaliser: RunningNorm::new(floats.features(), 1e-8, Some(config.observation_clip)),
            config,
            sight,
            stack,
            shape: shape.iter().map(|&d| d as i64).collect(),
            begun: false,
            adam: Adam::new(&predictor.flat, 1e-8),
            target,
            predictor,
        })
    }

    /// Frames `[B, …]` as rows of floats, `[B, F]`.
    fn rows(&self, frames: &Tensor) -> Tensor {
        features_of(&self.sight.space, &self.sight.see(frames))
    }

    /// Frames `[B, …]` as the networks read them.
    fn standardised(&self, frames: &Tensor) -> Tensor {
        let shape: Vec<i64> = std::iter::once(frames.size()[0]).chain(self.shape.iter().copied()).collect();
        self.normaliser.normalise(&self.rows(frames)).view(&shape[..])
    }

    /// Squared errors `[B]` of what the predictor makes of frames `[B, …]`, averaged over the outputs.
    fn error(&mut self, frames: &Tensor) -> Tensor {
        let x = self.standardised(frames);
        ErrorForm::Mean.error(&self.predictor.output(&x), &self.target.output(&x))
    }

    /// One step on frames `[B, …]`.
    fn improve(&mut self, frames: &Tensor, log: &mut Log) -> Result<()> {
        let x = self.standardised(frames);
        let wanted = self.target.output(&x);
        let Network { flat, encoder, layers } = &mut self.predictor;
        let loss = encoder.descend(flat, &x, |flat, encoded| {
            ErrorForm::Mean.error(&Network::head(layers, flat, encoded), &wanted).mean(Kind::Float)
        })?;
        let norm = flat.gradient_norm();
        if !norm.is_finite() {
            return Err(flat.diverged("the predictor", vec![("inputs".into(), x)]));
        }
        self.adam.update(flat, self.config.learning_rate);
        log.scalar("predictor_loss", loss);
        log.scalar("gradient_norm", norm);
        Ok(())
    }
}

impl RewardSignal for Rnd {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let transitions = Transitions::of(batch, self.config.final_pairs)?;
        let frames = transitions.newest_frames(self.stack);
        let rows = transitions.rows();
        let next = transitions.successors(&rows);
        if self.normaliser.count == 0.0 {
            self.normaliser.update(&self.rows(&frames.index_select(0, &next)));
            self.begun = true;
        }
        let parts: Vec<Tensor> =
            next.split(TOGETHER, 0).iter().map(|next| self.error(&frames.index_select(0, next))).collect();
        Ok(transitions.spread(&Tensor::from_slice(&rows), &Tensor::cat(&parts, 0)))
    }

    fn update(&mut self, recent: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let transitions = Transitions::of(recent, self.config.final_pairs)?;
        let frames = transitions.newest_frames(self.stack);
        let next = transitions.successors(&transitions.rows());
        if !std::mem::take(&mut self.begun) {
            self.normaliser.update(&self.rows(&frames.index_select(0, &next)));
        }
        let count = next.size()[0] as usize;
        let share = (count as f64 * self.config.update_share).ceil() as usize;
        for _ in 0..self.config.epochs {
            let order = rng.permutation(count);
            for drawn in order[..share].chunks(self.config.minibatch_size) {
                let numbers = next.index_select(0, &Tensor::from_slice(drawn));
                self.improve(&frames.index_select(0, &numbers), log)?;
            }
        }
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("target", |state| self.target.flat.state(state))?;
        state.scope("predictor", |state| self.predictor.flat.state(state))?;
        state.scope("adam", |state| self.adam.state(state))?;
        state.scope("normaliser", |state| self.normaliser.state(state))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transitions::tests::rollout;
    use imago::memory::{slice, slice_mut};
    use std::collections::BTreeMap;
    use tch::Device;

    fn config() -> RndConfig {
        RndConfig {
            outputs: 8,
            predictor_hidden: vec![16],
            learning_rate: 1e-3,
            update_share: 1.0,
            ..Default::default()
        }
    }

    fn stack() -> Space {
        Space::bytes(&[2, 16, 16])
    }

    fn made(config: RndConfig, space: &Space, stack: usize) -> Rnd {
        Rnd::new(config, space, stack, &mut Stream::new(0, "rnd", 0, 0)).unwrap()
    }

    fn pictures() -> Batch {
        let mut rng = Stream::new(1, "pictures", 0, 0);
        let mut bytes = |shape: &[i64]| (rng.uniforms(shape) * 255.0).to_kind(Kind::Uint8);
        let (seen, last) = (bytes(&[4, 2, 2, 16, 16]), bytes(&[1, 2, 16, 16]));
        rollout(seen, Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu)), last)
    }

    fn vectors() -> Batch {
        let seen = Tensor::from_slice(&[0f32, 9.0, 1.0, 2.0, 3.0, 9.0, 9.0, 4.0]).view([4, 2, 1]);
        let done = Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu));
        rollout(seen, done, Tensor::from_slice(&[-5f32]).view([1, 1]))
    }

    /// Random network and predictor give 0 and the bias 3: the reward is 9 everywhere, whatever the number of outputs;
    /// with both linear in one number, it is the square of the standardised s′.
    #[test]
    fn bonus_by_hand() {
        let space = Space::floats(&[1], -99.0, 99.0);
        let config = RndConfig { hidden: Some(vec![]), predictor_hidden: vec![], outputs: 2, ..config() };
        let mut rnd = made(config, &space, 1);
        let set = |network: &mut Network, values: [&[f32]; 2]| {
            for (slot, values) in network.flat.layout.clone().iter().zip(values) {
                slice_mut::<f32>(&mut network.flat.weights)[slot.offset..slot.offset + slot.len()]
                    .copy_from_slice(values);
            }
        };
        set(&mut rnd.target, [&[0.0, 0.0], &[0.0, 0.0]]);
        set(&mut rnd.predictor, [&[0.0, 0.0], &[3.0, 3.0]]);
        let reward = rnd.reward(&vectors()).unwrap();
        assert_eq!(slice::<f32>(&reward), [9.0, 9.0, 9.0, 9.0, 0.0, 9.0]);
        // Statistics are those of what followed: 1, 2, 3, the end −5 and 4. Mean 1, variance 10.
        assert!(
            (rnd.normaliser.mean[0] - 1.0).abs() < 1e-9 && (rnd.normaliser.variance[0] - 10.0).abs() < 1e-9
        );
        set(&mut rnd.predictor, [&[1.0, 0.0], &[0.0, 0.0]]);
        let reward = rnd.reward(&vectors()).unwrap();
        for (found, x) in slice::<f32>(&reward).iter().zip([1.0f32, 2.0, 3.0, -5.0, 1.0, 4.0]) {
            // Half of (x − 1)² / 10: one of two outputs. Of the row that is nobody's: 0, as for x = 1.
            assert!((found - (x - 1.0).powi(2) / 20.0).abs() < 1e-5, "{found} for {x}");
        }
        rnd.config.final_pairs = false;
        assert_eq!(slice::<f32>(&rnd.reward(&vectors()).unwrap())[3], 0.0);
    }

    #[test]
    fn standardised_observations_are_clipped() {
        let rnd = {
            let mut rnd = made(config(), &Space::floats(&[1], -99.0, 99.0), 1);
            (rnd.normaliser.mean, rnd.normaliser.variance, rnd.normaliser.count) =
                (vec![1.0], vec![4.0], 9.0);
            rnd
        };
        let x = rnd.standardised(&Tensor::from_slice(&[3f32, -99.0, 99.0]).view([3, 1]));
        for (found, wanted) in slice::<f32>(&x).iter().zip([1.0, -5.0, 5.0]) {
            assert!((found - wanted).abs() < 1e-6);
        }
    }

    #[test]
    fn only_the_newest_frame_counts() {
        let mut rnd = made(config(), &stack(), 2);
        assert_eq!(rnd.shape, [1, 16, 16]);
        let batch = pictures();
        let reward = rnd.reward(&batch).unwrap();
        let blind = pictures();
        let _ = blind.observations.narrow(2, 0, 1).zero_();
        assert_eq!(rnd.reward(&blind).unwrap(), reward);
        let mut other = pictures();
        let _ = other.observations.narrow(2, 1, 1).zero_();
        assert_ne!(rnd.reward(&other).unwrap(), reward);
        let _ = other.ends.as_mut().map(|ends| ends.observation.narrow(1, 0, 1).zero_());
    }

    #[test]
    fn a_single_number_and_a_choice_can_be_new() {
        for space in [Space::floats(&[], -1.0, 1.0), Space::discrete(3)] {
            let (mut batch, floats) = (vectors(), matches!(space, Space::Box { .. }));
            if !floats {
                batch.observations = batch.observations.view([4, 2]).remainder(3).to_kind(Kind::Int64);
                batch.ends.iter_mut().for_each(|ends| {
                    ends.observation = ends.observation.view(-1).abs().remainder(3).to_kind(Kind::Int64)
                });
            }
            let reward = made(config(), &space, 1).reward(&batch).unwrap();
            // Of five numbers one is their mean, 0 to both networks.
            let paid = slice::<f32>(&reward).iter().filter(|&&r| r > 0.0).count();
            assert_eq!(paid, if floats { 4 } else { 5 }, "{space}: {:?}", slice::<f32>(&reward));
        }
    }

    #[test]
    fn statistics_begin_before_the_first_bonus_and_then_follow_it() {
        let mut rnd = made(config(), &Space::floats(&[1], -99.0, 99.0), 1);
        let batch = vectors();
        let _ = rnd.reward(&batch).unwrap();
        assert_eq!(rnd.normaliser.count, 5.0);
        let update = |rnd: &mut Rnd| {
            rnd.update(&batch, &mut Stream::new(0, "update", 0, 0), &mut Log::in_memory()).unwrap();
            rnd.normaliser.count
        };
        // The first rollout is in them already.
        assert_eq!(update(&mut rnd), 5.0);
        let _ = rnd.reward(&batch).unwrap();
        assert_eq!(rnd.normaliser.count, 5.0);
        assert_eq!(update(&mut rnd), 10.0);
    }

    #[test]
    fn an_epoch_learns_from_a_share_of_the_rows() {
        // Five rows of six count; each epoch takes ⌈5 · 0.25⌉ = 2 of them, one in each step.
        let config = RndConfig { update_share: 0.25, minibatch_size: 1, epochs: 3, ..config() };
        let mut rnd = made(config, &Space::floats(&[1], -99.0, 99.0), 1);
        rnd.update(&vectors(), &mut Stream::new(0, "update", 0, 0), &mut Log::in_memory()).unwrap();
        assert_eq!(rnd.adam.step, 6);
    }

    /// What is seen often is paid less than what is new; a resumed module goes on like one that never stopped.
    #[test]
    fn novelty_wears_off_and_a_resumed_module_is_the_same() {
        for (space, frames, batch) in
            [(stack(), 2, pictures()), (Space::floats(&[1], -99.0, 99.0), 1, vectors())]
        {
            let mut rnd = made(config(), &space, frames);
            let mean = |rnd: &mut Rnd| rnd.reward(&batch).unwrap().mean(Kind::Float).double_value(&[]);
            let new = mean(&mut rnd);
            let update = |rnd: &mut Rnd, i| {
                rnd.update(&batch, &mut Stream::new(0, "update", 0, i), &mut Log::in_memory()).unwrap();
            };
            (0..100).for_each(|i| update(&mut rnd, i));
            let target = rnd.target.flat.weights.copy();
            let mut state = State::saving();
            rnd.state(&mut state).unwrap();
            let (tensors, values) = state.finish().unwrap();
            let tensors: BTreeMap<String, Tensor> = tensors.into_iter().map(|(k, t)| (k, t.copy())).collect();
            let mut other = Rnd::new(config(), &space, frames, &mut Stream::new(9, "rnd", 0, 0)).unwrap();
            other.state(&mut State::loading(tensors, values)).unwrap();
            update(&mut rnd, 100);
            update(&mut other, 100);
            assert_eq!(rnd.reward(&batch).unwrap(), other.reward(&batch).unwrap());
            assert_eq!(rnd.target.flat.weights, target, "the random network stays as it is");
            let old = mean(&mut rnd);
            assert!(old < 0.2 * new, "{new} then {old}");
        }
    }

    #[test]
    fn a_rollout_without_a_valid_row_pays_and_teaches_nothing() {
        let mut rnd = made(config(), &stack(), 2);
        let mut batch = pictures();
        batch.valid = Tensor::zeros([3, 2], (Kind::Bool, Device::Cpu));
        rnd.update(&batch, &mut Stream::new(0, "update", 0, 0), &mut Log::in_memory()).unwrap();
        assert_eq!(rnd.adam.step, 0);
        assert_eq!(rnd.reward(&batch).unwrap(), Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)));
    }
}
