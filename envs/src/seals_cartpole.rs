//! CartPole with a fixed horizon: `seals/CartPole-v0`, the task imitation results are reported on.

use crate::arguments::Arguments;
use crate::cartpole::{ANGLE_LIMIT, X_LIMIT, advance, initial, observe, picture, symmetric};
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use std::f64::consts::PI;

/// `seals/CartPole-v0` of the seals package 0.2.1: the physics of [`CartPole`](crate::CartPole), but episodes
/// never terminate, so that their length tells an imitator nothing. [`TimeLimit`](crate::TimeLimit) truncates
/// at 500 steps.
///
/// - Observation: `[4]` floats as in CartPole; the angle is wrapped into `[-π, π)`.
/// - Action: 0 pushes the cart left, 1 right.
/// - Reward: 1 while the cart is within ±2.4 m and the pole within ±12°, else 0; both can come back.
#[derive(Clone, Debug)]
pub struct SealsCartPole {
    /// Position (m), velocity (m/s), angle (rad), angular velocity (rad/s).
    pub state: [f64; 4],
    observation: Space,
    action: Space,
}

impl Default for SealsCartPole {
    fn default() -> Self {
        Self::new()
    }
}

impl SealsCartPole {
    /// The name in the registry.
    pub const ID: &str = "seals/CartPole-v0";

    /// An upright, motionless pole; `reset` starts an episode.
    pub fn new() -> Self {
        let any = f64::from(f32::MAX);
        Self { state: [0.0; 4], observation: symmetric(&[any, any, PI, any]), action: Space::discrete(2) }
    }

    /// From recipe arguments, of which it has none.
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        Arguments::new(Self::ID, args, &[])?;
        Ok(Self::new())
    }
}

impl Env for SealsCartPole {
    fn id(&self) -> &str {
        Self::ID
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        self.state = initial(seed);
        observe(&self.state, observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        self.state = advance(self.state, action.i64()[0]);
        self.state[2] = (self.state[2] + PI).rem_euclid(2.0 * PI) - PI;
        observe(&self.state, observation);
        let [x, _, theta, _] = self.state;
        let upright = x.abs() < X_LIMIT && theta.abs() < ANGLE_LIMIT;
        Ok(Step { reward: f64::from(upright), terminated: false, truncated: false })
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        Ok(Some(picture(&self.state)))
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode(self.state))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.state = state::decode(Self::ID, state)?;
        Ok(())
    }
}
