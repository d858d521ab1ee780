//! Reward signals: what scores a batch and learns from it, and the stack of them that a run is trained on.

use crate::memory::{slice, slice_mut};
use crate::random::Stream;
use crate::rollout::{Batch, Lead};
use crate::run::{Log, State};
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// A source of reward: the environment's own, a discriminator, curiosity, a user's idea.
pub trait RewardSignal: Send {
    /// Rewards of every transition, float32 in the shape of the lead. No gradients, statistics frozen.
    fn reward(&mut self, batch: &Batch) -> Result<Tensor>;
    /// Learns from the latest rollout. Called once a rollout, at the moment that [`Stacked::update`] says. What
    /// it logs goes under its name in the stack.
    fn update(&mut self, _recent: &Batch, _rng: &mut Stream, _log: &mut Log) -> Result<()> {
        Ok(())
    }
    /// How many transitions from a replay it learns from at once ([`RewardSignal::update_on_sample`]); 0 if it learns
    /// from rollouts.
    fn sample_size(&self) -> usize {
        0
    }
    /// Learns from transitions of an off-policy learner's replay. Called once for each update that is due, before
    /// those of the policy.
    fn update_on_sample(&mut self, _sample: &Batch, _rng: &mut Stream, _log: &mut Log) -> Result<()> {
        Ok(())
    }
    /// Saves or restores everything that its updates change.
    fn state(&mut self, _state: &mut State) -> Result<()> {
        Ok(())
    }
    /// At the end of a run: what this signal makes of it, in words.
    fn verdict(&self, _evidence: &Evidence) -> Option<Verdict> {
        None
    }
}

/// What a finished run has shown, for verdicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Mean return of the last evaluation, deterministic.
    pub return_mean: Option<f64>,
    /// Episodes that ended during training, and how many of them by the task and not by a limit.
    pub episodes: u64,
    /// How many of those were ended by the task.
    pub terminated: u64,
}

/// A conclusion for people (sentences) and for programs (fields of `summary.json`).
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whole sentences.
    pub text: String,
    /// The same as data.
    pub fields: serde_json::Value,
}

/// The environment's own reward.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extrinsic;

impl RewardSignal for Extrinsic {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        Ok(batch.reward.shallow_clone())
    }
}

/// A value that moves linearly with the run's progress.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ScheduleForm", into = "ScheduleForm")]
pub struct Schedule {
    /// At the first step.
    pub from: f64,
    /// At the last.
    pub to: f64,
}

/// In recipes: a number, or `{ from = 1.0, to = 0.0 }`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ScheduleForm {
    Constant(f64),
    Linear { from: f64, to: f64 },
}

impl From<ScheduleForm> for Schedule {
    fn from(form: ScheduleForm) -> Self {
        match form {
            ScheduleForm::Constant(value) => Self::constant(value),
            ScheduleForm::Linear { from, to } => Self { from, to },
        }
    }
}

impl From<Schedule> for ScheduleForm {
    fn from(schedule: Schedule) -> Self {
        match schedule {
            Schedule { from, to } if from == to => ScheduleForm::Constant(from),
            Schedule { from, to } => ScheduleForm::Linear { from, to },
        }
    }
}

impl Schedule {
    /// The same value throughout.
    pub fn constant(value: f64) -> Self {
        Self { from: value, to: value }
    }

    /// The value at `progress`, in `[0, 1]`.
    pub fn at(&self, progress: f64) -> f64 {
        self.from + (self.to - self.from) * progress.clamp(0.0, 1.0)
    }
}

/// When a signal learns from a rollout: papers and codes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// First the signal, then the policy on the new rewards (GAIL's paper).
    BeforeReward,
    /// First the policy on the old rewards, then the signal (GAIL's code, and most curiosity modules).
    AfterPolicy,
}

/// How a signal's rewards are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardNorm {
    /// Not at all.
    None,
    /// Divided by the running standard deviation of the rewards.
    Rewards,
    /// Divided by the running standard deviation of the discounted sum R_t = γ R_{t−1} + r_t of each
    /// environment (Burda et al. 2018; with PPO's code since 2017). Forward in time; the mean stays.
    Returns,
    /// Less the mean of the rollout, then as `returns`, but by the deviation of late: of about the last 16,384 sums. For
    /// curiosity, whose rewards shrink as it learns, and whose returns do not end with the episode: a constant changes
    /// nothing there but is most of what the value head would have to learn (Naik et al. 2024, "Reward centering").
    Centred,
}

