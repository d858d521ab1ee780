//! Curiosity learns what reward alone cannot: a corridor whose only reward lies where chance does not get.

#![allow(missing_docs, clippy::unwrap_used)]

mod resumed;

use imago::Stream;
use imago::nn::{ActorCritic, BoxHead, PolicySpec, TorsoSpec};
use imago::rollout::{Collector, CollectorSpec};
use imago::run::{Log, Train};
use imago::signal::{Extrinsic, RewardNorm, RewardSignal, Schedule, Signals, Stacked, ValueHead, When};
use imago_agents::{
    Agent, Disagreement, DisagreementConfig, E3b, E3bConfig, Evaluation, Icm, IcmConfig, Ppo, PpoConfig, Rnd,
    RndConfig, Standardise,
};
use imago_envs::{Each, Env, Leaf, LeafMut, Space, Step, VecEnv};
use resumed::{assert_same, iterate, loaded, saved};

/// Cells of the corridor. Chance is at its end within [`LIMIT`] steps once in a million episodes: 49 steps to the right
/// more than to the left, of 100, are 4.9 deviations.
const CELLS: usize = 50;
const LIMIT: u32 = 100;

/// Bit c: which action leads to the right in cell c. So a policy that happens to prefer one action gets nowhere.
const RIGHT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Begin in the first cell, see which one it is, go left or right; reward 1 for the last cell, which ends the episode.
#[derive(Clone)]
struct Corridor {
    observation: Space,
    action: Space,
    cell: usize,
    step: u32,
}

impl Corridor {
    fn new() -> Self {
        Self { observation: Space::floats(&[CELLS], 0.0, 1.0), action: Space::discrete(2), cell: 0, step: 0 }
    }

    fn show(&self, mut observation: LeafMut) {
        observation.f32().fill(0.0);
        observation.f32()[self.cell] = 1.0;
    }
}

impl Env for Corridor {
    fn observation_space(&self) -> &Space {
        &self.observation
    }
    fn action_space(&self) -> &Space {
        &self.action
    }
    fn reset(&mut self, _seed: u64, observation: LeafMut) -> imago_envs::Result<()> {
        (self.cell, self.step) = (0, 0);
        self.show(observation);
        Ok(())
    }
    fn step(&mut self, action: Leaf, observation: LeafMut) -> imago_envs::Result<Step> {
        let right = (RIGHT >> self.cell & 1) as i64;
        self.cell = if action.i64()[0] == right { self.cell + 1 } else { self.cell.saturating_sub(1) };
        self.step += 1;
        self.show(observation);
        let terminated = self.cell == CELLS - 1;
        let truncated = !terminated && self.step == LIMIT;
        Ok(Step { reward: f64::from(u8::from(terminated)), terminated, truncated })
    }
    fn save(&self) -> Option<Vec<u8>> {
        Some(vec![self.cell as u8, self.step as u8])
    }
    fn load(&mut self, state: &[u8]) -> imago_envs::Result<()> {
        (self.cell, self.step) = (usize::from(state[0]), u32::from(state[1]));
        Ok(())
    }
}

fn corridors(count: usize) -> Box<dyn VecEnv> {
    Box::new(Each::new(vec![Corridor::new(); count]))
}

/// A curious signal for the corridor; its second head's returns do not end with episodes.
#[derive(Clone, Copy, Debug)]
enum Curiosity {
    Nothing,
    Icm,
    Rnd,
    Disagreement,
    E3b,
}

impl Curiosity {
    fn signal(self, seed: u64) -> Option<Box<dyn RewardSignal>> {
        let (Corridor { observation, action, .. }, mut rng) =
            (Corridor::new(), Stream::new(seed, "curiosity", 0, 0));
        let hidden = Some(vec![64]);
        Some(match self {
            Curiosity::Nothing => return None,
            Curiosity::Icm => {
                let config = IcmConfig {
                    hidden,
                    standardise: Standardise::Nothing,
                    width: 64,
                    minibatch_size: 64,
                    ..Default::default()
                };
                Box::new(Icm::new(config, &observation, &action, &mut rng).unwrap())
            }
            Curiosity::Rnd => {
                let config = RndConfig {
                    hidden,
                    outputs: 32,
                    predictor_hidden: vec![64],
                    learning_rate: 1e-3,
                    update_share: 1.0,
                    epochs: 1,
                    minibatch_size: 64,
                    ..Default::default()
                };
                Box::new(Rnd::new(config, &observation, 1, &mut rng).unwrap())
            }
            Curiosity::Disagreement => {
                let config = DisagreementConfig {
                    hidden,
                    standardise: Standardise::Nothing,
                    width: 64,
                    learning_rate: 1e-3,
                    minibatch_size: 64,
                    ..Default::default()
                };
                Box::new(Disagreement::new(config, &observation, &action, &mut rng).unwrap())
            }
            Curiosity::E3b => {
                let config =
                    E3bConfig { hidden, standardise: Standardise::Nothing, width: 64, ..Default::default() };
                Box::new(E3b::new(config, &observation, &action, &mut rng).unwrap())
            }
        })
    }
}

