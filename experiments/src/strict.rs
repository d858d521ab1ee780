//! Reading TOML strictly: every mistake is answered with its line and the nearest right key.

use crate::nearest::nearest;
use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Keys that other libraries use for the same thing.
const ALIASES: [(&str, &str); 26] = [
    ("batch_size", "learner.minibatch_size"),
    ("clip_coef", "learner.clip"),
    ("clip_range", "learner.clip"),
    ("clip_range_vf", "learner.value_clip"),
    ("demo_batch_size", "signal.gail.batch_size"),
    ("ent_coef", "learner.entropy_coefficient"),
    ("env_id", "env.id"),
    ("expert_path", "signal.gail.demos"),
    ("gamma", "learner.discount"),
    ("lr", "learner.learning_rate"),
    ("max_episode_steps", "env.time_limit"),
    ("max_grad_norm", "learner.max_gradient_norm"),
    ("n_disc_updates_per_round", "signal.gail.updates_per_round"),
    ("n_envs", "rollout.envs"),
    ("n_epochs", "learner.epochs"),
    ("n_eval_episodes", "run.eval_episodes"),
    ("n_steps", "rollout.steps"),
    ("n_timesteps", "run.total_steps"),
    ("net_arch", "policy.hidden"),
    ("num_envs", "rollout.envs"),
    ("num_steps", "rollout.steps"),
    ("total_timesteps", "run.total_steps"),
    ("update_epochs", "learner.epochs"),
    ("activation_fn", "policy.activation"),
    ("vf_coef", "learner.value_coefficient"),
    ("norm_obs", "policy.normalise"),
];

/// The keys of a section that is read into `T`, as serde knows them: asked for by offering one it cannot know.
pub fn keys_of<T: DeserializeOwned>() -> Vec<String> {
    let unknown = Table::from_iter([("\u{0}".to_string(), Value::Boolean(true))]);
    let message = match T::deserialize(Value::Table(unknown)) {
        Ok(_) => return Vec::new(),
        Err(error) => error.to_string(),
    };
    let expected = message.split_once("expected").map_or("", |(_, list)| list);
    expected.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// Where keys come from: the file's text, for line numbers.
pub struct Source<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// The `--set`s.
    pub overrides: &'a [String],
}

impl Source<'_> {
    /// "recipe.toml line 7: learner.n_steps", or where else the key was set.
    pub fn place(&self, path: &str) -> String {
        if self.overrides.iter().any(|set| set.split('=').next().is_some_and(|key| key.trim() == path)) {
            return format!("--set {path}");
        }
        match self.line(path) {
            Some(line) => format!("{} line {line}: `{path}`", self.name),
            None => format!("{}: `{path}`", self.name),
        }
    }

    fn line(&self, path: &str) -> Option<usize> {
        let document = toml_edit::Document::parse(self.text).ok()?;
        let mut item = document.as_item();
        let mut span = None;
        for part in path.split('.') {
            let (key, next) = item.as_table_like()?.get_key_value(part)?;
            span = key.span().or_else(|| next.span());
            item = next;
        }
        Some(self.text[..span?.start].matches('\n').count() + 1)
    }

    pub fn unknown(&self, section: &str, key: &str, known: &[String]) -> anyhow::Error {
        let path = if section.is_empty() { key.to_string() } else { format!("{section}.{key}") };
        let alias = ALIASES.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| *ours);
        // Of the same section first: `gamma` in [signal.task] is that signal's own discount.
        let here =
            alias.and_then(|ours| ours.rsplit('.').next()).filter(|last| known.iter().any(|k| k == last));
        let hint = match (here, alias, nearest(key, known.iter().map(String::as_str))) {
            (Some(last), ..) => format!("; here it is called `{section}.{last}`"),
            (None, Some(ours), _) => format!("; here it is called `{ours}`"),
            (None, None, Some(near)) => format!("; did you mean `{near}`?"),
            (None, None, None) => String::new(),
        };
        anyhow!("{}: unknown key{hint} (known here: {})", self.place(&path), known.join(", "))
    }

    /// Reads the keys of `T` out of a section's table.
    pub fn read<T: DeserializeOwned>(&self, section: &str, table: &Table) -> Result<T> {
        let keys = keys_of::<T>();
        let own: Table = table
            .iter()
            .filter(|(key, _)| keys.contains(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        serde_path_to_error::deserialize(Value::Table(own)).map_err(|error| {
            let path = match error.path().to_string() {
                path if path == "." => section.to_string(),
                path => format!("{section}.{path}"),
            };
            let message = error.into_inner().message().to_string();
            anyhow!("{}: {message}", self.place(&path))
        })
    }

    pub fn check_keys(&self, section: &str, table: &Table, known: &[String]) -> Result<()> {
        match table.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(self.unknown(section, key, known)),
            None => Ok(()),
        }
    }
}

/// `key.path=value`: the value as TOML, or else as a string.
pub fn apply_override(root: &mut Table, set: &str) -> Result<()> {
    let (path, text) = set.split_once('=').with_context(|| format!("--set {set}: expected KEY=VALUE"))?;
    let value = match toml::from_str::<Table>(&format!("x = {text}")) {
        Ok(mut parsed) => parsed.remove("x").unwrap_or(Value::String(text.into())),
        Err(_) => Value::String(text.into()),
    };
    let parts: Vec<&str> = path.trim().split('.').collect();
    let Some((key, sections)) = parts.split_last() else { bail!("--set {set}: no key") };
    let mut table = root;
    for section in sections {
        let entry = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
        table = entry
            .as_table_mut()
            .with_context(|| format!("--set {path}: `{section}` is a value, not a section"))?;
    }
    table.insert((*key).to_string(), value);
    Ok(())
}

pub fn section(root: &Table, name: &str, source: &Source) -> Result<Table> {
    match root.get(name) {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table.clone()),
        Some(_) => bail!("{}: expected a section [{name}]", source.place(name)),
    }
}

pub fn kind_of(table: &Table, path: &str, default: Option<&str>, source: &Source) -> Result<String> {
    match (table.get("kind"), default) {
        (Some(Value::String(kind)), _) => Ok(kind.clone()),
        (Some(_), _) => bail!("{}: expected a string", source.place(&format!("{path}.kind"))),
        (None, Some(default)) => Ok(default.to_string()),
        (None, None) => bail!("{}: `kind` is missing", source.place(path)),
    }
}

pub fn all_keys(lists: &[Vec<String>]) -> Vec<String> {
    std::iter::once("kind".to_string()).chain(lists.iter().flatten().cloned()).collect()
}
