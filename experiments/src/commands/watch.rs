//! `imago watch`: episodes to look at, in the terminal or as a film.

use super::check_output;
use super::record::Builtin;
use crate::gif_file::GifFile;
use crate::problem::{Done, Outcome, Problem, failed};
use crate::program::{Program, Shared};
use crate::runs::{self, Loaded};
use crate::terminal::Terminal;
use anyhow::{Context, Error, Result, anyhow, ensure};
use clap::Args;
use imago::rollout::{Actor, Episode, run_episodes};
use imago::run::Stop;
use imago_envs::{Each, Env, EnvSpec, Frame, Leaf, LeafBuf, LeafMut, Space, Step};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Seconds for which an episode's last picture stays.
const AT_THE_END: f64 = 1.0;

/// Watch episodes.
#[derive(Args)]
pub struct Arguments {
    /// The run whose policy acts.
    #[arg(required_unless_present = "policy", conflicts_with = "policy")]
    run: Option<String>,
    /// Who acts in place of a run; needs --env.
    #[arg(long, value_enum, requires = "env")]
    policy: Option<Builtin>,
    /// Episodes to show; those that `imago eval` measures.
    #[arg(long, default_value_t = 1, value_name = "N")]
    episodes: usize,
    /// Film them into a GIF, and do not show them in the terminal.
    #[arg(long, value_name = "FILE.gif")]
    to: Option<PathBuf>,
    /// Sample actions and do not take the most probable.
    #[arg(long)]
    stochastic: bool,
    /// Pictures a second.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    fps: u32,
    /// Another environment than the run's own.
    #[arg(long)]
    env: Option<String>,
}

/// Where the pictures go.
enum Screen {
    Terminal(Terminal, Instant),
    Film(GifFile),
}

/// The pictures of a number of episodes on their way.
struct Show {
    screen: Screen,
    stop: Stop,
    /// Seconds from picture to picture.
    pace: f64,
    episodes: usize,
    /// Why it ended early, unless it was asked to.
    problem: Option<Error>,
}

impl Show {
    /// Shows a picture for `seconds`. `Err` if there is no reason to go on; why is in `self`.
    fn picture(&mut self, frame: Option<Frame>, caption: &str, seconds: f64) -> Result<(), ()> {
        let shown = match (&mut self.screen, frame) {
            (_, None) => Err(anyhow!("the environment has stopped giving pictures")),
            (Screen::Film(film), Some(frame)) => film.add(&frame, seconds),
            (Screen::Terminal(terminal, next), Some(frame)) => {
                terminal.show(&frame, caption);
                *next = (*next + Duration::from_secs_f64(seconds)).max(Instant::now());
                while !self.stop.requested() && Instant::now() < *next {
                    let rest = next.saturating_duration_since(Instant::now());
                    std::thread::sleep(rest.min(Duration::from_millis(20)));
                }
                Ok(())
            }
        };
        match shown {
            Ok(()) if self.stop.requested() => Err(()),
            Ok(()) => Ok(()),
            Err(problem) => {
                self.problem = Some(problem);
                Err(())
            }
        }
    }
}

/// An environment whose every moment is shown.
struct Watched<'a> {
    env: Box<dyn Env>,
    show: &'a mut Show,
    /// Episodes begun, steps and return of the present one.
    episode: usize,
    step: usize,
    so_far: f64,
}

impl Watched<'_> {
    fn picture(&mut self, ended: bool) -> imago_envs::Result<()> {
        // After the last episode a group begins another one.
        if self.episode > self.show.episodes {
            return Ok(());
        }
        let frame = self.env.render()?;
        let caption = format!(
            "{} · episode {} of {} · step {} · return {:.4}",
            self.env.id(),
            self.episode,
            self.show.episodes,
            self.step,
            self.so_far
        );
        let seconds = if ended { AT_THE_END } else { self.show.pace };
        self.show.picture(frame, &caption, seconds).map_err(|()| imago_envs::Error::Contract {
            id: self.env.id().into(),
            message: "watching it was ended".into(),
        })
    }
}

impl Env for Watched<'_> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        self.env.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.env.action_space()
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> imago_envs::Result<()> {
        self.env.reset(seed, observation)?;
        (self.episode, self.step, self.so_far) = (self.episode + 1, 0, 0.0);
        self.picture(false)
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> imago_envs::Result<Step> {
        let step = self.env.step(action, observation)?;
        self.step += 1;
        self.so_far += step.reward;
        self.picture(step.terminated || step.truncated)?;
        Ok(step)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        self.env.action_mask(mask)
    }

    fn info(&self, name: &str) -> Option<f64> {
        self.env.info(name)
    }
}

