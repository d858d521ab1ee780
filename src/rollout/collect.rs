//! The collector: fixed groups of environments, stepped by worker threads or processes with a snapshot of the policy.
//!
//! A group owns its environments, its buffers and its random streams, so that what it collects does not depend
//! on who runs it or on how many there are. To threads, groups and snapshots travel over crossbeam channels;
//! buffers go back and forth with their group and are allocated once. Processes keep their groups
//! (see [`super::process`]).

use super::batch::{Batch, Ends, Lead};
use super::choices::first_row_outside;
use super::frames::{Stacking, check_stack};
use super::group::{Failure, Finished, Group, Place, Rollout, Standing};
use super::process::{Child, Launch, blank};
use super::shared::Memory;
use crate::nn::{ActorCritic, PolicySpec, Snapshot};
use crate::run::State;
use crate::{Error, Result};
use crossbeam::channel::{Receiver, Sender, unbounded};
use imago_envs::VecEnv;
use std::sync::Arc;
use std::thread::JoinHandle;
use tch::Tensor;

/// How to collect.
#[derive(Clone, Debug)]
pub struct CollectorSpec {
    /// The policy the workers build.
    pub policy: PolicySpec,
    /// Steps of each environment in a rollout, T.
    pub steps: usize,
    /// What the environments say of their observations ([`VecEnv::frame_stack`]): of stacks of so many frames, each
    /// frame is stored once. 1 stores whatever they show.
    pub frame_stack: usize,
    /// Worker threads or processes; 0 collects in the caller's thread. The result is the same for any number.
    pub workers: usize,
    /// The run's seed.
    pub seed: u64,
    /// How often environments may fail; once more is an error.
    pub max_faults: u64,
    /// In so many rollouts from the first one actions are drawn at random and not from the policy.
    pub random_rollouts: u64,
}

/// What a rollout of all groups gave.
#[derive(Debug)]
pub struct Collected {
    /// `[T, N]` steps.
    pub batch: Batch,
    /// Episodes that ended.
    pub finished: Vec<Finished>,
    /// Environments that failed and were begun anew.
    pub failures: Vec<Failure>,
}

struct Job {
    group: Group,
    snapshot: Arc<Snapshot>,
    rollout: u64,
}

/// A group comes back, whatever happened to it.
type Done = (Group, Result<()>);

/// Who steps the environments.
enum Crew {
    /// The caller itself.
    Caller(Box<ActorCritic>, Vec<Group>),
    Threads(Threads),
    /// Each has every so-manieth group.
    Processes(Vec<Child>),
}

/// Collects rollouts of all groups.
pub struct Collector {
    spec: CollectorSpec,
    crew: Crew,
    groups: usize,
    rollout: u64,
    /// Failures in this session.
    faults: u64,
    /// A rollout that failed leaves environments in the middle of it: a resumed run begins new episodes.
    adrift: bool,
}

fn run_job(policy: &mut ActorCritic, job: Job) -> Done {
    let Job { mut group, snapshot, rollout } = job;
    let result = policy.restore(&snapshot).and_then(|()| group.collect(policy, rollout));
    (group, result)
}

