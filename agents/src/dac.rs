//! Discriminator-actor-critic (Kostrikov et al. 2019): a discriminator that learns from an off-policy learner's replay
//! and scores each transition as it is drawn, so that old ones are paid what they are worth now.
//!
//! With absorbing states (the learner's `absorbing`) it sees which observations are the absorbing state, on both sides:
//! what an end is worth is then learnt, and no form of the reward favours long or short episodes by itself. Details are
//! those of the authors' code.

use crate::Demonstrations;
use crate::discriminator::{ActionInput, Discriminator, DiscriminatorSpec, Objective, Pairs, RewardForm};
use crate::verdict::{Health, Standard};
use imago::nn::{Activation, Bounds, Init};
use imago::rollout::Batch;
use imago::run::{Log, State};
use imago::signal::{Evidence, RewardSignal, Verdict};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Settings of [`Dac`]. Defaults are those of the authors' code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DacConfig {
    /// The reward's form.
    pub reward: RewardForm,
    /// Widths of the discriminator's hidden layers.
    #[schemars(inner(range(min = 1, max = 65_536)))]
    pub hidden: Vec<i64>,
    /// Their non-linearity.
    pub activation: Activation,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Expert pairs, and as many of the replay, in a step. There is one step for each update of the learner.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Factor of the gradient penalty; 0 is off.
    #[schemars(range(min = 0))]
    pub gradient_penalty: f64,
    /// The gradient norm it pulls towards.
    pub gradient_penalty_target: f64,
}

impl Default for DacConfig {
    fn default() -> Self {
        Self {
            reward: RewardForm::Logit,
            hidden: vec![256, 256],
            activation: Activation::Tanh,
            learning_rate: 1e-3,
            batch_size: 100,
            gradient_penalty: 10.0,
            gradient_penalty_target: 1.0,
        }
    }
}

/// DAC's discriminator as a reward signal.
pub struct Dac {
    config: DacConfig,
    discriminator: Discriminator,
    expert: Pairs,
    standard: Standard,
    health: Health,
    absorbing: bool,
}

/// The expert's pairs; with absorbing states one row more for each episode that the task ended. Such rows are never left
/// out where others are, every `stride`-th of which is kept: so they count 1 / stride.
fn expert_pairs(
    discriminator: &Discriminator,
    demonstrations: &Demonstrations,
    absorbing: bool,
) -> Result<Pairs> {
    let pairs = discriminator.pairs(&demonstrations.observations, &demonstrations.actions, None);
    let ends = demonstrations.episodes.iter().filter(|episode| episode.terminated).count() as i64;
    if !absorbing || ends == 0 {
        return Ok(pairs);
    }
    let nowhere = demonstrations.observations.narrow(0, 0, 1).zeros_like().repeat({
        let mut times = vec![1; demonstrations.observations.dim()];
        times[0] = ends;
        times
    });
    let idle = Bounds::of(&demonstrations.action_space)?.tensors().0.expand([ends, -1], false);
    let flags = Tensor::ones([ends], (Kind::Bool, Device::Cpu));
    let absorbed = discriminator.pairs(&nowhere, &idle, Some(&flags));
    let ones = Tensor::ones([pairs.len() as i64], (Kind::Float, Device::Cpu));
    let share = Tensor::full([ends], 1.0 / demonstrations.stride as f64, (Kind::Float, Device::Cpu));
    Ok(Pairs {
        features: Tensor::cat(&[pairs.features, absorbed.features], 0),
        choice: None,
        weight: Some(Tensor::cat(&[ones, share], 0)),
    })
}

impl Dac {
    /// A discriminator for `demonstrations`; `absorbing` as the learner has it.
    ///
    /// # Errors
    /// Demonstrations without a single pair; with absorbing states, actions without bounds.
    pub fn new(
        config: DacConfig,
        demonstrations: &Demonstrations,
        absorbing: bool,
        rng: &mut Stream,
    ) -> Result<Self> {
        if demonstrations.pairs() == 0 {
            return Err(Error::Invalid("the demonstrations hold no pair to imitate".into()));
        }
        let spec = DiscriminatorSpec {
            hidden: config.hidden.clone(),
            activation: config.activation,
            action_input: ActionInput::OneHot,
            spectral_norm: false,
            normalise: false,
            indicator: absorbing,
            init: Init::Orthogonal(1.0),
            head: Init::Orthogonal(1.0),
        };
        let (observation, action) = (&demonstrations.observation_space, &demonstrations.action_space);
        let discriminator = Discriminator::new(spec, observation, action, rng);
        Ok(Self {
            expert: expert_pairs(&discriminator, demonstrations, absorbing)?,
            standard: Standard::of(demonstrations),
            health: Health::default(),
            config,
            discriminator,
            absorbing,
        })
    }

    fn seen(&self, batch: &Batch) -> Pairs {
        let (observation, action) = (batch.flat_observation(), batch.flat_action());
        self.discriminator.pairs(&observation, &action, batch.absorbing.as_ref())
    }
}

impl RewardSignal for Dac {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let pairs = self.seen(batch);
        Ok(batch.in_lead(&self.config.reward.reward(&self.discriminator.score(&pairs))))
    }

    fn sample_size(&self) -> usize {
        self.config.batch_size
    }

    fn update_on_sample(&mut self, sample: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let policy = self.seen(sample);
        let expert = self.expert.draw(policy.len(), rng);
        let objective = Objective {
            label_smoothing: 0.0,
            entropy_bonus: 0.0,
            gradient_penalty: self.config.gradient_penalty,
            gradient_penalty_target: self.config.gradient_penalty_target,
        };
        let rate = self.config.learning_rate;
        let figures = self.discriminator.improve(&expert, &policy, &objective, rate, rng, log)?;
        self.health.observe(figures, 1e-3);
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("discriminator", |state| self.discriminator.state(state))?;
        state.value("health", &mut self.health)
    }

    fn verdict(&self, evidence: &Evidence) -> Option<Verdict> {
        let bias = match self.absorbing {
            true => ("none", "none, since what follows an end is judged like everything else".into()),
            false => self.config.reward.termination_bias(evidence),
        };
        Some(self.standard.verdict(&self.health, bias, evidence))
    }
}
