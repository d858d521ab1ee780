//! What must hold for any input.
#![allow(clippy::unwrap_used)]

use imago_envs::{
    CartPole, Dtype, Env, EnvSpec, Frame, LeafBuf, Pendulum, Registry, SealsCartPole, Space, TimeLimit,
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
    prop_oneof![boxes, (any::<i64>(), any::<i64>()).prop_map(|(n, start)| Space::Discrete { n, start })]
}

proptest! {
    #[test]
    fn spaces_survive_json(space in space()) {
        let text = serde_json::to_string(&space).unwrap();
        prop_assert_eq!(serde_json::from_str::<Space>(&text).unwrap(), space);
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
        let envs: [Box<dyn Env>; 4] = [
            Box::new(CartPole::new(false)),
            Box::new(SealsCartPole::new()),
            Box::new(TimeLimit::new(Pendulum::new(10.0), 200)),
            Box::new(TimeLimit::new(CartPole::new(false), 500)),
        ];
        for (mut env, size) in envs.into_iter().zip([32, 32, 20, 36]) {
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
    let space = Space::Box {
        shape: vec![84, 84, 3],
        dtype: Dtype::U8,
        low: vec![0.0; 21168],
        high: vec![255.0; 21168],
    };
    assert_eq!(
        serde_json::to_string(&space).unwrap(),
        r#"{"box":{"shape":[84,84,3],"dtype":"u8","low":[[0.0,21168]],"high":[[255.0,21168]]}}"#
    );
}
