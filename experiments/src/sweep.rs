//! Many runs: each a process of its own in a folder of its own, some at a time.
//!
//! In a sweep's folder, a run `a/seed-0` is three things: the run itself in `a/seed-0/`; its resolved recipe in
//! `a/seed-0.toml`, by which a later call sees whether it means the same run; what its process said last in
//! `a/seed-0.log`. If that process failed, `a/seed-0.failed` says how. What is finished is kept, what is not is gone
//! on with, from its last checkpoint.
//!
//! Runs that need others first are a second list:
//!
//! ```no_run
//! use imago_experiments::{Program, sweep::{Run, Sweep, Tally, plan, report::Report}};
//! # fn main() -> anyhow::Result<()> {
//! let (program, folder) = (Program::default(), std::path::Path::new("runs/story"));
//! let run = |row: &str, recipe: &str, seed| Run {
//!     row: row.into(),
//!     name: format!("{row}-{seed}"),
//!     recipe: recipe.into(),
//!     sets: vec![r#"env.id="seals/CartPole-v0""#.into()],
//!     demos: None,
//!     seed: Some(seed),
//! };
//! let sweep = Sweep::begin(folder, imago::run::Stop::on_signals()?)?;
//! let mut experts = plan(&program, folder, &[run("expert", "ppo/cartpole", 0)])?;
//! sweep.train(&mut experts, |_| {})?;
//! // … record what they do; then those that imitate it:
//! let mut imitators = plan(&program, folder, &[run("gail", "gail/cartpole", 0), run("gail", "gail/cartpole", 1)])?;
//! sweep.train(&mut imitators, |_| {})?;
//! Report::of("Imitation", &imitators)?.write(folder)?;
//! println!("{} failed", Tally::of(&imitators).failed);
//! # Ok(())
//! # }
//! ```

pub mod grid;
mod progress;
pub mod report;

use crate::assemble;
use crate::commands::train;
use crate::processes::{Ended, Event, Job, run_all};
use crate::program::Program;
use crate::recipe::{DemosConfig, Recipe, RunConfig, WorkerKind};
use anyhow::{Context, Result, bail, ensure};
use imago::run::{Checkpoints, Directory, Stop, write_whole};
use progress::Display;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Keys that may differ from call to call: they say where and how safely a run is computed, not what comes out.
const MAY_CHANGE: [&str; 7] = [
    "run.workers",
    "run.worker_kind",
    "run.env_timeout",
    "run.max_faults",
    "run.check_env",
    "run.checkpoint_every",
    "run.keep_checkpoints",
];

/// One training, as it is asked for.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it is a repetition of: runs of one row differ in their seeds and share a line of the report.
    pub row: String,
    /// Where it lies, relative to the sweep's folder.
    pub name: String,
    /// A built-in recipe, a file or a run, as for `imago train`.
    pub recipe: String,
    /// Changes of it, `KEY=VALUE` each, as for `--set`.
    pub sets: Vec<String>,
    /// Demonstrations in place of the recipe's.
    pub demos: Option<PathBuf>,
    /// Its seed; `None` takes the recipe's.
    pub seed: Option<u64>,
}

/// One training with its recipe read and checked.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it is a repetition of.
    pub row: String,
    /// Where it lies, relative to the sweep's folder.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What it trains.
    pub recipe: Recipe,
    /// The recipe as it is stored.
    text: String,
    /// How far it is.
    pub state: State,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// There is nothing of it yet.
    New,
    /// It has a checkpoint of this step and goes on from there.
    Begun(u64),
    /// It is done; its `summary.json`.
    Finished(Map<String, Value>),
    /// Its process failed: how, and the last lines that it said. The next call tries again.
    Failed(String),
}

