//! Gymnasium's robots on MuJoCo, stepped without Python: Hopper, HalfCheetah, Walker2d, Swimmer, InvertedPendulum (v5).

mod engine;

use crate::arguments::Arguments;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use engine::{CONTROL, EVERYTHING, POSITION, Simulation, TIME, VELOCITY};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// What distinguishes one robot from another.
#[derive(Debug)]
pub struct Robot {
    /// The name in the registry, Gymnasium's.
    pub id: &'static str,
    /// A line for lists.
    pub description: &'static str,
    /// Its model.
    xml: &'static str,
    /// Steps of the model's time for each action.
    frame_skip: u32,
    /// Its motors, and how strong they are.
    motors: usize,
    bound: f64,
    goal: Goal,
    /// The first positions, which observations leave out: a place in a world that is the same everywhere.
    hidden: usize,
    /// Observed velocities are clipped to ± this.
    clip: f64,
    /// Starts deviate by up to this from the model's own.
    noise: f64,
    /// Velocities deviate by normals of `noise`, not uniformly.
    normal_velocity: bool,
}

/// What is paid.
#[derive(Clone, Debug)]
enum Goal {
    /// 1 for each step with the pole upright.
    Balance,
    /// Speed in x, less the cost of the motors' work.
    Forward { control_cost: f64, healthy: Option<Healthy> },
}

/// What a robot is that has not fallen. It ends the episode otherwise.
#[derive(Clone, Debug)]
struct Healthy {
    /// Paid for each step in which it is.
    reward: f64,
    /// Open intervals of height and of the torso's angle, and of everything else.
    height: [f64; 2],
    angle: [f64; 2],
    state: [f64; 2],
}

const ANY: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

/// Every robot there is here. Those of Gymnasium that are not (Ant, Humanoid, Reacher, Pusher …) show forces or places that
/// only Python reads: `gym:Ant-v5`.
pub const ROBOTS: [Robot; 5] = [
    Robot {
        id: "HalfCheetah-v5",
        description: "a cheetah of two legs runs; MuJoCo, Gymnasium's v5; 1000 steps",
        xml: "half_cheetah.xml",
        frame_skip: 5,
        motors: 6,
        bound: 1.0,
        goal: Goal::Forward { control_cost: 0.1, healthy: None },
        hidden: 1,
        clip: f64::INFINITY,
        noise: 0.1,
        normal_velocity: true,
    },
    Robot {
        id: "Hopper-v5",
        description: "one leg hops; MuJoCo, Gymnasium's v5; at most 1000 steps",
        xml: "hopper.xml",
        frame_skip: 4,
        motors: 3,
        bound: 1.0,
        goal: Goal::Forward {
            control_cost: 1e-3,
            healthy: Some(Healthy {
                reward: 1.0,
                height: [0.7, f64::INFINITY],
                angle: [-0.2, 0.2],
                state: [-100.0, 100.0],
            }),
        },
        hidden: 1,
        clip: 10.0,
        noise: 5e-3,
        normal_velocity: false,
    },
    Robot {
        id: "InvertedPendulum-v5",
        description: "keep a pole upright on a cart; MuJoCo, Gymnasium's v5; at most 1000 steps",
        xml: "inverted_pendulum.xml",
        frame_skip: 2,
        motors: 1,
        bound: 3.0,
        goal: Goal::Balance,
        hidden: 0,
        clip: f64::INFINITY,
        noise: 0.01,
        normal_velocity: false,
    },
    Robot {
        id: "Swimmer-v5",
        description: "three links swim; MuJoCo, Gymnasium's v5; 1000 steps",
        xml: "swimmer.xml",
        frame_skip: 4,
        motors: 2,
        bound: 1.0,
        goal: Goal::Forward { control_cost: 1e-4, healthy: None },
        hidden: 2,
        clip: f64::INFINITY,
        noise: 0.1,
        normal_velocity: false,
    },
    Robot {
        id: "Walker2d-v5",
        description: "two legs walk; MuJoCo, Gymnasium's v5; at most 1000 steps",
        xml: "walker2d_v5.xml",
        frame_skip: 4,
        motors: 6,
        bound: 1.0,
        goal: Goal::Forward {
            control_cost: 1e-3,
            healthy: Some(Healthy { reward: 1.0, height: [0.8, 2.0], angle: [-1.0, 1.0], state: ANY }),
        },
        hidden: 1,
        clip: 10.0,
        noise: 5e-3,
        normal_velocity: false,
    },
];

