//! Does an environment keep its contract, and how fast is it?

mod gymnasium;
mod rate;

use crate::env::{Env, EnvSpec};
use crate::error::{Error, Result};
use crate::gymnasium::Gymnasium;
use crate::registry::Registry;
use crate::row::RowBuf;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::any::Any;
use std::cmp::Ordering;
use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use rate::rate;

/// How much is tried.
#[derive(Clone, Debug)]
pub struct Effort {
    /// About how long all of it may take. What is slower than that (an environment whose reset takes seconds) is
    /// still reset four times and stepped.
    pub time: Duration,
    /// At most this many steps of one environment.
    pub steps: u64,
    /// Measure the rates of one environment and of a group of this many; 0: no rates.
    pub group: usize,
    /// Let Gymnasium's own checker look at its environments, too.
    pub gymnasium_checker: bool,
}

impl Effort {
    /// A look before a training: two seconds at most, only what this program's own contract asks.
    pub fn brief() -> Self {
        Self { time: Duration::from_secs(2), steps: UNENDING, group: 0, gymnasium_checker: false }
    }

    /// All there is, in about `time`.
    pub fn whole(time: Duration) -> Self {
        Self { time, steps: u64::MAX, group: 8, gymnasium_checker: true }
    }
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The contract is broken: nothing that is learnt here can be trusted.
    Violation,
    /// Allowed, but often a mistake.
    Warning,
}

/// Something an environment does that it should not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which rule it breaks, in a word: "bounds", "determinism" … A rule is reported once.
    pub rule: &'static str,
    /// What was seen, where, and what would be right.
    pub message: String,
}

/// Lengths of the episodes that ended during a check, in steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Episodes.
    pub count: u64,
    /// The shortest.
    pub shortest: u64,
    /// The median of the first 10,000.
    pub median: u64,
    /// The longest.
    pub longest: u64,
}

/// What a check has seen. Rates and memory are of this machine at that moment.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The environment.
    pub env: EnvSpec,
    /// What it shows.
    pub observation_space: Space,
    /// What it takes.
    pub action_space: Space,
    /// Steps of one environment that were taken with random actions.
    pub steps: u64,
    /// Episodes that ended in them; `None` if none did.
    pub episodes: Option<Lengths>,
    /// Steps per second of one environment, resets included. `None` if not measured.
    pub steps_per_second: Option<f64>,
    /// Environments in the group that was measured.
    pub group_size: usize,
    /// Steps per second of all in a group together, resets included. `None` if not measured.
    pub group_steps_per_second: Option<f64>,
    /// Median time of a reset in seconds.
    pub reset_seconds: Option<f64>,
    /// By how many bytes this process grew during the steps. `None` where the system does not say.
    pub memory_growth: Option<i64>,
    /// Whether it can save its state, so that a resumed run goes on in the middle of an episode.
    pub saves: bool,
    /// What is wrong, violations first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether it keeps its contract; warnings are allowed.
    pub fn passes(&self) -> bool {
        self.of(Severity::Violation).next().is_none()
    }

    /// The findings of one severity.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity == severity)
    }
}

/// After so many steps with random actions without any end, an episode is taken for endless.
const UNENDING: u64 = 10_000;
/// Steps of an episode that is repeated to see whether it repeats.
const REPEATED: usize = 500;
/// Different seeds that are tried.
const SEEDS: u64 = 8;
/// Steps of an episode by which seeds are told apart.
const BEGINNING: usize = 20;
/// Episode lengths and reset times that are kept for their medians.
const KEPT: usize = 10_000;
/// Bytes: a process that grows by less is only warming up.
const GROWTH: i64 = 32 << 20;

