//! Super Mario Bros: levels, joypad, rewards, repetition. Skipped without the extra `mario`.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{EnvSpec, Leaf, Registry, Space};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use single::{Single, lacks};

/// Runs Python, gives what it leaves in `result`.
fn python<T: for<'py> FromPyObjectOwned<'py>>(code: &str) -> T {
    // Its file is read with the first environment.
    Registry::builtin().make(&EnvSpec::new("SuperMarioBros-1-1")).unwrap();
    Python::attach(|py| {
        let globals = PyDict::new(py);
        py.run(&std::ffi::CString::new(code).unwrap(), Some(&globals), None).unwrap();
        globals.get_item("result").unwrap().unwrap().extract().map_err(Into::into).unwrap()
    })
}

#[test]
fn levels_are_the_ones_named() {
    if lacks("mario") {
        return;
    }
    let registry = Registry::builtin();
    assert_eq!(registry.ids().filter(|(id, _)| id.starts_with("SuperMarioBros-")).count(), 32);
    let seen: Vec<(i64, i64)> = python(
        "
import gymnasium
def level(world, stage):
    env = gymnasium.make('imago/SuperMarioBros-v0', world=world, stage=stage)
    _, info = env.reset(seed=0)
    env.close()
    return info['world'], info['stage']
result = [level(1, 1), level(3, 2), level(8, 4)]
",
    );
    assert_eq!(seen, [(1, 1), (3, 2), (8, 4)]);
    // The pictures differ, too.
    let first = |id: &str| {
        let mut env = Single::new(registry.make(&EnvSpec::new(id)).unwrap());
        env.reset(0).unwrap();
        assert_eq!(env.env.observation_space().to_string(), "Box([4, 42, 42], uint8, 0 to 255)");
        assert_eq!(env.env.action_space(), &Space::discrete(14));
        env.observation.leaf().u8().to_vec()
    };
    assert_ne!(first("SuperMarioBros-1-1"), first("SuperMarioBros-1-2"));
}

#[test]
fn the_joypad_moves_mario_as_the_order_says() {
    if lacks("mario") {
        return;
    }
    // Distance to the right, and the highest that he came, after 40 frames of each.
    let moved: Vec<(i64, i64)> = python(
        "
import gymnasium
env = gymnasium.make('imago/SuperMarioBros-v0')
def after(action):
    _, before = env.reset(seed=0)
    for _ in range(30):
        before = env.step(7)[4]
    for _ in range(30):
        before = env.step(0)[4]
    # Buttons count when they are pressed anew.
    highest = 0
    for _ in range(40):
        info = env.step(action)[4]
        highest = max(highest, info['y_pos'] - before['y_pos'])
    return info['x_pos'] - before['x_pos'], highest
result = [after(action) for action in range(14)]
env.close()
",
    );
    let (left, right, jump) = ([3, 4, 5, 6], [7, 8, 9, 10], [4, 6, 8, 10, 11, 13]);
    for (action, &(x, y)) in moved.iter().enumerate() {
        assert_eq!(x < -10, left.contains(&action), "{action}: {moved:?}");
        assert_eq!(x > 10, right.contains(&action), "{action}: {moved:?}");
        assert_eq!(y > 20, jump.contains(&action), "{action}: {moved:?}");
    }
    // With B he runs.
    assert!(moved[9].0 > moved[7].0 && moved[5].0 < moved[3].0, "{moved:?}");
}

/// Pixels to the right less ticks of the clock; dying is cut off at −15.
#[test]
fn rewards_are_those_of_the_package() {
    if lacks("mario") {
        return;
    }
    /// Reward, pixels, ticks of each step but the last; of that: reward, ends, flag, and its number.
    type Episode = (Vec<(f64, i64, i64)>, (f64, bool, bool, i64, i64));
    let (steps, end): Episode = python(
        "
import gymnasium
env = gymnasium.make('imago/SuperMarioBros-v0')
_, info = env.reset(seed=0)
steps = []
while True:
    before = info
    _, reward, terminated, truncated, info = env.step(7)
    if terminated:
        break
    steps.append((reward, info['x_pos'] - before['x_pos'], info['time'] - before['time']))
env.close()
result = steps, (reward, terminated, truncated, info['flag_get'], len(steps))
",
    );
    for (t, &(reward, dx, dt)) in steps.iter().enumerate() {
        assert_eq!(reward, (dx + dt) as f64, "step {t}");
    }
    assert!(steps.iter().map(|step| step.1).sum::<i64>() > 100);
    // Straight into the first enemy, before the clock of 400 ticks runs out.
    let (reward, terminated, truncated, flag, length) = end;
    assert!((terminated, truncated, flag) == (true, false, 0) && length < 1000, "{end:?}");
    assert_eq!(reward, -15.0);
}

#[test]
fn the_same_seed_and_actions_are_the_same_episode() {
    if lacks("mario") {
        return;
    }
    let registry = Registry::builtin();
    let make = || Single::new(registry.make(&EnvSpec::new("gym:imago/SuperMarioBros-v0")).unwrap());
    let (mut one, mut other) = (make(), make());
    // Another episode before it changes nothing.
    other.reset(1).unwrap();
    (0..60).for_each(|_| assert!(!other.step(Leaf::I64(&[8])).unwrap().terminated));
    one.reset(7).unwrap();
    other.reset(7).unwrap();
    assert_eq!(one.observation, other.observation);
    for t in 0..300 {
        let action = [7, 8, 10, 0, 3, 13][t / 10 % 6];
        let steps = [&mut one, &mut other].map(|env| env.step(Leaf::I64(&[action])).unwrap());
        assert_eq!(steps[0], steps[1], "step {t}");
        assert_eq!(one.observation, other.observation, "step {t}");
        if steps[0].terminated {
            break;
        }
    }
}
