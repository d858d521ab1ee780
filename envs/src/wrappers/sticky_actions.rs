//! Chance for games that have none.

use super::{noop, refuse, stream};
use crate::check::stray;
use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use crate::state;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// With some probability a step repeats the action of the step before (Machado et al. 2018), so that a policy must
/// watch what happens and cannot play a fixed sequence.
///
/// Drawn at each step from the episode's seed. Before an episode's first step lies action 0. A repeated action was
/// itself perhaps a repetition, as in the Arcade Learning Environment.
pub struct StickyActions<E> {
    /// The environment itself.
    pub env: E,
    probability: f64,
    /// What the episode's draws derive from, and how many there were.
    seed: u64,
    draws: u64,
    rng: ChaCha8Rng,
    /// The action that was executed last.
    previous: LeafBuf,
}

/// Draws of an episode.
fn draws_of(seed: u64) -> ChaCha8Rng {
    stream(seed, *b"sticky\0\0")
}

impl<E: Env> StickyActions<E> {
    /// Repeats with `probability`; Machado et al. have 0.25.
    ///
    /// # Errors
    /// No probability, or an action of zeros is outside the action space.
    pub fn new(env: E, probability: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&probability) {
            return refuse(
                &env,
                "sticky_actions",
                format!("expected a probability in [0, 1], found {probability}"),
            );
        }
        let previous = noop(&env, "sticky_actions")?;
        Ok(Self { probability, seed: 0, draws: 0, rng: draws_of(0), previous, env })
    }
}

impl<E: Env> Env for StickyActions<E> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        self.env.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.env.action_space()
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        (self.seed, self.draws, self.rng) = (seed, 0, draws_of(seed));
        self.previous.bytes_mut().fill(0);
        self.env.reset(seed, observation)
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let drawn: f64 = self.rng.random();
        self.draws += 1;
        if drawn >= self.probability {
            self.previous.leaf_mut().copy_from(action);
        }
        self.env.step(self.previous.leaf(), observation)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        self.env.action_mask(mask)
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        self.env.render()
    }

    fn info(&self, name: &str) -> Option<f64> {
        self.env.info(name)
    }

    /// Seed and draws (u64, little-endian), the last action, then the inner state.
    fn save(&self) -> Option<Vec<u8>> {
        let inner = self.env.save()?;
        Some([&self.seed.to_le_bytes(), &self.draws.to_le_bytes(), self.previous.bytes(), &inner].concat())
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let (seed, rest) = state::split(self.id(), state, 8, "the seed of its sticky actions")?;
        let (draws, rest) = state::split(self.id(), rest, 8, "the number of its draws")?;
        let (previous, inner) =
            state::split(self.id(), rest, self.previous.bytes().len(), "the last action")?;
        let number = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let mut action = LeafBuf::zeros(self.action_space(), 1);
        action.bytes_mut().copy_from_slice(previous);
        if let Some((_, message)) = stray(self.action_space(), action.leaf()) {
            let message = format!("the last action has {message}");
            return Err(Error::CannotRestore { id: self.id().into(), message });
        }
        self.env.load(inner)?;
        (self.seed, self.draws, self.previous) = (number(seed), number(draws), action);
        self.rng = draws_of(self.seed);
        // Each draw takes 64 bits: two of the generator's words.
        self.rng.set_word_pos(2 * u128::from(self.draws));
        Ok(())
    }
}
