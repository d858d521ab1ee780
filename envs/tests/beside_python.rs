//! Native environments beside the Python ones: same states, same actions, same results.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{
    CartPole, Env, Gymnasium, Leaf, LeafBuf, Pendulum, Registry, SealsCartPole, Step, TimeLimit,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use single::{Single, spec};

/// A Python environment that shows its state.
struct Reference(Py<PyAny>);

impl Reference {
    fn new(id: &str, args: &[(&str, f64)]) -> Self {
        imago_envs::python::start();
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

    /// Starts an episode; its observation and its 64-bit state.
    fn reset(&self, seed: u64) -> (Vec<f32>, Vec<f64>) {
        Python::attach(|py| {
            let kwargs = PyDict::new(py);
            kwargs.set_item("seed", seed).unwrap();
            let result = self.0.bind(py).call_method("reset", (), Some(&kwargs)).unwrap();
            let observation = result.get_item(0).unwrap().call_method0("tolist").unwrap().extract().unwrap();
            let state = self.0.bind(py).getattr("unwrapped").unwrap().getattr("state").unwrap();
            (observation, state.call_method0("tolist").unwrap().extract().unwrap())
        })
    }

    fn set_state(&self, state: &[f64]) {
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

#[test]
fn spaces_equal_pythons() {
    let registry = Registry::builtin();
    let pairs = [
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
}

#[test]
fn first_states_are_distributed_as_in_gymnasium() {
    let mut cartpole = Single::new(CartPole::new(false));
    let mut pendulum = Single::new(Pendulum::new(10.0));
    let (mut pole, mut angle, mut speed) = (0.0f64, 0.0f64, 0.0f64);
    for seed in 0..2000 {
        cartpole.reset(seed).unwrap();
        assert!(cartpole.f32().iter().all(|x| x.abs() <= 0.05));
        pole += cartpole.env.state.iter().map(|x| x * x).sum::<f64>() / 8000.0;
        pendulum.reset(seed).unwrap();
        let [theta, theta_dot] = pendulum.env.state;
        assert!(theta.abs() <= std::f64::consts::PI && theta_dot.abs() <= 1.0);
        angle += theta * theta / 2000.0;
        speed += theta_dot * theta_dot / 2000.0;
    }
    // The variance of a uniform value in ±h is h²/3.
    for (variance, half_width) in [(pole, 0.05), (angle, std::f64::consts::PI), (speed, 1.0)] {
        assert!((3.0 * variance / (half_width * half_width) - 1.0).abs() < 0.1, "{variance} {half_width}");
    }
}
