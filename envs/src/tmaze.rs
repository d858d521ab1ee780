//! A corridor with a fork at its end, and a sign at its beginning that says which way to turn: a task of memory alone.

use crate::arguments::Arguments;
use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The T-maze (Bakker, "Reinforcement Learning with Long Short-Term Memory", 2001), `length` steps from the sign to the
/// fork.
///
/// - Observation: `[2]` floats: the sign (−1 turn left, 1 turn right) in the first place of the corridor, else 0; and 1
///   at the fork, else 0.
/// - Action: 0 walks on, 1 turns left, 2 turns right. In the corridor there is nothing to turn to, at the fork there is
///   no way on: the walker stays where it is.
/// - Reward: 1 for the right way, 0 otherwise. Staying pays nothing, so that a return is a success, and whoever does
///   not remember the sign has 0.5 on average.
/// - Terminates with a turn at the fork.
/// - The sign is drawn from the episode's seed.
#[derive(Clone, Debug)]
pub struct TMaze {
    length: usize,
    /// Steps from the sign, 0 to `length`.
    position: usize,
    /// The right way.
    right: bool,
    observation: Space,
    action: Space,
}

impl TMaze {
    /// The name in the registry.
    pub const ID: &str = "TMaze-v0";

    /// A walker at the sign; `reset` starts an episode. The fork is `length` steps away, at least 1.
    pub fn new(length: usize) -> Self {
        Self {
            length,
            position: 0,
            right: false,
            observation: Space::floats(&[2], -1.0, 1.0),
            action: Space::discrete(3),
        }
    }

    /// From recipe arguments: `length` (steps from the sign to the fork, default 10). A hundred and more need a longer
    /// `time_limit` than the 100 steps of the registry.
    ///
    /// # Errors
    /// Other arguments; a length below 1.
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        Ok(Self::new(Arguments::new(Self::ID, args, &["length"])?.count("length", 10)?))
    }

    fn at_fork(&self) -> bool {
        self.position == self.length
    }

    fn observe(&self, mut observation: LeafMut) {
        let sign = match (self.position, self.right) {
            (0, true) => 1.0,
            (0, false) => -1.0,
            _ => 0.0,
        };
        observation.f32().copy_from_slice(&[sign, f32::from(u8::from(self.at_fork()))]);
    }
}

impl Env for TMaze {
    fn id(&self) -> &str {
        Self::ID
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        self.position = 0;
        self.right = ChaCha8Rng::seed_from_u64(seed).random();
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let turn = action.i64()[0];
        let terminated = self.at_fork() && turn != 0;
        let rewarded = terminated && (turn == 2) == self.right;
        if !self.at_fork() && turn == 0 {
            self.position += 1;
        }
        self.observe(observation);
        Ok(Step { reward: f64::from(u8::from(rewarded)), terminated, truncated: false })
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state::encode([self.position as f64, f64::from(u8::from(self.right))]))
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let [position, right] = state::decode(Self::ID, state)?;
        let (place, whole) = (position as usize, |x: f64| x.fract() == 0.0 && x.is_sign_positive());
        if !whole(position) || place > self.length || !whole(right) || right > 1.0 {
            let message = format!(
                "the saved walker is {position} steps from the sign, of {} to the fork, and its way is {right}",
                self.length
            );
            return Err(Error::CannotRestore { id: Self::ID.into(), message });
        }
        (self.position, self.right) = (place, right == 1.0);
        Ok(())
    }
}
