//! What is stored as single frames is what was seen as stacks.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::Stream;
use crate::nn::{BoxHead, TorsoSpec};
use imago_envs::{EnvSpec, Registry};

fn collector(env: &str, once: bool) -> (Collector, ActorCritic) {
    let (registry, spec) = (Registry::builtin(), EnvSpec::parse(env).unwrap());
    let groups: Vec<_> = [2, 1].into_iter().map(|n| registry.make_group(&spec, n).unwrap()).collect();
    let policy = PolicySpec {
        observation: groups[0].observation_space().clone(),
        action: groups[0].action_space().clone(),
        torso: TorsoSpec::perceptron(&[8]),
        shared: false,
        value_heads: 1,
        normalise: false,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Gaussian,
        memory: None,
    };
    let frame_stack = if once { groups[0].frame_stack() } else { 1 };
    let spec = CollectorSpec {
        policy,
        steps: 7,
        frame_stack,
        workers: 2,
        seed: 3,
        max_faults: 0,
        random_rollouts: 0,
    };
    let policy = ActorCritic::new(spec.policy.clone(), &mut Stream::new(1, "init", 0, 0)).unwrap();
    (Collector::new(spec, groups).unwrap(), policy)
}

/// Everything that may be read of a batch's observations.
fn seen(batch: &Batch) -> Vec<Tensor> {
    let Lead::Time { steps, envs } = batch.lead else { panic!("a rollout has time") };
    let some = Tensor::from_slice(&[5i64, (steps + 1) * envs - 1, 0, 5]);
    vec![
        batch.flat_observation(),
        batch.gather_observation(&some),
        batch.ends.as_ref().unwrap().observation.shallow_clone(),
        batch.values.as_ref().unwrap().shallow_clone(),
        batch.action.shallow_clone(),
    ]
}

/// Many episodes end, some at once, in stacks that are longer and shorter than they.
const ENVS: [&str; 4] = [
    "CartPole-v1?frame_stack=3",
    "CartPole-v1?frame_stack=5&time_limit=2",
    "Rooms-v0?size=8&frames=3&time_limit=5",
    "Rooms-v0?size=8&frames=1&frame_stack=12&time_limit=9",
];

#[test]
fn frames_stored_once_give_the_same_stacks() {
    for env in ENVS {
        let ((mut once, policy), (mut whole, _)) = (collector(env, true), collector(env, false));
        for rollout in 0..6 {
            let ours = once.collect(&policy).unwrap().batch;
            let theirs = whole.collect(&policy).unwrap().batch;
            assert!(theirs.stacking.is_none());
            let stack = ours.stacking.as_ref().unwrap().frames as i64;
            let numbers = |batch: &Batch, rows: i64| batch.observations.numel() as i64 / rows;
            assert_eq!(numbers(&ours, 7 + stack) * stack, numbers(&theirs, 8), "each frame once");
            assert!(seen(&ours) == seen(&theirs), "{env}, rollout {rollout}");
        }
    }
}

#[test]
fn a_resumed_stack_goes_on() {
    for env in ENVS {
        let (mut uninterrupted, policy) = collector(env, true);
        uninterrupted.collect(&policy).unwrap();
        let mut saving = State::saving();
        uninterrupted.state(&mut saving).unwrap();
        let (tensors, values) = saving.finish().unwrap();
        let (mut resumed, _) = collector(env, true);
        resumed.state(&mut State::loading(tensors.into_iter().collect(), values)).unwrap();
        for _ in 0..2 {
            let ours = resumed.collect(&policy).unwrap().batch;
            assert!(seen(&ours) == seen(&uninterrupted.collect(&policy).unwrap().batch), "{env}");
        }
    }
}

#[test]
fn what_is_no_such_stack_is_refused() {
    let (spec, registry) = (EnvSpec::new("CartPole-v1"), Registry::builtin());
    for (frame_stack, words) in [(3, "no stacks of 3"), (2, "stacks of 1 frames, not of 2")] {
        let (Collector { spec: plain, .. }, _) = collector("CartPole-v1", true);
        let refused = CollectorSpec { frame_stack, ..plain };
        let error = Collector::new(refused, vec![registry.make_group(&spec, 1).unwrap()]).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}
