//! `imago envs`: what there is to act in, what it needs, and whether it keeps its contract.

use crate::nearest::nearest;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use imago_envs::EnvSpec;
use imago_envs::check::{self, Effort, Report, Severity, rate};
use imago_envs::extras::{self, EXTRAS, Extra};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Environments.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// All with names of their own, a line each, and the extras that bring more.
    List,
    /// Install what games and simulators need into this program's .venv.
    Install(Install),
    /// Step one with random actions: spaces, rates, reset time, memory, and what breaks the contract; for environments
    /// in Python also whether threads or processes step it faster.
    Check(Check),
    /// Print how many steps of one a second takes, alone in this process: half of a comparison.
    #[command(hide = true)]
    Rate(Check),
}

/// What is there already stays; the packages of `make setup` never change. `make setup` makes .venv anew when they do
/// change: extras are then to be installed again.
#[derive(Args)]
struct Install {
    /// doom, mario, atari, mujoco, minigrid, box2d, or all.
    #[arg(value_name = "EXTRA", required_unless_present = "requirements")]
    extras: Vec<String>,
    /// Install what your own environments need, from a requirements file as pip reads it.
    #[arg(long, value_name = "FILE")]
    requirements: Option<PathBuf>,
}

/// Exit codes: 0 it passes (warnings allowed), 1 it breaks its contract, 2 it cannot be made.
#[derive(Args)]
pub struct Check {
    /// A name from `imago envs`, or gym:ID; arguments as in 'gym:Pendulum-v1?g=9.81'.
    env: String,
    /// About how long to look, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    seconds: f64,
    /// Directory of the Python module in gym:MODULE:ID, as `env.path` of a recipe.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    if let Some(Command::Install(arguments)) = &arguments.command {
        return install(arguments, shared);
    }
    match subject(arguments)? {
        None => list(program, shared),
        Some((asked, spec, seconds)) => match arguments.command {
            Some(Command::Rate(_)) => {
                println!("{}", rate(&program.envs, &spec, 1, seconds)?);
                Ok(Done::Finished)
            }
            _ => check(program, asked, &spec, seconds, shared),
        },
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
    fn measure(program: &Program, asked: &Check, spec: &EnvSpec, time: Duration) -> Result<Self> {
        let one = || {
            let mut command = std::process::Command::new("/proc/self/exe");
            let seconds = time.as_secs_f64().to_string();
            command.args(["envs", "rate", &asked.env, "--seconds", &seconds]);
            if let Some(path) = &asked.path {
                command.arg("--path").arg(path);
            }
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        };
        let both = [one()?, one()?];
        let mut processes = 0.0;
        for process in both {
            let ended = process.wait_with_output()?;
            let [said, complaint] = [&ended.stdout, &ended.stderr].map(|said| String::from_utf8_lossy(said));
            processes += said.trim().parse::<f64>().ok().with_context(|| {
                let last = complaint.lines().last().unwrap_or_default().trim_start_matches("imago: ");
                format!("a process that stepped it ended early ({}): {last}", ended.status)
            })?;
        }
        Ok(Self { threads: rate(&program.envs, spec, 2, time)?, processes })
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
            .map(|(id, description)| {
                serde_json::json!({"id": id, "about": description, "extra": program.envs.extra(id)})
            })
            .collect();
        println!("{}", serde_json::Value::from(all));
        return Ok(Done::Finished);
    }
    for (id, description) in program.envs.ids() {
        match id.strip_prefix("SuperMarioBros-") {
            Some("1-1") => println!("{:<24} {description}", format!("{id} … 8-4")),
            Some(_) => {}
            None => println!("{id:<24} {description}"),
        }
    }
    println!("{:<24} any registered Gymnasium environment, e.g. gym:Acrobot-v1", "gym:ID");
    println!("{:<24} one that steps many at once by itself, e.g. vec:ALE/Pong-v5", "vec:ID");
    println!("\nextras, for games and simulators (imago envs install NAME):");
    for extra in EXTRAS {
        let missing = extra.missing();
        let state = match missing.len() {
            0 => "installed",
            n if n == extra.packages().count() => "not installed",
            _ => "in part",
        };
        println!("{:<10} {state:<13} {}", extra.name, extra.about);
    }
    Ok(Done::Finished)
}

