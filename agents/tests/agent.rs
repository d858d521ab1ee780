//! The loop of collector, learner and signals, on environments small enough to know the answer.

#![allow(missing_docs, clippy::unwrap_used)]

use imago::Stream;
use imago::nn::{ActorCritic, BoxHead, PolicySpec, Snapshot, TorsoSpec};
use imago::rollout::{Collector, CollectorSpec};
use imago::run::{Log, Train};
use imago::signal::{Extrinsic, Signals, Stacked, ValueHead, When};
use imago_agents::{Agent, Evaluation, Learner, Ppo, PpoConfig, Trpo, TrpoConfig};
use imago_envs::{Each, Env, Leaf, LeafMut, Space, Step, VecEnv};
use tch::{Kind as Number, Tensor};

/// The probe environments: one observation (a sign), two actions, a known best return.
#[derive(Clone)]
struct Probe {
    observation: Space,
    action: Space,
    sign: f32,
    step: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One step, reward 1 for the action that fits the sign.
    Match,
    /// Two steps; reward 1 at the second, if the first action fitted.
    Delayed,
}

impl Env for Probe {
    fn observation_space(&self) -> &Space {
        &self.observation
    }
    fn action_space(&self) -> &Space {
        &self.action
    }
    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> imago_envs::Result<()> {
        self.sign = if seed.is_multiple_of(2) { 1.0 } else { -1.0 };
        self.step = 0;
        observation.f32().copy_from_slice(&[self.sign, 0.0]);
        Ok(())
    }
    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> imago_envs::Result<Step> {
        let fits = (action.i64()[0] == 1) == (self.sign > 0.0);
        self.step += 1;
        let reward = match (self.kind, self.step) {
            (Kind::Match, _) => f64::from(u8::from(fits)),
            (Kind::Delayed, 1) => {
                self.sign = if fits { 1.0 } else { -1.0 };
                0.0
            }
            (Kind::Delayed, _) => f64::from(u8::from(self.sign > 0.0)),
        };
        observation.f32().copy_from_slice(&[self.sign, self.step as f32]);
        let terminated = self.kind == Kind::Match || self.step == 2;
        Ok(Step { reward, terminated, truncated: false })
    }
}

fn probes(kind: Kind, count: usize) -> Box<dyn VecEnv> {
    let probe = Probe {
        observation: Space::floats(&[2], -2.0, 2.0),
        action: Space::discrete(2),
        sign: 1.0,
        step: 0,
        kind,
    };
    Box::new(Each::new(vec![probe; count]))
}

fn spec(normalise: bool) -> PolicySpec {
    PolicySpec {
        observation: Space::floats(&[2], -2.0, 2.0),
        action: Space::discrete(2),
        torso: TorsoSpec::perceptron(&[16]),
        shared: false,
        value_heads: 1,
        normalise,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Gaussian,
        memory: None,
    }
}

fn ppo(policy: ActorCritic) -> Box<dyn Learner> {
    let config = PpoConfig { learning_rate: 3e-3, minibatch_size: 64, ..Default::default() };
    Box::new(Ppo::new(config, policy))
}

fn trpo(policy: ActorCritic) -> Box<dyn Learner> {
    let config =
        TrpoConfig { max_kl: 0.03, curvature_share: 1.0, value_horizon: Some(2), ..Default::default() };
    Box::new(Trpo::new(config, policy, &mut Stream::new(0, "value", 0, 0)).unwrap())
}

fn agent(kind: Kind, seed: u64, learner: fn(ActorCritic) -> Box<dyn Learner>) -> Agent {
    let policy = spec(true);
    let collecting = CollectorSpec {
        policy: policy.clone(),
        steps: 32,
        frame_stack: 1,
        workers: 0,
        seed,
        max_faults: 0,
        random_rollouts: 0,
    };
    let collector = Collector::new(collecting, vec![probes(kind, 8)]).unwrap();
    let learner = learner(ActorCritic::new(policy, &mut Stream::new(seed, "init", 0, 0)).unwrap());
    let signals = Signals {
        stack: vec![Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy)],
        heads: vec![ValueHead { discount: 0.99, episodic: true }],
    };
    Agent::new(
        collector,
        learner,
        signals,
        Some(Evaluation::new(probes(kind, 8), 40, seed)),
        seed,
        5_120,
        true,
    )
}

