//! What an environment shows, as image files: a folder for each episode, a file for each moment.

use imago::generative::grid::png;
use imago_envs::{Env, Error, Leaf, LeafMut, Space, Step};
use std::path::{Path, PathBuf};

/// An environment whose every moment becomes a file.
pub struct Filmed<'a> {
    env: Box<dyn Env>,
    folder: PathBuf,
    /// How many episodes are wanted: after the last one a group begins another.
    wanted: usize,
    episode: usize,
    step: usize,
    /// Files written.
    written: &'a mut usize,
}

impl<'a> Filmed<'a> {
    /// Of `wanted` episodes, into `folder`.
    pub fn new(env: Box<dyn Env>, folder: &Path, wanted: usize, written: &'a mut usize) -> Self {
        Self { env, folder: folder.into(), wanted, episode: 0, step: 0, written }
    }

    fn picture(&mut self) -> imago_envs::Result<()> {
        if self.episode > self.wanted {
            return Ok(());
        }
        let frame = self.env.render()?;
        let failed = |message: String| Error::Contract { id: self.env.id().into(), message };
        let frame = frame.ok_or_else(|| failed("it has stopped giving pictures".into()))?;
        let episode = self.folder.join(format!("episode-{:04}", self.episode));
        let path = episode.join(format!("{:06}.png", self.step));
        let bytes = png(&frame).map_err(|error| failed(error.to_string()))?;
        let written = std::fs::create_dir_all(&episode).and_then(|()| std::fs::write(&path, bytes));
        written.map_err(|error| failed(format!("cannot write {}: {error}", path.display())))?;
        *self.written += 1;
        Ok(())
    }
}

impl Env for Filmed<'_> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        self.env.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.env.action_space()
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> imago_envs::Result<()> {
        self.env.reset(seed, observation)?;
        (self.episode, self.step) = (self.episode + 1, 0);
        self.picture()
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> imago_envs::Result<Step> {
        let step = self.env.step(action, observation)?;
        self.step += 1;
        self.picture()?;
        Ok(step)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        self.env.action_mask(mask)
    }

    fn info(&self, name: &str) -> Option<f64> {
        self.env.info(name)
    }
}
