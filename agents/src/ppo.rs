//! Proximal policy optimisation (Schulman et al. 2017) with the details that published results rest on
//! (Huang et al. 2022, "The 37 implementation details").

use crate::fused::FusedPpo;
use crate::learner::Learner;
use crate::rows::{Rows, evaluate_sequences, plain};
use imago::nn::{ActorCritic, Adam, Evaluated};
use imago::rollout::Batch;
use imago::run::profile::{Phase, timed};
use imago::run::{Log, State};
use imago::signal::{Moment, Signals, When};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of [`Ppo`]. Defaults are Stable-Baselines3's for vector observations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Lower the learning rate linearly to 0 over the run.
    pub anneal_learning_rate: bool,
    /// Passes over each rollout.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Transitions in a gradient step; the last one of an epoch may be smaller. With policy.memory all that as many
    /// environments have done as fit in, one at least.
    #[schemars(range(min = 1))]
    pub minibatch_size: usize,
    /// γ of the signals that do not set their own.
    #[schemars(range(min = 0, max = 1))]
    pub discount: f64,
    /// λ of generalised advantage estimation.
    #[schemars(range(min = 0, max = 1))]
    pub gae_lambda: f64,
    /// ε: probability ratios count only within 1 ± ε.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: f64,
    /// Values move at most this far from the old ones in a rollout; off if absent.
    #[schemars(extend("exclusiveMinimum" = 0, "x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_clip: Option<f64>,
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
    /// Standardise advantages in each minibatch.
    pub normalise_advantage: bool,
    /// Stop the epochs early when the approximate KL divergence exceeds 1.5 × this; off if absent.
    #[schemars(extend("exclusiveMinimum" = 0, "x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_kl: Option<f64>,
    /// Adam's ε.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_epsilon: f64,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            learning_rate: 3e-4,
            anneal_learning_rate: false,
            epochs: 10,
            minibatch_size: 64,
            discount: 0.99,
            gae_lambda: 0.95,
            clip: 0.2,
            value_clip: None,
            entropy_coefficient: 0.0,
            value_coefficient: 0.5,
            max_gradient_norm: 0.5,
            total_reward_clip: None,
            normalise_advantage: true,
            target_kl: None,
            adam_epsilon: 1e-5,
        }
    }
}

/// −mean min(r Â, clip(r, 1 − ε, 1 + ε) Â), r = exp(log π − log π_old): equation 7. All `[B]`.
pub fn policy_loss(log_ratio: &Tensor, advantage: &Tensor, clip: f64) -> Tensor {
    let ratio = log_ratio.exp();
    let clipped = ratio.clamp(1.0 - clip, 1.0 + clip) * advantage;
    -(ratio * advantage).minimum(&clipped).mean(Kind::Float)
}

/// mean (V − R)², summed over value heads. `[B, H]` each. With `clip`, the larger of this and the error of
/// V_old + clamp(V − V_old, ±clip), as in PPO's original code.
pub fn value_loss(value: &Tensor, old: &Tensor, returns: &Tensor, clip: Option<f64>) -> Tensor {
    let error = (value - returns).square();
    let error = match clip {
        Some(clip) => {
            let clipped: Tensor = old + (value - old).clamp(-clip, clip) - returns;
            error.maximum(&clipped.square())
        }
        None => error,
    };
    error.mean_dim([0i64].as_slice(), false, Kind::Float).sum(Kind::Float)
}

/// mean (r − 1) − log r: the low-variance, always positive estimate of KL(old ‖ new) (Schulman 2020).
pub fn approximate_kl(log_ratio: &Tensor) -> f64 {
    (log_ratio.exp() - 1.0 - log_ratio).mean(Kind::Float).double_value(&[])
}

/// (Â − mean) / (deviation + 1e-8), `[B]`; unchanged if there is only one.
pub(crate) fn standardised(advantage: &Tensor) -> Tensor {
    match advantage.size()[0] {
        0 | 1 => advantage.shallow_clone(),
        _ => (advantage - advantage.mean(Kind::Float)) / (advantage.std(true) + 1e-8),
    }
}

