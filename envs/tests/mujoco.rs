//! States of Gymnasium's environments: those on MuJoCo (skipped without the extra `mujoco`), and those that say
//! themselves how to be saved.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{Env, EnvSpec, Leaf, LeafBuf, Mujoco, ROBOTS, Registry};
use pyo3::prelude::*;
use single::{Single, lacks, spec};

/// The actions of step `t`: any, but the same each time.
fn action(t: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((t * 7 + i * 13) % 11) as f32 / 11.0 - 0.4).collect()
}

/// What 200 steps show, bit for bit, with a new episode after each end.
fn play(env: &mut Single<Box<dyn Env>>) -> Vec<(LeafBuf, u64, bool, bool)> {
    let len = env.env.action_space().len();
    let step = |t| {
        let step = env.step(Leaf::F32(&action(t, len))).unwrap();
        let seen = (env.observation.clone(), step.reward.to_bits(), step.terminated, step.truncated);
        if step.terminated || step.truncated {
            env.reset(t as u64).unwrap();
        }
        seen
    };
    (0..200).map(step).collect()
}

#[test]
fn a_fresh_instance_goes_on_bit_for_bit() {
    if lacks("mujoco") {
        return;
    }
    let registry = Registry::builtin();
    for (id, args, limit) in [
        // Through a whole episode without an end, and over the end that the limit of time makes.
        ("gym:Hopper-v5", "terminate_when_unhealthy = false", None),
        ("gym:Hopper-v5", "terminate_when_unhealthy = false", Some(130)),
        ("gym:Hopper-v5", "", None),
        // Rewards from what the last step left in the simulation; forces of contacts among the observations.
        ("gym:Ant-v5", "", None),
        ("gym:Humanoid-v5", "", None),
        ("gym:Reacher-v5", "", None),
        ("Hopper-v5", "", None),
        ("Hopper-v5", "terminate_when_unhealthy = false", Some(130)),
        ("HalfCheetah-v5", "", None),
    ] {
        let spec = spec(id, args, limit);
        let mut env = Single::new(registry.make(&spec).unwrap());
        env.reset(5).unwrap();
        let len = env.env.action_space().len();
        for t in 0..15 {
            env.step(Leaf::F32(&action(t + 1000, len))).unwrap();
        }
        let saved = env.env.save().unwrap();
        let expected = play(&mut env);
        if limit == Some(130) {
            assert!(expected[130 - 15 - 1].3, "cut off at the limit");
        }
        let mut fresh = Single::new(registry.make(&spec).unwrap());
        fresh.env.load(&saved).unwrap();
        assert!(play(&mut fresh) == expected, "{id} {args}: another instance");
        env.env.load(&saved).unwrap();
        assert!(play(&mut env) == expected, "{id} {args}: the same instance");
    }
}

/// Gymnasium's own, set to a state of positions and velocities.
struct Original(Py<PyAny>);

impl Original {
    fn new(id: &str) -> Self {
        imago_envs::python::start();
        Python::attach(|py| {
            let make = py.import("gymnasium").unwrap().getattr("make").unwrap();
            let env = make.call1((id,)).unwrap();
            env.call_method0("reset").unwrap();
            Self(env.unbind())
        })
    }

    fn set(&self, positions: Vec<f64>, velocities: Vec<f64>) {
        Python::attach(|py| {
            let env = self.0.bind(py).getattr("unwrapped").unwrap();
            let array = py.import("numpy").unwrap().getattr("array").unwrap();
            let [positions, velocities] = [positions, velocities].map(|x| array.call1((x,)).unwrap());
            // As its `reset` does, or what the last step left would count.
            let arguments = (env.getattr("model").unwrap(), env.getattr("data").unwrap());
            py.import("mujoco").unwrap().call_method1("mj_resetData", arguments).unwrap();
            env.call_method1("set_state", (positions, velocities)).unwrap();
        });
    }

    /// Observation, reward, terminated.
    fn step(&self, action: &[f32]) -> (Vec<f32>, f64, bool) {
        Python::attach(|py| {
            let numpy = py.import("numpy").unwrap();
            let action = numpy.call_method1("array", (action.to_vec(), "float32")).unwrap();
            let step = self.0.bind(py).getattr("unwrapped").unwrap().call_method1("step", (action,)).unwrap();
            let (seen, reward, terminated): (Bound<PyAny>, f64, bool) = (
                step.get_item(0).unwrap(),
                step.get_item(1).unwrap().extract().unwrap(),
                step.get_item(2).unwrap().extract().unwrap(),
            );
            let seen: Vec<f64> = seen.call_method0("tolist").unwrap().extract().unwrap();
            (seen.into_iter().map(|x| x as f32).collect(), reward, terminated)
        })
    }
}

