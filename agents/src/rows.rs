//! A rollout as gradients read it: one row for each step, with its advantage.

use crate::fused::Minibatch;
use imago::memory::{leaf_of, slice};
use imago::nn::{ActorCritic, Evaluated, PolicySpec};
use imago::rollout::{AdvantageInput, Batch, Lead, generalised_advantage};
use imago::run::Log;
use imago::run::profile::{Phase, timed};
use imago::signal::{Moment, Signals, When};
use imago::{Error, Result};
use imago_envs::Leaf;
use tch::{Device, Kind, Tensor};

/// Rows of a rollout, `[B]`.
pub(crate) struct Rows {
    /// Where in the rollout they are, `t · N + n`: observations are read when they are needed.
    pub index: Tensor,
    /// `[B]` or `[B, A]`, as the policy chose it.
    pub action: Tensor,
    /// What was allowed, `[B, choices]`.
    pub mask: Option<Tensor>,
    /// log π of it when it was chosen, `[B]`.
    pub log_prob: Tensor,
    /// `[B]`, summed over value heads.
    pub advantage: Tensor,
    /// `[B, H]`
    pub value: Tensor,
    /// `[B, H]`
    pub returns: Tensor,
}

impl Rows {
    /// The rows of a rollout that `policy` describes, as the signals score it now; those that learn before they judge have
    /// done so. The sum of their rewards on a value head is kept within ± `clip`; `lambda` is that of the advantages.
    ///
    /// # Errors
    /// A NaN in the rollout; a signal's own.
    pub fn scored(
        policy: &PolicySpec,
        rollout: &Batch,
        signals: &mut Signals,
        (clip, lambda): (Option<f64>, f64),
        now: Moment,
        log: &mut Log,
    ) -> Result<Self> {
        rollout.check_finite(&policy.observation, &policy.action)?;
        let rewards = timed(Phase::Signals, || {
            signals.update(When::BeforeReward, rollout, now, log)?;
            signals.rewards(rollout, now.progress, log)
        })?;
        timed(Phase::Update, || Self::of(rollout, &clipped(rewards, clip), signals, lambda))
    }

    /// All T · N of a rollout, with the advantages and returns of every value head; those that are not valid, too. Of
    /// `rewards` there are as many as heads, `[T, N]`.
    ///
    /// # Errors
    /// A rollout without values or log-probabilities.
    fn of(rollout: &Batch, rewards: &[Tensor], signals: &Signals, lambda: f64) -> Result<Self> {
        let missing =
            || Error::Invalid("the learner needs rollouts with values and log-probabilities".into());
        let (values, log_prob) =
            (rollout.values.as_ref().ok_or_else(missing)?, rollout.log_prob.as_ref().ok_or_else(missing)?);
        let true_next = rollout.next_values().ok_or_else(missing)?;
        let (steps, envs) = (true_next.size()[0], true_next.size()[1]);
        let never = vec![false; (steps * envs) as usize];
        let (mut advantage, mut returns) = (Vec::new(), Vec::new());
        for (h, head) in signals.heads.iter().enumerate() {
            let column = |x: &Tensor| x.select(2, h as i64).contiguous();
            let value = column(&values.narrow(0, 0, steps));
            // Returns that do not end with the episode go on with the value of what the policy saw next.
            let next = if head.episodic { column(&true_next) } else { column(&values.narrow(0, 1, steps)) };
            let ends = |flags| if head.episodic { slice::<bool>(flags) } else { &never };
            let estimated = generalised_advantage(&AdvantageInput {
                envs: envs as usize,
                reward: slice(&rewards[h]),
                value: slice(&value),
                next_value: slice(&next),
                terminated: ends(&rollout.terminated),
                truncated: ends(&rollout.truncated),
                valid: slice(&rollout.valid),
                discount: head.discount as f32,
                lambda: lambda as f32,
            });
            let estimated = Tensor::from_slice(&estimated);
            returns.push(&estimated + value.view(-1));
            advantage.push(estimated);
        }
        Ok(Self {
            index: Tensor::arange(steps * envs, (Kind::Int64, Device::Cpu)),
            action: rollout.flat_action(),
            mask: rollout.flat_action_mask(),
            log_prob: log_prob.flatten(0, 1),
            advantage: Tensor::stack(&advantage, 1).sum_dim_intlist([1i64].as_slice(), false, Kind::Float),
            value: values.narrow(0, 0, steps).flatten(0, 1),
            returns: Tensor::stack(&returns, 1),
        })
    }

    /// How many.
    pub fn len(&self) -> i64 {
        self.advantage.size()[0]
    }

