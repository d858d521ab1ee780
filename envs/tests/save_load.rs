//! A saved moment comes back to the bit.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{
    Acrobot, AcrobotVersion, CartPole, Each, Env, Error, Leaf, LeafBuf, LeafMut, MountainCar,
    MountainCarContinuous, Pendulum, Registry, Result, SealsCartPole, Space, Step, TMaze, TimeLimit, VecEnv,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use single::{Rows, Single, seeds, spec};

fn actions(space: &Space, count: usize, rng: &mut ChaCha8Rng) -> LeafBuf {
    match space {
        Space::Discrete { n, .. } => LeafBuf::I64((0..count).map(|_| rng.random_range(0..*n)).collect()),
        _ => LeafBuf::F32((0..count * space.len()).map(|_| rng.random_range(-2.0f32..2.0)).collect()),
    }
}

/// Steps with resets; everything seen, floats as bits.
fn record<E: Env>(env: &mut Single<E>, steps: u64, rng: &mut ChaCha8Rng) -> Vec<(Vec<u32>, u64, bool, bool)> {
    (0..steps)
        .map(|t| {
            let action = actions(env.env.action_space(), 1, rng);
            let step = env.step(action.leaf()).unwrap();
            let seen = env.f32().iter().map(|x| x.to_bits()).collect();
            if step.terminated || step.truncated {
                env.reset(t).unwrap();
            }
            (seen, step.reward.to_bits(), step.terminated, step.truncated)
        })
        .collect()
}

fn comes_back<E: Env>(make: impl Fn() -> E) {
    for steps in [0, 1, 10, 123] {
        let mut first = Single::new(make());
        first.reset(5).unwrap();
        record(&mut first, steps, &mut ChaCha8Rng::seed_from_u64(1));
        let saved = first.env.save().unwrap();
        let expected = record(&mut first, 300, &mut ChaCha8Rng::seed_from_u64(2));
        let mut second = Single::new(make());
        second.env.load(&saved).unwrap();
        assert_eq!(second.env.save().unwrap(), saved);
        assert_eq!(record(&mut second, 300, &mut ChaCha8Rng::seed_from_u64(2)), expected);
    }
}

#[test]
fn native_environments_come_back() {
    comes_back(|| CartPole::new(false));
    comes_back(|| Pendulum::new(9.81));
    comes_back(SealsCartPole::new);
    comes_back(|| Acrobot::new(AcrobotVersion::V0));
    comes_back(|| Acrobot::new(AcrobotVersion::V1));
    comes_back(|| TMaze::new(4));
    comes_back(|| MountainCar::new(0.01));
    comes_back(|| MountainCar::seals(0.0));
    comes_back(|| MountainCarContinuous::new(0.0));
    comes_back(|| TimeLimit::new(CartPole::new(true), 20));
    comes_back(|| TimeLimit::new(Pendulum::new(10.0), 17));
    comes_back(|| TimeLimit::new(SealsCartPole::new(), 100));
}

#[test]
fn groups_come_back() {
    let registry = Registry::builtin();
    for (id, _) in registry.ids().filter(|(id, _)| registry.extra(id).is_none()) {
        let make = || Registry::builtin().make_group(&spec(id, "", Some(30)), 5).unwrap();
        let run = |group: &mut dyn VecEnv, rows: &mut Rows, seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut seen = Vec::new();
            for _ in 0..100 {
                let action = actions(&group.action_space().clone(), group.len(), &mut rng);
                rows.step(group, action.leaf()).unwrap();
                let numbers = |leaf: Leaf| match leaf {
                    Leaf::U8(bytes) => bytes.iter().map(|&byte| f32::from(byte)).collect(),
                    floats => floats.f32().to_vec(),
                };
                let finals: Vec<_> = rows.finals.iter().map(|(i, leaf)| (i, numbers(leaf))).collect();
                seen.push((rows.observation.clone(), rows.reward.clone(), rows.truncated.clone(), finals));
            }
            seen
        };
        let mut first = make();
        let mut rows = Rows::new(first.as_ref());
        first.reset(&seeds, rows.observation.leaf_mut()).unwrap();
        run(first.as_mut(), &mut rows, 1);
        let saved = first.save();
        let expected = run(first.as_mut(), &mut rows, 2);
        let mut second = make();
        let mut rows = Rows::new(second.as_ref());
        assert!(second.load(&saved, &seeds, rows.observation.leaf_mut()).unwrap().is_empty());
        assert_eq!(second.save(), saved);
        assert_eq!(run(second.as_mut(), &mut rows, 2), expected);
    }
}

#[test]
fn wrong_states_are_refused_with_the_reason() {
    let message = |error: Result<()>| error.unwrap_err().to_string();
    let mut env = TimeLimit::new(CartPole::new(false), 10);
    assert_eq!(
        message(env.load(&[1, 2, 3])),
        "environment `CartPole-v1` cannot be restored: the saved state has 3 bytes and lacks the step counter"
    );
    assert_eq!(
        message(env.load(&[0; 12])),
        "environment `CartPole-v1` cannot be restored: its state has 32 bytes, the saved one 8"
    );
    let nan: Vec<u8> = [f64::NAN; 2].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(
        message(Pendulum::new(10.0).load(&nan)),
        "environment `Pendulum-v1` cannot be restored: the saved state holds NaN"
    );
    let mut group = Each::new(vec![Pendulum::new(10.0); 3]);
    let saved = Each::new(vec![Pendulum::new(10.0); 2]).save();
    let mut observation = LeafBuf::zeros(group.observation_space(), 3);
    assert_eq!(
        message(group.load(&saved, &seeds, observation.leaf_mut()).map(drop)),
        "environment `Pendulum-v1` cannot be restored: the saved group has 2 environments, this one 3"
    );
}

/// An environment that cannot save: counts its steps from the seed on.
struct Counter(i64, Space);

impl Env for Counter {
    fn observation_space(&self) -> &Space {
        &self.1
    }
    fn action_space(&self) -> &Space {
        &self.1
    }
    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> Result<()> {
        self.0 = seed as i64;
        observation.i64()[0] = self.0;
        Ok(())
    }
    fn step(&mut self, _: Leaf, mut observation: LeafMut) -> Result<Step> {
        self.0 += 1;
        observation.i64()[0] = self.0;
        Ok(Step::default())
    }
}

#[test]
fn what_cannot_save_starts_its_next_episode() {
    let make = || Each::new((0..2).map(|_| Counter(0, Space::discrete(9))).collect());
    let mut group = make();
    let mut rows = Rows::new(&group);
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    rows.step(&mut group, Leaf::I64(&[0, 0])).unwrap();
    let saved = group.save();
    assert_eq!(saved, [(0, None), (0, None)]);
    let mut group = make();
    assert_eq!(group.load(&saved, &seeds, rows.observation.leaf_mut()).unwrap(), [0, 1]);
    assert_eq!(rows.observation.leaf().i64(), [1, 1001]);
    assert_eq!(group.save(), [(1, None), (1, None)]);
    assert!(TimeLimit::new(Counter(0, Space::discrete(9)), 3).save().is_none());
    match Counter(0, Space::discrete(9)).load(&[]).unwrap_err() {
        Error::CannotRestore { id, .. } => assert_eq!(id, "save_load::Counter"),
        other => panic!("{other}"),
    }
}
