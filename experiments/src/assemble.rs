//! From a recipe to something that can be trained.

use crate::catalogue;
use crate::commands::worker;
use crate::first_look::cache_folder;
use crate::image_sets::set_for;
use crate::program::{Program, SignalContext};
use crate::recipe::{DemosConfig, LearnerConfig, Recipe, SignalConfig, SignalKind, WorkerKind};
use crate::runs;
use anyhow::{Context, Result, bail, ensure};
use imago::Stream;
use imago::generative::data::{DataConfig, ImageSet};
use imago::generative::gan::Gan;
use imago::nn::{ActorCritic, BoxHead, PolicySpec};
use imago::rollout::{Collector, CollectorSpec, Launch, leaf_tensor};
use imago::run::Train;
use imago::signal::{Extrinsic, RewardSignal, Signals, Stacked, ValueHead};
use imago_agents::{
    A2c, Agent, Bc, Dac, Demonstrations, Disagreement, E3b, Evaluation, Gail, Icm, Learner, Ppo,
    PythonSignal, Rnd, Sac, Td3, Trpo,
};
use imago_envs::{EnvSpec, FloorPlan, LeafBuf, Space, VecEnv};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Environments stepped together while evaluating: many where they cost nothing, few where each may be a game
/// engine. The episodes are the same.
const NATIVE_GROUP: usize = 32;
const PYTHON_GROUP: usize = 4;

/// Reads the file a recipe names, checks it against the stored hash, and takes the selected pairs of it. The hash
/// is filled in.
pub fn demonstrations(config: &mut DemosConfig) -> Result<Demonstrations> {
    let all = match config.demos.strip_prefix("builtin:") {
        Some(name) => {
            let Some((_, bytes)) = catalogue::DEMOS.iter().find(|(known, _)| *known == name) else {
                let known: Vec<&str> = catalogue::DEMOS.iter().map(|(name, _)| *name).collect();
                bail!("no built-in demonstrations `{name}` (there are: {})", known.join(", "));
            };
            let file = catalogue::unpack(bytes)?;
            check_hash(config, file.path())?;
            Demonstrations::load(file.path())?
        }
        None => {
            let path = PathBuf::from(&config.demos);
            let loaded = Demonstrations::load(&path)?;
            check_hash(config, &path)?;
            loaded
        }
    };
    let selected = all.select(&config.selection());
    selected
        .with_context(|| format!("{} with demos_skip, demos_episodes and demos_stride as set", config.demos))
}

/// One made-up pair, for recipes that are only checked.
fn stand_in(env: &EnvSpec, observation: &Space, action: &Space) -> Demonstrations {
    let zeros = |space: &Space| leaf_tensor(&LeafBuf::zeros(space, 1), space);
    let pair =
        Demonstrations::from_pairs(observation.clone(), action.clone(), zeros(observation), zeros(action));
    Demonstrations { env: env.clone(), ..pair }
}

fn check_hash(config: &mut DemosConfig, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let hash = format!("{:08x}", crc32fast::hash(&bytes));
    if let Some(wanted) = config.demos_hash.as_ref().filter(|wanted| **wanted != hash) {
        bail!(
            "{} is not the file this recipe was resolved with (checksum {hash}, expected {wanted}); restore it, or \
             remove `demos_hash` to use the new one",
            config.demos
        );
    }
    config.demos_hash = Some(hash);
    Ok(())
}

/// Groups of environments for rollouts, sized as the recipe says, and those who step them.
fn collector(program: &Program, recipe: &Recipe, env: &EnvSpec, spec: CollectorSpec) -> Result<Collector> {
    let (count, size) = (recipe.rollout.envs, recipe.rollout.group_size);
    let sizes: Vec<usize> = (0..count).step_by(size).map(|first| size.min(count - first)).collect();
    let processes = match recipe.run.worker_kind {
        WorkerKind::Threads => false,
        WorkerKind::Processes => true,
        WorkerKind::Auto => spec.workers.min(sizes.len()) > 1 && program.envs.gains_from_processes(env),
    };
    if !processes {
        let groups = sizes.iter().map(|&size| program.envs.make_group(env, size));
        return Ok(Collector::new(spec, groups.collect::<Result<_, _>>()?)?);
    }
    let patience = Duration::try_from_secs_f64(recipe.run.env_timeout).context("run.env_timeout")?;
    let launch = Launch { env: env.clone(), command: Box::new(worker::command), patience };
    Ok(Collector::in_processes(spec, launch, &sizes)?)
}

/// Environments for evaluation.
pub fn evaluation_group(program: &Program, env: &EnvSpec, episodes: usize) -> Result<Box<dyn VecEnv>> {
    let group = if program.envs.is_python(&env.id) { PYTHON_GROUP } else { NATIVE_GROUP };
    Ok(program.envs.make_group(env, episodes.min(group))?)
}

