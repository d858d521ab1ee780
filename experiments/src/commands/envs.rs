//! `imago envs`: what there is to act in, and whether it keeps its contract.

use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use imago_envs::check::{self, Effort, Report, Severity, rate};
use imago_envs::{EnvSpec, Gymnasium};
use std::process::Stdio;
use std::time::Duration;

/// Environments.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// All native and registered ones, a line each.
    List,
    /// Step one with random actions: spaces, rates, reset time, memory, and what breaks the contract; for environments
    /// in Python also whether threads or processes step it faster.
    Check(Check),
    /// Print how many steps of one a second takes, alone in this process: half of a comparison.
    #[command(hide = true)]
    Rate(Check),
}

impl Arguments {
    /// The environment as it was typed.
    fn text(&self) -> &str {
        match &self.command {
            Some(Command::Check(check) | Command::Rate(check)) => &check.env,
            Some(Command::List) | None => "",
        }
    }
}

/// Exit codes: 0 it passes (warnings allowed), 1 it breaks its contract, 2 it cannot be made.
#[derive(Args)]
struct Check {
    /// A name from `imago envs`, or gym:ID; arguments as in 'gym:Pendulum-v1?g=9.81'.
    env: String,
    /// About how long to look, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    seconds: f64,
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    match subject(arguments)? {
        None => list(program, shared),
        Some((spec, seconds)) if matches!(arguments.command, Some(Command::Rate(_))) => {
            println!("{}", rate(&program.envs, &spec, 1, seconds)?);
            Ok(Done::Finished)
        }
        Some((spec, seconds)) => check(program, &spec, seconds, arguments.text(), shared),
    }
}

/// Steps per second of two environments at a time.
#[derive(serde::Serialize)]
struct SideBySide {
    threads: f64,
    processes: f64,
}

impl SideBySide {
    /// Each for about `time`, one after the other.
    fn measure(program: &Program, spec: &str, time: Duration) -> Result<Self> {
        let one = || {
            let mut command = std::process::Command::new("/proc/self/exe");
            let seconds = time.as_secs_f64().to_string();
            command.args(["envs", "rate", spec, "--seconds", &seconds]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        };
        let both = [one()?, one()?];
        let mut processes = 0.0;
        for process in both {
            let said = process.wait_with_output()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            processes += said.trim().parse::<f64>().context("a process that stepped it ended early")?;
        }
        Ok(Self { threads: rate(&program.envs, &EnvSpec::parse(spec)?, 2, time)?, processes })
    }

    fn faster(&self) -> &'static str {
        if self.processes > self.threads { "processes" } else { "threads" }
    }
}

fn list(program: &Program, shared: &Shared) -> Outcome {
    if shared.json {
        let all: Vec<_> = program
            .envs
            .ids()
            .map(|(id, description)| serde_json::json!({"id": id, "about": description}))
            .collect();
        println!("{}", serde_json::Value::from(all));
    } else {
        for (id, description) in program.envs.ids() {
            println!("{id:<24} {description}");
        }
        println!("{:<24} any registered Gymnasium environment, e.g. gym:Acrobot-v1", "gym:ID");
    }
    Ok(Done::Finished)
}

/// What is to be checked, if anything, and for how long.
pub fn subject(arguments: &Arguments) -> Result<Option<(EnvSpec, Duration)>> {
    let Some(Command::Check(arguments) | Command::Rate(arguments)) = &arguments.command else {
        return Ok(None);
    };
    let seconds = Duration::try_from_secs_f64(arguments.seconds).unwrap_or_default();
    ensure!(!seconds.is_zero(), "--seconds must be a number above 0, not {}", arguments.seconds);
    Ok(Some((EnvSpec::parse(&arguments.env)?, seconds)))
}

fn check(program: &Program, spec: &EnvSpec, seconds: Duration, text: &str, shared: &Shared) -> Outcome {
    if !shared.quiet {
        eprintln!("checking {} for about {} s", spec.id, seconds.as_secs_f64());
    }
    let report = check::check(&program.envs, spec, &Effort::whole(seconds))?;
    // Environments in Rust share nothing: threads are as fast as can be.
    let compared = spec.id.starts_with(Gymnasium::PREFIX) && report.passes();
    let two = compared.then(|| SideBySide::measure(program, text, seconds.mul_f64(0.2))).transpose()?;
    if shared.json {
        let mut json = serde_json::to_value(&report)?;
        json["two_at_a_time"] = serde_json::to_value(&two)?;
        json["worker_kind"] = two.as_ref().map(SideBySide::faster).into();
        json["format"] = 1.into();
        json["passes"] = report.passes().into();
        println!("{json}");
    } else {
        print!("{}", table(&report));
        if let Some(two) = two {
            let [threads, processes] = [two.threads, two.processes].map(thousands);
            let kind = two.faster();
            println!(
                "{:<12} {threads} in 2 threads, {processes} in 2 processes: run.worker_kind = \"{kind}\"",
                "workers"
            );
        }
    }
    match report.of(Severity::Violation).count() {
        0 => Ok(Done::Finished),
        1 => Err(failed(anyhow!("{} breaks its contract", spec.id))),
        n => Err(failed(anyhow!("{} breaks its contract in {n} places", spec.id))),
    }
}

/// The report for people, a line for each thing.
fn table(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("{name:<12} {text}\n"));
    let (violations, warnings) =
        (report.of(Severity::Violation).count(), report.of(Severity::Warning).count());
    let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let verdict = if report.passes() { "passes" } else { "breaks its contract" };
    line(
        "environment",
        format!("{} {verdict} ({}, {})", report.env.id, of(violations, "violation"), of(warnings, "warning")),
    );
    line("observation", report.observation_space.to_string());
    line("action", report.action_space.to_string());
    line(
        "episodes",
        match &report.episodes {
            Some(lengths) => format!(
                "{} of {} to {} steps, median {}, with random actions",
                lengths.count, lengths.shortest, lengths.longest, lengths.median
            ),
            None => format!("none ended in {} steps", report.steps),
        },
    );
    if let Some(one) = report.steps_per_second {
        let group = report.group_steps_per_second.map_or(String::new(), |rate| {
            format!("; {} in a group of {}", thousands(rate), report.group_size)
        });
        line("steps/s", format!("{}{group}", thousands(one)));
    }
    if let Some(seconds) = report.reset_seconds {
        line("reset", format!("{} (median)", duration(seconds)));
    }
    if let Some(bytes) = report.memory_growth {
        line("memory", format!("{:+.1} MB in {} steps", bytes as f64 / 1e6, thousands(report.steps as f64)));
    }
    line(
        "save",
        match report.saves {
            true => "yes: resumed runs go on in the middle of episodes".into(),
            false => "no: resumed runs begin new episodes".into(),
        },
    );
    for finding in &report.findings {
        let name = match finding.severity {
            Severity::Violation => "VIOLATION",
            Severity::Warning => "warning",
        };
        line(name, finding.message.clone());
    }
    lines.concat()
}

/// Digits in groups of three, without a fraction.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}
