//! The collector: fixed groups of environments, stepped by worker threads with a snapshot of the policy.
//!
//! A group owns its environments, its buffers and its random streams, so that what it collects does not depend
//! on which thread runs it or on how many there are. Groups and snapshots travel over crossbeam channels;
//! buffers go back and forth with their group and are allocated once.

use super::batch::{Batch, Ends, Lead};
use super::choices::first_row_outside;
use super::episode::{clip_to_space, is_clipped};
use crate::memory::{Column, slice};
use crate::nn::{ActorCritic, Choice, Decision, PolicySpec, Snapshot};
use crate::random::Stream;
use crate::run::State;
use crate::run::profile::{Phase, timed};
use crate::{Error, Result};
use crossbeam::channel::{Receiver, Sender, unbounded};
use imago_envs::{Dtype, Finals, LeafBuf, LeafMut, Row, Space, VecEnv};
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
    final_observation: Leaves,
    final_value: Tensor,
    /// What the policy decided in the step that is being taken.
    decision: Decision,
    /// Actions as executed, where they are clipped.
    executed: Option<LeafBuf>,
}

/// One rollout of a group, `[T, n, …]`; observations and values have a row more.
struct Buffers {
    observation: Leaves,
    action: Leaves,
    /// `[T + 1, n, choices]`, of environments that say what is allowed.
    action_mask: Option<Column<bool>>,
    log_prob: Column<f32>,
    value: Column<f32>,
    reward: Column<f32>,
    terminated: Column<bool>,
    truncated: Column<bool>,
    start: Column<bool>,
    valid: Column<bool>,
}

/// Observations or actions: a column of the type their space stores.
enum Leaves {
    F32(Column<f32>),
    U8(Column<u8>),
    I64(Column<i64>),
}

impl Leaves {
    /// `lead` elements of `space`.
    fn zeros(lead: &[usize], space: &Space) -> Self {
        let shape: Vec<i64> = lead.iter().chain(space.shape()).map(|&d| d as i64).collect();
        match space.dtype() {
            Dtype::F32 => Leaves::F32(Column::zeros(&shape)),
            Dtype::U8 => Leaves::U8(Column::zeros(&shape)),
            Dtype::I64 => Leaves::I64(Column::zeros(&shape)),
        }
    }

    fn tensor(&self) -> &Tensor {
        match self {
            Leaves::F32(column) => column.tensor(),
            Leaves::U8(column) => column.tensor(),
            Leaves::I64(column) => column.tensor(),
        }
    }

    /// Values `row · size .. (row + 1) · size`, to write to.
    fn row(&mut self, row: usize, size: usize) -> LeafMut<'_> {
        let range = row * size..(row + 1) * size;
        match self {
            Leaves::F32(column) => LeafMut::F32(&mut column[range]),
            Leaves::U8(column) => LeafMut::U8(&mut column[range]),
            Leaves::I64(column) => LeafMut::I64(&mut column[range]),
        }
    }
}

/// Seed of an episode of a group's environment, the same whichever group it is in.
fn episode_seeds(seed: u64, first: usize) -> impl Fn(usize, u64) -> u64 {
    move |env, episode| Stream::seed(seed, "episode", (first + env) as u64, episode)
}

