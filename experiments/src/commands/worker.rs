//! A rollout worker in a process of its own: what training starts, and nobody types.

use crate::problem::{Done, Outcome};
use crate::program::Program;
use std::process::Command;

/// The name of the command.
pub const NAME: &str = "rollout-worker";

/// This program: the file that runs now, even if another one has taken its name since.
pub fn program_itself() -> Command {
    Command::new("/proc/self/exe")
}

/// The command line that starts one.
pub fn command() -> Command {
    let mut command = program_itself();
    command.arg(NAME);
    // What it would warn of its parent has said already.
    if std::env::var_os("IMAGO_LOG").is_none() {
        command.env("IMAGO_LOG", "error");
    }
    command
}

/// Steps environments for the process at the other end of standard input.
///
/// # Errors
/// Nobody is there.
pub fn run(program: &Program) -> Outcome {
    imago::rollout::serve(&|env, count| program.envs.make_group(env, count))?;
    Ok(Done::Finished)
}
