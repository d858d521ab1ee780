//! Rollout workers in processes of their own: for environments that hold Python's lock while they step, and for those
//! that may hang or die.
//!
//! A child is this same program. It makes its groups of environments and a policy from the same descriptions, collects
//! into memory that both processes see, and is told the weights there. Messages travel over its standard input, a
//! socket. Nothing that is collected depends on which process did it.

use super::collect::CollectorSpec;
use super::group::{Events, Failure, Group, Place, Rollout, Standing};
use super::shared::{Memory, SharedFile};
use super::watchdog::IDLE;
use crate::memory::{Column, slice_mut};
use crate::nn::{ActorCritic, PolicySpec, RunningNorm};
use crate::random::Stream;
use crate::run::{end_with_parent, profile};
use crate::{Error, Result};
use imago_envs::{EnvSpec, VecEnv};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// How children are made and watched.
pub struct Launch {
    /// What they step.
    pub env: EnvSpec,
    /// The command line of a process that calls [`serve`].
    pub command: Box<dyn Fn() -> Command + Send + Sync>,
    /// A child that takes longer than this over one step of its group is taken for dead and replaced.
    pub patience: Duration,
}

/// At least so long may a child take over making its environments: Python's packages are read from the disk.
const BEGINNING: Duration = Duration::from_secs(120);

/// Makes a group of so many environments.
pub type MakeGroup<'a> = &'a dyn Fn(&EnvSpec, usize) -> imago_envs::Result<Box<dyn VecEnv>>;

/// Everything a child has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Assignment {
    env: EnvSpec,
    policy: PolicySpec,
    steps: usize,
    frame_stack: usize,
    seed: u64,
    random_rollouts: u64,
    places: Vec<Place>,
    /// File and size of the memory for weights and rollouts; whose process it is.
    memory: String,
    parent: u32,
}

/// To a child. The first one is `Begin`.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Begin(Box<Assignment>),
    Collect { rollout: u64, normaliser: Option<RunningNorm>, profile: bool },
    Stand(Vec<Standing>),
    Standing,
}

/// From a child, one for each question.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// Whether the environments say what they allow.
    Begun {
        masked: Vec<bool>,
    },
    /// Behind it, for each group: final observations, then their values, as bytes.
    Collected {
        events: Vec<Events>,
        environment: Duration,
        inference: Duration,
    },
    /// Environments that could not take their state back, of each group.
    Stood {
        restarted: Vec<usize>,
    },
    Standing(Vec<Standing>),
    /// It cannot go on.
    Failed {
        message: String,
    },
}