impl Buffers {
    fn new(steps: usize, envs: usize, observation: &Space, action: &Space, heads: usize) -> Self {
        let (rows, columns, heads) = (steps as i64, envs as i64, heads as i64);
        Self {
            observation: Leaves::zeros(&[steps + 1, envs], observation),
            action: Leaves::zeros(&[steps, envs], action),
            action_mask: None,
            log_prob: Column::zeros(&[rows, columns]),
            value: Column::zeros(&[rows + 1, columns, heads]),
            reward: Column::zeros(&[rows, columns]),
            terminated: Column::zeros(&[rows, columns]),
            truncated: Column::zeros(&[rows, columns]),
            start: Column::zeros(&[rows, columns]),
            valid: Column::zeros(&[rows, columns]),
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
            final_observation: Leaves::zeros(&[0], &observation),
            final_value: Tensor::zeros([0, spec.policy.value_heads as i64], (Kind::Float, Device::Cpu)),
            decision: Decision::default(),
            executed: is_clipped(&action).then(|| LeafBuf::zeros(&action, n)),
            envs,
        };
        let seeds = episode_seeds(group.seed, group.first);
        group.envs.reset(&seeds, group.buffers.observation.row(0, n * observation.len()))?;
        let mut first = vec![true; n * action.choices()];
        if group.envs.action_mask(&mut first)? {
            let shape = [spec.steps + 1, n, action.choices()].map(|d| d as i64);
            let mut masks = Column::zeros(&shape);
            masks[..first.len()].copy_from_slice(&first);
            group.buffers.action_mask = Some(masks);
        }
        Ok(group)
    }

    /// Writes what the environments allow now into row `t` of the masks.
    fn write_mask(&mut self, t: usize) -> Result<()> {
        let Some(masks) = &mut self.buffers.action_mask else { return Ok(()) };
        let width = self.envs.len() * self.envs.action_space().choices();
        if !self.envs.action_mask(&mut masks[t * width..(t + 1) * width])? {
            return Err(Error::Invalid(format!(
                "the environments of group {} had action masks at first and then none",
                self.index
            )));
        }
        Ok(())
    }

    /// One rollout: `T` times act and step.
    fn collect(&mut self, policy: &ActorCritic, rollout: u64) -> Result<()> {
        let mut noise = Stream::new(self.seed, "action", self.index as u64, rollout);
        self.finals.clear();
        self.final_at.clear();
        self.finished.clear();
        let steps = self.buffers.reward.tensor().size()[0];
        for t in 0..steps {
            let seen = self.buffers.observation.tensor().get(t);
            let mask = self.buffers.action_mask.as_ref().map(|masks| masks.tensor().get(t));
            let choice = Choice::Sample(std::slice::from_mut(&mut noise));
            timed(Phase::Inference, || {
                policy.decide_masked(&seen, mask.as_ref(), choice, &mut self.decision);
            });
            self.step(t as usize)?;
        }
        let last = policy.value(&self.buffers.observation.tensor().get(steps));
        let rest = self.buffers.value.len() - last.numel();
        self.buffers.value[rest..].copy_from_slice(slice(&last));
        self.gather_finals();
        self.final_value = policy.value(self.final_observation.tensor());
        Ok(())
    }

    /// Writes row `t`: the decision, and what the environments make of it. Allocates nothing once the
    /// buffers of finals have grown to the rollouts' needs.
    fn step(&mut self, t: usize) -> Result<()> {
        let n = self.envs.len();
        let seeds = episode_seeds(self.seed, self.first);
        let (observation_space, action_space) = (self.envs.observation_space(), self.envs.action_space());
        let size = n * observation_space.len();
        let buffers = &mut self.buffers;
        let row = t * n..(t + 1) * n;
        let decided = &self.decision;
        let width = decided.value.len();
        buffers.value[t * width..(t + 1) * width].copy_from_slice(&decided.value);
        buffers.log_prob[row.clone()].copy_from_slice(&decided.log_prob);
        buffers.start[row.clone()].copy_from_slice(&self.starts);
        buffers.action.row(t, n * action_space.len()).copy_from(decided.action.leaf());
        let executed = match &mut self.executed {
            Some(executed) => {
                executed.leaf_mut().copy_from(decided.action.leaf());
                clip_to_space(action_space, executed.leaf_mut());
                executed.leaf()
            }
            None => decided.action.leaf(),
        };
        let mut written = Row {
            observation: buffers.observation.row(t + 1, size),
            reward: &mut buffers.reward[row.clone()],
            terminated: &mut buffers.terminated[row.clone()],
            truncated: &mut buffers.truncated[row.clone()],
            valid: &mut buffers.valid[row],
            finals: &mut self.finals,
        };
        let ends_before = self.finished.len();
        timed(Phase::Environment, || self.envs.step(executed, &seeds, &mut written))?;
        for env in 0..n {
            let ended = written.terminated[env] || written.truncated[env];
            if written.valid[env] {
                self.returns[env] += f64::from(written.reward[env]);
                self.lengths[env] += 1;
            }
            // The reset row of an engine that resets on the next step is not the episode's first.
            if written.valid[env] || ended {
                self.starts[env] = ended;
            }
            if ended {
                self.finished.push(Finished {
                    episode_return: std::mem::take(&mut self.returns[env]),
                    length: std::mem::take(&mut self.lengths[env]),
                    terminated: written.terminated[env],
                });
            }
        }
        for (env, _) in self.finals.iter().skip(ends_before) {
            self.final_at.push((t, env));
        }
        if self.finals.len() != self.finished.len() {
            return Err(Error::Invalid(format!(
                "the environments reported {} ends of episodes but {} final observations",
                self.finished.len(),
                self.finals.len()
            )));
        }
        self.write_mask(t + 1)
    }

