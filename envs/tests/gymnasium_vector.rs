//! Batched engines beside single environments, in every way in which they reset. Atari's is skipped without the extra
//! `atari`.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{EnvSpec, Leaf, LeafBuf, Registry, VecEnv};
use single::{Rows, Single, lacks, seeds, spec};

const COUNT: usize = 3;
const MODES: [&str; 3] = ["NextStep", "SameStep", "Disabled"];

/// Gymnasium's own loop over single environments as an engine.
fn sync(mode: &str) -> EnvSpec {
    let args = format!("vectorization_mode = \"sync\"\nvector_kwargs = {{ autoreset_mode = \"{mode}\" }}");
    spec("vec:CartPole-v1", &args, None)
}

fn actions(t: usize) -> [i64; COUNT] {
    // The pole falls now here, now there.
    [0, i64::from(!t.is_multiple_of(3)), i64::from(t % 5 > 1)]
}

fn group(spec: &EnvSpec) -> (Box<dyn VecEnv>, Rows) {
    let mut group = Registry::builtin().make_group(spec, COUNT).unwrap();
    let mut rows = Rows::new(group.as_ref());
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    (group, rows)
}

fn finals(rows: &Rows) -> Vec<(usize, Vec<f32>)> {
    rows.finals.iter().map(|(env, leaf)| (env, leaf.f32().to_vec())).collect()
}

/// With the seed of each episode, an engine is the same as environments one by one.
#[test]
fn an_engine_that_is_reset_here_equals_single_environments() {
    let (mut engine, mut rows) = group(&sync("Disabled"));
    let (mut each, mut expected) = group(&EnvSpec::new("gym:CartPole-v1"));
    assert_eq!(engine.observation_space(), each.observation_space());
    assert_eq!(engine.action_space(), each.action_space());
    let mut ends = 0;
    for t in 0..200 {
        rows.step(engine.as_mut(), Leaf::I64(&actions(t))).unwrap();
        expected.step(each.as_mut(), Leaf::I64(&actions(t))).unwrap();
        assert_eq!(rows.observation, expected.observation, "step {t}");
        assert_eq!((&rows.reward, &rows.terminated), (&expected.reward, &expected.terminated), "step {t}");
        assert_eq!((&rows.truncated, &rows.valid), (&expected.truncated, &expected.valid), "step {t}");
        assert_eq!(finals(&rows), finals(&expected), "step {t}");
        ends += finals(&rows).len();
    }
    assert!(ends > 20, "{ends}");
    let saved = |group: &dyn VecEnv| group.save().into_iter().map(|(episode, _)| episode).collect::<Vec<_>>();
    assert_eq!(saved(engine.as_ref()), saved(each.as_ref()));
    // A resumed run begins new episodes everywhere, with their own seeds.
    let state = engine.save();
    let (mut other, _) = group(&sync("Disabled"));
    let mut observations = LeafBuf::zeros(each.observation_space(), COUNT);
    let mut as_expected = observations.clone();
    assert_eq!(other.load(&state, &seeds, observations.leaf_mut()).unwrap(), [0, 1, 2]);
    assert_eq!(each.load(&state, &seeds, as_expected.leaf_mut()).unwrap(), [0, 1, 2]);
    assert_eq!(observations, as_expected);
    assert!(other.load(&state[..2], &seeds, observations.leaf_mut()).is_err());
}

/// What holds for any engine, seen from its rows.
fn follow(
    group: &mut dyn VecEnv,
    rows: &mut Rows,
    next_step: bool,
    action: impl Fn(usize) -> Vec<i64>,
) -> usize {
    let (count, size) = (group.len(), group.observation_space().len());
    let part = |leaf: &LeafBuf, i: usize| format!("{:?}", leaf.leaf().part(i, size));
    let (mut ended, mut ends) = (vec![false; count], 0);
    for t in 0..300 {
        rows.step(group, Leaf::I64(&action(t))).unwrap();
        let mut last = rows.finals.iter().map(|(env, leaf)| (env, format!("{leaf:?}")));
        for (i, ended) in ended.iter_mut().enumerate() {
            if *ended {
                // The reset row counts nowhere.
                assert!(!rows.valid[i] && !rows.terminated[i] && !rows.truncated[i], "step {t}");
                assert_eq!(rows.reward[i], 0.0);
                *ended = false;
                continue;
            }
            assert!(rows.valid[i]);
            if rows.terminated[i] || rows.truncated[i] {
                let (env, last) = last.next().unwrap();
                assert_eq!(env, i);
                // On the next step: the row itself is the last one. In the same step: it is the first of the next.
                assert_eq!(last == part(&rows.observation, i), next_step, "step {t}");
                *ended = next_step;
                ends += 1;
            }
        }
        assert!(last.next().is_none());
    }
    ends
}

