//! Recipes: TOML files (or built-in names) that say everything about a run.
//!
//! Sections are read strictly: an unknown key is answered with its line and the nearest valid one. A resolved
//! recipe, defaults written out, repeats its run.

use crate::nearest::nearest;
use crate::strict::{Source, all_keys, apply_override, keys_of, kind_of, section};
use anyhow::{Result, bail, ensure};
use imago::generative::data::DataConfig;
use imago::generative::gan::DcganConfig;
use imago::nn::{Activation, BoxHead, CellKind, MemorySpec, PolicySpec, Precision, TorsoKind, TorsoSpec};
use imago::signal::{RewardNorm, Schedule, When};
use imago_agents::{
    A2cConfig, ActionInput, BcConfig, DacConfig, DemoSelection, DisagreementConfig, E3bConfig, GailConfig,
    IcmConfig, PpoConfig, PythonSignalConfig, ReplayConfig, RndConfig, SacConfig, Td3Config, TrpoConfig,
};
use imago_envs::{EnvSpec, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Kinds of signals that need no registration.
pub const BUILTIN_SIGNALS: [&str; 8] =
    ["extrinsic", "gail", "dac", "icm", "rnd", "disagreement", "e3b", "python"];

/// Version of the recipe format.
pub const FORMAT: i64 = 1;

/// The run: how long, from which seed, and what it writes when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Everything random derives from it.
    pub seed: u64,
    /// Length of the run in steps: decisions of single environments, or optimiser steps of behaviour cloning and of image
    /// models. A run
    /// ends with its rollout, so it may take up to one rollout (envs × steps) more.
    #[schemars(range(min = 1))]
    pub total_steps: u64,
    /// Evaluate each time this many steps have passed, and at the end; 0 only then.
    pub eval_every: u64,
    /// Episodes of each evaluation.
    #[schemars(range(min = 1))]
    pub eval_episodes: usize,
    /// Write a checkpoint each time this many steps have passed.
    #[schemars(range(min = 1))]
    pub checkpoint_every: u64,
    /// Checkpoints kept, apart from the best.
    #[schemars(range(min = 1))]
    pub keep_checkpoints: usize,
    /// Write TensorBoard and `metrics.jsonl` each time this many steps have passed.
    #[schemars(range(min = 1))]
    pub log_every: u64,
    /// Rollout threads or processes; any number gives the same bits. 0 collects in the learner's own thread.
    #[schemars(extend("x-default" = "one for each processor"))]
    pub workers: usize,
    /// What the workers are; both give the same bits.
    pub worker_kind: WorkerKind,
    /// Seconds that one step of an environment may take. A worker process that takes longer is replaced; elsewhere it
    /// ends the run.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub env_timeout: f64,
    /// How often in a session environments may fail (raise, show a NaN, hang or die in a process). Each time a new
    /// one takes its place and nothing is learnt from the broken episode; once more stops the run with a checkpoint.
    pub max_faults: u64,
    /// libtorch threads of the learner. Part of the recipe since it changes the bits.
    #[schemars(range(min = 1))]
    pub learner_threads: i32,
    /// Before the first training in an environment, and after each change of its files, see for two seconds whether
    /// it keeps its contract; refuse to train if not. Environments of this program need no check.
    pub check_env: bool,
    /// Begin with what another run's policy has learnt: its directory or name under runs/, with @best, @latest or @STEP.
    /// A resolved recipe holds its directory and step. Value heads begin anew if there are more or fewer of them here;
    /// optimisers, environments and counters always do.
    #[schemars(extend("x-default" = "nothing"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Signals that begin with what that run's signals of the same names have learnt, too.
    #[schemars(extend("x-default" = "none"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_signals: Vec<String>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            total_steps: 100_000,
            eval_every: 20_000,
            eval_episodes: 20,
            checkpoint_every: 50_000,
            keep_checkpoints: 3,
            log_every: 1,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            worker_kind: WorkerKind::Auto,
            env_timeout: 120.0,
            max_faults: 10,
            learner_threads: 1,
            check_env: true,
            from: None,
            from_signals: Vec::new(),
        }
    }
}

/// Where environments are stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// Processes for environments in Python that hold its lock, if there is more than one worker; else threads.
    Auto,
    /// Threads of this process.
    Threads,
    /// Processes, which can be replaced if an environment hangs or dies.
    Processes,
}

