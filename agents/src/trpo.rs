//! Trust region policy optimisation (Schulman et al. 2015), as Ho & Ermon 2016 imitate with it: a step of natural
//! gradient for the policy, one for a value function of its own that sees the time.

use crate::learner::Learner;
use crate::ppo::explained_variance;
use crate::trust_region::{Problem, TrustRegion};
use crate::value::ValueFunction;
use imago::memory::slice;
use imago::nn::ActorCritic;
use imago::rollout::{AdvantageInput, Batch, generalised_advantage};
use imago::run::profile::{Phase, timed};
use imago::run::{Log, State};
use imago::signal::{Moment, Signals, When};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Settings of [`Trpo`]. Defaults are those of Ho & Ermon's code, but that a time limit is no end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrpoConfig {
    /// γ
    #[schemars(range(min = 0, max = 1))]
    pub discount: f64,
    /// λ of generalised advantage estimation.
    #[schemars(range(min = 0, max = 1))]
    pub gae_lambda: f64,
    /// Kullback–Leibler divergence that a step of the policy aims at, δ.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_kl: f64,
    /// Added to the diagonal of the curvature.
    #[schemars(range(min = 0))]
    pub damping: f64,
    /// Iterations of conjugate gradients.
    #[schemars(range(min = 1))]
    pub cg_iterations: usize,
    /// Share of the rollout, drawn with replacement, over which curvatures are measured.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub curvature_share: f64,
    /// How often a step is halved until it is accepted.
    pub backtracks: usize,
    /// Take no step if none is accepted; the original takes the shortest one that it has tried.
    pub restore_on_failure: bool,
    /// Mean squared change, in standard deviations of the returns, that a step of the value function aims at. Values lag
    /// behind a reward that changes with every iteration if it is small.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub value_max_change: f64,
    /// The value function sees the step within the episode divided by this: the time limit. Off if absent.
    #[schemars(range(min = 1), extend("x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_horizon: Option<u32>,
    /// Where a time limit cuts an episode off, count the value of what would have followed. The original does not.
    pub bootstrap_at_limit: bool,
}

impl Default for TrpoConfig {
    fn default() -> Self {
        Self {
            discount: 0.995,
            gae_lambda: 0.97,
            max_kl: 0.01,
            damping: 0.1,
            cg_iterations: 10,
            curvature_share: 0.1,
            backtracks: 10,
            restore_on_failure: false,
            value_max_change: 0.01,
            value_horizon: None,
            bootstrap_at_limit: true,
        }
    }
}

impl TrpoConfig {
    fn region(&self, max_divergence: f64) -> TrustRegion {
        TrustRegion {
            max_divergence,
            damping: self.damping,
            iterations: self.cg_iterations,
            backtracks: self.backtracks,
            restore: self.restore_on_failure,
            ..TrustRegion::default()
        }
    }
}

/// mean (π(a|s) / π_old(a|s) · Â), the objective of a step.
fn surrogate(log_prob: &Tensor, old_log_prob: &Tensor, advantage: &Tensor) -> Tensor {
    ((log_prob - old_log_prob).exp() * advantage).mean(Kind::Float)
}

/// Values of a rollout, and of what truly followed each step.
struct Values {
    /// `[T, N]`
    here: Tensor,
    /// `[T, N]`
    next: Tensor,
}

/// The learner: a policy, a value function and how they improve.
pub struct Trpo {
    config: TrpoConfig,
    policy: ActorCritic,
    value: ValueFunction,
}

impl Trpo {
    /// A learner of `policy`, whose own values are not used.
    ///
    /// # Errors
    /// A policy that has a memory, shares its features with its values, or reads images: the value function here reads vectors.
    pub fn new(config: TrpoConfig, policy: ActorCritic, rng: &mut Stream) -> Result<Self> {
        let spec = &policy.spec;
        if spec.memory.is_some() {
            return Err(Error::Invalid("TRPO learns from single steps: use PPO or A2C with a memory".into()));
        }
        if spec.value_heads != 1 {
            return Err(Error::Invalid(
                "TRPO has one value function: give all signals the same `discount` and `episodic`".into(),
            ));
        }
        if spec.observation.shape().len() > 1 && !spec.torso.reads_vectors() {
            return Err(Error::Invalid(
                "TRPO's value function reads vectors, not images: use learner.kind = \"ppo\"".into(),
            ));
        }
        let features = spec.observation.features() + usize::from(config.value_horizon.is_some());
        let value = ValueFunction::new(features, &spec.torso.hidden, spec.torso.activation, rng);
        Ok(Self { config, policy, value })
    }