/// Writes a message: its length and that of what follows behind it, JSON, bytes.
fn send<T: Serialize>(to: &UnixStream, message: &T, bytes: &[u8]) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(16 + json.len() + bytes.len());
    frame.extend((json.len() as u64).to_le_bytes());
    frame.extend((bytes.len() as u64).to_le_bytes());
    frame.extend(json);
    frame.extend(bytes);
    let mut rest = &frame[..];
    while !rest.is_empty() {
        // Not `write`: where nobody reads any more, that would raise SIGPIPE, and the program ends quietly by it.
        match rustix::net::send(to, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads what [`send`] wrote. The end of the stream is an error of kind `UnexpectedEof`.
fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> io::Result<(T, Vec<u8>)> {
    let mut lengths = [[0; 8]; 2];
    for length in &mut lengths {
        from.read_exact(length)?;
    }
    let [json, bytes] = lengths.map(|length| u64::from_le_bytes(length) as usize);
    let mut message = vec![0; json];
    from.read_exact(&mut message)?;
    let mut behind = vec![0; bytes];
    from.read_exact(&mut behind)?;
    Ok((serde_json::from_slice(&message)?, behind))
}

/// The columns that both sides see, in the same order on both: the weights, then the rollouts.
fn lay_out(assignment: &Assignment, weights: usize, memory: &mut Memory) -> (Column<f32>, Vec<Rollout>) {
    let weights = memory.column(&[weights as i64]);
    let rollout =
        |&place| Rollout::new(place, assignment.steps, &assignment.policy, assignment.frame_stack, memory);
    (weights, assignment.places.iter().map(rollout).collect())
}

/// A policy to be overwritten by a snapshot.
pub(super) fn blank(policy: &PolicySpec) -> Result<ActorCritic> {
    ActorCritic::new(policy.clone(), &mut Stream::new(0, "overwritten", 0, 0))
}

/// The life of a child: answers what its standard input asks until that ends.
///
/// # Errors
/// Standard input that is no such socket. What goes wrong with the environments is told to the parent.
pub fn serve(make: MakeGroup) -> Result<()> {
    let lost = |error| Error::io("talk through", Path::new("standard input"))(error);
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(lost)?;
    let socket = UnixStream::from(socket);
    // What environments start inherits standard input, and would hold the socket open when this process is dead.
    let nothing = File::open("/dev/null").map_err(lost)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| lost(error.into()))?;
    let (Ask::Begin(assignment), _) = receive(&socket).map_err(lost)? else {
        return Err(Error::Invalid("this command is for the program's own use".into()));
    };
    // Whatever this process is doing, it goes with its parent.
    if !end_with_parent(assignment.parent)? {
        return Ok(());
    }
    tch::set_num_threads(1);
    let mut worker = match Worker::begin(&assignment, make) {
        Ok(worker) => worker,
        Err(error) => {
            return send(&socket, &Answer::Failed { message: error.to_string() }, &[]).map_err(lost);
        }
    };
    let masked = worker.groups.iter().map(|group| group.masked).collect();
    send(&socket, &Answer::Begun { masked }, &[]).map_err(lost)?;
    loop {
        let ask = match receive::<Ask>(&socket) {
            Ok((ask, _)) => ask,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(lost(error)),
        };
        let (answer, bytes) = worker
            .answer(ask)
            .unwrap_or_else(|error| (Answer::Failed { message: error.to_string() }, Vec::new()));
        send(&socket, &answer, &bytes).map_err(lost)?;
    }
}

/// What a child has.
struct Worker {
    policy: ActorCritic,
    weights: Column<f32>,
    groups: Vec<Group>,
}

impl Worker {
    fn begin(assignment: &Assignment, make: MakeGroup) -> Result<Self> {
        let weights = blank(&assignment.policy)?.parameters.weights.numel();
        let mut memory = SharedFile::open(Path::new(&assignment.memory))?.memory();
        let (weights, rollouts) = lay_out(assignment, weights, &mut memory);
        let groups = rollouts.into_iter().map(|rollout| {
            let envs = make(&assignment.env, rollout.place.envs)?;
            let mut group =
                Group::new(envs, assignment.seed, &assignment.policy, assignment.frame_stack, rollout)?;
            group.random_rollouts = assignment.random_rollouts;
            Ok(group)
        });
        let groups = groups.collect::<Result<Vec<_>>>()?;
        // Whether there are masks decides by which arithmetic the policy acts: here as everywhere else.
        let masked = groups.iter().any(|group| group.masked);
        let policy = blank(&PolicySpec { masked, ..assignment.policy.clone() })?;
        Ok(Self { policy, weights, groups })
    }

    fn answer(&mut self, ask: Ask) -> Result<(Answer, Vec<u8>)> {
        let answer = match ask {
            Ask::Begin(_) => return Err(Error::Invalid("it has begun already".into())),
            Ask::Collect { rollout, normaliser, profile } => {
                if profile && !profile::is_on() {
                    profile::start();
                }
                self.policy.parameters.copy_from(&self.weights)?;
                self.policy.normaliser = normaliser;
                let before = profile::rollout_seconds();
                self.groups.iter_mut().try_for_each(|group| group.collect(&self.policy, rollout))?;
                let [environment, inference] = profile::rollout_seconds();
                let mut behind = Vec::new();
                for Group { rollout, .. } in &self.groups {
                    behind.extend(rollout.final_observation.bytes());
                    behind
                        .extend(bytemuck::cast_slice::<f32, u8>(crate::memory::slice(&rollout.final_value)));
                }
                let events = self.groups.iter().map(|group| group.rollout.events.clone()).collect();
                let (environment, inference) = (environment - before[0], inference - before[1]);
                return Ok((Answer::Collected { events, environment, inference }, behind));
            }
            Ask::Stand(standings) => {
                let groups = self.groups.iter_mut().zip(standings);
                let restarted = groups.map(|(group, standing)| group.stand(standing));
                Answer::Stood { restarted: restarted.collect::<Result<_>>()? }
            }
            Ask::Standing => Answer::Standing(self.groups.iter().map(Group::standing).collect()),
        };
        Ok((answer, Vec::new()))
    }
}

/// A child process as its parent sees it.
pub(super) struct Child {
    launch: Arc<Launch>,
    assignment: Assignment,
    process: std::process::Child,
    socket: UnixStream,
    /// The child finds it through this process.
    _file: SharedFile,
    weights: Column<f32>,
    /// Of its groups, in the memory that both see.
    pub rollouts: Vec<Rollout>,
    pub masked: Vec<bool>,
    /// Episodes are numbered from this × 2³² on: one more after each replacement, so that none is played twice.
    era: u64,
    /// Losses outside of rollouts, which the next one reports.
    unreported: Vec<Failure>,
}

/// Why a child did not answer.
enum Silence {
    /// It is gone, or was given up: somebody may take its place.
    Lost(String),
    /// It says that it cannot go on.
    Failed(String),
}

impl Child {
    /// Starts a process for the groups at `places`.
    ///
    /// # Errors
    /// It cannot be started, or cannot make its environments.
    pub fn start(launch: Arc<Launch>, spec: &CollectorSpec, places: Vec<Place>) -> Result<Self> {
        let mut assignment = Assignment {
            env: launch.env.clone(),
            policy: spec.policy.clone(),
            steps: spec.steps,
            frame_stack: spec.frame_stack,
            seed: spec.seed,
            random_rollouts: spec.random_rollouts,
            places,
            memory: String::new(),
            parent: std::process::id(),
        };
        let weights = blank(&spec.policy)?.parameters.weights.numel();
        let mut counted = Memory::Counted(0);
        lay_out(&assignment, weights, &mut counted);
        let Memory::Counted(bytes) = counted else { unreachable!("nothing changes its kind") };
        let file = SharedFile::create(bytes)?;
        assignment.memory = file.path();
        let (weights, rollouts) = lay_out(&assignment, weights, &mut file.memory());
        let (process, socket) = spawn(&launch)?;
        let mut child = Self {
            launch,
            assignment,
            process,
            socket,
            _file: file,
            weights,
            rollouts,
            masked: Vec::new(),
            era: 0,
            unreported: Vec::new(),
        };
        child.begin().map_err(|silence| child.error(silence))?;
        Ok(child)
    }

    fn begin(&mut self) -> Result<(), Silence> {
        self.ask(&Ask::Begin(Box::new(self.assignment.clone())));
        match self.answer(self.launch.patience.max(BEGINNING))? {
            (Answer::Begun { masked }, _) => self.masked = masked,
            (other, _) => return Err(unexpected(&other)),
        }
        Ok(())
    }

    /// Sends a question. If nobody is there to read it, nobody will answer, which is found out then.
    fn ask(&self, ask: &Ask) {
        if let Err(error) = send(&self.socket, ask, &[]) {
            tracing::debug!("rollout process {}: {error}", self.process.id());
        }
    }

    /// Waits for the answer, as long as there is a sign of life within `patience`.
    fn answer(&mut self, patience: Duration) -> Result<(Answer, Vec<u8>), Silence> {
        let pulse = |child: &Self| -> Vec<i64> {
            child.rollouts.iter().map(|rollout| rollout.pulse.at.atomic(0).load(Ordering::Relaxed)).collect()
        };
        let (mut alive, mut last) = (Instant::now(), pulse(self));
        while !self.readable(patience.min(Duration::from_millis(500))) {
            let now = pulse(self);
            if now != last {
                (alive, last) = (Instant::now(), now);
            } else if self.process.try_wait().is_ok_and(|ended| ended.is_some())
                && !self.readable(Duration::ZERO)
            {
                // Dead, though somebody that it started still holds its end of the socket.
                break;
            } else if alive.elapsed() >= patience && !self.readable(Duration::ZERO) {
                let seconds = patience.as_secs_f64();
                return Err(Silence::Lost(format!("its process did not come back within {seconds} s")));
            }
        }
        if !self.readable(Duration::ZERO) {
            return Err(self.died());
        }
        match receive(&self.socket) {
            Ok((Answer::Failed { message }, _)) => Err(Silence::Failed(message)),
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Silence::Failed(format!("its answer is damaged: {error}")))
            }
            Err(_) => Err(self.died()),
        }
    }

    /// How it ended. The socket closes a moment before the process can be asked.
    fn died(&mut self) -> Silence {
        self.kill();
        let ended = self.process.wait().map_or_else(|error| error.to_string(), |how| how.to_string());
        Silence::Lost(format!("its process died ({ended})"))
    }

    fn readable(&self, within: Duration) -> bool {
        let timeout = Timespec::try_from(within).ok();
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        // An interrupted wait is a wait that is over too early.
        poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Lets it collect; [`Child::collected`] waits for it.
    pub fn collect(&mut self, policy: &ActorCritic, rollout: u64) {
        self.weights.copy_from_slice(crate::memory::slice(&policy.parameters.weights));
        let normaliser = policy.normaliser.clone();
        self.ask(&Ask::Collect { rollout, normaliser, profile: profile::is_on() });
    }

    /// Waits until it has collected. A process that dies or hangs is replaced, up to `spare` times, by one that
    /// begins new episodes and collects the whole rollout again. Returns what was lost in that way: if it is more than
    /// `spare`, nothing was collected.
    ///
    /// # Errors
    /// Environments that cannot be begun anew.
    pub fn collected(&mut self, policy: &ActorCritic, rollout: u64, spare: u64) -> Result<Vec<Failure>> {
        let mut lost = std::mem::take(&mut self.unreported);
        loop {
            let message = match self.answer(self.launch.patience) {
                Ok((Answer::Collected { events, environment, inference }, behind)) => {
                    profile::add(profile::Phase::Environment, environment);
                    profile::add(profile::Phase::Inference, inference);
                    self.take(events, &behind)?;
                    return Ok(lost);
                }
                Ok((other, _)) => return Err(self.error(unexpected(&other))),
                Err(Silence::Failed(message)) => return Err(self.error(Silence::Failed(message))),
                Err(Silence::Lost(message)) => message,
            };
            lost.push(self.give_up(message));
            if lost.len() as u64 > spare {
                return Ok(lost);
            }
            self.replace()?;
            self.collect(policy, rollout);
        }
    }

    /// Ends it; what it was at.
    fn give_up(&mut self, message: String) -> Failure {
        self.end();
        let at_work = |rollout: &&Rollout| rollout.pulse.at.atomic(0).load(Ordering::Relaxed) != IDLE;
        self.rollouts.iter().find(at_work).unwrap_or(&self.rollouts[0]).stuck(message)
    }

    /// Another process, whose episodes are numbered apart from the lost ones.
    fn replace(&mut self) -> Result<()> {
        (self.process, self.socket) = spawn(&self.launch)?;
        self.begin().map_err(|silence| self.error(silence))?;
        let standings = self.standings_afresh();
        self.stand(standings).map(drop)
    }

    /// Where its groups stand if nobody knows where they were.
    pub fn standings_afresh(&self) -> Vec<Standing> {
        let after = (self.era + 1) << 32;
        self.assignment.places.iter().map(|place| Standing::afresh(&vec![after; place.envs])).collect()
    }

    fn take(&mut self, events: Vec<Events>, mut behind: &[u8]) -> Result<()> {
        let policy = &self.assignment.policy;
        let damaged = || Error::Invalid("a rollout process sent too little".into());
        for (rollout, events) in self.rollouts.iter_mut().zip(events) {
            let count = events.final_at.len();
            let mut observation = Memory::Own.leaves(&[count], &policy.observation);
            let mut value =
                Tensor::zeros([count as i64, policy.value_heads as i64], (Kind::Float, Device::Cpu));
            let (first, rest) = behind.split_at_checked(observation.bytes().len()).ok_or_else(damaged)?;
            observation.copy_bytes(first);
            let values: &mut [u8] = bytemuck::cast_slice_mut(slice_mut::<f32>(&mut value));
            let (first, rest) = rest.split_at_checked(values.len()).ok_or_else(damaged)?;
            values.copy_from_slice(first);
            behind = rest;
            (rollout.events, rollout.final_observation, rollout.final_value) = (events, observation, value);
        }
        Ok(())
    }

    /// Where each of its groups is. If it is gone, another process takes its place first.
    ///
    /// # Errors
    /// Environments that cannot be begun anew.
    pub fn standings(&mut self) -> Result<Vec<Standing>> {
        for replaceable in [true, false] {
            self.ask(&Ask::Standing);
            match self.answer(self.launch.patience.max(BEGINNING)) {
                Ok((Answer::Standing(standings), _)) => return Ok(standings),
                Ok((other, _)) => return Err(self.error(unexpected(&other))),
                Err(Silence::Lost(message)) if replaceable => {
                    let failure = self.give_up(message);
                    self.unreported.push(failure);
                    self.replace()?;
                }
                Err(silence) => return Err(self.error(silence)),
            }
        }
        unreachable!("the second answer is returned")
    }

    /// Its groups go back to where they were; how many environments of each could not.
    ///
    /// # Errors
    /// Whatever the environments report.
    pub fn stand(&mut self, standings: Vec<Standing>) -> Result<Vec<usize>> {
        let episodes = standings.iter().flat_map(|standing| &standing.envs).map(|(episode, _)| *episode);
        self.era = episodes.max().unwrap_or(0) >> 32;
        self.ask(&Ask::Stand(standings));
        match self.answer(self.launch.patience.max(BEGINNING)) {
            Ok((Answer::Stood { restarted }, _)) => Ok(restarted),
            Ok((other, _)) => Err(self.error(unexpected(&other))),
            Err(silence) => Err(self.error(silence)),
        }
    }

    fn error(&self, silence: Silence) -> Error {
        let (Silence::Lost(message) | Silence::Failed(message)) = silence;
        Error::Env(imago_envs::Error::Process { id: self.assignment.env.id.clone(), message })
    }

    fn end(&mut self) {
        // It may hang, and it holds nothing that is not also here.
        self.kill();
        let _ = self.process.wait();
    }

    /// It and the engines that it has started: its process group.
    fn kill(&mut self) {
        if let Some(group) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Told that there is nothing more to do, it closes its environments; given up if it does not.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return self.kill(),
            }
        }
        self.end();
    }
}

fn unexpected(answer: &Answer) -> Silence {
    Silence::Failed(format!("its process answered something else: {answer:?}"))
}

/// A process in a process group of its own, so that Ctrl-C reaches its parent alone.
fn spawn(launch: &Launch) -> Result<(std::process::Child, UnixStream)> {
    let spawn = || -> io::Result<_> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = (launch.command)();
        // What environments print is not the program's result.
        command.stdin(OwnedFd::from(theirs)).stdout(io::stderr()).process_group(0);
        Ok((command.spawn()?, ours))
    };
    spawn().map_err(Error::io("start", Path::new("rollout process")))
}
