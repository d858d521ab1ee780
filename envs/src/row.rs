//! What a group of environments writes in one step.

use crate::env::VecEnv;
use crate::error::Error;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use std::sync::atomic::AtomicI64;

/// Row `t` of a rollout of `N` environments, written in place.
pub struct Row<'a> {
    /// What the policy sees next: after an end already the new episode's first observation. `[N, …]`
    pub observation: LeafMut<'a>,
    /// `[N]`
    pub reward: &'a mut [f32],
    /// `[N]`
    pub terminated: &'a mut [bool],
    /// `[N]`
    pub truncated: &'a mut [bool],
    /// `false` marks a row that belongs to no episode (the reset row of an engine that resets on the next
    /// step). `[N]`
    pub valid: &'a mut [bool],
    /// The true final observation of every episode that ended in this row is pushed here.
    pub finals: &'a mut Finals,
    /// What went wrong in this row is pushed here.
    pub faults: &'a mut Vec<Fault>,
    /// Which environment is being stepped: for whoever watches from outside, should it never come back.
    pub stepping: &'a AtomicI64,
}

/// An environment failed, and was begun anew. If it failed in a step, its row is marked `valid = false`, its episode
/// is broken, and the observation in the row is the first of the episode that follows.
#[derive(Debug)]
pub struct Fault {
    /// Which one of the group.
    pub env: usize,
    /// Seed of the episode in which it failed.
    pub seed: u64,
    /// What it said.
    pub error: Error,
}

/// True final observations of one rollout: which environment, which observation. Keeps its buffers between
/// rollouts.
#[derive(Debug, Default)]
pub struct Finals {
    slots: Vec<Final>,
    len: usize,
}

#[derive(Debug)]
struct Final {
    env: usize,
    observation: LeafBuf,
    metrics: Vec<f64>,
}

impl Finals {
    /// Forgets the content, keeps the buffers.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The ends so far: environment index, its final observation.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Leaf<'_>)> {
        self.slots[..self.len].iter().map(|slot| (slot.env, slot.observation.leaf()))
    }

    /// What [`Finals::describe`] said of the end at `index`.
    pub fn metrics(&self, index: usize) -> &[f64] {
        &self.slots[..self.len][index].metrics
    }

    /// Number of ends so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no episode has ended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A buffer for the final observation of environment `env`; allocates only the first time.
    pub fn push(&mut self, env: usize, space: &Space) -> LeafMut<'_> {
        if self.len == self.slots.len() {
            self.slots.push(Final { env, observation: LeafBuf::zeros(space, 1), metrics: Vec::new() });
        }
        let slot = &mut self.slots[self.len];
        self.len += 1;
        slot.env = env;
        slot.metrics.clear();
        slot.observation.leaf_mut()
    }

    /// Numbers that go with the end that was pushed last; NaN where there is none.
    pub fn describe(&mut self, metrics: impl Iterator<Item = f64>) {
        if let Some(slot) = self.len.checked_sub(1).and_then(|last| self.slots.get_mut(last)) {
            slot.metrics.extend(metrics);
        }
    }
}

/// Memory for one row outside a rollout: evaluations, checks.
#[derive(Debug)]
pub struct RowBuf {
    /// `[N, …]`
    pub observation: LeafBuf,
    /// `[N]`
    pub reward: Vec<f32>,
    /// `[N]`
    pub terminated: Vec<bool>,
    /// `[N]`
    pub truncated: Vec<bool>,
    /// `[N]`
    pub valid: Vec<bool>,
    /// Of the latest row.
    pub finals: Finals,
    /// Of the latest row.
    pub faults: Vec<Fault>,
    stepping: AtomicI64,
}

impl RowBuf {
    /// For a row of `group`.
    pub fn new(group: &dyn VecEnv) -> Self {
        let n = group.len();
        Self {
            observation: LeafBuf::zeros(group.observation_space(), n),
            reward: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
            valid: vec![true; n],
            finals: Finals::default(),
            faults: Vec::new(),
            stepping: AtomicI64::new(0),
        }
    }

    /// The row to write next; what the last one pushed is forgotten.
    pub fn row(&mut self) -> Row<'_> {
        self.finals.clear();
        self.faults.clear();
        Row {
            observation: self.observation.leaf_mut(),
            reward: &mut self.reward,
            terminated: &mut self.terminated,
            truncated: &mut self.truncated,
            valid: &mut self.valid,
            finals: &mut self.finals,
            faults: &mut self.faults,
            stepping: &self.stepping,
        }
    }
}
