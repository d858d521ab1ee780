//! The T-maze step by step.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{Env, LeafBuf, TMaze};
use single::Single;

const ON: i64 = 0;
const LEFT: i64 = 1;
const RIGHT: i64 = 2;

/// What is seen, the reward and whether it was the end.
fn step(env: &mut Single<TMaze>, action: i64) -> (Vec<f32>, f64, bool) {
    let step = env.step(LeafBuf::I64(vec![action]).leaf()).unwrap();
    assert!(!step.truncated);
    (env.f32().to_vec(), step.reward, step.terminated)
}

#[test]
fn the_sign_is_seen_first_and_decides_at_the_fork() {
    let mut signs = [0, 0];
    for seed in 0..40 {
        let mut env = Single::new(TMaze::new(3));
        env.reset(seed).unwrap();
        let seen = env.f32().to_vec();
        let sign = seen[0];
        assert!(sign.abs() == 1.0 && seen[1] == 0.0);
        signs[usize::from(sign > 0.0)] += 1;
        let right = if sign > 0.0 { RIGHT } else { LEFT };
        assert_eq!(step(&mut env, right), (vec![sign, 0.0], 0.0, false), "a wall, and the sign still there");
        assert_eq!(step(&mut env, ON), (vec![0.0, 0.0], 0.0, false));
        assert_eq!(step(&mut env, LEFT), (vec![0.0, 0.0], 0.0, false), "a wall");
        assert_eq!(step(&mut env, ON), (vec![0.0, 0.0], 0.0, false));
        assert_eq!(step(&mut env, ON), (vec![0.0, 1.0], 0.0, false), "three steps on is the fork");
        assert_eq!(step(&mut env, ON), (vec![0.0, 1.0], 0.0, false), "no way on; waiting pays nothing");
        let turn = if seed % 2 == 0 { right } else { LEFT + RIGHT - right };
        assert_eq!(step(&mut env, turn), (vec![0.0, 1.0], f64::from(u8::from(turn == right)), true));
    }
    assert!(signs[0] > 8 && signs[1] > 8, "{signs:?}");
}

#[test]
fn states_of_no_episode_are_refused() {
    let state = |position: f64, right: f64| [position.to_le_bytes(), right.to_le_bytes()].concat();
    let mut env = TMaze::new(3);
    env.load(&state(3.0, 1.0)).unwrap();
    assert_eq!(env.save().unwrap(), state(3.0, 1.0));
    for (position, right) in [(4.0, 1.0), (0.5, 0.0), (-1.0, 0.0), (1.0, 2.0), (1.0, 0.5)] {
        assert!(env.load(&state(position, right)).is_err(), "{position}, {right}");
    }
}
