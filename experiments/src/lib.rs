//! The program `imago` as a library, so that a binary of twenty lines can add environments and reward signals.

mod nearest;
mod recipe;

pub use recipe::Recipe;