/// What is collected between two updates: T steps of each of N environments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// Environments, N.
    #[schemars(range(min = 1))]
    pub envs: usize,
    /// Steps of each between two updates, T.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Environments that are stepped together; the unit that workers share. It changes the bits, the number of
    /// workers does not.
    #[schemars(range(min = 1))]
    pub group_size: usize,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self { envs: 8, steps: 256, group_size: 4 }
    }
}

/// The network of the policy and of the value function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// What reads the observations.
    pub torso: TorsoKind,
    /// Widths of the fully connected layers; after the convolutions if there are any.
    #[schemars(inner(range(min = 1, max = 65_536)))]
    pub hidden: Option<Vec<i64>>,
    /// After every layer.
    pub activation: Option<Activation>,
    /// One torso for policy and value.
    pub shared: Option<bool>,
    /// A recurrent cell behind the torso (behind each, if they are two), so that the policy remembers what it has seen in
    /// an episode: for learner.kind = "ppo" and "a2c". Gradients go back to the beginning of a rollout, rollout.steps. Off if
    /// absent.
    #[schemars(extend("x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<CellKind>,
    /// Units of that cell.
    #[schemars(range(min = 1, max = 65_536), extend("x-default" = "256"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_units: Option<i64>,
    /// Standardise observations by running statistics: vectors number by number, an image by one mean and one deviation for
    /// all of its pixels (its bytes lie in [0, 1] without that, and in a dark game close together).
    pub normalise: bool,
    /// Begin those statistics with the demonstrations' observations, as Ho & Ermon's code (2016) does.
    pub normalise_from_demos: bool,
    /// Clone the demonstrations for so many steps of the optimiser before anything else is learnt; their observations
    /// begin the statistics, too.
    pub cloning_steps: u64,
    /// Initial log standard deviation of continuous actions.
    pub log_std: f64,
    /// Arithmetic of the convolutions: "f32", or "bf16" with weights in f32, which pays on processors with AMX.
    pub precision: Precision,
    /// Parameters that do not change, by how their names begin: `["policy/convolution"]`; `normaliser` are the statistics.
    /// A name that nothing has is answered with those that there are.
    #[schemars(extend("x-default" = "none"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            torso: TorsoKind::Mlp,
            hidden: None,
            activation: None,
            shared: None,
            memory: None,
            memory_units: None,
            normalise: false,
            normalise_from_demos: false,
            cloning_steps: 0,
            log_std: 0.0,
            precision: Precision::F32,
            freeze: Vec::new(),
        }
    }
}

impl PolicyConfig {
    /// Fills in what goes with the torso, as its paper has it.
    pub fn complete(&mut self) {
        let (hidden, activation, shared) = match self.torso {
            TorsoKind::Mlp => (vec![64, 64], Activation::Tanh, false),
            TorsoKind::Nature => (vec![512], Activation::Relu, true),
            TorsoKind::Icm => (vec![256], Activation::Elu, true),
        };
        self.hidden.get_or_insert(hidden);
        self.activation.get_or_insert(activation);
        self.shared.get_or_insert(shared);
        if self.memory.is_some() {
            self.memory_units.get_or_insert(256);
        }
    }

    /// The policy for these spaces.
    pub fn spec(&self, observation: &Space, action: &Space, value_heads: usize) -> PolicySpec {
        let mut whole = self.clone();
        whole.complete();
        PolicySpec {
            observation: observation.clone(),
            action: action.clone(),
            torso: TorsoSpec {
                kind: self.torso,
                hidden: whole.hidden.unwrap_or_default(),
                activation: whole.activation.unwrap_or(Activation::Tanh),
                precision: self.precision,
            },
            shared: whole.shared.unwrap_or_default(),
            value_heads,
            normalise: self.normalise,
            log_std: self.log_std,
            masked: false,
            box_head: BoxHead::Gaussian,
            memory: self.memory.zip(whole.memory_units).map(|(kind, units)| MemorySpec { kind, units }),
        }
    }
}