impl Planned {
    /// A file beside the run's folder.
    fn beside(&self, suffix: &str) -> PathBuf {
        // Not `with_extension`: there may be dots in the name.
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// Looks again how far it is.
    pub fn look(&mut self) {
        self.state = self.found();
    }

    fn found(&self) -> State {
        let summary = fs::read_to_string(self.path.join("summary.json")).ok();
        let summary = summary.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
        if let Some(summary) = summary.filter(|summary| summary.get("finished") == Some(&Value::Bool(true))) {
            return State::Finished(summary);
        }
        if let Ok(how) = fs::read_to_string(self.beside(".failed")) {
            return State::Failed(how);
        }
        match Directory::holds_run(&self.path) {
            true => {
                State::Begun(Checkpoints::open(&self.path).ok().and_then(|all| all.latest()).unwrap_or(0))
            }
            false => State::New,
        }
    }
}

/// Reads and checks the recipes of `runs`, compares them with what is in `folder`, and sees how far each run is.
/// Writes nothing.
///
/// # Errors
/// What is wrong with a recipe or its demonstrations; a run in the folder that has another recipe.
pub fn plan(program: &Program, folder: &Path, runs: &[Run]) -> Result<Vec<Planned>> {
    // Each is read once, however many seeds it is trained with.
    let mut recipes: BTreeMap<(&str, &[String], Option<&Path>), Recipe> = BTreeMap::new();
    let mut hashes: Vec<(DemosConfig, Option<String>)> = Vec::new();
    let mut planned = Vec::new();
    for run in runs {
        let asked = (run.recipe.as_str(), run.sets.as_slice(), run.demos.as_deref());
        let mut recipe = match recipes.get(&asked) {
            Some(recipe) => recipe.clone(),
            None => {
                let source = train::find(&run.recipe)?;
                let (mut recipe, missing) = train::read(program, &source, &run.sets, run.demos.as_deref())?;
                if let Some(advice) = missing {
                    bail!("{advice}");
                }
                for demos in recipe.demos_mut() {
                    read_demonstrations(demos, &mut hashes)?;
                }
                recipes.entry(asked).or_insert(recipe).clone()
            }
        };
        if let Some(seed) = run.seed {
            recipe.run.seed = seed;
        }
        let text = recipe.to_toml()?;
        let path = folder.join(&run.name);
        let (row, name) = (run.row.clone(), run.name.clone());
        let mut run = Planned { row, name, path, recipe, text, state: State::New };
        check_same(program, &run)?;
        run.look();
        planned.push(run);
    }
    Ok(planned)
}

/// Checks that there are such demonstrations and fills in their hash; reads each file once for all recipes.
fn read_demonstrations(
    demos: &mut DemosConfig,
    known: &mut Vec<(DemosConfig, Option<String>)>,
) -> Result<()> {
    if let Some((_, hash)) = known.iter().find(|(known, _)| known == demos) {
        demos.demos_hash.clone_from(hash);
        return Ok(());
    }
    let asked = demos.clone();
    assemble::demonstrations(demos)?;
    known.push((asked, demos.demos_hash.clone()));
    Ok(())
}

/// Refuses a run that is in the folder already and another one.
fn check_same(program: &Program, run: &Planned) -> Result<()> {
    let stored = [run.beside(".toml"), run.path.join("recipe.toml")].into_iter().find(|path| path.is_file());
    let Some(stored) = stored else { return Ok(()) };
    let text = fs::read_to_string(&stored).with_context(|| format!("cannot read {}", stored.display()))?;
    // Read and written again: a key that this version added has its default in both.
    let read = Recipe::parse(&stored.to_string_lossy(), &text, &[], None, &program.signal_kinds())?;
    let changed = train::changed_keys(&read.to_toml()?, &run.text, &MAY_CHANGE)?;
    ensure!(
        changed.is_empty(),
        "{}: this run is there with another recipe, {} would change; begin another sweep for that with --to DIR",
        run.path.display(),
        changed.join(", ")
    );
    Ok(())
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Runs that are done.
    pub finished: usize,
    /// Runs whose process failed.
    pub failed: usize,
    /// Runs that are still to be done: the call was stopped.
    pub left: usize,
}

impl Tally {
    /// Of these runs as they were last looked at.
    pub fn of(runs: &[Planned]) -> Self {
        let count = |which: fn(&State) -> bool| runs.iter().filter(|run| which(&run.state)).count();
        let finished = count(|state| matches!(state, State::Finished(_)));
        let failed = count(|state| matches!(state, State::Failed(_)));
        Self { finished, failed, left: runs.len() - finished - failed }
    }
}

/// Trains lists of runs in one folder. No other process does so meanwhile.
pub struct Sweep {
    folder: PathBuf,
    /// Runs at a time; `None`: as many as there are processors.
    pub jobs: Option<usize>,
    /// Rollout threads of each run; `None`: the processors that are left for it.
    pub threads: Option<usize>,
    /// Show no progress.
    pub quiet: bool,
    stop: Stop,
    /// Locked while it is open. `None` where the file system knows no locks.
    _lock: Option<File>,
}

impl Sweep {
    /// Takes `folder`, which is made if it is not there, for as long as this lives. `stop` ends the sweep: running
    /// runs get a checkpoint, others are not begun.
    ///
    /// # Errors
    /// A folder that cannot be written or in which another process is sweeping.
    pub fn begin(folder: &Path, stop: Stop) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(".lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("cannot write {}", path.display()))?;
        let lock = match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{}: another process is sweeping there; wait for it, or choose another --to",
                    folder.display()
                )
            }
            Err(TryLockError::Error(_)) => None,
        };
        Ok(Self { folder: folder.into(), jobs: None, threads: None, quiet: false, stop, _lock: lock })
    }

    /// How many of `count` runs are trained at a time, and with how many rollout threads each.
    pub fn shares(jobs: Option<usize>, threads: Option<usize>, count: usize) -> (usize, usize) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = jobs.unwrap_or(cores).min(count).max(1);
        // A single core is the learner's, and it collects too: two threads would only take turns on it.
        let share = match cores / at_once {
            0 | 1 => 0,
            share => share,
        };
        (at_once, threads.unwrap_or(share))
    }

    /// Trains all `runs` that are not finished; each is marked with how it ended. `each` is called whenever one has
    /// ended, with all runs as they are then.
    ///
    /// # Errors
    /// Recipes that cannot be written into the folder. Runs that fail are no error: see [`Tally::of`].
    pub fn train(&self, runs: &mut [Planned], mut each: impl FnMut(&[Planned])) -> Result<()> {
        for run in runs.iter() {
            let parent = run.path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            let file = run.beside(".toml");
            if fs::read_to_string(&file).ok().as_ref() != Some(&run.text) {
                write_whole(&file, run.text.as_bytes())?;
            }
        }
        let todo: Vec<usize> =
            (0..runs.len()).filter(|&i| !matches!(runs[i].state, State::Finished(_))).collect();
        let (at_once, share) = Self::shares(self.jobs, self.threads, todo.len());
        for &i in &todo {
            match fs::remove_file(runs[i].beside(".failed")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}.failed", runs[i].path.display()));
                }
                _ => runs[i].look(),
            }
        }
        let jobs: Vec<Job> = todo.iter().map(|&i| job(&runs[i], self.threads, share)).collect();
        let mut display = Display::new(self.quiet, runs, &todo);
        run_all(&jobs, at_once, &self.stop, |event| match event {
            Event::Begun(job) => display.begun(&runs[todo[job]]),
            Event::Waiting => display.look(),
            Event::Ended(job, end) => {
                let run = &mut runs[todo[job]];
                run.look();
                let how = match end {
                    Ended::Failed(how) => Some(how.clone()),
                    Ended::Done if !matches!(run.state, State::Finished(_)) => {
                        Some("it ended without a summary.json that says so".to_string())
                    }
                    Ended::Done | Ended::Stopped => None,
                };
                if let Some(how) = how {
                    if let Err(error) = write_whole(&run.beside(".failed"), how.as_bytes()) {
                        tracing::warn!("{error}; a later report will not know that {} failed", run.name);
                    }
                    run.state = State::Failed(how);
                }
                display.ended(run);
                each(runs);
            }
        });
        display.finish();
        Ok(())
    }
}