/// Makes the environment, steps it with random actions, and says what it found. It takes more than one instance,
/// one after another: the same seed must give the same episode in each. All are closed when it returns.
///
/// # Errors
/// The environment cannot be made: unknown, bad arguments, something missing. What it does wrong from then on is a
/// [`Finding`].
pub fn check(registry: &Registry, spec: &EnvSpec, effort: &Effort) -> Result<Report> {
    // What lies outside its space is found here, and told with the rest.
    let lenient = EnvSpec { check_bounds: false, ..spec.clone() };
    let env = registry.make(&lenient)?;
    let report = Report {
        env: lenient,
        observation_space: env.observation_space().clone(),
        action_space: env.action_space().clone(),
        steps: 0,
        episodes: None,
        steps_per_second: None,
        group_size: effort.group,
        group_steps_per_second: None,
        reset_seconds: None,
        memory_growth: None,
        saves: false,
        findings: Vec::new(),
    };
    let mut check =
        Check { registry, effort, begun: Instant::now(), report, resets: Vec::new(), doing: "make" };
    check.spaces();
    // Numbers outside such spaces could not even be drawn.
    if check.report.passes() {
        match catch_unwind(AssertUnwindSafe(|| check.trial(env))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => check.broken(&error),
            Err(panic) => {
                let message = format!("it panicked: {} ({})", said(&*panic), check.place());
                check.find(Severity::Violation, "panic", message);
            }
        }
    }
    check.resets.sort_by(f64::total_cmp);
    check.report.reset_seconds = check.resets.get(check.resets.len() / 2).copied();
    for finding in &mut check.report.findings {
        if finding.rule == "bounds" && !spec.check_bounds {
            finding.severity = Severity::Warning;
        }
    }
    check.report.findings.sort_by_key(|finding| finding.severity == Severity::Warning);
    check.report.env = spec.clone();
    Ok(check.report)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// A check on its way.
struct Check<'a> {
    registry: &'a Registry,
    effort: &'a Effort,
    begun: Instant,
    report: Report,
    /// Seconds.
    resets: Vec<f64>,
    /// What the environment was last asked for.
    doing: &'static str,
}

/// What an episode showed, each observation as a hash.
#[derive(PartialEq)]
struct Seen {
    observation: u64,
    reward: u64,
    end: (bool, bool),
}

/// One environment with its buffers.
struct Stage {
    env: Box<dyn Env>,
    observation: LeafBuf,
    action: LeafBuf,
    mask: Vec<bool>,
    rng: ChaCha8Rng,
}

impl Stage {
    fn new(env: Box<dyn Env>) -> Self {
        let observation = LeafBuf::zeros(env.observation_space(), 1);
        let action = LeafBuf::zeros(env.action_space(), 1);
        let mask = vec![true; env.action_space().choices()];
        Self { env, observation, action, mask, rng: ChaCha8Rng::seed_from_u64(0) }
    }

    fn reset(&mut self, seed: u64) -> Result<()> {
        self.env.reset(seed, self.observation.leaf_mut())
    }

    fn step(&mut self) -> Result<crate::Step> {
        // Without masks it stays what it is: all true.
        if self.env.action_mask(&mut self.mask) && !self.env.action_space().allows_an_action(&self.mask) {
            return Err(Error::Contract {
                id: self.env.id().into(),
                message: "its action mask allows no action".into(),
            });
        }
        draw(self.env.action_space(), &self.mask, &mut self.rng, self.action.leaf_mut());
        self.env.step(self.action.leaf(), self.observation.leaf_mut())
    }
}