/// Where demonstrations come from: keys of `[signal.gail]`, and of `[learner]` for behaviour cloning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DemosConfig {
    /// A file, relative to the recipe, or `builtin:NAME`. Training needs one; a dry run does not.
    pub demos: String,
    /// Checksum of the file; a resolved recipe holds it, another file is then refused.
    #[schemars(extend("x-default" = "that of the file"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demos_hash: Option<String>,
    /// Leave out this many episodes first.
    pub demos_skip: usize,
    /// Use this many episodes; all if absent.
    #[schemars(range(min = 1), extend("x-default" = "all"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demos_episodes: Option<usize>,
    /// Use every k-th pair of each.
    #[schemars(range(min = 1), extend("x-default" = "1"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demos_stride: Option<usize>,
}

impl DemosConfig {
    /// Which episodes and pairs.
    pub fn selection(&self) -> DemoSelection {
        DemoSelection {
            skip: self.demos_skip,
            episodes: self.demos_episodes,
            stride: self.demos_stride.unwrap_or(1),
            ..DemoSelection::default()
        }
    }
}

/// `[learner]`
#[derive(Clone, Debug, PartialEq)]
pub enum LearnerConfig {
    /// kind = "ppo"
    Ppo(PpoConfig),
    /// kind = "a2c"
    A2c(A2cConfig),
    /// kind = "trpo"
    Trpo(TrpoConfig),
    /// kind = "sac"
    Sac(ReplayConfig, SacConfig),
    /// kind = "td3"
    Td3(ReplayConfig, Td3Config),
    /// kind = "bc"
    Bc(DemosConfig, BcConfig),
    /// kind = "dcgan"
    Dcgan(Box<DcganConfig>),
}

impl LearnerConfig {
    /// The replay of an off-policy learner.
    pub fn replay(&self) -> Option<&ReplayConfig> {
        match self {
            LearnerConfig::Sac(replay, _) | LearnerConfig::Td3(replay, _) => Some(replay),
            LearnerConfig::Ppo(_)
            | LearnerConfig::A2c(_)
            | LearnerConfig::Trpo(_)
            | LearnerConfig::Bc(..)
            | LearnerConfig::Dcgan(_) => None,
        }
    }
}

/// A reward signal under a name of your choice; any number of them. Every kind has these keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StackConfig {
    /// Factor of its rewards: a number, or `{ from = …, to = … }` over the run.
    pub weight: Schedule,
    /// γ of its returns; the learner's if absent.
    #[schemars(range(min = 0, max = 1), extend("x-default" = "learner.discount"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount: Option<f64>,
    /// Its returns end with the episode.
    pub episodic: bool,
    /// Only the sign of its rewards counts: −1, 0 or 1, before they are scaled (Mnih et al. 2015, for Atari games).
    pub reward_sign: bool,
    /// What its rewards are divided by.
    pub reward_norm: RewardNorm,
    /// Scaled rewards are clipped to ± this; off if absent.
    #[schemars(extend("exclusiveMinimum" = 0, "x-default" = "off"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_clip: Option<f64>,
    /// When it learns from a rollout.
    pub update: When,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            weight: Schedule::constant(1.0),
            discount: None,
            episodic: true,
            reward_sign: false,
            reward_norm: RewardNorm::None,
            reward_clip: None,
            update: When::AfterPolicy,
        }
    }
}

/// The part of `[signal.NAME]` that depends on its `kind`.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalKind {
    /// kind = "extrinsic"
    Extrinsic,
    /// kind = "gail"
    Gail(DemosConfig, GailConfig),
    /// kind = "dac"
    Dac(DemosConfig, DacConfig),
    /// kind = "icm"
    Icm(IcmConfig),
    /// kind = "rnd"
    Rnd(RndConfig),
    /// kind = "disagreement"
    Disagreement(DisagreementConfig),
    /// kind = "e3b"
    E3b(E3bConfig),
    /// kind = "python"
    Python(PythonSignalConfig),
    /// A kind that a user's program has registered, with its own keys.
    Registered(String, Table),
}

/// `[signal.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct SignalConfig {
    /// The user's name for it.
    pub name: String,
    /// Place in the stack.
    pub stack: StackConfig,
    /// What it is.
    pub kind: SignalKind,
}

/// What scaled scores are measured against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Score 0; measured if absent and needed.
    #[schemars(extend("x-default" = "measured"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_return: Option<f64>,
    /// Score 1; the demonstrations' mean return if absent.
    #[schemars(extend("x-default" = "that of the demonstrations"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert_return: Option<f64>,
}

