//! Looking into runs: which checkpoint, its policy, its recipe, scores.

use crate::assemble;
use crate::catalogue;
use crate::program::Program;
use crate::recipe::Recipe;
use anyhow::{Context, Result, ensure};
use imago::generative::gan::Maker;
use imago::nn::ActorCritic;
use imago::rollout::{Actor, Episode, run_episodes};
use imago::run::{Checkpoints, Directory, State};
use imago_agents::mean_std;
use imago_envs::{EnvSpec, Space};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where runs are made and looked for.
pub const RUNS: &str = "runs";

/// A run's policy as a checkpoint holds it.
pub struct Loaded {
    /// The run's directory.
    pub path: PathBuf,
    /// The step of the checkpoint.
    pub step: u64,
    /// Its recipe.
    pub recipe: Recipe,
    /// Its policy.
    pub policy: ActorCritic,
    /// What else the checkpoint holds.
    pub state: State,
}

/// A run's directory, its recipe, and a checkpoint of it with its step.
fn open(program: &Program, name: &str) -> Result<(PathBuf, Recipe, u64, State)> {
    let (path, which) = Directory::resolve(Path::new(RUNS), name)?;
    ensure!(Directory::holds_run(&path), "{}: there is no run in it", path.display());
    let recipe_path = path.join("recipe.toml");
    let text = std::fs::read_to_string(&recipe_path)
        .with_context(|| format!("cannot read {}", recipe_path.display()))?;
    let recipe = Recipe::parse(&recipe_path.to_string_lossy(), &text, &[], None, &program.signal_kinds())?;
    let checkpoints = Checkpoints::open(&path)?;
    let (step, state) = checkpoints.load(which.unwrap_or(checkpoints.preferred()))?;
    Ok((path, recipe, step, state))
}

/// A run's image model as a checkpoint holds it.
pub struct LoadedMaker {
    /// The run's directory.
    pub path: PathBuf,
    /// The step of the checkpoint.
    pub step: u64,
    /// Its recipe.
    pub recipe: Recipe,
    /// Its generator.
    pub maker: Maker,
    /// Under which terms the images lie that it learnt from, if their folder or the model's file says so.
    pub licence: Option<String>,
}

/// The file of a folder of images that says so.
pub const LICENCE: &str = "LICENCE.txt";

/// What names a model that is in no run.
const MODEL: &str = "model:";

/// Loads the image model of `RUN[@best|@latest|@STEP]`, the built-in one of `model:NAME` (or `NAME` if no run is called
/// so), or one that `imago export` wrote, `FILE.safetensors`.
///
/// # Errors
/// No such run, checkpoint or model, a damaged one, one of an agent.
pub fn load_maker(program: &Program, name: &str) -> Result<LoadedMaker> {
    if let Some(model) = name.strip_prefix(MODEL) {
        return built_in(program, model);
    }
    let file = Path::new(name);
    if file.is_file() && file.extension().is_some_and(|ending| ending == "safetensors") {
        return load_model(program, file, file.into());
    }
    let found = Directory::resolve(Path::new(RUNS), name);
    if found.is_err() && catalogue::model(name).is_ok() {
        return built_in(program, name);
    }
    let (path, recipe, step, mut state) = open(program, name)?;
    ensure!(
        recipe.data.is_some(),
        "{} is an agent and makes no images: see `imago watch` for what it does",
        path.display()
    );
    let maker = state.scope("train", Maker::from_state)?;
    let folder = recipe.data.as_ref().map(|data| Path::new(&data.path).join(LICENCE));
    let licence = folder.and_then(|file| std::fs::read_to_string(file).ok());
    Ok(LoadedMaker { path, step, recipe, maker, licence })
}

fn built_in(program: &Program, name: &str) -> Result<LoadedMaker> {
    let file = catalogue::unpack(catalogue::model(name)?)?;
    load_model(program, file.path(), format!("{MODEL}{name}").into())
}