/// Sums that [`RewardNorm::Centred`] takes its deviation of.
const LATE: f64 = 16_384.0;

/// State of a [`RewardNorm`].
#[derive(Clone, Debug, Default)]
struct Scale {
    sums: Vec<f64>,
    mean: f64,
    squares: f64,
    count: f64,
}

impl Scale {
    /// What was observed counts for no more than `memory` of its kind.
    fn observe(&mut self, x: f64, memory: f64) {
        if self.count >= memory {
            self.squares *= (memory - 1.0) / self.count;
            self.count = memory - 1.0;
        }
        self.count += 1.0;
        let delta = x - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (x - self.mean);
    }

    fn deviation(&self) -> f64 {
        if self.count < 2.0 { 1.0 } else { (self.squares / self.count + 1e-8).sqrt() }
    }

    /// Takes a rollout `[T, N]` in, row by row in time.
    fn update(&mut self, norm: RewardNorm, rewards: &Tensor, batch: &Batch, head: &ValueHead) {
        let Lead::Time { envs, .. } = batch.lead else { return };
        self.sums.resize(envs as usize, 0.0);
        let rewards = rewards.contiguous();
        let starts = slice::<bool>(&batch.start);
        let valid = slice::<bool>(&batch.valid);
        for (i, &reward) in slice::<f32>(&rewards).iter().enumerate().filter(|&(i, _)| valid[i]) {
            let x = match norm {
                RewardNorm::None => return,
                RewardNorm::Rewards => f64::from(reward),
                RewardNorm::Returns | RewardNorm::Centred => {
                    let sum = &mut self.sums[i % envs as usize];
                    let kept = if starts[i] && head.episodic { 0.0 } else { *sum * head.discount };
                    *sum = kept + f64::from(reward);
                    *sum
                }
            };
            self.observe(x, if norm == RewardNorm::Centred { LATE } else { f64::INFINITY });
        }
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("sums", &mut self.sums)?;
        state.value("mean", &mut self.mean)?;
        state.value("squares", &mut self.squares)?;
        state.value("count", &mut self.count)
    }
}

/// Each environment's sum of rewards since its episode began.
#[derive(Clone, Debug, Default)]
struct EpisodeReturns(Vec<f64>);

impl EpisodeReturns {
    /// Follows a rollout `[T, N]`; the returns of the episodes that ended in it.
    fn follow(&mut self, rewards: &Tensor, batch: &Batch) -> Vec<f64> {
        let Lead::Time { envs, .. } = batch.lead else { return Vec::new() };
        self.0.resize(envs as usize, 0.0);
        let [starts, valid, terminated, truncated] =
            [&batch.start, &batch.valid, &batch.terminated, &batch.truncated].map(slice::<bool>);
        let mut finished = Vec::new();
        for (i, &reward) in slice::<f32>(rewards).iter().enumerate().filter(|&(i, _)| valid[i]) {
            let sum = &mut self.0[i % envs as usize];
            *sum = if starts[i] { 0.0 } else { *sum } + f64::from(reward);
            if terminated[i] || truncated[i] {
                finished.push(*sum);
            }
        }
        finished
    }
}

/// One signal of a stack.
pub struct Stacked {
    /// The user's name for it; its log tags start with it.
    pub name: String,
    /// The signal.
    pub signal: Box<dyn RewardSignal>,
    /// Factor of its (normalised) rewards.
    pub weight: Schedule,
    /// How its rewards are scaled.
    pub normalise: RewardNorm,
    /// Only the sign of its rewards counts, before anything else: −1, 0 or 1 (Mnih et al. 2015).
    pub sign: bool,
    /// After scaling, rewards are clipped to ± this.
    pub clip: Option<f64>,
    /// Which value estimate its rewards belong to.
    pub value_head: usize,
    /// When it learns.
    pub update: When,
    scale: Scale,
    returns: EpisodeReturns,
}

impl Stacked {
    /// A signal with weight 1 on the first value head, unscaled.
    pub fn new(name: &str, signal: Box<dyn RewardSignal>, update: When) -> Self {
        Self {
            name: name.into(),
            signal,
            weight: Schedule::constant(1.0),
            normalise: RewardNorm::None,
            sign: false,
            clip: None,
            value_head: 0,
            update,
            scale: Scale::default(),
            returns: EpisodeReturns::default(),
        }
    }