/// Threads that share the groups: whoever is free takes the next one.
struct Threads {
    groups: Vec<Option<Group>>,
    jobs: Option<Sender<Job>>,
    results: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(policy: &PolicySpec, count: usize, groups: Vec<Group>) -> Result<Self> {
        let (jobs, queue) = unbounded::<Job>();
        let (answers, results) = unbounded();
        let threads = (0..count)
            .map(|index| {
                let (queue, answers, mut policy) = (queue.clone(), answers.clone(), blank(policy)?);
                let work = move || {
                    // More than one intra-op thread here oversubscribes the cores: measured to cost 40×.
                    tch::set_num_threads(1);
                    for job in queue {
                        if answers.send(run_job(&mut policy, job)).is_err() {
                            return;
                        }
                    }
                };
                std::thread::Builder::new()
                    .name(format!("rollout-{index}"))
                    .spawn(work)
                    .map_err(|error| Error::Invalid(format!("cannot start rollout threads: {error}")))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { groups: groups.into_iter().map(Some).collect(), jobs: Some(jobs), results, threads })
    }

    fn collect(&mut self, policy: &ActorCritic, rollout: u64) -> Result<()> {
        let gone = || Error::Invalid("the rollout threads are gone".into());
        let snapshot = Arc::new(policy.snapshot());
        let taken: Vec<Group> = self.groups.iter_mut().filter_map(Option::take).collect();
        let count = taken.len();
        for group in taken {
            let job = Job { group, snapshot: snapshot.clone(), rollout };
            self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        }
        let mut first_failed = Ok(());
        for _ in 0..count {
            let (group, result) = self.results.recv().map_err(|_| gone())?;
            let index = group.rollout.place.index;
            self.groups[index] = Some(group);
            first_failed = first_failed.and(result);
        }
        first_failed
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs = None; // closes the queue: the threads' loops end
        for thread in self.threads.drain(..) {
            // A thread that panicked has already reported it through its last answer.
            let _ = thread.join();
        }
    }
}

/// Where groups of these sizes stand.
fn places(sizes: &[usize]) -> Vec<Place> {
    let mut first = 0;
    let place = |(index, &envs): (usize, &usize)| {
        first += envs;
        Place { index, first: first - envs, envs }
    };
    sizes.iter().enumerate().map(place).collect()
}

/// Whether all have masks or none.
fn all_or_none(masked: &[bool]) -> Result<bool> {
    match masked.iter().filter(|masked| **masked).count() {
        0 => Ok(false),
        all if all == masked.len() => Ok(true),
        _ => Err(Error::Invalid("some of the environments have action masks and some not".into())),
    }
}

impl Collector {
    /// A collector over `groups`, each reset to its first episode; starts the worker threads. Whether the
    /// environments have action masks shows only then: see [`Collector::policy`].
    ///
    /// # Errors
    /// Environments whose spaces do not fit the policy, or that fail to reset.
    pub fn new(mut spec: CollectorSpec, groups: Vec<Box<dyn VecEnv>>) -> Result<Self> {
        check_stack(&spec.policy.observation, spec.frame_stack)?;
        let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let built = groups.into_iter().zip(places(&sizes)).map(|(envs, place)| {
            let rollout = Rollout::new(place, spec.steps, &spec.policy, spec.frame_stack, &mut Memory::Own);
            let mut group = Group::new(envs, spec.seed, &spec.policy, spec.frame_stack, rollout)?;
            group.random_rollouts = spec.random_rollouts;
            Ok(group)
        });
        let built = built.collect::<Result<Vec<_>>>()?;
        spec.policy.masked = all_or_none(&built.iter().map(|group| group.masked).collect::<Vec<_>>())?;
        // More threads than groups would only wait.
        let crew = match spec.workers.min(built.len()) {
            0 => Crew::Caller(Box::new(blank(&spec.policy)?), built),
            count => Crew::Threads(Threads::start(&spec.policy, count, built)?),
        };
        Ok(Self { spec, crew, groups: sizes.len(), rollout: 0, faults: 0, adrift: false })
    }

    /// As [`Collector::new`], with processes in place of threads, which make their groups of `sizes` environments
    /// themselves. They end with this process; call it from a thread that lives as long as the collector.
    ///
    /// # Errors
    /// Processes that cannot be started, and what is wrong with their environments.
    pub fn in_processes(mut spec: CollectorSpec, launch: Launch, sizes: &[usize]) -> Result<Self> {
        check_stack(&spec.policy.observation, spec.frame_stack)?;
        let launch = Arc::new(launch);
        let count = spec.workers.clamp(1, sizes.len());
        let places = places(sizes);
        let children = (0..count).map(|child| {
            let own = places.iter().skip(child).step_by(count).copied().collect();
            Child::start(launch.clone(), &spec, own)
        });
        let children = children.collect::<Result<Vec<_>>>()?;
        let masked: Vec<bool> = children.iter().flat_map(|child| child.masked.iter().copied()).collect();
        spec.policy.masked = all_or_none(&masked)?;
        let crew = Crew::Processes(children);
        Ok(Self { spec, crew, groups: sizes.len(), rollout: 0, faults: 0, adrift: false })
    }

