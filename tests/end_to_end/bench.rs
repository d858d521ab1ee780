//! What `make bench` measures with works, without the peers.

use std::path::Path;
use std::process::{Command, Output};
use tch::{Device, Kind, Tensor};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn example(name: &str, arguments: &[&str]) -> Output {
    let cargo = ["run", "--release", "--quiet", "--example", name, "--"];
    Command::new(env!("CARGO")).current_dir(ROOT).args(cargo).args(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_loop_over_environments_steps_all_of_them() {
    let measured = json(&example("bench_vec_env", &["--envs", "6", "--threads", "2", "--steps", "100000"]));
    // Whole rollouts of 256 steps of 6 environments: 100,000 / 1,536 rounded up.
    assert_eq!(measured["steps"], 66 * 1_536);
    // Gymnasium's CartPole falls after 22.3 random actions in the mean, with a deviation of 12: 3 % is four
    // standard errors of 4,500 episodes.
    let length = measured["checks"]["episode_length"].as_f64().unwrap();
    assert!((length - 22.3).abs() < 0.7, "{measured}");
    let refused = example("bench_vec_env", &["--envs", "5", "--threads", "2"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("multiple"), "{refused:?}");
}

#[test]
fn pictures_are_counted_and_are_those_of_the_peers() {
    let measured = json(&example("bench_picture", &["--steps", "100", "--warm", "0"]));
    assert_eq!((&measured["steps"], &measured["checks"]["pixels"]), (&100.into(), &1764.into()));
    // What OpenCV 5.0 and NumPy make of the same sixteen pictures, by peers.py.
    assert_eq!(measured["checks"]["brightness"], 127.4);
}

#[test]
fn a_gan_of_the_peers_size_is_timed() {
    let measured = json(&example("bench_gan", &["--steps", "1", "--warm", "0"]));
    assert_eq!(measured["steps"], 64);
    let of = |name: &str| measured["checks"][name].as_i64().unwrap();
    // Those of the networks in peers.py.
    assert_eq!((of("generator_parameters"), of("discriminator_parameters")), (5_135_363, 4_316_545));
}

#[test]
fn the_pool_shows_its_frames_and_refuses_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let train = |shape: &[i64], more: &[&str]| {
        let file = folder.path().join("frames.npy");
        Tensor::zeros(shape, (Kind::Uint8, Device::Cpu)).write_npy(&file).unwrap();
        let frames = format!("env.args.frames={:?}", file.to_str().unwrap());
        let recipe = Path::new(ROOT).join("experiments/bench/pixels.toml");
        let arguments = ["train", recipe.to_str().unwrap(), "--set", &frames, "--quiet", "--json"];
        example("bench_frame_pool", &[&arguments, more].concat())
    };
    let to = folder.path().join("run");
    let short =
        ["--set", "run.total_steps=1024", "--set", "run.eval_episodes=1", "--run-dir", to.to_str().unwrap()];
    let summary = json(&train(&[8, 4, 42, 42], &short));
    // The best of four actions is right in every fourth step, and all frames look the same.
    let wanted = summary["returns"]["deterministic_mean"].as_f64().unwrap();
    assert!((525.0 / 4.0 - wanted).abs() <= 1.0, "{summary}");
    let refused = train(&[8, 42, 42, 4], &["--dry-run"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("[frames, 4, 42, 42]"), "{refused:?}");
}

#[test]
fn the_command_refuses_what_it_does_not_know() {
    let python = Path::new(ROOT).join(".venv/bin/python");
    let bench = |arguments: &[&str]| {
        let script = Path::new(ROOT).join("experiments/bench/bench.py");
        Command::new(&python).arg(script).args(arguments).output().unwrap()
    };
    for (arguments, says) in [
        (["--rows", "pong"], "ppo, gail, gail_trpo, hold, env, pixels, icm"),
        (["--rounds", "0"], "at least one"),
    ] {
        let refused = bench(&arguments);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(says), "{refused:?}");
    }
}
