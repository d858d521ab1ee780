//! The transitions (s, a, s′) of a rollout, where s′ is mostly the s of another one.
//!
//! No pair spans a reset: what follows the last step of an episode is its true final observation. Observations are
//! numbered, so that each is read once, however many transitions it is part of: `t · N + n` is what environment n
//! showed in row t, row T included; after those come the final observations of [`Ends`](imago::rollout::Ends).

use imago::memory::slice;
use imago::rollout::{Batch, Lead};
use imago::{Error, Result, Stream};
use tch::{Kind, Tensor};

/// Observations that are read at once: what lies between their layers stays in the processor's caches.
pub(crate) const TOGETHER: i64 = 256;

/// What follows what in a rollout `[T, N]`.
pub(crate) struct Transitions<'a> {
    batch: &'a Batch,
    /// T
    steps: usize,
    /// N
    envs: usize,
    /// Number of what followed each step, `[T · N]`.
    next: Vec<i64>,
    /// Which steps count, `[T · N]`.
    counts: Vec<bool>,
}

impl<'a> Transitions<'a> {
    /// The transitions of a rollout. Without `to_ends` those to the final observations of episodes do not count.
    ///
    /// # Errors
    /// A batch without time.
    pub fn of(batch: &'a Batch, to_ends: bool) -> Result<Self> {
        let Lead::Time { steps, envs } = batch.lead else {
            return Err(Error::Invalid(
                "what came next is known in rollouts, not in transitions from a replay: use learner.kind = \"ppo\", \
                 \"a2c\" or \"trpo\""
                    .into(),
            ));
        };
        let seen = (steps + 1) * envs;
        let mut next: Vec<i64> = (envs..seen).collect();
        let mut counts = slice::<bool>(&batch.valid).to_vec();
        if let Some(ends) = &batch.ends {
            for (number, &step) in (seen..).zip(slice::<i64>(&ends.index)) {
                next[step as usize] = number;
                counts[step as usize] &= to_ends;
            }
        }
        Ok(Self { batch, steps: steps as usize, envs: envs as usize, next, counts })
    }

    /// How many observations there are.
    pub fn observations(&self) -> usize {
        let ends = self.batch.ends.as_ref().map_or(0, |ends| ends.index.size()[0] as usize);
        (self.steps + 1) * self.envs + ends
    }

    /// Number of what followed a step.
    pub fn successor(&self, row: i64) -> i64 {
        self.next[row as usize]
    }

    /// Numbers of what followed these steps, int64 `[B]`.
    pub fn successors(&self, rows: &[i64]) -> Tensor {
        let next: Vec<i64> = rows.iter().map(|&row| self.next[row as usize]).collect();
        Tensor::from_slice(&next)
    }

    /// The steps that count, in the order of the rollout.
    pub fn rows(&self) -> Vec<i64> {
        (0i64..).zip(&self.counts).filter_map(|(row, counts)| counts.then_some(row)).collect()
    }

