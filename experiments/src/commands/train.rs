//! `imago train`: new runs, and runs that go on.

use crate::assemble;
use crate::catalogue;
use crate::first_look::first_look;
use crate::problem::{Done, Outcome, conclude, failed};
use crate::program::{Program, Shared};
use crate::recipe::{LearnerConfig, Recipe};
use crate::runs::RUNS;
use crate::strict;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use imago::Error;
use imago::rollout::watch_environments;
use imago::run::{
    Checkpoints, Directory, Outcome as RunOutcome, Session, Stop, Timetable, Which, drive, profile,
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Train what a recipe describes.
#[derive(Args)]
pub struct Arguments {
    /// A built-in recipe (`imago recipes`), a file, or a run.
    recipe: String,
    /// Demonstrations to imitate.
    #[arg(long, value_name = "FILE")]
    demos: Option<PathBuf>,
    /// Begin with what another run's policy has learnt (`run.from`): RUN, RUN@STEP.
    #[arg(long, value_name = "RUN")]
    from: Option<String>,
    /// Go on with the run in --run-dir (or named as RECIPE); begin it if there is none yet.
    #[arg(long)]
    resume: bool,
    /// Check everything, print the resolved recipe, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Stop with a checkpoint once this many steps are done (exit code 0). Schedules do not change.
    #[arg(long, value_name = "N")]
    stop_at: Option<u64>,
    /// Say at the end where the time went; also in summary.json.
    #[arg(long)]
    profile: bool,
    /// Where to put the run. Default: runs/NAME-SEED-TIME.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

/// Keys that may differ when a run goes on: they do not touch what has been learnt, or (total_steps) say from
/// where on they do.
const MAY_CHANGE: [&str; 10] = [
    "run.workers",
    "run.worker_kind",
    "run.env_timeout",
    "run.max_faults",
    "run.total_steps",
    "run.eval_every",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.log_every",
    "run.check_env",
];

/// The recipe's text, its directory for relative paths, and what to call a run of it.
pub struct Source {
    /// What errors call it.
    pub name: String,
    text: String,
    directory: PathBuf,
    /// What to call a run of it.
    pub stem: String,
    /// The checkpoint to go on from, if the recipe is a run.
    run: Option<Which>,
}

/// Finds `recipe`: a run, a file or a built-in name.
///
/// # Errors
/// There is none; an unreadable file.
pub fn find(recipe: &str) -> Result<Source> {
    let path = Path::new(recipe);
    let run = Directory::resolve(Path::new(RUNS), recipe);
    if recipe.contains('@') && !path.exists() {
        // Only runs are called so: the reason why this one is not found is the one to tell.
        if let Err(error) = run {
            return Err(error.into());
        }
    }
    if let Some((run, which)) = run.ok().filter(|(run, _)| Directory::holds_run(run)) {
        let file = run.join("recipe.toml");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let stem = run.file_name().map_or("run".into(), |name| name.to_string_lossy().into_owned());
        let which = Some(which.unwrap_or(Which::Latest));
        return Ok(Source { name: file.display().to_string(), text, directory: run, stem, run: which });
    }
    if path.is_file() || recipe.ends_with(".toml") {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read recipe {recipe}"))?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).into();
        let stem = path.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
        return Ok(Source { name: recipe.into(), text, directory, stem, run: None });
    }
    let text = catalogue::recipe(recipe)?.to_string();
    Ok(Source {
        name: format!("recipe {recipe}"),
        text,
        directory: PathBuf::new(),
        stem: recipe.replace('/', "-"),
        run: None,
    })
}

/// The recipe with flags and `--set`s applied and paths made absolute. Flags become keys, so that the resolved
/// recipe alone repeats the run. Beside it, for a dry run, what is said of demonstrations that are still to come.
fn resolve(
    program: &Program,
    arguments: &Arguments,
    shared: &Shared,
    source: &Source,
) -> Result<(Recipe, Option<String>)> {
    let mut sets = shared.sets.clone();
    sets.extend(arguments.from.as_ref().map(|from| format!("run.from={}", toml::Value::from(from.as_str()))));
    sets.extend(shared.seed.map(|seed| format!("run.seed={seed}")));
    sets.extend(shared.threads.map(|threads| format!("run.workers={threads}")));
    let (recipe, missing) = read(program, source, &sets, arguments.demos.as_deref())?;
    if let Some(advice) = missing.as_ref().filter(|_| !arguments.dry_run) {
        bail!("{advice}");
    }
    Ok((recipe, missing))
}

/// The recipe with `sets` and `demos` applied and paths made absolute; what to do about demonstrations that it does
/// not name.
///
/// # Errors
/// Whatever is wrong with it.
pub fn read(
    program: &Program,
    source: &Source,
    sets: &[String],
    demos: Option<&Path>,
) -> Result<(Recipe, Option<String>)> {
    let mut recipe = Recipe::parse(&source.name, &source.text, sets, demos, &program.signal_kinds())?;
    let missing = recipe.missing_demonstrations().first().map(|missing| {
        let place = strict::Source { name: &source.name, text: &source.text, overrides: sets }.place(missing);
        format!("{place}: no demonstrations yet: name a file there or give --demos FILE (`imago record` makes one)")
    });
    recipe.anchor(&source.directory);
    Ok((recipe, missing))
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut Vec<(String, Value)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, into);
            }
        }
        toml::Value::Integer(x) => into.push((prefix.into(), (*x).into())),
        toml::Value::Float(x) => into.push((prefix.into(), (*x).into())),
        toml::Value::Boolean(x) => into.push((prefix.into(), (*x).into())),
        toml::Value::String(x) => into.push((prefix.into(), x.clone().into())),
        other => into.push((prefix.into(), other.to_string().into())),
    }
}