    /// What `f` makes of every column.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Self {
            index: f(&self.index),
            action: f(&self.action),
            mask: self.mask.as_ref().map(&f),
            log_prob: f(&self.log_prob),
            advantage: f(&self.advantage),
            value: f(&self.value),
            returns: f(&self.returns),
        }
    }

    /// Those at `index`, int64 `[B]`.
    pub fn at(&self, index: &Tensor) -> Self {
        self.map(|x| x.index_select(0, index))
    }

    /// The valid ones of all rows of `rollout`.
    pub fn valid(&self, rollout: &Batch) -> Self {
        let valid = rollout.valid_index();
        if valid.size()[0] < self.len() { self.at(&valid) } else { self.map(Tensor::shallow_clone) }
    }

    /// `count` rows from `start` in plain memory; `input` is what the fast path reads of their observations.
    pub fn plain<'a>(&'a self, input: Leaf<'a>, start: usize, count: usize) -> Minibatch<'a> {
        let floats = |x: &'a Tensor| plain(x, start, count).f32();
        Minibatch {
            input,
            action: plain(&self.action, start, count),
            log_prob: floats(&self.log_prob),
            advantage: floats(&self.advantage),
            value: floats(&self.value),
            returns: floats(&self.returns),
        }
    }

    /// Every column with its name, and the observations, to dump what went wrong.
    pub fn tensors(&self, rollout: &Batch) -> Vec<(String, Tensor)> {
        [
            ("observation", &rollout.gather_observation(&self.index)),
            ("action", &self.action),
            ("log_prob", &self.log_prob),
            ("advantage", &self.advantage),
            ("value", &self.value),
            ("return", &self.returns),
        ]
        .map(|(name, tensor)| (name.into(), tensor.detach().copy()))
        .into()
    }
}

/// Rewards of each value head within ± `clip`.
fn clipped(rewards: Vec<Tensor>, clip: Option<f64>) -> Vec<Tensor> {
    match clip {
        Some(clip) => rewards.iter().map(|reward| reward.clamp(-clip, clip)).collect(),
        None => rewards,
    }
}

/// `count` rows of `x` from `start` in plain memory.
pub(crate) fn plain(x: &Tensor, start: usize, count: usize) -> Leaf<'_> {
    let width = x.size()[1..].iter().product::<i64>() as usize;
    let range = start * width..(start + count) * width;
    match leaf_of(x) {
        Leaf::F32(values) => Leaf::F32(&values[range]),
        Leaf::U8(values) => Leaf::U8(&values[range]),
        Leaf::I64(values) => Leaf::I64(&values[range]),
    }
}

