//! A small first-person game: find the armour in a maze of nine rooms.

mod map;
mod picture;
mod player;
mod texture;
mod trail;
mod view;

use crate::arguments::Arguments;
use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::floor_plan::FloorPlan;
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use map::{CELL, CELLS, ORIGIN, SIDE, SPARSE, SPOTS, VERY_SPARSE, WALKABLE, cell};
use picture::Camera;
use player::{Action, Player, SLOW_TICKS, TOP_SPEED};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::LazyLock;
use texture::Pictures;
use trail::Trail;
use view::View;

/// Ticks of 1/35 s for which the game repeats a decision.
const REPEAT: usize = 4;
/// Reward of each tick.
const LIVING: f64 = -0.0001;
const GOAL_REWARD: f64 = 1.0;

/// The pictures in grey, one copy for all environments.
static GREY: LazyLock<Pictures<u8>> = LazyLock::new(Pictures::new);

/// The maze from above.
pub(crate) fn floor_plan() -> FloorPlan {
    static FLOOR: [bool; SIDE * SIDE] = {
        let (mut floor, mut i) = ([false; SIDE * SIDE], 0);
        while i < floor.len() {
            floor[i] = CELLS[i] > 0;
            i += 1;
        }
        floor
    };
    FloorPlan { origin: ORIGIN, cell: CELL, columns: SIDE, floor: &FLOOR }
}

/// Where an episode of [`Rooms`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Any of 17 spots all over the maze, facing anywhere.
    Dense,
    /// In the westernmost room, facing east: about 270 ticks from the goal.
    Sparse,
    /// In the south-western dead end, facing west: about 350 ticks from the goal.
    VerySparse,
}

/// How a [`Rooms`] is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomsConfig {
    /// Where episodes begin.
    pub start: Start,
    /// At the armour the player is put to another start and goes on, so that every episode lasts as long as its limit:
    /// neither living nor ending then pays by itself.
    pub endless: bool,
    /// Share of the image, in `[0, 1]`, that shows uniform noise in place of the maze: so many rows from the
    /// top.
    pub noise: f64,
    /// Side in pixels of the noise's squares, each of one grey: at least 1. Fine noise goes away when images are averaged.
    pub noise_square: usize,
    /// Images in an observation, from the oldest to the newest: at least 1.
    pub frames: usize,
    /// Side of an image in pixels: even, at least 8.
    pub size: usize,
}

impl RoomsConfig {
    fn noise_rows(&self) -> usize {
        (self.noise * self.size as f64).round() as usize
    }
}

impl Default for RoomsConfig {
    fn default() -> Self {
        Self { start: Start::Dense, endless: false, noise: 0.0, noise_square: 1, frames: 4, size: 42 }
    }
}

/// `Rooms-v0`: nine rooms and corridors laid out as in VizDoom's MyWayHome, in which lies one green armour.
/// Without its limit of 525 decisions, which [`TimeLimit`](crate::TimeLimit) adds.
///
/// Map, start spots, movement and rewards are the original's (scenario `my_way_home` of VizDoom 1.3.2, the
/// fixed starts and the preprocessing of Pathak et al. 2017); pictures and the drawing are not.
///
/// - Observation: `[frames, size, size]` bytes, the last images in grey, oldest first. At the start of an
///   episode all but the newest are black.
/// - Action: 0 nothing, 1 forward, 2 turn right, 3 turn left; each held for 4 ticks of 1/35 s. Walking gathers
///   speed up to 8.3 units a tick (a room is 160 wide), turning speeds up from 1.8° to 3.5° a tick.
/// - Reward: −0.0001 a tick and +1 for the armour.
/// - Terminates at the armour; if it is endless, goes on at another start with images as at an episode's beginning.
/// - Info: `x` and `y`, map units; `cells`, how many of 64 × 64 units the episode has seen; `found`, armours.
pub struct Rooms {
    config: RoomsConfig,
    player: Player,
    trail: Trail,
    /// Seed of the episode, and images drawn in it.
    seed: u64,
    drawn: u64,
    /// Armours found in the episode.
    found: u32,
    /// Noise of the next image: a function of the two.
    noise: ChaCha8Rng,
    /// Greys of the noise's squares, row by row.
    squares: Vec<u8>,
    /// The last `frames` images.
    images: Vec<u8>,
    view: View,
    /// Made when somebody wants to look.
    camera: Option<Box<Camera>>,
    observation: Space,
    action: Space,
}

