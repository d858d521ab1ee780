//! The collector: fixed groups of environments, stepped by worker threads with a snapshot of the policy.
//!
//! A group owns its environments, its buffers and its random streams, so that what it collects does not depend
//! on which thread runs it or on how many there are. Groups and snapshots travel over crossbeam channels;
//! buffers go back and forth with their group and are allocated once.

use super::batch::{Batch, Ends, Lead};
use super::episode::clip_to_space;
use crate::memory::{slice, slice_mut};
use crate::nn::{ActorCritic, PolicySpec, Snapshot};
use crate::random::Stream;
use crate::run::State;
use crate::{Error, Result};
use crossbeam::channel::{Receiver, Sender, unbounded};
use imago_envs::{Dtype, Finals, Leaf, LeafMut, Row, Space, VecEnv};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use tch::{Device, Kind, Tensor};

/// How to collect.
#[derive(Clone, Debug)]
pub struct CollectorSpec {
    /// The policy the workers build.
    pub policy: PolicySpec,
    /// Steps of each environment in a rollout, T.
    pub steps: usize,
    /// Worker threads; 0 collects in the caller's thread. The result is the same for any number.
    pub workers: usize,
    /// The run's seed.
    pub seed: u64,
}

/// An episode that ended during a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finished {
    /// Sum of the environment's rewards, undiscounted.
    pub episode_return: f64,
    /// Steps.
    pub length: u64,
    /// Ended by the task and not by a limit.
    pub terminated: bool,
}

/// A fixed group of environments with everything that belongs to it.
struct Group {
    envs: Box<dyn VecEnv>,
    /// Index of the group's first environment among all.
    first: usize,
    index: usize,
    seed: u64,
    buffers: Buffers,
    /// Whether each environment's next step is the first of its episode.
    starts: Vec<bool>,
    returns: Vec<f64>,
    lengths: Vec<u64>,
    finished: Vec<Finished>,
    finals: Finals,
    /// `t` and environment of each end.
    final_at: Vec<(usize, usize)>,
    final_observation: Tensor,
    final_value: Tensor,
    /// Actions as executed, where they are clipped.
    executed: Vec<f32>,
}

/// One rollout of a group, `[T, n, …]`; observations and values have a row more.
struct Buffers {
    observation: Tensor,
    action: Tensor,
    log_prob: Tensor,
    value: Tensor,
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    start: Tensor,
    valid: Tensor,
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        Dtype::I64 => Kind::Int64,
    }
}

fn zeros(lead: &[usize], space: &Space) -> Tensor {
    let shape: Vec<i64> = lead.iter().chain(space.shape()).map(|&d| d as i64).collect();
    Tensor::zeros(&shape[..], (kind_of(space.dtype()), Device::Cpu))
}

/// Row `t` of `[T, n, …]` observations, as environments write it. `size`: values in a row.
fn observation_row(observation: &mut Tensor, dtype: Dtype, t: usize, size: usize) -> LeafMut<'_> {
    let range = t * size..(t + 1) * size;
    match dtype {
        Dtype::F32 => LeafMut::F32(&mut slice_mut(observation)[range]),
        Dtype::U8 => LeafMut::U8(&mut slice_mut(observation)[range]),
        Dtype::I64 => LeafMut::I64(&mut slice_mut(observation)[range]),
    }
}

impl Buffers {
    fn new(steps: usize, envs: usize, observation: &Space, action: &Space, heads: usize) -> Self {
        let of = |kind, shape: &[usize]| {
            let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
            Tensor::zeros(&shape[..], (kind, Device::Cpu))
        };
        Self {
            observation: zeros(&[steps + 1, envs], observation),
            action: zeros(&[steps, envs], action),
            log_prob: of(Kind::Float, &[steps, envs]),
            value: of(Kind::Float, &[steps + 1, envs, heads]),
            reward: of(Kind::Float, &[steps, envs]),
            terminated: of(Kind::Bool, &[steps, envs]),
            truncated: of(Kind::Bool, &[steps, envs]),
            start: of(Kind::Bool, &[steps, envs]),
            valid: of(Kind::Bool, &[steps, envs]),
        }
    }
}