    /// The description of the policy that acts here, `masked` as the environments have it.
    pub fn policy(&self) -> &PolicySpec {
        &self.spec.policy
    }

    /// Number of environments, N.
    pub fn envs(&self) -> usize {
        self.rollouts().iter().map(|rollout| rollout.place.envs).sum()
    }

    /// Every group's rollout, in order.
    fn rollouts(&self) -> Vec<&Rollout> {
        match &self.crew {
            Crew::Caller(_, groups) => groups.iter().map(|group| &group.rollout).collect(),
            Crew::Threads(threads) => threads.groups.iter().flatten().map(|group| &group.rollout).collect(),
            Crew::Processes(children) => {
                let at = |index: usize| &children[index % children.len()].rollouts[index / children.len()];
                (0..self.groups).map(at).collect()
            }
        }
    }

    fn rollouts_mut(&mut self) -> Vec<&mut Rollout> {
        match &mut self.crew {
            Crew::Caller(_, groups) => groups.iter_mut().map(|group| &mut group.rollout).collect(),
            Crew::Threads(threads) => {
                threads.groups.iter_mut().flatten().map(|group| &mut group.rollout).collect()
            }
            Crew::Processes(children) => {
                let mut all: Vec<&mut Rollout> =
                    children.iter_mut().flat_map(|child| child.rollouts.iter_mut()).collect();
                all.sort_by_key(|rollout| rollout.place.index);
                all
            }
        }
    }

    /// Collects `[T, N]` steps with `policy`.
    ///
    /// # Errors
    /// Environments that failed too often, and panics of theirs. Later calls are refused: the environments are
    /// somewhere in the middle of a rollout.
    pub fn collect(&mut self, policy: &ActorCritic) -> Result<Collected> {
        if self.adrift {
            return Err(Error::Invalid("the last rollout failed: resume the run from its checkpoint".into()));
        }
        self.adrift = true;
        let (rollout, spare) = (self.rollout, self.spec.max_faults - self.faults);
        let mut failures = Vec::new();
        match &mut self.crew {
            Crew::Caller(own, groups) => {
                own.restore(&policy.snapshot())?;
                groups.iter_mut().try_for_each(|group| group.collect(own, rollout))?;
            }
            Crew::Threads(threads) => threads.collect(policy, rollout)?,
            Crew::Processes(children) => {
                children.iter_mut().for_each(|child| child.collect(policy, rollout));
                for child in children {
                    let lost = child.collected(policy, rollout, spare - failures.len() as u64)?;
                    failures.extend(lost);
                    if failures.len() as u64 > spare {
                        break;
                    }
                }
            }
        }
        if failures.len() as u64 <= spare {
            let events = self.rollouts().into_iter().map(|rollout| &rollout.events);
            failures.extend(events.flat_map(|events| events.failures.iter().cloned()));
        }
        self.faults += failures.len() as u64;
        if let (true, Some(last)) = (failures.len() as u64 > spare, failures.last()) {
            return Err(Error::EnvironmentsFailed { count: self.faults, last: last.clone() });
        }
        for failure in &failures {
            tracing::warn!("{failure}; it is begun anew, and nothing is learnt from the broken episode");
        }
        let batch = self.assemble();
        let rollouts = self.rollouts();
        let finished = rollouts.iter().flat_map(|rollout| rollout.events.finished.iter().cloned()).collect();
        self.rollouts_mut().into_iter().for_each(Rollout::carry);
        self.rollout += 1;
        self.adrift = false;
        Ok(Collected { batch, finished, failures })
    }