    /// The observations of these numbers, `[B, …]`. Numbers of final observations come last.
    pub fn observe(&self, numbers: &[i64]) -> Tensor {
        let seen = ((self.steps + 1) * self.envs) as i64;
        let within = numbers.partition_point(|&number| number < seen);
        let (within, beyond) = numbers.split_at(within);
        let mut parts = Vec::new();
        if !within.is_empty() || beyond.is_empty() {
            parts.push(self.batch.gather_observation(&Tensor::from_slice(within)));
        }
        if let Some(ends) = self.batch.ends.as_ref().filter(|_| !beyond.is_empty()) {
            let index: Vec<i64> = beyond.iter().map(|number| number - seen).collect();
            parts.push(ends.observation.index_select(0, &Tensor::from_slice(&index)));
        }
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0) }
    }

    /// `f` of every observation, some at a time; its rows `[…, F]` one below the other.
    pub fn of_each(&self, mut f: impl FnMut(&Tensor) -> Tensor) -> Tensor {
        let numbers: Vec<i64> = (0..self.observations() as i64).collect();
        let parts: Vec<Tensor> =
            numbers.chunks(TOGETHER as usize).map(|numbers| f(&self.observe(numbers))).collect();
        Tensor::cat(&parts, 0)
    }

    /// The newest of the `stack` frames in every observation, `[O, …]`, joined along the first dimension: without a copy
    /// where no episode ended.
    pub fn newest_frames(&self, stack: usize) -> Tensor {
        let batch = self.batch;
        let newest = |seen: Tensor| match stack {
            1 => seen,
            _ => {
                let size = seen.size()[1] / stack as i64;
                seen.narrow(1, (stack as i64 - 1) * size, size)
            }
        };
        let seen = match &batch.stacking {
            // Frame K − 1 of row t's stack is in row t + K − 1.
            Some(stacking) => {
                batch.observations.narrow(0, stacking.frames as i64 - 1, self.steps as i64 + 1).flatten(0, 1)
            }
            None => newest(batch.observations.flatten(0, 1)),
        };
        match batch.ends.as_ref().filter(|ends| ends.index.size()[0] > 0) {
            Some(ends) => Tensor::cat(&[seen, newest(ends.observation.shallow_clone())], 0),
            None => seen,
        }
    }

    /// Actions of these steps, `[B, …]`.
    pub fn actions(&self, rows: &Tensor) -> Tensor {
        self.batch.flat_action().index_select(0, rows)
    }

    /// One value a step, `[B]` for `rows`, in the shape of the rollout `[T, N]`; 0 for the steps that are not in
    /// `rows`.
    pub fn spread(&self, rows: &Tensor, values: &Tensor) -> Tensor {
        let all = Tensor::zeros([(self.steps * self.envs) as i64], (Kind::Float, values.device()));
        self.batch.in_lead(&all.index_copy(0, rows, values))
    }

    /// The steps that count in random order, but runs of up to `run` consecutive ones of one environment together: all
    /// but the last of a run share their s′ with the next one.
    pub fn shuffled(&self, run: usize, rng: &mut Stream) -> Vec<i64> {
        let run = run.clamp(1, self.steps);
        // Where runs begin changes, or some steps would never be neighbours.
        let offset = rng.below(run);
        let chunks = (self.steps + offset).div_ceil(run);
        let order = rng.permutation(chunks * self.envs);
        let steps = order.iter().flat_map(|&place| {
            let (chunk, env) = (place as usize / self.envs, place as usize % self.envs);
            let first = (chunk * run).saturating_sub(offset);
            let past = ((chunk + 1) * run).saturating_sub(offset).min(self.steps);
            (first..past).map(move |step| step * self.envs + env)
        });
        steps.filter(|&row| self.counts[row]).map(|row| row as i64).collect()
    }

    /// Some transitions, with each observation among them once.
    pub fn gather(&self, rows: &[i64]) -> Gathered {
        let mut numbers: Vec<i64> = rows.iter().flat_map(|&row| [row, self.next[row as usize]]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let place = |number: i64| numbers.binary_search(&number).unwrap_or_default() as i64;
        let from: Vec<i64> = rows.iter().map(|&row| place(row)).collect();
        let to: Vec<i64> = rows.iter().map(|&row| place(self.next[row as usize])).collect();
        let rows = Tensor::from_slice(rows);
        Gathered {
            observation: self.observe(&numbers),
            from: Tensor::from_slice(&from),
            to: Tensor::from_slice(&to),
            action: self.actions(&rows),
        }
    }
}

/// B transitions.
pub(crate) struct Gathered {
    /// Each observation once, `[U, …]`.
    pub observation: Tensor,
    /// Which of them is s, int64 `[B]`.
    pub from: Tensor,
    /// Which of them is s′, int64 `[B]`.
    pub to: Tensor,
    /// As the policy chose them, `[B, …]`.
    pub action: Tensor,
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::rollout::{Ends, Stacking};
    use tch::Device;

