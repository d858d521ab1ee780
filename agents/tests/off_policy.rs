//! Off-policy learners on tasks of seconds, beside controls that must not learn them.

#![allow(missing_docs, clippy::unwrap_used)]

use imago::Stream;
use imago::nn::{Activation, ActorCritic, BoxHead, PolicySpec, TorsoSpec};
use imago::rollout::{Actor, Collector, CollectorSpec, run_episodes};
use imago::run::{Log, State, Train};
use imago::signal::{Extrinsic, RewardSignal, Signals, Stacked, ValueHead, When};
use imago_agents::{
    Agent, Dac, DacConfig, Demonstrations, Evaluation, Learner, ReplayConfig, RewardForm, Sac, SacConfig,
    Td3, Td3Config,
};
use imago_envs::{Each, Env, EnvSpec, Leaf, LeafMut, Registry, Space, Step, VecEnv};
use std::collections::BTreeMap;

/// A walk along a line from 0; the task ends at 1, to the right. Each step costs 1.
#[derive(Clone)]
struct Walk {
    observation: Space,
    action: Space,
    place: f32,
    step: u32,
}

impl Env for Walk {
    fn observation_space(&self) -> &Space {
        &self.observation
    }
    fn action_space(&self) -> &Space {
        &self.action
    }
    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> imago_envs::Result<()> {
        (self.place, self.step) = ((seed % 100) as f32 / 500.0, 0);
        observation.f32()[0] = self.place;
        Ok(())
    }
    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> imago_envs::Result<Step> {
        self.place = (self.place + 0.2 * action.f32()[0]).max(-1.0);
        self.step += 1;
        observation.f32()[0] = self.place;
        let terminated = self.place >= 1.0;
        Ok(Step { reward: -1.0, terminated, truncated: !terminated && self.step == 40 })
    }
    fn save(&self) -> Option<Vec<u8>> {
        Some([self.place.to_le_bytes(), self.step.to_le_bytes()].concat())
    }
    fn load(&mut self, state: &[u8]) -> imago_envs::Result<()> {
        self.place = f32::from_le_bytes(state[..4].try_into().unwrap());
        self.step = u32::from_le_bytes(state[4..].try_into().unwrap());
        Ok(())
    }
}

fn walks(count: usize) -> Box<dyn VecEnv> {
    let walk = Walk {
        observation: Space::floats(&[1], -1.0, 2.0),
        action: Space::floats(&[1], -1.0, 1.0),
        place: 0.0,
        step: 0,
    };
    Box::new(Each::new(vec![walk; count]))
}

fn pendulums(count: usize) -> Box<dyn VecEnv> {
    Registry::builtin().make_group(&EnvSpec::new("Pendulum-v1"), count).unwrap()
}

type Envs = fn(usize) -> Box<dyn VecEnv>;

enum Kind {
    Sac(SacConfig),
    Td3(Td3Config),
}

/// Four environments in two groups, four steps of each between two rounds of updates.
fn agent(
    envs: Envs,
    kind: Kind,
    replay: ReplayConfig,
    signal: Box<dyn RewardSignal>,
    workers: usize,
) -> Agent {
    let one = envs(1);
    let policy = PolicySpec {
        observation: one.observation_space().clone(),
        action: one.action_space().clone(),
        torso: TorsoSpec { activation: Activation::Relu, ..TorsoSpec::perceptron(&[64, 64]) },
        shared: false,
        value_heads: 0,
        normalise: false,
        log_std: 0.0,
        masked: false,
        box_head: match &kind {
            Kind::Sac(_) => BoxHead::SquashedGaussian,
            Kind::Td3(config) => BoxHead::Deterministic { noise: config.exploration_noise },
        },
        memory: None,
    };
    let random_rollouts = replay.learning_starts.div_ceil(16);
    let collecting = CollectorSpec {
        policy: policy.clone(),
        steps: 4,
        frame_stack: 1,
        workers,
        seed: 0,
        max_faults: 0,
        random_rollouts,
    };
    let collector = Collector::new(collecting, vec![envs(2), envs(2)]).unwrap();
    let mut rng = Stream::new(0, "init", 0, 0);
    let policy = ActorCritic::new(policy, &mut rng).unwrap();
    let learner: Box<dyn Learner> = match kind {
        Kind::Sac(config) => Box::new(Sac::new(replay, config, policy, &mut rng).unwrap()),
        Kind::Td3(config) => Box::new(Td3::new(replay, config, policy, &mut rng).unwrap()),
    };
    let signals = Signals {
        stack: vec![Stacked::new("signal", signal, When::AfterPolicy)],
        heads: vec![ValueHead { discount: 0.99, episodic: true }],
    };
    Agent::new(collector, learner, signals, Some(Evaluation::new(envs(8), 16, 0)), 0, 100_000, true)
}

fn train(agent: &mut Agent, steps: u64) -> f64 {
    let mut log = Log::in_memory();
    while agent.step() < steps {
        agent.iterate(&mut log).unwrap();
    }
    agent.evaluate(&mut log).unwrap().unwrap()
}

