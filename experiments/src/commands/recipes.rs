//! `imago recipes`: the built-in ones.

use super::check_output;
use crate::catalogue;
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use clap::{Args, Subcommand};
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
}

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
    }
    Ok(Done::Finished)
}
