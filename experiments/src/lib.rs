//! The program `imago` as a library, so that a binary of twenty lines can add environments and reward signals.

mod assemble;
mod catalogue;
mod commands;
mod compare;
mod face_arithmetic;
mod fetching;
mod first_look;
mod foreign;
mod frames;
mod gif_file;
mod image_sets;
mod nearest;
mod plot;
mod problem;
mod processes;
mod program;
mod readers;
mod recipe;
mod runs;
mod schema;
pub mod statistics;
mod strict;
mod study;
pub mod sweep;
mod terminal;

pub use program::{Program, SignalContext};
#[doc(hidden)] // for tests/fuzz
pub use recipe::Recipe;
