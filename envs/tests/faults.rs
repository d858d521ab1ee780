//! Environments that fail: the group goes on with another one, and says so.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{Each, Env, Error, Leaf, LeafMut, Result, Space, Step, VecEnv};
use single::Rows;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts its steps and shows them. Fails in the step that says so; once it has failed it always does.
struct Fragile {
    observation: Space,
    action: Space,
    steps: f32,
    broken: bool,
    /// Resets that fail, of all that were made.
    bad_resets: Arc<AtomicUsize>,
}

const OK: i64 = 0;
const FAIL: i64 = 1;
const END: i64 = 2;

fn fault() -> Error {
    Error::Contract { id: "Fragile".into(), message: "it fell to pieces".into() }
}

impl Env for Fragile {
    fn observation_space(&self) -> &Space {
        &self.observation
    }
    fn action_space(&self) -> &Space {
        &self.action
    }
    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> Result<()> {
        let bad = &self.bad_resets;
        let failed =
            bad.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if failed || self.broken {
            return Err(fault());
        }
        self.steps = 0.0;
        observation.f32().copy_from_slice(&[seed as f32, 0.0]);
        Ok(())
    }
    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        self.broken |= action.i64()[0] == FAIL;
        if self.broken {
            return Err(fault());
        }
        self.steps += 1.0;
        observation.f32()[1] = self.steps;
        Ok(Step { reward: 1.0, terminated: action.i64()[0] == END, truncated: false })
    }
}

fn group(bad_resets: &Arc<AtomicUsize>) -> Each<Fragile> {
    let bad_resets = bad_resets.clone();
    let make = move || {
        Ok(Fragile {
            observation: Space::floats(&[2], 0.0, 1e9),
            action: Space::discrete(3),
            steps: 0.0,
            broken: false,
            bad_resets: bad_resets.clone(),
        })
    };
    Each::made_by(2, make).unwrap()
}

#[test]
fn a_broken_environment_is_replaced_and_its_row_counts_nowhere() {
    let bad_resets = Arc::new(AtomicUsize::new(0));
    let mut group = group(&bad_resets);
    let mut rows = Rows::new(&group);
    group.reset(&single::seeds, rows.observation.leaf_mut()).unwrap();
    rows.step(&mut group, Leaf::I64(&[OK, OK])).unwrap();
    assert!(rows.valid == [true, true] && rows.faults.is_empty());

    rows.step(&mut group, Leaf::I64(&[OK, FAIL])).unwrap();
    assert_eq!(rows.valid, [true, false]);
    assert_eq!((rows.reward[1], rows.terminated[1], rows.truncated[1]), (0.0, false, false));
    // The other one goes on; the broken one shows the first observation of its next episode.
    assert_eq!(rows.observation.leaf().f32(), [0.0, 2.0, 1001.0, 0.0]);
    assert!(rows.finals.is_empty());
    let [fault] = &rows.faults[..] else { panic!("{:?}", rows.faults) };
    assert_eq!((fault.env, fault.seed), (1, 1000));
    assert!(fault.error.to_string().contains("fell to pieces"));

    rows.step(&mut group, Leaf::I64(&[OK, OK])).unwrap();
    assert!(rows.valid == [true, true] && rows.faults.is_empty());
}

#[test]
fn a_reset_that_fails_costs_no_finished_episode() {
    let bad_resets = Arc::new(AtomicUsize::new(0));
    let mut group = group(&bad_resets);
    let mut rows = Rows::new(&group);
    group.reset(&single::seeds, rows.observation.leaf_mut()).unwrap();
    bad_resets.store(2, Ordering::Relaxed);
    rows.step(&mut group, Leaf::I64(&[END, OK])).unwrap();
    assert!(rows.valid[0] && rows.terminated[0] && rows.finals.len() == 1);
    // Episodes 1 and 2 did not begin, 3 did.
    assert_eq!(rows.faults.iter().map(|fault| fault.seed).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(rows.observation.leaf().f32()[0], 3.0);
}

#[test]
fn where_nothing_can_take_its_place_the_step_fails() {
    let made = group(&Arc::new(AtomicUsize::new(0)));
    let one = Fragile {
        observation: made.observation_space().clone(),
        action: made.action_space().clone(),
        steps: 0.0,
        broken: false,
        bad_resets: Arc::new(AtomicUsize::new(0)),
    };
    let mut group = Each::new(vec![one]);
    let mut rows = Rows::new(&group);
    group.reset(&single::seeds, rows.observation.leaf_mut()).unwrap();
    assert!(rows.step(&mut group, Leaf::I64(&[FAIL])).is_err());
}

#[test]
fn what_never_begins_anew_is_an_error() {
    let bad_resets = Arc::new(AtomicUsize::new(0));
    let mut group = group(&bad_resets);
    let mut rows = Rows::new(&group);
    group.reset(&single::seeds, rows.observation.leaf_mut()).unwrap();
    bad_resets.store(100, Ordering::Relaxed);
    let error = rows.step(&mut group, Leaf::I64(&[FAIL, OK])).unwrap_err().to_string();
    assert!(error.contains("fell to pieces"), "{error}");
}
