//! Where the time of a run goes, by phase: what `imago train --profile` prints.
//!
//! Off, a phase costs one relaxed read. On, it costs two readings of the clock, some 50 ns.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of training. With worker threads the first two run side by side, and their time is the sum over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Steps and resets of environments.
    Environment,
    /// The policy's decisions during rollouts.
    Inference,
    /// Reward signals: scoring rollouts and learning from them (GAIL's discriminator).
    Signals,
    /// Advantages and the policy's gradient steps.
    Update,
    /// Evaluation episodes.
    Evaluation,
    /// Checkpoints and the log.
    Writing,
}

/// Every phase with its name, in the order of the table.
pub const PHASES: [(Phase, &str); 6] = [
    (Phase::Environment, "environment"),
    (Phase::Inference, "inference"),
    (Phase::Signals, "signals"),
    (Phase::Update, "update"),
    (Phase::Evaluation, "evaluation"),
    (Phase::Writing, "writing"),
];

static ON: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: [AtomicU64; PHASES.len()] = [const { AtomicU64::new(0) }; PHASES.len()];

/// Starts counting from zero.
pub fn start() {
    NANOSECONDS.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
    ON.store(true, Ordering::Relaxed);
}

/// Does `work`, on the account of `phase`. Phases do not nest.
pub fn timed<R>(phase: Phase, work: impl FnOnce() -> R) -> R {
    if !is_on() {
        return work();
    }
    let begun = Instant::now();
    let result = work();
    NANOSECONDS[phase as usize].fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}

/// Whether anything is counted.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Puts work on the account of `phase` that another process did.
pub(crate) fn add(phase: Phase, work: Duration) {
    NANOSECONDS[phase as usize].fetch_add(work.as_nanos() as u64, Ordering::Relaxed);
}

/// What rollouts took so far: environments, decisions.
pub(crate) fn rollout_seconds() -> [Duration; 2] {
    [Phase::Environment, Phase::Inference]
        .map(|phase| Duration::from_nanos(NANOSECONDS[phase as usize].load(Ordering::Relaxed)))
}

/// Seconds of every phase and of the rest of `wall` seconds, for `summary.json`; `None` if nothing was counted. The
/// rest is 0 where worker threads ran side by side for longer than that.
pub fn seconds(wall: f64) -> Option<Value> {
    is_on().then(|| {
        let mut counted = 0.0;
        let mut phases = serde_json::Map::new();
        for ((_, name), sum) in PHASES.iter().zip(&NANOSECONDS) {
            let seconds = sum.load(Ordering::Relaxed) as f64 * 1e-9;
            counted += seconds;
            phases.insert((*name).into(), seconds.into());
        }
        phases.insert("other".into(), (wall - counted).max(0.0).into());
        json!({ "wall": wall, "seconds": phases })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn phases_are_counted_and_the_rest_is_other() {
        assert!(seconds(1.0).is_none(), "nothing is counted unless asked");
        start();
        timed(Phase::Signals, || std::thread::sleep(Duration::from_millis(20)));
        let profile = seconds(100.0).unwrap();
        let of = |name: &str| profile["seconds"][name].as_f64().unwrap();
        assert!((0.02..10.0).contains(&of("signals")), "{profile}");
        let counted: f64 = PHASES.iter().map(|(_, name)| of(name)).sum();
        assert!((of("other") - (100.0 - counted)).abs() < 1e-9, "{profile}");
    }
}
