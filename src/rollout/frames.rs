//! Observations that are stacks of frames, each frame stored once (as in Mnih et al. 2015's replay memory).
//!
//! The stack of K frames that a policy sees in row `t` has K − 1 frames of the row before. So `[T + K, N, …]` frames
//! are kept in place of `[T + 1, N, K …]`, frame `j` of the stack in row `t` being in row `t + j`, and stacks are put
//! together where they are read. What lies before an episode is zero in its stacks, though frames of the episode
//! before are there.

use super::shared::{Leaves, Memory};
use crate::memory::Column;
use crate::{Error, Result};
use imago_envs::{LeafMut, Space};
use tch::{Kind, Tensor};

/// How the stacks of a rollout are put together.
#[derive(Debug)]
pub struct Stacking {
    /// Frames in a stack, K.
    pub frames: usize,
    /// How many of the K − 1 frames before the newest one a stack has, int64 `[T + 1, N]`; the others are zero.
    pub earlier: Tensor,
}

impl Stacking {
    /// The stacks `[B, K …]` in the rows `index`, int64 `[B]` of `t · N + n`, of frames `[T + K, N, …]`.
    pub fn gather(&self, frames: &Tensor, index: &Tensor) -> Tensor {
        let (count, envs) = (self.frames as i64, frames.size()[1]);
        let place = Tensor::arange(count, (Kind::Int64, frames.device()));
        let rows = index.unsqueeze(1) + &place * envs;
        let stacks = frames.flatten(0, 1).index_select(0, &rows.view(-1));
        let earlier = self.earlier.view(-1).index_select(0, index);
        let absent = (count - 1 - place).unsqueeze(0).gt_tensor(&earlier.unsqueeze(1));
        let absent = absent.view(-1).nonzero().squeeze_dim(1);
        if absent.numel() > 0 {
            let _ = stacks.shallow_clone().index_fill_(0, &absent, 0);
        }
        let mut shape = frames.size()[1..].to_vec();
        (shape[0], shape[1]) = (index.size()[0], shape[1] * count);
        stacks.view(&shape[..])
    }
}

/// Whether observations of `space` can be stacks of `stack` frames, joined along their first dimension.
///
/// # Errors
/// They cannot.
pub(crate) fn check_stack(space: &Space, stack: usize) -> Result<()> {
    let divides = |shape: &[usize]| shape.first().is_some_and(|first| first.is_multiple_of(stack));
    match space {
        _ if stack == 1 => Ok(()),
        Space::Box { shape, .. } if stack > 1 && divides(shape) => Ok(()),
        _ => Err(Error::Invalid(format!("observations of {space} are no stacks of {stack} frames"))),
    }
}

/// The observations of a rollout of `n` environments, `[T + 1, n, …]`.
pub(crate) struct Frames {
    /// `[T + K, n, …]`: frames, or whole observations if K is 1.
    frames: Leaves,
    /// See [`Stacking`].
    earlier: Column<i64>,
    /// If K is not 1, the stacks that the environments show now, `[n, …]`.
    now: Option<Leaves>,
    envs: usize,
    /// K
    stack: usize,
    /// Numbers in one frame.
    size: usize,
}

impl Frames {
    /// Room for `steps + 1` rows of observations in `space`, which are stacks of `stack` frames.
    pub fn new(steps: usize, envs: usize, space: &Space, stack: usize, memory: &mut Memory) -> Self {
        let mut frame = space.shape().to_vec();
        if stack > 1 {
            frame[0] /= stack;
        }
        Self {
            frames: memory.values(&[&[steps + stack, envs], &frame[..]].concat(), space.dtype()),
            earlier: memory.column(&[steps as i64 + 1, envs as i64]),
            now: (stack > 1).then(|| memory.leaves(&[envs], space)),
            envs,
            stack,
            size: space.len() / stack,
        }
    }

    /// Every frame, `[T + K, n, …]`.
    pub fn tensor(&self) -> &Tensor {
        self.frames.tensor()
    }

    /// See [`Stacking`]; meaningless if K is 1.
    pub fn earlier(&self) -> &Tensor {
        self.earlier.tensor()
    }

    /// What the environments show in row `t`, the one that is being collected, `[n, …]`.
    pub fn seen(&self, t: usize) -> Tensor {
        match &self.now {
            Some(now) => now.tensor().shallow_clone(),
            None => self.frames.tensor().get(t as i64),
        }
    }

    /// Where environments write row `t`; [`Frames::keep`] or [`Frames::begin`] has to follow.
    pub fn row(&mut self, t: usize) -> LeafMut<'_> {
        match &mut self.now {
            Some(now) => now.row(0, self.envs * self.stack * self.size),
            None => self.frames.row(t, self.envs * self.size),
        }
    }

    /// Keeps the newest frame of row `t > 0`; `starts` says who has begun an episode there.
    pub fn keep(&mut self, t: usize, starts: &[bool]) {
        let Some(now) = &mut self.now else { return };
        for (env, &start) in starts.iter().enumerate() {
            let newest = now.row(env * self.stack + self.stack - 1, self.size);
            self.frames.row((t + self.stack - 1) * self.envs + env, self.size).copy_from(newest.leaf());
            let before = self.earlier[(t - 1) * self.envs + env];
            self.earlier[t * self.envs + env] =
                if start { 0 } else { (before + 1).min(self.stack as i64 - 1) };
        }
    }

    /// Keeps all frames of row 0, those that are zero, too.
    pub fn begin(&mut self) {
        if let Some(now) = &self.now {
            self.set_first(&now.tensor().shallow_clone());
        }
    }

    /// Row 0, `[n, …]`.
    pub fn first(&self) -> Tensor {
        self.whole(0)
    }

    /// Makes `seen` row 0.
    pub fn set_first(&mut self, seen: &Tensor) {
        let (n, k) = (self.envs as i64, self.stack as i64);
        let rows = self.frames.tensor().narrow(0, 0, k).view([k, n, -1]);
        rows.shallow_clone().copy_(&seen.view([n, k, -1]).transpose(0, 1));
        self.earlier[..self.envs].fill(k - 1);
        if let Some(now) = &self.now {
            now.tensor().shallow_clone().copy_(seen);
        }
    }

    /// The last row becomes the first.
    pub fn carry(&mut self) {
        let last = self.earlier.tensor().size()[0] - 1;
        self.set_first(&self.whole(last));
    }

    /// A copy of row `t`.
    fn whole(&self, t: i64) -> Tensor {
        if self.now.is_none() {
            return self.frames.tensor().get(t).copy();
        }
        let stacking = Stacking { frames: self.stack, earlier: self.earlier.tensor().shallow_clone() };
        let envs = self.envs as i64;
        let index = Tensor::arange(envs, (Kind::Int64, self.frames.tensor().device())) + t * envs;
        stacking.gather(self.frames.tensor(), &index)
    }
}
