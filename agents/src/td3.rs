//! Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018), with what discriminator-actor-critic needs of
//! it (Kostrikov et al. 2019): absorbing states, a clipped gradient, a learning rate that is halved, a late beginning.

use crate::critics::{CriticLosses, Critics, follow};
use crate::experience::{Experience, Minibatch, ReplayConfig};
use crate::learner::Learner;
use crate::sac::mean;
use imago::memory::{slice, slice_mut};
use imago::nn::{ActorCritic, Adam, BoxHead, Dense, Flat, Trace};
use imago::rollout::Batch;
use imago::run::profile::{Phase, timed};
use imago::run::{Log, State};
use imago::signal::{Moment, Signals, When};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Settings of [`Td3`], besides those of the replay. Defaults are Stable-Baselines3's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Td3Config {
    /// Adam's step size, of policy and critics.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The policy's step size is halved each time this many steps of the environments have passed; off if absent.
    #[schemars(range(min = 1), extend("x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halve_every: Option<u64>,
    /// Standard deviation of the noise in rollouts, in units of half the actions' bounds.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub exploration_noise: f64,
    /// The same of the noise on the target's actions.
    #[schemars(range(min = 0))]
    pub target_noise: f64,
    /// That noise is clipped to ± this.
    #[schemars(range(min = 0))]
    pub target_noise_clip: f64,
    /// The policy and the targets move once in so many updates of the critics.
    #[schemars(range(min = 1))]
    pub policy_delay: u64,
    /// The policy moves only after this many updates of the critics.
    pub policy_starts: u64,
    /// The norm of the policy's gradient is clipped to this; off if absent.
    #[schemars(extend("exclusiveMinimum" = 0, "x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_gradient_norm: Option<f64>,
}

impl Default for Td3Config {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            halve_every: None,
            exploration_noise: 0.1,
            target_noise: 0.2,
            target_noise_clip: 0.5,
            policy_delay: 2,
            policy_starts: 0,
            max_gradient_norm: None,
        }
    }
}

impl Td3Config {
    /// The policy's step size after `steps` of the environments.
    fn policy_rate(&self, steps: u64) -> f64 {
        let halvings = self.halve_every.map_or(0, |every| steps / every);
        self.learning_rate * 0.5f64.powi(halvings.min(1000) as i32)
    }
}

/// clip(tanh out + clip(N(0, deviation²), ± clip), ± 1), and 0 in the absorbing state: the target's actions, `[B, A]`.
fn target_actions(out: &[f32], acts: &[f32], deviation: f64, clip: f64, rng: &mut Stream, to: &mut Vec<f32>) {
    let (count, deviation, clip) = (out.len() / acts.len(), deviation as f32, clip as f32);
    to.clear();
    to.extend(out.iter().enumerate().map(|(i, out)| {
        let noise = (rng.normal() * deviation).clamp(-clip, clip);
        (out.tanh() + noise).clamp(-1.0, 1.0) * acts[i / count]
    }));
}

/// The learner.
pub struct Td3 {
    config: Td3Config,
    policy: ActorCritic,
    /// The policy's slow copy, laid out like its weights.
    target_policy: Tensor,
    adam: Adam,
    network: Dense,
    critics: Critics,
    experience: Experience,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    minibatch: Minibatch,
    trace: Trace,
    actions: Vec<f32>,
    target: Vec<f32>,
    weight: Vec<f32>,
    values: Vec<f32>,
    d_input: Vec<f32>,
}

impl Td3 {
    /// A learner of `policy`, whose head is deterministic and which has no value heads; the critics are perceptrons of
    /// the same widths.
    ///
    /// # Errors
    /// Another policy.
    pub fn new(
        replay: ReplayConfig,
        config: Td3Config,
        policy: ActorCritic,
        rng: &mut Stream,
    ) -> Result<Self> {
        let experience = Experience::new(replay, &policy)?;
        let deterministic = matches!(policy.spec.box_head, BoxHead::Deterministic { .. });
        let network = policy.perceptron().filter(|_| deterministic);
        let network = network.ok_or_else(|| Error::Invalid("TD3's policy is deterministic".into()))?;
        let torso = &policy.spec.torso;
        let critics = Critics::new(experience.inputs(&policy), &torso.hidden, torso.activation, rng);
        Ok(Self {
            target_policy: policy.parameters.weights.copy(),
            adam: Adam::new(&policy.parameters, 1e-8),
            config,
            policy,
            network,
            critics,
            experience,
            scratch: Scratch::default(),
        })
    }

