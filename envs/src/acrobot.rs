//! Swinging up two linked rods by a motor between them: Gymnasium's `Acrobot-v1`, and `Acrobot-v0` before it.

use crate::arguments::Arguments;
use crate::cartpole::symmetric;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::PI;

/// Metres.
const LENGTH_1: f64 = 1.0;
/// Metres from a rod's joint to its centre of mass.
const CENTRE_1: f64 = 0.5;
const CENTRE_2: f64 = 0.5;
/// Kilograms.
const MASS_1: f64 = 1.0;
const MASS_2: f64 = 1.0;
/// Moment of inertia of each rod, kg·m².
const INERTIA: f64 = 1.0;
const GRAVITY: f64 = 9.8;
/// Radians per second.
const MAX_SPEED_1: f64 = 4.0 * PI;
const MAX_SPEED_2: f64 = 9.0 * PI;
/// Seconds between two states.
const DT: f64 = 0.2;

/// What an observation shows of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcrobotVersion {
    /// Both angles as they are, with the jump at ±π: the version of the GAIL paper.
    V0,
    /// Cosine and sine of both angles.
    V1,
}

/// `Acrobot-v1` with the dynamics of Gymnasium 1.4 ("book" equations, one Runge-Kutta step of 0.2 s), computed
/// in 64 bits, or `Acrobot-v0`, which differs in its observation. Without their limits of 500 and 200 steps,
/// which [`TimeLimit`](crate::TimeLimit) adds.
///
/// - Observation, v1: `[6]` floats: cosine and sine of the first rod's angle (0 hangs down), cosine and sine of
///   the second's against the first, both angular velocities (rad/s, ±4π and ±9π). v0: `[4]` floats: both
///   angles (radians, ±π), both velocities.
/// - Action: torque of −1, 0 or 1 N·m on the joint between the rods.
/// - Reward: −1 each step, 0 for the arriving one.
/// - Terminates when the free end is more than a rod's length above the fixed one.
/// - Starts with every value uniform in ±0.1. The same seed gives another start than in Python.
#[derive(Clone, Debug)]
pub struct Acrobot {
    /// Angle of the first rod, of the second against it (rad, ±π), their velocities (rad/s).
    pub state: [f64; 4],
    version: AcrobotVersion,
    observation: Space,
    action: Space,
}

impl Acrobot {
    /// Hanging at rest; `reset` starts an episode.
    pub fn new(version: AcrobotVersion) -> Self {
        let observation = match version {
            AcrobotVersion::V0 => symmetric(&[PI, PI, MAX_SPEED_1, MAX_SPEED_2]),
            AcrobotVersion::V1 => symmetric(&[1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2]),
        };
        Self { state: [0.0; 4], version, observation, action: Space::discrete(3) }
    }

    /// From recipe arguments, of which it has none.
    pub fn from_args(version: AcrobotVersion, args: &toml::Table) -> Result<Self> {
        Arguments::new(Self::id_of(version), args, &[])?;
        Ok(Self::new(version))
    }

    /// The name in the registry.
    pub const fn id_of(version: AcrobotVersion) -> &'static str {
        match version {
            AcrobotVersion::V0 => "Acrobot-v0",
            AcrobotVersion::V1 => "Acrobot-v1",
        }
    }

    fn observe(&self, mut observation: LeafMut) {
        let [theta_1, theta_2, speed_1, speed_2] = self.state;
        let observation = observation.f32();
        match self.version {
            AcrobotVersion::V0 => observation.copy_from_slice(&self.state.map(|x| x as f32)),
            AcrobotVersion::V1 => {
                let ((sin_1, cos_1), (sin_2, cos_2)) = (theta_1.sin_cos(), theta_2.sin_cos());
                let values = [cos_1, sin_1, cos_2, sin_2, speed_1, speed_2];
                observation.copy_from_slice(&values.map(|x| x as f32));
            }
        }
    }
}

/// Change of the state per second under `torque`, in the operation order of Gymnasium's source.
fn derivative([theta_1, theta_2, speed_1, speed_2]: [f64; 4], torque: f64) -> [f64; 4] {
    let (sin_2, cos_2) = theta_2.sin_cos();
    let d1 = MASS_1 * (CENTRE_1 * CENTRE_1)
        + MASS_2 * (LENGTH_1 * LENGTH_1 + CENTRE_2 * CENTRE_2 + 2.0 * LENGTH_1 * CENTRE_2 * cos_2)
        + INERTIA
        + INERTIA;
    let d2 = MASS_2 * (CENTRE_2 * CENTRE_2 + LENGTH_1 * CENTRE_2 * cos_2) + INERTIA;
    let phi_2 = MASS_2 * CENTRE_2 * GRAVITY * (theta_1 + theta_2 - PI / 2.0).cos();
    let phi_1 = -MASS_2 * LENGTH_1 * CENTRE_2 * (speed_2 * speed_2) * sin_2
        - 2.0 * MASS_2 * LENGTH_1 * CENTRE_2 * speed_2 * speed_1 * sin_2
        + (MASS_1 * CENTRE_1 + MASS_2 * LENGTH_1) * GRAVITY * (theta_1 - PI / 2.0).cos()
        + phi_2;
    let acceleration_2 =
        (torque + d2 / d1 * phi_1 - MASS_2 * LENGTH_1 * CENTRE_2 * (speed_1 * speed_1) * sin_2 - phi_2)
            / (MASS_2 * (CENTRE_2 * CENTRE_2) + INERTIA - d2 * d2 / d1);
    let acceleration_1 = -(d2 * acceleration_2 + phi_1) / d1;
    [speed_1, speed_2, acceleration_1, acceleration_2]
}

/// The state after one classical Runge-Kutta step; angles and velocities unbounded.
fn runge_kutta(state: [f64; 4], torque: f64) -> [f64; 4] {
    let ahead = |k: &[f64; 4], dt: f64| std::array::from_fn(|i| state[i] + dt * k[i]);
    let k1 = derivative(state, torque);
    let k2 = derivative(ahead(&k1, DT / 2.0), torque);
    let k3 = derivative(ahead(&k2, DT / 2.0), torque);
    let k4 = derivative(ahead(&k3, DT), torque);
    std::array::from_fn(|i| state[i] + DT / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// `angle` in ±π; one that is there already is not touched.
fn wrap(angle: f64) -> f64 {
    let turns = ((angle.abs() - PI) / (2.0 * PI)).ceil().max(0.0);
    angle - turns * (2.0 * PI).copysign(angle)
}

impl Env for Acrobot {
    fn id(&self) -> &str {
        Self::id_of(self.version)
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Gymnasium rounds the first state, and that one alone, to 32 bits.
        self.state = std::array::from_fn(|_| f64::from(rng.random_range(-0.1..0.1) as f32));
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let torque = (action.i64()[0] - 1) as f64;
        let [theta_1, theta_2, speed_1, speed_2] = runge_kutta(self.state, torque);
        self.state = [
            wrap(theta_1),
            wrap(theta_2),
            speed_1.clamp(-MAX_SPEED_1, MAX_SPEED_1),
            speed_2.clamp(-MAX_SPEED_2, MAX_SPEED_2),
        ];
        self.observe(observation);
        let [theta_1, theta_2, ..] = self.state;
        let terminated = -theta_1.cos() - (theta_2 + theta_1).cos() > 1.0;
        Ok(Step { reward: if terminated { 0.0 } else { -1.0 }, terminated, truncated: false })
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode(self.state))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.state = state::decode(self.id(), state)?;
        Ok(())
    }
}
