//! A fixed group of environments with everything that belongs to it, and one rollout of it.

use super::episode::{clip_to_space, fill_randomly, is_clipped};
use super::frames::Frames;
use super::shared::{Leaves, Memory};
use super::watchdog::{IDLE, Pulse, Watch};
use crate::memory::{Column, slice, slice_mut};
use crate::nn::{ActorCritic, Choice, Decision, PolicySpec};
use crate::random::Stream;
use crate::run::profile::{Phase, timed};
use crate::{Error, Result};
use imago_envs::{Fault, Finals, LeafBuf, Row, VecEnv};
use memmap2::MmapRaw;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tch::{Device, Kind, Tensor};

/// An episode that ended during a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Sum of the environment's rewards, undiscounted.
    pub episode_return: f64,
    /// Steps.
    pub length: u64,
    /// Ended by the task and not by a limit.
    pub terminated: bool,
    /// The environment's own numbers of it that were asked for (`EnvSpec::metrics`), where it gave them.
    pub metrics: Vec<Option<f64>>,
}

/// An environment that failed and was begun anew. What its broken episode has in the rollout is not valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Which one of all.
    pub env: usize,
    /// Seed of the episode.
    pub seed: u64,
    /// Steps of the episode before it failed.
    pub step: u64,
    /// What it said.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { env, seed, step, message } = self;
        write!(f, "environment {env} (episode of seed {seed}, after {step} steps): {message}")
    }
}

/// Where a group stands among all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Which group.
    pub index: usize,
    /// Index of its first environment.
    pub first: usize,
    /// Number of its environments, n.
    pub envs: usize,
}

/// What of a rollout is no column.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Events {
    /// Episodes that ended.
    pub finished: Vec<Finished>,
    /// `t` and environment of each end.
    pub final_at: Vec<(usize, usize)>,
    /// Environments that failed.
    pub failures: Vec<Failure>,
}

impl Events {
    fn clear(&mut self) {
        self.finished.clear();
        self.final_at.clear();
        self.failures.clear();
    }
}

/// One rollout of a group, `[T, n, …]`; observations, masks and values have a row more.
pub(crate) struct Rollout {
    pub place: Place,
    pub observation: Frames,
    pub action: Leaves,
    /// What the environments allow, `[T + 1, n, choices]`; meaningless if they do not say.
    pub action_mask: Column<bool>,
    pub log_prob: Column<f32>,
    pub value: Column<f32>,
    pub reward: Column<f32>,
    pub terminated: Column<bool>,
    pub truncated: Column<bool>,
    pub start: Column<bool>,
    /// Steps of each episode before row `t`, `[T + 1, n]`.
    pub elapsed: Column<i64>,
    pub valid: Column<bool>,
    /// What the policy remembers before row 0 and after the last one, `[2, n, S]`; nothing counts of environments that begin
    /// an episode there.
    pub memory: Column<f32>,
    pub pulse: Pulse,
    /// Steps of each environment's episode so far.
    pub lengths: Column<i64>,
    pub events: Events,
    /// The true final observations, `[F, …]`, and their values, `[F, H]`.
    pub final_observation: Leaves,
    pub final_value: Tensor,
    /// Declared last, so that it outlives the columns.
    _mapping: Option<Arc<MmapRaw>>,
}

impl Rollout {
    /// Room for `steps` steps of what `policy` describes, whose observations are stacks of `stack` frames.
    pub fn new(place: Place, steps: usize, policy: &PolicySpec, stack: usize, memory: &mut Memory) -> Self {
        let Place { envs, .. } = place;
        let (rows, columns, heads) = (steps as i64, envs as i64, policy.value_heads as i64);
        let (observation, action) = (&policy.observation, &policy.action);
        Self {
            place,
            observation: Frames::new(steps, envs, observation, stack, memory),
            action: memory.leaves(&[steps, envs], action),
            action_mask: memory.column(&[rows + 1, columns, action.choices() as i64]),
            log_prob: memory.column(&[rows, columns]),
            value: memory.column(&[rows + 1, columns, heads]),
            reward: memory.column(&[rows, columns]),
            terminated: memory.column(&[rows, columns]),
            truncated: memory.column(&[rows, columns]),
            start: memory.column(&[rows, columns]),
            elapsed: memory.column(&[rows + 1, columns]),
            valid: memory.column(&[rows, columns]),
            memory: memory.column(&[2, columns, policy.memory_size()]),
            pulse: Pulse::new(memory.column(&[2]), memory.column(&[columns]), place.first),
            lengths: memory.column(&[columns]),
            events: Events::default(),
            final_observation: Memory::Own.leaves(&[0], observation),
            final_value: Tensor::zeros([0, heads], (Kind::Float, Device::Cpu)),
            _mapping: memory.keep(),
        }
    }

