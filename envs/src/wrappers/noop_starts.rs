//! Episodes that begin somewhere else each time, in games that always begin in the same place.

use super::{noop, refuse, stream};
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use rand::{Rng, RngExt};

/// Takes a random number of steps of action 0 after each reset (Mnih et al. 2015; Gymnasium's `AtariPreprocessing`).
///
/// The number is uniform in 1 to `most`, drawn from the episode's seed. If the game ends meanwhile, it is reset and
/// the rest of the steps follows. That reset has a seed of its own, drawn from the episode's: with the same one,
/// which Gymnasium's gives it, the same steps would end there again.
pub struct NoopStarts<E> {
    /// The environment itself.
    pub env: E,
    most: u32,
    noop: LeafBuf,
}

impl<E: Env> NoopStarts<E> {
    /// At most `most` steps.
    ///
    /// # Errors
    /// `most` is 0, or an action of zeros is outside the action space.
    pub fn new(env: E, most: u32) -> Result<Self> {
        if most == 0 {
            return refuse(&env, "noop_max", "expected at least 1 step, found 0; leave it out for none");
        }
        Ok(Self { noop: noop(&env, "noop_max")?, most, env })
    }
}

impl<E: Env> Env for NoopStarts<E> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        self.env.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.env.action_space()
    }

    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> Result<()> {
        let size = self.env.observation_space().len();
        let mut rng = stream(seed, *b"no-op\0\0\0");
        self.env.reset(seed, observation.part(0, size))?;
        for _ in 0..rng.random_range(1..=self.most) {
            let step = self.env.step(self.noop.leaf(), observation.part(0, size))?;
            if step.terminated || step.truncated {
                self.env.reset(rng.next_u64(), observation.part(0, size))?;
            }
        }
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        self.env.step(action, observation)
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

    fn save(&self) -> Option<Vec<u8>> {
        self.env.save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.env.load(state)
    }
}
