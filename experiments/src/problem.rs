//! How a command ends: exit codes and the one message on the way out.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Problem {
    /// Bad input: nothing was written. Exit code 2.
    Input(anyhow::Error),
    /// Something failed on the way. Exit code 1.
    Failed(anyhow::Error),
}

/// How a command that went well ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Exit code 0.
    Finished,
    /// Stopped with a checkpoint: run it again to go on. Exit code 3.
    Stopped,
}

/// Result of a command.
pub type Outcome = Result<Done, Problem>;

/// Errors are bad input unless the library knows better: everything is checked before anything is begun.
impl<E: Into<anyhow::Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref::<imago::Error>() {
            Some(known) if !known.bad_input() => Problem::Failed(error),
            _ => Problem::Input(error),
        }
    }
}

/// Marks what fails after a command has begun its work.
pub fn failed(error: impl Into<anyhow::Error>) -> Problem {
    Problem::Failed(error.into())
}

fn complain(error: impl Display) {
    eprintln!("imago: {error}");
}

/// Prints what went wrong, if anything, and gives the exit code.
pub fn conclude(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Done::Finished) => ExitCode::SUCCESS,
        Ok(Done::Stopped) => ExitCode::from(3),
        Err(Problem::Input(error)) => {
            complain(format!("{error:#}"));
            ExitCode::from(2)
        }
        Err(Problem::Failed(error)) => {
            complain(format!("{error:#}"));
            ExitCode::from(1)
        }
    }
}
