//! Rocking a weak car out of a valley: Gymnasium's `MountainCar-v0`, and the seals package's of fixed length.

use crate::arguments::Arguments;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::space::{Dtype, Leaf, LeafMut, Space};
use crate::state;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Where the track ends: a wall on the left, the far side of the hill on the right.
pub(crate) const MIN_POSITION: f64 = -1.2;
pub(crate) const MAX_POSITION: f64 = 0.6;
/// Per step.
pub(crate) const MAX_SPEED: f64 = 0.07;
pub(crate) const GRAVITY: f64 = 0.0025;
/// Change of velocity by the motor in one step.
const FORCE: f64 = 0.001;
const GOAL_POSITION: f64 = 0.5;

/// Position and velocity, with bounds rounded to 32 bits as in Gymnasium.
pub(crate) fn track() -> Space {
    let bounds = |bounds: [f64; 2]| bounds.iter().map(|&x| f64::from(x as f32)).collect();
    Space::Box {
        shape: vec![2],
        dtype: Dtype::F32,
        low: bounds([MIN_POSITION, -MAX_SPEED]),
        high: bounds([MAX_POSITION, MAX_SPEED]),
    }
}

/// The position an episode with this seed starts at: uniform in `-0.6 .. -0.4`, around the bottom.
pub(crate) fn initial(seed: u64) -> f64 {
    ChaCha8Rng::seed_from_u64(seed).random_range(-0.6..-0.4)
}

/// `MountainCar-v0` with the dynamics of Gymnasium 1.4, computed in 64 bits, or `seals/MountainCar-v0` of the
/// seals package 0.2.1. Both without their limit of 200 steps, which [`TimeLimit`](crate::TimeLimit) adds.
///
/// - Observation: `[2]` floats: position (−1.2 to 0.6; the bottom is at −π/6), velocity per step (±0.07).
/// - Action: 0 accelerates to the left, 1 not at all, 2 to the right.
/// - Reward: −1 each step, the arriving one included.
/// - Terminates at position 0.5 with at least `goal_velocity`. The seals version does not: from then on the car
///   stays where it is and the reward is 0, so that the episode's length tells an imitator nothing.
/// - Starts at rest in −0.6 to −0.4. The same seed gives another start than in Python.
#[derive(Clone, Debug)]
pub struct MountainCar {
    /// Position, velocity.
    pub state: [f64; 2],
    goal_velocity: f64,
    fixed_length: bool,
    observation: Space,
    action: Space,
}

impl MountainCar {
    /// The name in the registry.
    pub const ID: &str = "MountainCar-v0";
    /// The name of the version whose episodes do not end at the goal.
    pub const SEALS_ID: &str = "seals/MountainCar-v0";

    /// A car at rest; `reset` starts an episode. It must pass the flag with `goal_velocity` (0 in Gymnasium).
    pub fn new(goal_velocity: f64) -> Self {
        Self {
            state: [0.0; 2],
            goal_velocity,
            fixed_length: false,
            observation: track(),
            action: Space::discrete(3),
        }
    }

    /// The seals version: the episode goes on at the goal.
    pub fn seals(goal_velocity: f64) -> Self {
        Self { fixed_length: true, ..Self::new(goal_velocity) }
    }

    /// From recipe arguments: `goal_velocity` (per step, default 0).
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        Ok(Self::new(goal_velocity(Self::ID, args)?))
    }

    /// The seals version from the same arguments.
    pub fn seals_from_args(args: &toml::Table) -> Result<Self> {
        Ok(Self::seals(goal_velocity(Self::SEALS_ID, args)?))
    }

    fn arrived(&self) -> bool {
        self.state[0] >= GOAL_POSITION && self.state[1] >= self.goal_velocity
    }

    fn observe(&self, mut observation: LeafMut) {
        observation.f32().copy_from_slice(&self.state.map(|x| x as f32));
    }
}

/// The one argument of every mountain car.
pub(crate) fn goal_velocity(id: &str, args: &toml::Table) -> Result<f64> {
    Arguments::new(id, args, &["goal_velocity"])?.number("goal_velocity", 0.0)
}

impl Env for MountainCar {
    fn id(&self) -> &str {
        if self.fixed_length { Self::SEALS_ID } else { Self::ID }
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        self.state = [initial(seed), 0.0];
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        // Only the seals version gets here at the goal.
        if self.fixed_length && self.arrived() {
            self.observe(observation);
            return Ok(Step::default());
        }
        let [position, velocity] = self.state;
        let push = (action.i64()[0] - 1) as f64 * FORCE;
        let velocity = (velocity + (push - (3.0 * position).cos() * GRAVITY)).clamp(-MAX_SPEED, MAX_SPEED);
        let position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION);
        let stopped = position == MIN_POSITION && velocity < 0.0;
        self.state = [position, if stopped { 0.0 } else { velocity }];
        self.observe(observation);
        Ok(Step { reward: -1.0, terminated: self.arrived() && !self.fixed_length, truncated: false })
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode(self.state))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.state = state::decode(self.id(), state)?;
        Ok(())
    }
}