fn flat(text: &str) -> Result<Vec<(String, Value)>> {
    let mut keys = Vec::new();
    flatten("", &toml::Value::Table(toml::from_str(text)?), &mut keys);
    Ok(keys)
}

/// Runs end with a rollout. Says where, if that is not where the recipe says.
fn real_length(recipe: &Recipe) -> Option<String> {
    let asked = recipe.run.total_steps;
    let (envs, steps) = (recipe.rollout.envs as u64, recipe.rollout.steps as u64);
    let real = asked.div_ceil(envs * steps) * envs * steps;
    let collects = !matches!(recipe.learner, LearnerConfig::Bc(..) | LearnerConfig::Dcgan(_));
    (collects && real != asked).then(|| {
        format!("run.total_steps = {asked}: the run will end at {real}, the end of a rollout of {envs} × {steps} steps")
    })
}

/// The keys in which two resolved recipes differ, but for those that `may`.
pub fn changed_keys(stored: &str, now: &str, may: &[&str]) -> Result<Vec<String>> {
    let (stored, now) = (flat(stored)?, flat(now)?);
    let value =
        |keys: &[(String, Value)], key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let all: std::collections::BTreeSet<&String> = stored.iter().chain(&now).map(|(key, _)| key).collect();
    let differs = |key: &&String| value(&stored, key) != value(&now, key) && !may.contains(&key.as_str());
    Ok(all.into_iter().filter(differs).cloned().collect())
}

/// Refuses to go on under another recipe than the run's own.
fn check_same(stored: &str, now: &str, run: &Path) -> Result<()> {
    let changed = changed_keys(stored, now, &MAY_CHANGE)?;
    ensure!(
        changed.is_empty(),
        "{}: a run goes on under its own recipe, but {} would change; begin a new run for that (on resume only {} \
         may change)",
        run.display(),
        changed.join(", "),
        MAY_CHANGE.join(", ")
    );
    Ok(())
}

/// What a command line asks for, checked as far as that goes without environments.
pub struct Plan {
    source: Source,
    /// Where to, if the caller said so.
    directory: Option<PathBuf>,
    /// The run to go on with, if there is one in it.
    existing: Option<PathBuf>,
    recipe: Recipe,
    /// What to do about demonstrations that it does not name.
    missing: Option<String>,
}