/// A whole recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// `[run]`
    pub run: RunConfig,
    /// `[env]`; behaviour cloning does without.
    pub env: Option<EnvSpec>,
    /// `[data]`, for image models.
    pub data: Option<DataConfig>,
    /// `[rollout]`
    pub rollout: RolloutConfig,
    /// `[policy]`
    pub policy: PolicyConfig,
    /// `[learner]`
    pub learner: LearnerConfig,
    /// `[signal.*]`, in order of name.
    pub signals: Vec<SignalConfig>,
    /// `[eval]`
    pub eval: EvalConfig,
}

/// More would be a slip of the keyboard, and end in an allocation that cannot be met.
const MAX_ROLLOUT: usize = 100_000_000;

/// Path of the first number in `value` that is NaN or infinite.
fn first_non_finite(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::Float(x) if !x.is_finite() => Some(path.into()),
        Value::Table(table) => table.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            first_non_finite(&path, value)
        }),
        Value::Array(values) => values.iter().find_map(|value| first_non_finite(path, value)),
        _ => None,
    }
}

impl Recipe {
    /// Reads recipe `text` with `--set` overrides applied, and `--demos` if given in place of every
    /// demonstration file in it. `name` is what errors call it; `registered` are the signal kinds of the user's
    /// program.
    ///
    /// # Errors
    /// Broken TOML, unknown keys, wrong types, values out of range: each with its place.
    pub fn parse(
        name: &str,
        text: &str,
        overrides: &[String],
        demos: Option<&Path>,
        registered: &[&str],
    ) -> Result<Self> {
        let source = Source { name, text, overrides };
        let mut root = source.parse()?;
        for set in overrides {
            apply_override(&mut root, set)?;
        }
        let sections = ["format", "run", "env", "data", "rollout", "policy", "learner", "signal", "eval"];
        source.check_keys("", &root, &sections.map(String::from))?;
        match root.get("format") {
            Some(Value::Integer(FORMAT)) | None => {}
            Some(other) => {
                bail!("{}: this program reads format {FORMAT}, not {other}", source.place("format"))
            }
        }
        let plain = |name: &str, keys: Vec<String>| -> Result<Table> {
            let table = section(&root, name, &source)?;
            source.check_keys(name, &table, &keys)?;
            Ok(table)
        };
        let run: RunConfig = source.read("run", &plain("run", keys_of::<RunConfig>())?)?;
        let rollout: RolloutConfig =
            source.read("rollout", &plain("rollout", keys_of::<RolloutConfig>())?)?;
        let mut policy: PolicyConfig = source.read("policy", &plain("policy", keys_of::<PolicyConfig>())?)?;
        policy.complete();
        let eval: EvalConfig = source.read("eval", &plain("eval", keys_of::<EvalConfig>())?)?;
        let env = match root.contains_key("env") {
            true => Some(source.read::<EnvSpec>("env", &plain("env", keys_of::<EnvSpec>())?)?),
            false => None,
        };
        let mut data = match root.contains_key("data") {
            true => Some(source.read::<DataConfig>("data", &plain("data", keys_of::<DataConfig>())?)?),
            false => None,
        };
        let mut learner = Self::learner(&section(&root, "learner", &source)?, &source)?;
        if let LearnerConfig::Dcgan(config) = &mut learner {
            config.complete(data.get_or_insert_default().size);
        }
        let mut signals = Vec::new();
        for (name, value) in &section(&root, "signal", &source)? {
            let path = format!("signal.{name}");
            let Value::Table(table) = value else {
                bail!("{}: expected a section [{path}]", source.place(&path))
            };
            signals.push(Self::signal(name, table, &source, registered)?);
        }
        let mut recipe = Self { run, env, data, rollout, policy, learner, signals, eval };
        if let Some(file) = demos {
            let places = recipe.demos_mut();
            ensure!(!places.is_empty(), "--demos: nothing in {name} learns from demonstrations");
            let path = std::path::absolute(file).unwrap_or(file.into()).to_string_lossy().into_owned();
            places.into_iter().for_each(|place| (place.demos, place.demos_hash) = (path.clone(), None));
        }
        recipe.validate(&source)?;
        Ok(recipe)
    }

