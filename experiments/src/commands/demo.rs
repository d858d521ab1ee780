//! `imago demo`: the whole story on the fixed-horizon CartPole, where surviving earns nothing.
//!
//! Trains an expert, records ten of its episodes, imitates it from 25 state-action pairs of one of them by
//! behaviour cloning and by GAIL, and prints what each is worth. Every run is a child of this same program with
//! a directory of its own, so that an interrupted demo goes on where it was. Then a chapter on curiosity.

mod curiosity;

use crate::plot::{Curve, Labels, draw, metric};
use crate::problem::{Done, Outcome, Problem, failed};
use crate::processes::{self, Ended, Event, Job};
use crate::program::{Program, Shared};
use crate::runs::{self, Score, scaled};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use curiosity::Explored;
use imago::rollout::Actor;
use imago::run::Stop;
use imago_agents::mean_std;
use imago_envs::EnvSpec;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

const ENV: &str = "seals/CartPole-v0";
const EPISODES: usize = 50;
const BC_SEEDS: u64 = 10;
const GAIL_SEEDS: u64 = 3;

/// The whole story in two minutes.
#[derive(Args)]
pub struct Arguments {
    /// Where to put its runs. A second call goes on there, or only prints the table.
    /// Default: runs/demo, or runs/demo-smoke.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Train for a few hundred steps only: shows that everything works, not what is learnt.
    #[arg(long)]
    smoke: bool,
}

/// Runs all jobs, one for each core at a time. Whether all are done: if not, the demo was asked to stop.
fn run_all(jobs: &[Job], stop: &Stop, begun: Instant, quiet: bool) -> Result<bool> {
    let slots = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut finished, mut failure) = (0, None);
    processes::run_all(jobs, slots, stop, |event| match event {
        Event::Ended(job, Ended::Failed(how)) => {
            // One that fails makes the others pointless.
            stop.request();
            failure.get_or_insert_with(|| anyhow!("{}: {how}", jobs[job].name));
        }
        Event::Ended(job, Ended::Done) if !quiet => {
            finished += 1;
            let (seconds, name) = (begun.elapsed().as_secs_f64(), &jobs[job].name);
            eprintln!("[{seconds:>4.0} s] {finished:>2} of {}: {name}", jobs.len());
        }
        _ => {}
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(!stop.requested()),
    }
}

fn job(name: &str, folder: &Path, arguments: Vec<String>) -> Job {
    let log = folder.join(format!("{name}.log"));
    Job { name: name.into(), arguments: arguments.into_iter().map(OsString::from).collect(), log }
}

fn job_of_training(name: &str, recipe: &str, folder: &Path, seed: u64, rest: &[String]) -> Job {
    let run_dir = folder.join(name).display().to_string();
    let fixed = ["train", recipe, "--run-dir", &run_dir, "--resume", "--quiet", "--seed", &seed.to_string()];
    job(name, folder, fixed.map(String::from).into_iter().chain(rest.iter().cloned()).collect())
}

fn set(key: &str, value: &str) -> Vec<String> {
    vec!["--set".into(), format!("{key}={value}")]
}

/// A row of the table: 50-episode means, one for each seed.
struct Row {
    name: &'static str,
    means: Vec<f64>,
    note: String,
}

impl Row {
    fn mean(&self) -> f64 {
        mean_std(&self.means).0
    }
}

fn measure(program: &Program, run: &Path, which: &str, seed: u64) -> Result<f64> {
    let loaded = runs::load(program, &format!("{}@{which}", run.display()))?;
    let actor = Actor::Policy { policy: &loaded.policy, deterministic: true };
    let episodes =
        runs::fresh_episodes(program, &EnvSpec::new(ENV), &actor, EPISODES, seed, "reporting", false)?;
    Ok(Score::of(&episodes).return_mean)
}

