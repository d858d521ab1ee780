//! Native environments beside the Python ones: same states, same actions, same results.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{
    Acrobot, AcrobotVersion, CartPole, Env, Gymnasium, Leaf, LeafBuf, MountainCar, MountainCarContinuous,
    Pendulum, Registry, SealsCartPole, Space, Step, TimeLimit,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use single::{Single, spec};
use std::sync::Once;

/// Imports the originals in one thread: two that import parts of a package at once find it half made.
fn import() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        imago_envs::python::start();
        Python::attach(|py| {
            py.import("gymnasium.envs.classic_control").unwrap();
            py.import("seals").unwrap();
        });
    });
}

/// A Python environment that shows its state.
struct Reference(Py<PyAny>);

impl Reference {
    fn new(id: &str, args: &[(&str, f64)]) -> Self {
        import();
        Python::attach(|py| {
            let kwargs = PyDict::new(py);
            for (name, value) in args {
                kwargs.set_item(name, value).unwrap();
            }
            // seals's spaces warn about their precision.
            py.import("warnings").unwrap().call_method1("simplefilter", ("ignore",)).unwrap();
            let gymnasium = py.import("gymnasium").unwrap();
            Self(gymnasium.call_method("make", (id,), Some(&kwargs)).unwrap().unbind())
        })
    }

    /// With another limit of steps than its own.
    fn limited(id: &str, limit: u32) -> Self {
        import();
        Python::attach(|py| {
            let kwargs = PyDict::new(py);
            kwargs.set_item("max_episode_steps", limit).unwrap();
            let gymnasium = py.import("gymnasium").unwrap();
            Self(gymnasium.call_method("make", (id,), Some(&kwargs)).unwrap().unbind())
        })
    }

    /// Starts an episode; its observation and its 64-bit state.
    fn reset(&self, seed: u64) -> (Vec<f32>, Vec<f64>) {
        Python::attach(|py| {
            let kwargs = PyDict::new(py);
            kwargs.set_item("seed", seed).unwrap();
            let result = self.0.bind(py).call_method("reset", (), Some(&kwargs)).unwrap();
            let observation = result.get_item(0).unwrap().call_method0("tolist").unwrap().extract().unwrap();
            (observation, self.state())
        })
    }

    /// Its state: 64 bits unless the last state it made itself has 32.
    fn state(&self) -> Vec<f64> {
        Python::attach(|py| {
            let state = self.0.bind(py).getattr("unwrapped").unwrap().getattr("state").unwrap();
            state.call_method0("tolist").unwrap().extract().unwrap()
        })
    }

    fn set_state(&self, state: &[f64]) {
        Python::attach(|py| {
            let array = numpy::PyArray1::from_slice(py, state);
            self.0.bind(py).getattr("unwrapped").unwrap().setattr("state", array).unwrap();
        })
    }

    /// As [`Reference::set_state`], in 32 bits.
    fn set_state_f32(&self, state: &[f32]) {
        Python::attach(|py| {
            let array = numpy::PyArray1::from_slice(py, state);
            self.0.bind(py).getattr("unwrapped").unwrap().setattr("state", array).unwrap();
        })
    }

    fn step(&self, action: Leaf) -> (Vec<f32>, Step) {
        Python::attach(|py| {
            let action = match action {
                Leaf::I64(action) => action[0].into_pyobject(py).unwrap().into_any(),
                _ => numpy::PyArray1::from_slice(py, action.f32()).into_any(),
            };
            let result = self.0.bind(py).call_method1("step", (action,)).unwrap();
            let observation = result.get_item(0).unwrap().call_method0("tolist").unwrap().extract().unwrap();
            let reward = result.get_item(1).unwrap().extract().unwrap();
            let terminated = result.get_item(2).unwrap().extract().unwrap();
            let truncated = result.get_item(3).unwrap().extract().unwrap();
            (observation, Step { reward, terminated, truncated })
        })
    }
}

/// To 1e-6, relative beyond 1: a 32-bit float near 10 is no finer.
fn assert_close(ours: &[f32], theirs: &[f32], at: &str) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{at}: {ours:?} beside {theirs:?}");
    }
}