    fn learner(table: &Table, source: &Source) -> Result<LearnerConfig> {
        let kind = kind_of(table, "learner", Some("ppo"), source)?;
        match kind.as_str() {
            "ppo" => {
                source.check_keys("learner", table, &all_keys(&[keys_of::<PpoConfig>()]))?;
                Ok(LearnerConfig::Ppo(source.read("learner", table)?))
            }
            "a2c" => {
                source.check_keys("learner", table, &all_keys(&[keys_of::<A2cConfig>()]))?;
                Ok(LearnerConfig::A2c(source.read("learner", table)?))
            }
            "trpo" => {
                source.check_keys("learner", table, &all_keys(&[keys_of::<TrpoConfig>()]))?;
                Ok(LearnerConfig::Trpo(source.read("learner", table)?))
            }
            "sac" => {
                let known = all_keys(&[keys_of::<ReplayConfig>(), keys_of::<SacConfig>()]);
                source.check_keys("learner", table, &known)?;
                Ok(LearnerConfig::Sac(source.read("learner", table)?, source.read("learner", table)?))
            }
            "td3" => {
                let known = all_keys(&[keys_of::<ReplayConfig>(), keys_of::<Td3Config>()]);
                source.check_keys("learner", table, &known)?;
                Ok(LearnerConfig::Td3(source.read("learner", table)?, source.read("learner", table)?))
            }
            "bc" => {
                let known = all_keys(&[keys_of::<DemosConfig>(), keys_of::<BcConfig>()]);
                source.check_keys("learner", table, &known)?;
                Ok(LearnerConfig::Bc(source.read("learner", table)?, source.read("learner", table)?))
            }
            "dcgan" => {
                source.check_keys("learner", table, &all_keys(&[keys_of::<DcganConfig>()]))?;
                Ok(LearnerConfig::Dcgan(source.read("learner", table)?))
            }
            other => {
                let hint = nearest(other, ["ppo", "a2c", "trpo", "sac", "td3", "bc", "dcgan"])
                    .map_or(String::new(), |k| format!("; did you mean \"{k}\"?"));
                bail!(
                    "{}: unknown learner \"{other}\"{hint} (known: ppo, a2c, trpo, sac, td3, bc, dcgan)",
                    source.place("learner.kind")
                )
            }
        }
    }

    fn signal(name: &str, table: &Table, source: &Source, registered: &[&str]) -> Result<SignalConfig> {
        let path = format!("signal.{name}");
        let kind = kind_of(table, &path, Some(name), source)?;
        let stack_keys = keys_of::<StackConfig>();
        let kind = match kind.as_str() {
            "extrinsic" => {
                source.check_keys(&path, table, &all_keys(&[stack_keys]))?;
                SignalKind::Extrinsic
            }
            "gail" => {
                let known = all_keys(&[stack_keys, keys_of::<DemosConfig>(), keys_of::<GailConfig>()]);
                source.check_keys(&path, table, &known)?;
                SignalKind::Gail(source.read(&path, table)?, source.read(&path, table)?)
            }
            "dac" => {
                let known = all_keys(&[stack_keys, keys_of::<DemosConfig>(), keys_of::<DacConfig>()]);
                source.check_keys(&path, table, &known)?;
                SignalKind::Dac(source.read(&path, table)?, source.read(&path, table)?)
            }
            "icm" => {
                source.check_keys(&path, table, &all_keys(&[stack_keys, keys_of::<IcmConfig>()]))?;
                SignalKind::Icm(source.read(&path, table)?)
            }
            "rnd" => {
                source.check_keys(&path, table, &all_keys(&[stack_keys, keys_of::<RndConfig>()]))?;
                SignalKind::Rnd(source.read(&path, table)?)
            }
            "disagreement" => {
                source.check_keys(&path, table, &all_keys(&[stack_keys, keys_of::<DisagreementConfig>()]))?;
                SignalKind::Disagreement(source.read(&path, table)?)
            }
            "e3b" => {
                source.check_keys(&path, table, &all_keys(&[stack_keys, keys_of::<E3bConfig>()]))?;
                SignalKind::E3b(source.read(&path, table)?)
            }
            "python" => {
                source.check_keys(&path, table, &all_keys(&[stack_keys, keys_of::<PythonSignalConfig>()]))?;
                SignalKind::Python(source.read(&path, table)?)
            }
            kind if registered.contains(&kind) => {
                let own = table.iter().filter(|(key, _)| *key != "kind" && !stack_keys.contains(key));
                let own = own.map(|(key, value)| (key.clone(), value.clone())).collect();
                SignalKind::Registered(kind.into(), own)
            }
            other => {
                let known: Vec<&str> = BUILTIN_SIGNALS.iter().chain(registered).copied().collect();
                let hint = nearest(other, known.iter().copied())
                    .map_or(String::new(), |k| format!("; did you mean \"{k}\"?"));
                bail!(
                    "{}: unknown signal \"{other}\"{hint} (known: {})",
                    source.place(&path),
                    known.join(", ")
                )
            }
        };
        Ok(SignalConfig { name: name.into(), stack: source.read(&path, table)?, kind })
    }

