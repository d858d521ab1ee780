//! Wrappers over Gymnasium's environments beside Gymnasium's own wrappers over the same ones, and what `info` says.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{Env, EnvSpec, Gymnasium, Leaf, Registry};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use single::{Single, spec};
use std::ffi::CString;

/// A picture that flickers, with lives and other things in its info; and Gymnasium's own wrappers.
const SOURCE: &str = r#"
import gymnasium as gym, numpy as np
from gymnasium import wrappers
from gymnasium.spaces import Box, Discrete

class Blink(gym.Env):
    observation_space = Box(0, 255, (6, 8, 3), np.uint8)
    action_space = Discrete(4)
    def observe(self):
        picture = np.arange(144, dtype=np.int64).reshape(6, 8, 3) ** 2 * (self.t % 2 + 1) + 31 * self.t + 7 * self.action
        # As nes-py gives it: a view with a negative stride.
        return (picture % 256).astype(np.uint8)[:, :, ::-1]
    def info(self):
        return {
            "lives": 3 - self.t // 9, "x_pos": np.int64(40 + self.t), "speed": np.float32(0.5), "flag": True,
            "np_flag": np.bool_(False), "deep": {"er": {"x": 2.5}, "y": 1}, "a.b": 7, "word": "up", "none": None,
            "array": np.zeros(3), "zero_d": np.array(1.5),
        }
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.action = seed % 5, 0
        return self.observe(), self.info()
    def step(self, action):
        self.t, self.action = self.t + 1, int(action)
        return self.observe(), float(self.t), self.t >= 26, False, self.info()

gym.register("imago/Blink-v0", entry_point=Blink)
gym.register("imago/ShortBlink-v0", entry_point=Blink, max_episode_steps=6)

def stacked(): return wrappers.FrameStackObservation(gym.make("CartPole-v1"), 3, padding_type="zero")
def repeated(): return wrappers.MaxAndSkipObservation(gym.make("imago/Blink-v0"), 4)
def limited(): return wrappers.TimeLimit(wrappers.MaxAndSkipObservation(gym.make("imago/Blink-v0"), 3), 5)
def chosen():
    torques = np.array([[-2.0], [0.5], [2.0]], np.float32)
    return wrappers.TransformAction(gym.make("Pendulum-v1"), lambda i: torques[i], Discrete(3))

def play(make, actions):
    env, seen, seed = make(), [], 0
    seen.append((env.reset(seed=seed)[0].ravel().tolist(), 0.0, False, False))
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((observation.ravel().tolist(), float(reward), bool(terminated), bool(truncated)))
        if terminated or truncated:
            seed += 1
            seen.append((env.reset(seed=seed)[0].ravel().tolist(), 0.0, False, False))
    env.close()
    return seen
"#;

/// The module of the source above, run once.
fn module(py: Python<'_>) -> Bound<'_, PyModule> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let run = || {
        let source = CString::new(SOURCE).unwrap();
        PyModule::from_code(py, &source, c"blink.py", c"blink").unwrap().unbind()
    };
    MODULE.get_or_init(py, run).bind(py).clone()
}

/// Observation, reward, terminated, truncated.
type Seen = Vec<(Vec<f64>, f64, bool, bool)>;

/// Plays `spec` with us, and what `theirs` makes with Gymnasium's wrappers, with the same seeds and actions.
fn play(spec: &EnvSpec, theirs: &str, actions: &[i64]) -> (Seen, Seen) {
    imago_envs::python::start();
    let theirs: Seen = Python::attach(|py| {
        let module = module(py);
        let make = module.getattr(theirs).unwrap();
        module.getattr("play").unwrap().call1((make, actions.to_vec())).unwrap().extract().unwrap()
    });
    let mut env = Single::new(Registry::builtin().make(spec).unwrap());
    let numbers = |env: &Single<Box<dyn Env>>| match env.observation.leaf() {
        Leaf::U8(bytes) => bytes.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(),
        floats => floats.f32().iter().map(|&x| f64::from(x)).collect(),
    };
    let mut seed = 0;
    env.reset(seed).unwrap();
    let mut ours = vec![(numbers(&env), 0.0, false, false)];
    for &action in actions {
        let step = env.step(Leaf::I64(&[action])).unwrap();
        ours.push((numbers(&env), step.reward, step.terminated, step.truncated));
        if step.terminated || step.truncated {
            seed += 1;
            env.reset(seed).unwrap();
            ours.push((numbers(&env), 0.0, false, false));
        }
    }
    (ours, theirs)
}

fn actions(count: i64, n: i64) -> Vec<i64> {
    (0..count).map(|t| t * t / 3 % n).collect()
}

