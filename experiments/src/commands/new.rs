//! `imago new`: a starter recipe for the user's own task, from a look at its environment and demonstrations.

use super::check_output;
use crate::assemble;
use crate::nearest::nearest;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::recipe::{DemosConfig, Recipe};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use imago::Stream;
use imago::nn::TorsoKind;
use imago::rollout::random_actions;
use imago_agents::{Demonstrations, RewardForm};
use imago_envs::{Dtype, EnvSpec, LeafBuf, Space};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use toml::{Table, Value};

/// A starter recipe.
#[derive(Args)]
pub struct Arguments {
    /// How to learn: gail (imitate, with an environment), bc (imitate by supervised learning) or ppo (by the reward).
    kind: String,
    /// The environment: a name of `imago envs`, or gym:ID. Default: where the demonstrations were recorded.
    #[arg(long)]
    env: Option<String>,
    /// Demonstrations to imitate.
    #[arg(long, value_name = "FILE")]
    demos: Option<PathBuf>,
    /// Where to put the recipe; printed if absent.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gail,
    Bc,
    Ppo,
}

impl Kind {
    const NAMES: [(&str, Kind); 3] = [("gail", Kind::Gail), ("bc", Kind::Bc), ("ppo", Kind::Ppo)];

    fn read(name: &str) -> Result<Self> {
        if let Some((_, kind)) = Self::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(*kind);
        }
        let names = Self::NAMES.map(|(name, _)| name);
        let hint = nearest(name, names).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        bail!("`{name}` is no kind of recipe{hint} (there are: {})", names.join(", "))
    }
}

/// The environment is looked at for so many random steps, or for so long.
const LOOK_STEPS: usize = 2_000;
const LOOK_TIME: Duration = Duration::from_secs(5);

/// How an episode ended.
#[derive(Clone, Copy, Debug, PartialEq)]
struct End {
    length: usize,
    terminated: bool,
}

/// What a look at the environment showed.
struct Look {
    observation: Space,
    action: Space,
    /// Ends of random episodes.
    ends: Vec<End>,
    steps: usize,
}

impl Look {
    fn at(program: &Program, spec: &EnvSpec) -> Result<Self> {
        let mut env = program.envs.make(spec)?;
        let (observation, action) = (env.observation_space().clone(), env.action_space().clone());
        let mut seen = LeafBuf::zeros(&observation, 1);
        let (begun, mut ends, mut steps, mut length) = (Instant::now(), Vec::new(), 0, 0);
        let mut noise = [Stream::new(0, "look", 0, 0)];
        let mut mask = vec![true; action.choices()];
        env.reset(Stream::seed(0, "look", 0, 0), seen.leaf_mut())?;
        while steps < LOOK_STEPS && begun.elapsed() < LOOK_TIME {
            let masked = env.action_mask(&mut mask);
            let random = random_actions(&action, masked.then_some(&mask), &mut noise);
            let step = env.step(random.leaf(), seen.leaf_mut())?;
            (steps, length) = (steps + 1, length + 1);
            if step.terminated || step.truncated {
                ends.push(End { length, terminated: step.terminated });
                length = 0;
                env.reset(Stream::seed(0, "look", ends.len() as u64, 0), seen.leaf_mut())?;
            }
        }
        Ok(Self { observation, action, ends, steps })
    }

    /// What the random episodes came to, in words.
    fn words(&self) -> String {
        let Some(longest) = self.ends.iter().map(|end| end.length).max() else {
            return format!("no episode ended within {} random steps", self.steps);
        };
        let shortest = self.ends.iter().map(|end| end.length).min().unwrap_or(longest);
        let length =
            if shortest == longest { format!("{longest}") } else { format!("{shortest} to {longest}") };
        let terminated = self.ends.iter().filter(|end| end.terminated).count();
        let how = match (terminated, self.ends.len()) {
            (0, _) => "all cut off by a time limit".to_string(),
            (count, all) if count == all => "all ended by the task".into(),
            (count, all) => format!("{count} of {all} ended by the task, the others cut off by a time limit"),
        };
        format!("random episodes last {length} steps, {how}")
    }

