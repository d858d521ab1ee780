//! The replay of off-policy learners: a ring of transitions, each scored when it is drawn and not before.
//!
//! With absorbing states (Kostrikov et al. 2019, section 4.2) a task's end is not the end: it leads to a state that
//! leads to itself for ever, whose reward is learnt like any other. A time limit's end is none.

use imago::memory::{kind_of, slice};
use imago::nn::Bounds;
use imago::rollout::{Batch, Lead, first_row_outside};
use imago::run::State;
use imago::{Error, Result, Stream};
use imago_envs::Space;
use tch::{Device, Kind, Tensor};

/// Transitions in the order in which they came, the oldest ones forgotten.
pub struct Replay {
    observation: Tensor,
    /// As executed: within its bounds.
    action: Tensor,
    reward: Tensor,
    /// What truly followed.
    next_observation: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    /// Rows that lead from the absorbing state to itself.
    absorbing: Tensor,
    /// Rows ever written; row `i` lies at `i` modulo the capacity.
    rows: u64,
    observation_space: Space,
    /// The action in the middle of its bounds, which is what is done in the absorbing state, `[1, A]`; `None` without
    /// absorbing states.
    idle: Option<Tensor>,
    low: Tensor,
    high: Tensor,
}

/// Transitions drawn from a replay, B of them.
pub struct Sample {
    /// As reward signals see them.
    pub batch: Batch,
    /// What followed, `[B, …]`.
    pub next_observation: Tensor,
}

impl Replay {
    /// An empty ring for `capacity` transitions between `observation`s by actions within `bounds`.
    pub fn new(capacity: usize, observation: &Space, bounds: &Bounds, absorbing: bool) -> Self {
        let capacity = capacity as i64;
        let column = |space: &Space| {
            let shape: Vec<i64> =
                std::iter::once(capacity).chain(space.shape().iter().map(|&d| d as i64)).collect();
            Tensor::zeros(&shape[..], (kind_of(space.dtype()), Device::Cpu))
        };
        let flags = || Tensor::zeros([capacity], (Kind::Bool, Device::Cpu));
        let width = bounds.width() as i64;
        let (centre, half) = bounds.tensors();
        Self {
            observation: column(observation),
            action: Tensor::zeros([capacity, width], (Kind::Float, Device::Cpu)),
            reward: Tensor::zeros([capacity], (Kind::Float, Device::Cpu)),
            next_observation: column(observation),
            terminated: flags(),
            truncated: flags(),
            absorbing: flags(),
            rows: 0,
            observation_space: observation.clone(),
            low: &centre - &half,
            high: &centre + &half,
            idle: absorbing.then(|| centre.view([1, -1])),
        }
    }

    /// Transitions that it can hold.
    pub fn capacity(&self) -> usize {
        self.reward.size()[0] as usize
    }

