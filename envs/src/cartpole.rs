//! Balancing a pole on a cart: Gymnasium's `CartPole-v1` and `CartPole-v0`.

use crate::arguments::Arguments;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const GRAVITY: f64 = 9.8;
const MASS_POLE: f64 = 0.1;
const TOTAL_MASS: f64 = MASS_POLE + 1.0;
/// Half the pole's length, metres.
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = MASS_POLE * LENGTH;
/// Newtons, to the left or to the right.
const FORCE: f64 = 10.0;
/// Seconds between two states.
const TAU: f64 = 0.02;
/// Metres from the centre at which the cart has left the track.
pub(crate) const X_LIMIT: f64 = 2.4;
/// Radians (12°) from upright at which the pole counts as fallen.
pub(crate) const ANGLE_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;

/// The state after one Euler step, in the operation order of Gymnasium's source. `action` 1 pushes right,
/// everything else left.
pub(crate) fn advance([x, x_dot, theta, theta_dot]: [f64; 4], action: i64) -> [f64; 4] {
    debug_assert!((0..2).contains(&action), "CartPole has actions 0 and 1, not {action}");
    let force = if action == 1 { FORCE } else { -FORCE };
    let (sin, cos) = (theta.sin(), theta.cos());
    let temp = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS;
    let theta_acc =
        (GRAVITY * sin - cos * temp) / (LENGTH * (4.0 / 3.0 - MASS_POLE * (cos * cos) / TOTAL_MASS));
    let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;
    [x + TAU * x_dot, x_dot + TAU * x_acc, theta + TAU * theta_dot, theta_dot + TAU * theta_acc]
}

/// The state an episode with this seed starts in: each value uniform in `-0.05 .. 0.05`.
pub(crate) fn initial(seed: u64) -> [f64; 4] {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    std::array::from_fn(|_| rng.random_range(-0.05..0.05))
}

/// Writes the state as 32-bit floats.
pub(crate) fn observe(state: &[f64; 4], mut observation: LeafMut) {
    for (to, from) in observation.f32().iter_mut().zip(state) {
        *to = *from as f32;
    }
}

/// The cart on its track with the pole, from the left limit to the right one.
pub(crate) fn picture([x, _, theta, _]: &[f64; 4]) -> Frame {
    const WIDTH: usize = 240;
    const GROUND: f64 = 100.0;
    let scale = WIDTH as f64 / (2.0 * X_LIMIT);
    let mut frame = Frame::filled(WIDTH, 120, [248; 3]);
    let cart = [(x + X_LIMIT) * scale, GROUND];
    let end = [cart[0] + 2.0 * LENGTH * scale * theta.sin(), cart[1] - 2.0 * LENGTH * scale * theta.cos()];
    frame.line([0.0, GROUND], [WIDTH as f64, GROUND], 1.0, [120; 3]);
    frame.line([cart[0] - 10.0, GROUND], [cart[0] + 10.0, GROUND], 14.0, [52, 64, 84]);
    frame.line(cart, end, 5.0, [214, 120, 40]);
    frame.line(cart, cart, 4.0, [248; 3]);
    frame
}

/// The observation space whose bounds are `±high`, rounded to 32 bits as in Gymnasium.
pub(crate) fn symmetric(high: &[f64]) -> Space {
    let high: Vec<f64> = high.iter().map(|&x| f64::from(x as f32)).collect();
    Space::Box {
        shape: vec![high.len()],
        dtype: crate::space::Dtype::F32,
        low: high.iter().map(|x| -x).collect(),
        high,
    }
}

/// `CartPole-v1` with the dynamics of Gymnasium 1.4, computed in 64 bits. Without its limit of 500 steps,
/// which [`TimeLimit`](crate::TimeLimit) adds; `CartPole-v0` is the same with a limit of 200.
///
/// - Observation: `[4]` floats: cart position (metres), its velocity, pole angle (radians, 0 is upright), its
///   velocity.
/// - Action: 0 pushes the cart left, 1 right, with 10 N for 0.02 s.
/// - Reward: 1 each step, the terminating one included; with `sutton_barto_reward` 0, and −1 for the
///   terminating one.
/// - Terminates beyond ±2.4 m or ±12°. The step after that is undefined, as in Gymnasium: reset first.
/// - Starts with every value uniform in ±0.05. The numbers come from another generator than NumPy's: the same
///   seed gives another start than in Python.
#[derive(Clone, Debug)]
pub struct CartPole {
    /// Position (m), velocity (m/s), angle (rad), angular velocity (rad/s).
    pub state: [f64; 4],
    id: &'static str,
    sutton_barto_reward: bool,
    observation: Space,
    action: Space,
}

impl CartPole {
    /// The name in the registry.
    pub const ID: &str = "CartPole-v1";
    /// The name under which its episodes have 200 steps, as in the GAIL paper.
    pub const V0_ID: &str = "CartPole-v0";

    /// An upright, motionless pole; `reset` starts an episode.
    pub fn new(sutton_barto_reward: bool) -> Self {
        Self {
            state: [0.0; 4],
            id: Self::ID,
            sutton_barto_reward,
            observation: symmetric(&[2.0 * X_LIMIT, f64::INFINITY, 2.0 * ANGLE_LIMIT, f64::INFINITY]),
            action: Space::discrete(2),
        }
    }

    /// From recipe arguments: `sutton_barto_reward` (bool, default `false`).
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        Self::named(Self::ID, args)
    }

    /// The same under its older name.
    pub fn v0_from_args(args: &toml::Table) -> Result<Self> {
        Self::named(Self::V0_ID, args)
    }

    fn named(id: &'static str, args: &toml::Table) -> Result<Self> {
        let args = Arguments::new(id, args, &["sutton_barto_reward"])?;
        Ok(Self { id, ..Self::new(args.flag("sutton_barto_reward", false)?) })
    }
}

impl Env for CartPole {
    fn id(&self) -> &str {
        self.id
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
        observe(&self.state, observation);
        let [x, _, theta, _] = self.state;
        let terminated = !(-X_LIMIT..=X_LIMIT).contains(&x) || !(-ANGLE_LIMIT..=ANGLE_LIMIT).contains(&theta);
        let reward = match (self.sutton_barto_reward, terminated) {
            (false, _) => 1.0,
            (true, false) => 0.0,
            (true, true) => -1.0,
        };
        Ok(Step { reward, terminated, truncated: false })
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        Ok(Some(picture(&self.state)))
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode(self.state))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.state = state::decode(self.id, state)?;
        Ok(())
    }
}