    /// What the value function reads: standardised observations `[B, …]` and `elapsed / horizon`, `[B]` steps.
    fn input(&self, observation: &Tensor, elapsed: &Tensor) -> Tensor {
        let features = self.policy.features(observation).flatten(1, -1);
        match self.config.value_horizon {
            Some(horizon) => {
                let time = elapsed.to_kind(Kind::Float) / f64::from(horizon);
                Tensor::cat(&[features, time.unsqueeze(1)], 1)
            }
            None => features,
        }
    }

    /// Values before the update, and what the value function read for them, `[T · N, features]`.
    fn values(&self, rollout: &Batch) -> Result<(Values, Tensor)> {
        let [steps, envs] = rollout.reward.size()[..] else { return Err(no_rollout()) };
        let (Some(elapsed), Some(ends)) = (&rollout.elapsed, &rollout.ends) else { return Err(no_rollout()) };
        let rows = Tensor::arange((steps + 1) * envs, (Kind::Int64, Device::Cpu));
        let input = self.input(&rollout.gather_observation(&rows), &elapsed.view(-1));
        let values = self.value.values(&input);
        let here = values.narrow(0, 0, steps * envs);
        let mut next = values.narrow(0, envs, steps * envs);
        if ends.index.numel() > 0 {
            let elapsed = elapsed.view(-1).index_select(0, &ends.index) + 1;
            let last = self.value.values(&self.input(&ends.observation, &elapsed));
            next = next.index_copy(0, &ends.index, &last);
        }
        let values = Values { here: here.view([steps, envs]), next: next.contiguous().view([steps, envs]) };
        Ok((values, input.narrow(0, 0, steps * envs)))
    }

    /// Â of each step, `[T · N]`.
    fn advantage(&self, rollout: &Batch, reward: &Tensor, values: &Values, lambda: f64) -> Tensor {
        let ended = rollout.terminated.logical_or(&rollout.truncated);
        // Without a value behind the limit, an episode that it cuts off is one that has ended.
        let terminated = if self.config.bootstrap_at_limit { &rollout.terminated } else { &ended };
        Tensor::from_slice(&generalised_advantage(&AdvantageInput {
            envs: rollout.reward.size()[1] as usize,
            reward: slice(reward),
            value: slice(&values.here.contiguous()),
            next_value: slice(&values.next),
            terminated: slice(terminated),
            truncated: slice(&rollout.truncated),
            valid: slice(&rollout.valid),
            discount: self.config.discount as f32,
            lambda: lambda as f32,
        }))
    }

    /// Some of `count` rows.
    fn sample(&self, count: i64, rng: &mut Stream) -> Tensor {
        let share = (count as f64 * self.config.curvature_share).ceil() as usize;
        rng.indices(count as usize, share.clamp(1, count as usize))
    }