impl Group {
    fn new(envs: Box<dyn VecEnv>, index: usize, first: usize, spec: &CollectorSpec) -> Result<Self> {
        let n = envs.len();
        let (observation, action) = (envs.observation_space().clone(), envs.action_space().clone());
        spec.policy
            .observation
            .check_fits("the policy's and the environment's observations", &observation)?;
        spec.policy.action.check_fits("the policy's and the environment's actions", &action)?;
        let mut group = Self {
            first,
            index,
            seed: spec.seed,
            buffers: Buffers::new(spec.steps, n, &observation, &action, spec.policy.value_heads),
            starts: vec![true; n],
            returns: vec![0.0; n],
            lengths: vec![0; n],
            finished: Vec::new(),
            finals: Finals::default(),
            final_at: Vec::new(),
            final_observation: zeros(&[0], &observation),
            final_value: Tensor::zeros([0, spec.policy.value_heads as i64], (Kind::Float, Device::Cpu)),
            executed: Vec::new(),
            envs,
        };
        let (seed, first) = (group.seed, group.first);
        let seeds =
            move |env: usize, episode: u64| Stream::seed(seed, "episode", (first + env) as u64, episode);
        let row =
            observation_row(&mut group.buffers.observation, observation.dtype(), 0, n * observation.len());
        group.envs.reset(&seeds, row)?;
        Ok(group)
    }

    fn collect(&mut self, policy: &ActorCritic, rollout: u64) -> Result<()> {
        let (n, heads) = (self.envs.len(), policy.spec.value_heads);
        let (seed, first) = (self.seed, self.first);
        let seeds =
            move |env: usize, episode: u64| Stream::seed(seed, "episode", (first + env) as u64, episode);
        let dtype = self.envs.observation_space().dtype();
        let size = n * self.envs.observation_space().len();
        let action_space = self.envs.action_space().clone();
        let action_size = n * action_space.len();
        let mut noise = Stream::new(seed, "action", self.index as u64, rollout);
        self.finals.clear();
        self.final_at.clear();
        self.finished.clear();
        let Buffers { observation, action, log_prob, value, reward, terminated, truncated, start, valid } =
            &mut self.buffers;
        let steps = reward.size()[0] as usize;
        for t in 0..steps {
            let acted = policy.act(&observation.get(t as i64), &mut noise);
            let row = t * n..(t + 1) * n;
            slice_mut(log_prob)[row.clone()].copy_from_slice(slice::<f32>(&acted.log_prob));
            slice_mut(value)[t * n * heads..(t + 1) * n * heads]
                .copy_from_slice(slice::<f32>(&acted.value.contiguous()));
            slice_mut(start)[row.clone()].copy_from_slice(&self.starts);
            let action_row = t * action_size..(t + 1) * action_size;
            let executed = match action_space {
                Space::Discrete { .. } => {
                    slice_mut(action)[action_row.clone()].copy_from_slice(slice::<i64>(&acted.action));
                    Leaf::I64(slice(&acted.action))
                }
                Space::Box { .. } => {
                    let chosen = slice::<f32>(&acted.action);
                    slice_mut(action)[action_row].copy_from_slice(chosen);
                    self.executed.clear();
                    self.executed.extend_from_slice(chosen);
                    clip_to_space(&action_space, &mut self.executed);
                    Leaf::F32(&self.executed)
                }
            };
            let mut written = Row {
                observation: observation_row(observation, dtype, t + 1, size),
                reward: &mut slice_mut(reward)[row.clone()],
                terminated: &mut slice_mut(terminated)[row.clone()],
                truncated: &mut slice_mut(truncated)[row.clone()],
                valid: &mut slice_mut(valid)[row],
                finals: &mut self.finals,
            };
            self.envs.step(executed, &seeds, &mut written)?;
            for env in 0..n {
                let ended = written.terminated[env] || written.truncated[env];
                if written.valid[env] {
                    self.returns[env] += f64::from(written.reward[env]);
                    self.lengths[env] += 1;
                }
                self.starts[env] = ended;
                if ended {
                    self.final_at.push((t, env));
                    self.finished.push(Finished {
                        episode_return: std::mem::take(&mut self.returns[env]),
                        length: std::mem::take(&mut self.lengths[env]),
                        terminated: written.terminated[env],
                    });
                }
            }
        }
        let last = policy.value(&observation.get(steps as i64)).contiguous();
        slice_mut(value)[steps * n * heads..].copy_from_slice(slice::<f32>(&last));
        self.gather_finals();
        self.final_value = policy.value(&self.final_observation);
        Ok(())
    }