impl Rooms {
    /// The name in the registry.
    pub const ID: &str = "Rooms-v0";
    /// Decisions in an episode: 2,100 ticks.
    pub const LIMIT: u32 = 525;

    /// A maze; `reset` starts an episode.
    ///
    /// # Errors
    /// Settings out of the ranges that [`RoomsConfig`] gives.
    pub fn new(config: RoomsConfig) -> Result<Self> {
        let RoomsConfig { noise, noise_square, frames, size, .. } = config;
        let refuse = |argument: &str, message: String| {
            Err(Error::BadArgument { id: Self::ID.into(), argument: argument.into(), message })
        };
        if !(0.0..=1.0).contains(&noise) {
            return refuse("noise", format!("expected a share from 0 to 1, found {noise}"));
        }
        if !(1..=64).contains(&frames) {
            return refuse("frames", format!("expected 1 to 64 images, found {frames}"));
        }
        if !(8..=512).contains(&size) || size % 2 == 1 {
            return refuse("size", format!("expected an even number of pixels from 8 to 512, found {size}"));
        }
        if !(1..=size).contains(&noise_square) {
            let message = format!("expected a side from 1 to {size} pixels, found {noise_square}");
            return refuse("noise_square", message);
        }
        let bytes = frames * size * size;
        let squares = vec![0; config.noise_rows().div_ceil(noise_square) * size.div_ceil(noise_square)];
        Ok(Self {
            player: Player::at(SPOTS[0], 0),
            trail: Trail::default(),
            seed: 0,
            drawn: 0,
            found: 0,
            noise: noise_of(0),
            squares,
            images: vec![0; bytes],
            view: View::new(size, size),
            camera: None,
            observation: Space::bytes(&[frames, size, size]),
            action: Space::discrete(4),
            config,
        })
    }

    /// From recipe arguments: `start` ("dense", "sparse" or "very_sparse"), `endless` (default false), `noise` (a share,
    /// default 0), `noise_square` (default 1), `frames` (default 4), `size` (default 42).
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        let args =
            Arguments::new(Self::ID, args, &["start", "endless", "noise", "noise_square", "frames", "size"])?;
        let starts = [("dense", Start::Dense), ("sparse", Start::Sparse), ("very_sparse", Start::VerySparse)];
        let default = RoomsConfig::default();
        Self::new(RoomsConfig {
            start: args.choice("start", &starts, default.start)?,
            endless: args.flag("endless", default.endless)?,
            noise: args.number("noise", default.noise)?,
            noise_square: args.count("noise_square", default.noise_square)?,
            frames: args.count("frames", default.frames)?,
            size: args.count("size", default.size)?,
        })
    }

    /// Where the player is: map units to the east and to the north of Doom's origin.
    pub fn position(&self) -> [f64; 2] {
        self.player.position
    }

    /// Puts the player to a start of the episode: its first, or the one after so many armours.
    fn put_at_start(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // The second stream is the noise's.
        rng.set_stream(if self.found == 0 { 0 } else { u64::from(self.found) + 1 });
        // Ranges of the original's fractions of a turn: 0 to 1, 0 to 0.01, 0.49 to 0.51.
        let (spot, angle) = match self.config.start {
            Start::Dense => (rng.random_range(0..SPOTS.len()), rng.random()),
            Start::Sparse => (SPARSE, rng.random_range(0..=655)),
            Start::VerySparse => (VERY_SPARSE, rng.random_range(32_113..=33_423)),
        };
        self.player = Player::at(SPOTS[spot], angle);
        self.trail.mark(self.player.position);
        self.images.fill(0);
    }

    /// Draws what the player sees now as the newest image, and writes the observation.
    fn observe(&mut self, mut observation: LeafMut) {
        let RoomsConfig { noise_square, size, .. } = self.config;
        self.images.copy_within(size * size.., 0);
        let newest = self.images.len() - size * size;
        let image = &mut self.images[newest..];
        self.view.draw(&self.player, &GREY, image);
        self.noise.fill_bytes(&mut self.squares);
        for (y, row) in image.chunks_exact_mut(size).take(self.config.noise_rows()).enumerate() {
            let greys = &self.squares[y / noise_square * size.div_ceil(noise_square)..];
            for (square, &grey) in row.chunks_mut(noise_square).zip(greys) {
                square.fill(grey);
            }
        }
        self.drawn += 1;
        observation.u8().copy_from_slice(&self.images);
    }
}

