//! `imago eval`: what a run's policy is worth on episodes it was not chosen by; what an image model's images are worth.

use super::check_output;
use crate::assemble;
use crate::compare::{self, Which};
use crate::face_arithmetic;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::runs::{self, Loaded, Score, scaled};

use anyhow::{Context, Result, ensure};
use clap::Args;
use imago::generative::grid::png;
use imago::rollout::{Actor, Episode};
use imago::run::write_whole;
use imago_agents::{Visits, mean_std};
use imago_envs::{EnvSpec, FloorPlan};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Measure a run's return.
#[derive(Args)]
pub struct Arguments {
    /// The run, e.g. `latest` or `runs/mine@best`.
    run: String,
    /// Episodes to average.
    #[arg(long, default_value_t = 50, value_name = "N")]
    episodes: usize,
    /// Sample actions and do not take the most probable.
    #[arg(long)]
    stochastic: bool,
    /// Another environment than the run's own.
    #[arg(long)]
    env: Option<String>,
    /// A picture of where the episodes have been, drawn into the floor plan: of Rooms-v0 and of Doom's MyWayHome.
    #[arg(long, value_name = "FILE.png")]
    map: Option<PathBuf>,
    /// Of an image model: images to compare with real ones.
    #[arg(long, value_name = "N", conflicts_with_all = ["episodes", "stochastic", "env", "map"])]
    samples: Option<usize>,
    /// By what they are compared.
    #[arg(long, value_enum, default_value_t = Which::Lite0, requires = "samples")]
    features: Which,
    /// Of an image model of labelled faces: how often adding glasses and smiles succeeds, how near that comes to true
    /// pictures of the same people, and how well pictures are inverted.
    #[arg(long, conflicts_with_all = ["episodes", "stochastic", "env", "map", "samples"])]
    arithmetic: bool,
    /// A picture of generated images, each with the training image nearest to it in pixels at its right.
    #[arg(long, value_name = "FILE.png", requires = "samples")]
    nearest: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    format: u32,
    run: String,
    checkpoint: u64,
    env: String,
    deterministic: bool,
    seed: u64,
    #[serde(flatten)]
    score: Score,
    /// Share of the episodes that the task ended, not a limit.
    terminated_share: f64,
    /// Means of the environment's own numbers at the episodes' ends (`env.metrics`), of the episodes that have them.
    metrics: BTreeMap<String, f64>,
    random_return: Option<f64>,
    expert_return: Option<f64>,
    scaled_score: Option<f64>,
}

/// Random and expert return: from `[eval]`, else the demonstrations' and a measured random policy.
fn ends(program: &Program, loaded: &Loaded, env: &EnvSpec, seed: u64) -> Result<(Option<f64>, Option<f64>)> {
    let eval = &loaded.recipe.eval;
    let mut recipe = loaded.recipe.clone();
    let expert = match (eval.expert_return, recipe.demos_mut().first_mut()) {
        (Some(expert), _) => Some(expert),
        // The scale is a courtesy: a run must stay measurable when its demonstrations have moved.
        (None, Some(demos)) => assemble::demonstrations(demos).ok().map(|demos| demos.return_mean_std().0),
        (None, None) => None,
    };
    let random = match (eval.random_return, expert) {
        (Some(random), _) => Some(random),
        (None, Some(_)) => {
            let episodes =
                runs::fresh_episodes(program, env, &Actor::Random, 50, seed, "random policy", false)?;
            Some(Score::of(&episodes).return_mean)
        }
        (None, None) => None,
    };
    Ok((random, expert))
}

/// Means of what `env` says of itself at the end of each episode, of those in which it does.
fn metrics(names: &[String], episodes: &[Episode]) -> BTreeMap<String, f64> {
    let mean = |i: usize| {
        let said = episodes.iter().filter_map(|episode| episode.metrics.get(i).copied());
        let said: Vec<f64> = said.filter(|x| x.is_finite()).collect();
        (!said.is_empty()).then(|| mean_std(&said).0)
    };
    names.iter().enumerate().filter_map(|(i, name)| Some((name.clone(), mean(i)?))).collect()
}

