//! Environments: the traits, native ones, and any Gymnasium one through Python.
//!
//! Nothing here knows of tensors or of learning.
//!
//! A [`Registry`] makes environments by name; [`Env`] is one of them, [`VecEnv`] a group stepped together.

mod arguments;
mod cartpole;
mod env;
mod error;
mod frame;
mod gymnasium;
mod pendulum;
pub mod python;
mod registry;
mod rooms;
mod seals_cartpole;
mod space;
mod state;
mod time_limit;

pub use arguments::Arguments;
pub use cartpole::CartPole;
pub use env::{Each, Env, EnvSpec, Finals, Row, Step, VecEnv};
pub use error::{Error, Result};
pub use frame::Frame;
pub use gymnasium::Gymnasium;
pub use pendulum::Pendulum;
pub use registry::Registry;
pub use rooms::{Rooms, RoomsConfig, Start};
pub use seals_cartpole::SealsCartPole;
pub use space::{Dtype, Leaf, LeafBuf, LeafMut, Space};
pub use time_limit::TimeLimit;