/// At least so long between two reports while runs go on …
const REPORT_PAUSE: Duration = Duration::from_secs(5);
/// … and so many times as long as making one takes.
const REPORT_SHARE: u32 = 20;

/// Writes a report now and then while runs go on.
pub struct Paced {
    next: Instant,
    warned: bool,
}

impl Default for Paced {
    fn default() -> Self {
        Self { next: Instant::now() + REPORT_PAUSE, warned: false }
    }
}

impl Paced {
    /// Writes, if it is time again. What goes wrong is said once: it is no reason to stop the runs.
    pub fn report(&mut self, write: impl FnOnce() -> Result<()>) {
        let begun = Instant::now();
        if begun < self.next {
            return;
        }
        if let Err(error) = write()
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!("no report for now: {error:#}");
        }
        self.next = Instant::now() + REPORT_PAUSE.max(begun.elapsed() * REPORT_SHARE);
    }
}

fn job(run: &Planned, threads: Option<usize>, share: usize) -> Job {
    let mut arguments = vec!["train".into(), run.beside(".toml").into_os_string()];
    arguments.extend(["--run-dir".into(), run.path.clone().into_os_string()]);
    arguments.extend(["--resume".into(), "--quiet".into()]);
    // Who has set them in the recipe has a reason.
    if threads.is_some() || run.recipe.run.workers == RunConfig::default().workers {
        // Processes need one at least.
        let least = usize::from(run.recipe.run.worker_kind == WorkerKind::Processes);
        arguments.extend(["--threads".into(), share.max(least).to_string().into()]);
    }
    Job { name: run.name.clone(), arguments, log: run.beside(".log") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_are_shared_out() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(Sweep::shares(None, None, 1000), (cores, 0));
        // One run has them all; with a single one it collects in the learner's thread.
        assert_eq!(Sweep::shares(None, None, 1), (1, if cores == 1 { 0 } else { cores }));
        assert_eq!(Sweep::shares(Some(7), Some(3), 5), (5, 3));
        assert_eq!(Sweep::shares(Some(0), None, 0).0, 1);
    }
}
