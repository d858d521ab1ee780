//! Rocking a weak car out of a valley with a stepless motor: Gymnasium's `MountainCarContinuous-v0`.

use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::mountain_car::{GRAVITY, MAX_POSITION, MAX_SPEED, MIN_POSITION, goal_velocity, initial, track};
use crate::space::{Leaf, LeafMut, Space};
use crate::state;

/// Change of velocity in one step at full power.
const POWER: f32 = 0.0015;
const GOAL_POSITION: f32 = 0.45;

/// `MountainCarContinuous-v0` with the dynamics of Gymnasium 1.4, which keeps its state in 32 bits and computes
/// only the slope in 64. Without its limit of 999 steps, which [`TimeLimit`](crate::TimeLimit) adds.
///
/// - Observation: `[2]` floats: position (−1.2 to 0.6; the bottom is at −π/6), velocity per step (±0.07).
/// - Action: `[1]` float: power, clipped to ±1.
/// - Reward: `-0.1 power²`, of the power before clipping, and 100 more on arriving.
/// - Terminates at position 0.45 with at least `goal_velocity`.
/// - Starts at rest in −0.6 to −0.4. The same seed gives another start than in Python.
#[derive(Clone, Debug)]
pub struct MountainCarContinuous {
    /// Position, velocity.
    pub state: [f32; 2],
    goal_velocity: f32,
    observation: Space,
    action: Space,
}

impl MountainCarContinuous {
    /// The name in the registry.
    pub const ID: &str = "MountainCarContinuous-v0";

    /// A car at rest; `reset` starts an episode. It must pass the flag with `goal_velocity` (0 in Gymnasium).
    pub fn new(goal_velocity: f64) -> Self {
        Self {
            state: [0.0; 2],
            goal_velocity: goal_velocity as f32,
            observation: track(),
            action: Space::floats(&[1], -1.0, 1.0),
        }
    }

    /// From recipe arguments: `goal_velocity` (per step, default 0).
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        Ok(Self::new(goal_velocity(Self::ID, args)?))
    }

    fn observe(&self, mut observation: LeafMut) {
        observation.f32().copy_from_slice(&self.state);
    }
}

impl Env for MountainCarContinuous {
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
        self.state = [initial(seed) as f32, 0.0];
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        const SPEED: f32 = MAX_SPEED as f32;
        const WALL: f32 = MIN_POSITION as f32;
        let [position, velocity] = self.state;
        let power = action.f32()[0];
        let slope = GRAVITY * f64::from(3.0 * position).cos();
        let change = power.clamp(-1.0, 1.0) * POWER - slope as f32;
        let velocity = (velocity + change).clamp(-SPEED, SPEED);
        let position = (position + velocity).clamp(WALL, MAX_POSITION as f32);
        let velocity = if position == WALL && velocity < 0.0 { 0.0 } else { velocity };
        self.state = [position, velocity];
        self.observe(observation);
        let terminated = position >= GOAL_POSITION && velocity >= self.goal_velocity;
        let prize = if terminated { 100.0 } else { 0.0 };
        let reward = prize - f64::from(power) * f64::from(power) * 0.1;
        Ok(Step { reward, terminated, truncated: false })
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode(self.state.map(f64::from)))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let wide: [f64; 2] = state::decode(Self::ID, state)?;
        let state = wide.map(|x| x as f32);
        if state.map(f64::from) != wide {
            let message = format!("the saved state {wide:?} is not of 32-bit floats");
            return Err(Error::CannotRestore { id: Self::ID.into(), message });
        }
        self.state = state;
        Ok(())
    }
}