    /// Transitions that it holds.
    pub fn len(&self) -> usize {
        self.rows.min(self.capacity() as u64) as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether ends of the task lead to the absorbing state.
    pub fn has_absorbing_states(&self) -> bool {
        self.idle.is_some()
    }

    /// Takes in the valid transitions of a rollout, step by step and of all environments; with absorbing states, one
    /// more row for each end of the task.
    ///
    /// # Errors
    /// Transitions without time: what followed them is unknown.
    pub fn push(&mut self, rollout: &Batch) -> Result<()> {
        let (Lead::Time { steps, envs }, Some(ends)) = (rollout.lead, &rollout.ends) else {
            return Err(Error::Invalid("a replay takes rollouts, not single transitions".into()));
        };
        let valid = rollout.valid_index();
        let count = valid.size()[0];
        let next = rollout.gather_observation(&Tensor::arange_start(
            envs,
            (steps + 1) * envs,
            (Kind::Int64, Device::Cpu),
        ));
        let next = match ends.index.size()[0] {
            0 => next,
            _ => next.index_copy(0, &ends.index, &ends.observation),
        };
        let pick = |x: &Tensor| x.index_select(0, &valid);
        let action = pick(&rollout.flat_action()).reshape([count, -1]);
        let action = action.clamp_tensor(Some(&self.low), Some(&self.high));
        let flags = |x: &Tensor| pick(&x.flatten(0, 1));
        let terminated = flags(&rollout.terminated);
        self.append(
            &[
                rollout.gather_observation(&valid),
                action,
                flags(&rollout.reward),
                pick(&next),
                terminated.shallow_clone(),
                flags(&rollout.truncated),
                terminated.zeros_like(),
            ],
            count,
        );
        if let Some(idle) = &self.idle {
            let ends = slice::<bool>(&terminated).iter().filter(|ended| **ended).count() as i64;
            let of = |column: &Tensor| {
                let mut shape = column.size();
                shape[0] = ends;
                Tensor::zeros(&shape[..], (column.kind(), Device::Cpu))
            };
            let idle = idle.expand([ends, -1], false);
            let nowhere = || of(&self.observation);
            let never = || of(&self.terminated);
            let reward = of(&self.reward);
            let absorbing = never().logical_not();
            self.append(&[nowhere(), idle, reward, nowhere(), never(), never(), absorbing], ends);
        }
        Ok(())
    }

    /// Writes rows of every column, in the order of [`Replay::columns`].
    fn append(&mut self, rows: &[Tensor; 7], count: i64) {
        let capacity = self.capacity() as i64;
        // Of more rows than it holds only the last ones stay.
        let skip = (count - capacity).max(0);
        self.rows += skip as u64;
        let (mut done, mut place) = (skip, (self.rows % capacity as u64) as i64);
        while done < count {
            let length = (count - done).min(capacity - place);
            for ((_, column), rows) in self.columns().into_iter().zip(rows) {
                column.narrow(0, place, length).copy_(&rows.narrow(0, done, length));
            }
            (done, place) = (done + length, 0);
        }
        self.rows += (count - skip) as u64;
    }

    fn columns(&mut self) -> [(&'static str, &mut Tensor); 7] {
        [
            ("observation", &mut self.observation),
            ("action", &mut self.action),
            ("reward", &mut self.reward),
            ("next_observation", &mut self.next_observation),
            ("terminated", &mut self.terminated),
            ("truncated", &mut self.truncated),
            ("absorbing", &mut self.absorbing),
        ]
    }

    /// `count` transitions drawn uniformly, with replacement.
    ///
    /// # Panics
    /// If it is empty.
    pub fn sample(&self, count: usize, rng: &mut Stream) -> Sample {
        let index = rng.indices(self.len(), count);
        let pick = |column: &Tensor| column.index_select(0, &index);
        let flags = |value: bool| Tensor::full([count as i64], i64::from(value), (Kind::Bool, Device::Cpu));
        Sample {
            batch: Batch {
                lead: Lead::Flat(count as i64),
                observations: pick(&self.observation),
                stacking: None,
                elapsed: None,
                action: pick(&self.action),
                action_mask: None,
                log_prob: None,
                values: None,
                reward: pick(&self.reward),
                terminated: pick(&self.terminated),
                truncated: pick(&self.truncated),
                memory: None,
                absorbing: self.idle.is_some().then(|| pick(&self.absorbing)),
                start: flags(false),
                valid: flags(true),
                ends: None,
            },
            next_observation: pick(&self.next_observation),
        }
    }

    /// Saves the rows that no checkpoint has written yet, or restores all of them.
    ///
    /// # Errors
    /// Rows that are missing, damaged or outside the spaces.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        let mut rows = self.rows;
        state.ring("replay", &mut rows, &mut self.columns())?;
        self.rows = rows;
        if state.is_loading() && !self.is_empty() {
            for observations in [&self.observation, &self.next_observation] {
                let held = observations.narrow(0, 0, self.len() as i64);
                if let Some(row) = first_row_outside(&self.observation_space, &held) {
                    return Err(Error::Invalid(format!(
                        "row {row} of the saved replay lies outside {}",
                        self.observation_space
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::rollout::Ends;
    use std::collections::BTreeMap;

    /// Two steps of two environments in which the second one ends after the first step: by the task or not.
    pub(crate) fn rollout(terminated: bool) -> Batch {
        let floats = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).view(shape);
        let flags = |values: [bool; 4]| Tensor::from_slice(&values).view([2, 2]);
        Batch {
            lead: Lead::Time { steps: 2, envs: 2 },
            // Environment 0 sees 1, 2, 3; environment 1 sees 10, then 19 at its end, then 20, 21.
            observations: floats(&[1.0, 10.0, 2.0, 20.0, 3.0, 21.0], &[3, 2, 1]),
            stacking: None,
            elapsed: None,
            action: floats(&[0.1, 0.2, 9.0, -9.0], &[2, 2, 1]),
            action_mask: None,
            log_prob: None,
            values: None,
            reward: floats(&[1.0, 2.0, 3.0, 4.0], &[2, 2]),
            terminated: flags([false, terminated, false, false]),
            truncated: flags([false, !terminated, false, false]),
            memory: None,
            absorbing: None,
            start: flags([true, true, false, true]),
            valid: flags([true; 4]),
            ends: Some(Ends {
                index: Tensor::from_slice(&[1i64]),
                observation: floats(&[19.0], &[1, 1]),
                value: Tensor::zeros([1, 0], (Kind::Float, Device::Cpu)),
            }),
        }
    }

    pub(crate) fn replay(capacity: usize, absorbing: bool) -> Replay {
        let space = Space::floats(&[1], -100.0, 100.0);
        Replay::new(capacity, &space, &Bounds::of(&Space::floats(&[1], -1.0, 1.0)).unwrap(), absorbing)
    }

    fn column(tensor: &Tensor, rows: usize) -> Vec<f32> {
        Vec::try_from(tensor.narrow(0, 0, rows as i64).to_kind(Kind::Float).reshape(-1)).unwrap()
    }

    #[test]
    fn what_truly_followed_is_kept_and_actions_are_as_executed() {
        let mut replay = replay(10, false);
        replay.push(&rollout(true)).unwrap();
        assert_eq!(replay.len(), 4);
        assert_eq!(column(&replay.observation, 4), [1.0, 10.0, 2.0, 20.0]);
        assert_eq!(column(&replay.next_observation, 4), [2.0, 19.0, 3.0, 21.0]);
        assert_eq!(column(&replay.action, 4), [0.1, 0.2, 1.0, -1.0]);
        assert_eq!(column(&replay.reward, 4), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(column(&replay.terminated, 4), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(column(&replay.truncated, 4), [0.0; 4]);
        let sample = replay.sample(50, &mut Stream::new(0, "sample", 0, 0));
        // Rows stay together.
        let (seen, next) = (column(&sample.batch.observations, 50), column(&sample.next_observation, 50));
        let rewards = column(&sample.batch.reward, 50);
        for ((seen, next), reward) in seen.iter().zip(next).zip(rewards) {
            let row = reward as usize - 1;
            assert_eq!((*seen, next), ([1.0, 10.0, 2.0, 20.0][row], [2.0, 19.0, 3.0, 21.0][row]));
        }
        assert!(sample.batch.absorbing.is_none());
    }

    #[test]
    fn only_the_tasks_own_ends_are_absorbed() {
        let mut replay = replay(10, true);
        replay.push(&rollout(false)).unwrap();
        assert_eq!((replay.len(), column(&replay.truncated, 4)), (4, vec![0.0, 1.0, 0.0, 0.0]));
        replay.push(&rollout(true)).unwrap();
        assert_eq!(replay.len(), 9, "one row more for the end");
        let last = |tensor: &Tensor| column(tensor, 9)[8];
        assert_eq!((last(&replay.absorbing), last(&replay.terminated)), (1.0, 0.0));
        assert_eq!((last(&replay.observation), last(&replay.next_observation)), (0.0, 0.0));
        assert_eq!((last(&replay.action), last(&replay.reward)), (0.0, 0.0));
        assert_eq!(column(&replay.absorbing, 8), [0.0; 8]);
    }

    #[test]
    fn invalid_rows_are_left_out_and_old_ones_forgotten() {
        let mut replay = replay(5, false);
        let mut broken = rollout(false);
        broken.valid = Tensor::from_slice(&[true, false, true, false]).view([2, 2]);
        replay.push(&broken).unwrap();
        assert_eq!(column(&replay.observation, 2), [1.0, 2.0]);
        replay.push(&rollout(false)).unwrap();
        assert_eq!((replay.len(), replay.rows), (5, 6));
        assert_eq!(column(&replay.observation, 5), [20.0, 2.0, 1.0, 10.0, 2.0]);
        // More at once than it holds.
        let mut tiny = super::tests::replay(3, false);
        tiny.push(&rollout(false)).unwrap();
        assert_eq!(tiny.rows, 4);
        assert_eq!(column(&tiny.observation, 3), [20.0, 10.0, 2.0]);
    }

    #[test]
    fn a_replay_comes_back_as_it_was() {
        let mut replay = replay(5, true);
        replay.push(&rollout(true)).unwrap();
        replay.push(&rollout(false)).unwrap();
        let mut state = State::saving();
        replay.state(&mut state).unwrap();
        let (tensors, values) = state.finish().unwrap();
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        let mut again = super::tests::replay(5, true);
        again.state(&mut State::loading(tensors, values)).unwrap();
        assert_eq!(again.rows, replay.rows);
        for ((name, a), (_, b)) in replay.columns().into_iter().zip(again.columns()) {
            assert_eq!(a, b, "{name}");
        }
    }
}