    /// Its rewards in the shape of the lead, finite, or their signs; neither scaled nor weighted.
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let reward = tch::no_grad(|| self.signal.reward(batch))?.contiguous();
        let shape = batch.reward.size();
        if reward.kind() != Kind::Float || reward.size() != shape {
            return Err(Error::Invalid(format!(
                "signal `{}` gave rewards of kind {:?} and shape {:?}; this batch needs Float of {shape:?}",
                self.name,
                reward.kind(),
                reward.size()
            )));
        }
        if !slice::<f32>(&reward).iter().all(|r| r.is_finite()) {
            let mut tensors = batch.tensors();
            tensors.push((format!("{}/reward", self.name), reward));
            return Err(Error::non_finite(format!("the reward of signal `{}`", self.name), tensors));
        }
        Ok(if self.sign { reward.sign() } else { reward })
    }

    /// Adds `reward`, scaled, clipped and weighted, to `sum`.
    fn add(&self, reward: &Tensor, scale: f64, progress: f64, sum: &mut Tensor) {
        let (weight, scale) = (self.weight.at(progress) as f32, scale as f32);
        let clip = self.clip.map_or(f32::INFINITY, |clip| clip as f32);
        let pairs = slice_mut::<f32>(sum).iter_mut().zip(slice::<f32>(reward));
        pairs.for_each(|(sum, &r)| *sum += weight * (r * scale).clamp(-clip, clip));
    }
}

/// What the rewards of one value head have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueHead {
    /// γ of its returns.
    pub discount: f64,
    /// Its returns end with the episode; otherwise they go on into the next one (Burda et al. 2018).
    pub episodic: bool,
}

/// Where a run is, for everything that is derived from it: random streams and schedules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The run's seed.
    pub seed: u64,
    /// Rollouts before this one.
    pub iteration: u64,
    /// Share of the run's steps before this rollout, in `[0, 1]`.
    pub progress: f64,
}

/// All signals of a run. Signals with different discounts have value heads of their own; their advantages are
/// added, not their rewards.
pub struct Signals {
    /// The signals, in the order of the recipe.
    pub stack: Vec<Stacked>,
    /// The value heads, H.
    pub heads: Vec<ValueHead>,
}

impl Signals {
    /// Lets the signals whose moment is `when` learn from `batch`, each with a stream of its own: what one draws
    /// changes nothing for the others.
    pub fn update(&mut self, when: When, batch: &Batch, now: Moment, log: &mut Log) -> Result<()> {
        for (i, stacked) in self.stack.iter_mut().enumerate().filter(|(_, stacked)| stacked.update == when) {
            let mut rng = Stream::new(now.seed, "signal", i as u64, now.iteration);
            log.scope(&stacked.name, |log| stacked.signal.update(batch, &mut rng, log))
                .map_err(|error| error.of_signal(&stacked.name))?;
        }
        Ok(())
    }

    /// Lets the signals that learn from a replay do so, `times` each, on what `draw` gives them. `before` counts such
    /// updates before these.
    pub fn update_on_samples(
        &mut self,
        (before, times): (u64, u64),
        draw: &dyn Fn(usize, &mut Stream) -> Batch,
        now: Moment,
        log: &mut Log,
    ) -> Result<()> {
        for (i, stacked) in self.stack.iter_mut().enumerate() {
            let size = stacked.signal.sample_size();
            for update in (before..before + times).filter(|_| size > 0) {
                let mut rng = Stream::new(now.seed, "signal sample", i as u64, update);
                let sample = draw(size, &mut rng);
                log.scope(&stacked.name, |log| stacked.signal.update_on_sample(&sample, &mut rng, log))
                    .map_err(|error| error.of_signal(&stacked.name))?;
            }
        }
        Ok(())
    }

    /// Rewards of transitions without time, `[B]`: weighted and summed, as the signals think of them now. Their
    /// normalisers need time and take no part.
    ///
    /// # Errors
    /// A signal's own; a NaN names the signal.
    pub fn score(&mut self, sample: &Batch, progress: f64) -> Result<Tensor> {
        let mut sum = Tensor::zeros([sample.len()], (Kind::Float, Device::Cpu));
        for stacked in &mut self.stack {
            let reward = stacked.reward(sample)?;
            stacked.add(&reward, 1.0, progress, &mut sum);
        }
        Ok(sum)
    }

    /// Rewards of a rollout, `[T, N]` for each value head: weighted, normalised, summed. `progress` in
    /// `[0, 1]`.
    ///
    /// # Errors
    /// A signal's own; a NaN names the signal.
    pub fn rewards(&mut self, batch: &Batch, progress: f64, log: &mut Log) -> Result<Vec<Tensor>> {
        self.rewards_of(batch, progress, Some(log))
    }

