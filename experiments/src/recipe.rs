//! Recipes: TOML files (or built-in names) that say everything about a run.
//!
//! Sections are read strictly: an unknown key is answered with its line and the nearest valid one. A resolved
//! recipe, defaults written out, repeats its run.

use crate::nearest::nearest;
use crate::strict::{Source, all_keys, apply_override, keys_of, kind_of, section};
use anyhow::{Result, anyhow, bail, ensure};
use imago::nn::{Activation, PolicySpec, TorsoKind, TorsoSpec};
use imago::signal::{RewardNorm, Schedule, When};
use imago_agents::{BcConfig, DemoSelection, GailConfig, PpoConfig};
use imago_envs::{EnvSpec, Space};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Kinds of signals that need no registration.
pub const BUILTIN_SIGNALS: [&str; 2] = ["extrinsic", "gail"];

/// Version of the recipe format.
const FORMAT: i64 = 1;

/// `[run]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Everything random derives from it.
    pub seed: u64,
    /// Length of the run in steps: decisions of single environments, or optimiser steps of behaviour cloning.
    pub total_steps: u64,
    /// Evaluate each time this many steps have passed, and at the end; 0 only then.
    pub eval_every: u64,
    /// Episodes of each evaluation.
    pub eval_episodes: usize,
    /// Write a checkpoint each time this many steps have passed.
    pub checkpoint_every: u64,
    /// Checkpoints kept, apart from the best.
    pub keep_checkpoints: usize,
    /// Write TensorBoard and `metrics.jsonl` each time this many steps have passed.
    pub log_every: u64,
    /// Rollout threads; any number gives the same bits. 0 collects in the learner's own thread.
    pub workers: usize,
    /// libtorch threads of the learner. Part of the recipe since it changes the bits.
    pub learner_threads: i32,
    /// Before the first training in an environment, and after each change of its files, see for two seconds whether
    /// it keeps its contract; refuse to train if not. Environments of this program need no check.
    pub check_env: bool,
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
            learner_threads: 1,
            check_env: true,
        }
    }
}

/// `[rollout]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// Environments, N.
    pub envs: usize,
    /// Steps of each between two updates, T.
    pub steps: usize,
    /// Environments that are stepped together; the unit that workers share. It changes the bits, the number of
    /// workers does not.
    pub group_size: usize,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self { envs: 8, steps: 256, group_size: 4 }
    }
}

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// "mlp", "nature" or "icm".
    pub torso: TorsoKind,
    /// Widths of the fully connected layers; what goes with the torso if absent: [64, 64], [512], [256].
    pub hidden: Option<Vec<i64>>,
    /// After every layer; if absent tanh, relu, elu.
    pub activation: Option<Activation>,
    /// One torso for policy and value; if absent not for "mlp", but for the convolutional ones.
    pub shared: Option<bool>,
    /// Standardise vector observations by running statistics.
    pub normalise: bool,
    /// Initial log standard deviation of continuous actions.
    pub log_std: f64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            torso: TorsoKind::Mlp,
            hidden: None,
            activation: None,
            shared: None,
            normalise: false,
            log_std: 0.0,
        }
    }
}

impl PolicyConfig {
    /// Fills in what goes with the torso, as its paper has it.
    fn complete(&mut self) {
        let (hidden, activation, shared) = match self.torso {
            TorsoKind::Mlp => (vec![64, 64], Activation::Tanh, false),
            TorsoKind::Nature => (vec![512], Activation::Relu, true),
            TorsoKind::Icm => (vec![256], Activation::Elu, true),
        };
        self.hidden.get_or_insert(hidden);
        self.activation.get_or_insert(activation);
        self.shared.get_or_insert(shared);
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
            },
            shared: whole.shared.unwrap_or_default(),
            value_heads,
            normalise: self.normalise,
            log_std: self.log_std,
            masked: false,
        }
    }
}

