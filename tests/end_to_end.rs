//! The program from the outside: what it writes, what it says, how it ends.

#![allow(clippy::unwrap_used)]

#[path = "end_to_end/bad_input.rs"]
mod bad_input;
#[path = "end_to_end/bench.rs"]
mod bench;
#[path = "end_to_end/catalogue.rs"]
mod catalogue;
#[path = "end_to_end/divergence.rs"]
mod divergence;
#[path = "end_to_end/envs_check.rs"]
mod envs_check;
#[path = "end_to_end/faults.rs"]
mod faults;
#[path = "end_to_end/gymnasium.rs"]
mod gymnasium;
#[path = "end_to_end/images.rs"]
mod images;
#[path = "end_to_end/new.rs"]
mod new;
#[path = "end_to_end/program.rs"]
mod program;
#[path = "end_to_end/python_signal.rs"]
mod python_signal;
#[path = "end_to_end/readme.rs"]
mod readme;
#[path = "end_to_end/refusals.rs"]
mod refusals;
#[path = "end_to_end/reproduce.rs"]
mod reproduce;
#[path = "end_to_end/resume.rs"]
mod resume;
#[path = "end_to_end/round_trip.rs"]
mod round_trip;
#[path = "end_to_end/spaces.rs"]
mod spaces;
#[path = "end_to_end/sweep.rs"]
mod sweep;
#[path = "end_to_end/tensorboard.rs"]
mod tensorboard;
#[path = "end_to_end/transfer.rs"]
mod transfer;
#[path = "end_to_end/watch.rs"]
mod watch;
#[path = "end_to_end/workers.rs"]
mod workers;
