//! The program: its commands, and what a user's own binary registers with it.

use crate::assemble;
use crate::commands::{
    data, demo, demos, envs, eval, export, generate, models, new, recipes, record, reproduce, sweep, train,
    watch, worker,
};
use crate::problem::{self, Done, Outcome, conclude};
use crate::recipe::{self, Recipe};
use anyhow::{Result, anyhow, ensure};
use clap::{Args, Parser, Subcommand};
use imago::run::{Stderr, Train};
use imago::signal::RewardSignal;
use imago_envs::{Env, Registry, Space};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use toml::Table;

/// What a registered signal may need to know when it is made.
#[derive(Clone, Debug)]
pub struct SignalContext {
    /// Observation space of the environment.
    pub observation: Space,
    /// Its action space.
    pub action: Space,
    /// Transitions in a rollout, T · N.
    pub rollout: usize,
    /// The run's seed.
    pub seed: u64,
}

type MakeSignal = Box<dyn Fn(&Table, &SignalContext) -> Result<Box<dyn RewardSignal>>>;

/// The whole program with everything that is registered in it.
///
/// ```no_run
/// # use imago_experiments::Program;
/// fn main() -> std::process::ExitCode {
///     Program::default().main() // register your own with `env` and `signal` first
/// }
/// ```
pub struct Program {
    /// Environments by name.
    pub envs: Registry,
    signals: BTreeMap<String, MakeSignal>,
}

impl Default for Program {
    /// With everything that is built in.
    fn default() -> Self {
        Self { envs: Registry::builtin(), signals: BTreeMap::new() }
    }
}

impl Program {
    /// Registers an environment: its name for `env.id`, a line for `imago envs list`, its time limit if it has
    /// one, and how to make it from the recipe's `env.args`.
    pub fn env<E: Env + 'static>(
        mut self,
        id: &str,
        description: &str,
        time_limit: Option<u32>,
        make: impl Fn(&Table) -> imago_envs::Result<E> + Send + Sync + 'static,
    ) -> Self {
        self.envs.register(id, description, time_limit, make);
        self
    }

    /// Registers a reward signal: its `kind`, and how to make it from the keys of its `[signal.NAME]` that are
    /// not the stack's own.
    ///
    /// # Panics
    /// If the kind is built in: a recipe could not say which of the two it means.
    pub fn signal_kind(
        mut self,
        kind: &str,
        make: impl Fn(&Table, &SignalContext) -> Result<Box<dyn RewardSignal>> + 'static,
    ) -> Self {
        assert!(!recipe::BUILTIN_SIGNALS.contains(&kind), "the signal kind `{kind}` is built in");
        self.signals.insert(kind.into(), Box::new(make));
        self
    }

    /// The registered kinds.
    pub(crate) fn signal_kinds(&self) -> Vec<&str> {
        self.signals.keys().map(String::as_str).collect()
    }

    pub(crate) fn signal(
        &self,
        kind: &str,
        keys: &Table,
        context: &SignalContext,
    ) -> Result<Box<dyn RewardSignal>> {
        let make =
            self.signals.get(kind).ok_or_else(|| anyhow!("no signal of kind `{kind}` is registered"))?;
        make(keys, context)
    }

    /// What `recipe` trains, at its first step. For tests/fuzz.
    #[doc(hidden)]
    pub fn trainee(&self, recipe: &mut Recipe) -> Result<Box<dyn Train>> {
        assemble::trainee(self, recipe)
    }

    /// Reads a command line as [`Program::main`] does and follows it to where environments would be made or
    /// something written. For tests/fuzz.
    #[doc(hidden)]
    pub fn check(&self, line: impl IntoIterator<Item = OsString>) -> Result<()> {
        let cli = Cli::try_parse_from(line)?;
        let shared = &cli.shared;
        cli.check_flags()?;
        match &cli.command {
            Command::Train(arguments) => train::plan(self, arguments, shared).map(drop),
            Command::Sweep(arguments) => sweep::check(self, arguments, shared),
            Command::Reproduce(arguments) => reproduce::check(arguments),
            Command::Eval(arguments) => eval::subject(self, arguments).map(drop),
            Command::Record(arguments) => record::actor(self, arguments, shared).map(drop),
            Command::Demos(arguments) => demos::chosen(arguments, shared).map(drop),
            Command::Generate(arguments) => generate::subject(self, arguments, shared).map(drop),
            Command::Export(arguments) => export::subject(self, arguments, shared).map(drop),
            Command::Data(arguments) => data::wanted(arguments),
            Command::Models(arguments) => models::wanted(arguments),
            Command::Watch(arguments) => watch::actor(self, arguments, shared).map(drop),
            Command::Envs(arguments) => envs::subject(arguments).map(drop),
            Command::New(_) | Command::Recipes(_) | Command::Demo(_) | Command::Worker => Ok(()),
        }
    }

    /// Reads the command line, runs the command, prints what went wrong, gives the exit code.
    pub fn main(self) -> ExitCode {
        // `imago demos info FILE | head` ends quietly, as other programs do.
        sigpipe::reset();
        let cli = Cli::parse();
        let filter = tracing_subscriber::EnvFilter::try_from_env("IMAGO_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| Stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .without_time()
            .init();
        conclude(problem::contain_panics(|| self.run(&cli)))
    }

    fn run(&self, cli: &Cli) -> Outcome {
        if let Some(parent) = cli.shared.parent
            && !imago::run::end_with_parent(parent)?
        {
            return Ok(Done::Stopped);
        }
        // Before any other thread exists: it sets an environment variable.
        let in_python = |argument: OsString| {
            let argument = argument.to_string_lossy();
            let mut presets = self.envs.ids().map(|(id, _)| id).filter(|id| self.envs.is_python(id));
            argument.contains("gym:") || argument.contains("vec:") || presets.any(|id| argument.contains(id))
        };
        let here = match &cli.command {
            // They train in processes, which do it for themselves; no study is in an environment of Python.
            Command::Sweep(_) | Command::Reproduce(_) => false,
            _ => std::env::args_os().any(in_python),
        };
        if here {
            imago_envs::python::start();
        }
        let shared = &cli.shared;
        cli.check_flags()?;
        match &cli.command {
            Command::New(arguments) => new::run(self, arguments, shared),
            Command::Train(arguments) => train::run(self, arguments, shared),
            Command::Sweep(arguments) => sweep::run(self, arguments, shared),
            Command::Reproduce(arguments) => reproduce::run(self, arguments, shared),
            Command::Eval(arguments) => eval::run(self, arguments, shared),
            Command::Record(arguments) => record::run(self, arguments, shared),
            Command::Watch(arguments) => watch::run(self, arguments, shared),
            Command::Demos(arguments) => demos::run(arguments, shared),
            Command::Generate(arguments) => generate::run(self, arguments, shared),
            Command::Export(arguments) => export::run(self, arguments, shared),
            Command::Data(arguments) => data::run(arguments, shared),
            Command::Models(arguments) => models::run(arguments, shared),
            Command::Recipes(arguments) => recipes::run(arguments, shared),
            Command::Envs(arguments) => envs::run(self, arguments, shared),
            Command::Demo(arguments) => demo::run(self, arguments, shared),
            Command::Worker => worker::run(self),
        }
    }
}