    /// One update on the minibatch in the scratch: critics, and each so-manieth time policy and targets.
    fn update(&mut self, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let config = &self.config;
        let count = self.experience.actions();
        let Scratch { minibatch, trace, actions, target, weight, values, d_input } = &mut self.scratch;
        let rows = minibatch.reward.len();

        // r + γ min Q′(s′, a′) with the target's action, smoothed.
        self.network.forward(slice(&self.target_policy), &minibatch.next_features, rows, trace);
        let (noise, clip) = (config.target_noise, config.target_noise_clip);
        target_actions(trace.output(), &minibatch.next_acts, noise, clip, rng, actions);
        Minibatch::with_actions(&mut minibatch.next_input, actions, count);
        self.critics.target_minimum(&minibatch.next_input, rows, values);
        target.clear();
        target.extend((0..rows).map(|i| minibatch.reward[i] + minibatch.discount[i] * values[i]));
        let CriticLosses { loss, value, gradient_norm } =
            self.critics.improve(&minibatch.input, target, config.learning_rate)?;
        log.scalar("critic/loss", loss);
        log.scalar("critic/value", value);
        log.scalar("critic/gradient_norm", gradient_norm);
        log.scalar("critic/reward", mean(&minibatch.reward));
        if !self.experience.updates.is_multiple_of(config.policy_delay) {
            return Ok(());
        }

        let acting: f32 = minibatch.acts.iter().sum();
        if self.experience.updates > config.policy_starts {
            if acting > 0.0 {
                weight.clear();
                weight.extend(minibatch.acts.iter().map(|acts| acts / acting));
                let Flat { weights, gradient, .. } = &mut self.policy.parameters;
                let (weights, gradient) = (slice(weights), slice_mut(gradient));
                self.network.forward(weights, &minibatch.features, rows, trace);
                actions.clear();
                actions.extend(trace.output().iter().map(|out| out.tanh()));
                Minibatch::with_actions(&mut minibatch.input, actions, count);
                self.critics.first_and_slope(&minibatch.input, weight, values, d_input);
                let stride = d_input.len() / rows;
                let (_, d_out) = trace.output_and_gradient();
                for (i, (d_out, u)) in d_out.iter_mut().zip(actions.iter()).enumerate() {
                    let (row, number) = (i / count, i % count);
                    *d_out = d_input[(row + 1) * stride - count + number] * (1.0 - u * u);
                }
                self.network.backward(weights, gradient, &minibatch.features, None, trace);
                let norm = match config.max_gradient_norm {
                    Some(most) => self.policy.parameters.clip_gradient(most),
                    None => self.policy.parameters.gradient_norm(),
                };
                if !norm.is_finite() {
                    let batch = vec![("features".into(), Tensor::from_slice(&minibatch.features))];
                    return Err(self.policy.parameters.diverged("policy", batch));
                }
                let rate = config.policy_rate(self.experience.steps);
                self.adam.update(&mut self.policy.parameters, rate);
                let reached: f64 = weight.iter().zip(values.iter()).map(|(w, q)| f64::from(w * q)).sum();
                log.scalar("policy/loss", -reached);
                log.scalar("policy/gradient_norm", norm);
                log.scalar("policy/learning_rate", rate);
            }
            follow(
                &mut self.target_policy,
                &self.policy.parameters.weights,
                self.experience.config.target_rate,
            );
        }
        self.critics.follow(self.experience.config.target_rate);
        Ok(())
    }
}

impl Learner for Td3 {
    fn policy(&self) -> &ActorCritic {
        &self.policy
    }

    fn learn(&mut self, rollout: Batch, signals: &mut Signals, now: Moment, log: &mut Log) -> Result<()> {
        let due = self.experience.take_in(&self.policy, &rollout, signals, now, log)?;
        for _ in 0..due {
            let mut rng = self.experience.draw(&self.policy, signals, now, &mut self.scratch.minibatch)?;
            timed(Phase::Update, || self.update(&mut rng, log))?;
        }
        let seen = rollout.flat_observation().index_select(0, &rollout.valid_index());
        self.policy.update_normaliser(&seen);
        timed(Phase::Signals, || signals.update(When::AfterPolicy, &rollout, now, log))
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("policy", |state| self.policy.state(state))?;
        state.tensor("target_policy", &mut self.target_policy)?;
        state.scope("adam", |state| self.adam.state(state))?;
        state.scope("critics", |state| self.critics.state(state))?;
        self.experience.state(state)
    }
}
