//! A number that is not finite stops the run, names itself, and leaves the last good checkpoint.

use crate::program::{Output, Place};
use imago::run::tensor_file;
use std::path::PathBuf;

/// The batch that the message says was kept.
fn dump(place: &Place, run: &str) -> PathBuf {
    let is_dump = |path: &PathBuf| path.to_string_lossy().contains("non_finite_");
    let mut dumps = std::fs::read_dir(place.path(run)).unwrap().map(|e| e.unwrap().path()).filter(is_dump);
    let dump = dumps.next().expect("no batch was kept");
    assert_eq!(dumps.next(), None);
    dump
}

/// Exit code 1 and one line that tells where the batch and the last good checkpoint are; both are there.
#[track_caller]
fn diverges(place: &Place, train: &str) -> Output {
    let said = place.run(&format!("{train} --run-dir a --quiet"));
    let said =
        said.exits(1).says(&["imago: step ", "is not finite", "first bad tensor: ", "train a --resume"]);
    assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
    assert_eq!(said.stdout, "");
    let path = dump(place, "a");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(said.stderr.contains(name), "{said:#?}");
    let (tensors, values) = tensor_file::read(&path).unwrap();
    let what = values["what"].as_str().unwrap();
    assert!(said.stderr.contains(&format!("{what} is not finite")), "{what}: {said:#?}");
    let bad = values["tensor"].as_str().unwrap();
    assert!(said.stderr.contains(&format!("(first bad tensor: {bad})")), "{bad}: {said:#?}");
    assert_eq!(tensors[bad].isfinite().all().int64_value(&[]), 0, "`{bad}` is finite");
    // The last good checkpoint is the one that is named, and it is good.
    let good = *place.steps("a").last().unwrap();
    assert!(said.stderr.contains(&format!("last good checkpoint is of step {good}:")), "{said:#?}");
    let weights = place.state("a", good).0.remove("train/policy/weights").unwrap();
    assert_eq!(weights.isfinite().all().int64_value(&[]), 1);
    assert_eq!(place.ok("eval a@latest --json --episodes 2").json()["checkpoint"], good);
    assert!(!place.path("a/summary.json").exists(), "a run that failed has a summary");
    said
}

#[test]
fn a_learning_rate_without_measure() {
    let place = Place::new();
    let said = diverges(&place, "train ppo/cartpole --set learner.learning_rate=1e30");
    assert!(said.stderr.contains("policy"), "{said:#?}");
    // The settings that led there lead there again, and others are another run.
    place.run("train a --resume --quiet").exits(1).says(&["is not finite"]);
}

#[test]
fn a_discriminator_without_measure() {
    let place = Place::new();
    let said = diverges(&place, "train gail/cartpole --set signal.gail.learning_rate=1e38");
    assert!(said.stderr.to_lowercase().contains("gail"), "{said:#?}");
}

#[test]
fn cloning_without_measure() {
    let place = Place::new();
    diverges(&place, "train bc/cartpole --set learner.learning_rate=1e38");
}

/// The first iteration goes well; from the second on the reward grows out of measure.
#[test]
fn what_went_well_before_is_kept() {
    let place = Place::new();
    let sets =
        "--set signal.task.weight={from=1,to=1e40} --set run.checkpoint_every=1 --set run.eval_every=0";
    diverges(&place, &format!("train ppo/cartpole {sets}"));
    assert_eq!(place.steps("a"), [0, 2048]);
    let weights = |step| place.state("a", step).0.remove("train/policy/weights").unwrap();
    assert_ne!(weights(0), weights(2048));
}