fn fast() -> ReplayConfig {
    ReplayConfig { replay_size: 20_000, batch_size: 64, learning_starts: 500, ..Default::default() }
}

fn sac() -> Kind {
    Kind::Sac(SacConfig { learning_rate: 2e-3, ..Default::default() })
}

#[test]
fn sac_learns_pendulum_and_does_not_without_updates() {
    let mut learning = agent(pendulums, sac(), fast(), Box::new(Extrinsic), 0);
    let reached = train(&mut learning, 8_000);
    let idle = ReplayConfig { updates_per_step: 0.0, ..fast() };
    let control = train(&mut agent(pendulums, sac(), idle, Box::new(Extrinsic), 0), 8_000);
    println!("SAC reaches {reached:.0}, the control {control:.0}");
    assert!(reached > -300.0 && control < -800.0, "SAC reaches {reached}, the control {control}");
}

#[test]
fn td3_learns_pendulum() {
    let mut learning = agent(pendulums, Kind::Td3(Td3Config::default()), fast(), Box::new(Extrinsic), 0);
    let reached = train(&mut learning, 10_000);
    println!("TD3 reaches {reached:.0}");
    assert!(reached > -600.0, "{reached}");
}

/// Somebody who goes right, recorded.
fn expert() -> Demonstrations {
    let mut envs = walks(1);
    let (observation, action) = (envs.observation_space().clone(), envs.action_space().clone());
    let spec = PolicySpec {
        observation: observation.clone(),
        action: action.clone(),
        torso: TorsoSpec::perceptron(&[4]),
        shared: false,
        value_heads: 0,
        normalise: false,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Deterministic { noise: 0.1 },
        memory: None,
    };
    let mut policy = ActorCritic::new(spec, &mut Stream::new(0, "expert", 0, 0)).unwrap();
    // Nothing counts but the last bias: tanh 2 everywhere.
    let slots = &policy.parameters.layout;
    let mut weights = vec![0f32; policy.parameters.weights.numel()];
    weights[slots[slots.len() - 1].offset] = 2.0;
    policy.parameters.copy_from(&weights).unwrap();
    let actor = Actor::Policy { policy: &policy, deterministic: true };
    let recorded = run_episodes(envs.as_mut(), &actor, 4, 0, "recorded", true).unwrap();
    assert!(recorded.iter().all(|episode| episode.terminated && episode.length <= 6));
    Demonstrations::from_episodes(EnvSpec::new("Walk"), &observation, &action, &recorded).unwrap()
}

/// A reward that is always positive makes long episodes pay, whatever the expert did: whoever is not told what an end is
/// worth learns to stay. With absorbing states it learns to end, as the expert did.
#[test]
fn dac_ends_where_the_expert_did_only_with_absorbing_states() {
    let reached = |absorbing: bool| {
        let config = DacConfig { reward: RewardForm::Positive, hidden: vec![32, 32], ..Default::default() };
        let mut rng = Stream::new(0, "discriminator", 0, 0);
        let signal = Dac::new(config, &expert(), absorbing, &mut rng).unwrap();
        let replay = ReplayConfig { absorbing, target_rate: 0.05, ..fast() };
        train(&mut agent(walks, Kind::Td3(Td3Config::default()), replay, Box::new(signal), 0), 6_000)
    };
    let (with, without) = (reached(true), reached(false));
    println!("steps to the end: {:.1} with absorbing states, {:.1} without", -with, -without);
    assert!(with > -8.0, "with absorbing states it takes {} steps", -with);
    assert!(without < -25.0, "without it should stay, but takes {} steps", -without);
}

fn saved(agent: &mut Agent) -> (BTreeMap<String, tch::Tensor>, serde_json::Map<String, serde_json::Value>) {
    let mut state = State::saving();
    agent.state(&mut state).unwrap();
    let (tensors, values) = state.finish().unwrap();
    (tensors.into_iter().collect(), values)
}

/// N + M steps are N, saved, loaded into another agent, and M; and the number of workers changes nothing.
#[test]
fn resumed_training_is_the_same_to_the_bit_for_any_number_of_workers() {
    let made = |workers| {
        let config = DacConfig { hidden: vec![8], batch_size: 16, ..Default::default() };
        let signal = Dac::new(config, &expert(), true, &mut Stream::new(0, "d", 0, 0)).unwrap();
        let replay = ReplayConfig {
            absorbing: true,
            replay_size: 300,
            batch_size: 16,
            learning_starts: 64,
            ..Default::default()
        };
        agent(walks, Kind::Td3(Td3Config::default()), replay, Box::new(signal), workers)
    };
    let mut whole = made(0);
    train(&mut whole, 640);
    let mut first = made(2);
    train(&mut first, 320);
    let (tensors, values) = saved(&mut first);
    let mut second = made(1);
    let mut state = State::loading(tensors, values);
    second.state(&mut state).unwrap();
    state.finish().unwrap();
    train(&mut second, 640);
    let ((a, b), (c, d)) = (saved(&mut whole), saved(&mut second));
    assert_eq!(b, d);
    assert!(a.keys().eq(c.keys()));
    for (name, tensor) in &a {
        assert_eq!(tensor, &c[name], "{name}");
    }
}
