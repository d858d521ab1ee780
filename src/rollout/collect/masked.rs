//! Collecting from environments with several fields and with action masks.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::Stream;
use crate::allocations;
use crate::memory::field_of;
use crate::nn::{BoxHead, TorsoSpec};
use imago_envs::{Each, Env, Leaf, LeafMut, Space, Step};
use tch::Kind;

/// Two dials. What is allowed of them changes with every step and with the episode; so does what is seen, which is
/// the mask itself. Ends after seven steps. Fails at what is not allowed.
struct Dials {
    observation: Space,
    action: Space,
    seed: u64,
    step: u64,
}

impl Dials {
    fn new() -> Self {
        Self { observation: observation(), action: Space::multi_discrete(&[3, 2]), seed: 0, step: 0 }
    }

    /// At least one of each dial.
    fn mask(&self) -> [bool; 5] {
        let bits = Stream::seed(self.seed, "dials", self.step, 0);
        let mut mask = [0, 1, 2, 3, 4].map(|i| bits >> i & 1 == 1);
        mask[(bits >> 8) as usize % 3] = true;
        mask[3 + (bits >> 16) as usize % 2] = true;
        mask
    }

    fn observe(&self, mut observation: LeafMut) {
        let mask = self.mask();
        observation.field(&self.observation, "time").f32()[0] = self.step as f32;
        let allowed = mask.map(u8::from);
        observation.field(&self.observation, "dials/allowed").u8().copy_from_slice(&allowed);
    }
}

fn observation() -> Space {
    Space::fields([("time", Space::floats(&[1], 0.0, 7.0)), ("dials/allowed", Space::multi_binary(&[5]))])
        .unwrap()
}

impl Env for Dials {
    fn observation_space(&self) -> &Space {
        &self.observation
    }
    fn action_space(&self) -> &Space {
        &self.action
    }
    fn reset(&mut self, seed: u64, observation: LeafMut) -> imago_envs::Result<()> {
        (self.seed, self.step) = (seed, 0);
        self.observe(observation);
        Ok(())
    }
    fn step(&mut self, action: Leaf, observation: LeafMut) -> imago_envs::Result<Step> {
        let (chosen, mask) = (action.i64(), self.mask());
        assert!(
            mask[chosen[0] as usize] && mask[3 + chosen[1] as usize],
            "{chosen:?} is forbidden by {mask:?}"
        );
        self.step += 1;
        self.observe(observation);
        Ok(Step { reward: 1.0, terminated: self.step == 7, truncated: false })
    }
    fn action_mask(&self, mask: &mut [bool]) -> bool {
        mask.copy_from_slice(&self.mask());
        true
    }
    fn save(&self) -> Option<Vec<u8>> {
        Some([self.seed.to_le_bytes(), self.step.to_le_bytes()].concat())
    }
    fn load(&mut self, state: &[u8]) -> imago_envs::Result<()> {
        let number = |range: std::ops::Range<usize>| u64::from_le_bytes(state[range].try_into().unwrap());
        (self.seed, self.step) = (number(0..8), number(8..16));
        Ok(())
    }
}

fn collector(workers: usize) -> Collector {
    let policy = PolicySpec {
        observation: observation(),
        action: Space::multi_discrete(&[3, 2]),
        torso: TorsoSpec::perceptron(&[8]),
        shared: false,
        value_heads: 1,
        normalise: true,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Gaussian,
        memory: None,
    };
    let group =
        |count| -> Box<dyn VecEnv> { Box::new(Each::new((0..count).map(|_| Dials::new()).collect())) };
    Collector::new(
        CollectorSpec {
            policy,
            steps: 10,
            frame_stack: 1,
            workers,
            seed: 3,
            max_faults: 0,
            random_rollouts: 0,
        },
        vec![group(2), group(1)],
    )
    .unwrap()
}

fn policy(collector: &Collector) -> ActorCritic {
    ActorCritic::new(collector.policy().clone(), &mut Stream::new(1, "init", 0, 0)).unwrap()
}

#[test]
fn masks_lie_beside_the_observations_that_they_belong_to() {
    let mut collector = collector(2);
    assert!(collector.policy().masked);
    let policy = policy(&collector);
    let Space::Fields(fields) = &observation() else { unreachable!() };
    for _ in 0..3 {
        let batch = collector.collect(&policy).unwrap().batch;
        let mask = batch.action_mask.as_ref().unwrap();
        assert_eq!(mask.size(), [10, 3, 5]);
        let seen = field_of(&batch.observations, &fields[1]);
        assert_eq!(seen.narrow(0, 0, 10), mask.to_kind(Kind::Uint8));
        // The stored probabilities are those among what was allowed.
        let (observation, action) = (batch.flat_observation(), batch.flat_action());
        let mask = batch.flat_action_mask();
        let evaluated = policy.evaluate_masked(&observation, mask.as_ref(), &action);
        let stored = batch.log_prob.as_ref().unwrap().view(-1);
        assert!((&evaluated.log_prob - &stored).abs().max().double_value(&[]) < 1e-5);
        let free = policy.evaluate(&observation, &action).log_prob;
        assert!((free - stored).abs().max().double_value(&[]) > 0.1);
    }
}

#[test]
fn resumed_collection_is_the_same_to_the_bit() {
    for workers in [0, 2] {
        let mut whole = collector(0);
        let policy = policy(&whole);
        whole.collect(&policy).unwrap();
        let mut saving = State::saving();
        whole.state(&mut saving).unwrap();
        let (tensors, values) = saving.finish().unwrap();
        let wanted = whole.collect(&policy).unwrap().batch.tensors();
        let mut resumed = collector(workers);
        let mut loading = State::loading(tensors.into_iter().collect(), values);
        resumed.state(&mut loading).unwrap();
        loading.finish().unwrap();
        let found = resumed.collect(&policy).unwrap().batch.tensors();
        assert!(wanted.iter().any(|(name, _)| name == "action_mask"));
        assert!(found == wanted, "{workers} workers");
    }
}

#[test]
fn stepping_with_masks_and_fields_allocates_nothing() {
    let collector = collector(0);
    let policy = policy(&collector);
    let envs: Vec<Dials> = (0..4).map(|_| Dials::new()).collect();
    let place = Place { index: 0, first: 0, envs: 4 };
    let rollout = Rollout::new(place, 16, collector.policy(), 1, &mut Memory::Own);
    let mut group = Group::new(Box::new(Each::new(envs)), 3, collector.policy(), 1, rollout).unwrap();
    group.collect(&policy, 0).unwrap();
    group.rollout.carry();
    group.begin();
    let mut allocated = 0;
    for t in 0..16 {
        let action: Vec<i64> = group.rollout.action_mask[t * 20..(t + 1) * 20]
            .chunks(5)
            .flat_map(|mask| {
                [&mask[..3], &mask[3..]].map(|dial| dial.iter().position(|&a| a).unwrap() as i64)
            })
            .collect();
        group.decision.action.leaf_mut().i64().copy_from_slice(&action);
        let before = allocations::in_this_thread();
        group.step(t).unwrap();
        allocated += allocations::in_this_thread() - before;
    }
    assert_eq!(allocated, 0);
    assert!(!group.rollout.events.finished.is_empty(), "ends are part of it");
}