fn evaluation(program: &Program, recipe: &Recipe, env: &EnvSpec) -> Result<Evaluation> {
    let episodes = recipe.run.eval_episodes;
    let envs = evaluation_group(program, env, episodes)?;
    Ok(Evaluation::new(envs, episodes, recipe.run.seed).with_plan(FloorPlan::of(env)))
}

/// Value heads: one for each different pair of discount and episodic, in order of appearance. Second, each
/// signal's head.
fn value_heads(signals: &[SignalConfig], discount: f64) -> (Vec<ValueHead>, Vec<usize>) {
    let mut heads: Vec<ValueHead> = Vec::new();
    let indices = signals
        .iter()
        .map(|signal| {
            let head = ValueHead {
                discount: signal.stack.discount.unwrap_or(discount),
                episodic: signal.stack.episodic,
            };
            heads.iter().position(|known| *known == head).unwrap_or_else(|| {
                heads.push(head);
                heads.len() - 1
            })
        })
        .collect();
    (heads, indices)
}

fn check_demonstrations(
    demonstrations: &Demonstrations,
    file: &str,
    env: &EnvSpec,
    observation: &Space,
    action: &Space,
) -> Result<()> {
    let fits = observation
        .check_fits("observations", &demonstrations.observation_space)
        .and_then(|()| action.check_fits("actions", &demonstrations.action_space));
    fits.with_context(|| {
        format!("{file} was recorded in {} and does not fit {}", demonstrations.env.id, env.id)
    })?;
    // What Gymnasium registers under a name of ours is the same environment.
    let of_gymnasium = |id: &str, name: &str| id.strip_prefix("gym:") == Some(name);
    let (there, here) = (&demonstrations.env.id, &env.id);
    if there != here && !of_gymnasium(there, here) && !of_gymnasium(here, there) {
        tracing::warn!("{file} was recorded in {there}, not in {here}");
    }
    Ok(())
}

/// Builds what `recipe` describes; fills in the hashes of the demonstration files it uses.
///
/// # Errors
/// Unknown environments and signals, demonstrations that are absent, damaged or do not fit: all before anything is
/// written.
pub fn trainee(program: &Program, recipe: &mut Recipe) -> Result<Box<dyn Train>> {
    if let Some(missing) = recipe.missing_demonstrations().first() {
        bail!("`{missing}`: no demonstrations yet");
    }
    build(program, recipe)
}

/// Checks all that [`trainee`] would, but takes a recipe whose demonstrations are still to come.
///
/// # Errors
/// As for [`trainee`], except for demonstrations that no key names.
pub fn rehearse(program: &Program, recipe: &mut Recipe) -> Result<()> {
    if let Some(data) = recipe.data.as_ref().filter(|data| !Path::new(&data.path).exists()) {
        tracing::warn!("data.path: {} is not there yet; training would refuse", data.path);
        return Ok(());
    }
    build(program, recipe).map(drop)
}

/// The images a recipe names, as it wants them.
///
/// # Errors
/// None there, or none that fits.
pub fn images(config: &DataConfig) -> Result<ImageSet> {
    let cache = cache_folder().ok().map(|folder| folder.join("images"));
    let set = ImageSet::open(config, cache.as_deref());
    let path = Path::new(&config.path);
    match set_for(path).filter(|_| !path.exists()) {
        Some(name) => set.with_context(|| {
            let usual = path.ends_with(Path::new("data").join(name));
            let to = if usual { String::new() } else { format!(" --to {}", path.display()) };
            format!("`imago data fetch {name}{to}` brings these images")
        }),
        None => Ok(set?),
    }
}

fn build(program: &Program, recipe: &mut Recipe) -> Result<Box<dyn Train>> {
    tch::set_num_threads(recipe.run.learner_threads);
    match recipe.learner.clone() {
        LearnerConfig::Bc(mut demos, config) => {
            let evaluation = recipe.env.as_ref().map(|env| evaluation(program, recipe, env)).transpose()?;
            let pairs = match (&evaluation, &recipe.env) {
                (Some(evaluation), Some(env)) if demos.demos.is_empty() => {
                    stand_in(env, evaluation.spaces().0, evaluation.spaces().1)
                }
                _ if demos.demos.is_empty() => {
                    bail!("neither `env.id` nor `learner.demos` says what to learn")
                }
                _ => demonstrations(&mut demos)?,
            };
            recipe.learner = LearnerConfig::Bc(demos.clone(), config.clone());
            if let (Some(evaluation), Some(env)) = (&evaluation, &recipe.env) {
                let (observation, action) = evaluation.spaces();
                check_demonstrations(&pairs, &demos.demos, env, observation, action)?;
            }
            let spec = recipe.policy.spec(&pairs.observation_space, &pairs.action_space, 1);
            let policy = begun(program, new_policy(spec, recipe.run.seed)?, recipe, &mut [])?;
            Ok(Box::new(Bc::new(config, policy, &pairs, evaluation, recipe.run.seed)?))
        }
        LearnerConfig::Dcgan(config) => {
            let data = images(recipe.data.as_ref().context("`data.path` is missing")?)?;
            Ok(Box::new(Gan::new(*config, data, recipe.run.seed, recipe.run.total_steps)?))
        }
        _ => agent(program, recipe),
    }
}