#[test]
fn stacks_are_gymnasiums() {
    let spec = EnvSpec { frame_stack: Some(3), ..EnvSpec::new("gym:CartPole-v1") };
    let (ours, theirs) = play(&spec, "stacked", &actions(200, 2));
    assert_eq!(ours, theirs);
    assert!(ours.iter().filter(|seen| seen.2).count() > 2, "several episodes");
}

#[test]
fn sets_of_actions_are_gymnasiums() {
    let torques = "[[-2.0], 0.5, 2]".parse::<toml::Value>().unwrap();
    let spec = EnvSpec { actions: torques.as_array().cloned(), ..EnvSpec::new("gym:Pendulum-v1") };
    let (ours, theirs) = play(&spec, "chosen", &actions(450, 3));
    assert_eq!(ours, theirs);
}

#[test]
fn repetition_with_the_brighter_frame_is_gymnasiums() {
    for (repeat, limit, theirs) in [(4, None, "repeated"), (3, Some(5), "limited")] {
        let keys =
            EnvSpec { action_repeat: Some(repeat), repeat_max: true, time_limit: limit, ..EnvSpec::new("") };
        let spec = EnvSpec { id: "gym:imago/Blink-v0".into(), ..keys };
        let (ours, theirs) = play(&spec, theirs, &actions(60, 4));
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!((ours.1, ours.2, ours.3), (theirs.1, theirs.2, theirs.3));
            // Where a decision ends before its last two frames, Gymnasium shows what it had there before.
            if !ours.2 {
                assert_eq!(ours.0, theirs.0);
            }
        }
        assert!(ours.iter().any(|seen| seen.2 || seen.3));
    }
}

#[test]
fn info_says_numbers() {
    imago_envs::python::start();
    Python::attach(|py| drop(module(py)));
    let mut env = Single::new(Gymnasium::new(&EnvSpec::new("gym:imago/Blink-v0")).unwrap());
    assert_eq!(env.env.info("x_pos"), None, "nothing was said yet");
    env.reset(2).unwrap();
    assert_eq!(env.env.info("x_pos"), Some(42.0));
    env.step(Leaf::I64(&[1])).unwrap();
    for (name, value) in [
        ("x_pos", Some(43.0)),
        ("lives", Some(3.0)),
        ("speed", Some(0.5)),
        ("flag", Some(1.0)),
        ("np_flag", Some(0.0)),
        ("zero_d", Some(1.5)),
        ("deep.y", Some(1.0)),
        ("deep.er.x", Some(2.5)),
        ("a.b", Some(7.0)),
        ("deep", None),
        ("deep.z", None),
        ("x_pos.y", None),
        ("word", None),
        ("none", None),
        ("array", None),
        ("score", None),
    ] {
        assert_eq!(env.env.info(name), value, "{name}");
    }
    // Through everything.
    let spec = EnvSpec {
        actions: Some(vec![0.into(), 2.into()]),
        noop_max: Some(2),
        sticky_actions: Some(0.25),
        action_repeat: Some(2),
        life_as_episode: true,
        grayscale: true,
        frame_stack: Some(2),
        time_limit: Some(50),
        ..EnvSpec::new("gym:imago/Blink-v0")
    };
    let mut env = Single::new(Registry::builtin().make(&spec).unwrap());
    env.reset(0).unwrap();
    let begun = env.env.info("x_pos").unwrap();
    let mut step = env.step(Leaf::I64(&[1])).unwrap();
    assert_eq!(env.env.info("x_pos"), Some(begun + 2.0));
    while !step.terminated {
        step = env.step(Leaf::I64(&[1])).unwrap();
    }
    assert_eq!(env.env.info("lives"), Some(2.0), "the first life is lost");
}

#[test]
fn a_limit_of_decisions_replaces_gymnasiums() {
    imago_envs::python::start();
    Python::attach(|py| drop(module(py)));
    let length = |spec: EnvSpec| {
        let mut env = Single::new(Registry::builtin().make(&spec).unwrap());
        env.reset(0).unwrap();
        1 + (0..).take_while(|_| !env.step(Leaf::I64(&[1])).unwrap().truncated).count()
    };
    let short = spec("gym:imago/ShortBlink-v0", "", None);
    assert_eq!(length(EnvSpec { action_repeat: Some(2), ..short.clone() }), 3, "6 frames");
    assert_eq!(length(EnvSpec { action_repeat: Some(2), time_limit: Some(9), ..short.clone() }), 9);
    assert_eq!(length(EnvSpec { time_limit: Some(9), ..short }), 9);
}