#[test]
fn solves_the_probe_environments() {
    for learner in [ppo, trpo] {
        for kind in [Kind::Match, Kind::Delayed] {
            for seed in 0..3 {
                let mut agent = agent(kind, seed, learner);
                let mut log = Log::in_memory();
                while agent.step() < 5_120 {
                    agent.iterate(&mut log).unwrap();
                }
                assert_eq!(agent.evaluate(&mut log).unwrap(), Some(1.0));
            }
        }
    }
}

/// Kullback–Leibler divergence of the policies before and after each iteration, over what was seen.
#[test]
fn a_trust_region_is_kept() {
    let mut agent = agent(Kind::Delayed, 0, trpo);
    let seen = Tensor::from_slice2(&[[1f32, 0.0], [-1.0, 0.0], [1.0, 1.0], [-1.0, 1.0]]);
    let mut moved = 0.0;
    for _ in 0..10 {
        // The statistics of the observations move after the step: the policy under the old ones is what counts.
        let old = agent.policy().snapshot();
        let mut before = ActorCritic::new(spec(true), &mut Stream::new(0, "any", 0, 0)).unwrap();
        before.restore(&old).unwrap();
        agent.iterate(&mut Log::in_memory()).unwrap();
        let mut after = ActorCritic::new(spec(true), &mut Stream::new(0, "any", 0, 0)).unwrap();
        let new = Snapshot { normaliser: old.normaliser, ..agent.policy().snapshot() };
        after.restore(&new).unwrap();
        let [p, q] = [&before, &after].map(|policy| policy.forward(&seen).0);
        assert!(p.kl(&p).abs().max().double_value(&[]) < 1e-6, "0 before");
        // The wall is twice 0.03 in the mean over a rollout in which the states are about equally frequent.
        let kl = p.kl(&q).mean(Number::Float).double_value(&[]);
        assert!((0.0..0.09).contains(&kl), "{kl}");
        moved += kl;
    }
    assert!(moved > 0.03, "{moved}");
}

/// Stored log-probabilities and values are those of the policy and the statistics that acted: the first ratio
/// of an update is 1, whatever the normaliser has been through.
#[test]
fn what_was_stored_is_what_the_policy_says_before_its_update() {
    let mut agent = agent(Kind::Delayed, 0, ppo);
    for _ in 0..3 {
        agent.iterate(&mut Log::in_memory()).unwrap();
    }
    let collecting = CollectorSpec {
        policy: spec(true),
        steps: 16,
        frame_stack: 1,
        workers: 2,
        seed: 9,
        max_faults: 0,
        random_rollouts: 0,
    };
    let groups = vec![probes(Kind::Delayed, 3), probes(Kind::Delayed, 5)];
    let batch = Collector::new(collecting, groups).unwrap().collect(agent.policy()).unwrap().batch;
    let evaluated = agent.policy().evaluate(&batch.flat_observation(), &batch.flat_action());
    let log_prob = batch.log_prob.as_ref().unwrap().view(-1);
    assert!((evaluated.log_prob - log_prob).abs().max().double_value(&[]) < 1e-5);
    let value = batch.values.as_ref().unwrap().narrow(0, 0, 16).reshape([-1, 1]);
    assert!((evaluated.value - value).abs().max().double_value(&[]) < 1e-5);
}

/// Evaluation leaves no trace: the same training with and without it.
#[test]
fn evaluation_does_not_disturb_training() {
    let trained = |evaluate: bool| {
        let mut agent = agent(Kind::Match, 4, ppo);
        let mut log = Log::in_memory();
        for _ in 0..3 {
            agent.iterate(&mut log).unwrap();
            if evaluate {
                agent.evaluate(&mut log).unwrap();
            }
        }
        agent.policy().snapshot()
    };
    let (with, without) = (trained(true), trained(false));
    assert_eq!((with.weights, with.normaliser), (without.weights, without.normaliser));
}
