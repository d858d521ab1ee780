//! `imago sweep`: every combination of some settings with several seeds, and what came of it.

use crate::commands::train::{self, Source};
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::runs::RUNS;
use crate::sweep::grid::{self, Axis};
use crate::sweep::report::Report;
use crate::sweep::{Paced, Planned, Run, State, Sweep, Tally, plan};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use imago::run::{Stop, write_whole};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a sweep consists of.
const DEFINITION: &str = "sweep.json";

/// Version of its format.
const FORMAT: u32 = 1;

/// Train recipes with every combination of some settings and several seeds, and compare them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  Five seeds of one recipe:
    imago sweep ppo/cartpole --seeds 0..5
  Two learning rates by two networks, five seeds each, 20 runs:
    imago sweep ppo/cartpole --seeds 0..5 --to runs/a \\
        --grid learner.learning_rate=1e-3,3e-4 --grid policy.hidden=[32,32],[64,64]
  Several recipes beside each other, in one table and one picture:
    imago sweep icm/rooms-sparse rnd/rooms-sparse ppo/rooms-sparse --seeds 0..5
  What would be trained (--dry-run), and with whatever other changes:
    imago sweep gail/cartpole --seeds 0..5 --set run.total_steps=100000 --dry-run
  Go on with a sweep, whatever stopped it; only its report:
    imago sweep runs/a
    imago sweep runs/a --report-only

Every run is a process of its own in a folder of its own, and an ordinary run for all other commands. \
One that fails does not stop the others (exit code 1 at the end). Stop a sweep with Ctrl-C (every run gets a \
checkpoint, exit code 3) or kill it: the same command, or `imago sweep DIR`, keeps what is finished and goes on \
with the rest. More values and more seeds may be added in the same folder; another recipe or other keys need \
another one.

The folder gets report.md, report.json, curves.svg and curves.png: of each combination the mean over seeds and the \
interquartile mean with its 95 % stratified bootstrap interval (Agarwal et al. 2021).")]
pub struct Arguments {
    /// Built-in recipes (`imago recipes`), files or runs; or a sweep's folder, to go on with it.
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<String>,
    /// A key of the recipe and the values to try (repeatable: every combination is trained).
    #[arg(long, value_name = "KEY=A,B,…")]
    grid: Vec<String>,
    /// Seeds of each combination: 0..5 are 0 to 4, or a list. Default: the recipe's own seed.
    #[arg(long, value_name = "0..5|1,3,7")]
    seeds: Option<String>,
    /// Runs at a time, which share the processors. Default: as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Demonstrations to imitate.
    #[arg(long, value_name = "FILE")]
    demos: Option<PathBuf>,
    /// The sweep's folder. Default: runs/sweep-RECIPE, of several the first one.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Check everything, list the runs and how far each is, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Train nothing: tables and curves of what is finished.
    #[arg(long, conflicts_with = "dry_run")]
    report_only: bool,
}

/// `sweep.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Definition {
    format: u32,
    /// What was named as the recipe; several with `, ` between them.
    recipe: String,
    /// Keys and values.
    grid: Vec<Varied>,
    seeds: Vec<u64>,
    runs: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Varied {
    key: String,
    values: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    row: String,
    name: String,
    seed: u64,
}

/// What a command line asks for.
struct Plan {
    folder: PathBuf,
    definition: Definition,
    runs: Vec<Planned>,
}

/// Reads `folder`'s definition, if there is one.
fn stored(folder: &Path) -> Result<Option<Definition>> {
    let path = folder.join(DEFINITION);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // It is not even a folder.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let definition: Definition = serde_json::from_str(&text).with_context(|| {
        format!("{} is damaged; move it away and give the whole command again", path.display())
    })?;
    ensure!(
        definition.format == FORMAT,
        "{}: this program reads format {FORMAT}, not {}",
        path.display(),
        definition.format
    );
    Ok(Some(definition))
}

/// The sweep's folder that `name` means, if it means one.
fn existing(name: &str) -> Option<PathBuf> {
    let candidates = [PathBuf::from(name), Path::new(RUNS).join(name)];
    candidates.into_iter().find(|path| !name.is_empty() && path.join(DEFINITION).is_file())
}

