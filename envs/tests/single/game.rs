//! A small game for tests of wrappers: a picture, three lives, a counter.

use imago_envs::{Env, Leaf, LeafMut, Result, Space, Step};
use std::sync::{Arc, Mutex};

/// Height, width, colours of its picture.
pub const SHAPE: [usize; 3] = [6, 8, 3];

/// Frames of a life; three of them make a game.
pub const LIFE: u64 = 5;

/// Pixels are a function of seed, frame and last action; frame `t` pays `t`; every fifth frame loses one of three
/// lives, the fifteenth is the end.
#[derive(Clone)]
pub struct Game {
    pub seed: u64,
    pub frame: u64,
    pub action: i64,
    /// What lives are called in its info.
    pub called: &'static str,
    /// Ends after so many frames whatever the lives.
    pub cut: u64,
    /// Every reset (as −1) and action.
    pub log: Arc<Mutex<Vec<i64>>>,
    pub picture: Space,
    pub buttons: Space,
}

/// Byte `i` of the picture of a moment.
fn byte(seed: u64, frame: u64, action: i64, i: u64) -> u8 {
    (seed * 31 + frame * 101 + action as u64 * 57 + i * i * 13 + i * 7) as u8
}

impl Game {
    pub fn new() -> Self {
        Self {
            seed: 0,
            frame: 0,
            action: 0,
            called: "lives",
            cut: u64::MAX,
            // Whoever counts allocations wants none later.
            log: Arc::new(Mutex::new(Vec::with_capacity(1 << 20))),
            picture: Space::bytes(&SHAPE),
            buttons: Space::discrete(4),
        }
    }

    /// The picture of a moment.
    pub fn picture(seed: u64, frame: u64, action: i64) -> Vec<u8> {
        (0..SHAPE.iter().product::<usize>() as u64).map(|i| byte(seed, frame, action, i)).collect()
    }

    /// What was logged since the last call.
    pub fn logged(log: &Mutex<Vec<i64>>) -> Vec<i64> {
        std::mem::take(&mut *log.lock().unwrap())
    }

    fn show(&self, mut observation: LeafMut) {
        for (i, to) in observation.u8().iter_mut().enumerate() {
            *to = byte(self.seed, self.frame, self.action, i as u64);
        }
    }
}

impl Env for Game {
    fn id(&self) -> &str {
        "Game"
    }

    fn observation_space(&self) -> &Space {
        &self.picture
    }

    fn action_space(&self) -> &Space {
        &self.buttons
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        (self.seed, self.frame, self.action) = (seed % 1000, 0, 0);
        self.log.lock().unwrap().push(-1);
        self.show(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        self.action = action.i64()[0];
        self.frame += 1;
        self.log.lock().unwrap().push(self.action);
        self.show(observation);
        let terminated = self.frame >= (3 * LIFE).min(self.cut);
        Ok(Step { reward: self.frame as f64, terminated, truncated: false })
    }

    /// Allows all actions but the last one.
    fn action_mask(&self, mask: &mut [bool]) -> bool {
        for (action, allowed) in mask.iter_mut().enumerate() {
            *allowed = action as i64 != self.action;
        }
        true
    }

    fn info(&self, name: &str) -> Option<f64> {
        let left = 3 - (self.frame / LIFE).min(3);
        match name {
            "frame" => Some(self.frame as f64),
            _ if name == self.called => Some(left as f64 - f64::from(u8::from(name == "life"))),
            _ => None,
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some([self.seed, self.frame, self.action as u64].iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let [seed, frame, action] =
            std::array::from_fn(|i| u64::from_le_bytes(state[8 * i..8 * i + 8].try_into().unwrap()));
        (self.seed, self.frame, self.action) = (seed, frame, action as i64);
        Ok(())
    }
}
