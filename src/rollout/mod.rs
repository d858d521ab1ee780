//! From environments to batches: the record type, the collector with its workers, advantages, whole episodes.

mod advantage;
mod batch;
mod choices;
mod collect;
mod episode;
mod frames;
mod group;
mod process;
mod shared;
mod watchdog;

pub use advantage::{AdvantageInput, generalised_advantage};
pub use batch::{Batch, Ends, Lead};
pub use choices::first_row_outside;
pub use collect::{Collected, Collector, CollectorSpec};
pub use episode::{Actor, Episode, Record, leaf_tensor, random_actions, run_episodes};
pub use frames::Stacking;
pub use group::{Failure, Finished};
pub use process::{Launch, MakeGroup, serve};
pub use watchdog::watch_environments;
