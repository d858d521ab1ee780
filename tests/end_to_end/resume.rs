//! Runs that stop and go on: to the bit, whichever way they stopped.

use crate::program::Place;
use imago_envs::extras::Extra;
use std::time::Duration;

/// Short rollouts, so that a run has many iterations; the environments are in the middle of episodes.
const SMALL: &str = "--set rollout.envs=4 --set rollout.steps=32 --set rollout.group_size=2 --set run.eval_every=1024 \
                     --set run.eval_episodes=4 --quiet";

#[test]
fn stop_at_stops_with_a_checkpoint_and_resume_goes_on() {
    let place = Place::new();
    place.ok(&format!("train gail/cartpole {SMALL} --set run.total_steps=3072 --run-dir whole"));
    // Done as told, so 0; 3 is for signals.
    let train = format!("train gail/cartpole {SMALL} --set run.total_steps=3072 --run-dir a");
    let stopped = place.ok(&format!("{train} --stop-at 1300"));
    // The first end of an iteration of 128 steps at or after 1,300.
    assert!(stopped.stdout.contains("stopped at step 1408") && stopped.stdout.contains("train a --resume"));
    assert_eq!(place.summary("a")["finished"], false);
    assert_eq!(place.steps("a").last(), Some(&1408));
    assert_eq!(place.ok("eval a@latest --json --episodes 2").json()["checkpoint"], 1408);
    place.ok("train a --resume --quiet");
    assert_eq!(place.summary("a")["finished"], true);
    place.assert_same("whole", "a", 3072);
    // A finished run has nothing left to do, and doing it changes nothing.
    let before = place.listing();
    place.ok("train a --resume --quiet");
    let weights = place.checkpoint("a", 3072);
    assert!(before[&weights] == std::fs::read(&weights).unwrap());
    assert_eq!(place.steps("a").last(), Some(&3072));
}

#[test]
fn stopping_leaves_no_trace_in_the_metrics() {
    let place = Place::new();
    let train = format!("train ppo/cartpole {SMALL} --set run.total_steps=2048 --set run.log_every=500");
    place.ok(&format!("{train} --run-dir whole"));
    place.ok(&format!("{train} --run-dir a --stop-at 700"));
    place.ok("train a --resume --quiet --stop-at 1500");
    place.ok("train a --resume --quiet");
    let metrics = |run: &str| {
        let mut lines = place.metrics(run);
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            line.retain(|key, _| key != "time" && !key.starts_with("time/"));
        }
        lines
    };
    assert!(metrics("whole").len() >= 4);
    assert_eq!(metrics("whole"), metrics("a"));
}

#[test]
fn a_run_goes_on_from_the_checkpoint_that_is_named() {
    let place = Place::new();
    let train =
        format!("train gail/cartpole {SMALL} --set run.total_steps=1024 --set run.checkpoint_every=128");
    place.ok(&format!("{train} --set run.keep_checkpoints=9 --run-dir whole"));
    place.ok(&format!("{train} --set run.keep_checkpoints=9 --run-dir a"));
    // What came after it is forgotten.
    place.ok("train a@256 --resume --quiet --stop-at 512");
    assert_eq!(place.steps("a"), [0, 128, 256, 384, 512]);
    assert_eq!(place.metrics("a").last().unwrap()["step"], 512);
    place.ok("train a --resume --quiet");
    place.assert_same("whole", "a", 1024);
    place.refuses("train a@999 --resume --quiet", &["no checkpoint of step 999"]);
}

/// Skipped where the extra `mujoco` is not installed.
#[test]
fn mujoco_goes_on_in_the_middle_of_episodes() {
    if !Extra::named("mujoco").unwrap().missing().is_empty() {
        eprintln!("skipped: imago envs install mujoco");
        return;
    }
    let place = Place::new();
    place.write(
        "r.toml",
        &place.ok("recipes show ppo/pendulum").stdout.replace("Pendulum-v1", "gym:Hopper-v5"),
    );
    let train = format!("train r.toml {SMALL} --set run.total_steps=512");
    place.ok(&format!("{train} --run-dir whole"));
    let said = place.ok(&format!("{train} --run-dir a --stop-at 200"));
    assert!(!said.stderr.contains("new episode"), "{said:#?}");
    let said = place.ok("train a --resume --quiet");
    assert!(!said.stderr.contains("new episode"), "{said:#?}");
    place.assert_same("whole", "a", 512);
}

#[test]
fn resume_begins_what_is_not_there() {
    let place = Place::new();
    let queue = format!("train ppo/cartpole {SMALL} --set run.total_steps=512 --run-dir a --resume");
    place.ok(&format!("{queue} --stop-at 128"));
    assert_eq!(place.steps("a"), [0, 128]);
    place.ok(&queue);
    assert_eq!(place.summary("a")["step"], 512);
    place.ok(&format!("train ppo/cartpole {SMALL} --set run.total_steps=512 --run-dir whole"));
    place.assert_same("whole", "a", 512);
}