    /// What the policy saw last becomes the first row of the next rollout.
    pub fn carry(&mut self) {
        self.observation.carry();
        for column in [self.action_mask.tensor(), self.memory.tensor()] {
            column.get(0).copy_(&column.get(column.size()[0] - 1));
        }
    }

    /// Takes the row `t` of `env` and those before it that belong to the same episode out of the rollout.
    fn invalidate(&mut self, t: usize, env: usize) {
        for t in (0..=t).rev() {
            let i = t * self.place.envs + env;
            self.valid[i] = false;
            if self.start[i] {
                break;
            }
        }
    }

    /// The environment that did not come back, for whoever gave up on it.
    pub fn stuck(&self, message: String) -> Failure {
        let env = (self.pulse.at.atomic(1).load(Ordering::Relaxed) as usize).min(self.place.envs - 1);
        let (seed, step) = (self.pulse.seeds[env] as u64, self.lengths[env] as u64);
        Failure { env: self.place.first + env, seed, step, message }
    }
}

/// Where a group is between two rollouts, apart from what it shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Whether each environment's next step is the first of its episode.
    pub starts: Vec<bool>,
    /// Return and steps of each environment's episode so far.
    pub returns: Vec<f64>,
    pub lengths: Vec<u64>,
    /// Episode number and state of each environment, as `VecEnv::save` gives them.
    pub envs: Vec<(u64, Option<Vec<u8>>)>,
}

impl Standing {
    /// Before the first step of new episodes, which are numbered from `after + 1` on.
    pub fn afresh(after: &[u64]) -> Self {
        let n = after.len();
        Self {
            starts: vec![true; n],
            returns: vec![0.0; n],
            lengths: vec![0; n],
            envs: after.iter().map(|&episode| (episode, None)).collect(),
        }
    }
}

/// A fixed group of environments with everything that belongs to it.
pub(crate) struct Group {
    /// First, so that nobody looks any more when the rest goes.
    _watch: Watch,
    envs: Box<dyn VecEnv>,
    seed: u64,
    /// In so many rollouts from the first one actions are drawn at random.
    pub random_rollouts: u64,
    pub rollout: Rollout,
    /// The environments say what they allow.
    pub masked: bool,
    /// Whether each environment's next step is the first of its episode.
    starts: Vec<bool>,
    returns: Vec<f64>,
    finals: Finals,
    faults: Vec<Fault>,
    /// What the policy decided in the step that is being taken.
    pub decision: Decision,
    /// Actions as executed, where they are clipped.
    executed: Option<LeafBuf>,
}

/// Zeros in the rows of `memory`, `[n, S]`, of environments whose episodes begin.
pub(super) fn forget(memory: &mut Tensor, starts: &[bool]) {
    let width = memory.size()[1] as usize;
    if width == 0 {
        return;
    }
    for (row, _) in slice_mut::<f32>(memory).chunks_exact_mut(width).zip(starts).filter(|(_, start)| **start)
    {
        row.fill(0.0);
    }
}

/// Seed of an episode of a group's environment, the same whichever group it is in. It is written into `seeds`.
fn episode_seeds(seed: u64, first: usize, seeds: &Column<i64>) -> impl Fn(usize, u64) -> u64 {
    move |env, episode| {
        let seed = Stream::seed(seed, "episode", (first + env) as u64, episode);
        seeds.atomic(env).store(seed as i64, Ordering::Relaxed);
        seed
    }
}

impl Group {
    /// Resets `envs` to their first episodes. Everything random about them derives from `seed`.
    ///
    /// # Errors
    /// Spaces that do not fit the policy's; environments that fail to reset.
    pub fn new(
        envs: Box<dyn VecEnv>,
        seed: u64,
        policy: &PolicySpec,
        stack: usize,
        rollout: Rollout,
    ) -> Result<Self> {
        let n = envs.len();
        let (observation, action) = (envs.observation_space().clone(), envs.action_space().clone());
        policy.observation.check_fits("the policy's and the environment's observations", &observation)?;
        policy.action.check_fits("the policy's and the environment's actions", &action)?;
        if stack != 1 && stack != envs.frame_stack() {
            return Err(Error::Invalid(format!(
                "the environments show stacks of {} frames, not of {stack}",
                envs.frame_stack()
            )));
        }
        let mut group = Self {
            _watch: Watch::over(&rollout.pulse),
            seed,
            random_rollouts: 0,
            rollout,
            masked: false,
            starts: vec![true; n],
            returns: vec![0.0; n],
            finals: Finals::default(),
            faults: Vec::new(),
            decision: Decision::default(),
            executed: is_clipped(&action).then(|| LeafBuf::zeros(&action, n)),
            envs,
        };
        let first = group.rollout.place.first;
        group.rollout.pulse.at.atomic(0).store(0, Ordering::Relaxed);
        let seeds = episode_seeds(seed, first, &group.rollout.pulse.seeds);
        group.envs.reset(&seeds, group.rollout.observation.row(0))?;
        drop(seeds);
        group.rollout.observation.begin();
        group.masked = group.envs.action_mask(&mut group.rollout.action_mask[..n * action.choices()])?;
        group.rollout.pulse.at.atomic(0).store(IDLE, Ordering::Relaxed);
        Ok(group)
    }