    /// What no single key can tell; ranges of single keys are part of their schema.
    fn validate(&self, source: &Source) -> Result<()> {
        let check = |ok: bool, path: &str, rule: &str| {
            ensure!(ok, "{}: {rule}", source.place(path));
            Ok(())
        };
        let rollout = self.rollout.envs.checked_mul(self.rollout.steps).filter(|&size| size <= MAX_ROLLOUT);
        check(rollout.is_some(), "rollout.steps", "envs × steps must be at most 100 million")?;
        let root: Table = toml::from_str(&self.to_toml()?)?;
        if let Some(path) = first_non_finite("", &Value::Table(root)) {
            check(false, &path, "must be a finite number")?;
        }
        match &self.learner {
            LearnerConfig::Ppo(_)
            | LearnerConfig::A2c(_)
            | LearnerConfig::Trpo(_)
            | LearnerConfig::Sac(..)
            | LearnerConfig::Td3(..) => {
                ensure!(self.env.is_some(), "{}: `env.id` is missing: which environment?", source.name);
            }
            LearnerConfig::Dcgan(_) => {}
            LearnerConfig::Bc(_, bc) => {
                check(self.signals.is_empty(), "signal", "behaviour cloning uses no reward signals")?;
                check(
                    bc.patience == 0 || self.run.eval_every > 0,
                    "learner.patience",
                    "counts evaluations: set run.eval_every too",
                )?;
            }
        }
        match &self.learner {
            LearnerConfig::Dcgan(config) => {
                check(self.signals.is_empty(), "signal", "image models use no reward signals")?;
                check(self.env.is_none(), "env", "image models use no environment: they learn from [data]")?;
                config.check().map_err(|error| anyhow::anyhow!("{}: {error}", source.place("learner")))?;
            }
            _ => check(self.data.is_none(), "data", "is for image models, as learner.kind = \"dcgan\"")?,
        }
        for SignalConfig { name, stack, .. } in
            self.signals.iter().filter(|_| self.learner.replay().is_some())
        {
            let why = "off-policy learners score single transitions and have one discount, `learner.discount`: remove it";
            check(stack.reward_norm == RewardNorm::None, &format!("signal.{name}.reward_norm"), why)?;
            check(stack.discount.is_none(), &format!("signal.{name}.discount"), why)?;
            check(stack.episodic, &format!("signal.{name}.episodic"), why)?;
        }
        for SignalConfig { name, stack, .. } in &self.signals {
            check(
                stack.reward_norm != RewardNorm::Centred || !stack.episodic,
                &format!("signal.{name}.reward_norm"),
                &format!(
                    "\"centred\" shifts every reward, which would pay or cost for how long an episode lasts: set \
                    signal.{name}.episodic = false, or use \"returns\""
                ),
            )?;
        }
        let on_policy = matches!(self.learner, LearnerConfig::Ppo(_) | LearnerConfig::A2c(_));
        check(
            on_policy || self.policy.memory.is_none(),
            "policy.memory",
            "learns what to remember from whole sequences: use learner.kind = \"ppo\" or \"a2c\"",
        )?;
        check(
            self.policy.memory.is_some() || self.policy.memory_units.is_none(),
            "policy.memory_units",
            "of which cell? Set policy.memory = \"lstm\" or \"gru\" too",
        )?;
        check(
            self.policy.memory.is_none() || self.policy.cloning_steps == 0,
            "policy.cloning_steps",
            "clones pairs, not sequences: leave policy.memory out",
        )?;
        check(
            on_policy || self.policy.freeze.is_empty(),
            "policy.freeze",
            "only learner.kind = \"ppo\" or \"a2c\" leaves parameters as they are",
        )?;
        check(
            self.run.from.is_none() || self.data.is_none(),
            "run.from",
            "is for agents: an image model goes on with --resume",
        )?;
        for name in &self.run.from_signals {
            let here = self.signals.iter().any(|signal| signal.name == *name);
            let rule = format!("there is no [signal.{name}] here");
            check(here, "run.from_signals", &rule)?;
            check(
                self.run.from.is_some(),
                "run.from_signals",
                "from which run? Set run.from, or give --from RUN",
            )?;
        }
        let PolicyConfig { normalise, normalise_from_demos, cloning_steps, .. } = self.policy;
        check(
            normalise || !normalise_from_demos,
            "policy.normalise_from_demos",
            "set policy.normalise = true too: there are no statistics without it",
        )?;
        for (asked, path) in [
            (normalise_from_demos, "policy.normalise_from_demos"),
            (cloning_steps > 0, "policy.cloning_steps"),
        ] {
            let why = "no signal here has demonstrations to begin with: add one of kind \"gail\" or \"dac\"";
            check(!asked || self.warm_start().is_some(), path, why)?;
        }
        for SignalConfig { name, kind, .. } in &self.signals {
            check(
                self.learner.replay().is_some() || !matches!(kind, SignalKind::Dac(..)),
                &format!("signal.{name}"),
                "this signal learns from a replay: use learner.kind = \"td3\" or \"sac\", or kind = \"gail\" here",
            )?;
        }
        for SignalConfig { name, kind, .. } in &self.signals {
            let sequential = matches!(
                kind,
                SignalKind::Icm(_)
                    | SignalKind::Rnd(_)
                    | SignalKind::Disagreement(_)
                    | SignalKind::E3b(_)
                    | SignalKind::Python(_)
            );
            check(
                self.learner.replay().is_none() || !sequential,
                &format!("signal.{name}"),
                "this signal follows rollouts in time, not a replay: use learner.kind = \"ppo\", \"a2c\" or \"trpo\"",
            )?;
        }
        for signal in &self.signals {
            if let SignalKind::Gail(_, gail) = &signal.kind {
                check(
                    self.learner.replay().is_none() || gail.action_input != ActionInput::NextObservation,
                    &format!("signal.{}.action_input", signal.name),
                    "what came next is known in rollouts, not in a replay: use learner.kind = \"ppo\", \"a2c\" or \"trpo\"",
                )?;
                let replay = gail.replay_rollouts.max(1).checked_mul(rollout.unwrap_or(1));
                check(
                    replay.is_some_and(|size| size <= MAX_ROLLOUT),
                    &format!("signal.{}.replay_rollouts", signal.name),
                    "the replay must hold at most 100 million transitions",
                )?;
            }
        }
        Ok(())
    }

