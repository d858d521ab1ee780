//! What is varied: `--grid KEY=A,B,…` and `--seeds 0..5`, and what the runs are called.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use toml::{Table, Value};

/// More would be a slip of the keyboard.
const MAX_RUNS: usize = 10_000;

/// Names of folders are cut after so many bytes; the whole one's checksum keeps them apart.
const MAX_NAME: usize = 100;

/// A key and the values that it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// A key of recipes.
    pub key: String,
    /// Its values.
    pub values: Vec<Choice>,
}

/// One value of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// As it was given.
    pub text: String,
    /// The same however it was given: `1e-3` is `0.001`.
    pub label: String,
}

/// One combination of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// For tables: `hidden=[32, 32] learning_rate=0.001`.
    pub label: String,
    /// For folders: `hidden=32x32,learning_rate=0.001`. Empty if nothing is varied.
    pub folder: String,
    /// For the recipe: `KEY=VALUE` each.
    pub sets: Vec<String>,
}

/// Reads `--grid` flags.
///
/// # Errors
/// No `=`, no values, a value twice, a key twice.
pub fn axes(flags: &[String]) -> Result<Vec<Axis>> {
    let mut axes: Vec<Axis> = Vec::new();
    for flag in flags {
        let (key, values) = flag
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .with_context(|| format!("--grid {flag}: expected KEY=A,B,…"))?;
        let key = key.trim();
        ensure!(
            !values.trim().is_empty(),
            "--grid {key}: which values? For example --grid learner.learning_rate=1e-3,3e-4"
        );
        ensure!(key != "run.seed", "--grid run.seed: seeds have a flag of their own, --seeds 0..5");
        ensure!(
            axes.iter().all(|axis| axis.key != key),
            "--grid {key} is there twice; give all its values at once, separated by commas"
        );
        let mut known = BTreeSet::new();
        let mut choices = Vec::new();
        for text in split(values) {
            ensure!(!text.is_empty(), "--grid {key}: there is nothing between two commas of `{values}`");
            let label = label(&parse(text));
            ensure!(known.insert(label.clone()), "--grid {key}: `{label}` is there twice");
            choices.push(Choice { text: text.into(), label });
        }
        axes.push(Axis { key: key.into(), values: choices });
    }
    Ok(axes)
}

/// Every combination; the last key varies fastest. One without a name if there are no axes.
///
/// # Errors
/// Too many of them; two that would share a folder.
pub fn combinations(axes: &[Axis]) -> Result<Vec<Combination>> {
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.values.len()));
    let count = count.filter(|&count| count <= MAX_RUNS);
    ensure!(count.is_some(), "--grid: these are more than {MAX_RUNS} combinations");
    let names = short_names(axes);
    let mut all = vec![Combination { label: String::new(), folder: String::new(), sets: Vec::new() }];
    for (axis, name) in axes.iter().zip(&names) {
        let longer = |shorter: &Combination, choice: &Choice| {
            let [space, comma] = if shorter.sets.is_empty() { ["", ""] } else { [" ", ","] };
            let mut sets = shorter.sets.clone();
            sets.push(format!("{}={}", axis.key, choice.text));
            Combination {
                label: format!("{}{space}{name}={}", shorter.label, choice.label),
                folder: format!("{}{comma}{name}={}", shorter.folder, for_folders(&choice.label)),
                sets,
            }
        };
        all = all
            .iter()
            .flat_map(|shorter| axis.values.iter().map(move |choice| longer(shorter, choice)))
            .collect();
    }
    for combination in &mut all {
        cut(&mut combination.folder);
    }
    let mut folders = std::collections::BTreeMap::new();
    for combination in &all {
        if let Some(other) = folders.insert(&combination.folder, &combination.label) {
            bail!(
                "--grid: `{other}` and `{}` would share the folder {}; sweep one after the other, each with its --to",
                combination.label,
                combination.folder
            );
        }
    }
    Ok(all)
}

