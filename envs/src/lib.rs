//! Environments: the traits, native ones, and any Gymnasium one through Python.
//!
//! Nothing here knows of tensors or of learning.
//!
//! A [`Registry`] makes environments by name; [`Env`] is one of them, [`VecEnv`] a group stepped together.

mod acrobot;
mod arguments;
mod cartpole;
pub mod check;
mod env;
mod error;
pub mod extras;
mod fields;
mod floor_plan;
mod frame;
mod games;
mod guard;
mod gymnasium;
mod gymnasium_vector;
mod mountain_car;
mod mountain_car_continuous;
mod mujoco;
mod orchard;
mod pendulum;
pub mod python;
mod python_reward;
mod python_space;
mod python_state;
mod registering;
mod registry;
mod rooms;
mod row;
mod seals_cartpole;
mod space;
mod state;
mod time_limit;
mod tmaze;
pub mod wrappers;

pub use acrobot::{Acrobot, AcrobotVersion};
pub use arguments::Arguments;
pub use cartpole::CartPole;
pub use check::check;
pub use env::{Each, Env, EnvSpec, Step, VecEnv};
pub use error::{Error, Result};
pub use fields::{Field, Fields};
pub use floor_plan::FloorPlan;
pub use frame::Frame;
pub use gymnasium::Gymnasium;
pub use gymnasium_vector::GymnasiumVector;
pub use mountain_car::MountainCar;
pub use mountain_car_continuous::MountainCarContinuous;
pub use mujoco::{Mujoco, ROBOTS, Robot};
pub use orchard::{Orchard, OrchardConfig};
pub use pendulum::Pendulum;
pub use python_reward::{PythonReward, RolloutView};
pub use registry::Registry;
pub use rooms::{Rooms, RoomsConfig, Start};
pub use row::{Fault, Finals, Row, RowBuf};
pub use seals_cartpole::SealsCartPole;
pub use space::{Dtype, Leaf, LeafBuf, LeafMut, Space};
pub use time_limit::TimeLimit;
pub use tmaze::TMaze;