/// Plays `episodes` in both; returns steps, terminations, truncations.
fn compare<E: Env>(
    reference: &Reference,
    native: E,
    set_state: impl Fn(&mut E, &[f64]),
    start: impl Fn(u64, Vec<f64>) -> Vec<f64>,
    act: impl Fn(&[f32], u64, &mut ChaCha8Rng) -> LeafBuf,
    episodes: u64,
) -> (u32, u32, u32) {
    let mut native = Single::new(native);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut steps, mut terminations, mut truncations) = (0, 0, 0);
    for episode in 0..episodes {
        let (mut observation, state) = reference.reset(episode);
        let state = start(episode, state);
        reference.set_state(&state);
        native.reset(episode).unwrap();
        set_state(&mut native.env, &state);
        loop {
            let action = act(&observation, episode, &mut rng);
            let (theirs, expected) = reference.step(action.leaf());
            let step = native.step(action.leaf()).unwrap();
            let at = format!("episode {episode}, step {steps}");
            assert_close(native.f32(), &theirs, &at);
            assert!((step.reward - expected.reward).abs() < 1e-6, "{at}: {step:?} beside {expected:?}");
            assert_eq!((step.terminated, step.truncated), (expected.terminated, expected.truncated), "{at}");
            steps += 1;
            terminations += u32::from(step.terminated);
            truncations += u32::from(step.truncated);
            observation = theirs;
            if step.terminated || step.truncated {
                break;
            }
        }
    }
    (steps, terminations, truncations)
}

/// Random in even episodes, balancing in odd ones (with a sixth of random pushes).
fn push(observation: &[f32], episode: u64, rng: &mut ChaCha8Rng) -> LeafBuf {
    let random = episode.is_multiple_of(2) || rng.random_bool(1.0 / 6.0);
    let balance = observation[2] + 0.3 * observation[3] + 0.03 * observation[1] > 0.0;
    LeafBuf::I64(vec![i64::from(if random { rng.random_bool(0.5) } else { balance })])
}

#[test]
fn cartpole_equals_gymnasium() {
    let reference = Reference::new("CartPole-v1", &[]);
    let native = TimeLimit::new(CartPole::new(false), 500);
    let set = |env: &mut TimeLimit<CartPole>, state: &[f64]| env.env.state = state.try_into().unwrap();
    // Every fifth episode starts on its way off the track.
    let start = |episode, mut state: Vec<f64>| {
        if episode % 5 == 0 {
            (state[0], state[1]) = (2.3, 1.5);
        }
        state
    };
    let (steps, terminated, truncated) = compare(&reference, native, set, start, push, 60);
    assert!(steps > 8000 && terminated > 20 && truncated > 10, "{steps} {terminated} {truncated}");
}

#[test]
fn cartpole_equals_gymnasium_with_the_books_reward() {
    let reference = Reference::new("CartPole-v1", &[("sutton_barto_reward", 1.0)]);
    let native = TimeLimit::new(CartPole::new(true), 500);
    let set = |env: &mut TimeLimit<CartPole>, state: &[f64]| env.env.state = state.try_into().unwrap();
    compare(&reference, native, set, |_, state| state, push, 20);
}

#[test]
fn seals_cartpole_equals_seals() {
    let reference = Reference::new("seals:seals/CartPole-v0", &[]);
    let native = TimeLimit::new(SealsCartPole::new(), 500);
    let set = |env: &mut TimeLimit<SealsCartPole>, state: &[f64]| env.env.state = state.try_into().unwrap();
    let start = |episode, mut state: Vec<f64>| {
        if episode % 5 == 1 {
            (state[0], state[1]) = (2.3, 1.5);
        }
        state
    };
    let counts = compare(&reference, native, set, start, push, 24);
    assert_eq!(counts, (24 * 500, 0, 24));
}