/// Noise of an episode's images.
fn noise_of(seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // The first stream has drawn the start.
    rng.set_stream(1);
    rng
}

impl Env for Rooms {
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
        (self.seed, self.drawn, self.found, self.noise) = (seed, 0, 0, noise_of(seed));
        self.trail = Trail::default();
        self.put_at_start();
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let action = match action.i64()[0] {
            1 => Action::Forward,
            2 => Action::TurnRight,
            3 => Action::TurnLeft,
            _ => Action::Nothing,
        };
        let mut step = Step::default();
        for _ in 0..REPEAT {
            self.player.tick(action);
            self.trail.mark(self.player.position);
            step.reward += LIVING;
            if self.player.at_goal() {
                step.reward += GOAL_REWARD;
                self.found += 1;
                step.terminated = !self.config.endless;
                if self.config.endless {
                    self.put_at_start();
                }
                break;
            }
        }
        self.observe(observation);
        Ok(step)
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        let camera = self.camera.get_or_insert_with(Default::default);
        Ok(Some(camera.picture(&self.player)))
    }

    fn info(&self, name: &str) -> Option<f64> {
        match name {
            "x" => Some(self.player.position[0]),
            "y" => Some(self.player.position[1]),
            "cells" => Some(self.trail.cells().into()),
            "found" => Some(self.found.into()),
            _ => None,
        }
    }

    fn frame_stack(&self) -> usize {
        // An armour blackens the stack in the middle of an endless episode: its pictures are not all of the one before.
        if self.config.endless { 1 } else { self.config.frames }
    }

    fn save(&self) -> Option<Vec<u8>> {
        let Player { position, velocity, angle, turning } = self.player;
        let mut state = state::encode([position[0], position[1], velocity[0], velocity[1]]);
        state.extend(angle.to_le_bytes());
        state.push(turning);
        state.extend(self.trail.0.iter().flat_map(|word| word.to_le_bytes()));
        state.extend(self.seed.to_le_bytes());
        state.extend(self.drawn.to_le_bytes());
        state.extend(self.found.to_le_bytes());
        state.extend(&self.images);
        Some(state)
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let refuse = |message: String| Error::CannotRestore { id: Self::ID.into(), message };
        let expected = 32 + 2 + 1 + 32 + 8 + 8 + 4 + self.images.len();
        let found = refuse(format!("its state has {expected} bytes, the saved one {}", state.len()));
        let parts = || {
            let (body, rest) = state.split_at_checked(32)?;
            let (angle, rest) = rest.split_first_chunk()?;
            let (turning, rest) = rest.split_first()?;
            let (trail, rest) = rest.split_first_chunk::<32>()?;
            let (seed, rest) = rest.split_first_chunk()?;
            let (drawn, rest) = rest.split_first_chunk()?;
            let (found, images) = rest.split_first_chunk()?;
            let counts = (seed, drawn, found);
            (images.len() == self.images.len()).then_some((body, angle, turning, trail, counts, images))
        };
        let (body, angle, &turning, trail, (seed, drawn, found), images) = parts().ok_or(found)?;
        let [x, y, vx, vy] = state::decode(Self::ID, body)?;
        if !WALKABLE[cell(x, y)] || vx.hypot(vy) > TOP_SPEED || turning > SLOW_TICKS {
            return Err(refuse(format!(
                "no episode has a player at ({x}, {y}) with velocity ({vx}, {vy}) after {turning} ticks of turning"
            )));
        }
        let angle = u16::from_le_bytes(*angle);
        self.player = Player { position: [x, y], velocity: [vx, vy], angle, turning };
        for (word, bytes) in self.trail.0.iter_mut().zip(trail.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        (self.seed, self.drawn) = (u64::from_le_bytes(*seed), u64::from_le_bytes(*drawn));
        self.found = u32::from_le_bytes(*found);
        self.noise = noise_of(self.seed);
        // Each image has taken whole words of the generator.
        self.noise.set_word_pos(u128::from(self.drawn) * self.squares.len().div_ceil(4) as u128);
        self.images.copy_from_slice(images);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
