//! Every seed of the fuzzers through what they check, without libFuzzer: what `make fuzz` found stays mended.
//!
//! Seeds lie in `fuzz/seeds/TARGET`. A name says what must come of it: `good…` is taken, `bad…` is refused.

#[path = "fuzz/targets/checkpoints.rs"]
mod checkpoints;
#[path = "fuzz/targets/command_lines.rs"]
mod command_lines;
#[path = "fuzz/targets/container.rs"]
mod container;
#[path = "fuzz/targets/demonstrations.rs"]
mod demonstrations;
#[path = "fuzz/targets/recipes.rs"]
mod recipes;
#[path = "fuzz/targets/small_run.rs"]
mod small_run;

use imago::rollout::leaf_tensor;
use imago_agents::{DemoSelection, Demonstrations};
use imago_envs::{LeafBuf, Space};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join(path)
}

fn run_all(target: &str, check: fn(&[u8]) -> bool) {
    let folder = project("tests/fuzz/seeds").join(target);
    let mut good = 0;
    for entry in fs::read_dir(&folder).expect("seeds") {
        let path = entry.expect("a seed").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let taken = check(&fs::read(&path).expect("a seed"));
        assert_eq!(taken, name.starts_with("good"), "{}", path.display());
        assert!(taken || name.starts_with("bad"), "{}: call it good… or bad…", path.display());
        good += usize::from(taken);
    }
    assert!(good > 0, "no good seed in {}", folder.display());
}

#[test]
fn seeds_of_recipes() {
    run_all("recipes", recipes::check);
    for recipe in ["bc/cartpole", "gail/cartpole", "ppo/cartpole", "ppo/pendulum"] {
        let path = project("experiments/recipes").join(recipe).with_extension("toml");
        assert!(recipes::check(&fs::read(path).expect("a recipe")), "{recipe}");
    }
}

#[test]
fn seeds_of_demonstrations() {
    run_all("demonstrations", demonstrations::check);
}

#[test]
fn seeds_of_checkpoints() {
    run_all("checkpoints", checkpoints::check);
}

#[test]
fn seeds_of_command_lines() {
    run_all("command_lines", command_lines::check);
}

const KEYS: [&str; 12] = [
    "run.seed",
    "run.total_steps",
    "rollout.envs",
    "policy.hidden",
    "policy.torso",
    "learner.kind",
    "learner.discount",
    "learner.value_clip",
    "signal.gail.weight",
    "signal.gail.discount",
    "signal.registered.anything",
    "env.args.length",
];
const VALUES: [&str; 14] = [
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "0.5",
    "inf",
    "nan",
    "[8, 8]",
    "{ from = 1, to = 0 }",
    "icm",
    "bc",
    "true",
    "1979-05-27",
    "\"",
];
const WORDS: [&str; 28] = [
    "train",
    "sweep",
    "--grid",
    "policy.hidden=[8],[4]",
    "--seeds=0..2",
    "eval",
    "record",
    "watch",
    "demos",
    "info",
    "subsample",
    "envs",
    "check",
    "recipes",
    "a.toml",
    "a.demos",
    "latest@8",
    "a@best",
    "runs/a",
    "--set",
    "run.seed=1",
    "--resume",
    "--env",
    "CartPole-v1?a=1",
    "--to",
    "x",
    "--episodes",
    "0",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_settings_are_a_recipe_or_an_error(sets in vec((select(&KEYS[..]), select(&VALUES[..])), 0..4)) {
        let sets: Vec<String> = sets.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let recipe = "[env]\nid = \"x\"\n[signal.gail]\ndemos = \"a.demos\"\n[signal.registered]\nx = 1\n";
        recipes::check(format!("{recipe}# sets\n{}", sets.join("\n")).as_bytes());
    }

    #[test]
    fn any_words_are_a_command_or_an_error(words in vec(select(&WORDS[..]), 0..8)) {
        command_lines::check(words.join("\n").as_bytes());
    }
}

/// Writes the seeds that are real files. To be run when their formats have changed:
/// `cargo test --release --test corpora -- --ignored`.
#[test]
#[ignore = "writes to tests/fuzz/seeds"]
fn seeds_anew() {
    let write =
        |name: &str, data: &[u8]| fs::write(project("tests/fuzz/seeds").join(name), data).expect("a seed");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("x");

    let recorded = project("experiments/recipes/demos/seals-cartpole.demos");
    let few = DemoSelection { episodes: Some(2), stride: 100, ..Default::default() };
    let floats = (Kind::Float, tch::Device::Cpu);
    let image = Space::bytes(&[2, 2, 1]);
    let pendulum = (Space::floats(&[3], -8.0, 8.0), Space::floats(&[1], -2.0, 2.0));
    let several = Space::fields([
        ("speed", Space::floats(&[1], -1.0, 1.0)),
        ("gear", Space::Discrete { n: 3, start: 5 }),
        ("lights", Space::multi_binary(&[3])),
    ])
    .expect("a space");
    let records = LeafBuf::zeros(&several, 2);
    for (name, demonstrations) in [
        (
            "cartpole",
            Demonstrations::load(&recorded).and_then(|all| all.select(&few)).expect("demonstrations"),
        ),
        (
            "pendulum",
            Demonstrations::from_pairs(
                pendulum.0,
                pendulum.1,
                Tensor::ones([3, 3], floats),
                Tensor::ones([3, 1], floats),
            ),
        ),
        (
            "fields",
            Demonstrations::from_pairs(
                several.clone(),
                Space::multi_discrete(&[2, 4]),
                leaf_tensor(&records, &several),
                Tensor::from_slice2(&[[0i64, 3], [1, 2]]),
            ),
        ),
        (
            "image",
            Demonstrations::from_pairs(
                image,
                Space::discrete(3),
                Tensor::zeros([2, 2, 2, 1], (Kind::Uint8, tch::Device::Cpu)),
                Tensor::from_slice(&[0i64, 2]),
            ),
        ),
    ] {
        demonstrations.save(&file).expect("a file");
        write(&format!("demonstrations/good_{name}"), &fs::read(&file).expect("a file"));
        write(&format!("demonstrations/good_{name}_described"), &container::describe(&file));
    }

    let run = folder.path().join("run");
    small_run::begin(&run);
    let inside = run.join("checkpoints");
    let checkpoint = inside.join(format!("{:012}.safetensors", small_run::STEP));
    write("checkpoints/good_whole", &fs::read(&checkpoint).expect("a file"));
    write("checkpoints/good_described", &container::describe(&checkpoint));
}
