//! A field of drifting fruit seen from above through a small window: gather the green, keep away from the red.

use crate::arguments::Arguments;
use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::space::{Leaf, LeafMut, Space};
use crate::state;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Side of the field.
const FIELD: f64 = 20.0;
/// Side of the window around the picker.
const WINDOW: f64 = 10.0;
/// What the picker walks in a step.
const STRIDE: f64 = 0.5;
/// Radius of a fruit.
const RADIUS: f64 = 0.6;
/// From so near on the picker has it: it is as large.
const TOUCH: f64 = 2.0 * RADIUS;
/// New fruit appears at least so far away.
const CLEAR: f64 = 4.0;

const BEYOND: [u8; 3] = [96, 96, 96];
const GROUND: [[u8; 3]; 2] = [[44, 34, 24], [54, 42, 30]];
const GREEN: [u8; 3] = [40, 200, 60];
const RED: [u8; 3] = [220, 50, 40];
const PICKER: [u8; 3] = [235, 235, 245];

/// Settings of an [`Orchard`].
#[derive(Clone, Debug, PartialEq)]
pub struct OrchardConfig {
    /// Green fruit on the field, and as many red, 1 to 100.
    pub fruit: usize,
    /// What a fruit moves in a step, 0 to 0.5.
    pub drift: f64,
    /// Side of the observation in pixels, 8 to 512.
    pub size: usize,
}

impl Default for OrchardConfig {
    fn default() -> Self {
        Self { fruit: 10, drift: 0.15, size: 42 }
    }
}

/// A fruit: where it is and where to it drifts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fruit {
    place: [f64; 2],
    /// Radians.
    heading: f64,
}

/// `Orchard-v0`: a square field 20 wide with drifting fruit, half of it green and half red. Without its limit of 300 steps,
/// which [`TimeLimit`](crate::TimeLimit) adds: nothing ends an episode, so that neither living nor ending pays.
///
/// - Observation: `[3, size, size]` bytes, red, green and blue of the 10 × 10 around the picker, who is white and in the
///   middle; what lies beyond the field is grey.
/// - Action: 0 stands, 1 walks up, 2 right, 3 down, 4 left, by 0.5.
/// - Fruit drifts straight on by `drift` a step and bounces off the edge. What the picker touches is replaced by new fruit
///   of the same colour elsewhere.
/// - Reward: +1 for a green one, −1 for a red one.
/// - Info: `green` and `red`, how many of them the episode has touched.
pub struct Orchard {
    config: OrchardConfig,
    picker: [f64; 2],
    /// The green ones first.
    fruit: Vec<Fruit>,
    touched: [u32; 2],
    seed: u64,
    rng: ChaCha8Rng,
    observation: Space,
    action: Space,
}

impl Orchard {
    /// The name in the registry.
    pub const ID: &str = "Orchard-v0";
    /// Steps of an episode.
    pub const LIMIT: u32 = 300;

    /// A field; `reset` starts an episode.
    ///
    /// # Errors
    /// Settings out of the ranges that [`OrchardConfig`] gives.
    pub fn new(config: OrchardConfig) -> Result<Self> {
        let refuse = |argument: &str, message: String| {
            Err(Error::BadArgument { id: Self::ID.into(), argument: argument.into(), message })
        };
        let OrchardConfig { fruit, drift, size } = config;
        if !(1..=100).contains(&fruit) {
            return refuse("fruit", format!("expected 1 to 100 of each colour, found {fruit}"));
        }
        if !(0.0..=0.5).contains(&drift) {
            return refuse("drift", format!("expected 0 to 0.5 a step, found {drift}"));
        }
        if !(8..=512).contains(&size) {
            return refuse("size", format!("expected 8 to 512 pixels, found {size}"));
        }
        let nothing = Fruit { place: [FIELD / 2.0; 2], heading: 0.0 };
        Ok(Self {
            picker: [FIELD / 2.0; 2],
            fruit: vec![nothing; 2 * fruit],
            touched: [0; 2],
            seed: 0,
            rng: ChaCha8Rng::seed_from_u64(0),
            observation: Space::bytes(&[3, size, size]),
            action: Space::discrete(5),
            config,
        })
    }

    /// From recipe arguments: `fruit` (of each colour, default 10), `drift` (a step, default 0.15), `size` (pixels, default
    /// 42).
    ///
    /// # Errors
    /// Other arguments; values out of range.
    pub fn from_args(args: &toml::Table) -> Result<Self> {
        let args = Arguments::new(Self::ID, args, &["fruit", "drift", "size"])?;
        let default = OrchardConfig::default();
        Self::new(OrchardConfig {
            fruit: args.count("fruit", default.fruit)?,
            drift: args.number("drift", default.drift)?,
            size: args.count("size", default.size)?,
        })
    }