    fn gather_finals(&mut self) {
        let space = self.envs.observation_space();
        self.final_observation = zeros(&[self.finals.len()], space);
        for (i, (_, leaf)) in self.finals.iter().enumerate() {
            let row = observation_row(&mut self.final_observation, space.dtype(), i, space.len());
            match (row, leaf) {
                (LeafMut::F32(to), Leaf::F32(from)) => to.copy_from_slice(from),
                (LeafMut::U8(to), Leaf::U8(from)) => to.copy_from_slice(from),
                (LeafMut::I64(to), Leaf::I64(from)) => to.copy_from_slice(from),
                _ => unreachable!("both follow the observation space"),
            }
        }
    }

    /// What the policy saw last becomes the first row of the next rollout.
    fn carry(&mut self) {
        let steps = self.buffers.reward.size()[0];
        let last = self.buffers.observation.get(steps);
        self.buffers.observation.get(0).copy_(&last);
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("starts", &mut self.starts)?;
        state.value("returns", &mut self.returns)?;
        state.value("lengths", &mut self.lengths)?;
        let mut first_row = self.buffers.observation.get(0);
        state.tensor("observation", &mut first_row)?;
        let mut saved = self.envs.save();
        state.value("envs", &mut saved)?;
        if state.is_loading() {
            let (seed, first) = (self.seed, self.first);
            let seeds =
                move |env: usize, episode: u64| Stream::seed(seed, "episode", (first + env) as u64, episode);
            let space = self.envs.observation_space().clone();
            let size = self.envs.len() * space.len();
            let row = observation_row(&mut self.buffers.observation, space.dtype(), 0, size);
            let restarted = self.envs.load(&saved, &seeds, row)?;
            for &env in &restarted {
                (self.starts[env], self.returns[env], self.lengths[env]) = (true, 0.0, 0);
            }
            if !restarted.is_empty() {
                tracing::warn!(
                    "{} environments of group {} cannot restore their state: they begin new episodes, and what \
                     follows is not bit for bit what an uninterrupted run would have been",
                    restarted.len(),
                    self.index
                );
            }
        }
        Ok(())
    }
}

struct Job {
    group: Box<Group>,
    snapshot: Arc<Snapshot>,
    rollout: u64,
}

/// Collects rollouts of all groups.
pub struct Collector {
    spec: CollectorSpec,
    groups: Vec<Option<Box<Group>>>,
    /// Policy of the caller's thread when there are no workers.
    own_policy: Option<ActorCritic>,
    jobs: Option<Sender<Job>>,
    results: Receiver<Result<Box<Group>>>,
    threads: Vec<JoinHandle<()>>,
    rollout: u64,
}

/// A worker's copy of the policy; its initial values are never used.
fn build(policy: &PolicySpec) -> Result<ActorCritic> {
    ActorCritic::new(policy.clone(), &mut Stream::new(0, "overwritten", 0, 0))
}

fn run_job(policy: &mut ActorCritic, job: Job) -> Result<Box<Group>> {
    let Job { mut group, snapshot, rollout } = job;
    let collected = catch_unwind(AssertUnwindSafe(|| {
        policy.restore(&snapshot)?;
        group.collect(policy, rollout)
    }));
    match collected {
        Ok(result) => result.map(|()| group),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::Invalid(format!("an environment of group {} panicked: {text}", group.index)))
        }
    }
}