/// Where demonstrations come from: keys of `[signal.gail]`, and of `[learner]` for behaviour cloning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemosConfig {
    /// A file, relative to the recipe, or `builtin:NAME`.
    pub demos: String,
    /// Checksum of the file; a resolved recipe holds it, another file is then refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demos_hash: Option<String>,
    /// Leave out this many episodes first.
    pub demos_skip: usize,
    /// Use this many episodes; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demos_episodes: Option<usize>,
    /// Use every k-th pair of each.
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
        }
    }
}

/// `[learner]`
#[derive(Clone, Debug, PartialEq)]
pub enum LearnerConfig {
    /// kind = "ppo"
    Ppo(PpoConfig),
    /// kind = "bc"
    Bc(DemosConfig, BcConfig),
}

/// What every `[signal.NAME]` has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StackConfig {
    /// Factor of its rewards: a number, or `{ from = …, to = … }` over the run.
    pub weight: Schedule,
    /// γ of its returns; the learner's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount: Option<f64>,
    /// Its returns end with the episode.
    pub episodic: bool,
    /// "none", "rewards" or "returns": what its rewards are divided by the standard deviation of.
    pub reward_norm: RewardNorm,
    /// Scaled rewards are clipped to ± this; off if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_clip: Option<f64>,
    /// "before_reward" or "after_policy": when it learns from a rollout.
    pub update: When,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            weight: Schedule::constant(1.0),
            discount: None,
            episodic: true,
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