    /// New fruit somewhere out of the picker's way.
    fn grown(&mut self) -> Fruit {
        loop {
            let place = [0, 1].map(|_| self.rng.random::<f64>() * FIELD);
            let heading = self.rng.random::<f64>() * std::f64::consts::TAU;
            if distance(place, self.picker) >= CLEAR {
                return Fruit { place, heading };
            }
        }
    }

    /// The square of side `side` around `centre` in so many pixels, row by row from the top; `paint` takes them, the later
    /// over the earlier.
    fn draw(&self, centre: [f64; 2], side: f64, size: usize, mut paint: impl FnMut(usize, [u8; 3])) {
        // Where the middle of a pixel lies, and which pixel's middle is the first not before a place.
        let at = |pixel: usize, axis: usize| ((pixel as f64 + 0.5) / size as f64 - 0.5) * side + centre[axis];
        let first = |place: f64, axis: usize| {
            (((place - centre[axis]) / side + 0.5) * size as f64 - 0.5).ceil().clamp(0.0, size as f64)
                as usize
        };
        for row in 0..size {
            let y = at(row, 1);
            for column in 0..size {
                let x = at(column, 0);
                let inside = (0.0..FIELD).contains(&x) && (0.0..FIELD).contains(&y);
                let ground = if inside { GROUND[(x as usize + y as usize) % 2] } else { BEYOND };
                paint(row * size + column, ground);
            }
        }
        let colours = self
            .fruit
            .iter()
            .enumerate()
            .rev()
            .map(|(i, fruit)| (fruit.place, if i < self.config.fruit { GREEN } else { RED }));
        for (place, colour) in colours.chain([(self.picker, PICKER)]) {
            for row in first(place[1] - RADIUS, 1)..first(place[1] + RADIUS, 1) {
                for column in first(place[0] - RADIUS, 0)..first(place[0] + RADIUS, 0) {
                    let away = [at(column, 0) - place[0], at(row, 1) - place[1]];
                    if away[0] * away[0] + away[1] * away[1] < RADIUS * RADIUS {
                        paint(row * size + column, colour);
                    }
                }
            }
        }
    }