    /// A rollout of 3 steps of 2 environments. Environment 1 ends its first episode in step 1, where it shows `last`;
    /// what environment 0 did in step 2 is nobody's. `observations` are `[4, 2, …]`.
    pub(crate) fn rollout(observations: Tensor, action: Tensor, last: Tensor) -> Batch {
        let bools = |values: [bool; 6]| Tensor::from_slice(&values).view([3, 2]);
        Batch {
            lead: Lead::Time { steps: 3, envs: 2 },
            observations,
            stacking: None,
            elapsed: None,
            action,
            action_mask: None,
            log_prob: None,
            values: None,
            reward: Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)),
            terminated: bools([false, false, false, true, false, false]),
            truncated: bools([false; 6]),
            memory: None,
            absorbing: None,
            start: bools([true, true, false, false, false, true]),
            valid: bools([true, true, true, true, false, true]),
            ends: Some(Ends {
                index: Tensor::from_slice(&[3i64]),
                observation: last,
                value: Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)),
            }),
        }
    }

    /// One number an observation: 10 n + t, and −1 at the end.
    fn numbered() -> Batch {
        let seen = Tensor::from_slice(&[0f32, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0]).view([4, 2, 1]);
        let done = Tensor::from_slice(&[0i64, 1, 2, 3, 0, 1]).view([3, 2]);
        rollout(seen, done, Tensor::from_slice(&[-1f32]).view([1, 1]))
    }

    fn floats(x: &Tensor) -> Vec<f32> {
        slice::<f32>(&x.contiguous()).to_vec()
    }

    #[test]
    fn no_pair_spans_a_reset_and_the_last_one_has_the_true_final_observation() {
        let batch = numbered();
        let transitions = Transitions::of(&batch, true).unwrap();
        assert_eq!(transitions.observations(), 9);
        // Step 2 of environment 0 is invalid.
        let rows = transitions.rows();
        assert_eq!(rows, [0, 1, 2, 3, 5]);
        let all = transitions.of_each(Tensor::shallow_clone);
        let pick = |numbers: &Tensor| floats(&all.index_select(0, numbers));
        assert_eq!(pick(&Tensor::from_slice(&rows)), [0.0, 10.0, 1.0, 11.0, 12.0]);
        // From 11 to the end, not to the new episode's 12.
        assert_eq!(pick(&transitions.successors(&rows)), [1.0, 11.0, 2.0, -1.0, 13.0]);
        let spread =
            transitions.spread(&Tensor::from_slice(&rows), &Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(spread.size(), [3, 2]);
        assert_eq!(floats(&spread), [1.0, 2.0, 3.0, 4.0, 0.0, 5.0]);
        assert_eq!(Transitions::of(&batch, false).unwrap().rows(), [0, 1, 2, 5]);
    }

    #[test]
    fn a_minibatch_reads_each_observation_once() {
        let batch = numbered();
        let transitions = Transitions::of(&batch, true).unwrap();
        let gathered = transitions.gather(&[3, 1, 5]);
        // 10, 11, 12, 13 and the end: 11 is both s′ of the second and s of the first.
        assert_eq!(floats(&gathered.observation), [10.0, 11.0, 12.0, 13.0, -1.0]);
        let pick = |index: &Tensor| floats(&gathered.observation.index_select(0, index));
        assert_eq!(pick(&gathered.from), [11.0, 10.0, 12.0]);
        assert_eq!(pick(&gathered.to), [-1.0, 11.0, 13.0]);
        assert_eq!(slice::<i64>(&gathered.action), [3, 1, 1]);
    }

    #[test]
    fn every_step_that_counts_is_drawn_once_in_runs_of_its_environment() {
        let batch = numbered();
        let transitions = Transitions::of(&batch, true).unwrap();
        let mut neighbours = std::collections::BTreeSet::new();
        for seed in 0..40 {
            for run in [1, 2, 3, 99] {
                let order = transitions.shuffled(run, &mut Stream::new(seed, "order", 0, 0));
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2, 3, 5], "runs of {run}");
                if run == 2 {
                    neighbours.extend(order.windows(2).filter(|w| w[1] == w[0] + 2).map(|w| w[0]));
                }
            }
        }
        // Wherever a run begins, each pair of neighbours is together in some epoch.
        assert_eq!(Vec::from_iter(neighbours), [0, 1, 3]);
    }

    #[test]
    fn the_newest_frame_of_a_stack_is_a_view_of_it() {
        // Stacks of two frames, stored frame by frame: five rows of two environments.
        let mut batch = numbered();
        let frames = Tensor::from_slice(&(0..10).map(|x| x as f32).collect::<Vec<_>>()).view([5, 2, 1]);
        batch.observations = frames.shallow_clone();
        batch.stacking =
            Some(Stacking { frames: 2, earlier: Tensor::ones([4, 2], (Kind::Int64, Device::Cpu)) });
        let ends = batch.ends.as_mut().unwrap();
        ends.observation = Tensor::from_slice(&[7f32, -1.0]).view([1, 2]);
        let transitions = Transitions::of(&batch, true).unwrap();
        let newest = transitions.newest_frames(2);
        assert_eq!(floats(&newest), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, -1.0]);
        assert_eq!(floats(&newest), floats(&transitions.of_each(|seen| seen.narrow(1, 1, 1))));
        batch.ends = None;
        let newest = Transitions::of(&batch, true).unwrap().newest_frames(2);
        assert_eq!(newest.data_ptr() as usize, frames.get(1).data_ptr() as usize);
    }

    #[test]
    fn transitions_without_time_are_refused() {
        let mut batch = numbered();
        batch.lead = Lead::Flat(6);
        let message = Transitions::of(&batch, true).err().unwrap().to_string();
        assert!(message.contains("ppo"), "{message}");
    }
}
