//! One environment, or a group of one kind, with its own buffers: what the integration tests step.
#![allow(dead_code, clippy::unwrap_used)]

use imago_envs::{Env, EnvSpec, Finals, Leaf, LeafBuf, Result, Row, Step, VecEnv};

/// One environment with its own observation buffer.
pub struct Single<E> {
    pub env: E,
    pub observation: LeafBuf,
}

impl<E: Env> Single<E> {
    pub fn new(env: E) -> Self {
        let observation = LeafBuf::zeros(env.observation_space(), 1);
        Self { env, observation }
    }

    pub fn reset(&mut self, seed: u64) -> Result<()> {
        self.env.reset(seed, self.observation.leaf_mut())
    }

    pub fn step(&mut self, action: Leaf) -> Result<Step> {
        self.env.step(action, self.observation.leaf_mut())
    }

    pub fn f32(&self) -> &[f32] {
        self.observation.leaf().f32()
    }
}

/// One row of a group, with its buffers.
pub struct Rows {
    pub observation: LeafBuf,
    pub reward: Vec<f32>,
    pub terminated: Vec<bool>,
    pub truncated: Vec<bool>,
    pub valid: Vec<bool>,
    pub finals: Finals,
}

impl Rows {
    pub fn new(group: &dyn VecEnv) -> Self {
        let n = group.len();
        Self {
            observation: LeafBuf::zeros(group.observation_space(), n),
            reward: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
            valid: vec![false; n],
            finals: Finals::default(),
        }
    }

    pub fn step(&mut self, group: &mut dyn VecEnv, action: Leaf) -> Result<()> {
        self.finals.clear();
        let mut row = Row {
            observation: self.observation.leaf_mut(),
            reward: &mut self.reward,
            terminated: &mut self.terminated,
            truncated: &mut self.truncated,
            valid: &mut self.valid,
            finals: &mut self.finals,
        };
        group.step(action, &seeds, &mut row)
    }
}

/// Seed of an episode.
pub fn seeds(env: usize, episode: u64) -> u64 {
    1000 * env as u64 + episode
}

/// A spec with arguments written as TOML.
pub fn spec(id: &str, args: &str, time_limit: Option<u32>) -> EnvSpec {
    EnvSpec { args: args.parse().unwrap(), time_limit, ..EnvSpec::new(id) }
}

/// Whether an extra is not installed, said on standard error: the test is skipped.
pub fn lacks(extra: &str) -> bool {
    let extra = imago_envs::extras::Extra::named(extra).unwrap();
    let missing = extra.missing();
    if !missing.is_empty() {
        eprintln!("skipped: needs {} ({})", missing.join(", "), extra.command());
    }
    !missing.is_empty()
}