    fn observe(&self, mut observation: LeafMut) {
        let size = self.config.size;
        let bytes = observation.u8();
        self.draw(self.picker, WINDOW, size, |pixel, colour| {
            for (channel, value) in colour.into_iter().enumerate() {
                bytes[channel * size * size + pixel] = value;
            }
        });
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// `x + step`, mirrored at the edges 0 and [`FIELD`], and whether it was.
fn bounced(x: f64, step: f64) -> (f64, bool) {
    match x + step {
        over if over > FIELD => (2.0 * FIELD - over, true),
        under if under < 0.0 => (-under, true),
        inside => (inside, false),
    }
}

impl Env for Orchard {
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
        (self.seed, self.rng, self.touched) = (seed, ChaCha8Rng::seed_from_u64(seed), [0; 2]);
        self.picker = [FIELD / 2.0; 2];
        for i in 0..self.fruit.len() {
            self.fruit[i] = self.grown();
        }
        self.observe(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let towards = match action.i64()[0] {
            1 => [0.0, -STRIDE],
            2 => [STRIDE, 0.0],
            3 => [0.0, STRIDE],
            4 => [-STRIDE, 0.0],
            _ => [0.0, 0.0],
        };
        for (x, step) in self.picker.iter_mut().zip(towards) {
            *x = (*x + step).clamp(0.0, FIELD);
        }
        for fruit in &mut self.fruit {
            let (sin, cos) = fruit.heading.sin_cos();
            let (x, turned_x) = bounced(fruit.place[0], self.config.drift * cos);
            let (y, turned_y) = bounced(fruit.place[1], self.config.drift * sin);
            let (cos, sin) = (if turned_x { -cos } else { cos }, if turned_y { -sin } else { sin });
            fruit.place = [x, y];
            if turned_x || turned_y {
                fruit.heading = sin.atan2(cos);
            }
        }
        let mut reward = 0.0;
        for i in 0..self.fruit.len() {
            if distance(self.fruit[i].place, self.picker) < TOUCH {
                let red = usize::from(i >= self.config.fruit);
                self.touched[red] += 1;
                reward += [1.0, -1.0][red];
                self.fruit[i] = self.grown();
            }
        }
        self.observe(observation);
        Ok(Step { reward, terminated: false, truncated: false })
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        const SIDE: usize = 320;
        let mut frame = Frame::filled(SIDE, SIDE, BEYOND);
        self.draw([FIELD / 2.0; 2], FIELD, SIDE, |pixel, colour| frame.pixels[pixel] = colour);
        // What the observation shows.
        let scale = SIDE as f64 / FIELD;
        let corner = |dx: f64, dy: f64| {
            [(self.picker[0] + dx * WINDOW / 2.0) * scale, (self.picker[1] + dy * WINDOW / 2.0) * scale]
        };
        for (from, to) in [
            ((-1.0, -1.0), (1.0, -1.0)),
            ((1.0, -1.0), (1.0, 1.0)),
            ((1.0, 1.0), (-1.0, 1.0)),
            ((-1.0, 1.0), (-1.0, -1.0)),
        ] {
            frame.line(corner(from.0, from.1), corner(to.0, to.1), 1.5, PICKER);
        }
        Ok(Some(frame))
    }

    fn info(&self, name: &str) -> Option<f64> {
        match name {
            "green" => Some(self.touched[0].into()),
            "red" => Some(self.touched[1].into()),
            _ => None,
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        let mut values = self.picker.to_vec();
        values.extend(self.fruit.iter().flat_map(|fruit| [fruit.place[0], fruit.place[1], fruit.heading]));
        values.extend(self.touched.map(f64::from));
        let mut state = self.seed.to_le_bytes().to_vec();
        state.extend((self.rng.get_word_pos() as u64).to_le_bytes());
        state.extend(state::encode_all(&values));
        Some(state)
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let refuse = |message: &str| Error::CannotRestore { id: Self::ID.into(), message: message.into() };
        let (head, body) = state::split(Self::ID, state, 16, "its seed")?;
        let values = state::decode_all(Self::ID, body, 2 + 3 * self.fruit.len() + 2)?;
        let (places, touched) = values.split_at(values.len() - 2);
        let inside = |x: f64| (0.0..=FIELD).contains(&x);
        let (picker, fruit) = places.split_at(2);
        if !picker.iter().chain(fruit.chunks_exact(3).flat_map(|fruit| &fruit[..2])).all(|&x| inside(x)) {
            return Err(refuse("something of the saved state lies beyond the field"));
        }
        if touched.iter().any(|x| x.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(x)) {
            return Err(refuse("the saved counts of fruit are no counts"));
        }
        let words = |i: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[8 * i + byte]));
        (self.seed, self.rng) = (words(0), ChaCha8Rng::seed_from_u64(words(0)));
        self.rng.set_word_pos(words(1).into());
        self.picker = [picker[0], picker[1]];
        for (fruit, saved) in self.fruit.iter_mut().zip(fruit.chunks_exact(3)) {
            *fruit = Fruit { place: [saved[0], saved[1]], heading: saved[2] };
        }
        self.touched = [touched[0] as u32, touched[1] as u32];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::LeafBuf;
    use proptest::prelude::*;

    fn orchard(config: OrchardConfig) -> (Orchard, LeafBuf) {
        let mut env = Orchard::new(config).unwrap();
        let mut seen = LeafBuf::zeros(env.observation_space(), 1);
        env.reset(4, seen.leaf_mut()).unwrap();
        (env, seen)
    }

    /// Fruit far away from everything but that with the given indices.
    fn with(places: &[(usize, [f64; 2])]) -> (Orchard, LeafBuf) {
        let (mut env, seen) = orchard(OrchardConfig { drift: 0.0, ..Default::default() });
        env.fruit.iter_mut().for_each(|fruit| fruit.place = [0.5, 0.5]);
        places.iter().for_each(|&(i, place)| env.fruit[i].place = place);
        (env, seen)
    }

    #[test]
    fn green_pays_red_costs_and_both_grow_anew_out_of_the_way() {
        for (index, reward) in [(3, 1.0), (13, -1.0)] {
            // The picker begins in the middle, 10, and comes to 10.5, from where 11.75 is 1.25 away, and to 11.
            let (mut env, mut seen) = with(&[(index, [11.75, 10.0])]);
            let mut step =
                |env: &mut Orchard, action| env.step(Leaf::I64(&[action]), seen.leaf_mut()).unwrap();
            assert_eq!(step(&mut env, 0), Step::default());
            assert_eq!(step(&mut env, 2).reward, 0.0, "1.25 away is not touched");
            assert_eq!(step(&mut env, 2), Step { reward, ..Default::default() });
            assert!(distance(env.fruit[index].place, env.picker) >= CLEAR);
            let counts = [env.info("green").unwrap(), env.info("red").unwrap()];
            assert_eq!(counts, if reward > 0.0 { [1.0, 0.0] } else { [0.0, 1.0] });
        }
    }

    #[test]
    fn the_window_shows_what_is_near_and_the_edge() {
        let (mut env, mut seen) = with(&[(0, [12.0, 10.0]), (10, [10.0, 7.0]), (1, [17.0, 10.0])]);
        env.step(Leaf::I64(&[0]), seen.leaf_mut()).unwrap();
        let size = env.config.size;
        let pixel = |seen: &LeafBuf, x: f64, y: f64| {
            let at = |v: f64| ((v / WINDOW + 0.5) * size as f64) as usize;
            let index = at(y) * size + at(x);
            [0, 1, 2].map(|channel| seen.leaf().u8()[channel * size * size + index])
        };
        assert_eq!(pixel(&seen, 0.0, 0.0), PICKER);
        assert_eq!(pixel(&seen, 2.0, 0.0), GREEN);
        assert_eq!(pixel(&seen, 0.0, -3.0), RED);
        assert!(GROUND.contains(&pixel(&seen, 4.9, 0.0)), "what is 7 away is not seen");
        for _ in 0..40 {
            env.step(Leaf::I64(&[4]), seen.leaf_mut()).unwrap();
        }
        assert_eq!(env.picker[0], 0.0);
        assert_eq!(pixel(&seen, -2.0, 0.0), BEYOND);
    }

    #[test]
    fn bad_settings_and_states_are_refused() {
        for (args, words) in [
            ("fruit = 0", "expected at least 1, found 0"),
            ("fruit = 101", "expected 1 to 100"),
            ("drift = 0.6", "expected 0 to 0.5"),
            ("size = 4", "expected 8 to 512"),
            ("apples = 4", "unknown"),
        ] {
            let message = Orchard::from_args(&args.parse().unwrap()).err().unwrap().to_string();
            assert!(message.contains("Orchard-v0") && message.contains(words), "{args}: {message}");
        }
        let (mut env, _) = orchard(OrchardConfig::default());
        let saved = env.save().unwrap();
        assert!(env.load(&saved[1..]).is_err() && env.load(&[]).is_err());
        let mut outside = saved.clone();
        outside[16..24].copy_from_slice(&21f64.to_le_bytes());
        assert!(env.load(&outside).unwrap_err().to_string().contains("beyond the field"));
        let (mut half, end) = (saved.clone(), saved.len());
        half[end - 8..].copy_from_slice(&0.5f64.to_le_bytes());
        assert!(env.load(&half).unwrap_err().to_string().contains("no counts"));
        env.load(&saved).unwrap();
        assert_eq!(env.save().unwrap(), saved);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        /// Whatever is done: everything stays on the field, rewards are what was touched, and a saved episode goes on as
        /// it would have.
        #[test]
        fn an_episode_comes_back(
            seed: u64, (fruit, drift, size) in (1usize..30, 0.0f64..=0.5, 8usize..24),
            actions in prop::collection::vec(0i64..5, 1..150), cut in 0usize..150,
        ) {
            let config = OrchardConfig { fruit, drift, size };
            let (mut env, mut seen) = orchard(config.clone());
            env.reset(seed, seen.leaf_mut()).unwrap();
            let cut = cut.min(actions.len());
            let (mut saved, mut told, mut total) = (env.save().unwrap(), Vec::new(), 0.0);
            for (t, &action) in actions.iter().enumerate() {
                if t == cut {
                    saved = env.save().unwrap();
                    told.clear();
                }
                let step = env.step(Leaf::I64(&[action]), seen.leaf_mut()).unwrap();
                prop_assert!(!step.terminated && !step.truncated);
                total += step.reward;
                told.push((action, step, seen.clone()));
                let places = env.fruit.iter().map(|fruit| fruit.place).chain([env.picker]);
                prop_assert!(places.flatten().all(|x| (0.0..=FIELD).contains(&x)));
            }
            prop_assert_eq!(total, f64::from(env.touched[0]) - f64::from(env.touched[1]));
            let (mut other, mut seen) = orchard(config);
            other.load(&saved).unwrap();
            if cut < actions.len() {
                for (action, step, expected) in told {
                    prop_assert_eq!(other.step(Leaf::I64(&[action]), seen.leaf_mut()).unwrap(), step);
                    prop_assert_eq!(&seen, &expected);
                }
            }
        }
    }
}