#[test]
fn pendulum_equals_gymnasium() {
    let torque = |_: &[f32], _: u64, rng: &mut ChaCha8Rng| LeafBuf::F32(vec![rng.random_range(-3.0f32..3.0)]);
    let set = |env: &mut TimeLimit<Pendulum>, state: &[f64]| env.env.state = state.try_into().unwrap();
    for gravity in [10.0, 9.81] {
        let reference = Reference::new("Pendulum-v1", &[("g", gravity)]);
        let native = TimeLimit::new(Pendulum::new(gravity), 200);
        // Every third episode starts at full speed, many turns away.
        let start = |episode, state| if episode % 3 == 0 { vec![-40.0, 8.0] } else { state };
        assert_eq!(compare(&reference, native, set, start, torque, 30), (6000, 0, 30));
    }
}

/// Swings: with the motion in odd episodes, at random in even ones (and in a tenth of the steps).
fn rock(observation: &[f32], episode: u64, rng: &mut ChaCha8Rng) -> LeafBuf {
    let random = episode.is_multiple_of(2) || rng.random_bool(0.1);
    let with_motion = if observation[1] < 0.0 { 0 } else { 2 };
    LeafBuf::I64(vec![if random { rng.random_range(0..3) } else { with_motion }])
}

#[test]
fn cartpole_v0_equals_gymnasium() {
    let reference = Reference::new("CartPole-v0", &[]);
    let native = Registry::builtin().make(&spec("CartPole-v0", "", None)).unwrap();
    assert_eq!(native.id(), "CartPole-v0");
    let set = |env: &mut Box<dyn Env>, state: &[f64]| {
        let bytes = state.iter().flat_map(|x| x.to_le_bytes());
        env.load(&[0; 4].into_iter().chain(bytes).collect::<Vec<u8>>()).unwrap();
    };
    let (steps, terminated, truncated) = compare(&reference, native, set, |_, state| state, push, 30);
    assert!(steps > 3000 && terminated > 10 && truncated > 10, "{steps} {terminated} {truncated}");
}

/// Every fourth episode starts at full speed towards the wall, and another at the goal.
fn edges(episode: u64, state: Vec<f64>) -> Vec<f64> {
    match episode % 4 {
        1 => vec![0.48, 0.03],
        2 => vec![-1.1, -0.07],
        _ => state,
    }
}

#[test]
fn mountain_car_equals_gymnasium() {
    let set = |env: &mut TimeLimit<MountainCar>, state: &[f64]| env.env.state = state.try_into().unwrap();
    let steps = [0.0, 0.04].map(|goal_velocity| {
        let reference = Reference::new("MountainCar-v0", &[("goal_velocity", goal_velocity)]);
        let native = TimeLimit::new(MountainCar::new(goal_velocity), 200);
        let (steps, terminated, truncated) = compare(&reference, native, set, edges, rock, 40);
        assert!(terminated > 10 && truncated > 10, "{steps} {terminated} {truncated}");
        steps
    });
    // The second flag does not count when it is passed as slowly as by those that start there.
    assert!(4000 < steps[0] && steps[0] < steps[1], "{steps:?}");
}

#[test]
fn seals_mountain_car_equals_seals() {
    let reference = Reference::new("seals:seals/MountainCar-v0", &[]);
    let native = TimeLimit::new(MountainCar::seals(0.0), 200);
    let set = |env: &mut TimeLimit<MountainCar>, state: &[f64]| env.env.state = state.try_into().unwrap();
    let mut arrived = Single::new(MountainCar::seals(0.0));
    // Rolls over the flag in the first step; then nothing moves any more.
    arrived.env.state = [0.48, 0.05];
    let rewards: Vec<f64> = (0..3).map(|_| arrived.step(Leaf::I64(&[2])).unwrap().reward).collect();
    assert_eq!(rewards, [-1.0, 0.0, 0.0]);
    assert_eq!(compare(&reference, native, set, edges, rock, 24), (24 * 200, 0, 24));
}