    /// As [`Signals::rewards`], of a rollout that has been scored before: the signals may think otherwise now.
    /// Statistics stand still, nothing is logged.
    ///
    /// # Errors
    /// As for [`Signals::rewards`].
    pub fn rewards_again(&mut self, batch: &Batch, progress: f64) -> Result<Vec<Tensor>> {
        self.rewards_of(batch, progress, None)
    }

    /// With a log the rewards are new: statistics take them in.
    fn rewards_of(&mut self, batch: &Batch, progress: f64, mut log: Option<&mut Log>) -> Result<Vec<Tensor>> {
        let Lead::Time { steps, envs } = batch.lead else {
            return Err(Error::Invalid("a stack of signals scores rollouts, not single transitions".into()));
        };
        let zeros = || Tensor::zeros([steps, envs], (Kind::Float, Device::Cpu));
        let mut heads: Vec<Tensor> = self.heads.iter().map(|_| zeros()).collect();
        for stacked in &mut self.stack {
            let reward = stacked.reward(batch)?;
            let mean = reward.masked_select(&batch.valid).mean(Kind::Float).double_value(&[]);
            let returns = log.as_ref().map(|_| stacked.returns.follow(&reward, batch));
            // Of no valid row there is no mean.
            let centred = stacked.normalise == RewardNorm::Centred && mean.is_finite();
            // Not in place: it may be the batch's own.
            let reward = if centred { reward - mean } else { reward };
            if let Some(log) = &mut log {
                if mean.is_finite() {
                    log.scalar(&format!("{}/reward_mean", stacked.name), mean);
                }
                for sum in returns.into_iter().flatten() {
                    log.scalar(&format!("{}/return", stacked.name), sum);
                }
                stacked.scale.update(stacked.normalise, &reward, batch, &self.heads[stacked.value_head]);
                if stacked.normalise != RewardNorm::None {
                    log.scalar(&format!("{}/reward_deviation", stacked.name), stacked.scale.deviation());
                }
            }
            let scale = match stacked.normalise {
                RewardNorm::None => 1.0,
                _ => 1.0 / stacked.scale.deviation(),
            };
            stacked.add(&reward, scale, progress, &mut heads[stacked.value_head]);
        }
        Ok(heads)
    }

    /// Saves or restores every signal under its name.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        self.stack.iter_mut().try_for_each(|stacked| {
            let (signal, scale, returns) = (&mut stacked.signal, &mut stacked.scale, &mut stacked.returns);
            state.scope(&stacked.name, |state| {
                state.scope("scale", |state| scale.state(state))?;
                state.value("returns", &mut returns.0)?;
                state.scope("signal", |state| signal.state(state))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two environments, three steps; environment 1 begins an episode at its last step.
    fn batch(reward: &[f32]) -> Batch {
        let bools = |values: &[bool]| Tensor::from_slice(values).view([3, 2]);
        Batch {
            lead: Lead::Time { steps: 3, envs: 2 },
            observations: Tensor::zeros([4, 2, 1], (Kind::Float, Device::Cpu)),
            stacking: None,
            elapsed: None,
            action: Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu)),
            action_mask: None,
            log_prob: None,
            values: None,
            reward: Tensor::from_slice(reward).view([3, 2]),
            terminated: bools(&[false, false, false, true, false, false]),
            truncated: bools(&[false; 6]),
            memory: None,
            absorbing: None,
            start: bools(&[true, true, false, false, false, true]),
            valid: bools(&[true; 6]),
            ends: None,
        }
    }