/// The extras of these names.
fn chosen(names: &[String]) -> Result<Vec<&'static Extra>> {
    let mut chosen: Vec<&'static Extra> = Vec::new();
    for name in names {
        let named = match (name.as_str(), Extra::named(name)) {
            ("all", _) => EXTRAS.iter().collect(),
            (_, Some(extra)) => vec![extra],
            _ => {
                let known: Vec<&str> = EXTRAS.iter().map(|extra| extra.name).chain(["all"]).collect();
                let hint = nearest(name, known.iter().copied())
                    .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
                bail!("no extra `{name}`{hint} (there are: {})", known.join(", "))
            }
        };
        chosen.extend(named);
    }
    Ok(chosen)
}

fn install(arguments: &Install, shared: &Shared) -> Outcome {
    let chosen = chosen(&arguments.extras)?;
    if let Some(file) = &arguments.requirements {
        std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let say = |text: String| {
        if !shared.quiet {
            eprintln!("{text}");
        }
    };
    let (mut done, mut packages, mut megabytes) = (Vec::new(), Vec::new(), 0);
    for extra in chosen {
        let missing = extra.missing();
        if missing.is_empty() {
            say(format!("{} is installed", extra.name));
        } else {
            megabytes += extra.megabytes;
            say(format!("{}: {}: {}", extra.name, extra.about, missing.join(", ")));
        }
        done.push(serde_json::json!({ "extra": extra.name, "installed": missing }));
        packages
            .extend(missing.into_iter().filter(|package| !packages.contains(package)).collect::<Vec<_>>());
    }
    let begun = Instant::now();
    if !packages.is_empty() {
        let count = packages.len();
        let s = if count == 1 { "" } else { "s" };
        say(format!("installing {count} package{s} into .venv, {megabytes} MB on disk"));
        extras::install(&packages, shared.quiet).map_err(failed)?;
    }
    if let Some(file) = &arguments.requirements {
        say(format!("installing what {} names into .venv", file.display()));
        extras::install_requirements(file, shared.quiet).map_err(failed)?;
    }
    if !packages.is_empty() || arguments.requirements.is_some() {
        say(format!("done in {:.0} s", begun.elapsed().as_secs_f64()));
    }
    if shared.json {
        println!("{}", serde_json::json!({ "extras": done, "requirements": arguments.requirements }));
    }
    Ok(Done::Finished)
}

/// What is to be checked, if anything, and for how long.
pub fn subject(arguments: &Arguments) -> Result<Option<(&Check, EnvSpec, Duration)>> {
    let Some(Command::Check(arguments) | Command::Rate(arguments)) = &arguments.command else {
        return Ok(None);
    };
    let seconds = Duration::try_from_secs_f64(arguments.seconds).unwrap_or_default();
    ensure!(!seconds.is_zero(), "--seconds must be a number above 0, not {}", arguments.seconds);
    let mut spec = EnvSpec::parse(&arguments.env)?;
    if let Some(path) = &arguments.path {
        spec.path = Some(path.to_string_lossy().into_owned());
    }
    Ok(Some((arguments, spec, seconds)))
}

fn check(program: &Program, asked: &Check, spec: &EnvSpec, seconds: Duration, shared: &Shared) -> Outcome {
    if !shared.quiet {
        eprintln!("checking {} for about {} s", spec.id, seconds.as_secs_f64());
    }
    let report = check::check(&program.envs, spec, &Effort::whole(seconds))?;
    // Environments in Rust share nothing: threads are as fast as can be.
    let compared = program.envs.is_python(&spec.id) && report.passes();
    let two =
        compared.then(|| SideBySide::measure(program, asked, spec, seconds.mul_f64(0.2))).transpose()?;
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