    /// The one copy of a rollout: groups side by side along N.
    fn assemble(&self) -> Batch {
        let rollouts = self.rollouts();
        let join = |field: fn(&Rollout) -> &Tensor| {
            Tensor::cat(&rollouts.iter().map(|rollout| field(rollout)).collect::<Vec<_>>(), 1)
        };
        let (steps, envs, stack) = (self.spec.steps as i64, self.envs(), self.spec.frame_stack);
        let index: Vec<i64> = rollouts
            .iter()
            .flat_map(|rollout| {
                let first = rollout.place.first;
                rollout.events.final_at.iter().map(move |&(t, env)| (t * envs + first + env) as i64)
            })
            .collect();
        let finals = |field: fn(&Rollout) -> &Tensor| {
            Tensor::cat(&rollouts.iter().map(|rollout| field(rollout)).collect::<Vec<_>>(), 0)
        };
        Batch {
            lead: Lead::Time { steps, envs: envs as i64 },
            observations: join(|r| r.observation.tensor()),
            stacking: (stack > 1)
                .then(|| Stacking { frames: stack, earlier: join(|r| r.observation.earlier()) }),
            action: join(|r| r.action.tensor()),
            action_mask: self
                .spec
                .policy
                .masked
                .then(|| join(|r| r.action_mask.tensor()).narrow(0, 0, steps)),
            log_prob: Some(join(|r| r.log_prob.tensor())),
            values: Some(join(|r| r.value.tensor())),
            memory: (self.spec.policy.memory_size() > 0).then(|| join(|r| r.memory.tensor()).get(0)),
            reward: join(|r| r.reward.tensor()),
            terminated: join(|r| r.terminated.tensor()),
            truncated: join(|r| r.truncated.tensor()),
            absorbing: None,
            start: join(|r| r.start.tensor()),
            elapsed: Some(join(|r| r.elapsed.tensor())),
            valid: join(|r| r.valid.tensor()),
            ends: Some(Ends {
                index: Tensor::from_slice(&index),
                observation: finals(|r| r.final_observation.tensor()),
                value: finals(|r| &r.final_value),
            }),
        }
    }

    /// Where every group stands. After a failed rollout: before new episodes.
    fn standings(&mut self) -> Result<Vec<Standing>> {
        let adrift = self.adrift;
        let afresh = |standing: Standing| match adrift {
            true => Standing::afresh(&standing.envs.iter().map(|(episode, _)| *episode).collect::<Vec<_>>()),
            false => standing,
        };
        match &mut self.crew {
            Crew::Caller(_, groups) => Ok(groups.iter().map(|group| afresh(group.standing())).collect()),
            Crew::Threads(threads) => {
                Ok(threads.groups.iter().flatten().map(|group| afresh(group.standing())).collect())
            }
            Crew::Processes(children) => {
                let each = children.iter_mut().map(|child| match adrift {
                    true => Ok(child.standings_afresh()),
                    false => child.standings(),
                });
                let mut each: Vec<_> =
                    each.collect::<Result<Vec<_>>>()?.into_iter().map(Vec::into_iter).collect();
                let count = each.len();
                Ok((0..self.groups).filter_map(|index| each[index % count].next()).collect())
            }
        }
    }

    /// Brings every group to where it stood; how many environments of each could not be.
    fn stand(&mut self, standings: Vec<Standing>) -> Result<Vec<usize>> {
        match &mut self.crew {
            Crew::Caller(_, groups) => {
                groups.iter_mut().zip(standings).map(|(group, standing)| group.stand(standing)).collect()
            }
            Crew::Threads(threads) => {
                let groups = threads.groups.iter_mut().flatten();
                groups.zip(standings).map(|(group, standing)| group.stand(standing)).collect()
            }
            Crew::Processes(children) => {
                let mut restarted = vec![0; self.groups];
                let count = children.len();
                for (first, child) in children.iter_mut().enumerate() {
                    let own = standings.iter().skip(first).step_by(count).cloned().collect();
                    for (i, restarts) in child.stand(own)?.into_iter().enumerate() {
                        restarted[first + i * count] = restarts;
                    }
                }
                Ok(restarted)
            }
        }
    }

