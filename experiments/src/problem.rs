//! How a command ends: exit codes and the one message on the way out.

use anyhow::anyhow;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

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

/// Where the last panic happened, for its message.
static PANICKED_AT: Mutex<String> = Mutex::new(String::new());

/// Runs a command; a panic, whether of ours or of a user's environment or signal, becomes one clear message.
/// (Panics in rollout threads become errors where they happen.)
pub fn contain_panics(command: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
        tracing::debug!("panic{place}: {info}\n{}", std::backtrace::Backtrace::force_capture());
        *PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
    std::panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // libtorch appends its C++ stack.
        let first = text.lines().next().unwrap_or_default();
        Err(failed(anyhow!(
            "a panic: {first}{place}; checkpoints written so far are whole (IMAGO_LOG=debug shows where it came \
             from)"
        )))
    })
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