impl Collector {
    /// A collector over `groups`, each reset to its first episode; starts the worker threads.
    ///
    /// # Errors
    /// Environments whose spaces do not fit the policy, or that fail to reset.
    pub fn new(spec: CollectorSpec, groups: Vec<Box<dyn VecEnv>>) -> Result<Self> {
        let mut first = 0;
        let mut built = Vec::new();
        for (index, envs) in groups.into_iter().enumerate() {
            let n = envs.len();
            built.push(Some(Box::new(Group::new(envs, index, first, &spec)?)));
            first += n;
        }
        let (jobs, queue) = unbounded::<Job>();
        let (answers, results) = unbounded();
        // More threads than groups would only wait.
        let threads = (0..spec.workers.min(built.len()))
            .map(|index| {
                let (queue, answers, policy) = (queue.clone(), answers.clone(), spec.policy.clone());
                std::thread::Builder::new().name(format!("rollout-{index}")).spawn(move || {
                    // More than one intra-op thread here oversubscribes the cores: measured to cost 40×.
                    tch::set_num_threads(1);
                    let mut policy = build(&policy);
                    for job in queue {
                        let answer = match &mut policy {
                            Ok(policy) => run_job(policy, job),
                            Err(error) => Err(Error::Invalid(error.to_string())),
                        };
                        if answers.send(answer).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| Error::Invalid(format!("cannot start rollout threads: {error}")))?;
        let own_policy = if threads.is_empty() { Some(build(&spec.policy)?) } else { None };
        Ok(Self { spec, groups: built, own_policy, jobs: Some(jobs), results, threads, rollout: 0 })
    }

    /// Number of environments, N.
    pub fn envs(&self) -> usize {
        self.groups.iter().flatten().map(|group| group.envs.len()).sum()
    }

    /// Collects `[T, N]` steps with `policy` and returns them with the episodes that ended.
    ///
    /// # Errors
    /// Whatever an environment reports, and its panics.
    pub fn collect(&mut self, policy: &ActorCritic) -> Result<(Batch, Vec<Finished>)> {
        let snapshot = Arc::new(policy.snapshot());
        let rollout = self.rollout;
        let taken: Vec<Box<Group>> = self.groups.iter_mut().filter_map(Option::take).collect();
        let count = taken.len();
        let mut answers = Vec::with_capacity(count);
        for group in taken {
            let job = Job { group, snapshot: snapshot.clone(), rollout };
            match (&mut self.own_policy, &self.jobs) {
                (Some(policy), _) => answers.push(run_job(policy, job)),
                (None, Some(jobs)) => {
                    jobs.send(job).map_err(|_| Error::Invalid("the rollout threads are gone".into()))?;
                }
                (None, None) => unreachable!("the sender is only dropped with the collector"),
            }
        }
        while answers.len() < count {
            let answer = self.results.recv();
            answers.push(answer.map_err(|_| Error::Invalid("the rollout threads are gone".into()))?);
        }
        for answer in answers {
            let group = answer?;
            let index = group.index;
            self.groups[index] = Some(group);
        }
        self.rollout += 1;
        let batch = self.assemble();
        let finished =
            self.groups.iter().flatten().flat_map(|group| group.finished.iter().copied()).collect();
        self.groups.iter_mut().flatten().for_each(|group| group.carry());
        Ok((batch, finished))
    }

    /// The one copy of a rollout: groups side by side along N.
    fn assemble(&self) -> Batch {
        let groups: Vec<&Group> = self.groups.iter().flatten().map(AsRef::as_ref).collect();
        let join = |field: fn(&Buffers) -> &Tensor| {
            Tensor::cat(&groups.iter().map(|group| field(&group.buffers)).collect::<Vec<_>>(), 1)
        };
        let envs: usize = groups.iter().map(|group| group.envs.len()).sum();
        let index: Vec<i64> = groups
            .iter()
            .flat_map(|group| group.final_at.iter().map(|&(t, env)| (t * envs + group.first + env) as i64))
            .collect();
        let finals = |field: fn(&Group) -> &Tensor| {
            Tensor::cat(&groups.iter().map(|group| field(group)).collect::<Vec<_>>(), 0)
        };
        Batch {
            lead: Lead::Time { steps: self.spec.steps as i64, envs: envs as i64 },
            observations: join(|b| &b.observation),
            action: join(|b| &b.action),
            log_prob: Some(join(|b| &b.log_prob)),
            values: Some(join(|b| &b.value)),
            reward: join(|b| &b.reward),
            terminated: join(|b| &b.terminated),
            truncated: join(|b| &b.truncated),
            start: join(|b| &b.start),
            valid: join(|b| &b.valid),
            ends: Some(Ends {
                index: Tensor::from_slice(&index),
                observation: finals(|group| &group.final_observation),
                value: finals(|group| &group.final_value),
            }),
        }
    }

    /// Saves or restores every environment and the rollout counter, at a moment between rollouts.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("rollout", &mut self.rollout)?;
        for group in self.groups.iter_mut().flatten() {
            state.scope(&format!("group{}", group.index), |state| group.state(state))?;
        }
        Ok(())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.jobs = None; // closes the queue: the threads' loops end
        for thread in self.threads.drain(..) {
            // A thread that panicked has already reported it through its last answer.
            let _ = thread.join();
        }
    }
}
