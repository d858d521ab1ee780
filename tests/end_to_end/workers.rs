//! The same seed gives the same bits, whoever steps the environments.

use crate::program::Place;

fn any_number_of_workers_is_the_same(recipe: &str, steps: u64) {
    let place = Place::new();
    let train = format!("train {recipe} --set run.total_steps={steps} --set rollout.group_size=2 --quiet");
    for threads in [0, 1, 2, 4] {
        place.ok(&format!("{train} --threads {threads} --run-dir t{threads}"));
        let recipe = place.read(&format!("t{threads}/recipe.toml"));
        assert!(recipe.contains(&format!("workers = {threads}\n")), "{recipe}");
        assert_eq!(
            place.state("t0", steps).1.keys().filter(|key| key.ends_with("/envs")).count(),
            4,
            "groups"
        );
        place.assert_same("t0", &format!("t{threads}"), steps);
    }
    place.ok(&format!("{train} --threads 0 --seed 1 --run-dir other"));
    let weights = |run| place.state(run, steps).0.remove("train/policy/weights").unwrap();
    assert_ne!(weights("t0"), weights("other"), "another seed, the same weights");
}

#[test]
fn ppo() {
    any_number_of_workers_is_the_same("ppo/cartpole", 8192);
}

#[test]
fn ppo_with_a_memory() {
    any_number_of_workers_is_the_same("ppo/tmaze --set rollout.envs=8 --set rollout.steps=64", 1024);
}

/// What processes remember lies in memory that both sides see, and goes on after a checkpoint.
#[test]
fn a_memory_in_processes() {
    let place = Place::new();
    let train = "train ppo/tmaze --set rollout.envs=8 --set rollout.group_size=2 --set rollout.steps=33 --set \
                 run.total_steps=1056 --quiet";
    place.ok(&format!("{train} --threads 0 --run-dir alone"));
    let processes = "--threads 2 --set run.worker_kind=processes --run-dir apart";
    place.run(&format!("{train} {processes} --stop-at 264")).exits(0);
    place.ok("train apart --resume --quiet");
    place.assert_same("alone", "apart", 1056);
}

#[test]
fn ppo_with_statistics() {
    any_number_of_workers_is_the_same("ppo/pendulum", 4096);
}

#[test]
fn gail() {
    any_number_of_workers_is_the_same("gail/cartpole", 8192);
}
