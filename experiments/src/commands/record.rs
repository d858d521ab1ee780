//! `imago record`: demonstrations from a run's policy, or from a random one; or what they look like, as images.

use super::check_output;
use super::watch::with_pictures;
use crate::assemble;
use crate::frames::Filmed;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::runs::{self, Loaded, Score};
use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use imago::rollout::{Actor, run_episodes};
use imago_agents::Demonstrations;
use imago_envs::{Each, EnvSpec};
use std::path::{Path, PathBuf};

/// Policies that need no run.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Builtin {
    /// Uniform over the action space.
    Random,
}

/// Record demonstrations.
#[derive(Args)]
pub struct Arguments {
    /// The run whose policy acts.
    #[arg(required_unless_present = "policy", conflicts_with = "policy")]
    run: Option<String>,
    /// Who acts in place of a run; needs --env.
    #[arg(long, value_enum, requires = "env")]
    policy: Option<Builtin>,
    /// Whole episodes to record.
    #[arg(long, default_value_t = 10, value_name = "N")]
    episodes: usize,
    /// Where to put them: a file, or a folder (`frames/`) for pictures of every moment, which image models learn from.
    #[arg(long, value_name = "FILE|DIR/")]
    to: PathBuf,
    /// Sample actions and do not take the most probable.
    #[arg(long)]
    stochastic: bool,
    /// Another environment than the run's own.
    #[arg(long)]
    env: Option<String>,
}

/// Whose policy acts (nobody's: a random one), and where.
pub fn actor(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<(Option<Loaded>, EnvSpec)> {
    check_output(&arguments.to, shared.force)?;
    ensure!(arguments.episodes > 0, "--episodes must be at least 1");
    let loaded = arguments.run.as_ref().map(|run| runs::load(program, run)).transpose()?;
    let env = match &loaded {
        Some(loaded) => loaded.env(arguments.env.as_deref())?,
        None => EnvSpec::parse(arguments.env.as_deref().context("--policy needs --env")?)?,
    };
    Ok((loaded, env))
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    tch::set_num_threads(1);
    let (loaded, env) = actor(program, arguments, shared)?;
    let (actor, seed) = match &loaded {
        Some(loaded) => (
            Actor::Policy { policy: &loaded.policy, deterministic: !arguments.stochastic },
            loaded.recipe.run.seed,
        ),
        None => (Actor::Random, 0),
    };
    let seed = shared.seed.unwrap_or(seed);
    if is_folder(&arguments.to) {
        return frames(program, arguments, &env, &actor, seed, shared);
    }
    let spaces = assemble::evaluation_group(program, &env, 1)?;
    let episodes = runs::fresh_episodes(program, &env, &actor, arguments.episodes, seed, "recording", true)?;
    let demonstrations =
        Demonstrations::from_episodes(env, spaces.observation_space(), spaces.action_space(), &episodes)
            .map_err(failed)?;
    let finite = episodes.iter().all(|episode| episode.episode_return.is_finite());
    if !finite {
        return Err(failed(anyhow!(
            "the environment paid rewards that are not finite: nothing was recorded"
        )));
    }
    demonstrations.save(&arguments.to).map_err(failed)?;
    let score = Score::of(&episodes);
    if shared.json {
        let report = serde_json::json!({
            "format": 1,
            "file": arguments.to,
            "env": demonstrations.env.id,
            "pairs": demonstrations.pairs(),
            "score": score,
        });
        println!("{report}");
    } else {
        println!(
            "{}: {} episodes, {} pairs, return {:.1} ± {:.1}",
            arguments.to.display(),
            score.episodes,
            demonstrations.pairs(),
            score.return_mean,
            score.return_std
        );
    }
    Ok(Done::Finished)
}

/// Whether pictures are meant: a name that ends in "/".
fn is_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Pictures of every moment, a folder for each episode.
fn frames(
    program: &Program,
    arguments: &Arguments,
    env: &EnvSpec,
    actor: &Actor,
    seed: u64,
    shared: &Shared,
) -> Outcome {
    if arguments.to.exists() {
        return Err(anyhow!("{} exists: give another folder", arguments.to.display()).into());
    }
    let (made, first) = with_pictures(program, env, actor)?;
    let mut written = 0;
    let mut group = Each::new(vec![Filmed::new(made, &arguments.to, arguments.episodes, &mut written)]);
    let episodes = run_episodes(&mut group, actor, arguments.episodes, seed, "recording", false);
    drop(group);
    let score = Score::of(&episodes.map_err(failed)?);
    let to = arguments.to.display();
    if shared.json {
        let report = serde_json::json!({
            "format": 1,
            "folder": arguments.to,
            "env": env.id,
            "frames": written,
            "width": first.width,
            "height": first.height,
            "score": score,
        });
        println!("{report}");
    } else {
        println!(
            "{to}: {written} pictures of {} × {} in {} episodes",
            first.width, first.height, score.episodes
        );
        println!("next: imago train dcgan/frames --set data.path={to}");
    }
    Ok(Done::Finished)
}