    fn torso(&self) -> TorsoKind {
        let Space::Box { shape, dtype, .. } = &self.observation else { return TorsoKind::Mlp };
        let side = match **shape {
            [h, w] if *dtype == Dtype::U8 => h.min(w),
            // Channels come first or last: the shortest side.
            [a, b, c] if a <= c => b.min(c),
            [a, b, _] => a.min(b),
            _ => return TorsoKind::Mlp,
        };
        match side {
            0..8 => TorsoKind::Mlp,
            8..64 => TorsoKind::Icm,
            _ => TorsoKind::Nature,
        }
    }

    /// Whether some value of a vector may leave [−1, 1].
    fn is_wide(&self) -> bool {
        match &self.observation {
            Space::Box { dtype: Dtype::F32, low, high, .. } => {
                low.iter().chain(high).any(|bound| bound.abs() > 1.0)
            }
            _ => false,
        }
    }

    /// Initial log standard deviation that suits the narrowest direction of continuous actions.
    fn log_std(&self) -> Option<f64> {
        let Space::Box { low, high, .. } = &self.action else { return None };
        let half = low.iter().zip(high).map(|(low, high)| (high - low) / 2.0).fold(f64::INFINITY, f64::min);
        Some(if half < 0.9 && half > 0.0 { ((half / 2.0).ln() * 10.0).round() / 10.0 } else { 0.0 })
    }
}

/// The reward form whose bias is harmless, or helps, given how episodes end; and why.
fn reward_form(random: &[End], expert: &[End]) -> (RewardForm, &'static str) {
    let terminates = |ends: &[End]| ends.iter().any(|end| end.terminated);
    let mean =
        |ends: &[End]| ends.iter().map(|end| end.length as f64).sum::<f64>() / ends.len().max(1) as f64;
    match (terminates(random), terminates(expert), expert.is_empty()) {
        (false, false, true) => (
            RewardForm::Positive,
            "Random episodes never end early. If the expert's do, by success, write \"negative\".",
        ),
        (false, false, false) => (
            RewardForm::Positive,
            "No episode ends early here, so that neither form pays for long or short ones.",
        ),
        (true, _, true) => (
            RewardForm::Positive,
            "Random episodes end early: taken for failure. If they end by success, write \"negative\".",
        ),
        (true, _, false) if mean(expert) >= mean(random) => (
            RewardForm::Positive,
            "The expert's episodes are longer than random ones: to end early is to fail.",
        ),
        (_, true, _) => (
            RewardForm::Negative,
            "The expert's episodes end before random ones do: to end early is to succeed.",
        ),
        (true, false, false) => (
            RewardForm::Positive,
            "Random episodes end early and the expert's never do: to end early is to fail.",
        ),
    }
}

/// A demonstration file as the recipe will name it, and what it holds.
struct Named {
    path: String,
    demonstrations: Demonstrations,
}