/// `[eval]`: what scaled scores are measured against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Score 0; measured if absent and needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_return: Option<f64>,
    /// Score 1; the demonstrations' mean return if absent.
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
const MAX_WIDTH: i64 = 65_536;

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
        let mut root: Table = toml::from_str(text)
            .map_err(|error| anyhow!("{name} is not valid TOML: {}", error.to_string().trim()))?;
        for set in overrides {
            apply_override(&mut root, set)?;
        }
        let source = Source { name, text, overrides };
        let sections = ["format", "run", "env", "rollout", "policy", "learner", "signal", "eval"];
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
        let learner = Self::learner(&section(&root, "learner", &source)?, &source)?;
        let mut signals = Vec::new();
        for (name, value) in &section(&root, "signal", &source)? {
            let path = format!("signal.{name}");
            let Value::Table(table) = value else {
                bail!("{}: expected a section [{path}]", source.place(&path))
            };
            signals.push(Self::signal(name, table, &source, registered)?);
        }
        let mut recipe = Self { run, env, rollout, policy, learner, signals, eval };
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
            "bc" => {
                let known = all_keys(&[keys_of::<DemosConfig>(), keys_of::<BcConfig>()]);
                source.check_keys("learner", table, &known)?;
                Ok(LearnerConfig::Bc(source.read("learner", table)?, source.read("learner", table)?))
            }
            other => {
                let hint = nearest(other, ["ppo", "bc"])
                    .map_or(String::new(), |k| format!("; did you mean \"{k}\"?"));
                bail!("{}: unknown learner \"{other}\"{hint} (known: ppo, bc)", source.place("learner.kind"))
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

    fn validate(&self, source: &Source) -> Result<()> {
        let check = |ok: bool, path: &str, rule: &str| {
            ensure!(ok, "{}: {rule}", source.place(path));
            Ok(())
        };
        check(self.run.total_steps > 0, "run.total_steps", "must be at least 1")?;
        check(self.run.eval_episodes > 0, "run.eval_episodes", "must be at least 1")?;
        check(self.run.checkpoint_every > 0, "run.checkpoint_every", "must be at least 1")?;
        check(self.run.keep_checkpoints > 0, "run.keep_checkpoints", "must be at least 1")?;
        check(self.run.log_every > 0, "run.log_every", "must be at least 1")?;
        check(self.run.learner_threads > 0, "run.learner_threads", "must be at least 1")?;
        check(i64::try_from(self.run.seed).is_ok(), "run.seed", "must fit in 63 bits")?;
        check(self.rollout.envs > 0, "rollout.envs", "must be at least 1")?;
        check(self.rollout.steps > 0, "rollout.steps", "must be at least 1")?;
        check(self.rollout.group_size > 0, "rollout.group_size", "must be at least 1")?;
        let widths = |hidden: &[i64]| hidden.iter().all(|width| (1..=MAX_WIDTH).contains(width));
        let hidden = self.policy.hidden.as_deref().unwrap_or_default();
        check(widths(hidden), "policy.hidden", "widths must lie in 1 to 65536")?;
        let rollout = self.rollout.envs.checked_mul(self.rollout.steps).filter(|&size| size <= MAX_ROLLOUT);
        check(rollout.is_some(), "rollout.steps", "envs × steps must be at most 100 million")?;
        let root: Table = toml::from_str(&self.to_toml()?)?;
        if let Some(path) = first_non_finite("", &Value::Table(root)) {
            check(false, &path, "must be a finite number")?;
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        match &self.learner {
            LearnerConfig::Ppo(ppo) => {
                check(positive(ppo.learning_rate), "learner.learning_rate", "must be above 0")?;
                check(ppo.epochs > 0, "learner.epochs", "must be at least 1")?;
                check(ppo.minibatch_size > 0, "learner.minibatch_size", "must be at least 1")?;
                check(share(ppo.discount), "learner.discount", "must lie in [0, 1]")?;
                check(share(ppo.gae_lambda), "learner.gae_lambda", "must lie in [0, 1]")?;
                check(positive(ppo.clip), "learner.clip", "must be above 0")?;
                check(positive(ppo.max_gradient_norm), "learner.max_gradient_norm", "must be above 0")?;
                ensure!(self.env.is_some(), "{}: `env.id` is missing: which environment?", source.name);
            }
            LearnerConfig::Bc(demos, bc) => {
                check(positive(bc.learning_rate), "learner.learning_rate", "must be above 0")?;
                check(bc.batch_size > 0, "learner.batch_size", "must be at least 1")?;
                check(
                    (0.0..1.0).contains(&bc.validation_split),
                    "learner.validation_split",
                    "must lie in [0, 1)",
                )?;
                check(
                    !demos.demos.is_empty(),
                    "learner.demos",
                    "missing: give a file here or with --demos FILE",
                )?;
                check(self.signals.is_empty(), "signal", "behaviour cloning uses no reward signals")?;
                check(
                    bc.patience == 0 || self.run.eval_every > 0,
                    "learner.patience",
                    "counts evaluations: set run.eval_every too",
                )?;
            }
        }
        for signal in &self.signals {
            let at = |key: &str| format!("signal.{}.{key}", signal.name);
            if let Some(discount) = signal.stack.discount {
                check(share(discount), &at("discount"), "must lie in [0, 1]")?;
            }
            if let SignalKind::Gail(demos, gail) = &signal.kind {
                check(
                    !demos.demos.is_empty(),
                    &at("demos"),
                    "missing: give a file here or with --demos FILE",
                )?;
                check(positive(gail.learning_rate), &at("learning_rate"), "must be above 0")?;
                check(widths(&gail.hidden), &at("hidden"), "widths must lie in 1 to 65536")?;
                let replay = gail.replay_rollouts.max(1).checked_mul(rollout.unwrap_or(1));
                check(
                    replay.is_some_and(|size| size <= MAX_ROLLOUT),
                    &at("replay_rollouts"),
                    "the replay must hold at most 100 million transitions",
                )?;
                check(
                    (0.0..0.5).contains(&gail.label_smoothing),
                    &at("label_smoothing"),
                    "must lie in [0, 0.5)",
                )?;
                check(gail.gradient_penalty >= 0.0, &at("gradient_penalty"), "must not be negative")?;
            }
        }
        Ok(())
    }

    /// Every place that names a demonstration file.
    pub fn demos_mut(&mut self) -> Vec<&mut DemosConfig> {
        let mut found = Vec::new();
        if let LearnerConfig::Bc(demos, _) = &mut self.learner {
            found.push(demos);
        }
        found.extend(self.signals.iter_mut().filter_map(|signal| match &mut signal.kind {
            SignalKind::Gail(demos, _) => Some(demos),
            _ => None,
        }));
        found
    }

    /// Makes relative demonstration paths absolute, so that the resolved recipe works from anywhere.
    pub fn anchor(&mut self, directory: &Path) {
        for demos in self.demos_mut() {
            if !demos.demos.starts_with("builtin:") {
                let path: PathBuf = directory.join(&demos.demos);
                demos.demos = std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned();
            }
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
        root.insert("rollout".into(), table(&self.rollout)?.into());
        root.insert("policy".into(), table(&self.policy)?.into());
        let learner = match &self.learner {
            LearnerConfig::Ppo(config) => kind("ppo", vec![table(config)?]),
            LearnerConfig::Bc(demos, config) => kind("bc", vec![table(demos)?, table(config)?]),
        };
        root.insert("learner".into(), learner.into());
        let mut signals = Table::new();
        for signal in &self.signals {
            let stack = table(&signal.stack)?;
            let written = match &signal.kind {
                SignalKind::Extrinsic => kind("extrinsic", vec![stack]),
                SignalKind::Gail(demos, config) => kind("gail", vec![stack, table(demos)?, table(config)?]),
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GAIL: &str = "format = 1\n[env]\nid = \"CartPole-v1\"\n[learner]\nkind = \"ppo\"\nepochs = 4\n\n[signal.gail]\ndemos = \"a.demos\"\n";

    fn refused(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Recipe::parse("r.toml", text, &overrides, None, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_resolved_recipe_reads_back_the_same() {
        let sets = ["policy.hidden=[8, 8]".into(), "signal.gail.weight={from=1, to=0}".into()];
        let recipe = Recipe::parse("r.toml", GAIL, &sets, None, &[]).unwrap();
        assert_eq!(recipe.policy.hidden, Some(vec![8, 8]));
        let again = Recipe::parse("resolved", &recipe.to_toml().unwrap(), &[], None, &[]).unwrap();
        assert_eq!(recipe, again);
    }

    #[test]
    fn unknown_keys_name_the_line_and_the_nearest_key() {
        let message = refused(&GAIL.replace("epochs", "epoch"), &[]);
        assert!(message.contains("r.toml line 6") && message.contains("did you mean `epochs`"), "{message}");
        let message = refused(&GAIL.replace("epochs = 4", "n_steps = 4"), &[]);
        assert!(message.contains("`rollout.steps`"), "{message}");
        let message = refused(GAIL, &["learner.ent_coef=0.1"]);
        assert!(
            message.contains("--set learner.ent_coef") && message.contains("entropy_coefficient"),
            "{message}"
        );
        let message = refused(&GAIL.replace("[signal.gail]", "[signal.gial]"), &[]);
        assert!(message.contains("line 8") && message.contains("did you mean \"gail\""), "{message}");
    }

    #[test]
    fn wrong_types_and_values_name_the_place() {
        let message = refused(&GAIL.replace("epochs = 4", "epochs = \"four\""), &[]);
        assert!(message.contains("line 6") && message.contains("learner.epochs"), "{message}");
        let message = refused(GAIL, &["learner.discount=1.5"]);
        assert!(message.contains("--set learner.discount") && message.contains("[0, 1]"), "{message}");
        let message = refused("[learner\nkind = 1", &[]);
        assert!(message.contains("not valid TOML") && message.contains("line 1"), "{message}");
        let message = refused(&GAIL.replace("[env]\nid = \"CartPole-v1\"\n", ""), &[]);
        assert!(message.contains("env.id"), "{message}");
        let message = refused(&GAIL.replace("demos = \"a.demos\"", ""), &[]);
        assert!(message.contains("--demos"), "{message}");
    }

    #[test]
    fn serde_tells_its_keys() {
        assert_eq!(keys_of::<RolloutConfig>(), ["envs", "steps", "group_size"]);
        assert!(keys_of::<EnvSpec>().contains(&"id".into()));
    }
}