    /// Keys that must name demonstrations before anything can be trained, and do not.
    pub fn missing_demonstrations(&self) -> Vec<String> {
        let learner = match &self.learner {
            LearnerConfig::Bc(demos, _) if demos.demos.is_empty() => Some("learner.demos".to_string()),
            _ => None,
        };
        let signals = self.signals.iter().filter_map(|signal| match &signal.kind {
            SignalKind::Gail(demos, _) | SignalKind::Dac(demos, _) if demos.demos.is_empty() => {
                Some(format!("signal.{}.demos", signal.name))
            }
            _ => None,
        });
        learner.into_iter().chain(signals).collect()
    }

    /// The demonstrations from which the policy begins, if the recipe says that it does.
    pub fn warm_start(&self) -> Option<&DemosConfig> {
        let asked = self.policy.normalise_from_demos || self.policy.cloning_steps > 0;
        self.signals.iter().filter(|_| asked).find_map(|signal| match &signal.kind {
            SignalKind::Gail(demos, _) | SignalKind::Dac(demos, _) => Some(demos),
            _ => None,
        })
    }

    /// Every place that names a demonstration file.
    pub fn demos_mut(&mut self) -> Vec<&mut DemosConfig> {
        let mut found = Vec::new();
        if let LearnerConfig::Bc(demos, _) = &mut self.learner {
            found.push(demos);
        }
        found.extend(self.signals.iter_mut().filter_map(|signal| match &mut signal.kind {
            SignalKind::Gail(demos, _) | SignalKind::Dac(demos, _) => Some(demos),
            _ => None,
        }));
        found
    }