fn read_demonstrations(file: &Path, recipe_folder: &Path) -> Result<Named> {
    let text = file.to_string_lossy();
    let config = |demos: &str| DemosConfig { demos: demos.into(), ..DemosConfig::default() };
    let demonstrations = assemble::demonstrations(&mut config(&text))?;
    if text.starts_with("builtin:") {
        return Ok(Named { path: text.into(), demonstrations });
    }
    let whole = |path: &Path| path.canonicalize().with_context(|| format!("cannot find {}", path.display()));
    let relative = pathdiff::diff_paths(whole(file)?, whole(recipe_folder)?);
    let path = relative.unwrap_or_else(|| file.into()).to_string_lossy().into_owned();
    Ok(Named { path, demonstrations })
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    let kind = Kind::read(&arguments.kind)?;
    if let Some(to) = &arguments.to {
        check_output(to, shared.force)?;
    }
    let folder =
        arguments.to.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let demos = match (&arguments.demos, kind) {
        (Some(_), Kind::Ppo) => {
            return Err(
                anyhow!("--demos: ppo learns from the reward; imitate with `new gail` or `new bc`").into()
            );
        }
        (file, _) => file.as_ref().map(|file| read_demonstrations(file, folder)).transpose()?,
    };
    let recorded = demos.as_ref().map(|demos| demos.demonstrations.env.clone());
    let spec = match (&arguments.env, recorded) {
        // With the arguments it was recorded with.
        (Some(id), Some(recorded)) if recorded.id == *id => recorded,
        (Some(id), _) => EnvSpec::parse(id)?,
        (None, Some(recorded)) => recorded,
        (None, None) => {
            return Err(anyhow!(
                "for which environment? Give --env ENV (`imago envs` lists some){}",
                if kind == Kind::Ppo { "" } else { ", or --demos FILE recorded in it" }
            )
            .into());
        }
    };
    let look = Look::at(program, &spec)?;
    let text = starter(kind, &spec, &look, demos.as_ref())?;

    // What is handed out is read and built first.
    let name = arguments.to.as_ref().map_or("the new recipe".into(), |to| to.display().to_string());
    let mut recipe = Recipe::parse(&name, &text, &[], None, &program.signal_kinds())?;
    recipe.anchor(folder);
    assemble::rehearse(program, &mut recipe)?;

    match &arguments.to {
        None if shared.json => println!("{}", serde_json::json!({ "recipe": text })),
        None => print!("{text}"),
        Some(to) => {
            write_whole(to, folder, &text)?;
            let missing = recipe.missing_demonstrations();
            if shared.json {
                println!("{}", serde_json::json!({ "file": to, "missing": missing }));
            } else {
                let fill = missing.first().map_or(String::new(), |key| format!(" and fill in {key}"));
                println!("{name}: read it{fill}, check it with: imago train {name} --dry-run");
            }
        }
    }
    Ok(Done::Finished)
}