impl Check<'_> {
    fn find(&mut self, severity: Severity, rule: &'static str, message: String) {
        let known = |finding: &Finding| finding.rule == rule && finding.severity == severity;
        if !self.report.findings.iter().any(known) {
            self.report.findings.push(Finding { severity, rule, message });
        }
    }

    /// What an error of the environment says about it.
    fn broken(&mut self, error: &Error) {
        let rule = match error {
            Error::Python { .. } => "exception",
            Error::CannotRestore { .. } => "restore",
            _ => "contract",
        };
        let place = format!("environment `{}`: ", self.report.env.id);
        let text = error.to_string();
        let text = text.strip_prefix(&place).unwrap_or(&text);
        self.find(Severity::Violation, rule, format!("{text} ({})", self.place()));
    }

    /// Where the check is.
    fn place(&self) -> String {
        match (self.doing, self.report.steps) {
            ("step", steps) => format!("in step {} of the check", steps + 1),
            (doing, 0) => format!("in the first {doing}"),
            (doing, steps) => format!("in {doing} after {steps} steps of the check"),
        }
    }

    /// Whether this share of the time has passed.
    fn past(&self, share: f64) -> bool {
        self.begun.elapsed() > self.effort.time.mul_f64(share)
    }

    fn spaces(&mut self) {
        let (observation, action) = (self.report.observation_space.clone(), self.report.action_space.clone());
        for (what, space) in [("observation", &observation), ("action", &action)] {
            for (severity, message) in faults(space) {
                self.find(severity, "spaces", format!("{what} space {space}: {message}"));
            }
        }
        if let Some(message) = uncommon_bounds(&action) {
            self.find(Severity::Warning, "action bounds", message);
        }
    }

    fn trial(&mut self, env: Box<dyn Env>) -> Result<()> {
        let mut stage = Stage::new(env);
        // An episode, another one, and the first again: nothing may be left over from the one between.
        let first = self.record(&mut stage, None, 0.1)?;
        self.reset(&mut stage, 1)?;
        self.step(&mut stage)?;
        let again = self.record(&mut stage, Some(first.len()), 1.0)?;
        // Some engines allow one instance at a time: this one is closed before the next is made.
        drop(stage);
        let mut stage = match self.registry.make(&self.report.env) {
            Ok(env) => Stage::new(env),
            Err(error) => {
                let message = format!("once one was closed, another could not be made: {error}");
                self.find(Severity::Violation, "close", message);
                return Ok(());
            }
        };
        let elsewhere = self.record(&mut stage, Some(first.len()), 1.0)?;
        self.compare(&first, &again, &elsewhere);
        self.seeds(&mut stage)?;
        self.restore(&mut stage)?;
        let memory = resident();
        self.wander(&mut stage)?;
        if self.effort.group > 0 {
            self.rate(&mut stage)?;
        }
        self.memory(memory);
        drop(stage);
        if self.effort.group > 0 {
            self.group_rate()?;
        }
        // Batched engines have no single environment to look at.
        let spec = self.registry.resolve(&self.report.env);
        if spec.id.starts_with(Gymnasium::PREFIX) {
            self.python(&spec)?;
        }
        Ok(())
    }

    /// Resets with the buffer full of what no environment writes, looks at the result.
    fn reset(&mut self, stage: &mut Stage, seed: u64) -> Result<()> {
        spoil(stage.observation.leaf_mut());
        self.doing = "reset";
        let begun = Instant::now();
        stage.reset(seed)?;
        if self.resets.len() < KEPT {
            self.resets.push(begun.elapsed().as_secs_f64());
        }
        self.look(stage, None);
        Ok(())
    }

    fn step(&mut self, stage: &mut Stage) -> Result<crate::Step> {
        spoil(stage.observation.leaf_mut());
        self.doing = "step";
        let step = stage.step()?;
        self.look(stage, Some(step.reward));
        self.report.steps += 1;
        Ok(step)
    }

    fn look(&mut self, stage: &Stage, reward: Option<f64>) {
        if let Some((rule, message)) = stray(stage.env.observation_space(), stage.observation.leaf()) {
            let message = format!("the observation has {message} ({})", self.place());
            self.find(Severity::Violation, rule, message);
        }
        if let Some(reward) = reward.filter(|reward| !reward.is_finite()) {
            let message = format!("the reward is {reward} ({})", self.place());
            self.find(Severity::Violation, "reward", message);
        }
    }

    /// The episode of seed 0 under the random actions of seed 0: `length` steps of it, or as many as fit into the
    /// share of the time and the limit.
    fn record(&mut self, stage: &mut Stage, length: Option<usize>, share: f64) -> Result<Vec<Seen>> {
        stage.rng = ChaCha8Rng::seed_from_u64(0);
        self.reset(stage, 0)?;
        let mut seen =
            vec![Seen { observation: hash(stage.observation.leaf()), reward: 0, end: (false, false) }];
        loop {
            let ended = seen.last().is_some_and(|last| last.end.0 || last.end.1);
            let enough = match length {
                Some(length) => seen.len() >= length,
                None => seen.len() > 1 && (seen.len() > REPEATED || self.past(share)),
            };
            if ended || enough {
                return Ok(seen);
            }
            let step = self.step(stage)?;
            seen.push(Seen {
                observation: hash(stage.observation.leaf()),
                reward: step.reward.to_bits(),
                end: (step.terminated, step.truncated),
            });
        }
    }

    /// `again` had another episode before it in its instance, `elsewhere` none, as `first`.
    fn compare(&mut self, first: &[Seen], again: &[Seen], elsewhere: &[Seen]) {
        let difference = |other: &[Seen]| {
            let t = first.iter().zip(other).position(|(a, b)| a != b)?;
            let what = match (&first[t], &other[t]) {
                (a, b) if a.observation != b.observation => "observation",
                (a, b) if a.reward != b.reward => "reward",
                _ => "end",
            };
            Some((t, if t == 0 { "first observation".into() } else { format!("{what} of step {t}") }))
        };
        if let Some((_, what)) = difference(elsewhere) {
            let spec = self.registry.resolve(&self.report.env);
            let declared = self.registry.is_python(&spec.id) && gymnasium::declared_nondeterministic(&spec);
            let message = format!(
                "two instances with the same seed and actions differ in the {what}: runs in it cannot be repeated; \
                 all chance must come from the seed that `reset` gets"
            );
            let severity = if declared { Severity::Warning } else { Severity::Violation };
            self.find(severity, "determinism", message);
        } else if let Some((t, what)) = difference(again) {
            // A run repeats all the same: each of its instances has the same episodes before.
            let severity = if t == 0 { Severity::Violation } else { Severity::Warning };
            let message = format!(
                "after another episode, the same seed and actions differ in the {what}: `reset` leaves something \
                 over from the episode before"
            );
            self.find(severity, "determinism", message);
        }
    }

    fn seeds(&mut self, stage: &mut Stage) -> Result<()> {
        let mut seen: Vec<u64> = Vec::new();
        for seed in 0..SEEDS {
            if seen.len() > 1 && self.past(0.3) {
                break;
            }
            stage.rng = ChaCha8Rng::seed_from_u64(0);
            self.reset(stage, seed)?;
            let mut episode = std::hash::DefaultHasher::new();
            episode.write_u64(hash(stage.observation.leaf()));
            for _ in 0..BEGINNING {
                let step = self.step(stage)?;
                episode.write_u64(hash(stage.observation.leaf()) ^ step.reward.to_bits());
                if step.terminated || step.truncated || self.past(0.3) {
                    break;
                }
            }
            seen.push(episode.finish());
        }
        if seen.windows(2).all(|pair| pair[0] == pair[1]) {
            let message = format!(
                "{} different seeds gave the same beginning of an episode under the same actions: right for a task \
                 without chance, else `reset` does not use its seed",
                seen.len()
            );
            self.find(Severity::Warning, "seeds", message);
        }
        Ok(())
    }

    /// Saves in the middle of an episode and comes back to it, here and in another instance.
    fn restore(&mut self, stage: &mut Stage) -> Result<()> {
        const BEFORE: usize = 10;
        const AFTER: usize = 50;
        self.reset(stage, 2)?;
        for t in 0..BEFORE {
            let step = self.step(stage)?;
            if step.terminated || step.truncated {
                self.reset(stage, 3 + t as u64)?;
            }
        }
        let Some(saved) = stage.env.save() else { return Ok(()) };
        self.report.saves = true;
        let go_on = |check: &mut Self, stage: &mut Stage| -> Result<Vec<Seen>> {
            stage.rng = ChaCha8Rng::seed_from_u64(9);
            let mut seen = Vec::new();
            for _ in 0..AFTER {
                let step = check.step(stage)?;
                let end = (step.terminated, step.truncated);
                let observation = hash(stage.observation.leaf());
                seen.push(Seen { observation, reward: step.reward.to_bits(), end });
                if end != (false, false) {
                    break;
                }
            }
            Ok(seen)
        };
        let expected = go_on(self, stage)?;
        self.reset(stage, 1)?;
        stage.env.load(&saved)?;
        let here = go_on(self, stage)?;
        let mut other = Stage::new(self.registry.make(&self.report.env)?);
        other.env.load(&saved)?;
        let elsewhere = go_on(self, &mut other)?;
        for (seen, place) in [(here, "in the same instance"), (elsewhere, "in another instance")] {
            if let Some(t) = expected.iter().zip(&seen).position(|(a, b)| a != b) {
                let message = format!(
                    "after `save` and `load` {place}, step {} under the same actions is another: `save` must hold \
                     everything that distinguishes the moment",
                    t + 1
                );
                self.find(Severity::Violation, "restore", message);
            }
        }
        Ok(())
    }

    /// Random actions for as long as there is time.
    fn wander(&mut self, stage: &mut Stage) -> Result<()> {
        let share = if self.effort.group > 0 { 0.5 } else { 1.0 };
        let mut lengths = Vec::with_capacity(KEPT);
        let (mut seed, mut length) = (100, 0);
        let (mut count, mut shortest, mut longest) = (0, u64::MAX, 0);
        self.reset(stage, seed)?;
        loop {
            let step = self.step(stage)?;
            length += 1;
            if step.terminated || step.truncated {
                (count, shortest, longest) = (count + 1, shortest.min(length), longest.max(length));
                if lengths.len() < KEPT {
                    lengths.push(length);
                }
                (seed, length) = (seed + 1, 0);
                self.reset(stage, seed)?;
            }
            if self.report.steps >= self.effort.steps || self.past(share) {
                break;
            }
        }
        lengths.sort_unstable();
        if let Some(&median) = lengths.get(lengths.len() / 2) {
            self.report.episodes = Some(Lengths { count, shortest, median, longest });
        } else if self.report.steps >= UNENDING {
            let message = format!(
                "no episode ended in {} steps of random actions: where only success ends one, set a time limit \
                 (`env.time_limit`)",
                self.report.steps
            );
            self.find(Severity::Warning, "endless", message);
        }
        Ok(())
    }

    /// Nothing but stepping, to see how fast that is.
    fn rate(&mut self, stage: &mut Stage) -> Result<()> {
        let mut seed = 0;
        stage.reset(seed)?;
        let rate = measure(self.effort.time.mul_f64(0.2), || {
            let step = stage.step()?;
            if step.terminated || step.truncated {
                seed += 1;
                stage.reset(seed)?;
            }
            Ok(())
        })?;
        self.report.steps += rate.calls;
        self.report.steps_per_second = Some(rate.per_second);
        Ok(())
    }

    fn group_rate(&mut self) -> Result<()> {
        let n = self.effort.group;
        self.doing = "a group";
        let mut group = match self.registry.make_group(&self.report.env, n) {
            Ok(group) => group,
            Err(error) => {
                let message = format!("no {n} of it at a time: {error}");
                self.find(Severity::Warning, "group", message);
                return Ok(());
            }
        };
        let seeds = |env: usize, episode: u64| env as u64 + n as u64 * episode;
        let mut row = RowBuf::new(group.as_ref());
        let mut action = LeafBuf::zeros(group.action_space(), n);
        let mut mask = vec![true; n * group.action_space().choices()];
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        group.reset(&seeds, row.observation.leaf_mut())?;
        let rate = measure(self.effort.time.mul_f64(0.2), || {
            group.action_mask(&mut mask)?;
            let (space, size, choices) =
                (group.action_space(), group.action_space().len(), group.action_space().choices());
            for i in 0..n {
                let mask = &mask[i * choices..(i + 1) * choices];
                draw(space, mask, &mut rng, action.leaf_mut().part(i, size));
            }
            group.step(action.leaf(), &seeds, &mut row.row())?;
            row.faults.pop().map_or(Ok(()), |fault| Err(fault.error))
        })?;
        self.report.group_steps_per_second = Some(rate.per_second * n as f64);
        Ok(())
    }

    fn memory(&mut self, before: Option<i64>) {
        let Some(growth) = resident().zip(before).map(|(after, before)| after - before) else { return };
        self.report.memory_growth = Some(growth);
        let of_a_million = growth as f64 / self.report.steps.max(1) as f64 * 1e6;
        if growth > GROWTH && of_a_million > f64::from(1 << 30) {
            let message = format!(
                "the process grew by {:.0} MB in {} steps: a million steps would need {:.0} GB",
                growth as f64 / 1e6,
                self.report.steps,
                of_a_million / 1e9
            );
            self.find(Severity::Warning, "memory", message);
        }
    }

    /// What only Python can see.
    fn python(&mut self, spec: &EnvSpec) -> Result<()> {
        self.doing = "a look from Python";
        let env = Gymnasium::called(spec, &self.report.env.id)?;
        let time = self.effort.time.mul_f64(0.1);
        for (severity, rule, message) in gymnasium::examine(env, time, self.effort.gymnasium_checker)? {
            // The checker says several things under the one name of Gymnasium.
            let known = self.report.findings.iter().any(|finding| finding.message == message);
            if rule == gymnasium::CHECKER && !known {
                self.report.findings.push(Finding { severity, rule, message });
            } else {
                self.find(severity, rule, message);
            }
        }
        Ok(())
    }
}