/// A policy that acts in environments, and how it learns from them.
fn agent(program: &Program, recipe: &mut Recipe) -> Result<Box<dyn Train>> {
    let env = recipe.env.clone().context("`env.id` is missing")?;
    ensure!(!recipe.signals.is_empty(), "the recipe has no reward signal: add [signal.extrinsic]");
    let evaluation = evaluation(program, recipe, &env)?;
    let (observation, action) = evaluation.spaces();
    let (observation, action) = (observation.clone(), action.clone());
    let discount = match &recipe.learner {
        LearnerConfig::Ppo(config) => config.discount,
        LearnerConfig::A2c(config) => config.discount,
        LearnerConfig::Trpo(config) => config.discount,
        LearnerConfig::Sac(replay, _) | LearnerConfig::Td3(replay, _) => replay.discount,
        LearnerConfig::Bc(..) | LearnerConfig::Dcgan(_) => bail!("this learner does not act"),
    };
    let (heads, head_of) = value_heads(&recipe.signals, discount);
    let mut stack = Vec::new();
    for (i, value_head) in head_of.into_iter().enumerate() {
        let signal = signal(program, recipe, i, &env, (&observation, evaluation.frame_stack()), &action)?;
        let SignalConfig { name, stack: config, .. } = &recipe.signals[i];
        let mut stacked = Stacked::new(name, signal, config.update);
        (stacked.weight, stacked.normalise) = (config.weight, config.reward_norm);
        (stacked.sign, stacked.clip) = (config.reward_sign, config.reward_clip);
        stacked.value_head = value_head;
        stack.push(stacked);
    }
    let mut policy = recipe.policy.spec(&observation, &action, heads.len());
    // Critics of off-policy learners are networks of their own.
    match &recipe.learner {
        LearnerConfig::Sac(..) => (policy.value_heads, policy.box_head) = (0, BoxHead::SquashedGaussian),
        LearnerConfig::Td3(_, config) => {
            let noise = config.exploration_noise;
            (policy.value_heads, policy.box_head) = (0, BoxHead::Deterministic { noise });
        }
        LearnerConfig::Ppo(_)
        | LearnerConfig::A2c(_)
        | LearnerConfig::Trpo(_)
        | LearnerConfig::Bc(..)
        | LearnerConfig::Dcgan(_) => {}
    }
    let rollout = (recipe.rollout.envs * recipe.rollout.steps) as u64;
    let collecting = CollectorSpec {
        policy,
        steps: recipe.rollout.steps,
        frame_stack: evaluation.frame_stack(),
        workers: recipe.run.workers,
        seed: recipe.run.seed,
        max_faults: recipe.run.max_faults,
        random_rollouts: recipe.learner.replay().map_or(0, |replay| replay.learning_starts.div_ceil(rollout)),
    };
    let seed = recipe.run.seed;
    let collector = collector(program, recipe, &env, collecting)?;
    let policy = warmed(new_policy(collector.policy().clone(), seed)?, recipe)?;
    let mut policy = begun(program, policy, recipe, &mut stack)?;
    for name in &recipe.policy.freeze {
        policy.freeze(name).context("policy.freeze")?;
    }
    let weights = |purpose| Stream::new(seed, purpose, 0, 0);
    let learner: Box<dyn Learner> = match recipe.learner.clone() {
        LearnerConfig::Ppo(config) => Box::new(Ppo::new(config, policy)),
        LearnerConfig::A2c(config) => Box::new(A2c::new(config, policy)),
        LearnerConfig::Trpo(config) => Box::new(Trpo::new(config, policy, &mut weights("value weights"))?),
        LearnerConfig::Sac(replay, config) => {
            Box::new(Sac::new(replay, config, policy, &mut weights("critic weights"))?)
        }
        LearnerConfig::Td3(replay, config) => {
            Box::new(Td3::new(replay, config, policy, &mut weights("critic weights"))?)
        }
        LearnerConfig::Bc(..) | LearnerConfig::Dcgan(_) => bail!("this learner does not act"),
    };
    let true_reward = recipe.signals.iter().any(|signal| signal.kind == SignalKind::Extrinsic);
    let signals = Signals { stack, heads };
    let total = recipe.run.total_steps;
    let agent = Agent::new(collector, learner, signals, Some(evaluation), seed, total, true_reward);
    // A preset's, too.
    Ok(Box::new(agent.with_metrics(&program.envs.resolve(&env).metrics)))
}

