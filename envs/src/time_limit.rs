//! Episodes that are cut off after a number of steps.

use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};

/// Truncates episodes of `E` at a number of steps, as Gymnasium's wrapper of the same name does: at the limit
/// `truncated` is set even where the same step terminates. A later owner of the step looks at `terminated`
/// first.
#[derive(Clone, Debug)]
pub struct TimeLimit<E> {
    /// The environment itself.
    pub env: E,
    limit: u32,
    elapsed: u32,
}

impl<E: Env> TimeLimit<E> {
    /// Truncates after `limit` steps.
    ///
    /// # Panics
    /// If `limit` is 0: every episode has a step.
    pub fn new(env: E, limit: u32) -> Self {
        assert!(limit > 0, "a time limit is at least one step");
        Self { env, limit, elapsed: 0 }
    }
}

impl<E: Env> Env for TimeLimit<E> {
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
        self.elapsed = 0;
        self.env.reset(seed, observation)
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let mut step = self.env.step(action, observation)?;
        self.elapsed = self.elapsed.saturating_add(1);
        step.truncated |= self.elapsed >= self.limit;
        Ok(step)
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

    fn frame_stack(&self) -> usize {
        self.env.frame_stack()
    }

    /// Steps taken so far (u32, little-endian), then the inner state. `None` where the environment cannot say.
    fn save(&self) -> Option<Vec<u8>> {
        let mut state = self.elapsed.to_le_bytes().to_vec();
        state.extend(self.env.save()?);
        Some(state)
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let (elapsed, inner) = state.split_first_chunk().ok_or_else(|| Error::CannotRestore {
            id: self.id().into(),
            message: format!("the saved state has {} bytes and lacks the step counter", state.len()),
        })?;
        self.env.load(inner)?;
        self.elapsed = u32::from_le_bytes(*elapsed);
        Ok(())
    }
}
