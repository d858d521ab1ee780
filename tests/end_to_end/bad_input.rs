//! Around the refusals of `refusals.rs`: what is no mistake, and what can be done about one.

use crate::program::Place;

/// A place with a short run `a` that has checkpoints at 0, 128 and 256.
fn with_run() -> Place {
    let place = Place::new();
    place.ok(
        "train ppo/cartpole --set rollout.envs=4 --set rollout.steps=32 --set run.total_steps=256 \
         --set run.checkpoint_every=128 --set run.eval_every=0 --set run.eval_episodes=2 --run-dir a --quiet",
    );
    assert_eq!(place.steps("a"), [0, 128, 256]);
    place
}

/// A place with the demonstrations `x.demos`.
fn with_demonstrations() -> Place {
    let place = Place::new();
    place.ok("record --policy random --env seals/CartPole-v0 --episodes 2 --to x.demos");
    place
}

#[test]
fn a_lost_index_is_made_again() {
    let place = with_run();
    std::fs::remove_file(place.path("a/checkpoints/index.json")).unwrap();
    assert_eq!(place.ok("eval a@latest --json --episodes 1").json()["checkpoint"], 256);
}

#[test]
fn demonstrations_of_another_task_with_the_same_spaces() {
    let place = with_demonstrations();
    let said = place
        .ok("train bc/cartpole --demos x.demos --set env.id=CartPole-v1 --set run.total_steps=5 --run-dir a");
    assert!(said.stderr.contains("was recorded in seals/CartPole-v0, not in CartPole-v1"), "{said:#?}");
}

#[test]
fn files_are_overwritten_by_force() {
    let place = with_run();
    place.write("mine.txt", "mine");
    place.ok("record a --to x.demos --episodes 1");
    place.ok("record a --to mine.txt --episodes 1 --force");
    assert_eq!(place.ok("demos info mine.txt --json").json(), place.ok("demos info x.demos --json").json());
}

#[test]
fn what_may_change_on_resume() {
    let place = with_run();
    place.ok("train a --resume --quiet --set run.log_every=7 --threads 0");
}

#[test]
fn a_run_that_is_being_trained() {
    let place = Place::new();
    let mut running = place.start("train ppo/cartpole --set run.total_steps=100000000 --run-dir a --quiet");
    running.until("its first checkpoint", || place.path("a/checkpoints/index.json").is_file());
    let said = place.run("train a --resume --quiet").exits(2);
    said.says(&["imago: a: process", "is training into it", "another --run-dir"]);
    assert!(running.goes_on());
    assert!(running.kill());
    assert!(place.run("train a --resume --quiet --stop-at 1").code == Some(0));
}