/// Makes the environment and looks whether it has pictures; the first one.
pub(super) fn with_pictures(
    program: &Program,
    spec: &EnvSpec,
    actor: &Actor,
) -> Result<(Box<dyn Env>, Frame)> {
    let mut env = program.envs.make_rendering(spec)?;
    runs::check_fits(actor, env.observation_space(), env.action_space())?;
    let mut observation = LeafBuf::zeros(env.observation_space(), 1);
    env.reset(0, observation.leaf_mut())?;
    let first = env.render()?.with_context(|| {
        format!("`{}` has no pictures to watch; Rooms-v0 has, and many of Gymnasium's (gym:ID)", spec.id)
    })?;
    ensure!(first.width * first.height > 0, "`{}` gives pictures without pixels", spec.id);
    Ok((env, first))
}

/// Whose policy acts (nobody's: a random one), and where.
pub fn actor(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<(Option<Loaded>, EnvSpec)> {
    ensure_positive(arguments.episodes)?;
    if let Some(path) = &arguments.to {
        check_output(path, shared.force)?;
        ensure_gif(path)?;
    }
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
    let (loaded, spec) = actor(program, arguments, shared)?;
    let (actor, seed) = match &loaded {
        Some(loaded) => (
            Actor::Policy { policy: &loaded.policy, deterministic: !arguments.stochastic },
            loaded.recipe.run.seed,
        ),
        None => (Actor::Random, 0),
    };
    let seed = shared.seed.unwrap_or(seed);
    let (env, first) = with_pictures(program, &spec, &actor)?;
    let screen = match &arguments.to {
        Some(path) => Screen::Film(GifFile::create(path, &first)?),
        None => {
            let terminal = Terminal::open().context(
                "there is no terminal on stderr to draw in: film the episodes with --to FILE.gif instead",
            )?;
            Screen::Terminal(terminal, Instant::now())
        }
    };
    let mut show = Show {
        screen,
        stop: Stop::on_signals().map_err(failed)?,
        pace: 1.0 / f64::from(arguments.fps),
        episodes: arguments.episodes,
        problem: None,
    };
    let watched = Watched { env, show: &mut show, episode: 0, step: 0, so_far: 0.0 };
    let mut group = Each::new(vec![watched]);
    let result = run_episodes(&mut group, &actor, arguments.episodes, seed, "reporting", false);
    drop(group);
    let Show { screen, stop, problem, .. } = show;
    let mut film = match screen {
        Screen::Film(film) => Some(film),
        // It gets back what was on it, so that the result is printed there.
        Screen::Terminal(terminal, _) => {
            drop(terminal);
            None
        }
    };
    let episodes = match (result, problem) {
        (_, Some(problem)) => return Err(Problem::Failed(problem)),
        (Ok(episodes), None) => episodes,
        (Err(_), None) if stop.requested() => match &arguments.to {
            // Whoever has seen enough has what he wanted.
            None => return Ok(Done::Finished),
            Some(path) => return Err(failed(anyhow!("stopped; {} was not written", path.display()))),
        },
        (Err(error), None) => return Err(failed(error)),
    };
    let bytes = film.as_mut().map(|film| film.finish(shared.force)).transpose().map_err(failed)?;
    if shared.json {
        let report = serde_json::json!({
            "format": 1,
            "run": loaded.as_ref().map(|loaded| loaded.path.display().to_string()),
            "checkpoint": loaded.as_ref().map(|loaded| loaded.step),
            "env": spec.id,
            "deterministic": loaded.is_some() && !arguments.stochastic,
            "seed": seed,
            "file": arguments.to,
            "frames": film.as_ref().map(|film| film.frames),
            "width": first.width,
            "height": first.height,
            "episodes": episodes.iter().map(described).collect::<Vec<_>>(),
        });
        println!("{report}");
    } else {
        for (i, episode) in episodes.iter().enumerate() {
            println!("{}", in_words(i + 1, episode));
        }
        if let (Some(path), Some(film), Some(bytes)) = (&arguments.to, &film, bytes) {
            println!(
                "{}: {} pictures of {} × {}, {} kB",
                path.display(),
                film.frames,
                first.width,
                first.height,
                bytes.div_ceil(1000)
            );
        }
    }
    Ok(Done::Finished)
}

fn described(episode: &Episode) -> serde_json::Value {
    serde_json::json!({
        "return": episode.episode_return,
        "length": episode.length,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
    })
}

fn in_words(number: usize, episode: &Episode) -> String {
    let how = if episode.terminated { "ended" } else { "cut off by the limit" };
    format!("episode {number}: return {:.4} in {} steps, {how}", episode.episode_return, episode.length)
}

fn ensure_positive(episodes: usize) -> Result<()> {
    ensure!(episodes > 0, "--episodes must be at least 1");
    Ok(())
}

fn ensure_gif(path: &std::path::Path) -> Result<()> {
    let is_gif = path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gif"));
    ensure!(is_gif, "--to {}: films are written as GIF, so the name ends with .gif", path.display());
    Ok(())
}