/// Figures of one minibatch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// [`policy_loss`].
    pub policy: f64,
    /// [`value_loss`].
    pub value: f64,
    /// Mean entropy of the policy, in nats.
    pub entropy: f64,
    /// [`approximate_kl`] of the policy that acted and this one.
    pub approximate_kl: f64,
    /// Share of probability ratios beyond the clip, in `[0, 1]`.
    pub clip_fraction: f64,
}

/// The learner: a policy and how it improves.
pub struct Ppo {
    config: PpoConfig,
    /// The policy being trained.
    pub policy: ActorCritic,
    adam: Adam,
    /// Gradients without autograd, where the policy allows it.
    fused: Option<FusedPpo>,
}

impl Ppo {
    /// A learner of `policy`.
    pub fn new(config: PpoConfig, policy: ActorCritic) -> Self {
        let adam = Adam::new(&policy.parameters, config.adam_epsilon);
        let fused = FusedPpo::new(&policy);
        Self { config, policy, adam, fused }
    }

    /// The observations of the rows `index` as a gradient reads them.
    fn input(&self, rollout: &Batch, index: &Tensor) -> Tensor {
        let observation = rollout.gather_observation(index);
        if self.fused.is_some() { self.policy.input(&observation) } else { observation }
    }

    /// `epochs` passes of clipped gradient steps over the rows.
    fn improve(&mut self, rollout: &Batch, rows: &Rows, now: Moment, log: &mut Log) -> Result<()> {
        let mut rng = Stream::new(now.seed, "minibatches", 0, now.iteration);
        let anneal = if self.config.anneal_learning_rate { 1.0 - now.progress } else { 1.0 };
        let learning_rate = self.config.learning_rate * anneal;
        let valid = rows.valid(rollout);
        for _ in 0..self.config.epochs {
            let goes_on = match self.policy.memory() {
                0 => self.epoch(rollout, &valid, learning_rate, &mut rng, log)?,
                _ => self.epoch_of_sequences(rollout, rows, learning_rate, &mut rng, log)?,
            };
            if !goes_on {
                break;
            }
        }
        log.scalar("policy/learning_rate", learning_rate);
        if valid.len() > 0 {
            let first = |heads: &Tensor| heads.select(1, 0);
            log.scalar(
                "value/explained_variance",
                explained_variance(&first(&valid.value), &first(&valid.returns)),
            );
        }
        if !self.policy.parameters.is_finite() {
            return Err(self.policy.parameters.diverged("policy", valid.tensors(rollout)));
        }
        Ok(())
    }

