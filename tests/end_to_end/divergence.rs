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
    if let Some(tensor) = tensors.get(bad) {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 0, "`{bad}` is finite");
    }
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

#[test]
fn what_went_well_before_is_kept() {
    let place = Place::new();
    let train =
        "train ppo/cartpole --set rollout.steps=32 --set run.checkpoint_every=256 --run-dir a --quiet";
    place.ok(&format!("{train} --stop-at 512"));
    // The weights of a later checkpoint are spoilt as a bug would.
    let path = place.checkpoint("a", 512);
    let (mut tensors, values) = tensor_file::read(&path).unwrap();
    let _ = tensors.get_mut("train/policy/weights").unwrap().get(3).fill_(f64::NAN);
    tensor_file::write(&path, &tensors.into_iter().collect::<Vec<_>>(), &values).unwrap();
    let said = place.run("train a --resume --quiet").exits(1);
    let said = said.says(&["is not finite", "a --resume"]);
    assert!(!said.stdout.contains("return"), "{said:#?}");
    assert!(place.path("a/checkpoints/000000000256.safetensors").is_file());
}
