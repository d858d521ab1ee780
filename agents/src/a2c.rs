//! Advantage actor-critic: the synchronous form of A3C (Mnih et al. 2016).

use crate::fused::FusedPpo;
use crate::learner::Learner;
use crate::ppo::{PpoConfig, explained_variance, standardised, value_loss};
use crate::rows::{Rows, evaluate_sequences, plain};
use imago::nn::{ActorCritic, Adam};
use imago::rollout::Batch;
use imago::run::profile::{Phase, timed};
use imago::run::{Log, State};
use imago::signal::{Moment, Signals, When};
use imago::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// How many steps a rollout is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Descent {
    /// One, on all environments together.
    Together,
    /// One for each environment, in their order, as if they were A3C's workers that always come in that order: each
    /// one's gradient is that of the policy which those before it have left, but of the actions of the old one.
    EachEnvironment,
}

/// Settings of [`A2c`]. Defaults are Stable-Baselines3's, but for Adam in place of RMSprop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct A2cConfig {
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Lower the learning rate linearly to 0 over the run.
    pub anneal_learning_rate: bool,
    /// How many steps a rollout is worth.
    pub descent: Descent,
    /// γ of the signals that do not set their own.
    #[schemars(range(min = 0, max = 1))]
    pub discount: f64,
    /// λ of generalised advantage estimation; 1 is the sum of all rewards to the rollout's end.
    #[schemars(range(min = 0, max = 1))]
    pub gae_lambda: f64,
    /// Factor of the entropy bonus.
    pub entropy_coefficient: f64,
    /// Factor of the value loss (V − R)², summed over value heads.
    #[schemars(range(min = 0))]
    pub value_coefficient: f64,
    /// The global gradient norm is clipped to this.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: f64,
    /// The sum of all signals' rewards on a value head is clipped to ± this (1 in Pathak et al. 2017); off if absent.
    #[schemars(extend("exclusiveMinimum" = 0, "x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_reward_clip: Option<f64>,
    /// Standardise advantages in each step's batch.
    pub normalise_advantage: bool,
    /// Adam's ε.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_epsilon: f64,
}

impl Default for A2cConfig {
    fn default() -> Self {
        Self {
            learning_rate: 7e-4,
            anneal_learning_rate: false,
            descent: Descent::Together,
            discount: 0.99,
            gae_lambda: 1.0,
            entropy_coefficient: 0.0,
            value_coefficient: 0.5,
            max_gradient_norm: 0.5,
            total_reward_clip: None,
            normalise_advantage: false,
            adam_epsilon: 1e-5,
        }
    }
}

/// −mean log π(a) Â, `[B]` each.
pub fn policy_gradient_loss(log_prob: &Tensor, advantage: &Tensor) -> Tensor {
    -(log_prob * advantage).mean(Kind::Float)
}

/// Figures of one step.
struct Losses {
    policy: f64,
    value: f64,
    entropy: f64,
}

/// The learner: a policy and how it improves.
pub struct A2c {
    config: A2cConfig,
    policy: ActorCritic,
    adam: Adam,
    /// Gradients without autograd, where the policy allows it.
    fused: Option<FusedPpo>,
}

impl A2c {
    /// A learner of `policy`.
    pub fn new(config: A2cConfig, policy: ActorCritic) -> Self {
        let adam = Adam::new(&policy.parameters, config.adam_epsilon);
        // The fast path knows the policy that acted, and no other.
        let fused = FusedPpo::new(&policy).filter(|_| config.descent == Descent::Together);
        Self { config, policy, adam, fused }
    }

    /// Â of the rows of a step, `[B]`.
    fn advantage(&self, rows: &Rows) -> Tensor {
        match self.config.normalise_advantage {
            true => standardised(&rows.advantage),
            false => rows.advantage.shallow_clone(),
        }
    }

    /// The loss's gradient on valid rows, by the fast path. Of the policy that acted PPO's objective without a clip has
    /// this gradient, too: d exp(log π − log π_old) = d log π at π = π_old (Huang et al. 2022, "A2C is a special case of
    /// PPO").
    fn fused_gradient(&mut self, rollout: &Batch, rows: &Rows) -> Option<Losses> {
        let fused = self.fused.as_mut()?;
        let config = PpoConfig {
            clip: f64::INFINITY,
            value_clip: None,
            entropy_coefficient: self.config.entropy_coefficient,
            value_coefficient: self.config.value_coefficient,
            normalise_advantage: self.config.normalise_advantage,
            ..Default::default()
        };
        let (count, input) =
            (rows.len() as usize, self.policy.input(&rollout.gather_observation(&rows.index)));
        let minibatch = rows.plain(plain(&input, 0, count), 0, count);
        let losses = fused.gradient(&mut self.policy, &minibatch, &config);
        // The gradients are the same, the objectives are not; what was written down is log π.
        let policy = policy_gradient_loss(&rows.log_prob, &self.advantage(rows)).double_value(&[]);
        Some(Losses { policy, value: losses.value, entropy: losses.entropy })
    }