/// Calls and how many there were in a second.
struct Rate {
    calls: u64,
    per_second: f64,
}

/// Calls `f` for about as long. The clock is asked seldom: it takes as long as a step of CartPole.
fn measure(time: Duration, mut f: impl FnMut() -> Result<()>) -> Result<Rate> {
    let begun = Instant::now();
    let (mut calls, mut burst) = (0, 1);
    loop {
        for _ in 0..burst {
            f()?;
        }
        calls += burst;
        let elapsed = begun.elapsed();
        if elapsed >= time {
            return Ok(Rate { calls, per_second: calls as f64 / elapsed.as_secs_f64() });
        }
        if elapsed < time / 20 {
            burst = calls;
        }
    }
}

/// Bytes of memory that this process has.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Fills an observation with what no environment may leave there. Bytes of an image can hold anything: there it
/// shows nothing.
fn spoil(observation: LeafMut) {
    match observation {
        LeafMut::F32(values) => values.fill(f32::NAN),
        LeafMut::U8(values) => values.fill(u8::MAX),
        LeafMut::I64(values) => values.fill(-1),
    }
}

/// The bits of an observation in short.
fn hash(observation: Leaf) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    match observation {
        Leaf::F32(values) => values.iter().for_each(|x| hasher.write_u32(x.to_bits())),
        Leaf::U8(values) => hasher.write(values),
        Leaf::I64(values) => values.iter().for_each(|x| hasher.write_i64(*x)),
    }
    hasher.finish()
}