    /// Writes what the environments allow now into row `t` of the masks.
    fn write_mask(&mut self, t: usize) -> Result<()> {
        if !self.masked {
            return Ok(());
        }
        let width = self.envs.len() * self.envs.action_space().choices();
        if !self.envs.action_mask(&mut self.rollout.action_mask[t * width..(t + 1) * width])? {
            return Err(Error::Invalid(format!(
                "the environments of group {} had action masks at first and then none",
                self.rollout.place.index
            )));
        }
        Ok(())
    }

    /// One rollout: `T` times act and step.
    ///
    /// # Errors
    /// Environments that fail and cannot be begun anew.
    pub fn collect(&mut self, policy: &ActorCritic, number: u64) -> Result<()> {
        let collected = catch_unwind(AssertUnwindSafe(|| self.collect_rows(policy, number)));
        self.rollout.pulse.at.atomic(0).store(IDLE, Ordering::Relaxed);
        collected.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let index = self.rollout.place.index;
            Err(Error::Invalid(format!("an environment of group {index} panicked: {text}")))
        })
    }

    fn collect_rows(&mut self, policy: &ActorCritic, number: u64) -> Result<()> {
        let mut noise = Stream::new(self.seed, "action", self.rollout.place.index as u64, number);
        self.begin();
        let steps = self.rollout.reward.tensor().size()[0];
        let mut memory = self.rollout.memory.tensor().get(0).copy();
        let width = policy.memory() as usize;
        // Of the environments whose episodes ended, when they did.
        let mut final_memory: Vec<f32> = Vec::new();
        for t in 0..steps {
            self.rollout.pulse.at.atomic(0).store(t, Ordering::Relaxed);
            let seen = self.rollout.observation.seen(t as usize);
            let mask = self.masked.then(|| self.rollout.action_mask.tensor().get(t));
            let choice = Choice::Sample(std::slice::from_mut(&mut noise));
            forget(&mut memory, &self.starts);
            timed(Phase::Inference, || {
                policy.decide_masked(&seen, mask.as_ref(), &mut memory, choice, &mut self.decision);
            });
            if number < self.random_rollouts {
                let (space, allowed) = (self.envs.action_space(), mask.as_ref().map(slice::<bool>));
                let actions = self.decision.action.leaf_mut();
                fill_randomly(space, allowed, &mut noise, actions, self.envs.len());
                // They are not the policy's.
                self.decision.log_prob.fill(0.0);
            }
            let ends = self.rollout.events.final_at.len();
            self.step(t as usize)?;
            if width > 0 {
                for &(_, env) in &self.rollout.events.final_at[ends..] {
                    final_memory.extend_from_slice(&slice(&memory)[env * width..(env + 1) * width]);
                }
            }
        }
        forget(&mut memory, &self.starts);
        let last = policy.value_after(&self.rollout.observation.seen(steps as usize), &memory);
        let rest = self.rollout.memory.len() - memory.numel();
        self.rollout.memory[rest..].copy_from_slice(slice(&memory));
        let rest = self.rollout.value.len() - last.numel();
        self.rollout.value[rest..].copy_from_slice(slice(&last));
        self.gather_finals();
        let final_memory = Tensor::from_slice(&final_memory).view([self.finals.len() as i64, width as i64]);
        let seen = self.rollout.final_observation.tensor();
        self.rollout.final_value = policy.value_after(seen, &final_memory);
        Ok(())
    }

    /// Forgets the last rollout.
    pub fn begin(&mut self) {
        self.finals.clear();
        self.rollout.events.clear();
    }

    /// Writes row `t`: the decision, and what the environments make of it. Allocates nothing once the
    /// buffers of finals have grown to the rollouts' needs.
    pub fn step(&mut self, t: usize) -> Result<()> {
        let (n, first) = (self.envs.len(), self.rollout.place.first);
        let action_space = self.envs.action_space();
        let rollout = &mut self.rollout;
        let row = t * n..(t + 1) * n;
        let decided = &self.decision;
        let width = decided.value.len();
        rollout.value[t * width..(t + 1) * width].copy_from_slice(&decided.value);
        rollout.log_prob[row.clone()].copy_from_slice(&decided.log_prob);
        rollout.start[row.clone()].copy_from_slice(&self.starts);
        rollout.elapsed[row.clone()].copy_from_slice(&rollout.lengths);
        rollout.action.row(t, n * action_space.len()).copy_from(decided.action.leaf());
        let executed = match &mut self.executed {
            Some(executed) => {
                executed.leaf_mut().copy_from(decided.action.leaf());
                clip_to_space(action_space, executed.leaf_mut());
                executed.leaf()
            }
            None => decided.action.leaf(),
        };
        self.faults.clear();
        let mut written = Row {
            observation: rollout.observation.row(t + 1),
            reward: &mut rollout.reward[row.clone()],
            terminated: &mut rollout.terminated[row.clone()],
            truncated: &mut rollout.truncated[row.clone()],
            valid: &mut rollout.valid[row.clone()],
            finals: &mut self.finals,
            faults: &mut self.faults,
            stepping: rollout.pulse.at.atomic(1),
        };
        let ends_before = rollout.events.finished.len();
        timed(Phase::Environment, || {
            self.envs.step(executed, &episode_seeds(self.seed, first, &rollout.pulse.seeds), &mut written)
        })?;
        for fault in &self.faults {
            let (env, seed) = (fault.env, fault.seed);
            // A reset that failed belongs to no episode of the rollout.
            let step = if rollout.valid[row.start + env] { 0 } else { rollout.lengths[env] as u64 };
            let message = fault.error.to_string();
            rollout.events.failures.push(Failure { env: first + env, seed, step, message });
        }
        for env in 0..n {
            let i = row.start + env;
            let ended = rollout.terminated[i] || rollout.truncated[i];
            if rollout.valid[i] {
                self.returns[env] += f64::from(rollout.reward[i]);
                rollout.lengths[env] += 1;
            }
            // The reset row of an engine that resets on the next step is not the episode's first.
            if rollout.valid[i] || ended {
                self.starts[env] = ended;
            }
            if ended {
                let metrics = match self.finals.iter().skip(ends_before).position(|(ended, _)| ended == env) {
                    Some(end) => self.finals.metrics(ends_before + end),
                    None => &[],
                };
                rollout.events.finished.push(Finished {
                    episode_return: std::mem::take(&mut self.returns[env]),
                    length: std::mem::take(&mut rollout.lengths[env]) as u64,
                    terminated: rollout.terminated[i],
                    metrics: metrics.iter().map(|&x| Some(x).filter(|x| x.is_finite())).collect(),
                });
            } else if !rollout.valid[i] && self.faults.iter().any(|fault| fault.env == env) {
                rollout.invalidate(t, env);
                (self.starts[env], self.returns[env], rollout.lengths[env]) = (true, 0.0, 0);
            }
        }
        rollout.observation.keep(t + 1, &self.starts);
        rollout.elapsed[row.end..row.end + n].copy_from_slice(&rollout.lengths);
        for (env, _) in self.finals.iter().skip(ends_before) {
            rollout.events.final_at.push((t, env));
        }
        if self.finals.len() != rollout.events.finished.len() {
            return Err(Error::Invalid(format!(
                "the environments reported {} ends of episodes but {} final observations",
                rollout.events.finished.len(),
                self.finals.len()
            )));
        }
        self.write_mask(t + 1)
    }

    fn gather_finals(&mut self) {
        let space = self.envs.observation_space();
        let mut gathered = Memory::Own.leaves(&[self.finals.len()], space);
        for (i, (_, last)) in self.finals.iter().enumerate() {
            gathered.row(i, space.len()).copy_from(last);
        }
        self.rollout.final_observation = gathered;
    }

    /// Where it is now.
    pub fn standing(&self) -> Standing {
        Standing {
            starts: self.starts.clone(),
            returns: self.returns.clone(),
            lengths: self.rollout.lengths.iter().map(|&length| length as u64).collect(),
            envs: self.envs.save(),
        }
    }

    /// Goes back to where it was, row 0 of the observations already being as it was then. Returns how many
    /// environments could not and began new episodes.
    ///
    /// # Errors
    /// Whatever the environments report.
    pub fn stand(&mut self, standing: Standing) -> Result<usize> {
        let Standing { starts, returns, lengths, envs } = standing;
        (self.starts, self.returns) = (starts, returns);
        self.rollout.lengths.iter_mut().zip(lengths).for_each(|(to, from)| *to = from as i64);
        let seeds = episode_seeds(self.seed, self.rollout.place.first, &self.rollout.pulse.seeds);
        for (env, (episode, _)) in envs.iter().enumerate() {
            seeds(env, *episode);
        }
        let restarted = self.envs.load(&envs, &seeds, self.rollout.observation.row(0))?;
        drop(seeds);
        self.rollout.observation.begin();
        for &env in &restarted {
            (self.starts[env], self.returns[env], self.rollout.lengths[env]) = (true, 0.0, 0);
        }
        // A mask belongs to the state that the environment is in, which it has just been given back.
        self.write_mask(0)?;
        Ok(restarted.len())
    }
}