    /// Makes relative demonstration paths and `env.path` absolute, so that the resolved recipe works from anywhere.
    pub fn anchor(&mut self, directory: &Path) {
        let absolute = |path: &str| {
            let path: PathBuf = directory.join(path);
            std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
        };
        for demos in self.demos_mut() {
            if !demos.demos.is_empty() && !demos.demos.starts_with("builtin:") {
                demos.demos = absolute(&demos.demos);
            }
        }
        if let Some(path) = self.env.as_mut().and_then(|env| env.path.as_mut()) {
            *path = absolute(path);
        }
        for signal in &mut self.signals {
            if let SignalKind::Python(PythonSignalConfig { path: Some(path), .. }) = &mut signal.kind {
                *path = absolute(path);
            }
        }
        if let Some(data) = self.data.as_mut().filter(|data| !data.path.is_empty()) {
            data.path = absolute(&data.path);
        }
    }

    /// The whole recipe as TOML, defaults written out.
    ///
    /// # Errors
    /// None that a parsed recipe could give; numbers that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        fn table<T: Serialize>(value: &T) -> Result<Table> {
            Ok(Table::try_from(value)?)
        }
        fn kind(name: &str, parts: Vec<Table>) -> Table {
            let kind = ("kind".to_string(), Value::String(name.into()));
            std::iter::once(kind).chain(parts.into_iter().flatten()).collect()
        }
        let mut root = Table::new();
        root.insert("format".into(), Value::Integer(FORMAT));
        root.insert("run".into(), table(&self.run)?.into());
        if let Some(env) = &self.env {
            root.insert("env".into(), table(env)?.into());
        }
        match &self.data {
            Some(data) => drop(root.insert("data".into(), table(data)?.into())),
            None => {
                root.insert("rollout".into(), table(&self.rollout)?.into());
                root.insert("policy".into(), table(&self.policy)?.into());
            }
        }
        let learner = match &self.learner {
            LearnerConfig::Ppo(config) => kind("ppo", vec![table(config)?]),
            LearnerConfig::A2c(config) => kind("a2c", vec![table(config)?]),
            LearnerConfig::Trpo(config) => kind("trpo", vec![table(config)?]),
            LearnerConfig::Sac(replay, config) => kind("sac", vec![table(replay)?, table(config)?]),
            LearnerConfig::Td3(replay, config) => kind("td3", vec![table(replay)?, table(config)?]),
            LearnerConfig::Bc(demos, config) => kind("bc", vec![table(demos)?, table(config)?]),
            LearnerConfig::Dcgan(config) => kind("dcgan", vec![table(config)?]),
        };
        root.insert("learner".into(), learner.into());
        let mut signals = Table::new();
        for signal in &self.signals {
            let stack = table(&signal.stack)?;
            let written = match &signal.kind {
                SignalKind::Extrinsic => kind("extrinsic", vec![stack]),
                SignalKind::Gail(demos, config) => kind("gail", vec![stack, table(demos)?, table(config)?]),
                SignalKind::Dac(demos, config) => kind("dac", vec![stack, table(demos)?, table(config)?]),
                SignalKind::Icm(config) => kind("icm", vec![stack, table(config)?]),
                SignalKind::Rnd(config) => kind("rnd", vec![stack, table(config)?]),
                SignalKind::Disagreement(config) => kind("disagreement", vec![stack, table(config)?]),
                SignalKind::E3b(config) => kind("e3b", vec![stack, table(config)?]),
                SignalKind::Python(config) => kind("python", vec![stack, table(config)?]),
                SignalKind::Registered(name, own) => kind(name, vec![stack, own.clone()]),
            };
            signals.insert(signal.name.clone(), written.into());
        }
        if !signals.is_empty() {
            root.insert("signal".into(), signals.into());
        }
        if self.eval != EvalConfig::default() {
            root.insert("eval".into(), table(&self.eval)?.into());
        }
        Ok(toml::to_string(&root)?)
    }
}

#[cfg(test)]
mod tests;
