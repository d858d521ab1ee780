//! Generative adversarial imitation learning (Ho & Ermon 2016): a discriminator between the expert's and the
//! policy's (observation, action) pairs, and its verdict as the policy's reward.
//!
//! The paper writes D → 1 for the policy; here, as in its authors' code and in all of Imago, **expert = 1**.

use crate::Demonstrations;
use crate::discriminator::{ActionInput, Discriminator, DiscriminatorSpec, Objective, Pairs, RewardForm};
use crate::encoder::Sight;
use crate::transitions::Transitions;
use crate::verdict::{Health, Standard};
use imago::nn::{Activation, Init, TorsoKind};
use imago::rollout::{Batch, first_row_outside};
use imago::run::{Log, State};
use imago::signal::{Evidence, RewardSignal, Verdict};
use imago::{Error, Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Settings of [`Gail`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GailConfig {
    /// The reward's form: decides which way episode endings bias the policy.
    pub reward: RewardForm,
    /// Images are averaged over squares of so many pixels a side before the discriminator reads them.
    #[schemars(range(min = 1, max = 64))]
    pub downsample: usize,
    /// What reads observations before the hidden layers: convolutions for images, as `policy.torso`.
    pub torso: TorsoKind,
    /// Widths of the discriminator's hidden layers.
    #[schemars(inner(range(min = 1, max = 65_536)))]
    pub hidden: Vec<i64>,
    /// Their non-linearity.
    pub activation: Activation,
    /// How it sees actions.
    pub action_input: ActionInput,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Discriminator steps after each rollout.
    pub updates_per_round: usize,
    /// Expert pairs, and as many of the policy, in a step; 0 takes the whole replay.
    pub batch_size: usize,
    /// Policy pairs are drawn from this many latest rollouts.
    pub replay_rollouts: usize,
    /// Factor of the entropy bonus −H(σ(x)), each class weighing the same.
    pub entropy_bonus: f64,
    /// Factor of the gradient penalty; 0 is off.
    #[schemars(range(min = 0))]
    pub gradient_penalty: f64,
    /// The gradient norm it pulls towards.
    pub gradient_penalty_target: f64,
    /// Divide every weight matrix by its largest singular value.
    pub spectral_norm: bool,
    /// Change the images that it learns from by DiffAugment (colours, a shift, a hole), so that it does not know few
    /// demonstrations by heart; needs convolutions.
    pub augment: bool,
    /// Train towards 1 − ε and ε.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 0.5))]
    pub label_smoothing: f64,
    /// Standardise its inputs by their own running statistics: vectors number by number, an image by one mean and one deviation
    /// for all of its pixels.
    pub normalise: bool,
}

impl Default for GailConfig {
    fn default() -> Self {
        Self {
            reward: RewardForm::Positive,
            downsample: 1,
            torso: TorsoKind::Mlp,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            action_input: ActionInput::OneHot,
            learning_rate: 1e-3,
            updates_per_round: 8,
            batch_size: 256,
            replay_rollouts: 1,
            entropy_bonus: 1e-3,
            gradient_penalty: 0.0,
            gradient_penalty_target: 1.0,
            spectral_norm: false,
            augment: false,
            label_smoothing: 0.0,
            normalise: true,
        }
    }
}

impl GailConfig {
    fn discriminator(&self) -> DiscriminatorSpec {
        DiscriminatorSpec {
            torso: self.torso,
            hidden: self.hidden.clone(),
            activation: self.activation,
            action_input: self.action_input,
            spectral_norm: self.spectral_norm,
            normalise: self.normalise,
            indicator: false,
            augment: self.augment,
            init: Init::GlorotUniform,
            // D = ½ and one reward for everything, until the first update. A spectrally normalised head would be
            // divided by 0.
            head: if self.spectral_norm { Init::GlorotUniform } else { Init::Constant(0.0) },
        }
    }

    fn objective(&self) -> Objective {
        Objective {
            label_smoothing: self.label_smoothing,
            entropy_bonus: self.entropy_bonus,
            gradient_penalty: self.gradient_penalty,
            gradient_penalty_target: self.gradient_penalty_target,
        }
    }
}

/// The policy's latest pairs, a ring.
struct Replay {
    observation: Tensor,
    /// What was done, or the next observation in its place.
    action: Tensor,
    filled: i64,
    next: i64,
}

impl Replay {
    fn clear(&mut self) {
        (self.filled, self.next) = (0, 0);
    }

    /// Refuses a restored ring whose marks lie outside it, or its content outside the spaces.
    fn check(&self, observation: &Space, action: &Space) -> Result<()> {
        let capacity = self.observation.size()[0];
        if !(0..=capacity).contains(&self.filled) || !(0..capacity).contains(&self.next) {
            return Err(Error::Invalid(format!(
                "the saved replay of {capacity} transitions holds {} of them and goes on at {}",
                self.filled, self.next
            )));
        }
        for (space, tensor) in [(observation, &self.observation), (action, &self.action)] {
            if let Some(row) = first_row_outside(space, tensor) {
                return Err(Error::Invalid(format!("row {row} of the saved replay lies outside {space}")));
            }
        }
        Ok(())
    }

    fn push(&mut self, observation: &Tensor, action: &Tensor) {
        let capacity = self.observation.size()[0];
        let count = observation.size()[0];
        let first = count.min(capacity - self.next);
        for (start, len, to) in [(0, first, self.next), (first, count - first, 0)] {
            self.observation.narrow(0, to, len).copy_(&observation.narrow(0, start, len));
            self.action.narrow(0, to, len).copy_(&action.narrow(0, start, len));
        }
        self.next = (self.next + count) % capacity;
        self.filled = (self.filled + count).min(capacity);
    }
}

/// GAIL as a reward signal.
pub struct Gail {
    config: GailConfig,
    /// How the discriminator sees observations; the replay holds them as seen.
    sight: Sight,
    discriminator: Discriminator,
    expert: Pairs,
    standard: Standard,
    replay: Replay,
    health: Health,
}

impl Gail {
    /// A discriminator for `demonstrations`; `rollout` is the number of transitions in a rollout.
    ///
    /// # Errors
    /// Demonstrations without a single pair; a logit for each action where actions are no single choice; `downsample` of what
    /// is no image.
    pub fn new(
        config: GailConfig,
        demonstrations: &Demonstrations,
        rollout: usize,
        rng: &mut Stream,
    ) -> Result<Self> {
        if demonstrations.pairs() == 0 {
            return Err(Error::Invalid("the demonstrations hold no pair to imitate".into()));
        }
        let action = &demonstrations.action_space;
        if config.action_input == ActionInput::PerActionLogit && !matches!(action, Space::Discrete { .. }) {
            return Err(Error::Invalid(format!(
                "action_input = \"per_action_logit\" needs Discrete actions, these are {action}: use \"one_hot\", \
                 which takes all kinds of actions as input"
            )));
        }
        let sight = Sight::new(&demonstrations.observation_space, config.downsample)?;
        let discriminator = Discriminator::new(config.discriminator(), &sight.space, action, rng)?;
        let see = |observations: &Tensor| sight.see(observations);
        let (observations, actions) = match config.action_input {
            ActionInput::NextObservation => {
                let (from, to) = demonstrations.transitions()?;
                (see(&from), see(&to))
            }
            _ => (see(&demonstrations.observations), demonstrations.actions.shallow_clone()),
        };
        let capacity = (rollout * config.replay_rollouts.max(1)) as i64;
        let ring = |like: &Tensor| {
            let mut shape = like.size();
            shape[0] = capacity;
            Tensor::zeros(&shape[..], (like.kind(), like.device()))
        };
        Ok(Self {
            config,
            expert: discriminator.pairs(&observations, &actions, None),
            standard: Standard::of(demonstrations),
            replay: Replay { observation: ring(&observations), action: ring(&actions), filled: 0, next: 0 },
            health: Health::default(),
            sight,
            discriminator,
        })
    }

    /// One step on pairs drawn from both sides, standardised already; returns accuracies and mean logits on expert and
    /// policy.
    fn step(&mut self, expert: &Pairs, policy: &Pairs, rng: &mut Stream, log: &mut Log) -> Result<[f64; 4]> {
        let generated = match self.config.batch_size {
            0 => policy.shallow_clone(),
            size => policy.draw(size, rng),
        };
        let real = expert.draw(generated.len(), rng);
        let (objective, rate) = (self.config.objective(), self.config.learning_rate);
        self.discriminator.improve(&real, &generated, &objective, rate, rng, log)
    }
}

/// What was seen before and after the steps `rows` of a rollout, `[K, …]` each.
fn followed(transitions: &Transitions, rows: &[i64], sight: &Sight) -> (Tensor, Tensor) {
    let seen = transitions.of_each(|observation| sight.see(observation));
    (seen.index_select(0, &Tensor::from_slice(rows)), seen.index_select(0, &transitions.successors(rows)))
}

impl RewardSignal for Gail {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        if self.config.action_input == ActionInput::NextObservation {
            let transitions = Transitions::of(batch, true)?;
            let rows = transitions.rows();
            let (observation, next) = followed(&transitions, &rows, &self.sight);
            let pairs = self.discriminator.pairs(&observation, &next, None);
            let reward = self.config.reward.reward(&self.discriminator.score(&pairs));
            return Ok(transitions.spread(&Tensor::from_slice(&rows), &reward));
        }
        let (observation, action) = (self.sight.see(&batch.flat_observation()), batch.flat_action());
        let pairs = self.discriminator.pairs(&observation, &action, batch.absorbing.as_ref());
        Ok(batch.in_lead(&self.config.reward.reward(&self.discriminator.score(&pairs))))
    }

    fn update(&mut self, recent: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let valid = recent.valid_index();
        let count = valid.size()[0];
        if count == 0 {
            return Ok(());
        }
        let (observation, action) = match self.config.action_input {
            ActionInput::NextObservation => {
                let transitions = Transitions::of(recent, true)?;
                followed(&transitions, &transitions.rows(), &self.sight)
            }
            _ => {
                let observation = self.sight.see(&recent.gather_observation(&valid));
                (observation, recent.flat_action().index_select(0, &valid))
            }
        };
        if self.config.replay_rollouts <= 1 {
            self.replay.clear();
        }
        self.replay.push(&observation, &action);
        // Statistics of both classes in equal parts, once a rollout.
        if self.discriminator.standardises() {
            let expert = self.expert.draw(count as usize, rng);
            self.discriminator.observe(&expert, &self.discriminator.pairs(&observation, &action, None));
        }
        let policy = self.discriminator.pairs(
            &self.replay.observation.narrow(0, 0, self.replay.filled),
            &self.replay.action.narrow(0, 0, self.replay.filled),
            None,
        );
        // The statistics stand still until the next rollout.
        let (expert, policy) =
            (self.discriminator.normalised(&self.expert), self.discriminator.normalised(&policy));
        let mut sums = [0.0; 4];
        for _ in 0..self.config.updates_per_round {
            let figures = self.step(&expert, &policy, rng, log)?;
            sums.iter_mut()
                .zip(figures)
                .for_each(|(sum, x)| *sum += x / self.config.updates_per_round as f64);
        }
        if self.config.updates_per_round > 0 {
            self.health.observe(sums, 0.1);
        }
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("discriminator", |state| self.discriminator.state(state))?;
        state.value("health", &mut self.health)?;
        // With one rollout the ring is emptied before it is read.
        if self.config.replay_rollouts > 1 {
            state.tensor("replay_observation", &mut self.replay.observation)?;
            state.tensor("replay_action", &mut self.replay.action)?;
            state.value("replay_filled", &mut self.replay.filled)?;
            state.value("replay_next", &mut self.replay.next)?;
            self.replay.check(&self.discriminator.observation, &self.discriminator.action)?;
        }
        Ok(())
    }

    fn verdict(&self, evidence: &Evidence) -> Option<Verdict> {
        Some(self.standard.verdict(&self.health, self.config.reward.termination_bias(evidence), evidence))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fused::DiscriminatorLosses;
    use crate::transitions::tests::rollout;
    use imago::memory::{field_of, slice, slice_mut};
    use imago::rollout::Lead;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn config() -> GailConfig {
        GailConfig { batch_size: 64, ..Default::default() }
    }

    fn demonstrations(observation: &[f32], action: &[i64]) -> Demonstrations {
        Demonstrations::from_pairs(
            Space::floats(&[1], -10.0, 10.0),
            Space::discrete(2),
            Tensor::from_slice(observation).view([-1, 1]),
            Tensor::from_slice(action),
        )
    }

    fn flat(observation: &[f32], action: &[i64]) -> Batch {
        let count = action.len() as i64;
        let bools = |value: f64| Tensor::full([count], value, (Kind::Bool, Device::Cpu));
        Batch {
            lead: Lead::Flat(count),
            observations: Tensor::from_slice(observation).view([-1, 1]),
            stacking: None,
            elapsed: None,
            action: Tensor::from_slice(action),
            action_mask: None,
            log_prob: None,
            values: None,
            reward: Tensor::zeros([count], (Kind::Float, Device::Cpu)),
            terminated: bools(0.0),
            truncated: bools(0.0),
            memory: None,
            absorbing: None,
            start: bools(0.0),
            valid: bools(1.0),
            ends: None,
        }
    }

    #[test]
    fn a_replay_that_cannot_be_is_refused() {
        let config = GailConfig { replay_rollouts: 2, ..config() };
        let made = || {
            let demonstrations = demonstrations(&[0.0, 1.0], &[0, 1]);
            Gail::new(config.clone(), &demonstrations, 4, &mut Stream::new(0, "gail", 0, 0)).unwrap()
        };
        let refused = |name: &str, value: i64, tensor: bool| {
            let mut state = State::saving();
            made().state(&mut state).unwrap();
            let (tensors, mut values) = state.finish().unwrap();
            let tensors: std::collections::BTreeMap<_, _> = tensors.into_iter().collect();
            match tensor {
                true => drop(tensors[name].get(3).fill_(value)),
                false => drop(values.insert(name.into(), value.into()).unwrap()),
            }
            made().state(&mut State::loading(tensors, values)).map_err(|error| error.to_string())
        };
        refused("replay_filled", 8, false).unwrap();
        assert!(refused("replay_filled", 9, false).unwrap_err().contains("holds 9"));
        assert!(refused("replay_next", 8, false).unwrap_err().contains("goes on at 8"));
        assert!(refused("replay_next", -1, false).unwrap_err().contains("goes on at -1"));
        refused("replay_action", 1, true).unwrap();
        assert!(refused("replay_action", 2, true).unwrap_err().contains("row 3 of the saved replay"));
    }

    #[test]
    fn starts_undecided_and_with_the_papers_parameter_count() {
        let mut rng = Stream::new(0, "gail", 0, 0);
        let demonstrations = demonstrations(&[0.0, 1.0], &[0, 1]);
        let mut gail = Gail::new(config(), &demonstrations, 4, &mut rng).unwrap();
        let reward = gail.reward(&flat(&[5.0, -3.0], &[0, 1])).unwrap();
        assert!((reward - 2f64.ln()).abs().max().double_value(&[]) < 1e-6);
        let mut count = |observations: usize, action: Space, action_input: ActionInput| {
            let paper = GailConfig { hidden: vec![100, 100], action_input, ..Default::default() };
            let observation = Space::floats(&[observations], -1.0, 1.0);
            Discriminator::new(paper.discriminator(), &observation, &action, &mut rng).unwrap().flat.count()
        };
        // A logit for each choice, and Hopper's numbers as they are.
        assert_eq!(count(4, Space::discrete(2), ActionInput::PerActionLogit), 10_802);
        assert_eq!(count(11, Space::floats(&[3], -1.0, 1.0), ActionInput::OneHot), 11_701);
    }

    /// Every option learns to pay what the expert does more than what the policy did.
    #[test]
    fn learns_to_pay_the_experts_pairs() {
        let variants = [
            config(),
            GailConfig { action_input: ActionInput::PerActionLogit, ..config() },
            GailConfig { gradient_penalty: 1.0, ..config() },
            GailConfig { gradient_penalty: 1.0, action_input: ActionInput::PerActionLogit, ..config() },
            GailConfig { spectral_norm: true, learning_rate: 1e-2, ..config() },
            GailConfig { label_smoothing: 0.1, normalise: false, ..config() },
            GailConfig { batch_size: 0, replay_rollouts: 3, ..config() },
        ];
        for config in variants {
            let mut rng = Stream::new(1, "gail", 0, 0);
            let demonstrations = demonstrations(&[1.0, 1.2, -0.8, -1.0], &[1, 1, 0, 0]);
            let mut gail = Gail::new(config.clone(), &demonstrations, 6, &mut rng).unwrap();
            let recent = flat(&[1.0, 1.2, 0.8, -1.0, -1.1, -0.9], &[0, 0, 0, 1, 1, 1]);
            for _ in 0..150 {
                gail.update(&recent, &mut rng, &mut Log::in_memory()).unwrap();
            }
            let expert = gail.reward(&flat(&[1.0, -1.0], &[1, 0])).unwrap().min().double_value(&[]);
            let policy = gail.reward(&flat(&[1.0, -1.0], &[0, 1])).unwrap().max().double_value(&[]);
            assert!(expert > policy + 0.1, "{config:?}: {expert} {policy}");
        }
    }

    /// Records of an observed number, and actions of a kind.
    fn pairs_of(action: &Space, numbers: &[f32], actions: &Tensor) -> Demonstrations {
        let observation =
            Space::fields([("number", Space::floats(&[1], -9.0, 9.0)), ("pad", Space::discrete(2))]).unwrap();
        let Space::Fields(fields) = &observation else { unreachable!() };
        let records = Tensor::zeros([numbers.len() as i64, 16], (Kind::Uint8, Device::Cpu));
        field_of(&records, &fields[0]).copy_(&Tensor::from_slice(numbers).view([-1, 1]));
        Demonstrations::from_pairs(observation, action.clone(), records, actions.shallow_clone())
    }

    #[test]
    fn all_kinds_of_actions_are_told_apart() {
        let two = |rows: &[[i64; 2]]| Tensor::from_slice2(rows);
        let bytes = |rows: &[[i64; 2]]| two(rows).to_kind(Kind::Uint8);
        let records = |rows: &[[i64; 2]]| {
            let space = joint();
            let Space::Fields(fields) = &space else { unreachable!() };
            let records = Tensor::zeros([rows.len() as i64, 16], (Kind::Uint8, Device::Cpu));
            field_of(&records, &fields[0]).copy_(&two(rows).select(1, 0));
            field_of(&records, &fields[1]).copy_(&two(rows).narrow(1, 1, 1));
            records
        };
        fn joint() -> Space {
            Space::fields([("a", Space::discrete(2)), ("b", Space::floats(&[1], -1.0, 1.0))]).unwrap()
        }
        type Actions<'a> = &'a dyn Fn(&[[i64; 2]]) -> Tensor;
        let kinds: [(Space, Actions); 3] = [
            (Space::multi_discrete(&[2, 3]), &two),
            (Space::multi_binary(&[2]), &bytes),
            (joint(), &records),
        ];
        for (space, actions) in kinds {
            let mut rng = Stream::new(3, "gail", 0, 0);
            // The expert does (1, 0) where the number is positive and (0, 1) where it is not.
            let right = [[1, 0], [0, 1], [1, 0], [0, 1]];
            let wrong = [[0, 1], [1, 0], [0, 1], [1, 0]];
            let numbers = [1.0, -1.0, 2.0, -2.0];
            let expert = pairs_of(&space, &numbers, &actions(&right));
            let batch = |rows: &[[i64; 2]]| {
                let seen = pairs_of(&space, &numbers, &actions(rows));
                let mut batch = flat(&numbers, &[0; 4]);
                (batch.observations, batch.action) = (seen.observations, seen.actions);
                batch
            };
            let mut gail = Gail::new(config(), &expert, 4, &mut rng).unwrap();
            for _ in 0..60 {
                gail.update(&batch(&wrong), &mut rng, &mut Log::in_memory()).unwrap();
            }
            let lowest = gail.reward(&batch(&right)).unwrap().min().double_value(&[]);
            let highest = gail.reward(&batch(&wrong)).unwrap().max().double_value(&[]);
            assert!(lowest > highest + 0.1, "{space}: {lowest} {highest}");
            let config = GailConfig { action_input: ActionInput::PerActionLogit, ..config() };
            let message = Gail::new(config, &expert, 4, &mut rng).err().unwrap().to_string();
            assert!(message.contains("per_action_logit") && message.contains("one_hot"), "{message}");
        }
    }

    /// `[B, 2, 16, 16]` images, the second frame of which is as bright as asked.
    fn images(brightness: &[u8]) -> Tensor {
        let frames: Vec<u8> =
            brightness.iter().flat_map(|&bright| [[0u8; 256], [bright; 256]].concat()).collect();
        Tensor::from_slice(&frames).view([-1, 2, 16, 16])
    }

    /// The expert sees bright images and does 0; whoever learns sees dark ones, and bright ones when it does 1.
    fn of_pixels(config: &GailConfig) -> Result<(Gail, Batch)> {
        let space = Space::bytes(&[2, 16, 16]);
        let expert = Demonstrations::from_pairs(
            space,
            Space::discrete(2),
            images(&[200, 210, 220, 230]),
            Tensor::from_slice(&[0i64, 0, 0, 0]),
        );
        let policy = Batch { observations: images(&[10, 20, 200, 230]), ..flat(&[0.0; 4], &[0, 0, 1, 1]) };
        Ok((Gail::new(config.clone(), &expert, 4, &mut Stream::new(5, "gail", 0, 0))?, policy))
    }

    #[test]
    fn images_are_read_by_convolutions() {
        let pixels =
            GailConfig { torso: TorsoKind::Icm, activation: Activation::Elu, batch_size: 16, ..config() };
        for config in [
            pixels.clone(),
            GailConfig { gradient_penalty: 1.0, ..pixels.clone() },
            GailConfig { action_input: ActionInput::PerActionLogit, ..pixels.clone() },
            // Here brightness tells apart, which DiffAugment changes by up to half: the action is left.
            GailConfig { augment: true, learning_rate: 3e-3, ..pixels.clone() },
        ] {
            let (mut gail, policy) = of_pixels(&config).unwrap();
            let mut rng = Stream::new(6, "gail", 0, 0);
            let reward = gail.reward(&policy).unwrap();
            assert!((reward - 2f64.ln()).abs().max().double_value(&[]) < 1e-6, "undecided at first");
            for _ in 0..40 {
                gail.update(&policy, &mut rng, &mut Log::in_memory()).unwrap();
            }
            let batch = Batch { observations: images(&[215]), ..flat(&[0.0], &[0]) };
            let expert = gail.reward(&batch).unwrap().double_value(&[0]);
            let highest = gail.reward(&policy).unwrap().max().double_value(&[]);
            assert!(expert > highest + 0.1, "{expert} {highest}");
        }
        let message =
            of_pixels(&GailConfig { spectral_norm: true, ..pixels.clone() }).err().unwrap().to_string();
        assert!(message.contains("spectral_norm") && message.contains("gradient_penalty"), "{message}");
        let vectors = GailConfig { torso: TorsoKind::Mlp, augment: true, ..pixels };
        let message = of_pixels(&vectors).err().unwrap().to_string();
        assert!(message.contains("augment is for images"), "{message}");
    }

    #[test]
    fn observations_alone_may_be_imitated() {
        for torso in [TorsoKind::Mlp, TorsoKind::Icm] {
            let config = GailConfig { torso, action_input: ActionInput::None, batch_size: 16, ..config() };
            let (mut gail, policy) = of_pixels(&config).unwrap();
            let mut rng = Stream::new(6, "gail", 0, 0);
            for _ in 0..60 {
                gail.update(&policy, &mut rng, &mut Log::in_memory()).unwrap();
            }
            let mut rewards = |action: i64| {
                let batch = Batch { observations: images(&[15, 215]), ..flat(&[0.0; 2], &[action; 2]) };
                Vec::<f32>::try_from(gail.reward(&batch).unwrap()).unwrap()
            };
            let [done, other] = [rewards(0), rewards(1)];
            assert!(done == other && done[1] > done[0] + 0.1, "{torso:?}: {done:?} {other:?}");
        }
    }

    /// Columns of 205 and 225 and a picture of 215 are one to a discriminator that sees squares of 4 × 4.
    #[test]
    fn downsampled_images_are_told_apart_by_their_averages() {
        for (torso, downsample, alike) in
            [(TorsoKind::Mlp, 1, false), (TorsoKind::Mlp, 4, true), (TorsoKind::Icm, 4, true)]
        {
            let action_input = ActionInput::None;
            let config = GailConfig { torso, downsample, action_input, batch_size: 16, ..config() };
            let (mut gail, policy) = of_pixels(&config).unwrap();
            let mut rng = Stream::new(8, "gail", 0, 0);
            for _ in 0..60 {
                gail.update(&policy, &mut rng, &mut Log::in_memory()).unwrap();
            }
            let seen = images(&[15, 215, 215]);
            let columns = Tensor::from_slice(&[205u8, 225]).repeat([8]);
            seen.get(2).get(1).copy_(&columns.expand([16, 16], false));
            let batch = Batch { observations: seen, ..flat(&[0.0; 3], &[0; 3]) };
            let rewards = Vec::<f32>::try_from(gail.reward(&batch).unwrap()).unwrap();
            assert!(rewards[1] > rewards[0] + 0.1, "{torso:?}: {rewards:?}");
            assert_eq!((rewards[1] - rewards[2]).abs() < 1e-5, alike, "{torso:?}, {downsample}: {rewards:?}");
        }
        let vectors = GailConfig { downsample: 2, ..config() };
        let expert = demonstrations(&[0.0], &[0]);
        let message =
            Gail::new(vectors, &expert, 4, &mut Stream::new(0, "gail", 0, 0)).err().unwrap().to_string();
        assert!(message.contains("downsample = 2 is for images"), "{message}");
    }

    /// Everybody is seen at the same places; the expert goes up from them, the policy down, and ends there.
    #[test]
    fn transitions_may_be_imitated() {
        let expert = demonstrations(&[0.0, 1.0, 2.0, 3.0, 4.0], &[0, 0, 0, 0, 0]);
        let config = GailConfig { action_input: ActionInput::NextObservation, ..config() };
        let mut rng = Stream::new(7, "gail", 0, 0);
        let mut gail = Gail::new(config.clone(), &expert, 6, &mut rng).unwrap();
        // Environment 0 goes down 3, 2, 1 (its last step counts nowhere), environment 1 down 4, 3 to its end 2, then up.
        let seen = Tensor::from_slice(&[3f32, 4., 2., 3., 1., 1., 9., 2.]).view([4, 2, 1]);
        let done = Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu));
        let policy = rollout(seen, done, Tensor::from_slice(&[2f32]).view([1, 1]));
        for _ in 0..60 {
            gail.update(&policy, &mut rng, &mut Log::in_memory()).unwrap();
        }
        let reward = gail.reward(&policy).unwrap();
        let of = |t: i64, n: i64| reward.double_value(&[t, n]);
        let down = [of(0, 0), of(1, 0), of(0, 1), of(1, 1)].into_iter().fold(0.0, f64::max);
        assert!(of(2, 1) > down + 0.3, "{reward}");
        assert_eq!(of(2, 0), 0.0, "a step of nobody");
        let nobody = Batch { valid: policy.valid.zeros_like(), ..policy };
        assert_eq!(gail.reward(&nobody).unwrap(), reward.zeros_like());
        let pixels = GailConfig { torso: TorsoKind::Icm, ..config };
        assert!(of_pixels(&pixels).err().unwrap().to_string().contains("next_observation"));
        let message = gail.reward(&flat(&[0.0], &[0])).unwrap_err().to_string();
        assert!(message.contains("rollouts"), "{message}");
    }

    #[test]
    fn statistics_are_frozen_while_scoring() {
        let mut rng = Stream::new(2, "gail", 0, 0);
        let mut gail = Gail::new(config(), &demonstrations(&[0.0, 1.0], &[0, 1]), 2, &mut rng).unwrap();
        gail.update(&flat(&[3.0, 4.0], &[1, 0]), &mut rng, &mut Log::in_memory()).unwrap();
        let before = gail.discriminator.normaliser.clone();
        let _ = gail.reward(&flat(&[100.0, -100.0], &[0, 1])).unwrap();
        assert_eq!(before, gail.discriminator.normaliser);
    }

    /// Of policy's pixels of 10, 20, 200 and 230, 115 in the mean, and as many of experts' between 200 and 230; the other of two
    /// planes is black.
    #[test]
    fn pixels_are_standardised_together() {
        let config = GailConfig { torso: TorsoKind::Icm, action_input: ActionInput::None, ..config() };
        let (mut gail, policy) = of_pixels(&config).unwrap();
        gail.update(&policy, &mut Stream::new(2, "gail", 0, 0), &mut Log::in_memory()).unwrap();
        let norm = gail.discriminator.pixels.clone().unwrap();
        assert_eq!(norm.count, (2 * 4 * 2 * 16 * 16) as f64);
        let mean = norm.mean[0] * 255.0;
        assert!((157.5 / 2.0..=172.5 / 2.0).contains(&mean), "{mean}");
        let _ = gail.reward(&policy).unwrap();
        assert_eq!(Some(norm), gail.discriminator.pixels);
        let (mut raw, _) = of_pixels(&GailConfig { normalise: false, ..config }).unwrap();
        raw.update(&policy, &mut Stream::new(2, "gail", 0, 0), &mut Log::in_memory()).unwrap();
        assert!(raw.discriminator.pixels.is_none());
    }

    #[test]
    fn the_ring_keeps_the_latest_rollouts() {
        let zeros = |kind| Tensor::zeros([4, 1], (kind, Device::Cpu));
        let mut replay =
            Replay { observation: zeros(Kind::Float), action: zeros(Kind::Int64), filled: 0, next: 0 };
        for start in [0.0f32, 3.0, 6.0] {
            let rows = Tensor::from_slice(&[start, start + 1.0, start + 2.0]).view([3, 1]);
            replay.push(&rows, &rows.to_kind(Kind::Int64));
        }
        let mut kept = Vec::<f32>::try_from(replay.observation.view(-1)).unwrap();
        kept.sort_by(f32::total_cmp);
        assert_eq!((kept, replay.filled), (vec![5.0, 6.0, 7.0, 8.0], 4));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn the_fused_gradient_is_autograds(
            seed in 0u64..10_000,
            count in 1usize..80,
            hidden in prop::collection::vec(1i64..60, 0..3),
            (per_action, relu) in any::<(bool, bool)>(),
            (entropy_bonus, label_smoothing) in (0.0f64..0.1, 0.0f64..0.3),
            (gradient_penalty, weighted) in (prop::option::of(0.1f64..10.0), any::<bool>()),
        ) {
            let mut rng = Stream::new(seed, "fused", 0, 0);
            let observation = Space::floats(&[3], -1.0, 1.0);
            let demonstrations = Demonstrations::from_pairs(
                observation, Space::discrete(4), rng.normals(&[50, 3]), rng.indices(4, 50),
            );
            let config = GailConfig {
                hidden,
                activation: if relu { Activation::Relu } else { Activation::Tanh },
                action_input: if per_action { ActionInput::PerActionLogit } else { ActionInput::OneHot },
                entropy_bonus,
                label_smoothing,
                gradient_penalty: gradient_penalty.filter(|_| !per_action).unwrap_or(0.0),
                ..Default::default()
            };
            let mut gail = Gail::new(config, &demonstrations, 64, &mut rng).unwrap();
            slice_mut::<f32>(&mut gail.discriminator.flat.weights)
                .iter_mut()
                .for_each(|w| *w += 0.2 * rng.normal());
            let mut real = gail.expert.draw(count, &mut rng);
            real.weight = weighted.then(|| rng.uniforms(&[count as i64]));
            let (seen, done) = (rng.normals(&[count as i64, 3]) * 2.0, rng.indices(4, count));
            let generated = gail.discriminator.pairs(&seen, &done, None);
            let objective = gail.config.objective();
            let mut log = Log::in_memory();
            let theirs = {
                let rng = &mut rng.clone();
                gail.discriminator.gradient(&real, &generated, &objective, rng, &mut log).unwrap()
            };
            let wanted = slice::<f32>(&gail.discriminator.flat.gradient).to_vec();
            let ours = gail.discriminator.fused_gradient(&real, &generated, &objective, &mut rng, &mut log).unwrap();
            let scale = wanted.iter().fold(1f32, |scale, g| scale.max(g.abs()));
            for (a, b) in slice::<f32>(&gail.discriminator.flat.gradient).iter().zip(&wanted) {
                prop_assert!((a - b).abs() < 3e-5 * scale, "{a} is not {b} of at most {scale}");
            }
            let figures = |x: &DiscriminatorLosses| {
                [x.loss, x.entropy, x.accuracy[0], x.accuracy[1], x.logit[0], x.logit[1]]
            };
            for (a, b) in figures(&ours).into_iter().zip(figures(&theirs)) {
                prop_assert!((a - b).abs() < 1e-4, "{ours:?} is not {theirs:?}");
            }
            // What the policy is paid comes from the same logits.
            let slow = tch::no_grad(|| gail.discriminator.logits(&generated.features, generated.choice.as_ref()));
            gail.discriminator.normaliser = None;
            let fast = gail.discriminator.score(&generated);
            prop_assert!((fast - slow).abs().max().double_value(&[]) < 1e-5);
        }
    }
}
