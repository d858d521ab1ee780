//! Swinging up a pendulum: Gymnasium's `Pendulum-v1`.

use crate::arguments::Arguments;
use crate::cartpole::symmetric;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::PI;

/// Radians per second.
const MAX_SPEED: f64 = 8.0;
/// Newton metres.
const MAX_TORQUE: f32 = 2.0;
/// Seconds between two states.
const DT: f64 = 0.05;

/// `Pendulum-v1` with the dynamics of Gymnasium 1.4, computed in 64 bits (the torque's own terms in 32, as
/// NumPy does). Without its limit of 200 steps, which [`TimeLimit`](crate::TimeLimit) adds.
///
/// - Observation: `[3]` floats: cosine and sine of the angle (0 is upright), angular velocity (rad/s, ±8).
/// - Action: `[1]` float: torque (N·m), clipped to ±2.
/// - Reward: `-(angle² + 0.1 velocity² + 0.001 torque²)` of the moment before the step; −16.27 to 0.
/// - Never terminates.
/// - Starts at any angle with velocity in ±1. The same seed gives another start than in Python.
#[derive(Clone, Debug)]
pub struct Pendulum {
    /// Angle (rad, not wrapped), angular velocity (rad/s).
    pub state: [f64; 2],
    gravity: f64,
    observation: Space,
    action: Space,
}

impl Pendulum {
    /// The name in the registry.
    pub const ID: &str = "Pendulum-v1";

    /// An upright, motionless pendulum under `gravity` (m/s²; Gymnasium's default is 10); `reset` starts an
    /// episode.
    pub fn new(gravity: f64) -> Self {
        Self {
            state: [0.0; 2],
            gravity,
            observation: symmetric(&[1.0, 1.0, MAX_SPEED]),
            action: Space::floats(&[1], f64::from(-MAX_TORQUE), f64::from(MAX_TORQUE)),
        }
    }

    /// From recipe arguments: `g` (gravity in m/s², default 10).
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        Ok(Self::new(Arguments::new(Self::ID, args, &["g"])?.number("g", 10.0)?))
    }

    fn observe(&self, mut observation: LeafMut) {
        let [theta, theta_dot] = self.state;
        observation.f32().copy_from_slice(&[theta.cos() as f32, theta.sin() as f32, theta_dot as f32]);
    }
}

impl Env for Pendulum {
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
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.state = [rng.random_range(-PI..PI), rng.random_range(-1.0..1.0)];
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let [theta, theta_dot] = self.state;
        let torque = action.f32()[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        let angle = (theta + PI).rem_euclid(2.0 * PI) - PI;
        let cost = angle * angle + 0.1 * (theta_dot * theta_dot) + f64::from(0.001 * (torque * torque));
        let acceleration = 3.0 * self.gravity / 2.0 * theta.sin() + f64::from(3.0 * torque);
        let theta_dot = (theta_dot + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED);
        self.state = [theta + theta_dot * DT, theta_dot];
        self.observe(observation);
        Ok(Step { reward: -cost, terminated: false, truncated: false })
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        let mut frame = Frame::filled(160, 160, [248; 3]);
        let (sin, cos) = self.state[0].sin_cos();
        frame.line([80.0, 80.0], [80.0 - 60.0 * sin, 80.0 - 60.0 * cos], 12.0, [204, 77, 77]);
        frame.line([80.0, 80.0], [80.0, 80.0], 5.0, [40; 3]);
        Ok(Some(frame))
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode(self.state))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.state = state::decode(Self::ID, state)?;
        Ok(())
    }
}
