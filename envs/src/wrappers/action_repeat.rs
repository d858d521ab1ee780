//! Decisions that last several frames.

use super::refuse;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::frame::Frame;
use crate::space::{Dtype, Leaf, LeafMut, Space};
use crate::state;

/// Takes each action several times: rewards are summed, an end of the episode ends the repetition.
///
/// With `max` the observation is, byte by byte, the brighter of the last two frames of the game (Mnih et al. 2015):
/// old consoles draw some things only in every other one. Where a decision ends at its first frame, the other one
/// is the last frame of the decision before; Stable-Baselines3 and Gymnasium show older leftovers there.
pub struct ActionRepeat<E> {
    /// The environment itself.
    pub env: E,
    times: u32,
    frames: Option<LastTwo>,
}

/// The last two frames, and which of them is the latest.
struct LastTwo {
    frames: [Vec<u8>; 2],
    latest: usize,
}

impl LastTwo {
    fn show(&self, observation: &mut [u8]) {
        let [first, second] = &self.frames;
        for ((shown, &a), &b) in observation.iter_mut().zip(first).zip(second) {
            *shown = a.max(b);
        }
    }
}

impl<E: Env> ActionRepeat<E> {
    /// Takes each action `times` times.
    ///
    /// # Errors
    /// `times` is 0; `max` of observations that are no boxes of bytes.
    pub fn new(env: E, times: u32, max: bool) -> Result<Self> {
        if times == 0 {
            return refuse(&env, "action_repeat", "expected at least 1 frame, found 0");
        }
        let space = env.observation_space();
        if max && !matches!(space, Space::Box { dtype: Dtype::U8, .. }) {
            let hint = match space {
                Space::Fields(_) => "; pick one field with `observation`",
                _ => "",
            };
            return refuse(&env, "repeat_max", format!("it needs a picture of bytes, not {space}{hint}"));
        }
        let frames = max.then(|| LastTwo { frames: [(); 2].map(|()| vec![0; space.len()]), latest: 0 });
        Ok(Self { env, times, frames })
    }
}

impl<E: Env> Env for ActionRepeat<E> {
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
        let Some(frames) = &mut self.frames else { return self.env.reset(seed, observation) };
        let size = frames.frames[0].len();
        self.env.reset(seed, observation.part(0, size))?;
        frames.frames.iter_mut().for_each(|frame| frame.copy_from_slice(observation.u8()));
        Ok(())
    }

    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        let size = self.env.observation_space().len();
        let mut total = Step::default();
        for _ in 0..self.times {
            let step = match &mut self.frames {
                Some(LastTwo { frames, latest }) => {
                    *latest = 1 - *latest;
                    self.env.step(action, LeafMut::U8(&mut frames[*latest]))?
                }
                None => self.env.step(action, observation.part(0, size))?,
            };
            total = Step { reward: total.reward + step.reward, ..step };
            if step.terminated || step.truncated {
                break;
            }
        }
        if let Some(frames) = &self.frames {
            frames.show(observation.u8());
        }
        Ok(total)
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

    /// With `max` the latest frame, then the inner state.
    fn save(&self) -> Option<Vec<u8>> {
        let inner = self.env.save()?;
        Some(match &self.frames {
            Some(LastTwo { frames, latest }) => [frames[*latest].as_slice(), &inner].concat(),
            None => inner,
        })
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let Some(LastTwo { frames, latest }) = &mut self.frames else { return self.env.load(state) };
        let (frame, inner) = state::split(self.env.id(), state, frames[0].len(), "its latest frame")?;
        self.env.load(inner)?;
        // The other one is written before it is shown again.
        *latest = 0;
        frames[0].copy_from_slice(frame);
        Ok(())
    }
}
