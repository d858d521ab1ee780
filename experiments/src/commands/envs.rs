//! `imago envs`: what there is to act in.

use crate::problem::{Done, Outcome};
use crate::program::{Program, Shared};
use clap::{Args, Subcommand};

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
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    let (None | Some(Command::List)) = &arguments.command;
    if shared.json {
        let all: Vec<_> = program
            .envs
            .ids()
            .map(|(id, description)| serde_json::json!({"id": id, "about": description}))
            .collect();
        println!("{}", serde_json::Value::from(all));
    } else {
        for (id, description) in program.envs.ids() {
            println!("{id:<20} {description}");
        }
        println!("{:<20} any registered Gymnasium environment, e.g. gym:Acrobot-v1", "gym:ID");
    }
    Ok(Done::Finished)
}