#[test]
fn resets_on_the_next_step_and_in_the_same_one() {
    for mode in ["NextStep", "SameStep"] {
        let (mut engine, mut rows) = group(&sync(mode));
        let ends = follow(engine.as_mut(), &mut rows, mode == "NextStep", |t| actions(t).to_vec());
        assert!(ends > 20, "{mode}: {ends}");
        // First episodes have the seeds they are given.
        let (mut engine, mut rows) = group(&sync(mode));
        let (mut each, mut expected) = group(&EnvSpec::new("gym:CartPole-v1"));
        for t in 0.. {
            rows.step(engine.as_mut(), Leaf::I64(&actions(t))).unwrap();
            expected.step(each.as_mut(), Leaf::I64(&actions(t))).unwrap();
            assert_eq!(finals(&rows), finals(&expected));
            if !rows.finals.is_empty() {
                break;
            }
            assert_eq!(rows.observation, expected.observation);
        }
    }
    // Gymnasium's own engine for CartPole, written for batches; one seed for all.
    let (mut engine, mut rows) = group(&EnvSpec::new("vec:CartPole-v1"));
    assert!(follow(engine.as_mut(), &mut rows, true, |t| actions(t).to_vec()) > 10);
}

/// A batch of one as a single environment.
#[test]
fn a_batch_of_one_is_an_environment() {
    let registry = Registry::builtin();
    for mode in MODES {
        let mut engine = Single::new(registry.make(&sync(mode)).unwrap());
        let mut plain = Single::new(registry.make(&EnvSpec::new("gym:CartPole-v1")).unwrap());
        for seed in 0..4 {
            engine.reset(seed).unwrap();
            plain.reset(seed).unwrap();
            assert_eq!(engine.observation, plain.observation);
            for t in 0.. {
                let action = [i64::from(t % 4 > 1)];
                let step = engine.step(Leaf::I64(&action)).unwrap();
                assert_eq!(step, plain.step(Leaf::I64(&action)).unwrap(), "{mode}, step {t}");
                assert_eq!(engine.observation, plain.observation, "{mode}, step {t}");
                if step.terminated {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_is_no_engine_says_so() {
    let registry = Registry::builtin();
    let refused = |id: &str| registry.make(&EnvSpec::new(id)).err().unwrap().to_string();
    let said = refused("vec:Pendulum-v1");
    assert!(
        said.starts_with("environment `vec:Pendulum-v1`: make: ") && said.contains("vector entry point"),
        "{said}"
    );
    assert!(refused("vec:Nope-v0").contains("`Nope` doesn't exist"));
    let blackjack = spec("vec:Blackjack-v1", "vectorization_mode = \"sync\"", None);
    let said = registry.make_group(&blackjack, 2).err().unwrap().to_string();
    assert!(said.contains("`vec:Blackjack-v1`") && said.contains("take gym: in place of vec:"), "{said}");
}

#[test]
fn atari() {
    if lacks("atari") {
        return;
    }
    for mode in ["NextStep", "SameStep"] {
        // A ball lost is an end.
        let args =
            format!("episodic_life = true\nautoreset_mode = \"{mode}\"\nimg_height = 42\nimg_width = 42");
        let spec = spec("vec:ALE/Breakout-v5", &args, None);
        let (mut engine, mut rows) = group(&spec);
        assert_eq!(engine.observation_space().to_string(), "Box([4, 42, 42], uint8, 0 to 255)");
        assert_eq!(engine.action_space().to_string(), "Discrete(4)");
        let action = |t: usize| [1, 2 + t / 7 % 2, t % 4].map(|x| x as i64).to_vec();
        let ends = follow(engine.as_mut(), &mut rows, mode == "NextStep", action);
        assert!(ends > 5, "{mode}: {ends}");
        // A run repeats.
        let run = || {
            let (mut engine, mut rows) = group(&spec);
            let step = |t| {
                rows.step(engine.as_mut(), Leaf::I64(&action(t))).unwrap();
                (rows.observation.clone(), rows.reward.clone())
            };
            (0..100).map(step).collect::<Vec<_>>()
        };
        assert!(run() == run(), "{mode}");
    }
}