    /// One pass over the rows, shuffled; whether there may be another one.
    fn epoch(
        &mut self,
        rollout: &Batch,
        rows: &Rows,
        learning_rate: f64,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Result<bool> {
        let count = rows.len();
        let size = (self.config.minibatch_size as i64).clamp(1, count.max(1));
        // Shuffled once an epoch, so that minibatches are views.
        let shuffled = rows.at(&Tensor::from_slice(&rng.permutation(count as usize)));
        // Statistics stand still during an update: what the networks read is computed once an epoch, except for
        // stacks of frames, which would be many times the rollout.
        let whole = rollout.stacking.is_none().then(|| self.input(rollout, &shuffled.index));
        for start in (0..count).step_by(size as usize) {
            let size = size.min(count - start);
            let gathered;
            let (input, first) = match &whole {
                Some(whole) => (whole, start),
                None => {
                    gathered = self.input(rollout, &shuffled.index.narrow(0, start, size));
                    (&gathered, 0)
                }
            };
            let minibatch = || shuffled.map(|x| x.narrow(0, start, size));
            let losses = match &mut self.fused {
                Some(fused) => {
                    let input = plain(input, first as usize, size as usize);
                    let minibatch = shuffled.plain(input, start as usize, size as usize);
                    fused.gradient(&mut self.policy, &minibatch, &self.config)
                }
                None => {
                    let (minibatch, observation) = (minibatch(), input.narrow(0, first, size));
                    let mask = minibatch.mask.as_ref();
                    let evaluated = self.policy.evaluate_masked(&observation, mask, &minibatch.action);
                    self.gradient(evaluated, &minibatch)?
                }
            };
            if !self.descend(&losses, learning_rate, log, || minibatch().tensors(rollout))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`Ppo::epoch`] for a policy with a memory: a minibatch is all that some of the environments have done, step by
    /// step from what the policy remembered before the rollout; of as many environments as come nearest to
    /// `minibatch_size` from below, but one at least.
    fn epoch_of_sequences(
        &mut self,
        rollout: &Batch,
        rows: &Rows,
        learning_rate: f64,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Result<bool> {
        let [steps, envs] = rollout.reward.size()[..] else { return Ok(true) };
        let size = (self.config.minibatch_size / steps as usize).clamp(1, envs as usize);
        for chosen in rng.permutation(envs as usize).chunks(size) {
            let chosen = Tensor::from_slice(chosen);
            let (evaluated, minibatch) = evaluate_sequences(&self.policy, rollout, rows, &chosen);
            if minibatch.len() == 0 {
                continue;
            }
            let losses = self.gradient(evaluated, &minibatch)?;
            if !self.descend(&losses, learning_rate, log, || minibatch.tensors(rollout))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One step along the gradient, unless the policy has moved too far already: whether it has not. `minibatch` is
    /// dumped if the gradient is not finite.
    fn descend(
        &mut self,
        losses: &Losses,
        learning_rate: f64,
        log: &mut Log,
        minibatch: impl Fn() -> Vec<(String, Tensor)>,
    ) -> Result<bool> {
        if self.config.target_kl.is_some_and(|target| losses.approximate_kl > 1.5 * target) {
            return Ok(false);
        }
        let norm = self.policy.parameters.clip_gradient(self.config.max_gradient_norm);
        if !norm.is_finite() {
            return Err(self.policy.parameters.diverged("policy", minibatch()));
        }
        self.adam.update(&mut self.policy.parameters, learning_rate);
        log.scalar("policy/loss", losses.policy);
        log.scalar("policy/entropy", losses.entropy);
        log.scalar("policy/approximate_kl", losses.approximate_kl);
        log.scalar("policy/clip_fraction", losses.clip_fraction);
        log.scalar("policy/gradient_norm", norm);
        log.scalar("value/loss", losses.value);
        Ok(true)
    }

    /// The loss's gradient in a minibatch, by autograd.
    fn gradient(&mut self, evaluated: Evaluated, minibatch: &Rows) -> Result<Losses> {
        let config = &self.config;
        let log_ratio = evaluated.log_prob - &minibatch.log_prob;
        let advantage = match config.normalise_advantage {
            true => standardised(&minibatch.advantage),
            false => minibatch.advantage.shallow_clone(),
        };
        let policy_loss = policy_loss(&log_ratio, &advantage, config.clip);
        let value_loss =
            value_loss(&evaluated.value, &minibatch.value, &minibatch.returns, config.value_clip);
        let entropy = evaluated.entropy.mean(Kind::Float);
        let loss =
            &policy_loss + &value_loss * config.value_coefficient - &entropy * config.entropy_coefficient;
        self.policy.parameters.backward(&loss)?;
        let log_ratio = log_ratio.detach();
        let clipped = (log_ratio.exp() - 1.0).abs().gt(config.clip);
        Ok(Losses {
            policy: policy_loss.double_value(&[]),
            value: value_loss.double_value(&[]),
            entropy: entropy.double_value(&[]),
            approximate_kl: approximate_kl(&log_ratio),
            clip_fraction: clipped.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]),
        })
    }
}

impl Learner for Ppo {
    fn policy(&self) -> &ActorCritic {
        &self.policy
    }

    fn learn(&mut self, rollout: Batch, signals: &mut Signals, now: Moment, log: &mut Log) -> Result<()> {
        let (clip, lambda) = (self.config.total_reward_clip, self.config.gae_lambda);
        let rows = Rows::scored(&self.policy.spec, &rollout, signals, (clip, lambda), now, log)?;
        timed(Phase::Update, || {
            self.improve(&rollout, &rows, now, log)?;
            if self.policy.normaliser.is_some() {
                // Not before: the stored log-probabilities were computed with the old statistics.
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

/// 1 − Var(R − V) / Var(R) of values and returns `[B]`: 1 is perfect, 0 no better than the mean.
pub(crate) fn explained_variance(value: &Tensor, returns: &Tensor) -> f64 {
    let variance = |x: &Tensor| x.var(false).double_value(&[]);
    match variance(returns) {
        0.0 => 0.0,
        total => 1.0 - variance(&(returns - value)) / total,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::memory::{leaf_of, slice, slice_mut};
    use imago::nn::{Activation, BoxHead, PolicySpec, TorsoKind, TorsoSpec};
    use imago_envs::{Dtype, Space};
    use proptest::prelude::*;
    use tch::Device;

    fn near(tensor: Tensor, wanted: f64) {
        assert!((tensor.double_value(&[]) - wanted).abs() < 1e-6, "{tensor:?} is not {wanted}");
    }

    #[test]
    fn clipped_objective_by_hand() {
        let log_ratio = Tensor::from_slice(&[1.5f32.ln(), 1.5f32.ln(), 0.5f32.ln(), 0.5f32.ln()]);
        let advantage = Tensor::from_slice(&[1.0f32, -1.0, 1.0, -1.0]);
        // min(1.5, 1.2), min(−1.5, −1.2), min(0.5, 0.8), min(−0.5, −0.8)
        near(policy_loss(&log_ratio, &advantage, 0.2), -(1.2 - 1.5 + 0.5 - 0.8) / 4.0);
    }

    #[test]
    fn value_loss_by_hand() {
        let column = |values: &[f32]| Tensor::from_slice(values).view([-1, 1]);
        let (value, old, returns) = (column(&[2.0, 0.0]), column(&[1.0, 1.0]), column(&[0.0, 3.0]));
        near(value_loss(&value, &old, &returns, None), (4.0 + 9.0) / 2.0);
        // Clipped to 1.1 and 0.9: max(4, 1.21) and max(9, 4.41).
        near(value_loss(&value, &old, &returns, Some(0.1)), 6.5);
        // The value moved towards the return, but too far: the clipped error is the larger one.
        near(value_loss(&column(&[0.1]), &column(&[1.0]), &column(&[0.0]), Some(0.1)), 0.81);
        // Two heads add up.
        let two = |x: &Tensor| Tensor::cat(&[x, x], 1);
        near(value_loss(&two(&value), &two(&old), &two(&returns), None), 13.0);
    }

    #[test]
    fn kl_of_equal_policies_is_zero_and_else_positive() {
        assert_eq!(approximate_kl(&Tensor::from_slice(&[0.0f32, 0.0])), 0.0);
        let r = [2f64, 0.5];
        let wanted = r.iter().map(|r| r - 1.0 - r.ln()).sum::<f64>() / 2.0;
        assert!((approximate_kl(&Tensor::from_slice(&[2f32.ln(), 0.5f32.ln()])) - wanted).abs() < 1e-6);
    }

    #[test]
    fn explained_variance_ends() {
        let returns = Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
        assert!((explained_variance(&returns, &returns) - 1.0).abs() < 1e-6);
        assert!(explained_variance(&returns.zeros_like(), &returns).abs() < 1e-6);
    }

    /// Observations, and rows as a rollout gives them, with probability ratios on both sides of the clip.
    fn rows(action: &Space, observation: &Space, count: i64, heads: i64, rng: &mut Stream) -> (Tensor, Rows) {
        let action = match action {
            Space::Discrete { n, .. } => rng.indices(*n as usize, count as usize),
            space => rng.normals(&[count, space.len() as i64]),
        };
        let shape: Vec<i64> =
            [count].into_iter().chain(observation.shape().iter().map(|&d| d as i64)).collect();
        let observation = match observation.dtype() {
            Dtype::U8 => (rng.uniforms(&shape) * 255.0).to_kind(Kind::Uint8),
            _ => rng.normals(&shape),
        };
        let rows = Rows {
            index: Tensor::arange(count, (Kind::Int64, Device::Cpu)),
            action,
            mask: None,
            log_prob: rng.normals(&[count]) * 0.5 - 1.0,
            advantage: rng.normals(&[count]),
            value: rng.normals(&[count, heads]),
            returns: rng.normals(&[count, heads]),
        };
        (observation, rows)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        #[test]
        fn the_fused_gradient_is_autograds(
            seed in 0u64..10_000,
            (features, count, heads) in (1usize..12, 2i64..80, 1usize..4),
            hidden in prop::collection::vec(1i64..70, 0..4),
            (actions, continuous, relu, normalise) in (1usize..6, any::<bool>(), any::<bool>(), any::<bool>()),
            value_clip in prop::option::of(0.05f64..1.0),
            (clip, entropy_coefficient, value_coefficient) in (0.05f64..0.5, 0.0f64..0.1, 0.1f64..1.0),
            (normalise_advantage, log_std) in (any::<bool>(), -1.0f64..0.5),
            (shared, image) in (any::<bool>(), prop::option::of((1usize..4, 16usize..30, any::<bool>()))),
        ) {
            let action = match continuous {
                true => Space::floats(&[actions], -1.0, 1.0),
                false => Space::discrete(actions as i64),
            };
            let observation = match image {
                None => Space::floats(&[features], -1.0, 1.0),
                Some((channels, side, last)) => {
                    let shape = if last { vec![side, side, channels] } else { vec![channels, side, side] };
                    Space::bytes(&shape)
                }
            };
            let (kind, activation) = match (image, relu) {
                (Some(_), _) => (TorsoKind::Icm, Activation::Elu),
                (None, true) => (TorsoKind::Mlp, Activation::Relu),
                (None, false) => (TorsoKind::Mlp, Activation::Tanh),
            };
            let spec = PolicySpec {
                observation: observation.clone(),
                action: action.clone(),
                torso: TorsoSpec { kind, activation, ..TorsoSpec::perceptron(&hidden) },
                shared: shared || image.is_some(),
                value_heads: heads,
                normalise,
                log_std,
                masked: false,
                box_head: BoxHead::Gaussian,
                memory: None,
            };
            let config = PpoConfig {
                clip, value_clip, entropy_coefficient, value_coefficient, normalise_advantage, ..Default::default()
            };
            let mut rng = Stream::new(seed, "fused", 0, 0);
            let mut ppo = Ppo::new(config, ActorCritic::new(spec, &mut rng).unwrap());
            // Not the small initial head: every path of the gradient should carry weight.
            slice_mut::<f32>(&mut ppo.policy.parameters.weights).iter_mut().for_each(|w| *w += 0.1 * rng.normal());
            let (observation, rows) = rows(&action, &observation, count, heads as i64, &mut rng);
            ppo.policy.update_normaliser(&(&observation * 2));
            // A shared torso without a layer of its own is left to autograd.
            prop_assume!(ppo.fused.is_some());

            let evaluated = ppo.policy.evaluate(&observation, &rows.action);
            let theirs = ppo.gradient(evaluated, &rows).unwrap();
            let wanted = slice::<f32>(&ppo.policy.parameters.gradient).to_vec();
            let read = ppo.policy.input(&observation);
            let mut fused = ppo.fused.take().unwrap();
            let minibatch = rows.plain(leaf_of(&read), 0, count as usize);
            let ours = fused.gradient(&mut ppo.policy, &minibatch, &ppo.config);
            let scale = wanted.iter().fold(1f32, |scale, g| scale.max(g.abs()));
            for (slot, (a, b)) in slice::<f32>(&ppo.policy.parameters.gradient).iter().zip(&wanted).enumerate() {
                prop_assert!((a - b).abs() < 1e-5 * scale, "{slot}: {a} is not {b} of at most {scale}");
            }
            let near = |a: f64, b: f64| (a - b).abs() < 1e-4 * b.abs().max(1.0);
            prop_assert!(near(ours.policy, theirs.policy), "{ours:?} is not {theirs:?}");
            prop_assert!(near(ours.value, theirs.value), "{ours:?} is not {theirs:?}");
            prop_assert!(near(ours.entropy, theirs.entropy), "{ours:?} is not {theirs:?}");
            prop_assert!(near(ours.approximate_kl, theirs.approximate_kl), "{ours:?} is not {theirs:?}");
            prop_assert!(near(ours.clip_fraction, theirs.clip_fraction), "{ours:?} is not {theirs:?}");
        }
    }
}