/// Reads `0..5` (0 to 4) and `1,3,7`, or both mixed.
///
/// # Errors
/// Anything else; no seeds, too many, or one twice.
pub fn seeds(text: &str) -> Result<Vec<u64>> {
    let number = |part: &str| -> Result<u64> {
        // Recipes hold seeds as TOML's numbers.
        part.trim().parse::<u64>().ok().filter(|&seed| i64::try_from(seed).is_ok()).with_context(|| {
            format!("--seeds {text}: `{part}` is no seed; expected 0..5 (seeds 0 to 4) or 1,3,7")
        })
    };
    let mut seeds = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => seeds.push(number(part)?),
            Some((from, to)) => {
                let (from, to) = (number(from)?, number(to)?);
                ensure!(from < to, "--seeds {text}: `{part}` holds no seed; the end is not part of it");
                ensure!(to - from <= MAX_RUNS as u64, "--seeds {text}: these are more than {MAX_RUNS} seeds");
                seeds.extend(from..to);
            }
        }
        ensure!(seeds.len() <= MAX_RUNS, "--seeds {text}: these are more than {MAX_RUNS} seeds");
    }
    let mut known = BTreeSet::new();
    match seeds.iter().find(|seed| !known.insert(**seed)) {
        Some(twice) => bail!("--seeds {text}: {twice} is there twice"),
        None => Ok(seeds),
    }
}

/// At commas that are in no bracket and no quotes. Trimmed.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0usize);
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') => {
                escaped = !escaped;
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
        escaped = false;
    }
    parts.push(text[from..].trim());
    parts
}

/// As `--set` reads it: TOML, or else a text.
fn parse(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("x = {text}")).ok();
    parsed.and_then(|mut table| table.remove("x")).unwrap_or(Value::String(text.into()))
}

fn label(value: &Value) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::String(text) => text.clone(),
        // The shortest that reads as the same number: 3e-4 is 0.0003, 1e-7 stays.
        Value::Float(x) => format!("{x:?}"),
        Value::Array(values) => format!("[{}]", list(values.iter().map(label).collect())),
        Value::Table(table) => {
            format!(
                "{{{}}}",
                list(table.iter().map(|(key, value)| format!("{key}={}", label(value))).collect())
            )
        }
        other => other.to_string(),
    }
}

/// The last parts of keys, or whole keys where two end alike.
fn short_names(axes: &[Axis]) -> Vec<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_string();
    let alone = |key: &str| axes.iter().filter(|axis| last(&axis.key) == last(key)).count() == 1;
    axes.iter().map(|axis| if alone(&axis.key) { last(&axis.key) } else { axis.key.clone() }).collect()
}

/// `[32, 32]` becomes `32x32`; what shells and other programs stumble over is left out.
fn for_folders(label: &str) -> String {
    let kept = label.chars().filter(|c| !"[]{}\"' ".contains(*c)).map(|c| match c {
        ',' => 'x',
        c if c.is_alphanumeric() || "._+-=".contains(c) => c,
        _ => '-',
    });
    let kept: String = kept.collect();
    if kept.is_empty() { "empty".into() } else { kept }
}