    /// One step of the policy on the rows `valid` of a rollout.
    fn improve(
        &mut self,
        rollout: &Batch,
        advantage: &Tensor,
        valid: &Tensor,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Result<()> {
        let pick = |x: &Tensor| x.index_select(0, valid);
        let observation = rollout.gather_observation(valid);
        let (action, mask) =
            (pick(&rollout.flat_action()), rollout.flat_action_mask().map(|mask| pick(&mask)));
        let advantage = pick(advantage);
        let advantage = (&advantage - advantage.mean(Kind::Float)) / (advantage.std(false) + 1e-8);
        let sample = self.sample(valid.size()[0], rng);
        let few = observation.index_select(0, &sample);
        let few_masks = mask.as_ref().map(|mask| mask.index_select(0, &sample));
        let all = |policy: &ActorCritic| policy.forward_masked(&observation, mask.as_ref()).0;
        let sampled = |policy: &ActorCritic| policy.forward_masked(&few, few_masks.as_ref()).0;
        let (old, old_sampled) = (all(&self.policy), tch::no_grad(|| sampled(&self.policy)));
        let log_prob = old.log_prob(&action);
        let old_log_prob = log_prob.detach();
        log.scalar("policy/entropy", tch::no_grad(|| old.entropy().mean(Kind::Float)).double_value(&[]));
        let problem = Problem {
            objective: surrogate(&log_prob, &old_log_prob, &advantage),
            measure: &|policy: &ActorCritic| {
                let new = all(policy);
                let objective = surrogate(&new.log_prob(&action), &old_log_prob, &advantage);
                (objective, old.kl(&new).mean(Kind::Float))
            },
            curvature: &|policy: &ActorCritic| old_sampled.kl(&sampled(policy)).mean(Kind::Float),
        };
        let region = self.config.region(self.config.max_kl);
        let step = region.step(&mut self.policy, |policy| &mut policy.parameters, &problem)?;
        log.scalar("policy/kl", step.divergence);
        log.scalar("policy/improvement", step.improvement);
        log.scalar("policy/gradient_norm", step.gradient_norm);
        log.scalar("policy/backtracks", step.backtracks as f64);
        log.scalar("policy/accepted", f64::from(u8::from(step.accepted)));
        Ok(())
    }
}

fn no_rollout() -> Error {
    Error::Invalid("TRPO learns from rollouts".into())
}

impl Learner for Trpo {
    fn policy(&self) -> &ActorCritic {
        &self.policy
    }

    /// In the order of the original's code: reward, policy, statistics of the observations, signals, and last the
    /// value function, on the rewards of the signals as they are then.
    fn learn(&mut self, rollout: Batch, signals: &mut Signals, now: Moment, log: &mut Log) -> Result<()> {
        let spec = &self.policy.spec;
        rollout.check_finite(&spec.observation, &spec.action)?;
        let reward = timed(Phase::Signals, || {
            signals.update(When::BeforeReward, &rollout, now, log)?;
            signals.rewards(&rollout, now.progress, log)
        })?;
        let valid = rollout.valid_index();
        if valid.numel() == 0 {
            return Ok(());
        }
        let (values, input) = timed(Phase::Update, || {
            let (values, input) = self.values(&rollout)?;
            let advantage = self.advantage(&rollout, &reward[0], &values, self.config.gae_lambda);
            let mut rng = Stream::new(now.seed, "policy's curvature", 0, now.iteration);
            self.improve(&rollout, &advantage, &valid, &mut rng, log)?;
            Ok::<_, Error>((values, input))
        })?;
        self.policy.update_normaliser(&rollout.gather_observation(&valid));
        let changed = signals.stack.iter().any(|stacked| stacked.update == When::AfterPolicy);
        let reward = timed(Phase::Signals, || {
            signals.update(When::AfterPolicy, &rollout, now, log)?;
            if changed { signals.rewards_again(&rollout, now.progress) } else { Ok(reward) }
        })?;
        timed(Phase::Update, || {
            // λ = 1: what truly followed, and the value of what is cut off.
            let returns = self.advantage(&rollout, &reward[0], &values, 1.0) + values.here.reshape([-1]);
            let pick = |x: &Tensor| x.index_select(0, &valid);
            let region = self.config.region(self.config.value_max_change);
            let (input, returns) = (pick(&input), pick(&returns));
            let mut rng = Stream::new(now.seed, "values' curvature", 0, now.iteration);
            let sample = self.sample(valid.size()[0], &mut rng);
            let step = self.value.fit(&input, &returns, &sample, &region)?;
            log.scalar("value/change", step.divergence);
            log.scalar("value/improvement", step.improvement);
            log.scalar("value/accepted", f64::from(u8::from(step.accepted)));
            // As the advantages knew them: before the step.
            let known = pick(&values.here.reshape([-1]));
            log.scalar("value/explained_variance", explained_variance(&known, &returns));
            Ok(())
        })
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("policy", |state| self.policy.state(state))?;
        state.scope("value_function", |state| self.value.state(state))
    }
}
