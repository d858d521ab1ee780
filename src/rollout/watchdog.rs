//! Notices environments of this process that never come back: a thread cannot be taken away from them, so all that is
//! left is to say which one it was and to end. (Processes are replaced: see [`super::process`].)

use crate::memory::Column;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What a group of environments that is not being stepped shows in place of its row.
pub(crate) const IDLE: i64 = -1;

/// Everything that is watched: a number, and the pulse under it.
static WATCHED: Mutex<Vec<(u64, Pulse)>> = Mutex::new(Vec::new());

/// How long environments may take, and what happens then. Nobody watches until it is set.
static PATIENCE: OnceLock<Duration> = OnceLock::new();

/// Signs of life of a group of environments, for whoever looks from outside while it is stepped.
pub(crate) struct Pulse {
    /// The row that is being collected or [`IDLE`], and which environment is being stepped.
    pub at: Column<i64>,
    /// Seed of each environment's episode.
    pub seeds: Column<i64>,
    /// Index of the group's first environment.
    pub first: usize,
}

impl Pulse {
    /// Of `envs` environments, the first of which is number `first`.
    pub fn new(at: Column<i64>, seeds: Column<i64>, first: usize) -> Self {
        at.atomic(0).store(IDLE, Ordering::Relaxed);
        Self { at, seeds, first }
    }

    /// The same memory, seen from elsewhere.
    fn view(&self) -> Self {
        let [at, seeds] = [&self.at, &self.seeds].map(|column| Column::of(column.tensor().shallow_clone()));
        Self { at, seeds, first: self.first }
    }

    /// Row and environment.
    fn now(&self) -> [i64; 2] {
        [0, 1].map(|i| self.at.atomic(i).load(Ordering::Relaxed))
    }
}

/// As long as it lives, its environments are watched.
pub(crate) struct Watch(u64);

impl Watch {
    /// Watches `pulse`, if anybody watches at all.
    pub fn over(pulse: &Pulse) -> Self {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        let number = watched.last().map_or(0, |(last, _)| last + 1);
        watched.push((number, pulse.view()));
        Self(number)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(number, _)| *number != self.0);
    }
}

/// From now on, environments of this process that do not come back within `patience` end in a call of `hung` with what
/// can be said of them. The first call counts.
pub fn watch_environments(patience: Duration, hung: impl Fn(String) + Send + 'static) {
    if PATIENCE.set(patience).is_err() {
        return;
    }
    let look = move || {
        // Looks are counted, not time: a program that was stopped for an hour (Ctrl-Z) has not hung for an hour.
        let pause = patience.min(Duration::from_millis(500));
        let mut last: Vec<(u64, [i64; 2], u32)> = Vec::new();
        loop {
            std::thread::sleep(pause);
            let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
            let alive = |number: u64, now: [i64; 2]| {
                let before = last.iter().find(|(other, ..)| *other == number);
                match before {
                    Some((_, at, looks)) if *at == now && now[0] != IDLE => (number, now, looks + 1),
                    _ => (number, now, 0),
                }
            };
            let now: Vec<_> = watched.iter().map(|(number, pulse)| alive(*number, pulse.now())).collect();
            last = now;
            for ((_, [row, env], looks), (_, pulse)) in last.iter().zip(watched.iter()) {
                if pause * *looks >= patience {
                    let env = usize::try_from(*env).unwrap_or(0).min(pulse.seeds.len().saturating_sub(1));
                    let seed = pulse.seeds.atomic(env).load(Ordering::Relaxed) as u64;
                    hung(format!(
                        "environment {} (episode of seed {seed}, in row {row} of the rollout) did not come back within {} s",
                        pulse.first + env,
                        patience.as_secs_f64()
                    ));
                }
            }
        }
    };
    // Without it a hang is what it always was.
    let _ = std::thread::Builder::new().name("watchdog".into()).spawn(look);
}
