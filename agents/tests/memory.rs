//! Policies with a memory: what they can do that others cannot, with every on-policy learner, signal and kind of
//! observation.

#![allow(missing_docs, clippy::unwrap_used)]

mod resumed;

use imago::Stream;
use imago::nn::{ActorCritic, BoxHead, CellKind, MemorySpec, PolicySpec, TorsoKind, TorsoSpec};
use imago::rollout::{Actor, Collector, CollectorSpec, run_episodes};
use imago::run::{Log, Train};
use imago::signal::{Extrinsic, RewardSignal, Signals, Stacked, ValueHead, When};
use imago_agents::{
    A2c, A2cConfig, Agent, Demonstrations, Descent, Evaluation, Gail, GailConfig, Icm, IcmConfig, Learner,
    Ppo, PpoConfig, Rnd, RndConfig,
};
use imago_envs::{EnvSpec, LeafBuf, Registry, VecEnv};
use resumed::{assert_same, iterate, loaded, saved};
use tch::Tensor;

const LSTM: Option<MemorySpec> = Some(MemorySpec { kind: CellKind::Lstm, units: 32 });
const GRU: Option<MemorySpec> = Some(MemorySpec { kind: CellKind::Gru, units: 32 });

#[derive(Clone, Copy, Debug, PartialEq)]
enum Algorithm {
    Ppo,
    A2c,
    A2cOneByOne,
}

