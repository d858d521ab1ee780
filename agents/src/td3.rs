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
use imago::signal::{Moment, Signals};
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
        self.experience.conclude(&mut self.policy, &rollout, signals, now, log)
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("policy", |state| self.policy.state(state))?;
        state.tensor("target_policy", &mut self.target_policy)?;
        state.scope("adam", |state| self.adam.state(state))?;
        state.scope("critics", |state| self.critics.state(state))?;
        self.experience.state(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::experience::assert_gradients_agree;
    use imago::nn::{Activation, PolicySpec, TorsoSpec};
    use imago_envs::Space;
    use proptest::prelude::*;
    use tch::Kind;

    fn td3(features: usize, actions: usize, absorbing: bool, config: Td3Config, rng: &mut Stream) -> Td3 {
        let spec = PolicySpec {
            observation: Space::floats(&[features], -9.0, 9.0),
            action: Space::floats(&[actions], -2.0, 2.0),
            torso: TorsoSpec { activation: Activation::Relu, ..TorsoSpec::perceptron(&[24, 16]) },
            shared: false,
            value_heads: 0,
            normalise: false,
            log_std: 0.0,
            masked: false,
            box_head: BoxHead::Deterministic { noise: config.exploration_noise },
            memory: None,
        };
        let policy = ActorCritic::new(spec, rng).unwrap();
        let replay = ReplayConfig { absorbing, replay_size: 10, ..Default::default() };
        let mut td3 = Td3::new(replay, config, policy, rng).unwrap();
        let weights = slice_mut::<f32>(&mut td3.policy.parameters.weights);
        weights.iter_mut().for_each(|w| *w += 0.2 * rng.normal());
        slice_mut::<f32>(&mut td3.target_policy).iter_mut().for_each(|w| *w += 0.2 * rng.normal());
        td3.critics.shake(rng);
        td3
    }

    /// tanh of the policy's output by libtorch; by the target if asked for.
    fn decided(td3: &Td3, features: &[f32], rows: usize, target: bool) -> Tensor {
        let mut x = Tensor::from_slice(features).view([rows as i64, -1]);
        let flat = &td3.policy.parameters;
        let count = flat.layout.len();
        let parameter = |index: usize| {
            let slot = &flat.layout[index];
            match target {
                true => {
                    td3.target_policy.narrow(0, slot.offset as i64, slot.len() as i64).view(&slot.shape[..])
                }
                false => flat.get(index).shallow_clone(),
            }
        };
        for at in (0..count).step_by(2) {
            x = x.linear(&parameter(at), Some(&parameter(at + 1)));
            x = if at + 2 < count { x.relu() } else { x.tanh() };
        }
        x
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        /// One update's gradients are those of the losses as the paper has them.
        #[test]
        fn the_gradients_are_autograds(
            seed in 0u64..10_000, rows in 1usize..40, features in 1usize..6, actions in 1usize..4, absorbing: bool,
        ) {
            let mut rng = Stream::new(seed, "td3", 0, 0);
            let config = Td3Config { learning_rate: 1e-12, policy_delay: 1, ..Default::default() };
            let mut td3 = td3(features, actions, absorbing, config, &mut rng);
            td3.experience.updates = 1;
            let minibatch = Minibatch::made_up(rows, features, actions, absorbing, &mut rng);
            let column = |x: &[f32]| Tensor::from_slice(x);
            let relu = Activation::Relu;
            let noise = (rng.clone().normals(&[rows as i64, actions as i64]) * 0.2).clamp(-0.5, 0.5);
            let smoothed = (decided(&td3, &minibatch.next_features, rows, true) + noise).clamp(-1.0, 1.0);
            let smoothed = smoothed * column(&minibatch.next_acts).unsqueeze(1);
            let next = Minibatch::input_with(&minibatch.next_input, &smoothed);
            let [first, second] = td3.critics.by_libtorch(&next, relu, true);
            let following = column(&minibatch.discount) * first.minimum(&second);
            let target = (column(&minibatch.reward) + following).detach();
            let input = column(&minibatch.input).view([rows as i64, -1]);
            let critics: Tensor = td3
                .critics
                .by_libtorch(&input, relu, false)
                .iter()
                .map(|q| (q - &target).square().mean(Kind::Float))
                .sum();
            td3.critics.flat().backward(&critics).unwrap();
            let critics = slice::<f32>(&td3.critics.flat().gradient).to_vec();

            let acts = column(&minibatch.acts);
            let input = Minibatch::input_with(&minibatch.input, &decided(&td3, &minibatch.features, rows, false));
            let [first, _] = td3.critics.by_libtorch(&input, relu, false);
            let acting = acts.sum(Kind::Float);
            let loss = -(first * &acts).sum(Kind::Float) / acting.clamp_min(1.0);
            td3.policy.parameters.backward(&loss).unwrap();
            let policy = slice::<f32>(&td3.policy.parameters.gradient).to_vec();

            td3.scratch.minibatch = minibatch;
            td3.update(&mut rng, &mut Log::in_memory()).unwrap();
            assert_gradients_agree(slice(&td3.critics.flat().gradient), &critics, "critics");
            if acting.double_value(&[]) > 0.0 {
                assert_gradients_agree(slice(&td3.policy.parameters.gradient), &policy, "policy");
            }
        }
    }

    #[test]
    fn the_targets_action_is_smoothed_bounded_and_nothing_in_the_absorbing_state() {
        let (mut rng, mut to) = (Stream::new(0, "noise", 0, 0), Vec::new());
        target_actions(&[0.0; 2000], &[1.0; 2000], 0.2, 0.5, &mut rng, &mut to);
        assert!(to.iter().all(|u| u.abs() <= 0.5) && to.iter().any(|u| u.abs() > 0.4));
        let deviation = (to.iter().map(|u| f64::from(u * u)).sum::<f64>() / 2000.0).sqrt();
        assert!((deviation - 0.2).abs() < 0.02, "{deviation}");
        target_actions(&[9.0, -9.0, 9.0], &[1.0, 1.0, 0.0], 0.2, 0.5, &mut rng, &mut to);
        assert!(to[0] <= 1.0 && to[0] > 0.3 && to[1] >= -1.0 && to[1] < -0.3 && to[2] == 0.0, "{to:?}");
        target_actions(&[0.5f32, 1.0], &[1.0], 0.0, 0.5, &mut rng, &mut to);
        assert_eq!(to, [0.5f32.tanh(), 1f32.tanh()]);
    }

    #[test]
    fn the_policy_begins_late_moves_seldom_and_slows_down() {
        let config =
            Td3Config { policy_starts: 3, policy_delay: 2, halve_every: Some(100), ..Default::default() };
        let rates = [0, 99, 100, 399].map(|steps| config.policy_rate(steps));
        assert_eq!(rates, [1e-3, 1e-3, 5e-4, 1.25e-4]);
        assert_eq!(Td3Config::default().policy_rate(1_000_000), 1e-3);
        let mut rng = Stream::new(1, "td3", 0, 0);
        let mut td3 = td3(2, 1, false, config, &mut rng);
        let mut moved = Vec::new();
        for update in 1..=6 {
            td3.experience.updates = update;
            td3.scratch.minibatch = Minibatch::made_up(8, 2, 1, false, &mut rng);
            let before = td3.policy.parameters.weights.copy();
            td3.update(&mut rng, &mut Log::in_memory()).unwrap();
            moved.push(td3.policy.parameters.weights != before);
        }
        assert_eq!(moved, [false, false, false, true, false, true]);
    }
}