    /// The loss's gradient on what the environments `envs`, int64 `[m]`, have done, by autograd; with the rows that
    /// count. None if there are none.
    fn gradient(&mut self, rollout: &Batch, rows: &Rows, envs: &Tensor) -> Result<Option<(Losses, Rows)>> {
        let config = &self.config;
        let (evaluated, rows) = evaluate_sequences(&self.policy, rollout, rows, envs);
        if rows.len() == 0 {
            return Ok(None);
        }
        let policy_loss = policy_gradient_loss(&evaluated.log_prob, &self.advantage(&rows));
        let value_loss = value_loss(&evaluated.value, &rows.value, &rows.returns, None);
        let entropy = evaluated.entropy.mean(Kind::Float);
        let loss =
            &policy_loss + &value_loss * config.value_coefficient - &entropy * config.entropy_coefficient;
        self.policy.parameters.backward(&loss)?;
        let figure = |x: &Tensor| x.double_value(&[]);
        let losses =
            Losses { policy: figure(&policy_loss), value: figure(&value_loss), entropy: figure(&entropy) };
        Ok(Some((losses, rows)))
    }

    /// One step along the gradient.
    fn descend(
        &mut self,
        losses: &Losses,
        rollout: &Batch,
        rows: &Rows,
        rate: f64,
        log: &mut Log,
    ) -> Result<()> {
        let norm = self.policy.parameters.clip_gradient(self.config.max_gradient_norm);
        if !norm.is_finite() {
            return Err(self.policy.parameters.diverged("policy", rows.tensors(rollout)));
        }
        self.adam.update(&mut self.policy.parameters, rate);
        log.scalar("policy/loss", losses.policy);
        log.scalar("policy/entropy", losses.entropy);
        log.scalar("policy/gradient_norm", norm);
        log.scalar("value/loss", losses.value);
        Ok(())
    }

    fn improve(&mut self, rollout: &Batch, rows: &Rows, now: Moment, log: &mut Log) -> Result<()> {
        let anneal = if self.config.anneal_learning_rate { 1.0 - now.progress } else { 1.0 };
        let rate = self.config.learning_rate * anneal;
        let valid = rows.valid(rollout);
        if valid.len() == 0 {
            return Ok(());
        }
        if let Some(losses) = self.fused_gradient(rollout, &valid) {
            self.descend(&losses, rollout, &valid, rate, log)?;
        } else {
            let all = Tensor::arange(rollout.reward.size()[1], (Kind::Int64, Device::Cpu));
            let size = match self.config.descent {
                Descent::Together => all.size()[0],
                Descent::EachEnvironment => 1,
            };
            for envs in all.split(size, 0) {
                if let Some((losses, rows)) = self.gradient(rollout, rows, &envs)? {
                    self.descend(&losses, rollout, &rows, rate, log)?;
                }
            }
        }
        log.scalar("policy/learning_rate", rate);
        let first = |heads: &Tensor| heads.select(1, 0);
        let explained = explained_variance(&first(&valid.value), &first(&valid.returns));
        log.scalar("value/explained_variance", explained);
        if !self.policy.parameters.is_finite() {
            return Err(self.policy.parameters.diverged("policy", valid.tensors(rollout)));
        }
        Ok(())
    }
}

impl Learner for A2c {
    fn policy(&self) -> &ActorCritic {
        &self.policy
    }

