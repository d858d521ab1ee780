//! How many steps a second native CartPole makes through `VecEnv`, as a rollout does it: actions drawn before,
//! observations, rewards and ends written to a rollout's buffer, ended episodes reset.
//!
//! `cargo run --release --example bench_vec_env -- --help`

use anyhow::{Context, Result, ensure};
use clap::Parser;
use imago::Stream;
use imago_envs::{EnvSpec, Fault, Finals, Leaf, LeafMut, Registry, Row, VecEnv};
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

/// Steps of a rollout's buffer, which is filled again and again.
const ROLLOUT: usize = 256;

/// Measure native CartPole through `VecEnv`; prints one line of JSON.
#[derive(Parser)]
struct Arguments {
    /// Environments, shared out among the threads.
    #[arg(long, default_value_t = 64)]
    envs: usize,
    /// Steps to time, summed over environments.
    #[arg(long, default_value_t = 20_000_000)]
    steps: usize,
    /// Threads, each with a group of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// One rollout of a group, `[T, n, …]`; observations have a row more.
struct Buffers {
    observation: Vec<f32>,
    reward: Vec<f32>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
    valid: Vec<bool>,
    faults: Vec<Fault>,
    stepping: AtomicI64,
}

/// Makes `rollouts` rollouts; the number of episodes that ended in them.
fn collect(
    group: &mut dyn VecEnv,
    actions: &[i64],
    seeds: &dyn Fn(usize, u64) -> u64,
    buffers: &mut Buffers,
    finals: &mut Finals,
    rollouts: usize,
) -> Result<usize> {
    let n = group.len();
    let size = group.observation_space().len();
    let mut episodes = 0;
    for _ in 0..rollouts {
        finals.clear();
        for t in 0..ROLLOUT {
            let (row, next) = (t * n..(t + 1) * n, (t + 1) * n * size..(t + 2) * n * size);
            let mut row = Row {
                observation: LeafMut::F32(&mut buffers.observation[next]),
                reward: &mut buffers.reward[row.clone()],
                terminated: &mut buffers.terminated[row.clone()],
                truncated: &mut buffers.truncated[row.clone()],
                valid: &mut buffers.valid[row.clone()],
                finals,
                faults: &mut buffers.faults,
                stepping: &buffers.stepping,
            };
            group.step(Leaf::I64(&actions[t * n..(t + 1) * n]), seeds, &mut row)?;
        }
        episodes += finals.len();
        black_box(&mut *buffers);
    }
    Ok(episodes)
}

/// The group of one thread: warms up, waits for the others, works. Its episodes and its beginning and end.
fn work(thread: usize, envs: usize, rollouts: usize, start: &Barrier) -> Result<(usize, Instant, Instant)> {
    let made = Registry::builtin().make_group(&EnvSpec::new("CartPole-v1"), envs);
    let warmed = made.context("CartPole-v1").and_then(|mut group| {
        let mut rng = Stream::new(0, "actions", thread as u64, 0);
        let actions: Vec<i64> = (0..ROLLOUT * envs).map(|_| rng.below(2) as i64).collect();
        let rows = ROLLOUT * envs;
        let mut buffers = Buffers {
            observation: vec![0.0; (ROLLOUT + 1) * envs * group.observation_space().len()],
            reward: vec![0.0; rows],
            terminated: vec![false; rows],
            truncated: vec![false; rows],
            valid: vec![false; rows],
            faults: Vec::new(),
            stepping: AtomicI64::new(0),
        };
        let mut finals = Finals::default();
        let first = thread * envs;
        let seeds = move |env: usize, episode: u64| Stream::seed(0, "episode", (first + env) as u64, episode);
        group.reset(&seeds, LeafMut::F32(&mut buffers.observation[..envs * 4]))?;
        collect(group.as_mut(), &actions, &seeds, &mut buffers, &mut finals, 8)?;
        Ok((group, actions, seeds, buffers, finals))
    });
    // Before any error is passed on: the others must not wait for ever.
    start.wait();
    let (mut group, actions, seeds, mut buffers, mut finals) = warmed?;
    let begun = Instant::now();
    let episodes = collect(group.as_mut(), &actions, &seeds, &mut buffers, &mut finals, rollouts)?;
    Ok((episodes, begun, Instant::now()))
}

/// Nanoseconds of one sine and one cosine, the bulk of CartPole's arithmetic: the fastest of many passes, which nobody
/// else interrupted.
fn sine_and_cosine() -> f64 {
    let angles: Vec<f64> = (0..4096).map(|i| f64::from(i) * 1e-4 - 0.2).collect();
    let passes = (0..500).map(|_| {
        let begun = Instant::now();
        for &angle in black_box(&angles) {
            black_box((angle.sin(), angle.cos()));
        }
        begun.elapsed().as_secs_f64() * 1e9 / angles.len() as f64
    });
    passes.fold(f64::INFINITY, f64::min)
}

fn main() -> Result<()> {
    let Arguments { envs, steps, threads } = Arguments::parse();
    ensure!(threads > 0 && envs > 0 && envs % threads == 0, "--envs must be a multiple of --threads");
    let rollouts = steps.div_ceil(envs * ROLLOUT);
    let start = Barrier::new(threads);
    let done: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || work(thread, envs / threads, rollouts, start))
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_>>()
    })?;
    let begun = done.iter().map(|(_, begun, _)| *begun).min().context("no thread")?;
    let ended = done.iter().map(|(_, _, ended)| *ended).max().context("no thread")?;
    let seconds = (ended - begun).as_secs_f64();
    let episodes: usize = done.iter().map(|(episodes, ..)| episodes).sum();
    let steps = rollouts * ROLLOUT * envs;
    println!(
        "{}",
        serde_json::json!({
            "steps": steps,
            "seconds": seconds,
            "rate": steps as f64 / seconds,
            "checks": { "episode_length": steps as f64 / episodes.max(1) as f64 },
            "sine_and_cosine_ns": sine_and_cosine(),
        })
    );
    Ok(())
}
