//! What must hold for any input.
#![allow(clippy::unwrap_used)]

use imago_envs::{
    Acrobot, AcrobotVersion, CartPole, Dtype, Env, EnvSpec, Frame, LeafBuf, LeafMut, MountainCar,
    MountainCarContinuous, Pendulum, Registry, SealsCartPole, Space, TimeLimit,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn bound() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE, Just(0.0), Just(255.0)]
}

/// Bounds in runs, as images have them.
fn space() -> impl Strategy<Value = Space> {
    let runs = vec((bound(), bound(), 1..4000usize), 0..6);
    let boxes = (runs, any::<bool>()).prop_map(|(runs, bytes)| {
        let spread = |pick: fn(&(f64, f64, usize)) -> f64| -> Vec<f64> {
            runs.iter().flat_map(|run| std::iter::repeat_n(pick(run), run.2)).collect()
        };
        let (low, high) = (spread(|run| run.0), spread(|run| run.1));
        Space::Box { shape: vec![low.len()], dtype: if bytes { Dtype::U8 } else { Dtype::F32 }, low, high }
    });
    let choices = vec((any::<i64>(), any::<i64>()), 0..5).prop_map(|choices| {
        let (n, start): (Vec<i64>, Vec<i64>) = choices.into_iter().unzip();
        Space::MultiDiscrete { shape: vec![n.len()], n, start }
    });
    let leaf = prop_oneof![
        boxes,
        (any::<i64>(), any::<i64>()).prop_map(|(n, start)| Space::Discrete { n, start }),
        choices,
        vec(0..9usize, 0..3).prop_map(|shape| Space::MultiBinary { shape }),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let several =
            vec(inner, 1..4).prop_map(|spaces| Space::fields((0..).map(|i: u32| i.to_string()).zip(spaces)));
        several.prop_filter_map("records of no byte", |fields| fields.ok())
    })
}

/// Spaces of every kind, nested, small enough to fill many of them.
fn small_space() -> impl Strategy<Value = Space> {
    let shape = || vec(1..4usize, 0..4);
    let leaf = prop_oneof![
        shape().prop_map(|shape| Space::floats(&shape, -1.0, 1.0)),
        shape().prop_map(|shape| Space::bytes(&shape)),
        (1..9i64, any::<i64>()).prop_map(|(n, start)| Space::Discrete { n, start }),
        vec(1..9i64, 1..5).prop_map(|n| Space::multi_discrete(&n)),
        shape().prop_map(|shape| Space::MultiBinary { shape }),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        vec(inner, 1..5)
            .prop_map(|spaces| Space::fields((0..).map(|i: u32| i.to_string()).zip(spaces)).unwrap())
    })
}

/// Writes values that follow from `next` into every leaf of an element, or compares them with what is there.
fn each_value(space: &Space, mut element: LeafMut, next: &mut dyn FnMut() -> u64, write: bool) {
    fn values<T: PartialEq + std::fmt::Debug>(to: &mut [T], mut next: impl FnMut() -> T, write: bool) {
        for value in to {
            let wanted = next();
            if write {
                *value = wanted;
            } else {
                assert_eq!(*value, wanted);
            }
        }
    }
    match space {
        Space::Fields(fields) => {
            for field in fields.iter() {
                each_value(&field.space, element.field(space, &field.name), next, write);
            }
        }
        _ => match space.dtype() {
            Dtype::F32 => values(element.f32(), || next() as f32, write),
            Dtype::U8 => values(element.u8(), || next() as u8, write),
            Dtype::I64 => values(element.i64(), || next() as i64, write),
        },
    }
}