/// Writes a file that is there whole or not at all.
fn write_whole(to: &Path, folder: &Path, text: &str) -> Outcome {
    let write = || -> Result<()> {
        let mut file =
            tempfile::Builder::new().prefix(".imago-new-").permissions(readable()).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(to)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", to.display())).map_err(failed)?;
    Ok(Done::Finished)
}

/// Temporary files are private unless told otherwise.
fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// Text in TOML's quotes.
fn quoted(text: &str) -> String {
    Value::String(text.into()).to_string()
}

fn starter(kind: Kind, spec: &EnvSpec, look: &Look, demos: Option<&Named>) -> Result<String> {
    let torso = look.torso();
    let images = torso != TorsoKind::Mlp;
    let mut text = String::new();
    let mut line = |line: &str| {
        text += line.trim_end();
        text += "\n";
    };
    line(&match kind {
        Kind::Gail => {
            format!("# GAIL in {}: imitation that never sees the reward. Paper: Ho & Ermon 2016.", spec.id)
        }
        Kind::Bc => {
            format!("# Behaviour cloning for {}: supervised learning of the expert's actions.", spec.id)
        }
        Kind::Ppo => {
            format!("# PPO in {}, on the environment's own reward. Paper: Schulman et al. 2017.", spec.id)
        }
    });
    line(&format!("# Observations: {}. Actions: {}.", look.observation, look.action));
    line(&format!("# A look: {}.", look.words()));
    line("# A starting point, not tuned. Every key there is: imago recipes keys");
    line("format = 1");

    line("\n[run]");
    match (kind, images) {
        (Kind::Bc, _) => {
            line("total_steps = 2_000        # optimiser steps");
            line("eval_every = 100           # the best checkpoint is chosen by validation loss");
            line("checkpoint_every = 1_000");
            line("log_every = 10");
        }
        (_, false) => {
            line("total_steps = 307_200      # decisions, all environments together");
            line("eval_every = 20_480");
        }
        (_, true) => {
            line("total_steps = 2_048_000    # decisions, all environments together");
            line("eval_every = 102_400");
        }
    }

    line("\n[env]");
    line(&format!("id = {}", quoted(&spec.id)));
    if !spec.args.is_empty() {
        line(&format!("args = {}", Value::Table(spec.args.clone())));
    }
    // Its wrappers.
    for (key, value) in Table::try_from(spec)? {
        if !["id", "args", "time_limit"].contains(&key.as_str()) {
            line(&format!("{key} = {value}"));
        }
    }
    match (spec.time_limit, look.ends.iter().find(|end| !end.terminated)) {
        (Some(limit), _) => line(&format!("time_limit = {limit}")),
        (None, Some(end)) => {
            line(&format!("# time_limit = {}         # its own; another one goes here", end.length))
        }
        (None, None) if look.ends.is_empty() => {
            line(&format!(
                "# No episode ended within {} random steps. If none ever does, set a limit:",
                look.steps
            ));
            line("# time_limit = 1_000");
        }
        (None, None) => line("# time_limit = 1_000       # only if episodes may never end"),
    }

    if kind != Kind::Bc {
        line("\n[rollout]");
        line("envs = 8");
        line(&format!(
            "steps = {}                # of each environment between two updates",
            if images { 128 } else { 256 }
        ));
    }

    line("\n[policy]");
    match torso {
        TorsoKind::Mlp => {
            line("torso = \"mlp\"");
            line("hidden = [64, 64]");
        }
        TorsoKind::Icm => line(
            "torso = \"icm\"              # four convolutions for images about 42×42; \"nature\" for 84×84",
        ),
        TorsoKind::Nature => line(
            "torso = \"nature\"           # three convolutions for images about 84×84; \"icm\" for 42×42",
        ),
    }
    if !images {
        line(match look.is_wide() {
            true => "normalise = true           # observations may leave [-1, 1]: standardise them",
            false => "normalise = false          # true standardises observations that leave [-1, 1]",
        });
    }
    if let Some(log_std) = look.log_std() {
        line(&format!("log_std = {log_std:?}              # log of the actions' first standard deviation"));
    }

    line("\n[learner]");
    if kind == Kind::Bc {
        line("kind = \"bc\"");
        write_demos(demos, &mut line);
        line("validation_split = 0.3     # share of the pairs held out");
        line("weight_decay = 0.0         # raise it, to 1e-4 say, if the validation loss turns up");
    } else {
        line("kind = \"ppo\"");
        line(if images { "learning_rate = 2.5e-4" } else { "learning_rate = 1e-3" });
        line("anneal_learning_rate = true");
        line(&format!("minibatch_size = {}", if images { 256 } else { 128 }));
        if images {
            line("epochs = 4");
            line("clip = 0.1");
        }
        line("discount = 0.99            # plan about 1 / (1 - discount) = 100 steps ahead");
        line(match look.action {
            Space::Box { .. } => "entropy_coefficient = 0.0  # continuous actions explore by their deviation",
            _ => "entropy_coefficient = 0.01 # keeps choices from settling too early",
        });
    }

    match kind {
        Kind::Bc => {}
        Kind::Ppo => {
            line("\n[signal.task]");
            line("kind = \"extrinsic\"");
            line("reward_norm = \"returns\"    # rewards of any scale; \"none\" leaves them as they are");
        }
        Kind::Gail => {
            line("\n[signal.gail]");
            write_demos(demos, &mut line);
            let expert: Vec<End> = demos
                .iter()
                .flat_map(|demos| &demos.demonstrations.episodes)
                .map(|episode| End { length: episode.length, terminated: episode.terminated })
                .collect();
            let (form, why) = reward_form(&look.ends, &expert);
            line(
                "# \"positive\" rewards pay for every step and so for long episodes, \"negative\" ones cost every step",
            );
            line("# and so pay for short ones, \"logit\" may do either.");
            line(&format!("# {why}"));
            line(&format!("reward = {}", quoted(serde_json::to_value(form)?.as_str().unwrap_or_default())));
            line("update = \"before_reward\"   # as in the paper");
            line("updates_per_round = 20     # discriminator steps for each rollout");
        }
    }
    Ok(text)
}

fn write_demos(demos: Option<&Named>, line: &mut impl FnMut(&str)) {
    match demos {
        Some(Named { path, demonstrations }) => {
            let (mean, std) = demonstrations.return_mean_std();
            line(&format!(
                "# {} episodes, {} pairs, return {mean:.1} ± {std:.1}. Relative to this file.",
                demonstrations.episodes.len(),
                demonstrations.pairs()
            ));
            line(&format!("demos = {}", quoted(path)));
        }
        None => {
            line("# FILL IN before training, relative to this file: a file that `imago record` has written.");
            line("demos = \"\"");
        }
    }
}
