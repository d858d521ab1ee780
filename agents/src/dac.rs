//! Discriminator-actor-critic (Kostrikov et al. 2019): a discriminator that learns from an off-policy learner's replay
//! and scores each transition as it is drawn, so that old ones are paid what they are worth now.
//!
//! With absorbing states (the learner's `absorbing`) it sees which observations are the absorbing state, on both sides:
//! what an end is worth is then learnt, and no form of the reward favours long or short episodes by itself. Details are
//! those of the authors' code.

use crate::Demonstrations;
use crate::discriminator::{ActionInput, Discriminator, DiscriminatorSpec, Objective, Pairs, RewardForm};
use crate::verdict::{Health, Standard};
use imago::nn::{Activation, Bounds, Init, TorsoKind};
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
        image: None,
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
            torso: TorsoKind::Mlp,
            hidden: config.hidden.clone(),
            activation: config.activation,
            action_input: ActionInput::OneHot,
            spectral_norm: false,
            normalise: false,
            indicator: absorbing,
            augment: false,
            init: Init::Orthogonal(1.0),
            head: Init::Orthogonal(1.0),
        };
        let (observation, action) = (&demonstrations.observation_space, &demonstrations.action_space);
        let discriminator = Discriminator::new(spec, observation, action, rng)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::replay::tests::{replay, rollout};
    use imago_envs::Space;

    /// Two pairs, of an episode that the task ended or a limit cut off.
    fn demonstrations(terminated: bool) -> Demonstrations {
        let mut made = Demonstrations::from_pairs(
            Space::floats(&[1], -100.0, 100.0),
            Space::floats(&[1], -1.0, 1.0),
            Tensor::from_slice(&[-5f32, -6.0]).view([2, 1]),
            Tensor::from_slice(&[0.5f32, 0.25]).view([2, 1]),
        );
        made.episodes[0].terminated = terminated;
        made.stride = 20;
        made
    }

    fn dac(terminated: bool, absorbing: bool) -> Dac {
        let config = DacConfig { hidden: vec![16], batch_size: 64, ..Default::default() };
        Dac::new(config, &demonstrations(terminated), absorbing, &mut Stream::new(0, "dac", 0, 0)).unwrap()
    }

    fn rows(pairs: &Pairs) -> Vec<Vec<f32>> {
        (0..pairs.len() as i64).map(|i| Vec::try_from(pairs.features.get(i)).unwrap()).collect()
    }

    #[test]
    fn an_expert_that_ended_is_seen_in_the_absorbing_state_and_counts_there_by_the_stride() {
        let ended = dac(true, true).expert;
        assert_eq!(rows(&ended), [[-5.0, 0.0, 0.5], [-6.0, 0.0, 0.25], [0.0, 1.0, 0.0]]);
        assert_eq!(Vec::<f32>::try_from(ended.weight.unwrap()).unwrap(), [1.0, 1.0, 0.05]);
        let cut = dac(false, true).expert;
        assert_eq!(rows(&cut), [[-5.0, 0.0, 0.5], [-6.0, 0.0, 0.25]]);
        assert!(cut.weight.is_none());
        assert_eq!(rows(&dac(true, false).expert), [[-5.0, 0.5], [-6.0, 0.25]]);
    }

    #[test]
    fn it_learns_from_a_replay_and_pays_the_experts_pairs() {
        let mut replay = replay(100, true);
        replay.push(&rollout(true)).unwrap();
        let mut dac = dac(false, true);
        let mut rng = Stream::new(1, "dac", 0, 0);
        assert_eq!(dac.sample_size(), 64);
        for _ in 0..300 {
            let sample = replay.sample(64, &mut rng).batch;
            dac.update_on_sample(&sample, &mut rng, &mut Log::in_memory()).unwrap();
        }
        let mut asked = replay.sample(3, &mut rng).batch;
        asked.observations = Tensor::from_slice(&[-5f32, 20.0, 0.0]).view([3, 1]);
        asked.action = Tensor::from_slice(&[0.5f32, -1.0, 0.0]).view([3, 1]);
        asked.absorbing = Some(Tensor::from_slice(&[false, false, true]));
        let paid = Vec::<f32>::try_from(dac.reward(&asked).unwrap()).unwrap();
        // The expert was never absorbed: that state gives the policy away too.
        assert!(paid[0] > 0.0 && paid[1] < 0.0 && paid[2] < 0.0, "{paid:?}");
        let evidence = Evidence { return_mean: Some(0.0), episodes: 10, terminated: 10 };
        let verdict = dac.verdict(&evidence).unwrap();
        assert!(verdict.text.contains("what follows an end"), "{}", verdict.text);
        assert_eq!(verdict.fields["termination_bias"], "none");
    }
}
