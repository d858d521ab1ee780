//! Reading TOML strictly: every mistake is answered with its line and the nearest right key.

use crate::foreign::{self, Foreign};
use crate::nearest::nearest_of;
use crate::schema::{self, SIGNAL, Section};
use anyhow::{Context, Result, anyhow, bail};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

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
    /// "recipe.toml line 7: `learner.n_steps`", or where else the key was set.
    pub fn place(&self, path: &str) -> String {
        let shown = path.escape_debug();
        let keys = self.overrides.iter().rev().filter_map(|set| Some(set.split_once('=')?.0.trim()));
        let below =
            |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
        for key in keys {
            // The key itself, one in the table that was set, or a section that only --set brought in.
            if key == path || below(path, key) || (below(key, path) && self.line(path).is_none()) {
                return format!("--set {}", key.escape_debug());
            }
        }
        match self.line(path) {
            Some(line) => format!("{} line {line}: `{shown}`", self.name),
            None => format!("{}: `{shown}`", self.name),
        }
    }

    /// The text as TOML.
    ///
    /// # Errors
    /// What is not TOML: its line and column.
    pub fn parse(&self) -> Result<Table> {
        toml::from_str(self.text).map_err(|error: toml::de::Error| {
            let message = error.message().replace('\n', "; ");
            let Some(span) = error.span() else {
                return anyhow!("{} is not valid TOML: {message}", self.name);
            };
            let before = self.text.get(..span.start).unwrap_or(self.text);
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let line = self.text[start..].lines().next().unwrap_or_default().trim();
            anyhow!(
                "{} is not valid TOML: line {}, column {}: {message}, in `{}`",
                self.name,
                before.matches('\n').count() + 1,
                before[start..].chars().count() + 1,
                excerpt(line)
            )
        })
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

    /// The answer to a key that nobody knows in `section`, whose keys are `known`.
    fn unknown(&self, section: &str, key: &str, known: &[String]) -> anyhow::Error {
        let path = if section.is_empty() { key.to_string() } else { format!("{section}.{key}") };
        let hint = match schema::sections() {
            Ok(sections) => hint(section, key, known, &sections),
            Err(error) => return error,
        };
        anyhow!("{}: unknown key{hint} (known here: {})", self.place(&path), known.join(", "))
    }

    /// Reads the keys of `T` out of a section's table.
    pub fn read<T: DeserializeOwned + JsonSchema>(&self, section: &str, table: &Table) -> Result<T> {
        let keys = schema::keys::<T>();
        let mut own = Table::new();
        for key in &keys {
            let Some(value) = table.get(&key.name) else { continue };
            if let Some((inner, complaint)) = schema::complaint(&key.schema, value) {
                let path = if inner.is_empty() { key.name.clone() } else { format!("{}.{inner}", key.name) };
                bail!("{}: {complaint}", self.place(&format!("{section}.{path}")));
            }
            own.insert(key.name.clone(), value.clone());
        }
        if let Some(missing) = keys.iter().find(|key| key.required && !own.contains_key(&key.name)) {
            bail!("{}: `{section}.{}` is missing: {}", self.place(section), missing.name, missing.about());
        }
        // What the schema lets pass and serde does not, if there is any such thing.
        serde_path_to_error::deserialize(Value::Table(own)).map_err(|error| {
            let path = match error.path().to_string() {
                path if path == "." => section.to_string(),
                path => format!("{section}.{path}"),
            };
            let message = error.into_inner().message().to_string();
            anyhow!("{}: {message}", self.place(&path))
        })
    }

    /// Refuses keys of `section` that are not among the known.
    pub fn check_keys(&self, section: &str, table: &Table, known: &[String]) -> Result<()> {
        match table.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(self.unknown(section, key, known)),
            None => Ok(()),
        }
    }
}

/// At most 60 characters of a line.
pub fn excerpt(line: &str) -> String {
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into(),
    }
}

/// "; here it is called …", "; did you mean …?", or nothing.
fn hint(section: &str, key: &str, known: &[String], sections: &[Section]) -> String {
    let key = &key.to_lowercase().replace('-', "_");
    if let Some(foreign) = foreign::meaning(key) {
        return translated(section, foreign, known, sections);
    }
    // A key of ours, in the wrong place.
    let base = |path: &str| path.split('.').next().unwrap_or_default().to_string();
    let has = |section: &&Section| section.keys.iter().any(|other| other.name == *key);
    let elsewhere: Vec<&Section> = sections.iter().filter(has).collect();
    if let Some(other) = elsewhere.iter().find(|other| base(other.name) == base(section)) {
        return wrong_kind(other, key);
    }
    if !elsewhere.is_empty() {
        let mut places: Vec<String> =
            elsewhere.iter().map(|other| format!("`{}.{key}`", other.path())).collect();
        places.dedup();
        return format!("; it belongs elsewhere: {}", places.join(" or "));
    }
    let (near, likeness) = nearest_of(key, known.iter().map(String::as_str)).unwrap_or_default();
    // What is nearly another library's name, or nearly a key of another section.
    let all = sections.iter().flat_map(|other| other.keys.iter().map(|key| key.name.as_str()));
    let names = foreign::NAMES.iter().map(|(name, _)| *name).chain(all);
    match nearest_of(key, names).filter(|(_, other)| *other > 0.92 && *other > likeness) {
        Some((name, _)) if !known.iter().any(|known| known == name) => hint(section, name, known, sections),
        _ if near.is_empty() => String::new(),
        _ => format!("; did you mean `{near}`?"),
    }
}

/// A foreign name's meaning, seen from `section`.
fn translated(section: &str, foreign: Foreign, known: &[String], sections: &[Section]) -> String {
    let (key, differs) = match foreign {
        Foreign::Key(key) => (key, String::new()),
        Foreign::Differs(key, how) => (key, format!(", {how}")),
        Foreign::Not(why) => return format!("; {why}"),
    };
    let last = key.rsplit('.').next().unwrap_or(key);
    // Of the same section first: `gamma` in [signal.task] is that signal's own discount.
    if known.iter().any(|known| known == last) && !section.is_empty() {
        return format!("; here it is called `{section}.{last}`{differs}");
    }
    let kind =
        sections.iter().find(|other| other.name == section && other.keys.iter().any(|k| k.name == last));
    match kind {
        Some(other) => wrong_kind(other, last),
        None => format!("; here it is called `{key}`{differs}"),
    }
}

/// A key that the section has if it is of another kind.
fn wrong_kind(other: &Section, key: &str) -> String {
    match (other.name, other.kind) {
        (SIGNAL, Some(kind)) => format!("; signals of kind = \"{kind}\" have it"),
        (_, Some(kind)) => format!("; `{}.{key}` goes with kind = \"{kind}\"", other.path()),
        (_, None) => format!("; it belongs elsewhere: `{}.{key}`", other.path()),
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