fn table(rows: &[Row]) -> String {
    let (random, expert) = (rows[0].mean(), rows[rows.len() - 1].mean());
    let mut text = String::from(
        "| policy | seeds | return (mean ± std over seeds) | scaled score |\n| --- | --- | --- | --- |\n",
    );
    for row in rows {
        let (mean, std) = mean_std(&row.means);
        let scaled = scaled(mean, random, expert).map_or("–".into(), |s| format!("{s:.3}"));
        text += &format!(
            "| {}{} | {} | {mean:.1} ± {std:.1} | {scaled} |\n",
            row.name,
            row.note,
            row.means.len()
        );
    }
    text
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    tch::set_num_threads(1);
    let begun = Instant::now();
    let default = if arguments.smoke { "runs/demo-smoke" } else { "runs/demo" };
    let folder = arguments.to.as_deref().unwrap_or(Path::new(default));
    if folder.exists() && !folder.is_dir() {
        return Err(anyhow!("{} is a file; choose another --to", folder.display()).into());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let stop = Stop::on_signals()?;
    story(program, folder, arguments.smoke, shared, begun, &stop).map_err(|problem| match problem {
        Problem::Input(error) => failed(error),
        other => other,
    })
}

fn story(
    program: &Program,
    folder: &Path,
    smoke: bool,
    shared: &Shared,
    begun: Instant,
    stop: &Stop,
) -> Outcome {
    let say = |text: &str| {
        if !shared.quiet {
            eprintln!("[{:>4.0} s] {text}", begun.elapsed().as_secs_f64());
        }
    };
    let short =
        |steps: u64| if smoke { vec!["--set".into(), format!("run.total_steps={steps}")] } else { vec![] };

    say("an expert learns by PPO on the true reward");
    let expert = folder.join("expert");
    let rest = [set("env.id", &format!("\"{ENV}\"")), short(4_096)].concat();
    let expert_run = job_of_training("expert", "ppo/cartpole", folder, 0, &rest);
    if !run_all(&[expert_run], stop, begun, shared.quiet)? {
        return Ok(Done::Stopped);
    }

    let demos = folder.join("expert.demos");
    if !demos.exists() {
        say("ten of its episodes are recorded");
        let arguments = ["record", &expert.display().to_string(), "--episodes", "10", "--to"];
        let mut arguments: Vec<String> = arguments.map(String::from).into();
        arguments.push(demos.display().to_string());
        if !run_all(&[job("record", folder, arguments)], stop, begun, true)? {
            return Ok(Done::Stopped);
        }
    }

    say("25 state-action pairs of one episode are imitated: GAIL with 3 seeds, behaviour cloning with 10");
    let common = |skip_key: &str, seed: u64| {
        let file = ["--demos".to_string(), demos.display().to_string(), "--threads".into(), "0".into()];
        [file.to_vec(), set(skip_key, &seed.to_string())].concat()
    };
    let gail = (0..GAIL_SEEDS).map(|seed| {
        let rest = [common("signal.gail.demos_skip", seed), short(4_096)].concat();
        job_of_training(&format!("gail-{seed}"), "gail/cartpole", folder, seed, &rest)
    });
    let bc = (0..BC_SEEDS).map(|seed| {
        let rest = [common("learner.demos_skip", seed), short(100)].concat();
        job_of_training(&format!("bc-{seed}"), "bc/cartpole", folder, seed, &rest)
    });
    let imitators: Vec<Job> = gail.chain(bc).collect();
    if !run_all(&imitators, stop, begun, shared.quiet)? {
        return Ok(Done::Stopped);
    }

    say(&format!(
        "in Rooms an agent explores for {} decisions, with curiosity and without",
        curiosity::STEPS
    ));
    if !run_all(&curiosity::jobs(folder, smoke), stop, begun, shared.quiet)? {
        return Ok(Done::Stopped);
    }
    let explored = Explored::of(folder)?;
    curiosity::picture(folder).map_err(failed)?;

    say("every policy plays 50 fresh episodes");
    let random = |seed: u64| -> Result<f64> {
        let episodes = runs::fresh_episodes(
            program,
            &EnvSpec::new(ENV),
            &Actor::Random,
            EPISODES,
            seed,
            "reporting",
            false,
        )?;
        Ok(Score::of(&episodes).return_mean)
    };
    let of = |name: &str, which: &str, seeds: u64| -> Result<Vec<f64>> {
        (0..seeds).map(|seed| measure(program, &folder.join(format!("{name}-{seed}")), which, seed)).collect()
    };
    let rows = [
        Row { name: "random", means: (0..BC_SEEDS).map(random).collect::<Result<_>>()?, note: "".into() },
        // Cloning keeps its best validation score, GAIL its last state: neither looks at the true reward.
        Row { name: "behaviour cloning", means: of("bc", "best", BC_SEEDS)?, note: ", 25 pairs".into() },
        Row { name: "GAIL", means: of("gail", "latest", GAIL_SEEDS)?, note: ", 25 pairs".into() },
        Row {
            name: "expert",
            means: (0..GAIL_SEEDS)
                .map(|seed| measure(program, &expert, "best", seed))
                .collect::<Result<_>>()?,
            note: " (PPO, true reward), one run evaluated 3 times".into(),
        },
    ];
    let text = table(&rows);
    std::fs::write(folder.join("table.md"), format!("{text}\n{}", explored.table())).map_err(failed)?;
    picture(folder, &rows).map_err(failed)?;
    if shared.json {
        let (random, expert) = (rows[0].mean(), rows[3].mean());
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let (mean, std) = mean_std(&row.means);
                let scaled = scaled(mean, random, expert);
                serde_json::json!({"policy": row.name, "means": row.means, "mean": mean, "std": std, "scaled_score": scaled})
            })
            .collect();
        println!(
            "{}",
            serde_json::json!({ "format": 1, "env": ENV, "rows": rows, "explored": explored.json() })
        );
    } else {
        println!(
            "\n{ENV}: episodes always last 500 steps, so only imitation earns GAIL its return\n\n{text}"
        );
        println!("{}", explored.table());
        println!("curves  {}, rooms.svg", folder.join("curves.svg").display());
        println!("look    .venv/bin/tensorboard --logdir {}", folder.display());
    }
    say("done");
    Ok(Done::Finished)
}

fn picture(folder: &Path, rows: &[Row]) -> Result<()> {
    let tag = "evaluation/return_deterministic";
    let mut curves = Vec::new();
    for seed in 0..GAIL_SEEDS {
        let points = metric(&folder.join(format!("gail-{seed}")), tag)?;
        curves.push(Curve { name: format!("GAIL, seed {seed}"), points, ..Curve::default() });
    }
    for row in rows.iter().filter(|row| row.name != "GAIL") {
        let points = vec![(0.0, row.mean())];
        curves.push(Curve { name: row.name.into(), points, level: true, ..Curve::default() });
    }
    let title = "Fixed-horizon CartPole, imitated from 25 state-action pairs";
    let labels = Labels { title, x: "environment steps", y: "return (of 500)" };
    draw(&folder.join("curves.svg"), &labels, &curves)
}
