//! The program with one more environment, which shows frames from a file: the same ones that the peer is shown, so
//! that neither side's environment counts.
//!
//! `cargo run --release --example bench_frame_pool -- train experiments/bench/pixels.toml --set env.args.frames=FILE`

use imago_envs::{Env, Error, Leaf, LeafMut, Result, Space, Step};
use std::sync::{Arc, Mutex};
use tch::Tensor;

const ID: &str = "FramePool-v0";
/// Channels, height and width of a frame.
const SHAPE: [usize; 3] = [4, 42, 42];
const ACTIONS: u64 = 4;
/// As many decisions as an episode of Rooms has.
const TIME_LIMIT: u32 = 525;

/// An episode with seed s shows frame (s + t) mod P at step t, whatever is done, and pays 1 for the action whose
/// number is that frame's index mod 4.
struct FramePool {
    /// `[P, 4, 42, 42]`, one copy for all environments.
    frames: Arc<Vec<u8>>,
    index: u64,
    observation: Space,
    action: Space,
}

impl FramePool {
    fn new(frames: Arc<Vec<u8>>) -> Self {
        Self { frames, index: 0, observation: Space::bytes(&SHAPE), action: Space::discrete(ACTIONS as i64) }
    }

    fn show(&mut self, index: u64, mut observation: LeafMut) {
        let size = self.observation.len();
        self.index = index % (self.frames.len() / size) as u64;
        let start = self.index as usize * size;
        observation.copy_from(Leaf::U8(&self.frames[start..start + size]));
    }
}

impl Env for FramePool {
    fn id(&self) -> &str {
        ID
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        self.show(seed, observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let right = action.i64()[0] as u64 == self.index % ACTIONS;
        self.show(self.index + 1, observation);
        Ok(Step { reward: f64::from(u8::from(right)), terminated: false, truncated: false })
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    let refuse = |message: String| Error::BadArgument { id: ID.into(), argument: "frames".into(), message };
    let frames = Tensor::read_npy(path).map_err(|error| refuse(format!("cannot read {path}: {error}")))?;
    let shape = frames.size();
    let wanted = SHAPE.map(|dimension| dimension as i64);
    if shape.len() != 4 || shape[0] == 0 || shape[1..] != wanted || frames.kind() != tch::Kind::Uint8 {
        return Err(refuse(format!(
            "{path} holds {:?} {shape:?}, not bytes [frames, 4, 42, 42]",
            frames.kind()
        )));
    }
    Vec::try_from(frames.contiguous().view(-1)).map_err(|error| refuse(format!("{path}: {error}")))
}

fn main() -> std::process::ExitCode {
    let pool: Mutex<Option<Arc<Vec<u8>>>> = Mutex::new(None);
    imago_experiments::Program::default()
        .env(ID, "frames from the file `frames`, for measurements", Some(TIME_LIMIT), move |args| {
            let Some(path) = args.get("frames").and_then(toml::Value::as_str) else {
                return Err(Error::BadArgument {
                    id: ID.into(),
                    argument: "frames".into(),
                    message: "expected the path of an .npy file".into(),
                });
            };
            let mut pool = pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let frames = match pool.as_ref() {
                Some(frames) => frames.clone(),
                None => pool.insert(Arc::new(read(path)?)).clone(),
            };
            Ok(FramePool::new(frames))
        })
        .main()
}
