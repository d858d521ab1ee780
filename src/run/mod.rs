//! A run: its directory, its one training loop, and everything it leaves behind.
//!
//! [`drive`] trains anything that implements [`Train`]. It owns the moments at which the run is
//! logged, evaluated and saved; the trainee owns what a step means. All of a run's files are
//! written so that a kill at any moment loses work but never the run.

mod atomic;
mod checkpoint;
mod directory;
mod error;
mod events;
mod log;
mod parent;
pub mod profile;
mod progress;
mod segments;
mod state;
mod stop;
pub mod tensor_file;
mod train;

pub use atomic::replace_with as write_whole;
pub use checkpoint::{Best, Checkpoints, Which};
pub use directory::Directory;
pub use error::{DumpedBatch, Error, Result};
pub use events::EventFile;
pub use log::Log;
pub use parent::end_with_parent;
pub use progress::{Progress, Stderr, screen};
pub use state::State;
pub use stop::Stop;
pub use train::{Outcome, Session, Timetable, Train, drive};

#[cfg(test)]
mod tests;