fn agent(curiosity: Curiosity, seed: u64, total: u64) -> Agent {
    let mut stack = vec![Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy)];
    stack[0].weight = Schedule::constant(10.0);
    let mut heads = vec![ValueHead { discount: 0.99, episodic: true }];
    if let Some(signal) = curiosity.signal(seed) {
        let mut stacked = Stacked::new("curiosity", signal, When::AfterPolicy);
        stacked.normalise = RewardNorm::Returns;
        stacked.value_head = 1;
        stack.push(stacked);
        heads.push(ValueHead { discount: 0.99, episodic: false });
    }
    let policy = PolicySpec {
        observation: Corridor::new().observation,
        action: Space::discrete(2),
        torso: TorsoSpec::perceptron(&[32]),
        shared: false,
        value_heads: heads.len(),
        normalise: false,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Gaussian,
        memory: None,
    };
    let collecting = CollectorSpec {
        policy: policy.clone(),
        steps: 128,
        frame_stack: 1,
        workers: 0,
        seed,
        max_faults: 0,
        random_rollouts: 0,
    };
    let collector = Collector::new(collecting, vec![corridors(16)]).unwrap();
    let policy = ActorCritic::new(policy, &mut Stream::new(seed, "init", 0, 0)).unwrap();
    let config = PpoConfig {
        learning_rate: 1e-3,
        epochs: 4,
        minibatch_size: 256,
        entropy_coefficient: 0.01,
        ..Default::default()
    };
    let learner = Box::new(Ppo::new(config, policy));
    let evaluation = Evaluation::new(corridors(10), 10, seed);
    Agent::new(collector, learner, Signals { stack, heads }, Some(evaluation), seed, total, true)
}

/// The share of ten episodes that reach the end after `total` steps.
fn reaches(curiosity: Curiosity, seed: u64, total: u64) -> f64 {
    let mut agent = agent(curiosity, seed, total);
    while agent.step() < total {
        agent.iterate(&mut Log::in_memory()).unwrap();
    }
    agent.evaluate(&mut Log::in_memory()).unwrap().unwrap()
}

#[test]
fn reward_alone_never_finds_the_end() {
    for seed in 0..3 {
        let mut agent = agent(Curiosity::Nothing, seed, STEPS);
        while agent.step() < STEPS {
            let mut log = Log::in_memory();
            agent.iterate(&mut log).unwrap();
            // Not for want of learning: there never was anything to learn from.
            assert_eq!(log.current("task/reward_mean"), Some(0.0), "seed {seed}");
        }
        assert_eq!(agent.evaluate(&mut Log::in_memory()).unwrap(), Some(0.0), "seed {seed}");
    }
}

const STEPS: u64 = 81_920;

#[test]
fn icm_finds_the_end_of_the_corridor() {
    for seed in 0..3 {
        assert_eq!(reaches(Curiosity::Icm, seed, STEPS), 1.0, "seed {seed}");
    }
}

#[test]
fn rnd_finds_the_end_of_the_corridor() {
    for seed in 0..3 {
        assert_eq!(reaches(Curiosity::Rnd, seed, STEPS), 1.0, "seed {seed}");
    }
}

#[test]
fn disagreement_finds_the_end_of_the_corridor() {
    for seed in 0..3 {
        assert_eq!(reaches(Curiosity::Disagreement, seed, STEPS), 1.0, "seed {seed}");
    }
}

#[test]
fn e3b_finds_the_end_of_the_corridor() {
    for seed in 0..3 {
        assert_eq!(reaches(Curiosity::E3b, seed, STEPS), 1.0, "seed {seed}");
    }
}

/// N + M iterations are N iterations, a checkpoint, and M iterations of another agent, episodes of rollouts that were
/// begun, running statistics and elliptical matrices included.
#[test]
fn a_resumed_agent_goes_on_as_if_it_had_never_stopped() {
    for curiosity in [Curiosity::Icm, Curiosity::Rnd, Curiosity::Disagreement, Curiosity::E3b] {
        let made = || agent(curiosity, 5, STEPS);
        let (mut whole, mut first) = (made(), made());
        iterate(&mut whole, 5);
        iterate(&mut first, 2);
        let mut second = loaded(made(), saved(&mut first));
        iterate(&mut second, 3);
        assert_same(&mut whole, &mut second, &format!("{curiosity:?}"));
    }
}