#[test]
fn native_robots_are_gymnasiums_bit_for_bit() {
    if lacks("mujoco") {
        return;
    }
    for robot in &ROBOTS {
        let id = robot.id;
        // Places along which the world is the same, too.
        let shown = match id {
            "InvertedPendulum-v5" => toml::Table::new(),
            _ => toml::toml! { exclude_current_positions_from_observation = false },
        };
        let mut native = Single::new(Mujoco::from_args(robot, &shown).unwrap());
        let original = Original::new(id);
        let hidden = native.f32().len() - original.step(&action(0, native.env.action_space().len())).0.len();
        let (mut ended, mut compared) = (0, 0);
        for episode in 0..4 {
            native.reset(episode).unwrap();
            let (positions, velocities) = native.env.configuration();
            original.set(positions.to_vec(), velocities.to_vec());
            for t in 0..250 {
                let action = action(t + 10 * episode as usize, native.env.action_space().len());
                let (seen, reward, terminated) = original.step(&action);
                let step = native.step(Leaf::F32(&action)).unwrap();
                let ours = &native.f32()[hidden..];
                assert_eq!(ours, seen, "{id}, episode {episode}, step {t}");
                assert_eq!(step.reward, reward, "{id}, episode {episode}, step {t}");
                assert_eq!(step.terminated, terminated, "{id}, episode {episode}, step {t}");
                compared += 1;
                if terminated {
                    ended += 1;
                    break;
                }
            }
        }
        let falls = !matches!(id, "HalfCheetah-v5" | "Swimmer-v5");
        assert!(compared > 40 && (ended > 0) == falls, "{id}: {compared} steps, {ended} ends");
    }
}

#[test]
fn damaged_states_are_refused() {
    if lacks("mujoco") {
        return;
    }
    let registry = Registry::builtin();
    let make = |id: &str| Single::new(registry.make(&EnvSpec::new(id)).unwrap());
    let mut ant = make("gym:Ant-v5");
    ant.reset(0).unwrap();
    let saved = ant.env.save().unwrap();
    let mut hopper = make("gym:Hopper-v5");
    let refused = |env: &mut Single<Box<dyn Env>>, state: &[u8]| env.env.load(state).unwrap_err().to_string();
    assert!(
        refused(&mut hopper, &saved)
            .contains("`gym:Hopper-v5` cannot be restored: ValueError: it was saved in another model")
    );
    for state in [&saved[..0], &saved[..100], b"\x01nothing"] {
        assert!(refused(&mut ant, state).starts_with("environment `gym:Ant-v5` cannot be restored: "));
    }
}

#[test]
fn environments_may_say_how_they_are_saved() {
    imago_envs::python::start();
    Python::attach(|py| {
        let code = cr#"
import gymnasium, numpy as np
class Counter(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1e6, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    def __init__(self, masked=False): self.sum = 0.0
    def observe(self): return np.array([self.sum], np.float32)
    def reset(self, seed=None, options=None):
        self.sum = float(seed)
        return self.observe(), {}
    def step(self, action):
        self.sum += 1 + float(action[0])
        return self.observe(), self.sum, False, False, {}
    def get_state(self): return np.float64(self.sum).tobytes()
    def set_state(self, state): self.sum = float(np.frombuffer(state, np.float64)[0])
class Wrapped(gymnasium.Wrapper):
    pass
gymnasium.register("Counter-v0", Counter, max_episode_steps=40)
gymnasium.register("Wrapped-v0", lambda: Wrapped(Counter()))
"#;
        py.run(code, None, None).unwrap();
    });
    let registry = Registry::builtin();
    let make = |id: &str| Single::new(registry.make(&EnvSpec::new(id)).unwrap());
    let mut env = make("gym:Counter-v0");
    env.reset(3).unwrap();
    (0..10).for_each(|_| assert!(!env.step(Leaf::F32(&[0.5])).unwrap().terminated));
    let saved = env.env.save().unwrap();
    let expected = play(&mut env);
    // 3 + 10 · 1.5, then 1 more and the action of step 0: −0.4; the limit of 40 steps after 30 more.
    assert!((expected[0].0.leaf().f32()[0] - 18.6).abs() < 1e-5, "{:?}", expected[0]);
    assert!(expected[29].3 && !expected[28].3);
    let mut fresh = make("gym:Counter-v0");
    fresh.env.load(&saved).unwrap();
    assert!(play(&mut fresh) == expected);
    // Nobody knows what other wrappers remember.
    let mut wrapped = make("gym:Wrapped-v0");
    wrapped.reset(0).unwrap();
    assert!(wrapped.env.save().is_none());
    assert!(wrapped.env.load(&saved).unwrap_err().to_string().contains("cannot save or restore"));
    assert!(make("gym:CartPole-v1").env.save().is_none());
}