#[test]
fn continuous_mountain_car_equals_gymnasium_to_the_bit() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for goal_velocity in [0.0, 0.02] {
        let reference = Reference::new("MountainCarContinuous-v0", &[("goal_velocity", goal_velocity)]);
        let mut native = Single::new(TimeLimit::new(MountainCarContinuous::new(goal_velocity), 999));
        let (mut terminations, mut truncations) = (0, 0);
        for episode in 0..16u64 {
            native.reset(episode).unwrap();
            reference.reset(episode);
            if episode % 4 == 2 {
                native.env.env.state = [-1.1, -0.07];
            }
            // Gymnasium computes in 64 bits until the first step is over; from there on in 32, as we do always.
            reference.set_state_f32(&native.env.env.state);
            let mut velocity = 0.0;
            let step = loop {
                // In odd episodes with the motion.
                let with_motion = if velocity < 0.0 { -1.0f32 } else { 1.0 };
                let random = rng.random_range(-1.0f32..=1.0);
                let power = if episode.is_multiple_of(2) { random } else { 0.9 * with_motion + 0.1 * random };
                let (theirs, expected) = reference.step(Leaf::F32(&[power]));
                let step = native.step(Leaf::F32(&[power])).unwrap();
                assert_eq!((native.f32(), step), (theirs.as_slice(), expected), "episode {episode}");
                velocity = theirs[1];
                if step.terminated || step.truncated {
                    break step;
                }
            };
            terminations += u32::from(step.terminated);
            truncations += u32::from(step.truncated);
        }
        assert!(terminations > 5 && truncations > 3, "{terminations} {truncations}");
    }
}

#[test]
fn continuous_mountain_car_clips_the_power_but_not_its_price() {
    // Python's arithmetic beyond the bounds is in 64 bits: equal within the tolerance, for a while.
    let reference = Reference::limited("MountainCarContinuous-v0", 100);
    let mut native = Single::new(TimeLimit::new(MountainCarContinuous::new(0.0), 100));
    let power = |_: &[f32], _: u64, rng: &mut ChaCha8Rng| LeafBuf::F32(vec![rng.random_range(-3.0f32..3.0)]);
    let set = |env: &mut TimeLimit<MountainCarContinuous>, state: &[f64]| {
        env.env.state = [state[0] as f32, state[1] as f32];
    };
    native.reset(0).unwrap();
    assert_eq!(native.step(Leaf::F32(&[2.0])).unwrap().reward, -0.4);
    assert_eq!(compare(&reference, native.env, set, |_, state| state, power, 5), (500, 0, 5));
}

#[test]
fn acrobot_equals_gymnasium() {
    let reference = Reference::new("Acrobot-v1", &[]);
    for version in [AcrobotVersion::V1, AcrobotVersion::V0] {
        let limit = if version == AcrobotVersion::V1 { 500 } else { 200 };
        let mut native = Single::new(TimeLimit::new(Acrobot::new(version), limit));
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut steps, mut terminations, mut truncations) = (0, 0, 0);
        for episode in 0..12u64 {
            let (_, mut state) = reference.reset(episode);
            if episode % 4 == 2 {
                // Faster than it may turn, and about to turn over.
                state = vec![3.0, -3.0, 12.5, -28.0];
            }
            native.reset(episode).unwrap();
            let mut push = 0;
            for t in 0..limit {
                // A double pendulum is chaotic, and NumPy's cosine differs from ours in the last bit: each step
                // starts from the same state.
                reference.set_state(&state);
                native.env.env.state = state.as_slice().try_into().unwrap();
                push = match episode % 2 {
                    0 => rng.random_range(0..3),
                    // With the motion of the lower rod.
                    _ if state[3].abs() > 0.1 => {
                        if state[3] < 0.0 {
                            0
                        } else {
                            2
                        }
                    }
                    _ => push,
                };
                let (theirs, expected) = reference.step(Leaf::I64(&[push]));
                let step = native.step(Leaf::I64(&[push])).unwrap();
                state = reference.state();
                let at = format!("{version:?}, episode {episode}, step {t}");
                for (ours, theirs) in native.env.env.state.iter().zip(&state) {
                    assert!((ours - theirs).abs() < 1e-12, "{at}: {ours} beside {theirs}");
                }
                match version {
                    AcrobotVersion::V1 => assert_close(native.f32(), &theirs, &at),
                    AcrobotVersion::V0 => {
                        let raw: Vec<f32> = state.iter().map(|&x| x as f32).collect();
                        assert_close(native.f32(), &raw, &at);
                    }
                }
                assert_eq!(step.reward, expected.reward, "{at}");
                assert_eq!(step.terminated, expected.terminated, "{at}");
                assert_eq!(step.truncated, t + 1 == limit, "{at}");
                steps += 1;
                terminations += u32::from(step.terminated);
                truncations += u32::from(step.truncated);
                if step.terminated {
                    break;
                }
            }
        }
        assert!(steps > 1000 && terminations > 4 && truncations > 2, "{steps} {terminations} {truncations}");
    }
}

