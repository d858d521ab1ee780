//! What the README shows works: the commands of its five minutes, each cut short, and the example.

use crate::program::Place;
use std::path::Path;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_command_of_the_five_minutes() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let tour = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let place = Place::new();
    let mut run = 0;
    for line in tour.lines().filter_map(|line| line.strip_prefix("imago ")) {
        let command = line.split('#').next().unwrap().trim();
        let short = match command.split(' ').next() {
            Some("train") if command.contains("bc/") => " --set run.total_steps=50 --quiet",
            Some("train" | "sweep") => " --set run.total_steps=2048 --quiet",
            _ => "",
        };
        place.ok(&format!("{command}{short}"));
        run += 1;
    }
    assert_eq!(run, 10, "commands in {tour}");
}

#[test]
fn the_example_brings_its_own_environment_and_signal() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("run");
    let example = ["run", "--release", "--quiet", "--example", "corridor", "--", "train"];
    let recipe = "experiments/examples/corridor.toml";
    let output = Command::new(env!("CARGO"))
        .current_dir(ROOT)
        .args(example)
        .args([recipe, "--quiet", "--json", "--run-dir"])
        .arg(&to)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // The best return: 0.1 + … + 1.0, then ten times 1.
    assert!(summary["returns"]["deterministic_mean"].as_f64().unwrap() > 15.0, "{summary}");
}