/// An action of `space`, uniform over what `mask` allows; between −1 and 1 in directions without bounds.
fn draw(space: &Space, mask: &[bool], rng: &mut ChaCha8Rng, mut action: LeafMut) {
    match space {
        Space::Discrete { .. } => action.i64()[0] = choose(mask, rng) as i64,
        Space::MultiDiscrete { n, .. } => {
            let mut rest = mask;
            for (value, &n) in action.i64().iter_mut().zip(n) {
                let (own, others) = rest.split_at(n as usize);
                (*value, rest) = (choose(own, rng) as i64, others);
            }
        }
        Space::MultiBinary { .. } => {
            for (value, own) in action.u8().iter_mut().zip(mask.chunks_exact(2)) {
                *value = choose(own, rng) as u8;
            }
        }
        Space::Fields(fields) => {
            let (record, mut rest) = (action.u8(), mask);
            for field in fields.iter() {
                let (own, others) = rest.split_at(field.space.choices());
                draw(&field.space, own, rng, field.write(record));
                rest = others;
            }
        }
        Space::Box { low, high, .. } => {
            for ((value, &low), &high) in action.f32().iter_mut().zip(low).zip(high) {
                let uniform = f64::from(rng.random::<f32>());
                *value = match (high - low).is_finite() {
                    true => (low + (high - low) * uniform) as f32,
                    false => (2.0 * uniform - 1.0).clamp(low, high) as f32,
                };
            }
        }
    }
}