    /// Saves or restores every environment and the rollout counter, at a moment between rollouts.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("rollout", &mut self.rollout)?;
        let space = self.spec.policy.observation.clone();
        let mut standings = self.standings()?;
        for (rollout, standing) in self.rollouts_mut().into_iter().zip(&mut standings) {
            state.scope(&format!("group{}", rollout.place.index), |state| {
                state.list("starts", &mut standing.starts)?;
                state.list("returns", &mut standing.returns)?;
                state.list("lengths", &mut standing.lengths)?;
                let mut first_row = rollout.observation.first();
                state.tensor("observation", &mut first_row)?;
                if let Some(env) = first_row_outside(&space, &first_row) {
                    return Err(Error::Invalid(format!(
                        "the saved observation of environment {env} lies outside {space}"
                    )));
                }
                if state.is_loading() {
                    rollout.observation.set_first(&first_row);
                }
                if !rollout.memory.is_empty() {
                    let mut memory = rollout.memory.tensor().get(0).copy();
                    state.tensor("memory", &mut memory)?;
                    rollout.memory.tensor().get(0).copy_(&memory);
                }
                state.value("envs", &mut standing.envs)
            })?;
        }
        if state.is_loading() {
            for (group, restarted) in self.stand(standings)?.into_iter().enumerate().filter(|(_, n)| *n > 0) {
                tracing::warn!(
                    "{restarted} environments of group {group} cannot restore their state: they begin new episodes, \
                     and what follows is not bit for bit what an uninterrupted run would have been"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod masked;
#[cfg(test)]
mod stacked;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::slice;
    use crate::nn::{BoxHead, CellKind, MemorySpec, TorsoSpec};
    use crate::{Stream, allocations};
    use imago_envs::{Each, Env, Leaf, LeafMut, Space, Step};
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
            box_head: BoxHead::Gaussian,
            memory: None,
        };
        CollectorSpec { policy, steps, frame_stack: 1, workers, seed: 5, max_faults: 0, random_rollouts: 0 }
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
        (0..3).flat_map(|_| collector.collect(&policy).unwrap().batch.tensors()).collect()
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
    fn random_rollouts_fill_the_box_and_then_the_policy_acts() {
        let acted = |workers, random_rollouts| {
            let spec = CollectorSpec { random_rollouts, ..spec(workers, 50) };
            let policy = policy(&spec);
            let mut collector = Collector::new(spec, vec![group(2, false), group(1, false)]).unwrap();
            let mut actions =
                || Vec::<f32>::try_from(collector.collect(&policy).unwrap().batch.action.view(-1)).unwrap();
            [actions(), actions()]
        };
        let [first, second] = acted(0, 1);
        assert!(first.iter().all(|x| x.abs() <= 0.01), "uniform over the box");
        assert!(first.iter().any(|x| *x > 0.008) && first.iter().any(|x| *x < -0.008));
        assert_eq!(second, acted(0, 0)[1], "the policy's own, as if nothing had been before");
        assert_eq!(acted(2, 1), [first, second], "with threads");
    }

    #[test]
    fn ends_keep_the_true_final_observation_and_value() {
        for terminates in [false, true] {
            let spec = spec(0, 4);
            let policy = policy(&spec);
            let mut collector =
                Collector::new(spec, vec![group(1, terminates), group(2, terminates)]).unwrap();
            let Collected { batch, finished, .. } = collector.collect(&policy).unwrap();
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
            let elapsed = batch.elapsed.as_ref().unwrap().select(1, 0);
            assert_eq!(Vec::<i64>::try_from(elapsed).unwrap(), [0, 1, 2, 0, 1]);
            assert_eq!(flag(&batch.terminated), [false, false, terminates, false]);
            assert_eq!(flag(&batch.truncated), [false, false, !terminates, false]);
            let wanted = Finished { episode_return: 6.0, length: 3, terminated: terminates, metrics: vec![] };
            assert_eq!(finished, vec![wanted; 3]);
            // Followed by the next row's value, or at the end by the final observation's.
            let (values, next) = (batch.values.as_ref().unwrap(), batch.next_values().unwrap());
            assert_eq!(next.get(0), values.get(1));
            assert_eq!(next.get(3), values.get(4));
            assert_eq!(next.get(2), ends.value);
            assert!((&ends.value - policy.value(&ends.observation)).abs().max().double_value(&[]) < 1e-6);
            // A rollout begins where the last one stopped.
            let following = collector.collect(&policy).unwrap().batch;
            assert_eq!(following.observations.get(0), batch.observations.get(4));
        }
    }

    /// What a final observation is worth depends on its whole episode and on no other.
    #[test]
    fn final_values_remember_their_episode() {
        for kind in [CellKind::Lstm, CellKind::Gru] {
            let mut spec = spec(2, 8);
            spec.policy.memory = Some(MemorySpec { kind, units: 4 });
            let policy = policy(&spec);
            let mut collector = Collector::new(spec, vec![group(1, false), group(2, false)]).unwrap();
            for rollout in 0..2 {
                let batch = collector.collect(&policy).unwrap().batch;
                let ends = batch.ends.as_ref().unwrap();
                let index = Vec::<i64>::try_from(&ends.index).unwrap();
                // Episodes of three steps: the second rollout begins in the middle of one.
                let steps: &[i64] = if rollout == 0 { &[2, 5] } else { &[0, 3, 6] };
                assert_eq!(index.len(), 3 * steps.len());
                for (i, &(t, env)) in
                    index.iter().map(|at| (at / 3, at % 3)).collect::<Vec<_>>().iter().enumerate()
                {
                    assert!(steps.contains(&t), "{t}");
                    if t < 2 {
                        continue;
                    }
                    let episode = batch.observations.narrow(0, t - 2, 3).select(1, env);
                    let seen = Tensor::cat(&[episode, ends.observation.narrow(0, i as i64, 1)], 0);
                    let (_, values, _) = policy.forward_sequence(&seen, None, &policy.no_memory(1), None);
                    let difference = (values.get(3) - ends.value.get(i as i64)).abs().max().double_value(&[]);
                    assert!(difference < 1e-5, "{kind:?} {t} {env}: {difference}");
                    let forgetful = policy.value(&ends.observation.narrow(0, i as i64, 1)).get(0);
                    assert!(
                        (forgetful - values.get(3)).abs().max().double_value(&[]) > 1e-4,
                        "no memory needed"
                    );
                }
                // The values and probabilities that were written down, from the memory of the rollout's beginning.
                let memory = batch.memory.as_ref().unwrap();
                let seen = batch.flat_observation();
                let (decided, values, _) = policy.forward_sequence(&seen, None, memory, Some(&batch.start));
                let written = batch.values.as_ref().unwrap().narrow(0, 0, 8).reshape([24, 2]);
                assert!((values - written).abs().max().double_value(&[]) < 1e-5);
                let log_prob =
                    decided.log_prob(&batch.flat_action()) - batch.log_prob.as_ref().unwrap().view(-1);
                assert!(log_prob.abs().max().double_value(&[]) < 1e-4);
            }
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

    /// Steps as [`Counter`], but fails in every step of an episode from the second on whose seed is odd.
    struct Failing(Counter, u64);

    impl Env for Failing {
        fn observation_space(&self) -> &Space {
            self.0.observation_space()
        }
        fn action_space(&self) -> &Space {
            self.0.action_space()
        }
        fn reset(&mut self, seed: u64, observation: LeafMut) -> imago_envs::Result<()> {
            self.1 = seed;
            self.0.reset(seed, observation)
        }
        fn step(&mut self, action: Leaf, observation: LeafMut) -> imago_envs::Result<Step> {
            if self.1 % 2 == 1 && self.0.seen[1] == 1.0 {
                let message = "it fell to pieces".into();
                return Err(imago_envs::Error::Contract { id: "Failing".into(), message });
            }
            self.0.step(action, observation)
        }
    }

    fn failing(max_faults: u64) -> (Collector, ActorCritic) {
        let spec = CollectorSpec { max_faults, ..spec(0, 40) };
        let policy = policy(&spec);
        let PolicySpec { observation, action, .. } = spec.policy.clone();
        let make = move || {
            let (observation, action) = (observation.clone(), action.clone());
            Ok(Failing(Counter { observation, action, seen: [0.0; 2], terminates: true }, 0))
        };
        (Collector::new(spec, vec![Box::new(Each::made_by(2, make).unwrap())]).unwrap(), policy)
    }

    #[test]
    fn broken_episodes_are_not_valid_and_whole_ones_are() {
        let (mut collector, policy) = failing(1000);
        let Collected { batch, finished, failures } = collector.collect(&policy).unwrap();
        let flag = |tensor: &Tensor, env: i64| Vec::<bool>::try_from(tensor.select(1, env)).unwrap();
        for env in 0..2 {
            let (valid, start) = (flag(&batch.valid, env), flag(&batch.start, env));
            let seen = |t: usize| Vec::<f32>::try_from(batch.observations.get(t as i64).get(env)).unwrap();
            // An episode that breaks has two rows, the first of which was good until the second one failed.
            let mut t = 0;
            while t < 40 {
                assert!(start[t] && seen(t)[1] == 0.0, "row {t}");
                // The seed modulo 1000 is as odd as the seed.
                let (rows, good) = if seen(t)[0] % 2.0 == 1.0 { (2, false) } else { (3, true) };
                let end = (t + rows).min(40);
                if end - t == rows || good {
                    assert!(valid[t..end].iter().all(|&valid| valid == good), "rows {t} to {end}");
                }
                t = end;
            }
        }
        assert!(!failures.is_empty() && !finished.is_empty());
        assert!(finished.iter().all(|finished| finished.length == 3 && finished.episode_return == 6.0));
        assert!(failures.iter().all(|failure| failure.seed % 2 == 1 && failure.step == 1));
        assert!(failures[0].to_string().contains("fell to pieces"), "{}", failures[0]);
    }

    #[test]
    fn too_many_failures_end_the_run_and_leave_a_state_to_resume() {
        let (mut collector, policy) = failing(2);
        let error = collector.collect(&policy).unwrap_err();
        assert!(error.spares_the_learner(), "{error}");
        assert!(error.to_string().contains("max_faults"), "{error}");
        assert!(collector.collect(&policy).is_err(), "its environments are in the middle of a rollout");
        let mut saving = State::saving();
        collector.state(&mut saving).unwrap();
        let (tensors, values) = saving.finish().unwrap();
        let (mut resumed, _) = failing(1000);
        let mut loading = State::loading(tensors.into_iter().collect(), values);
        resumed.state(&mut loading).unwrap();
        let batch = resumed.collect(&policy).unwrap().batch;
        assert_eq!(Vec::<bool>::try_from(batch.start.get(0)).unwrap(), [true, true]);
    }

    #[test]
    fn stepping_and_writing_allocate_nothing() {
        let spec = spec(0, 16);
        let policy = policy(&spec);
        let place = Place { index: 0, first: 0, envs: 4 };
        let rollout = Rollout::new(place, 16, &spec.policy, 1, &mut Memory::Own);
        let mut group = Group::new(group(4, false), 5, &spec.policy, 1, rollout).unwrap();
        group.collect(&policy, 0).unwrap();
        group.begin();
        let before = allocations::in_this_thread();
        for t in 0..16 {
            group.step(t).unwrap();
        }
        assert_eq!(allocations::in_this_thread() - before, 0);
        assert!(!group.rollout.events.finished.is_empty(), "ends are part of it");
    }
}