#[test]
fn spaces_equal_pythons() {
    import();
    let registry = Registry::builtin();
    let pairs = [
        ("Acrobot-v1", "gym:Acrobot-v1"),
        ("CartPole-v0", "gym:CartPole-v0"),
        ("MountainCar-v0", "gym:MountainCar-v0"),
        ("MountainCarContinuous-v0", "gym:MountainCarContinuous-v0"),
        ("seals/MountainCar-v0", "gym:seals:seals/MountainCar-v0"),
        ("CartPole-v1", "gym:CartPole-v1"),
        ("Pendulum-v1", "gym:Pendulum-v1"),
        ("seals/CartPole-v0", "gym:seals:seals/CartPole-v0"),
    ];
    for (native, python) in pairs {
        let native = registry.make(&spec(native, "", None)).unwrap();
        let python = Gymnasium::new(&spec(python, "", None)).unwrap();
        assert_eq!(native.observation_space(), python.observation_space());
        assert_eq!(native.action_space(), python.action_space());
    }
    // Gymnasium has it no more; its documentation says: readings of both angles, ±π.
    let acrobot = registry.make(&spec("Acrobot-v0", "", None)).unwrap();
    let Space::Box { shape, low, high, .. } = acrobot.observation_space() else { panic!() };
    let today = registry.make(&spec("Acrobot-v1", "", None)).unwrap();
    let Space::Box { high: fast, .. } = today.observation_space() else { panic!() };
    let pi = f64::from(std::f32::consts::PI);
    assert_eq!((shape.as_slice(), high.as_slice()), (&[4][..], &[pi, pi, fast[4], fast[5]][..]));
    assert_eq!(*low, high.iter().map(|x| -x).collect::<Vec<f64>>());
    assert_eq!(acrobot.action_space(), today.action_space());
}

#[test]
fn first_states_are_distributed_as_in_gymnasium() {
    let mut cartpole = Single::new(CartPole::new(false));
    let mut pendulum = Single::new(Pendulum::new(10.0));
    let mut acrobot = Single::new(Acrobot::new(AcrobotVersion::V1));
    let mut car = Single::new(MountainCar::new(0.0));
    let mut stepless = Single::new(MountainCarContinuous::new(0.0));
    let (mut pole, mut angle, mut speed, mut rods, mut place) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for seed in 0..2000 {
        cartpole.reset(seed).unwrap();
        assert!(cartpole.f32().iter().all(|x| x.abs() <= 0.05));
        pole += cartpole.env.state.iter().map(|x| x * x).sum::<f64>() / 8000.0;
        pendulum.reset(seed).unwrap();
        let [theta, theta_dot] = pendulum.env.state;
        assert!(theta.abs() <= std::f64::consts::PI && theta_dot.abs() <= 1.0);
        angle += theta * theta / 2000.0;
        speed += theta_dot * theta_dot / 2000.0;
        acrobot.reset(seed).unwrap();
        assert!(acrobot.env.state.iter().all(|x| x.abs() <= 0.1));
        rods += acrobot.env.state.iter().map(|x| x * x).sum::<f64>() / 8000.0;
        car.reset(seed).unwrap();
        stepless.reset(seed).unwrap();
        let [position, velocity] = car.env.state;
        assert!((-0.6..=-0.4).contains(&position) && velocity == 0.0);
        assert_eq!(stepless.env.state, [position as f32, 0.0]);
        place += (position + 0.5) * (position + 0.5) / 2000.0;
    }
    // The variance of a uniform value in ±h is h²/3.
    let pi = std::f64::consts::PI;
    for (variance, half_width) in [(pole, 0.05), (angle, pi), (speed, 1.0), (rods, 0.1), (place, 0.1)] {
        assert!((3.0 * variance / (half_width * half_width) - 1.0).abs() < 0.1, "{variance} {half_width}");
    }
}
