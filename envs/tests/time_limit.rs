//! What a time limit truncates, and what a group makes of ends.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{CartPole, Each, Env, Leaf, Registry, SealsCartPole, TimeLimit, VecEnv};
use single::{Rows, Single, seeds, spec};

#[test]
fn truncates_at_the_limit_even_where_it_terminates() {
    // Always to the right: when does it fall?
    let mut free = Single::new(CartPole::new(false));
    free.reset(3).unwrap();
    let fall = 1 + std::iter::from_fn(|| Some(free.step(Leaf::I64(&[1])).unwrap()))
        .take_while(|step| !step.terminated)
        .count() as u32;
    for (limit, last, terminated, truncated) in
        [(fall + 1, fall, true, false), (fall, fall, true, true), (fall - 1, fall - 1, false, true)]
    {
        let mut env = Single::new(TimeLimit::new(CartPole::new(false), limit));
        for _ in 0..2 {
            env.reset(3).unwrap();
            for _ in 1..last {
                let step = env.step(Leaf::I64(&[1])).unwrap();
                assert!(!step.terminated && !step.truncated);
            }
            let step = env.step(Leaf::I64(&[1])).unwrap();
            assert_eq!((step.terminated, step.truncated), (terminated, truncated), "limit {limit}");
        }
    }
}

#[test]
fn a_recipes_limit_replaces_the_environments_own() {
    for (limit, expected) in [(None, 500), (Some(7), 7), (Some(900), 900)] {
        let mut env = Single::new(Registry::builtin().make(&spec("seals/CartPole-v0", "", limit)).unwrap());
        env.reset(0).unwrap();
        let steps = 1 + (0..).take_while(|_| !env.step(Leaf::I64(&[0])).unwrap().truncated).count();
        assert_eq!(steps, expected);
    }
}

#[test]
fn a_row_holds_the_next_start_and_finals_the_true_end() {
    let limits = [3, 5];
    let make = |limit| TimeLimit::new(SealsCartPole::new(), limit);
    let mut group = Each::new(limits.map(make).into());
    let mut rows = Rows::new(&group);
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    let mut alone = limits.map(|limit| Single::new(make(limit)));
    let mut episode = [0, 0];
    for (i, env) in alone.iter_mut().enumerate() {
        env.reset(seeds(i, 0)).unwrap();
    }
    for t in 1..40u32 {
        let action = [i64::from(t % 2), i64::from(t % 3 == 0)];
        rows.step(&mut group, Leaf::I64(&action)).unwrap();
        let mut finals = rows.finals.iter();
        for (i, env) in alone.iter_mut().enumerate() {
            let step = env.step(Leaf::I64(&action[i..=i])).unwrap();
            assert_eq!(rows.reward[i], step.reward as f32);
            assert_eq!((rows.terminated[i], rows.truncated[i]), (false, t.is_multiple_of(limits[i])));
            assert!(rows.valid[i]);
            if step.truncated {
                assert_eq!(finals.next().unwrap(), (i, env.observation.leaf()));
                episode[i] += 1;
                env.reset(seeds(i, episode[i])).unwrap();
            }
            assert_eq!(rows.observation.leaf().part(i, 4), env.observation.leaf());
        }
        assert!(finals.next().is_none());
    }
    assert_eq!(group.save().iter().map(|(episode, _)| *episode).collect::<Vec<_>>(), episode);
}

#[test]
#[should_panic(expected = "at least one step")]
fn zero_steps_are_refused() {
    TimeLimit::new(CartPole::new(false), 0);
}

#[test]
fn boxed_environments_are_environments() {
    let registry = Registry::builtin();
    let envs: Vec<Box<dyn Env>> =
        (0..2).map(|_| registry.make(&spec("CartPole-v1", "", None)).unwrap()).collect();
    assert_eq!(envs[0].id(), "CartPole-v1");
    let mut group = Each::new(envs);
    let mut rows = Rows::new(&group);
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    rows.step(&mut group, Leaf::I64(&[0, 1])).unwrap();
    assert_eq!(rows.reward, [1.0, 1.0]);
}