impl Algorithm {
    fn learner(self, policy: ActorCritic) -> Box<dyn Learner> {
        match self {
            Algorithm::Ppo => {
                let config = PpoConfig {
                    learning_rate: 3e-3,
                    epochs: 4,
                    minibatch_size: 256,
                    entropy_coefficient: 0.01,
                    ..Default::default()
                };
                Box::new(Ppo::new(config, policy))
            }
            Algorithm::A2c | Algorithm::A2cOneByOne => {
                let one_by_one = self == Algorithm::A2cOneByOne;
                let config = A2cConfig {
                    learning_rate: if one_by_one { 1e-3 } else { 5e-3 },
                    descent: if one_by_one { Descent::EachEnvironment } else { Descent::Together },
                    entropy_coefficient: 0.01,
                    normalise_advantage: !one_by_one,
                    ..Default::default()
                };
                Box::new(A2c::new(config, policy))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Signal {
    Task,
    Icm,
    Rnd,
    Gail,
}

/// What an agent sees and does in, and with what.
#[derive(Clone, Copy, Debug)]
struct Setting {
    images: bool,
    algorithm: Algorithm,
    signal: Signal,
    memory: Option<MemorySpec>,
    shared: bool,
    steps: usize,
    workers: usize,
}

const TASK: Setting = Setting {
    images: false,
    algorithm: Algorithm::Ppo,
    signal: Signal::Task,
    memory: LSTM,
    shared: false,
    steps: 32,
    workers: 0,
};

impl Setting {
    fn envs(self, count: usize) -> Box<dyn VecEnv> {
        let spec = match self.images {
            true => EnvSpec { args: "size = 16\nframes = 2".parse().unwrap(), ..EnvSpec::new("Rooms-v0") },
            false => EnvSpec { args: "length = 6".parse().unwrap(), ..EnvSpec::new("TMaze-v0") },
        };
        Registry::builtin().make_group(&spec, count).unwrap()
    }

    fn signal(self, seed: u64) -> Box<dyn RewardSignal> {
        let envs = self.envs(1);
        let (observation, action) = (envs.observation_space(), envs.action_space());
        let mut rng = Stream::new(seed, "signal", 0, 0);
        match self.signal {
            Signal::Task => Box::new(Extrinsic),
            Signal::Icm => Box::new(Icm::new(IcmConfig::default(), observation, action, &mut rng).unwrap()),
            Signal::Rnd => {
                let config = RndConfig { predictor_hidden: vec![16], ..Default::default() };
                Box::new(Rnd::new(config, observation, envs.frame_stack(), &mut rng).unwrap())
            }
            Signal::Gail => {
                let seen = imago::rollout::leaf_tensor(&LeafBuf::zeros(observation, 4), observation);
                let done = Tensor::from_slice(&[0i64, 1, 2, 0]);
                let expert = Demonstrations::from_pairs(observation.clone(), action.clone(), seen, done);
                let torso = if self.images { TorsoKind::Icm } else { TorsoKind::Mlp };
                let config = GailConfig { torso, hidden: vec![16], ..Default::default() };
                Box::new(Gail::new(config, &expert, 4 * self.steps, &mut rng).unwrap())
            }
        }
    }

    fn agent(self, seed: u64, total: u64, groups: &[usize]) -> Agent {
        let envs = self.envs(1);
        let kind = if self.images { TorsoKind::Icm } else { TorsoKind::Mlp };
        let policy = PolicySpec {
            observation: envs.observation_space().clone(),
            action: envs.action_space().clone(),
            torso: TorsoSpec { kind, ..TorsoSpec::perceptron(&[32]) },
            shared: self.shared,
            value_heads: 1,
            normalise: !self.images,
            log_std: 0.0,
            masked: false,
            box_head: BoxHead::Gaussian,
            memory: self.memory,
        };
        let collecting = CollectorSpec {
            policy: policy.clone(),
            steps: self.steps,
            frame_stack: envs.frame_stack(),
            workers: self.workers,
            seed,
            max_faults: 0,
            random_rollouts: 0,
        };
        let groups = groups.iter().map(|&count| self.envs(count)).collect();
        let collector = Collector::new(collecting, groups).unwrap();
        let policy = ActorCritic::new(policy, &mut Stream::new(seed, "init", 0, 0)).unwrap();
        let signals = Signals {
            stack: vec![Stacked::new("signal", self.signal(seed), When::AfterPolicy)],
            heads: vec![ValueHead { discount: 0.99, episodic: true }],
        };
        let evaluation = Evaluation::new(self.envs(10), 100, seed);
        Agent::new(collector, self.algorithm.learner(policy), signals, Some(evaluation), seed, total, true)
    }

    /// Share of a hundred episodes in which it turns the right way after `total` steps.
    fn succeeds(self, seed: u64) -> f64 {
        let steps = if self.algorithm == Algorithm::Ppo { 32 } else { 16 };
        let total = 102_400;
        let setting = Self { steps, ..self };
        let mut agent = setting.agent(seed, total, &[16]);
        while agent.step() < total {
            agent.iterate(&mut Log::in_memory()).unwrap();
        }
        agent.evaluate(&mut Log::in_memory()).unwrap().unwrap()
    }
}

#[test]
fn with_a_memory_the_sign_is_remembered() {
    for seed in 0..2 {
        for (algorithm, memory, shared) in [
            (Algorithm::Ppo, LSTM, false),
            (Algorithm::Ppo, GRU, true),
            (Algorithm::A2c, LSTM, true),
            (Algorithm::A2c, GRU, false),
            (Algorithm::A2cOneByOne, LSTM, true),
        ] {
            let setting = Setting { algorithm, memory, shared, ..TASK };
            let success = setting.succeeds(seed);
            assert!(success >= 0.95, "{setting:?}, seed {seed}: {success}");
        }
    }
}

/// The control: it learns to come to the fork and to turn, and half of its turns are wrong.
#[test]
fn without_a_memory_half_of_the_turns_are_wrong() {
    for algorithm in [Algorithm::Ppo, Algorithm::A2c] {
        let success = Setting { algorithm, memory: None, ..TASK }.succeeds(0);
        assert!((0.3..=0.7).contains(&success), "{algorithm:?}: {success}");
    }
}

/// `watch` plays one episode at a time, `eval` many: they are the same.
#[test]
fn an_episode_is_the_same_alone_and_among_others() {
    for images in [false, true] {
        for memory in [LSTM, GRU] {
            let setting = Setting { images, memory, signal: Signal::Icm, shared: images, steps: 16, ..TASK };
            let mut agent = setting.agent(1, 1_000, &[4]);
            iterate(&mut agent, 2);
            let actor = Actor::Policy { policy: agent.policy(), deterministic: false };
            let played = |count: usize| {
                let episodes =
                    run_episodes(setting.envs(count).as_mut(), &actor, 6, 7, "compared", true).unwrap();
                episodes.into_iter().map(|episode| episode.record.unwrap().actions).collect::<Vec<_>>()
            };
            assert!(played(1) == played(6), "images {images}, {memory:?}");
        }
    }
}

/// Every learner × signal × kind of observation × cell: three iterations are one, a checkpoint in the middle of episodes,
/// and two of another agent with other threads.
#[test]
fn all_go_together_and_go_on_as_if_they_had_never_stopped() {
    for algorithm in [Algorithm::Ppo, Algorithm::A2c, Algorithm::A2cOneByOne] {
        for signal in [Signal::Icm, Signal::Rnd, Signal::Gail] {
            for images in [false, true] {
                for memory in [LSTM, GRU] {
                    let setting =
                        Setting { images, algorithm, signal, memory, shared: images, steps: 9, workers: 0 };
                    let mut whole = setting.agent(3, 1_000, &[2, 2]);
                    iterate(&mut whole, 3);
                    let mut first = setting.agent(3, 1_000, &[2, 2]);
                    iterate(&mut first, 1);
                    let checkpoint = saved(&mut first);
                    let remembered = &checkpoint.0["collector/group0/memory"];
                    assert!(remembered.abs().max().double_value(&[]) > 0.0, "{setting:?}");
                    let second = Setting { workers: 2, ..setting }.agent(3, 1_000, &[2, 2]);
                    let mut second = loaded(second, checkpoint);
                    iterate(&mut second, 2);
                    assert_same(&mut whole, &mut second, &format!("{setting:?}"));
                }
            }
        }
    }
}