    fn learn(&mut self, rollout: Batch, signals: &mut Signals, now: Moment, log: &mut Log) -> Result<()> {
        let (clip, lambda) = (self.config.total_reward_clip, self.config.gae_lambda);
        let rows = Rows::scored(&self.policy.spec, &rollout, signals, (clip, lambda), now, log)?;
        timed(Phase::Update, || {
            self.improve(&rollout, &rows, now, log)?;
            if self.policy.normaliser.is_some() {
                // Not before: the values were computed with the old statistics.
                self.policy.update_normaliser(&rollout.gather_observation(&rollout.valid_index()));
            }
            Ok::<_, Error>(())
        })?;
        timed(Phase::Signals, || signals.update(When::AfterPolicy, &rollout, now, log))
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("policy", |state| self.policy.state(state))?;
        state.scope("adam", |state| self.adam.state(state))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::Stream;
    use imago::memory::slice;
    use imago::nn::{BoxHead, PolicySpec, TorsoSpec};
    use imago::rollout::Lead;
    use imago_envs::Space;

    #[test]
    fn the_loss_by_hand() {
        let log_prob = Tensor::from_slice(&[0.5f32.ln(), 0.25f32.ln()]);
        let advantage = Tensor::from_slice(&[2f32, -1.0]);
        let wanted = -(2.0 * 0.5f64.ln() - 0.25f64.ln()) / 2.0;
        assert!((policy_gradient_loss(&log_prob, &advantage).double_value(&[]) - wanted).abs() < 1e-6);
    }

    /// A rollout of 4 steps in 3 environments, one of them not valid.
    fn rollout(policy: &ActorCritic, rng: &mut Stream) -> (Batch, Rows) {
        let (steps, envs) = (4, 3);
        let (observations, action) = (rng.normals(&[steps + 1, envs, 2]), rng.indices(3, 12));
        let flags = || Tensor::zeros([steps, envs], (Kind::Bool, Device::Cpu));
        let valid = flags().logical_not();
        let _ = valid.get(2).get(1).fill_(0);
        let seen = observations.narrow(0, 0, steps).flatten(0, 1);
        let evaluated = tch::no_grad(|| policy.evaluate(&seen, &action));
        let rows = Rows {
            index: Tensor::arange(12, (Kind::Int64, Device::Cpu)),
            action: action.shallow_clone(),
            mask: None,
            log_prob: evaluated.log_prob.shallow_clone(),
            advantage: rng.normals(&[12]),
            value: evaluated.value.shallow_clone(),
            returns: rng.normals(&[12, 1]),
        };
        let batch = Batch {
            lead: Lead::Time { steps, envs },
            observations,
            stacking: None,
            action: action.view([steps, envs]),
            action_mask: None,
            log_prob: Some(evaluated.log_prob.view([steps, envs])),
            values: None,
            memory: None,
            reward: Tensor::zeros([steps, envs], (Kind::Float, Device::Cpu)),
            terminated: flags(),
            truncated: flags(),
            absorbing: None,
            start: flags(),
            elapsed: None,
            valid,
            ends: None,
        };
        (batch, rows)
    }

    fn a2c(descent: Descent) -> A2c {
        let spec = PolicySpec {
            observation: Space::floats(&[2], -1.0, 1.0),
            action: Space::discrete(3),
            torso: TorsoSpec::perceptron(&[8]),
            shared: false,
            value_heads: 1,
            normalise: false,
            log_std: 0.0,
            masked: false,
            box_head: BoxHead::Gaussian,
            memory: None,
        };
        let mut rng = Stream::new(2, "init", 0, 0);
        let config = A2cConfig { descent, entropy_coefficient: 0.03, ..Default::default() };
        let mut a2c = A2c::new(config, ActorCritic::new(spec, &mut rng).unwrap());
        // The head is small at first, and so would be what its gradient has to say.
        let weights = slice::<f32>(&a2c.policy.parameters.weights).to_vec();
        let shaken: Vec<f32> = weights.iter().map(|w| w + 0.3 * rng.normal()).collect();
        a2c.policy.parameters.copy_from(&shaken).unwrap();
        a2c
    }

    #[test]
    fn the_fast_path_has_autograds_gradient() {
        let mut a2c = a2c(Descent::Together);
        let (batch, rows) = rollout(&a2c.policy, &mut Stream::new(0, "rollout", 0, 0));
        let ours = a2c.fused_gradient(&batch, &rows.valid(&batch)).unwrap();
        let fused = slice::<f32>(&a2c.policy.parameters.gradient).to_vec();
        let all = Tensor::from_slice(&[0i64, 1, 2]);
        let (theirs, counted) = a2c.gradient(&batch, &rows, &all).unwrap().unwrap();
        assert_eq!(counted.len(), 11);
        let autograds = slice::<f32>(&a2c.policy.parameters.gradient);
        for (i, (a, b)) in fused.iter().zip(autograds).enumerate() {
            assert!((a - b).abs() < 1e-5, "{i}: {a} is not {b}");
        }
        for (a, b) in
            [(ours.policy, theirs.policy), (ours.value, theirs.value), (ours.entropy, theirs.entropy)]
        {
            assert!((a - b).abs() < 1e-5, "{a} is not {b}");
        }
    }

    #[test]
    fn each_environment_has_a_step_of_its_own_in_order() {
        let mut one = a2c(Descent::EachEnvironment);
        assert!(one.fused.is_none());
        let (batch, rows) = rollout(&one.policy, &mut Stream::new(0, "rollout", 0, 0));
        let now = Moment { seed: 0, iteration: 0, progress: 0.0 };
        one.improve(&batch, &rows, now, &mut Log::in_memory()).unwrap();
        let mut by_hand = a2c(Descent::EachEnvironment);
        for env in 0..3i64 {
            let (_, rows) = by_hand.gradient(&batch, &rows, &Tensor::from_slice(&[env])).unwrap().unwrap();
            assert_eq!(rows.len(), if env == 1 { 3 } else { 4 });
            by_hand.policy.parameters.clip_gradient(0.5);
            by_hand.adam.update(&mut by_hand.policy.parameters, 7e-4);
        }
        assert_eq!(one.policy.parameters.weights, by_hand.policy.parameters.weights);
    }
}