/// A sweep that is there, as it was defined.
fn go_on(program: &Program, arguments: &Arguments, shared: &Shared, folder: PathBuf) -> Result<Plan> {
    let changed = [
        ("--grid", !arguments.grid.is_empty()),
        ("--seeds", arguments.seeds.is_some()),
        ("--set", !shared.sets.is_empty()),
        ("--demos", arguments.demos.is_some()),
        ("--to", arguments.to.is_some()),
    ];
    if let Some((flag, _)) = changed.iter().find(|(_, given)| *given) {
        bail!(
            "{} is a sweep and goes on as it was defined; to add to it, name its recipe in its place, all values and \
             seeds, and --to {0} ({flag} was given)",
            folder.display()
        );
    }
    let definition =
        stored(&folder)?.with_context(|| format!("{}: there is no sweep in it", folder.display()))?;
    let run = |entry: &Entry| {
        let recipe = folder.join(format!("{}.toml", entry.name));
        ensure!(
            recipe.is_file(),
            "{} is missing; give the whole command again: imago sweep {} --grid …",
            recipe.display(),
            definition.recipe
        );
        Ok(Run {
            row: entry.row.clone(),
            name: entry.name.clone(),
            recipe: recipe.to_string_lossy().into_owned(),
            sets: Vec::new(),
            demos: None,
            seed: None,
        })
    };
    let runs: Vec<Run> = definition.runs.iter().map(run).collect::<Result<_>>()?;
    let runs = plan(program, &folder, &runs)?;
    Ok(Plan { folder, definition, runs })
}

/// Puts `axes` in the order of the sweep that is in `folder`; refuses what would not just add to it.
fn fit(
    axes: &mut [Axis],
    seeds: &[u64],
    recipes: &[String],
    definition: &Definition,
    folder: &Path,
) -> Result<()> {
    let name = folder.display();
    let before: Vec<&str> = definition.recipe.split(", ").collect();
    // Folders of runs are called after their recipes as soon as there are several.
    ensure!(
        before.len() == 1 && recipes.len() == 1
            || before.len() > 1 && before.iter().all(|recipe| recipes.iter().any(|other| other == recipe)),
        "{name}: the sweep that is there is of {}, this one of {}; choose another folder with --to DIR",
        definition.recipe,
        recipes.join(", ")
    );
    let keys = |keys: &mut dyn Iterator<Item = &String>| {
        let mut keys: Vec<&str> = keys.map(String::as_str).collect();
        keys.sort_unstable();
        if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
    };
    let there = keys(&mut definition.grid.iter().map(|varied| &varied.key));
    let here = keys(&mut axes.iter().map(|axis| &axis.key));
    ensure!(
        there == here,
        "{name}: the sweep that is there varies {there}, this one {here}; choose another folder with --to DIR"
    );
    let place = |key: &str| definition.grid.iter().position(|varied| varied.key == key);
    axes.sort_by_key(|axis| place(&axis.key));
    for (axis, varied) in axes.iter().zip(&definition.grid) {
        let missing =
            varied.values.iter().find(|value| axis.values.iter().all(|choice| choice.label != **value));
        ensure!(
            missing.is_none(),
            "{name}: the sweep that is there has `{}` = {} too; a sweep may grow, not shrink: name all its values \
             (--grid {0}={}), or choose another folder with --to DIR",
            varied.key,
            missing.map_or("", String::as_str),
            varied.values.join(",")
        );
    }
    let missing = definition.seeds.iter().find(|seed| !seeds.contains(seed));
    if let Some(seed) = missing {
        let all: Vec<String> = definition.seeds.iter().map(ToString::to_string).collect();
        bail!(
            "{name}: the sweep that is there has seed {seed} too; a sweep may grow, not shrink: name all its seeds \
             (--seeds {}), or choose another folder with --to DIR",
            all.join(",")
        );
    }
    Ok(())
}

/// Refuses a folder that holds anything but a sweep.
fn check_folder(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    ensure!(folder.is_dir(), "{} is a file; choose a folder with --to DIR", folder.display());
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    // The lock of a sweep that was killed before it began does not count.
    let others = entries.flatten().any(|entry| entry.file_name() != ".lock");
    ensure!(
        !others,
        "{} is not empty and no sweep is in it (no {DEFINITION}); choose another folder with --to DIR",
        folder.display()
    );
    Ok(())
}

