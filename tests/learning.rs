//! What is learnt, through the program and from beginning to end: returns, not losses.
//!
//! Runs go two at a time on one core each; `cargo test --release --test learning -- --nocapture` shows every
//! figure.

#![allow(clippy::unwrap_used)]

#[path = "end_to_end/program.rs"]
mod program;

use program::Place;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs at a time; each takes one core.
const AT_A_TIME: usize = 2;
/// Episodes of every figure below.
const EPISODES: usize = 50;

/// The test harness runs tests side by side; these share the cores among themselves.
fn alone() -> MutexGuard<'static, ()> {
    static CORES: Mutex<()> = Mutex::new(());
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Trains one run for each seed, in directories `NAME-SEED`, some at a time.
fn train(place: &Place, name: &str, recipe: &str, seeds: u64) {
    let waiting = Mutex::new(0..seeds);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(seed) = waiting.lock().unwrap().next() else { break };
                    let to = format!("--run-dir {name}-{seed} --seed {seed} --threads 0 --quiet --json");
                    place.ok(&format!("train {recipe} {to}"));
                }
            });
        }
    });
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The mean return of each seed's last policy on fresh episodes.
fn returns(place: &Place, name: &str, seeds: u64, how: &str) -> Vec<f64> {
    let eval = |seed| {
        let report =
            place.ok(&format!("eval {name}-{seed}@latest --json --episodes {EPISODES} {how}")).json();
        assert_eq!(report["episodes"], EPISODES);
        assert_eq!(report["deterministic"], how != "--stochastic");
        number(&report["return_mean"])
    };
    let returns: Vec<f64> = (0..seeds).map(eval).collect();
    println!("{name} {how}: {returns:?}");
    returns
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What a random policy earns on the fixed-horizon CartPole.
fn random_return(place: &Place) -> f64 {
    let to = "--policy random --env seals/CartPole-v0 --episodes 200 --to measured.demos --json";
    let random = number(&place.ok(&format!("record {to}")).json()["score"]["return_mean"]);
    assert!((20.0..60.0).contains(&random), "a random policy earns {random}");
    random
}

const EXPERT_RETURN: f64 = 500.0;
/// The most rollouts of 2,048 steps within 300,000; the controls have the same.
const GAIL: &str = "gail/cartpole --set run.total_steps=299_008";
const CONTROL_SEEDS: u64 = 5;

/// Trains the control and fails if it scores as if it had imitated, deterministically or sampled.
fn assert_learns_nothing(place: &Place, name: &str, recipe: &str) {
    let random = random_return(place);
    train(place, name, recipe, CONTROL_SEEDS);
    for how in ["", "--stochastic"] {
        let returns = returns(place, name, CONTROL_SEEDS, how);
        let scaled: Vec<f64> = returns.iter().map(|x| (x - random) / (EXPERT_RETURN - random)).collect();
        println!("{name} {how}: scaled {scaled:.3?}, mean {:.3}, random policy {random}", mean(&scaled));
        assert!(mean(&scaled) < 0.3, "{name} {how}: scaled {scaled:?}");
    }
}

#[test]
fn ppo_solves_cartpole() {
    let _cores = alone();
    let place = Place::new();
    // The most rollouts of 2,048 steps within 100,000.
    train(&place, "ppo-cartpole", "ppo/cartpole --set run.total_steps=98_304", 3);
    for (seed, reached) in returns(&place, "ppo-cartpole", 3, "").iter().enumerate() {
        assert_eq!(place.summary(&format!("ppo-cartpole-{seed}"))["step"], 98_304);
        assert!(*reached >= 475.0, "seed {seed}: {reached}");
    }
}

#[test]
fn ppo_swings_the_pendulum_up() {
    let _cores = alone();
    let place = Place::new();
    train(&place, "ppo-pendulum", "ppo/pendulum", 3);
    for (seed, reached) in returns(&place, "ppo-pendulum", 3, "").iter().enumerate() {
        assert!(*reached > -300.0, "seed {seed}: {reached}");
    }
}

#[test]
fn trpo_solves_the_papers_cartpole() {
    let _cores = alone();
    let place = Place::new();
    train(&place, "trpo-cartpole", "trpo/cartpole --set run.total_steps=200_000", 3);
    for (seed, reached) in returns(&place, "trpo-cartpole", 3, "").iter().enumerate() {
        assert!(*reached >= 190.0, "seed {seed}: {reached}");
    }
}

/// The paper's own settings. Survival alone explains this return; `imago reproduce` has the controls.
#[test]
fn the_papers_gail_imitates_20_pairs() {
    let _cores = alone();
    let place = Place::new();
    train(&place, "original", "gail/original-cartpole --set run.total_steps=300_000", 3);
    for (seed, reached) in returns(&place, "original", 3, "").iter().enumerate() {
        assert!(*reached >= 190.0, "seed {seed}: {reached}");
    }
}

#[test]
fn gail_imitates_25_pairs() {
    let _cores = alone();
    let place = Place::new();
    train(&place, "gail", GAIL, 3);
    for seed in 0..3 {
        let recipe = place.read(&format!("gail-{seed}/recipe.toml"));
        assert!(
            recipe.contains("demos_episodes = 1\n") && recipe.contains("demos_stride = 20\n"),
            "{recipe}"
        );
        let report = place.ok(&format!("eval gail-{seed}@latest --json --episodes {EPISODES}")).json();
        println!("gail, seed {seed}: {report}");
        assert_eq!(report["checkpoint"], 299_008);
        assert_eq!(number(&report["expert_return"]), EXPERT_RETURN);
        assert!(number(&report["scaled_score"]) >= 0.93, "seed {seed}: {report}");
    }
}

/// The discriminator is never trained: its last layer stays zero and its reward log 2 everywhere.
#[test]
fn a_constant_reward_teaches_nothing() {
    let _cores = alone();
    let place = Place::new();
    assert_learns_nothing(&place, "constant", &format!("{GAIL} --set signal.gail.updates_per_round=0"));
    for seed in 0..CONTROL_SEEDS {
        let metrics = place.metrics(&format!("constant-{seed}"));
        assert!(metrics.len() > 100, "{} lines", metrics.len());
        for line in metrics {
            let reward = number(&line["gail/reward_mean"]);
            assert!((reward - std::f64::consts::LN_2).abs() < 1e-6, "seed {seed}: {line}");
        }
    }
}

#[test]
fn random_demonstrations_teach_nothing() {
    let _cores = alone();
    let place = Place::new();
    place.ok("record --policy random --env seals/CartPole-v0 --episodes 10 --to random.demos");
    assert_learns_nothing(&place, "random-expert", &format!("{GAIL} --demos random.demos"));
}