proptest! {
    #[test]
    fn spaces_survive_json(space in space()) {
        let text = serde_json::to_string(&space).unwrap();
        prop_assert_eq!(serde_json::from_str::<Space>(&text).unwrap(), space);
    }

    /// Whatever the space, what is written into one element of a group is read there and nowhere else.
    #[test]
    fn elements_give_back_what_was_written(space in small_space(), count in 1..4usize, seed in any::<u64>()) {
        let mut group = LeafBuf::zeros(&space, count);
        for write in [true, false] {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                state >> 20
            };
            // Backwards, so that writing past an end would spoil what is there already.
            for i in (0..count).rev() {
                each_value(&space, group.leaf_mut().part(i, space.len()), &mut next, write);
            }
        }
        let mut copied = LeafBuf::zeros(&space, 0);
        (0..count).for_each(|i| copied.extend(group.leaf().part(i, space.len())));
        prop_assert_eq!(copied, group);
        if let Space::Fields(fields) = &space {
            prop_assert!(fields.iter().all(|field| field.offset % 8 == 0) && space.len() % 8 == 0);
            prop_assert_eq!(fields.iter().map(|field| field.bytes()).sum::<usize>(), space.len());
        }
    }

    #[test]
    fn spaces_from_any_text_do_not_panic(text in "\\PC*", runs in vec((any::<f64>(), any::<u32>()), 0..4)) {
        let _ = serde_json::from_str::<Space>(&text);
        let text = format!(r#"{{"box":{{"shape":[1],"dtype":"f32","low":{runs:?},"high":[]}}}}"#);
        let text = text.replace('(', "[").replace(')', "]");
        // Long runs would only cost time here; whole-number counts beyond the limit are refused.
        if runs.iter().all(|run| run.1 > 1 << 26 || run.1 < 1 << 16) {
            let _ = serde_json::from_str::<Space>(&text);
        }
    }

    #[test]
    fn loading_any_bytes_does_not_panic(bytes in vec(any::<u8>(), 0..50)) {
        let envs: [Box<dyn Env>; 7] = [
            Box::new(CartPole::new(false)),
            Box::new(SealsCartPole::new()),
            Box::new(TimeLimit::new(Pendulum::new(10.0), 200)),
            Box::new(TimeLimit::new(CartPole::new(false), 500)),
            Box::new(Acrobot::new(AcrobotVersion::V1)),
            Box::new(MountainCar::new(0.0)),
            Box::new(MountainCarContinuous::new(0.0)),
        ];
        for (mut env, size) in envs.into_iter().zip([32, 32, 20, 36, 32, 16, 16]) {
            let loaded = env.load(&bytes).is_ok();
            prop_assert!(!loaded || bytes.len() == size);
            if loaded {
                prop_assert_eq!(env.save().unwrap(), bytes.clone());
            }
        }
    }
}

#[test]
fn classic_environments_draw_their_state() {
    for id in ["CartPole-v1", "seals/CartPole-v0", "Pendulum-v1"] {
        let mut env = Registry::builtin().make(&EnvSpec::new(id)).unwrap();
        let mut observation = LeafBuf::zeros(env.observation_space(), 1);
        let mut pictures: Vec<Frame> = (0..2)
            .map(|seed| {
                env.reset(seed, observation.leaf_mut()).unwrap();
                env.render().unwrap().unwrap()
            })
            .collect();
        assert_eq!(pictures[0].pixels.len(), pictures[0].width * pictures[0].height, "{id}");
        assert_ne!(pictures[0], pictures[1], "{id}");
        env.reset(1, observation.leaf_mut()).unwrap();
        assert_eq!(pictures.pop(), env.render().unwrap(), "{id}");
    }
}

#[test]
fn an_image_space_is_short_text() {
    let space = Space::bytes(&[84, 84, 3]);
    assert_eq!(
        serde_json::to_string(&space).unwrap(),
        r#"{"box":{"shape":[84,84,3],"dtype":"u8","low":[[0.0,21168]],"high":[[255.0,21168]]}}"#
    );
}

#[test]
fn fields_of_a_damaged_file_are_refused() {
    for text in [
        r#"{"fields":[]}"#,
        r#"{"fields":[["a",{"discrete":{"n":2,"start":0}}],["a",{"discrete":{"n":2,"start":0}}]]}"#,
        r#"{"fields":[["a",{"multi_binary":{"shape":[18446744073709551615,2]}}]]}"#,
    ] {
        assert!(serde_json::from_str::<Space>(text).is_err(), "{text}");
    }
}

#[test]
fn spaces_of_older_files_are_read() {
    let text = r#"{"box":{"shape":[2],"dtype":"f32","low":[["-inf",2]],"high":[["inf",2]]}}"#;
    assert_eq!(
        serde_json::from_str::<Space>(text).unwrap(),
        Space::floats(&[2], f64::NEG_INFINITY, f64::INFINITY)
    );
    assert_eq!(
        serde_json::from_str::<Space>(r#"{"discrete":{"n":2,"start":0}}"#).unwrap(),
        Space::discrete(2)
    );
}