/// Steps of an episode.
pub const LIMIT: u32 = 1000;

/// A robot with the dynamics of Gymnasium 1.4's v5, by the same library and the same model: the same bits from the same
/// state. Without its limit of 1,000 steps, which [`TimeLimit`](crate::TimeLimit) adds. Another start than in Python for
/// the same seed. No pictures: `imago watch RUN --env gym:Hopper-v5` shows them.
///
/// - Observation: positions (without those along which the world is the same) and velocities, `[P + V]` floats.
/// - Action: `[motors]` floats, clipped to ±1 (InvertedPendulum ±3).
/// - Reward: speed in x (Δx / Δt), less the control cost Σ a², plus 1 for not having fallen where it may fall;
///   InvertedPendulum: 1 while the pole is upright.
/// - Terminates when it falls (Hopper, Walker2d, InvertedPendulum).
pub struct Mujoco {
    robot: &'static Robot,
    goal: Goal,
    forward_weight: f64,
    ends: bool,
    noise: f64,
    hidden: usize,
    simulation: Simulation,
    /// Positions, then velocities; those of the model's beginning.
    state: Vec<f64>,
    start: Vec<f64>,
    positions: usize,
    /// Seconds between two observations.
    dt: f64,
    control: Vec<f64>,
    /// Speed in x of the last step.
    x_velocity: f64,
    observation: Space,
    action: Space,
}

impl Mujoco {
    /// A robot as Gymnasium sets it up, but for the arguments: `forward_reward_weight`, `ctrl_cost_weight`, `healthy_reward`,
    /// `terminate_when_unhealthy`, `reset_noise_scale` and `exclude_current_positions_from_observation` mean what they do
    /// there.
    ///
    /// # Errors
    /// MuJoCo is not installed; an argument that this robot does not take.
    pub fn from_args(robot: &'static Robot, args: &toml::Table) -> Result<Self> {
        let valid: &[&str] = match &robot.goal {
            Goal::Balance => &["reset_noise_scale"],
            Goal::Forward { healthy: None, .. } => &[
                "forward_reward_weight",
                "ctrl_cost_weight",
                "reset_noise_scale",
                "exclude_current_positions_from_observation",
            ],
            Goal::Forward { .. } => &[
                "forward_reward_weight",
                "ctrl_cost_weight",
                "reset_noise_scale",
                "exclude_current_positions_from_observation",
                "healthy_reward",
                "terminate_when_unhealthy",
            ],
        };
        let args = Arguments::new(robot.id, args, valid)?;
        let mut goal = robot.goal.clone();
        if let Goal::Forward { control_cost, healthy } = &mut goal {
            *control_cost = args.number("ctrl_cost_weight", *control_cost)?;
            if let Some(healthy) = healthy {
                healthy.reward = args.number("healthy_reward", healthy.reward)?;
            }
        }
        let excluded = args.flag("exclude_current_positions_from_observation", true)?;
        let simulation = Simulation::new(robot.id, robot.xml)?;
        let (positions, all) = (simulation.size(POSITION), simulation.size(POSITION | VELOCITY));
        let hidden = if excluded { robot.hidden } else { 0 };
        let mut env = Self {
            goal,
            forward_weight: args.number("forward_reward_weight", 1.0)?,
            ends: args.flag("terminate_when_unhealthy", true)?,
            noise: args.number("reset_noise_scale", robot.noise)?,
            hidden,
            state: vec![0.0; all],
            start: vec![0.0; all],
            positions,
            dt: 0.0,
            control: vec![0.0; robot.motors],
            x_velocity: 0.0,
            observation: Space::floats(&[all - hidden], f64::NEG_INFINITY, f64::INFINITY),
            action: Space::floats(&[robot.motors], -robot.bound, robot.bound),
            robot,
            simulation,
        };
        env.simulation.get(POSITION | VELOCITY, &mut env.start);
        env.dt = env.seconds_of_a_step() * f64::from(robot.frame_skip);
        Ok(env)
    }

