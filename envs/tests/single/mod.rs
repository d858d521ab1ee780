//! One environment, or a group of one kind, with its own buffers: what the integration tests step.
#![allow(dead_code, clippy::unwrap_used)]

pub mod game;

use imago_envs::{Env, EnvSpec, Leaf, LeafBuf, Result, RowBuf, Step, VecEnv};
use std::ops::{Deref, DerefMut};

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

    pub fn u8(&self) -> &[u8] {
        self.observation.leaf().u8()
    }

    pub fn f32(&self) -> &[f32] {
        self.observation.leaf().f32()
    }
}

/// One row of a group, with its buffers.
pub struct Rows(RowBuf);

impl Rows {
    pub fn new(group: &dyn VecEnv) -> Self {
        Self(RowBuf::new(group))
    }

    pub fn step(&mut self, group: &mut dyn VecEnv, action: Leaf) -> Result<()> {
        group.step(action, &seeds, &mut self.0.row())
    }
}

impl Deref for Rows {
    type Target = RowBuf;

    fn deref(&self) -> &RowBuf {
        &self.0
    }
}

impl DerefMut for Rows {
    fn deref_mut(&mut self) -> &mut RowBuf {
        &mut self.0
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
///
/// # Panics
/// If it is missing where `make test-games` asks for it.
pub fn lacks(extra: &str) -> bool {
    let extra = imago_envs::extras::Extra::named(extra).unwrap();
    let missing = extra.missing();
    if !missing.is_empty() {
        assert!(
            std::env::var_os("IMAGO_TEST_GAMES").is_none(),
            "{} is missing: {}",
            missing.join(", "),
            extra.command()
        );
        eprintln!("skipped: needs {} ({})", missing.join(", "), extra.command());
    }
    !missing.is_empty()
}