/// Who is measured, and where.
pub fn subject(program: &Program, arguments: &Arguments) -> Result<(Loaded, EnvSpec)> {
    ensure!(arguments.episodes > 0, "--episodes must be at least 1");
    let loaded = runs::load(program, &arguments.run)?;
    let env = loaded.env(arguments.env.as_deref())?;
    Ok((loaded, env))
}

/// The floor that `path` is to show.
fn plan(path: &Path, env: &EnvSpec, shared: &Shared) -> Result<FloorPlan> {
    let is_png = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    ensure!(is_png, "--map {}: maps are written as PNG, so the name ends with .png", path.display());
    check_output(path, shared.force)?;
    let missing = || format!("--map: `{}` has no floor plan; Rooms-v0 and DoomMyWayHome have", env.id);
    FloorPlan::of(env).with_context(missing)
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    tch::set_num_threads(1);
    if let Some(count) = arguments.samples {
        arguments.nearest.iter().try_for_each(|path| check_output(path, shared.force))?;
        let loaded = runs::load_maker(program, &arguments.run)?;
        let seed = shared.seed.unwrap_or(loaded.recipe.run.seed);
        compare::compare(&loaded, count, arguments.features, seed, arguments.nearest.as_deref())?
            .print(shared)?;
        return Ok(Done::Finished);
    }
    if arguments.arithmetic {
        let loaded = runs::load_maker(program, &arguments.run)?;
        let seed = shared.seed.unwrap_or(loaded.recipe.run.seed);
        face_arithmetic::measure(&loaded, seed, shared)?.print(shared)?;
        return Ok(Done::Finished);
    }
    let (loaded, env) = subject(program, arguments)?;
    let plan = arguments.map.as_ref().map(|path| plan(path, &env, shared)).transpose()?;
    let seed = shared.seed.unwrap_or(loaded.recipe.run.seed);
    let actor = Actor::Policy { policy: &loaded.policy, deterministic: !arguments.stochastic };
    let episodes = runs::fresh_episodes(program, &env, &actor, arguments.episodes, seed, "reporting", false)?;
    if let (Some(plan), Some(path)) = (plan, &arguments.map) {
        write_whole(path, &png(&Visits::of(plan, &episodes).picture())?)?;
    }
    let score = Score::of(&episodes);
    let ended = episodes.iter().filter(|episode| episode.terminated).count();
    let terminated_share = ended as f64 / episodes.len() as f64;
    // A preset's, too.
    let metrics = metrics(&program.envs.resolve(&env).metrics, &episodes);
    // Elsewhere the run's references mean nothing.
    let at_home = loaded.recipe.env.as_ref() == Some(&env);
    let (random_return, expert_return) = match at_home {
        true => ends(program, &loaded, &env, seed).map_err(failed)?,
        false => (None, None),
    };
    let scaled_score = match (random_return, expert_return) {
        (Some(random), Some(expert)) => scaled(score.return_mean, random, expert),
        _ => None,
    };
    if shared.json {
        let report = Report {
            format: 1,
            run: loaded.path.display().to_string(),
            checkpoint: loaded.step,
            env: env.id,
            deterministic: !arguments.stochastic,
            seed,
            score,
            terminated_share,
            metrics,
            random_return,
            expert_return,
            scaled_score,
        };
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let how = if arguments.stochastic { "stochastic" } else { "deterministic" };
        println!(
            "{} at step {} in {}: return {:.1} ± {:.1} over {} episodes ({how}), length {:.0}{}{}",
            loaded.path.display(),
            loaded.step,
            env.id,
            score.return_mean,
            score.return_std,
            score.episodes,
            score.length_mean,
            scaled_score.map_or(String::new(), |s| format!(", scaled score {s:.3}")),
            metrics.iter().map(|(name, mean)| format!(", {name} {mean:.1}")).collect::<String>()
        );
        if let Some(path) = &arguments.map {
            println!("map     {}", path.display());
        }
    }
    Ok(Done::Finished)
}