/// What the policy makes now of all that the environments `envs`, int64 `[m]`, of a rollout have done, step by step from
/// what it remembered before the first one; and those rows. Steps that belong to no episode are seen but left out.
pub(crate) fn evaluate_sequences(
    policy: &ActorCritic,
    rollout: &Batch,
    rows: &Rows,
    envs: &Tensor,
) -> (Evaluated, Rows) {
    let Lead::Time { steps, envs: all } = rollout.lead else {
        unreachable!("rows are made of rollouts");
    };
    let count = envs.size()[0];
    let step = Tensor::arange(steps, (Kind::Int64, Device::Cpu)).unsqueeze(1);
    let index = (step * all + envs.unsqueeze(0)).flatten(0, 1);
    let memory = match &rollout.memory {
        Some(memory) => memory.index_select(0, envs),
        None => policy.no_memory(count),
    };
    let (observation, start) = (rollout.gather_observation(&index), rollout.start.index_select(1, envs));
    let rows = rows.at(&index);
    let evaluated = policy.evaluate_sequence(&observation, rows.mask.as_ref(), &rows.action, &memory, &start);
    let valid = rollout.valid.index_select(1, envs).flatten(0, 1).nonzero().squeeze_dim(1);
    if valid.size()[0] == rows.len() {
        return (evaluated, rows);
    }
    let pick = |x: &Tensor| x.index_select(0, &valid);
    let Evaluated { log_prob, entropy, value } = &evaluated;
    let kept = Evaluated { log_prob: pick(log_prob), entropy: pick(entropy), value: pick(value) };
    (kept, rows.at(&valid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::Stream;
    use imago::nn::{BoxHead, CellKind, Choice, Decision, MemorySpec, TorsoSpec};
    use imago_envs::Space;

    #[test]
    fn the_sum_of_all_rewards_is_clipped_and_only_if_asked() {
        let sums = || vec![Tensor::from_slice(&[0.5f32, 1.5, -3.0])];
        assert_eq!(slice::<f32>(&clipped(sums(), Some(1.0))[0]), [0.5, 1.0, -1.0]);
        assert_eq!(slice::<f32>(&clipped(sums(), None)[0]), [0.5, 1.5, -3.0]);
    }

    /// What was decided step by step, with episodes that begin in the middle, is found again by whole sequences: the
    /// probabilities that workers have written down and those that the learner computes are the same.
    #[test]
    fn whole_sequences_are_what_was_decided_step_by_step() {
        for (kind, shared) in [(CellKind::Lstm, true), (CellKind::Lstm, false), (CellKind::Gru, false)] {
            let spec = PolicySpec {
                observation: Space::floats(&[3], -1.0, 1.0),
                action: Space::discrete(4),
                torso: TorsoSpec::perceptron(&[8]),
                shared,
                value_heads: 2,
                normalise: false,
                log_std: 0.0,
                masked: false,
                box_head: BoxHead::Gaussian,
                memory: Some(MemorySpec { kind, units: 5 }),
            };
            let mut rng = Stream::new(7, "sequences", 0, 0);
            let policy = ActorCritic::new(spec, &mut rng).unwrap();
            let cells = if shared { 1 } else { 2 };
            assert_eq!(policy.memory(), cells * if kind == CellKind::Lstm { 10 } else { 5 });
            let (steps, envs) = (6i64, 3i64);
            let observations = rng.normals(&[steps + 1, envs, 3]);
            let start = Tensor::zeros([steps, envs], (Kind::Bool, Device::Cpu));
            let _ = start.get(0).get(1).fill_(1);
            let _ = start.get(4).get(2).fill_(1);
            let valid = Tensor::ones([steps, envs], (Kind::Bool, Device::Cpu));
            let _ = valid.get(3).get(2).fill_(0);
            let first = rng.normals(&[envs, policy.memory()]);
            let (mut memory, mut decision) = (first.copy(), Decision::default());
            let (mut log_prob, mut value, mut action) = (Vec::new(), Vec::new(), Vec::new());
            for t in 0..steps {
                memory = &memory * start.get(t).logical_not().to_kind(Kind::Float).unsqueeze(1);
                let choice = Choice::Sample(std::slice::from_mut(&mut rng));
                policy.decide_masked(&observations.get(t), None, &mut memory, choice, &mut decision);
                log_prob.extend_from_slice(&decision.log_prob);
                value.extend_from_slice(&decision.value);
                action.extend_from_slice(decision.action.leaf().i64());
            }
            let flags = || Tensor::zeros([steps, envs], (Kind::Bool, Device::Cpu));
            let values = Tensor::from_slice(&value).view([steps, envs, 2]);
            let rollout = Batch {
                lead: Lead::Time { steps, envs },
                observations,
                stacking: None,
                action: Tensor::from_slice(&action).view([steps, envs]),
                action_mask: None,
                log_prob: Some(Tensor::from_slice(&log_prob).view([steps, envs])),
                values: Some(Tensor::cat(&[&values, &values.narrow(0, 0, 1)], 0)),
                memory: Some(first),
                reward: Tensor::zeros([steps, envs], (Kind::Float, Device::Cpu)),
                terminated: flags(),
                truncated: flags(),
                absorbing: None,
                start,
                elapsed: None,
                valid,
                ends: None,
            };
            let rows = Rows {
                index: Tensor::arange(steps * envs, (Kind::Int64, Device::Cpu)),
                action: rollout.flat_action(),
                mask: None,
                log_prob: rollout.log_prob.as_ref().unwrap().flatten(0, 1),
                advantage: Tensor::arange(steps * envs, (Kind::Float, Device::Cpu)),
                value: values.flatten(0, 1),
                returns: values.flatten(0, 1),
            };
            for chosen in [vec![0i64, 1, 2], vec![2, 0], vec![1]] {
                let (evaluated, rows) =
                    evaluate_sequences(&policy, &rollout, &rows, &Tensor::from_slice(&chosen));
                assert_eq!(rows.len(), steps * chosen.len() as i64 - i64::from(chosen.contains(&2)));
                assert!(!chosen.contains(&2) || !slice::<i64>(&rows.index).contains(&(3 * envs + 2)));
                for (ours, theirs) in [(&evaluated.log_prob, &rows.log_prob), (&evaluated.value, &rows.value)]
                {
                    let most = (ours - theirs).abs().max().double_value(&[]);
                    assert!(most < 1e-6, "{kind:?} {chosen:?}: {most}");
                }
            }
        }
    }
}