    /// Positions and velocities, in MuJoCo's order.
    pub fn configuration(&self) -> (&[f64], &[f64]) {
        self.state.split_at(self.positions)
    }

    /// The model's own unit of time.
    fn seconds_of_a_step(&mut self) -> f64 {
        let mut time = [0.0];
        self.simulation.step(1);
        self.simulation.get(TIME, &mut time);
        self.simulation.reset();
        time[0]
    }

    fn observe(&self, mut observation: LeafMut) {
        let seen = observation.f32();
        let clip = self.robot.clip;
        for (i, (seen, &x)) in seen.iter_mut().zip(&self.state[self.hidden..]).enumerate() {
            let is_velocity = i + self.hidden >= self.positions;
            *seen = if is_velocity { x.clamp(-clip, clip) } else { x } as f32;
        }
    }

    fn is_healthy(&self, healthy: &Healthy) -> bool {
        let within = |x: f64, [low, high]: [f64; 2]| low < x && x < high;
        within(self.state[1], healthy.height)
            && within(self.state[2], healthy.angle)
            && self.state[2..].iter().all(|&x| within(x, healthy.state))
    }
}

impl Env for Mujoco {
    fn id(&self) -> &str {
        self.robot.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let noise = self.noise;
        for (i, (x, start)) in self.state.iter_mut().zip(&self.start).enumerate() {
            let deviation = match self.robot.normal_velocity && i >= self.positions {
                false => noise * (2.0 * rng.random::<f64>() - 1.0),
                // Box and Muller 1958.
                true => {
                    let (u, v) = (rng.random::<f64>(), rng.random::<f64>());
                    noise * (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
                }
            };
            *x = start + deviation;
        }
        self.simulation.reset();
        self.simulation.set(POSITION | VELOCITY, &self.state);
        self.simulation.forward();
        self.x_velocity = 0.0;
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let bound = self.robot.bound as f32;
        let mut work = 0f32;
        for (control, &action) in self.control.iter_mut().zip(action.f32()) {
            let action = action.clamp(-bound, bound);
            work += action * action;
            *control = f64::from(action);
        }
        let before = self.state[0];
        self.simulation.set(CONTROL, &self.control);
        self.simulation.step(self.robot.frame_skip);
        self.simulation.get(POSITION | VELOCITY, &mut self.state);
        self.x_velocity = (self.state[0] - before) / self.dt;
        self.observe(observation);
        let (reward, terminated) = match &self.goal {
            Goal::Balance => {
                let fallen = self.state[1].abs() > 0.2 || self.state.iter().any(|x| !x.is_finite());
                (f64::from(u8::from(!fallen)), fallen)
            }
            Goal::Forward { control_cost, healthy } => {
                // In 32 bits, as NumPy does with actions of 32 bits.
                let cost = f64::from(*control_cost as f32 * work);
                let forward = self.forward_weight * self.x_velocity;
                match healthy {
                    None => (forward - cost, false),
                    Some(healthy) => {
                        let is_healthy = self.is_healthy(healthy);
                        let paid = if is_healthy { healthy.reward } else { 0.0 };
                        (forward + paid - cost, !is_healthy && self.ends)
                    }
                }
            }
        };
        Ok(Step { reward, terminated, truncated: false })
    }

    fn info(&self, name: &str) -> Option<f64> {
        match (name, &self.goal) {
            (_, Goal::Balance) => None,
            ("x_position", _) => Some(self.state[0]),
            ("x_velocity", _) => Some(self.x_velocity),
            _ => None,
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        let mut state = vec![0.0; self.simulation.size(EVERYTHING) + 1];
        self.simulation.get(EVERYTHING, &mut state[1..]);
        state[0] = self.x_velocity;
        Some(state::encode_all(&state))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let state = state::decode_all(self.robot.id, state, self.simulation.size(EVERYTHING) + 1)?;
        self.x_velocity = state[0];
        self.simulation.set(EVERYTHING, &state[1..]);
        self.simulation.get(POSITION | VELOCITY, &mut self.state);
        Ok(())
    }
}
