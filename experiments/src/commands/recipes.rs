//! `imago recipes`: the built-in ones, and what a recipe may hold.

use super::check_output;
use crate::catalogue;
use crate::foreign::{self, Foreign};
use crate::nearest::nearest;
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use crate::schema::{self, Key, Section};
use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::path::PathBuf;

/// Built-in recipes.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// All of them, a line each.
    List,
    /// One of them, as it is.
    Show {
        /// Its name.
        name: String,
    },
    /// Write one to a file, to change it.
    Copy {
        /// Its name.
        name: String,
        /// The file; its name with `-` for `/` if absent.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Every key a recipe may have: type, default, meaning.
    Keys {
        /// Only this section (run, learner, signal.gail) or this key (run.seed, discount).
        section: Option<String>,
        /// All of it as a JSON Schema, for editors and for checks.
        #[arg(long, conflicts_with = "section")]
        schema: bool,
    },
}

/// Columns of text where there is no terminal to ask.
const WIDTH: u16 = 110;

/// Runs the command.
pub fn run(arguments: &Arguments, shared: &Shared) -> Outcome {
    match &arguments.command {
        None | Some(Command::List) => {
            if shared.json {
                let all: Vec<_> = catalogue::RECIPES
                    .iter()
                    .map(|(name, text)| serde_json::json!({"name": name, "about": catalogue::headline(text)}))
                    .collect();
                println!("{}", serde_json::Value::from(all));
            } else {
                for (name, text) in catalogue::RECIPES {
                    println!("{name:<16} {}", catalogue::headline(text));
                }
            }
        }
        Some(Command::Show { name }) => print!("{}", catalogue::recipe(name)?),
        Some(Command::Copy { name, to }) => {
            let text = catalogue::recipe(name)?;
            let to = to.clone().unwrap_or_else(|| format!("{}.toml", name.replace('/', "-")).into());
            check_output(&to, shared.force)?;
            std::fs::write(&to, text).map_err(failed)?;
            println!("{}; train it with: imago train {}", to.display(), to.display());
        }
        Some(Command::Keys { schema: true, .. }) => {
            println!("{}", serde_json::to_string_pretty(&schema::json_schema()?)?);
        }
        Some(Command::Keys { section, .. }) => {
            let chosen = choose(schema::sections()?, section.as_deref())?;
            if shared.json {
                println!("{}", as_json(&chosen));
            } else {
                print!(
                    "{}",
                    as_text(&chosen, terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0))
                );
            }
        }
    }
    Ok(Done::Finished)
}

/// The sections, or the keys of them, that `wanted` names.
fn choose(mut sections: Vec<Section>, wanted: Option<&str>) -> Result<Vec<Section>> {
    let Some(wanted) = wanted.map(|wanted| wanted.trim_matches(['[', ']'])) else { return Ok(sections) };
    let base = |section: &Section| section.name.split('.').next().unwrap_or_default().to_string();
    let names = |section: &Section| {
        let kind = section.kind.map(|kind| format!("{}.{kind}", base(section)));
        [Some(section.path()), kind, Some(base(section))].into_iter().flatten().collect::<Vec<_>>()
    };
    if sections.iter().any(|section| names(section).iter().any(|name| name == wanted)) {
        sections.retain(|section| names(section).iter().any(|name| name == wanted));
        return Ok(sections);
    }
    let mut known: Vec<String> = sections.iter().flat_map(names).collect();
    for section in &mut sections {
        let places = names(section);
        known.extend(
            section.keys.iter().flat_map(|key| [key.name.clone(), format!("{}.{}", places[0], key.name)]),
        );
        section.keys.retain(|key| {
            key.name == wanted || places.iter().any(|place| format!("{place}.{}", key.name) == wanted)
        });
    }
    sections.retain(|section| !section.keys.is_empty());
    if !sections.is_empty() {
        return Ok(sections);
    }
    let hint = match foreign::meaning(wanted.rsplit('.').next().unwrap_or(wanted)) {
        Some(Foreign::Key(key)) => format!("; here it is called `{key}`"),
        Some(Foreign::Differs(key, how)) => format!("; here it is called `{key}`, {how}"),
        Some(Foreign::Not(why)) => format!("; {why}"),
        None => nearest(wanted, known.iter().map(String::as_str))
            .map_or(String::new(), |near| format!("; did you mean `{near}`?")),
    };
    Err(anyhow!("recipes have no section or key `{wanted}`{hint} (`imago recipes keys` shows all)"))
}

fn as_json(sections: &[Section]) -> serde_json::Value {
    let one = |section: &Section, key: &Key| {
        serde_json::json!({
            "section": section.name,
            "kind": section.kind,
            "key": key.name,
            "type": key.kind(),
            "default": key.schema.get("default"),
            "default_in_words": key.default(),
            "about": key.about(),
        })
    };
    sections.iter().flat_map(|section| section.keys.iter().map(move |key| one(section, key))).collect()
}

fn as_text(sections: &[Section], width: u16) -> String {
    let longest = |of: fn(&Key) -> usize| {
        sections.iter().flat_map(|section| &section.keys).map(of).max().unwrap_or_default() as u16 + 2
    };
    let (names, defaults) = (longest(|key| key.name.len()), longest(|key| key.default().len()).min(24));
    let plain = |columns: &[&str]| {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width.max(60)).set_header(columns);
        table
    };
    let lines =
        |table: &Table| table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    let mut text = String::new();
    for section in sections {
        let mut table = plain(&["key", "default", "meaning"]);
        table.set_constraints([
            ColumnConstraint::Absolute(Width::Fixed(names)),
            ColumnConstraint::Absolute(Width::Fixed(defaults)),
        ]);
        for key in &section.keys {
            // Choices are listed with their meanings.
            let chosen = schema::choices(&key.schema).next().is_some() || key.schema.get("const").is_some();
            let kind = if chosen { String::new() } else { format!(" Type: {}.", key.kind()) };
            table.add_row([key.name.clone(), key.default(), key.about() + &kind]);
        }
        text += &format!("{}\n{}{}\n", section.title(), lines(&plain(&[&section.about])), lines(&table));
    }
    text
}