#[test]
fn a_run_can_be_prolonged_and_workers_may_change() {
    let place = Place::new();
    place.ok(&format!(
        "train ppo/cartpole {SMALL} --set run.total_steps=512 --set learner.anneal_learning_rate=false --run-dir a"
    ));
    place.ok("train a --resume --set run.total_steps=1024 --threads 2 --quiet");
    assert_eq!(place.summary("a")["step"], 1024);
    place.ok(&format!(
        "train ppo/cartpole {SMALL} --set run.total_steps=1024 --set learner.anneal_learning_rate=false --run-dir b"
    ));
    let weights = |run| place.state(run, 1024).0.remove("train/policy/weights").unwrap();
    assert_eq!(weights("a"), weights("b"));
}

#[test]
fn a_signal_stops_with_a_checkpoint() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        let train = format!("train ppo/cartpole {SMALL} --set run.total_steps=40960 --set run.eval_every=0");
        let mut running = place.start(&format!("{train} --run-dir a"));
        let metrics = place.path("a/metrics.jsonl");
        running.until("its first lines", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
        running.signal(signal);
        let stopped = running.end().exits(3);
        let step = *place.steps("a").last().unwrap();
        assert!(step > 0 && step < 40960, "{step}");
        assert!(stopped.stdout.contains(&format!("stopped at step {step}")), "{stopped:#?}");
        place.ok(&format!("train a --resume --quiet --stop-at {}", step + 512));
        place.ok(&format!("{train} --run-dir whole --stop-at {}", step + 512));
        place.assert_same("whole", "a", step + 512);
    }
}

/// One iteration of half a minute: the first signal waits for its end, the second one does not.
#[test]
fn a_second_signal_ends_the_program_at_once() {
    let place = Place::new();
    let long = "--set rollout.steps=4096 --set learner.epochs=1000 --set run.total_steps=1000000 --quiet";
    let mut running = place.start(&format!("train ppo/cartpole {long} --run-dir a"));
    running.until("its first checkpoint", || place.path("a/checkpoints/index.json").is_file());
    running.works(Duration::from_millis(300));
    running.signal("TERM");
    running.works(Duration::from_millis(300));
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(143), "{ended:#?}");
    assert_eq!(place.ok("eval a@latest --json --episodes 1").json()["checkpoint"], 0);
}

/// N, checkpoint, `kill -9` past it, on to 2 N: the same as 2 N at a stretch.
fn killed_run_equals_whole_one(recipe: &str) {
    let place = Place::new();
    let train = format!("train {recipe} {SMALL} --set run.total_steps=8192 --set run.checkpoint_every=4096");
    place.ok(&format!("{train} --run-dir whole"));
    let mut running = place.start(&format!("{train} --run-dir a"));
    running.until("step 4608", || {
        std::fs::read_to_string(place.path("a/metrics.jsonl"))
            .is_ok_and(|text| text.lines().any(|line| line.starts_with("{\"step\":4608,")))
    });
    assert!(running.kill(), "it was over before it could be killed");
    let steps = place.steps("a");
    assert!(steps.contains(&4096) && !steps.contains(&8192), "{steps:?}");
    let before = place.metrics("a").last().unwrap()["step"].as_u64().unwrap();
    assert!(before >= 4608, "{before}");
    place.ok("train a --resume --quiet");
    place.assert_same("whole", "a", 8192);
    let lines =
        |run| -> Vec<u64> { place.metrics(run).iter().map(|line| line["step"].as_u64().unwrap()).collect() };
    assert_eq!(lines("whole"), lines("a"), "steps in metrics.jsonl");
}

#[test]
fn ppo_killed_equals_whole() {
    killed_run_equals_whole_one("ppo/cartpole");
}

#[test]
fn ppo_with_statistics_killed_equals_whole() {
    killed_run_equals_whole_one("ppo/pendulum");
}

#[test]
fn gail_killed_equals_whole() {
    killed_run_equals_whole_one("gail/cartpole");
}

#[test]
fn gail_with_replay_and_everything_killed_equals_whole() {
    killed_run_equals_whole_one(
        "gail/cartpole --set signal.gail.replay_rollouts=3 --set signal.gail.spectral_norm=true \
         --set signal.gail.gradient_penalty=1 --set signal.gail.reward_norm=\"returns\" --set policy.normalise=true",
    );
}

#[test]
fn curiosity_and_the_statistics_of_images_killed_equal_whole() {
    killed_run_equals_whole_one("icm/rooms-sparse --set run.check_env=false");
}

/// A replay that forgets, filled by few and small updates.
const REPLAY: &str = "--set learner.updates_per_step=0.1 --set learner.batch_size=16 --set learner.replay_size=3000 \
                      --set policy.hidden=[16,16] --set run.log_every=1";