fn new_policy(spec: PolicySpec, seed: u64) -> Result<ActorCritic> {
    Ok(ActorCritic::new(spec, &mut Stream::new(seed, "policy weights", 0, 0))?)
}

/// `policy` as it begins: with statistics from the demonstrations, or having cloned them, if the recipe says so.
fn warmed(mut policy: ActorCritic, recipe: &Recipe) -> Result<ActorCritic> {
    let Some(demos) = recipe.warm_start().filter(|demos| !demos.demos.is_empty()) else { return Ok(policy) };
    let pairs = demonstrations(&mut demos.clone())?;
    match recipe.policy.cloning_steps {
        0 => policy.update_normaliser(&pairs.observations),
        steps => policy = Bc::warm_start(policy, &pairs, steps, recipe.run.seed)?,
    }
    Ok(policy)
}

/// `policy`, and the signals that the recipe names, as another run has left them, if it says so; fills in which of its
/// checkpoints that is.
fn begun(
    program: &Program,
    mut policy: ActorCritic,
    recipe: &mut Recipe,
    signals: &mut [Stacked],
) -> Result<ActorCritic> {
    let Some(name) = recipe.run.from.clone() else { return Ok(policy) };
    let place = || format!("run.from = \"{name}\"");
    let mut source = runs::load(program, &name).with_context(place)?;
    policy.begin_from(&source.policy).with_context(place)?;
    for stacked in signals.iter_mut().filter(|stacked| recipe.run.from_signals.contains(&stacked.name)) {
        let (path, signal) = (format!("train/signals/{}/signal", stacked.name), &mut stacked.signal);
        source.state.scope(&path, |state| signal.state(state)).with_context(place)?;
    }
    let directory = std::path::absolute(&source.path).unwrap_or(source.path);
    recipe.run.from = Some(format!("{}@{}", directory.display(), source.step));
    Ok(policy)
}

fn signal(
    program: &Program,
    recipe: &mut Recipe,
    index: usize,
    env: &EnvSpec,
    (observation, frame_stack): (&Space, usize),
    action: &Space,
) -> Result<Box<dyn RewardSignal>> {
    let rollout = recipe.rollout.envs * recipe.rollout.steps;
    let seed = recipe.run.seed;
    match &mut recipe.signals[index].kind {
        SignalKind::Extrinsic => Ok(Box::new(Extrinsic)),
        SignalKind::Gail(demos, config) => {
            let pairs = match demos.demos.is_empty() {
                true => stand_in(env, observation, action),
                false => demonstrations(demos)?,
            };
            check_demonstrations(&pairs, &demos.demos, env, observation, action)?;
            let mut rng = Stream::new(seed, "discriminator weights", index as u64, 0);
            Ok(Box::new(Gail::new(config.clone(), &pairs, rollout, &mut rng)?))
        }
        SignalKind::Dac(demos, config) => {
            let absorbing = recipe.learner.replay().is_some_and(|replay| replay.absorbing);
            let pairs = match demos.demos.is_empty() {
                true => stand_in(env, observation, action),
                false => demonstrations(demos)?,
            };
            check_demonstrations(&pairs, &demos.demos, env, observation, action)?;
            let mut rng = Stream::new(seed, "discriminator weights", index as u64, 0);
            Ok(Box::new(Dac::new(config.clone(), &pairs, absorbing, &mut rng)?))
        }
        SignalKind::Icm(config) => {
            let mut rng = Stream::new(seed, "curiosity weights", index as u64, 0);
            Ok(Box::new(Icm::new(config.clone(), observation, action, &mut rng)?))
        }
        SignalKind::Rnd(config) => {
            let mut rng = Stream::new(seed, "curiosity weights", index as u64, 0);
            Ok(Box::new(Rnd::new(config.clone(), observation, frame_stack, &mut rng)?))
        }
        SignalKind::Disagreement(config) => {
            let mut rng = Stream::new(seed, "curiosity weights", index as u64, 0);
            Ok(Box::new(Disagreement::new(config.clone(), observation, action, &mut rng)?))
        }
        SignalKind::E3b(config) => {
            let mut rng = Stream::new(seed, "curiosity weights", index as u64, 0);
            Ok(Box::new(E3b::new(config.clone(), observation, action, &mut rng)?))
        }
        SignalKind::Python(config) => Ok(Box::new(PythonSignal::new(config, observation, action)?)),
        SignalKind::Registered(kind, keys) => {
            let context =
                SignalContext { observation: observation.clone(), action: action.clone(), rollout, seed };
            program.signal(kind, keys, &context)
        }
    }
}