    fn gather_finals(&mut self) {
        let space = self.envs.observation_space();
        self.final_observation = Leaves::zeros(&[self.finals.len()], space);
        for (i, (_, last)) in self.finals.iter().enumerate() {
            self.final_observation.row(i, space.len()).copy_from(last);
        }
    }

    /// What the policy saw last becomes the first row of the next rollout.
    fn carry(&mut self) {
        let observation = self.buffers.observation.tensor();
        observation.get(0).copy_(&observation.get(observation.size()[0] - 1));
        if let Some(masks) = &self.buffers.action_mask {
            let masks = masks.tensor();
            masks.get(0).copy_(&masks.get(masks.size()[0] - 1));
        }
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.list("starts", &mut self.starts)?;
        state.list("returns", &mut self.returns)?;
        state.list("lengths", &mut self.lengths)?;
        let mut first_row = self.buffers.observation.tensor().get(0);
        state.tensor("observation", &mut first_row)?;
        if let Some(env) = first_row_outside(self.envs.observation_space(), &first_row) {
            let space = self.envs.observation_space();
            return Err(Error::Invalid(format!(
                "the saved observation of environment {env} lies outside {space}"
            )));
        }
        let mut saved = self.envs.save();
        state.value("envs", &mut saved)?;
        if state.is_loading() {
            let seeds = episode_seeds(self.seed, self.first);
            let space = self.envs.observation_space().clone();
            let size = self.envs.len() * space.len();
            let restarted = self.envs.load(&saved, &seeds, self.buffers.observation.row(0, size))?;
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
            // A mask belongs to the state that the environment is in, which it has just been given back.
            self.write_mask(0)?;
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
    /// A collector over `groups`, each reset to its first episode; starts the worker threads. Whether the
    /// environments have action masks shows only then: see [`Collector::policy`].
    ///
    /// # Errors
    /// Environments whose spaces do not fit the policy, or that fail to reset.
    pub fn new(mut spec: CollectorSpec, groups: Vec<Box<dyn VecEnv>>) -> Result<Self> {
        let mut first = 0;
        let mut built = Vec::new();
        for (index, envs) in groups.into_iter().enumerate() {
            let n = envs.len();
            built.push(Some(Box::new(Group::new(envs, index, first, &spec)?)));
            first += n;
        }
        let masked = built.iter().flatten().filter(|group| group.buffers.action_mask.is_some()).count();
        if masked != 0 && masked != built.len() {
            return Err(Error::Invalid("some of the environments have action masks and some not".into()));
        }
        spec.policy.masked = masked != 0;
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

    /// The description of the policy that acts here, `masked` as the environments have it.
    pub fn policy(&self) -> &PolicySpec {
        &self.spec.policy
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
            observations: join(|b| b.observation.tensor()),
            action: join(|b| b.action.tensor()),
            action_mask: self.spec.policy.masked.then(|| {
                let masks = groups.iter().filter_map(|group| group.buffers.action_mask.as_ref());
                let masks: Vec<&Tensor> = masks.map(Column::tensor).collect();
                Tensor::cat(&masks, 1).narrow(0, 0, self.spec.steps as i64)
            }),
            log_prob: Some(join(|b| b.log_prob.tensor())),
            values: Some(join(|b| b.value.tensor())),
            reward: join(|b| b.reward.tensor()),
            terminated: join(|b| b.terminated.tensor()),
            truncated: join(|b| b.truncated.tensor()),
            start: join(|b| b.start.tensor()),
            valid: join(|b| b.valid.tensor()),
            ends: Some(Ends {
                index: Tensor::from_slice(&index),
                observation: finals(|group| group.final_observation.tensor()),
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

#[cfg(test)]
mod masked;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::allocations;
    use crate::nn::TorsoSpec;
    use imago_envs::{Each, Env, Leaf, Step};
    use std::sync::atomic::{AtomicI32, Ordering};

    /// Observes (episode's seed modulo 1000, step) and ends every third step, by the task if `terminates`.
    struct Counter {
        observation: Space,
        action: Space,
        seen: [f32; 2],
        terminates: bool,
    }

    static MOST_THREADS: AtomicI32 = AtomicI32::new(0);

    impl Env for Counter {
        fn observation_space(&self) -> &Space {
            &self.observation
        }
        fn action_space(&self) -> &Space {
            &self.action
        }
        fn reset(&mut self, seed: u64, mut observation: LeafMut) -> imago_envs::Result<()> {
            self.seen = [(seed % 1000) as f32, 0.0];
            observation.f32().copy_from_slice(&self.seen);
            Ok(())
        }
        fn step(&mut self, action: Leaf, mut observation: LeafMut) -> imago_envs::Result<Step> {
            MOST_THREADS.fetch_max(tch::get_num_threads(), Ordering::Relaxed);
            assert!(action.f32()[0].abs() <= 0.01, "actions are executed within their space");
            self.seen[1] += 1.0;
            observation.f32().copy_from_slice(&self.seen);
            let ended = self.seen[1] == 3.0;
            let (terminated, truncated) = (ended && self.terminates, ended && !self.terminates);
            Ok(Step { reward: f64::from(self.seen[1]), terminated, truncated })
        }
    }

    fn spec(workers: usize, steps: usize) -> CollectorSpec {
        let policy = PolicySpec {
            observation: Space::floats(&[2], 0.0, 1000.0),
            action: Space::floats(&[1], -0.01, 0.01),
            torso: TorsoSpec::perceptron(&[8]),
            shared: false,
            value_heads: 2,
            normalise: false,
            log_std: 0.0,
            masked: false,
        };
        CollectorSpec { policy, steps, workers, seed: 5 }
    }

    fn group(sizes: usize, terminates: bool) -> Box<dyn VecEnv> {
        let CollectorSpec { policy, .. } = spec(0, 1);
        let env = || Counter {
            observation: policy.observation.clone(),
            action: policy.action.clone(),
            seen: [0.0; 2],
            terminates,
        };
        Box::new(Each::new((0..sizes).map(|_| env()).collect()))
    }

    fn policy(spec: &CollectorSpec) -> ActorCritic {
        ActorCritic::new(spec.policy.clone(), &mut Stream::new(1, "init", 0, 0)).unwrap()
    }

    fn rollouts(workers: usize, groups: &[usize]) -> Vec<(String, Tensor)> {
        let spec = spec(workers, 4);
        let policy = policy(&spec);
        let groups = groups.iter().map(|&size| group(size, false)).collect();
        let mut collector = Collector::new(spec, groups).unwrap();
        (0..3).flat_map(|_| collector.collect(&policy).unwrap().0.tensors()).collect()
    }

    #[test]
    fn any_number_of_workers_collects_the_same() {
        let serial = rollouts(0, &[2, 2, 1]);
        for workers in [1, 2, 4] {
            assert!(rollouts(workers, &[2, 2, 1]) == serial, "{workers} workers");
        }
        assert_eq!(MOST_THREADS.load(Ordering::Relaxed), 1, "libtorch threads inside a worker");
    }

    #[test]
    fn ends_keep_the_true_final_observation_and_value() {
        for terminates in [false, true] {
            let spec = spec(0, 4);
            let policy = policy(&spec);
            let mut collector =
                Collector::new(spec, vec![group(1, terminates), group(2, terminates)]).unwrap();
            let (batch, finished) = collector.collect(&policy).unwrap();
            let row = |t: i64, env: i64| Vec::<f32>::try_from(batch.observations.get(t).get(env)).unwrap();
            let ends = batch.ends.as_ref().unwrap();
            assert_eq!(Vec::<i64>::try_from(&ends.index).unwrap(), [6, 7, 8], "t = 2 of three environments");
            for env in 0..3 {
                let last = Vec::<f32>::try_from(ends.observation.get(env)).unwrap();
                assert_eq!(last, [row(2, env)[0], 3.0], "the last observation of the old episode");
                assert_eq!(row(3, env)[1], 0.0, "the first of the new one");
                assert_ne!(row(3, env)[0], row(2, env)[0], "with another seed");
            }
            let flag = |tensor: &Tensor| Vec::<bool>::try_from(tensor.select(1, 0)).unwrap();
            assert_eq!(flag(&batch.start), [true, false, false, true]);
            assert_eq!(flag(&batch.terminated), [false, false, terminates, false]);
            assert_eq!(flag(&batch.truncated), [false, false, !terminates, false]);
            let wanted = Finished { episode_return: 6.0, length: 3, terminated: terminates };
            assert_eq!(finished, [wanted; 3]);
            // Followed by the next row's value, or at the end by the final observation's.
            let (values, next) = (batch.values.as_ref().unwrap(), batch.next_values().unwrap());
            assert_eq!(next.get(0), values.get(1));
            assert_eq!(next.get(3), values.get(4));
            assert_eq!(next.get(2), ends.value);
            assert!((&ends.value - policy.value(&ends.observation)).abs().max().double_value(&[]) < 1e-6);
            // A rollout begins where the last one stopped.
            let (following, _) = collector.collect(&policy).unwrap();
            assert_eq!(following.observations.get(0), batch.observations.get(4));
        }
    }

    #[test]
    fn a_panic_in_an_environment_is_an_error_and_no_hang() {
        let spec = spec(2, 4);
        let mut wide = policy(&spec);
        // Actions far outside the space are clipped; a NaN is not, and the environment's assertion fails.
        let weights = vec![f32::NAN; slice::<f32>(&wide.parameters.weights).len()];
        wide.parameters.copy_from(&weights).unwrap();
        let mut collector = Collector::new(spec, vec![group(1, false), group(1, false)]).unwrap();
        let error = collector.collect(&wide).unwrap_err().to_string();
        assert!(error.contains("panicked") && error.contains("within their space"), "{error}");
    }

    #[test]
    fn stepping_and_writing_allocate_nothing() {
        let spec = spec(0, 16);
        let policy = policy(&spec);
        let mut group = Group::new(group(4, false), 0, 0, &spec).unwrap();
        group.collect(&policy, 0).unwrap();
        group.finals.clear();
        group.final_at.clear();
        group.finished.clear();
        let before = allocations::in_this_thread();
        for t in 0..16 {
            group.step(t).unwrap();
        }
        assert_eq!(allocations::in_this_thread() - before, 0);
        assert!(!group.finished.is_empty(), "ends are part of it");
    }
}