/// One of the allowed choices, of which there is at least one.
fn choose(mask: &[bool], rng: &mut ChaCha8Rng) -> usize {
    loop {
        let choice = rng.random_range(0..mask.len());
        if mask[choice] {
            return choice;
        }
    }
}

/// What is wrong with an observation, if anything: the rule and words that follow "the observation has".
pub(crate) fn stray(space: &Space, observation: Leaf) -> Option<(&'static str, String)> {
    match space {
        Space::Discrete { n, .. } => {
            let value = observation.i64()[0];
            let outside = !(0..*n).contains(&value);
            outside
                .then(|| ("bounds", format!("the choice {value}, not one of 0 to {}, or none at all", n - 1)))
        }
        Space::MultiDiscrete { n, .. } => {
            let mut choices = observation.i64().iter().zip(n).enumerate();
            let (i, (value, n)) = choices.find(|(_, (value, n))| !(0..**n).contains(*value))?;
            let message = format!("the choice {value} at {i}, not one of 0 to {}, or none at all", n - 1);
            Some(("bounds", message))
        }
        Space::MultiBinary { .. } => {
            let i = observation.u8().iter().position(|&x| x > 1)?;
            Some(("bounds", format!("a switch at {i} that is neither 0 nor 1, or was not written")))
        }
        Space::Fields(fields) => fields.iter().find_map(|field| {
            let (rule, message) = stray(&field.space, field.read(observation.u8()))?;
            Some((rule, format!("in its field `{}` {message}", field.name)))
        }),
        Space::Box { low, high, .. } => {
            let mut bounds = low.iter().copied().zip(high.iter().copied()).enumerate();
            match observation {
                // Bounds in the type of the values: rounded like them, they still hold them.
                Leaf::F32(values) => values.iter().zip(bounds).find_map(|(&x, (i, (low, high)))| {
                    stray_value(i, x.into(), f64::from(low as f32), f64::from(high as f32))
                }),
                Leaf::U8(values) => {
                    bounds.find_map(|(i, (low, high))| stray_value(i, values[i].into(), low, high))
                }
                Leaf::I64(_) => None,
            }
        }
    }
}