/// Reads and checks everything; writes nothing.
fn read(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<Plan> {
    ensure!(arguments.jobs != Some(0), "--jobs must be at least 1");
    let recipes = &arguments.recipes;
    if let Some((name, folder)) = recipes.iter().find_map(|name| Some((name, existing(name)?))) {
        ensure!(
            recipes.len() == 1,
            "{name} is a sweep and goes on alone; name its recipes to compare them with others"
        );
        return go_on(program, arguments, shared, folder);
    }
    let sources: Vec<Source> = recipes.iter().map(|recipe| train::find(recipe)).collect::<Result<_>>()?;
    let mut stems = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !stems.insert(&source.stem)) {
        bail!("two recipes are called {0}: their runs would share the folder {0}", twice.stem);
    }
    let mut axes = grid::axes(&arguments.grid)?;
    let mut set_keys = shared.sets.iter().filter_map(|set| Some(set.split_once('=')?.0.trim()));
    if let Some(key) = set_keys.clone().find(|key| axes.iter().any(|axis| axis.key == *key)) {
        bail!("{key} is given with --set and with --grid: which of them?");
    }
    let seeds = match &arguments.seeds {
        Some(text) => {
            ensure!(!set_keys.any(|key| key == "run.seed"), "run.seed is given with --set and with --seeds");
            grid::seeds(text)?
        }
        None => {
            // As the first combination has it: the recipe alone may be no whole one.
            let first = grid::combinations(&axes)?.swap_remove(0);
            let sets = [shared.sets.clone(), first.sets].concat();
            let read = train::read(program, &sources[0], &sets, arguments.demos.as_deref());
            vec![read.map_err(|error| of_grid(&error, &axes))?.0.run.seed]
        }
    };
    let folder = arguments.to.clone();
    let folder = folder.unwrap_or_else(|| Path::new(RUNS).join(format!("sweep-{}", sources[0].stem)));
    match stored(&folder)? {
        Some(definition) => fit(&mut axes, &seeds, recipes, &definition, &folder)?,
        None => check_folder(&folder)?,
    }
    let combinations = grid::combinations(&axes)?;
    ensure!(
        combinations.len().saturating_mul(seeds.len()).saturating_mul(recipes.len()) <= 10_000,
        "{} combinations with {} seeds each are more than 10000 runs",
        combinations.len().saturating_mul(recipes.len()),
        seeds.len()
    );
    let mut runs = Vec::new();
    // Seed by seed: what is there early is a picture of all.
    for &seed in &seeds {
        for (recipe, source) in recipes.iter().zip(&sources) {
            for combination in &combinations {
                // Only what differs is named.
                let several = recipes.len() > 1;
                let row = match (several, axes.is_empty()) {
                    (true, false) => format!("{recipe} {}", combination.label),
                    (false, false) => combination.label.clone(),
                    (_, true) => recipe.clone(),
                };
                let seed_folder = format!("seed-{seed}");
                let parts = [if several { &source.stem } else { "" }, &combination.folder, &seed_folder];
                runs.push(Run {
                    row,
                    name: parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"),
                    recipe: recipe.clone(),
                    sets: [shared.sets.clone(), combination.sets.clone()].concat(),
                    demos: arguments.demos.clone(),
                    seed: Some(seed),
                });
            }
        }
    }
    let planned = plan(program, &folder, &runs).map_err(|error| of_grid(&error, &axes))?;
    check_distinct(&planned)?;
    let varied = |axis: &Axis| Varied {
        key: axis.key.clone(),
        values: axis.values.iter().map(|choice| choice.label.clone()).collect(),
    };
    let entry =
        |run: &Planned| Entry { row: run.row.clone(), name: run.name.clone(), seed: run.recipe.run.seed };
    let definition = Definition {
        format: FORMAT,
        recipe: recipes.join(", "),
        grid: axes.iter().map(varied).collect(),
        seeds,
        runs: planned.iter().map(entry).collect(),
    };
    Ok(Plan { folder, definition, runs: planned })
}

/// A recipe's error names the flag that the user typed: keys of a grid are set as `--set` sets them.
fn of_grid(error: &anyhow::Error, axes: &[Axis]) -> anyhow::Error {
    let mut message = format!("{error:#}");
    for axis in axes {
        message = message.replace(&format!("--set {}", axis.key), &format!("--grid {}", axis.key));
    }
    anyhow!(message)
}

/// Refuses values that are written differently and mean the same.
fn check_distinct(runs: &[Planned]) -> Result<()> {
    let mut known = std::collections::BTreeMap::new();
    for run in runs {
        if let Some(other) = known.insert(run.recipe.to_toml()?, &run.row) {
            bail!("--grid: `{other}` and `{}` are the same recipe", run.row);
        }
    }
    Ok(())
}