fn cut(name: &mut String) {
    if name.len() > MAX_NAME {
        let hash = format!("-{:08x}", crc32fast::hash(name.as_bytes()));
        let end = (0..=MAX_NAME - hash.len()).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
        name.truncate(end);
        name.push_str(&hash);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn grid(flags: &[&str]) -> Result<Vec<Combination>> {
        combinations(&axes(&flags.iter().map(ToString::to_string).collect::<Vec<_>>())?)
    }

    fn refused(flags: &[&str]) -> String {
        grid(flags).unwrap_err().to_string()
    }

    #[test]
    fn every_combination_once_with_readable_names() {
        let all = grid(&["policy.hidden=[32,32],[64, 64]", "learner.learning_rate=1e-3,3e-4"]).unwrap();
        let names: Vec<&str> = all.iter().map(|one| one.folder.as_str()).collect();
        assert_eq!(
            names,
            [
                "hidden=32x32,learning_rate=0.001",
                "hidden=32x32,learning_rate=0.0003",
                "hidden=64x64,learning_rate=0.001",
                "hidden=64x64,learning_rate=0.0003",
            ]
        );
        assert_eq!(all[3].label, "hidden=[64, 64] learning_rate=0.0003");
        assert_eq!(all[3].sets, ["policy.hidden=[64, 64]", "learner.learning_rate=3e-4"]);
        let none = grid(&[]).unwrap();
        assert_eq!((none.len(), none[0].folder.as_str()), (1, ""));
    }

    #[test]
    fn commas_within_values_do_not_part_them() {
        let all = grid(&[r#"signal.task.weight={from=1,to=0},2,"a,\"b,c""#, "env.id=gym:a/B-v1"]).unwrap();
        let labels: Vec<&str> = all.iter().map(|one| one.label.as_str()).collect();
        assert_eq!(
            labels,
            ["weight={from=1, to=0} id=gym:a/B-v1", "weight=2 id=gym:a/B-v1", "weight=a,\"b,c id=gym:a/B-v1"]
        );
        assert_eq!(all[0].folder, "weight=from=1xto=0,id=gym-a-B-v1");
    }

    #[test]
    fn keys_that_end_alike_are_written_out() {
        let all = grid(&["learner.learning_rate=1e-3", "signal.gail.learning_rate=1e-4", "policy.hidden=[]"])
            .unwrap();
        assert_eq!(
            all[0].folder,
            "learner.learning_rate=0.001,signal.gail.learning_rate=0.0001,hidden=empty"
        );
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let values: Vec<String> = (0..2).map(|i| format!("[{}{i}]", "1234567890, ".repeat(20))).collect();
        let all = grid(&[&format!("policy.hidden={}", values.join(","))]).unwrap();
        assert!(all.iter().all(|one| one.folder.len() == MAX_NAME), "{all:?}");
        assert_ne!(all[0].folder, all[1].folder);
    }

    #[test]
    fn what_is_no_grid() {
        let refusals = [
            (vec!["policy.hidden"], "expected KEY=A,B"),
            (vec!["=3"], "expected KEY=A,B"),
            (vec!["policy.hidden="], "which values?"),
            (vec!["a.b=1,,2"], "nothing between two commas"),
            (vec!["a.b=1e-3,0.001"], "`0.001` is there twice"),
            (vec!["a.b=1", "a.b=2"], "--grid a.b is there twice"),
            (vec!["a.b=x/y,x-y"], "would share the folder b=x-y"),
            (vec!["run.seed=1,2"], "--seeds 0..5"),
        ];
        for (flags, words) in refusals {
            let said = refused(&flags);
            assert!(said.contains(words), "{flags:?}: {said}");
        }
        let many: Vec<String> = (0..3)
            .map(|i| format!("a.k{i}={}", (0..30).map(|x| x.to_string()).collect::<Vec<_>>().join(",")))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(refused(&many).contains("more than 10000 combinations"));
    }

    #[test]
    fn seeds_are_ranges_and_lists() {
        assert_eq!(seeds("0..5").unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(seeds("1,3,7").unwrap(), [1, 3, 7]);
        assert_eq!(seeds("7, 0..2").unwrap(), [7, 0, 1]);
        let refusals = [
            ("", "is no seed"),
            ("5..5", "holds no seed"),
            ("5..1", "holds no seed"),
            ("0..=4", "`=4` is no seed"),
            ("-1", "is no seed"),
            ("0..3,2", "2 is there twice"),
            ("0..1000000000", "more than 10000"),
            ("18446744073709551615", "is no seed"),
        ];
        for (text, words) in refusals {
            let said = seeds(text).unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