/// Learn by imitation and by curiosity.
#[derive(Parser)]
#[command(
    name = "imago",
    version,
    after_help = "RECIPE is a built-in name (gail/cartpole), a file, or a run's directory.\n\
                  RUN is a path, a name under runs/ or `latest`, then @best, @latest or @STEP if you like.\n\
                  ENV is a name of `imago envs` (CartPole-v1), or gym:ID for any registered Gymnasium environment.\n\
                  Exit codes: 0 done, 1 failed, 2 bad input and nothing written, 3 stopped by a signal, with a checkpoint."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    shared: Shared,
}

impl Cli {
    /// Refuses flags that the command would not look at.
    fn check_flags(&self) -> Result<()> {
        if let Command::Sweep(_) | Command::Reproduce(_) = self.command {
            ensure!(self.shared.seed.is_none(), "there are several seeds: --seeds 0..5");
        }
        let (training, acting) = match self.command {
            Command::Train(_) | Command::Sweep(_) => (true, true),
            Command::Eval(_) | Command::Watch(_) | Command::Record(_) | Command::Generate(_) => (false, true),
            _ => (false, false),
        };
        ensure!(
            training || self.shared.sets.is_empty(),
            "--set changes recipes: it goes with `imago train` and `imago sweep`"
        );
        ensure!(
            training || matches!(self.command, Command::Reproduce(_)) || self.shared.threads.is_none(),
            "--threads goes with `imago train`, `imago sweep` and `imago reproduce`"
        );
        ensure!(
            acting || self.shared.seed.is_none(),
            "--seed goes with train, eval, watch, record and generate"
        );
        Ok(())
    }
}

/// Flags that every command takes.
#[derive(Args)]
pub struct Shared {
    /// Change a key of the recipe: --set learner.learning_rate=1e-4 (repeatable).
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Seed of everything random (`run.seed`).
    #[arg(long, global = true, value_name = "S")]
    pub seed: Option<u64>,
    /// Rollout threads (`run.workers`); any number gives the same result.
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Print the result as JSON on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress on stderr.
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Overwrite an existing output file. Runs are never overwritten.
    #[arg(long, global = true)]
    pub force: bool,
    /// The process that started this one and takes it with it when it ends: sweeps set it for their runs.
    #[arg(long, global = true, hide = true, value_name = "PID")]
    parent: Option<u32>,
}

#[derive(Subcommand)]
enum Command {
    /// Write a starter recipe for your own task.
    New(new::Arguments),
    /// Train what a recipe describes.
    Train(train::Arguments),
    /// Train a recipe with every combination of some settings and several seeds.
    Sweep(sweep::Arguments),
    /// Make a published table again, from its experts to its last cell.
    Reproduce(reproduce::Arguments),
    /// Measure a run's return on fresh episodes.
    Eval(eval::Arguments),
    /// Watch a run's policy in the terminal, or film it.
    Watch(watch::Arguments),
    /// Record demonstrations with a run's policy, or with a random one.
    Record(record::Arguments),
    /// Look into demonstration files and take parts of them.
    Demos(demos::Arguments),
    /// Make images with an image model.
    Generate(generate::Arguments),
    /// Write what makes a run's images into a file of its own.
    Export(export::Arguments),
    /// Images to learn from: fetch them, look into them.
    Data(data::Arguments),
    /// Trained networks: image models that are built in, and those of others, which are fetched.
    Models(models::Arguments),
    /// List, print or copy the built-in recipes; all keys of recipes.
    Recipes(recipes::Arguments),
    /// List the environments, or check one.
    Envs(envs::Arguments),
    /// The whole story in two minutes: expert, demonstrations, cloning against GAIL, one table.
    Demo(demo::Arguments),
    /// Step environments for a training.
    #[command(name = worker::NAME, hide = true)]
    Worker,
}