#[test]
fn sac_killed_equals_whole() {
    killed_run_equals_whole_one(&format!("sac/pendulum {REPLAY}"));
}

#[test]
fn td3_with_absorbing_states_and_statistics_killed_equals_whole() {
    killed_run_equals_whole_one(&format!(
        "sac/pendulum {REPLAY} --set learner.kind=td3 --set learner.absorbing=true --set policy.normalise=true \
         --set env.id=MountainCarContinuous-v0"
    ));
}

#[test]
fn rows_of_a_replay_are_written_once_and_missed_when_they_are_gone() {
    let place = Place::new();
    let train = format!(
        "train sac/pendulum {SMALL} {REPLAY} --set run.total_steps=7168 --set run.eval_every=0 \
         --set run.checkpoint_every=1024"
    );
    place.ok(&format!("{train} --run-dir a --stop-at 6144"));
    let rows = || {
        let files = std::fs::read_dir(place.path("a/checkpoints/replay")).unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    // The checkpoints of 4,096, 5,120 and 6,144 need the 3,000 rows before each.
    let file = |from: u64| format!("train.replay-{from:012}-{:012}.safetensors", from + 1024);
    assert_eq!(rows(), [1024, 2048, 3072, 4096, 5120].map(file));
    let (path, kept) = (place.path("a/checkpoints/replay").join(file(4096)), place.path("kept"));
    let content = std::fs::read(&path).unwrap();
    let on = "train a --resume --quiet";
    std::fs::write(&path, &content[..content.len() - 1]).unwrap();
    place.refuses(on, &["train.replay-000000004096-000000005120.safetensors", "damaged"]);
    std::fs::rename(&path, &kept).unwrap();
    place.refuses(on, &["row 4096 of `train/replay`"]);
    // Who only looks needs no replay.
    place.ok("eval a --episodes 1");
    std::fs::write(&path, &content).unwrap();
    place.ok(on);
    place.ok(&format!("{train} --run-dir whole"));
    place.assert_same("whole", "a", 7168);
}

#[test]
fn cloning_killed_equals_whole() {
    let place = Place::new();
    let train = "train bc/cartpole --set run.total_steps=6000 --set run.eval_every=50000 --quiet \
                 --set run.checkpoint_every=3000 --set learner.batch_size=4";
    place.ok(&format!("{train} --run-dir whole"));
    let mut running = place.start(&format!("{train} --run-dir a"));
    running.until("its checkpoint", || place.checkpoint("a", 3000).is_file());
    assert!(running.kill(), "it was over before it could be killed");
    place.ok("train a --resume --quiet");
    place.assert_same("whole", "a", 6000);
}

#[test]
fn kills_at_any_moment_lose_no_run() {
    no_run_is_lost("gail/cartpole");
}

#[test]
fn kills_at_any_moment_lose_no_replay() {
    no_run_is_lost(&format!("sac/pendulum {REPLAY}"));
}

/// Kills at moments that have nothing to do with what the program is doing, checkpoints being written nearly
/// all the time: after each one the run can be looked at and goes on.
fn no_run_is_lost(recipe: &str) {
    let place = Place::new();
    let train = format!(
        "train {recipe} {SMALL} --set run.total_steps=1000000 --set run.checkpoint_every=1 \
         --set run.eval_every=512 --run-dir a --resume"
    );
    let (mut last, mut looked_at) = (0, 0);
    let mut milliseconds = 7;
    // On a machine with other work the first checkpoint comes later, and the first kills show nothing.
    for kill in 0..60 {
        if kill >= 14 && looked_at >= 10 {
            break;
        }
        let running = place.start(&train);
        // Spread over start and training: 40 ms to 900 ms, and 40 ms more from kill to kill.
        milliseconds = (milliseconds * 389) % 857;
        std::thread::sleep(Duration::from_millis(40 * (kill + 1) + milliseconds));
        assert!(running.kill(), "kill {kill}: the run was over");
        let eval = place.run("eval a@latest --json --episodes 1");
        match eval.code {
            Some(0) => {
                let step = eval.json()["checkpoint"].as_u64().unwrap();
                assert!(step >= last, "kill {kill}: went back from {last} to {step}");
                last = step;
                looked_at += 1;
            }
            _ => {
                let said = eval.exits(2);
                let clear = ["no checkpoint yet", "no run is called"];
                assert!(last == 0 && clear.iter().any(|words| said.stderr.contains(words)), "{said:#?}");
            }
        }
    }
    assert!(looked_at >= 10 && last > 128, "{looked_at} looks, {last} steps");
    // And it is still the run that it was.
    place.ok(&format!("{train} --stop-at {}", last + 256));
    let end = *place.steps("a").last().unwrap();
    let whole = train.replace("--run-dir a --resume", "--run-dir whole");
    place.ok(&format!("{whole} --stop-at {end}"));
    place.assert_same("whole", "a", end);
}
