//! Our side of the `workers_…` rows of `make bench`: environments in Python, stepped by worker threads or processes with
//! a policy, as training does it but without learning.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use imago::Stream;
use imago::nn::{ActorCritic, BoxHead, PolicySpec, TorsoSpec};
use imago::rollout::{Collector, CollectorSpec, Launch};
use imago_envs::{EnvSpec, Registry};
use imago_experiments::Program;
use serde_json::json;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Steps of each environment between two snapshots of the policy.
const ROLLOUT: usize = 128;

#[derive(Parser)]
struct Arguments {
    /// ID?argument=value&…
    env: String,
    /// Environments, and as many groups of one.
    #[arg(long, default_value_t = 2)]
    envs: usize,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Threads in place of processes.
    #[arg(long)]
    threads: bool,
    /// Steps of all together that are timed.
    #[arg(long)]
    steps: usize,
}

fn main() -> ExitCode {
    // The children of this program are workers of the whole one.
    if std::env::args().nth(1).is_some_and(|command| command == "rollout-worker") {
        return Program::default().main();
    }
    match measure(&Arguments::parse()) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<serde_json::Value> {
    let Arguments { envs, workers, steps, .. } = *arguments;
    ensure!(envs > 0 && workers > 0, "at least one environment and one worker");
    imago_envs::python::start();
    let (registry, spec) = (Registry::builtin(), EnvSpec::parse(&arguments.env)?);
    let one = registry.make(&spec).context("the environment")?;
    // Its actions are as good as random: the output layer's weights begin near 0.
    let policy = PolicySpec {
        observation: one.observation_space().clone(),
        action: one.action_space().clone(),
        torso: TorsoSpec::perceptron(&[]),
        shared: false,
        value_heads: 1,
        normalise: false,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Gaussian,
        memory: None,
    };
    drop(one);
    let collecting = CollectorSpec {
        policy,
        steps: ROLLOUT,
        frame_stack: 1,
        workers,
        seed: 0,
        max_faults: 0,
        random_rollouts: 0,
    };
    let mut collector = if arguments.threads {
        let groups = (0..envs).map(|_| registry.make_group(&spec, 1)).collect::<Result<_, _>>()?;
        Collector::new(collecting, groups)?
    } else {
        let command = || {
            let mut command = Command::new("/proc/self/exe");
            command.arg("rollout-worker");
            command
        };
        let launch = Launch { env: spec, command: Box::new(command), patience: Duration::from_secs(120) };
        Collector::in_processes(collecting, launch, &vec![1; envs])?
    };
    let policy = ActorCritic::new(collector.policy().clone(), &mut Stream::new(0, "policy weights", 0, 0))?;
    collector.collect(&policy)?;
    let (mut done, mut episodes) = (0, 0);
    let begun = Instant::now();
    while done < steps {
        let collected = collector.collect(&policy)?;
        done += ROLLOUT * envs;
        episodes += collected.finished.len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(json!({
        "steps": done,
        "seconds": seconds,
        "rate": done as f64 / seconds,
        "checks": { "episodes": episodes, "envs": envs },
    }))
}
