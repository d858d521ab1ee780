//! Observations made smaller.

use super::picture::{Picture, PictureConfig};
use super::{colours, refuse};
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};

/// Crops, greys and resizes the pictures of `E`, `[H, W]` or `[H, W, C]` bytes of at most 4 colours, in one pass (see
/// [`Picture`]). Shows planes, `[C, h, w]` bytes: `[1, h, w]` in grey.
pub struct Pictures<E> {
    /// The environment itself.
    pub env: E,
    /// What it shows.
    frame: Vec<u8>,
    picture: Picture,
    space: Space,
}

impl<E: Env> Pictures<E> {
    /// Pictures as `config` has them.
    ///
    /// # Errors
    /// Observations that are no pictures; settings that do not fit them.
    pub fn new(env: E, config: &PictureConfig) -> Result<Self> {
        let space = env.observation_space();
        let key = config.first_key();
        let Some(colours) = colours(space) else {
            let hint = match space {
                Space::Fields(_) => "; pick one field with `observation`",
                _ => "",
            };
            let wanted = "it needs a picture of bytes, [height, width] or [height, width, colours]";
            return refuse(&env, key, format!("{wanted}, not {space}{hint}"));
        };
        let (height, width) = (space.shape()[0], space.shape()[1]);
        let picture = Picture::new(env.id(), config, [height, width, colours])?;
        Ok(Self { frame: vec![0; space.len()], space: Space::bytes(&picture.shape()), picture, env })
    }
}

impl<E: Env> Env for Pictures<E> {
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
        self.env.reset(seed, LeafMut::U8(&mut self.frame))?;
        self.picture.make(&self.frame, observation.u8());
        Ok(())
    }

    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        let step = self.env.step(action, LeafMut::U8(&mut self.frame))?;
        self.picture.make(&self.frame, observation.u8());
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

    fn save(&self) -> Option<Vec<u8>> {
        self.env.save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.env.load(state)
    }
}
