//! The last observations together.

use super::refuse;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use crate::state;

/// Shows the last `count` observations, oldest first; those before an episode's first one are zero (black), as in
/// Pathak et al. 2017 and Stable-Baselines3's `VecFrameStack`. Gymnasium's `FrameStackObservation` does so with
/// `padding_type = "zero"`.
///
/// They are joined along the first dimension: `[C, H, W]` becomes `[count · C, H, W]`, a vector `[N]` becomes
/// `[count · N]`. A picture `[H, W]` becomes `[count, H, W]`.
pub struct FrameStack<E> {
    /// The environment itself.
    pub env: E,
    /// The last observations, one after another.
    frames: LeafBuf,
    space: Space,
}

impl<E: Env> FrameStack<E> {
    /// Shows `count` observations.
    ///
    /// # Errors
    /// A count outside 1 to 64; observations that are no box.
    pub fn new(env: E, count: usize) -> Result<Self> {
        if !(1..=64).contains(&count) {
            return refuse(&env, "frame_stack", format!("expected 1 to 64 observations, found {count}"));
        }
        let space = env.observation_space();
        let Space::Box { shape, dtype, low, high } = space else {
            let hint = match space {
                Space::Fields(_) => "; pick one field with `observation`",
                _ => "",
            };
            return refuse(
                &env,
                "frame_stack",
                format!("only observations of one box can be stacked, not {space}{hint}"),
            );
        };
        let shape = match **shape {
            [] => vec![count],
            [height, width] => vec![count, height, width],
            [first, ref rest @ ..] => [&[count * first], rest].concat(),
        };
        // What lies before an episode is zero, whatever the environment's bounds.
        let space = Space::Box {
            shape,
            dtype: *dtype,
            low: low.iter().map(|low| low.min(0.0)).collect::<Vec<_>>().repeat(count),
            high: high.iter().map(|high| high.max(0.0)).collect::<Vec<_>>().repeat(count),
        };
        Ok(Self { frames: LeafBuf::zeros(&space, 1), space, env })
    }

    /// Bytes of one observation.
    fn bytes(&self) -> usize {
        let space = self.env.observation_space();
        space.len() * space.dtype().size()
    }
}

impl<E: Env> Env for FrameStack<E> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        &self.space
    }

    fn action_space(&self) -> &Space {
        self.env.action_space()
    }

    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> Result<()> {
        let size = self.env.observation_space().len();
        self.frames.bytes_mut().fill(0);
        self.env.reset(seed, self.frames.leaf_mut().part(self.space.len() / size - 1, size))?;
        observation.copy_from(self.frames.leaf());
        Ok(())
    }

    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        let size = self.env.observation_space().len();
        let bytes = self.bytes();
        self.frames.bytes_mut().copy_within(bytes.., 0);
        let newest = self.space.len() / size - 1;
        let step = self.env.step(action, self.frames.leaf_mut().part(newest, size))?;
        observation.copy_from(self.frames.leaf());
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
        // A stack of stacks is none.
        if self.env.frame_stack() == 1 { self.space.len() / self.env.observation_space().len() } else { 1 }
    }

    /// The observations, then the inner state.
    fn save(&self) -> Option<Vec<u8>> {
        let inner = self.env.save()?;
        Some([self.frames.bytes(), &inner].concat())
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let (frames, inner) =
            state::split(self.id(), state, self.frames.bytes().len(), "its last observations")?;
        self.env.load(inner)?;
        self.frames.bytes_mut().copy_from_slice(frames);
        Ok(())
    }
}