/// As [`stray`], for value `i` of a box.
fn stray_value(i: usize, x: f64, low: f64, high: f64) -> Option<(&'static str, String)> {
    if x.is_nan() {
        return Some(("finite", format!("NaN at {i}, or nothing was written there")));
    }
    if x.is_infinite() {
        return Some(("finite", format!("{x} at {i}")));
    }
    let message = || format!("{x} at {i}, outside its space's {low} to {high}: clip it, or widen the space");
    (x < low || x > high).then(|| ("bounds", message()))
}

/// What makes no sense about a space.
fn faults(space: &Space) -> Vec<(Severity, String)> {
    let mut found = Vec::new();
    match space {
        Space::Discrete { n, .. } if *n < 1 => {
            found.push((Severity::Violation, "a choice needs at least one possibility".into()));
        }
        Space::MultiDiscrete { n, .. } if n.iter().any(|&n| n < 1) => {
            found.push((Severity::Violation, "every choice needs at least one possibility".into()));
        }
        Space::Discrete { .. } | Space::MultiDiscrete { .. } | Space::MultiBinary { .. } => {}
        Space::Fields(fields) => {
            for field in fields.iter() {
                let inner = faults(&field.space).into_iter();
                found.extend(
                    inner.map(|(severity, text)| (severity, format!("field `{}`: {text}", field.name))),
                );
            }
        }
        Space::Box { shape, low, high, .. } => {
            let len: usize = shape.iter().product();
            if len == 0 || low.len() != len || high.len() != len {
                let message =
                    format!("{len} values by its shape, {} and {} by its bounds", low.len(), high.len());
                found.push((Severity::Violation, message));
            }
            let pairs = || low.iter().zip(high);
            if let Some(i) = pairs().position(|(low, high)| low.partial_cmp(high).is_none_or(Ordering::is_gt))
            {
                found.push((
                    Severity::Violation,
                    format!("value {i} has bounds from {} to {}", low[i], high[i]),
                ));
            } else if let Some(i) = pairs().position(|(low, high)| low == high) {
                found.push((Severity::Warning, format!("value {i} can only be {}", low[i])));
            }
        }
    }
    found
}

/// What makes an action space hard to learn in.
fn uncommon_bounds(action: &Space) -> Option<String> {
    let Space::Box { low, high, .. } = action else { return None };
    let pairs = || low.iter().zip(high);
    if let Some(i) = pairs().position(|(low, high)| !low.is_finite() || !high.is_finite()) {
        return Some(format!(
            "action {i} has bounds from {} to {}: nothing keeps a policy's actions in a sensible range",
            low[i], high[i]
        ));
    }
    let i = pairs().position(|(&low, &high)| low < -1.0 || high > 1.0 || (low != 0.0 && low != -high))?;
    Some(format!(
        "action {i} lies in {} to {}, not in -1 to 1 or 0 to 1: a policy begins around 0 with a standard deviation \
         of 1, whatever the bounds",
        low[i], high[i]
    ))
}
