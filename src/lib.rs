//! What every agent shares: rollouts, networks, reward signals, the adversarial core, runs.

#[cfg(test)]
mod allocations;
pub mod generative;
pub mod memory;
pub mod nn;
mod random;
pub mod rollout;
pub mod run;
pub mod signal;

pub use random::Stream;
pub use run::{Error, Result};