    #[test]
    fn returns_are_summed_forward_within_episodes_and_along_time() {
        let batch = batch(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let mut scale = Scale::default();
        let head = ValueHead { discount: 0.5, episodic: true };
        scale.update(RewardNorm::Returns, &batch.reward, &batch, &head);
        // Environment 0: 1, 2.5, 4.25. Environment 1: 10, 25, then a new episode: 30.
        assert_eq!(scale.sums, [4.25, 30.0]);
        let sums = [1.0, 10.0, 2.5, 25.0, 4.25, 30.0];
        let mean = sums.iter().sum::<f64>() / 6.0;
        let variance = sums.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 6.0;
        assert!((scale.mean - mean).abs() < 1e-12);
        assert!((scale.deviation() - variance.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn returns_that_do_not_end_go_on_into_the_next_episode() {
        let batch = batch(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let mut scale = Scale::default();
        let head = ValueHead { discount: 0.5, episodic: false };
        scale.update(RewardNorm::Returns, &batch.reward, &batch, &head);
        // Environment 1, into a new episode: 10, 25, 42.5.
        assert_eq!(scale.sums, [4.25, 42.5]);
        // The next rollout goes on from there: 0.5 · 4.25 + 1 and so on; what lies ahead has no part in it.
        scale.update(
            RewardNorm::Returns,
            &batch.reward,
            &batch,
            &ValueHead { discount: 0.5, episodic: true },
        );
        // Environment 0 begins an episode in row 0: as before. Environment 1 begins one in its last row.
        assert_eq!(scale.sums, [4.25, 30.0]);
    }

    #[test]
    fn rewards_are_divided_by_their_deviation_and_keep_their_mean() {
        let mut scaled = Stacked::new("scaled", Box::new(Extrinsic), When::AfterPolicy);
        scaled.normalise = RewardNorm::Rewards;
        let mut signals =
            Signals { stack: vec![scaled], heads: vec![ValueHead { discount: 0.9, episodic: true }] };
        let mut batch = batch(&[1.0, 2.0, 3.0, 1.0, 2.0, 999.0]);
        // The last one is nobody's.
        batch.valid = Tensor::from_slice(&[true, true, true, true, true, false]).view([3, 2]);
        let rewards = signals.rewards(&batch, 0.0, &mut Log::in_memory()).unwrap();
        // 1, 2, 3, 1, 2: mean 1.8, variance 0.56.
        for (found, raw) in slice::<f32>(&rewards[0]).iter().zip([1.0, 2.0, 3.0, 1.0, 2.0]) {
            assert!((f64::from(*found) - raw / 0.56f64.sqrt()).abs() < 1e-5, "{found}");
        }
    }

    /// Rewards 1, 2, 3, 1, 2 less their mean 1.8, over the deviation of the sums that go on over the episode's end; the batch
    /// and what is logged stay as they are.
    #[test]
    fn centred_rewards_lose_the_mean_of_their_rollout() {
        let mut centred = Stacked::new("centred", Box::new(Extrinsic), When::AfterPolicy);
        centred.normalise = RewardNorm::Centred;
        let head = ValueHead { discount: 0.5, episodic: false };
        let mut signals = Signals { stack: vec![centred], heads: vec![head] };
        let mut batch = batch(&[1.0, 2.0, 3.0, 1.0, 2.0, 999.0]);
        batch.valid = Tensor::from_slice(&[true, true, true, true, true, false]).view([3, 2]);
        let mut log = Log::in_memory();
        let rewards = signals.rewards(&batch, 0.0, &mut log).unwrap();
        // Environment 0: −0.8, 1.2 − 0.4 = 0.8, 0.2 + 0.4 = 0.6; environment 1: 0.2, −0.8 + 0.1 = −0.7.
        let sums = [-0.8, 0.2, 0.8, -0.7, 0.6];
        let mean = sums.iter().sum::<f64>() / 5.0;
        let deviation = (sums.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 5.0).sqrt();
        for (found, raw) in slice::<f32>(&rewards[0]).iter().zip([1.0, 2.0, 3.0, 1.0, 2.0]) {
            assert!((f64::from(*found) - (raw - 1.8) / deviation).abs() < 1e-5, "{found}");
        }
        assert_eq!(slice::<f32>(&batch.reward), [1.0, 2.0, 3.0, 1.0, 2.0, 999.0]);
        assert!((log.current("centred/reward_mean").unwrap() - 1.8).abs() < 1e-6);
    }

    /// As many later sums as are remembered leave a share of e⁻¹ of the earlier variance.
    #[test]
    fn the_deviation_of_late_forgets() {
        let mut scale = Scale::default();
        (0..2 * LATE as usize).for_each(|i| scale.observe(if i % 2 == 0 { 1000.0 } else { -1000.0 }, LATE));
        assert!((scale.deviation() - 1000.0).abs() < 1.0 && scale.count <= LATE);
        (0..LATE as usize).for_each(|i| scale.observe(if i % 2 == 0 { 1.0 } else { -1.0 }, LATE));
        // A share of e⁻¹ of the old variance is left.
        assert!((scale.deviation() - 1000.0 * (-0.5f64).exp()).abs() < 5.0, "{}", scale.deviation());
    }

    /// The return of each signal in each episode, apart from the others', whatever the rollouts' bounds.
    #[test]
    fn episodes_returns_are_logged_under_the_signals_names() {
        let mut stack = vec![
            Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy),
            Stacked::new("other", Box::new(Extrinsic), When::AfterPolicy),
        ];
        stack[1].sign = true;
        let mut signals = Signals { stack, heads: vec![ValueHead { discount: 0.9, episodic: true }] };
        let mut first = batch(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let mut log = Log::in_memory();
        signals.rewards(&first, 0.0, &mut log).unwrap();
        // Environment 1 has ended an episode in its second row.
        assert_eq!((log.current("task/return"), log.current("other/return")), (Some(30.0), Some(2.0)));
        // Now environment 0 goes on from its 6 and ends with 7; environment 1 has a row that counts nowhere, and ends.
        let bools = |values: &[bool]| Tensor::from_slice(values).view([3, 2]);
        first.start = bools(&[false; 6]);
        first.valid = bools(&[true, true, true, false, true, true]);
        first.terminated = bools(&[false; 6]);
        first.truncated = bools(&[true, false, false, false, false, true]);
        let mut log = Log::in_memory();
        signals.rewards(&first, 0.0, &mut log).unwrap();
        // 6 + 1, and 30 + 10 + 30.
        assert_eq!(log.current("task/return"), Some((7.0 + 70.0) / 2.0));
    }

    #[test]
    fn signals_of_one_head_add_up_and_heads_stay_apart() {
        struct Half;
        impl RewardSignal for Half {
            fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
                Ok(&batch.reward * 0.5)
            }
        }
        let mut doubled = Stacked::new("doubled", Box::new(Extrinsic), When::AfterPolicy);
        doubled.weight = Schedule { from: 3.0, to: 1.0 };
        let mut other = Stacked::new("other", Box::new(Half), When::AfterPolicy);
        other.value_head = 1;
        let stack = vec![Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy), doubled, other];
        let head = ValueHead { discount: 0.9, episodic: true };
        let mut signals = Signals { stack, heads: vec![head, ValueHead { discount: 0.5, ..head }] };
        let batch = batch(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let rewards = signals.rewards(&batch, 0.5, &mut Log::in_memory()).unwrap();
        assert_eq!(rewards[0], &batch.reward * 3.0);
        assert_eq!(rewards[1], &batch.reward * 0.5);
    }

    #[test]
    fn only_the_sign_counts_where_it_is_asked_for() {
        let mut signed = Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy);
        (signed.sign, signed.weight) = (true, Schedule::constant(2.0));
        let mut signals =
            Signals { stack: vec![signed], heads: vec![ValueHead { discount: 0.9, episodic: true }] };
        let batch = batch(&[-3.0, 0.0, 0.5, 200.0, -0.1, 1.0]);
        let rewards = signals.rewards(&batch, 0.0, &mut Log::in_memory()).unwrap();
        assert_eq!(slice::<f32>(&rewards[0]), [-2.0, 0.0, 2.0, 2.0, -2.0, 2.0]);
    }

    #[test]
    fn samples_are_scored_by_weight_sign_and_clip() {
        let mut signed = Stacked::new("signed", Box::new(Extrinsic), When::AfterPolicy);
        (signed.sign, signed.weight) = (true, Schedule { from: 0.0, to: 20.0 });
        let mut clipped = Stacked::new("clipped", Box::new(Extrinsic), When::AfterPolicy);
        clipped.clip = Some(2.0);
        let mut signals = Signals {
            stack: vec![signed, clipped],
            heads: vec![ValueHead { discount: 0.9, episodic: true }],
        };
        let mut sample = batch(&[-3.0, 0.0, 0.5, 200.0, -0.1, 1.0]);
        (sample.lead, sample.reward) = (Lead::Flat(6), sample.reward.view(-1));
        let rewards = signals.score(&sample, 0.5).unwrap();
        assert_eq!(slice::<f32>(&rewards), [-12.0, 0.0, 10.5, 12.0, -10.1, 11.0]);
    }

    #[test]
    fn a_nan_names_the_signal() {
        let stack = vec![Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy)];
        let mut signals = Signals { stack, heads: vec![ValueHead { discount: 0.9, episodic: true }] };
        let error = signals.rewards(&batch(&[f32::NAN; 6]), 0.0, &mut Log::in_memory()).unwrap_err();
        assert!(error.to_string().contains("`task`"), "{error}");
    }
}
