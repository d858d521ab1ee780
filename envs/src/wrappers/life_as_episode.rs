//! Games of several lives, each an episode.

use super::{noop, refuse};
use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use crate::state;

/// Losing a life terminates the learner's episode; the next reset goes on in the same game, with one step of action
/// 0, unless the game is over. As Stable-Baselines3's `EpisodicLifeEnv`, but that a reset in the middle of a life
/// (after a time limit) begins a new game: there it goes on in the old one, which then may never be over.
///
/// Lives are `lives` of [`Env::info`], of which 0 is the end of the game, or else `life`, which counts those that
/// are left after this one (Super Mario Bros.). A life that is lost in the last moment of a game does not count:
/// the game itself ends then, perhaps some frames later.
///
/// The first observation after a lost life depends on the game so far and not on the seed alone.
pub struct LifeAsEpisode<E> {
    /// The environment itself.
    pub env: E,
    noop: LeafBuf,
    /// Lives at the last observation, if they are known: some games say nothing before the first step.
    lives: Option<f64>,
    /// Whether the last step lost a life, and the game goes on.
    lost: bool,
}

impl<E: Env> LifeAsEpisode<E> {
    /// Whether `env` has lives will be seen at its first step.
    ///
    /// # Errors
    /// An action of zeros is outside the action space.
    pub fn new(env: E) -> Result<Self> {
        Ok(Self { noop: noop(&env, "life_as_episode")?, lives: None, lost: false, env })
    }

    /// Lives that are left, this one included.
    fn count(&self) -> Option<f64> {
        self.env.info("lives").or_else(|| Some(self.env.info("life")? + 1.0))
    }
}

impl<E: Env> Env for LifeAsEpisode<E> {
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
        let goes_on = std::mem::take(&mut self.lost) && {
            let step = self.env.step(self.noop.leaf(), observation.part(0, size))?;
            !step.terminated && !step.truncated
        };
        if !goes_on {
            self.env.reset(seed, observation)?;
        }
        self.lives = self.count();
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let mut step = self.env.step(action, observation)?;
        let (before, now) = (self.lives, self.count());
        self.lives = now;
        self.lost = false;
        if step.terminated || step.truncated {
            return Ok(step);
        }
        let Some(now) = now else {
            return refuse(&self.env, "life_as_episode", "its info has neither `lives` nor `life`");
        };
        self.lost = now > 0.0 && before.is_some_and(|before| now < before);
        step.terminated = self.lost;
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

    /// Lives (f64, little-endian, NaN for unknown), whether the last step lost one (u8), then the inner state.
    fn save(&self) -> Option<Vec<u8>> {
        let inner = self.env.save()?;
        let lives = self.lives.unwrap_or(f64::NAN);
        Some([&lives.to_le_bytes(), [u8::from(self.lost)].as_slice(), &inner].concat())
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let (own, inner) = state::split(self.id(), state, 9, "the number of lives")?;
        let lives = f64::from_le_bytes(std::array::from_fn(|i| own[i]));
        if own[8] > 1 {
            let message = format!("whether a life was lost is 0 or 1, not {}", own[8]);
            return Err(Error::CannotRestore { id: self.id().into(), message });
        }
        self.env.load(inner)?;
        (self.lives, self.lost) = ((!lives.is_nan()).then_some(lives), own[8] == 1);
        Ok(())
    }
}