/// The check of a command line, as far as it goes without training.
pub fn check(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<()> {
    read(program, arguments, shared).map(drop)
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    let Plan { folder, definition, mut runs } = read(program, arguments, shared)?;
    let title = match arguments.recipes.len() {
        1 if !definition.recipe.contains(", ") => format!("Sweep of {}", definition.recipe),
        // Their names are those of the rows.
        _ => "Sweep of several recipes".to_string(),
    };
    if arguments.dry_run {
        list(&folder, &runs, arguments, shared);
        return Ok(Done::Finished);
    }
    if arguments.report_only {
        if !folder.join(DEFINITION).is_file() {
            return Err(anyhow!("{}: there is no sweep in it yet", folder.display()).into());
        }
        conclude(&title, &folder, &runs, shared).map_err(failed)?;
        return Ok(Done::Finished);
    }
    let stop = Stop::on_signals()?;
    let mut sweep = Sweep::begin(&folder, stop.clone())?;
    (sweep.jobs, sweep.threads, sweep.quiet) = (arguments.jobs, shared.threads, shared.quiet);
    let text = serde_json::to_string_pretty(&definition).map_err(failed)?;
    write_whole(&folder.join(DEFINITION), text.as_bytes()).map_err(failed)?;
    if !shared.quiet {
        eprintln!("{} runs of {} → {}", runs.len(), definition.recipe, folder.display());
    }
    let mut paced = Paced::default();
    let each = |runs: &[Planned]| {
        paced.report(|| Report::of(&title, runs)?.write(&folder));
    };
    sweep.train(&mut runs, each).map_err(failed)?;
    conclude(&title, &folder, &runs, shared).map_err(failed)?;
    let Tally { failed: bad, left, .. } = Tally::of(&runs);
    match (stop.requested() && left > 0, bad) {
        (true, _) => {
            if !shared.quiet {
                eprintln!("stopped; go on with: imago sweep {}", folder.display());
            }
            Ok(Done::Stopped)
        }
        (false, 0) => Ok(Done::Finished),
        (false, _) => Err(failed(anyhow!(
            "{bad} of {} runs failed: {}; what they said last is in {}; `imago sweep {2}` tries them again",
            runs.len(),
            failures(&runs),
            folder.display()
        ))),
    }
}

/// The runs that failed, each with how, as far as a line holds them.
fn failures(runs: &[Planned]) -> String {
    const SHOWN: usize = 5;
    const LENGTH: usize = 100;
    let short = |text: &str| match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    };
    let failures: Vec<String> = runs
        .iter()
        .filter_map(|run| match &run.state {
            State::Failed(how) => {
                let first = how.lines().next().unwrap_or_default();
                let last = how.lines().last().unwrap_or_default();
                Some(match first == last {
                    true => format!("{} ({first})", run.name),
                    false => format!("{} ({first}: {})", run.name, short(last.trim_start_matches("imago: "))),
                })
            }
            _ => None,
        })
        .collect();
    let more = failures.len().saturating_sub(SHOWN);
    let shown = failures[..failures.len() - more].join("; ");
    if more > 0 { format!("{shown}; and {more} more") } else { shown }
}

/// Writes the report, and the result on stdout.
fn conclude(title: &str, folder: &Path, runs: &[Planned], shared: &Shared) -> Result<()> {
    let report = Report::of(title, runs)?;
    report.write(folder)?;
    if shared.json {
        let mut json = report.json();
        json["sweep"] = folder.to_string_lossy().into();
        println!("{json}");
    } else {
        println!("\n{}", report.table());
        println!("report  {}", folder.join("report.md").display());
        if folder.join("curves.png").is_file() {
            println!("curves  {}", folder.join("curves.png").display());
        }
        println!("look    .venv/bin/tensorboard --logdir {}", folder.display());
    }
    Ok(())
}

/// What `--dry-run` prints.
fn list(folder: &Path, runs: &[Planned], arguments: &Arguments, shared: &Shared) {
    let todo = runs.iter().filter(|run| !matches!(run.state, State::Finished(_))).count();
    let (jobs, threads) = Sweep::shares(arguments.jobs, shared.threads, todo);
    let state = |run: &Planned| match &run.state {
        State::New => "to begin".to_string(),
        State::Begun(step) => format!("to go on from step {step}"),
        State::Finished(_) => "finished".into(),
        State::Failed(_) => "failed, to try again".into(),
    };
    if shared.json {
        let all: Vec<_> =
            runs.iter().map(|run| json!({"row": run.row, "run": run.path, "state": state(run)})).collect();
        println!(
            "{}",
            json!({ "format": 1, "sweep": folder, "jobs": jobs, "threads": threads, "runs": all })
        );
        return;
    }
    for run in runs {
        println!("{}  {}", run.path.display(), state(run));
    }
    let each = match threads {
        0 => "one thread each".to_string(),
        threads => format!("{threads} rollout threads each"),
    };
    println!("{todo} of {} runs to train, {jobs} at a time, {each}", runs.len());
}