/// A file of [`Maker::save`] with the step, the recipe and the licence, called `path`.
fn load_model(program: &Program, file: &Path, path: PathBuf) -> Result<LoadedMaker> {
    let (maker, about) = Maker::load(file)?;
    let text = |key: &str| about.get(key).and_then(|value| value.as_str());
    let recipe =
        text("recipe").with_context(|| format!("{}: it does not hold its recipe", path.display()))?;
    let recipe = Recipe::parse(&path.to_string_lossy(), recipe, &[], None, &program.signal_kinds())?;
    ensure!(recipe.data.is_some(), "{}: its recipe is of an agent", path.display());
    let step = about.get("step").and_then(serde_json::Value::as_u64).unwrap_or(0);
    Ok(LoadedMaker { step, recipe, maker, licence: text("licence").map(String::from), path })
}

/// Loads `RUN[@best|@latest|@STEP]`; the best checkpoint unless another is named.
///
/// # Errors
/// No such run or checkpoint, a damaged one.
pub fn load(program: &Program, name: &str) -> Result<Loaded> {
    let (path, recipe, step, mut state) = open(program, name)?;
    ensure!(
        recipe.data.is_none(),
        "{} is an image model and has no policy: `imago generate` makes images with it, `imago eval RUN --samples N` \
         compares them",
        path.display()
    );
    let policy = state.scope("train", |state| state.scope("policy", ActorCritic::from_state))?;
    Ok(Loaded { path, step, recipe, policy, state })
}

impl Loaded {
    /// The environment to act in: `other`, or the run's own.
    pub fn env(&self, other: Option<&str>) -> Result<EnvSpec> {
        match (other, &self.recipe.env) {
            (Some(id), Some(env)) if id == env.id => Ok(env.clone()),
            (Some(id), _) => Ok(EnvSpec::parse(id)?),
            (None, Some(env)) => Ok(env.clone()),
            (None, None) => anyhow::bail!("{} has no environment: name one with --env", self.path.display()),
        }
    }
}

/// What some episodes came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Score {
    /// Episodes run.
    pub episodes: usize,
    /// Mean of their returns.
    pub return_mean: f64,
    /// Population standard deviation of their returns.
    pub return_std: f64,
    /// Mean of their lengths.
    pub length_mean: f64,
}

impl Score {
    /// Of these episodes.
    pub fn of(episodes: &[Episode]) -> Self {
        let returns: Vec<f64> = episodes.iter().map(|episode| episode.episode_return).collect();
        let lengths: Vec<f64> = episodes.iter().map(|episode| episode.length as f64).collect();
        let (return_mean, return_std) = mean_std(&returns);
        Self { episodes: episodes.len(), return_mean, return_std, length_mean: mean_std(&lengths).0 }
    }
}

/// Refuses a policy that was trained on other spaces than these.
pub fn check_fits(actor: &Actor, observation: &Space, action: &Space) -> Result<()> {
    if let Actor::Policy { policy, .. } = actor {
        policy.spec.observation.check_fits("the policy's and the environment's observations", observation)?;
        policy.spec.action.check_fits("the policy's and the environment's actions", action)?;
    }
    Ok(())
}

/// Episodes of fresh seeds, never those that chose the best checkpoint.
pub fn fresh_episodes(
    program: &Program,
    env: &EnvSpec,
    actor: &Actor,
    count: usize,
    seed: u64,
    purpose: &str,
    record: bool,
) -> Result<Vec<Episode>> {
    let mut group = assemble::evaluation_group(program, env, count)?;
    check_fits(actor, group.observation_space(), group.action_space())?;
    Ok(run_episodes(group.as_mut(), actor, count, seed, purpose, record)?)
}

/// (return − random) / (expert − random): 0 for a random policy, 1 for the expert.
pub fn scaled(value: f64, random: f64, expert: f64) -> Option<f64> {
    let range = expert - random;
    // + 0: no minus before a score of zero.
    (range.abs() > 1e-9).then(|| (value - random) / range + 0.0)
}