/// Reads the recipe and decides between a new run and an old one.
pub fn plan(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<Plan> {
    let source = find(&arguments.recipe)?;
    let mut directory = arguments.run_dir.clone();
    if arguments.resume && directory.is_none() {
        ensure!(source.run.is_some(), "--resume needs --run-dir DIR, or a run in place of the recipe");
        directory = Some(source.directory.clone());
    }
    let existing = directory.as_ref().filter(|path| arguments.resume && Directory::holds_run(path)).cloned();
    let (mut recipe, missing) = resolve(program, arguments, shared, &source)?;
    if let Some(path) = &existing {
        let stored_path = path.join("recipe.toml");
        let stored = std::fs::read_to_string(&stored_path)
            .with_context(|| format!("cannot read {}", stored_path.display()))?;
        let stored_recipe =
            Recipe::parse(&stored_path.to_string_lossy(), &stored, &[], None, &program.signal_kinds())?;
        // A file's hash is known to the stored recipe alone; both must still mean the same file.
        let mut asked = recipe.clone();
        for (ours, theirs) in asked.demos_mut().into_iter().zip(stored_recipe.clone().demos_mut()) {
            if ours.demos_hash.is_none() {
                ours.demos_hash.clone_from(&theirs.demos_hash);
            }
        }
        // What the caller did not set stays as the run has it, machine-dependent defaults above all.
        if shared.threads.is_none() && !shared.sets.iter().any(|set| set.starts_with("run.workers")) {
            asked.run.workers = stored_recipe.run.workers;
        }
        // What it began from was read when it began.
        if asked.run.from.is_some() && stored_recipe.run.from.is_some() {
            asked.run.from.clone_from(&stored_recipe.run.from);
        }
        // Read and written again: a key that this version added has its default in both.
        check_same(&stored_recipe.to_toml()?, &asked.to_toml()?, path)?;
        recipe = asked;
    }
    Ok(Plan { source, directory, existing, recipe, missing })
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    let Plan { source, directory, existing, mut recipe, missing } = plan(program, arguments, shared)?;
    let look = |recipe: &Recipe| match &recipe.env {
        Some(env) if recipe.run.check_env => first_look(program, env, shared.quiet, !arguments.dry_run),
        _ => Ok(()),
    };
    if arguments.dry_run {
        assemble::rehearse(program, &mut recipe)?;
        look(&recipe)?;
        if let (None, Some(path)) = (&existing, &directory) {
            Directory::check_vacant(path)?;
        }
        if let Some(advice) = missing {
            tracing::warn!("{advice}; the rest was checked without them, training would refuse");
        }
        if let Some(length) = real_length(&recipe) {
            tracing::warn!("{length}");
        }
        print!("{}", recipe.to_toml()?);
        return Ok(Done::Finished);
    }
    let goes_on = |path: &PathBuf| Checkpoints::open(path).is_ok_and(|there| there.latest().is_some());
    let begun_from = existing.as_ref().filter(|path| goes_on(path)).and_then(|_| recipe.run.from.take());
    let mut trainee = assemble::trainee(program, &mut recipe)?;
    recipe.run.from = begun_from.or(recipe.run.from);
    look(&recipe)?;
    let text = recipe.to_toml()?;
    let directory = match (&existing, &directory) {
        (Some(path), _) => Directory::open(path)?,
        (None, Some(path)) => Directory::create(path)?,
        (None, None) => Directory::create_named(Path::new(RUNS), &source.stem, recipe.run.seed)?,
    };
    // RUN@STEP says where to go on in that run, not in another one's directory.
    let resume = existing
        .as_ref()
        .map(|path| source.run.filter(|_| source.directory == *path).unwrap_or(Which::Latest));
    if let Some(which) = resume {
        // A damaged checkpoint is bad input; whatever fails from here on is not.
        let checkpoints = Checkpoints::open(directory.path())?;
        if checkpoints.latest().is_some() {
            checkpoints.load_to_go_on(which)?;
        }
    }
    directory.write_recipe(&text)?;
    let schedule = Timetable {
        total_steps: recipe.run.total_steps,
        stop_at: arguments.stop_at,
        eval_every: recipe.run.eval_every,
        checkpoint_every: recipe.run.checkpoint_every,
        log_every: recipe.run.log_every,
        keep: recipe.run.keep_checkpoints,
    };
    let stop = Stop::on_signals()?;
    let session = Session {
        directory: &directory,
        schedule: &schedule,
        stop: &stop,
        resume,
        quiet: shared.quiet,
        hyperparameters: &flat(&text)?,
    };
    if !shared.quiet {
        eprintln!("{} → {}", source.name, directory.path().display());
    }
    let path = directory.path().to_path_buf();
    watch_environments(Duration::from_secs_f64(recipe.run.env_timeout), move |hung| {
        let error = anyhow!(
            "{hung} (run.env_timeout); run.worker_kind = \"processes\" replaces environments that hang{}",
            way_on(&path)
        );
        // The thread that steps it cannot be ended, and may be the one that waits for the others.
        conclude(Err(failed(error)));
        std::process::exit(1);
    });
    let begun = Instant::now();
    if arguments.profile {
        profile::start();
    }
    match drive(trainee.as_mut(), &session) {
        Ok(outcome) => {
            if let Some(profile) = profile::seconds(begun.elapsed().as_secs_f64()) {
                eprint!("{}", shares(&profile));
            }
            report(&outcome, directory.path(), shared);
            // A run that stopped where --stop-at asked has done what it was told.
            Ok(if stop.requested() && outcome.is_stopped() { Done::Stopped } else { Done::Finished })
        }
        Err(error @ (Error::Diverged { .. } | Error::Interrupted { .. })) => Err(failed(error)),
        Err(error) => Err(failed(anyhow!("{error}{}", way_on(directory.path())))),
    }
}

/// How to go on with a run that has a checkpoint.
fn way_on(run: &Path) -> String {
    let latest = Checkpoints::open(run).ok().and_then(|checkpoints| checkpoints.latest());
    latest.map_or(String::new(), |step| {
        format!("; go on from step {step} with: imago train {} --resume", run.display())
    })
}

fn report(outcome: &RunOutcome, path: &Path, shared: &Shared) {
    let name = path.display();
    match outcome {
        RunOutcome::Stopped { step } => {
            if shared.json {
                println!("{}", serde_json::json!({ "run": path, "finished": false, "step": step }));
            } else {
                println!("stopped at step {step}; go on with: imago train {name} --resume");
            }
        }
        RunOutcome::Finished(summary) => {
            if shared.json {
                let mut summary = summary.clone();
                summary.insert("run".into(), path.to_string_lossy().into());
                println!("{}", Value::Object(summary));
            } else {
                println!("{}", words(summary));
                let look = match summary.contains_key("images_seen") {
                    true => format!("imago generate grid {name} --to grid.png"),
                    false => format!("imago eval {name}"),
                };
                println!("next: {look} · .venv/bin/tensorboard --logdir {name}");
            }
        }
    }
}

/// A profile as a table: what each phase took, and its share of the wall-clock time.
fn shares(profile: &Value) -> String {
    let wall = profile["wall"].as_f64().unwrap_or(f64::NAN);
    let mut table = format!("{:<12}{:>9}{:>8}\n", "phase", "seconds", "share");
    for (phase, seconds) in profile["seconds"].as_object().into_iter().flatten() {
        let seconds = seconds.as_f64().unwrap_or(f64::NAN);
        table += &format!("{phase:<12}{seconds:>9.3}{:>7.1}%\n", 100.0 * seconds / wall);
    }
    table + &format!("{:<12}{wall:>9.3}   (environment and inference add up over rollout threads)\n", "wall")
}

/// The summary in a few lines.
fn words(summary: &Map<String, Value>) -> String {
    let number = |value: &Value| value.as_f64();
    let mut lines = Vec::new();
    let steps = summary.get("step").and_then(Value::as_u64).unwrap_or(0);
    let seconds = summary.get("seconds").and_then(number).unwrap_or(0.0);
    lines.push(format!("{steps} steps in {seconds:.1} s"));
    if let Some(returns) = summary.get("returns").filter(|value| value.is_object()) {
        let of = |key: &str| returns.get(key).and_then(number).unwrap_or(f64::NAN);
        lines.push(format!(
            "return {:.1} ± {:.1} (deterministic), {:.1} ± {:.1} (stochastic)",
            of("deterministic_mean"),
            of("deterministic_std"),
            of("stochastic_mean"),
            of("stochastic_std")
        ));
    }
    if let Some(loss) = summary.get("validation_loss").and_then(number) {
        lines.push(format!("best validation loss {loss:.4}"));
    }
    for (signal, verdict) in summary.get("verdict").and_then(Value::as_object).into_iter().flatten() {
        lines.push(format!("{signal}: {}", verdict.as_str().unwrap_or_default()));
    }
    lines.join("\n")
}
