//! What TensorBoard itself reads from a run.

use crate::program::{Place, python};
use serde_json::Value;

/// All scalars as TensorBoard's own reader gives them: tag → [[step, value], …]; and the plugins it sees.
fn events(place: &Place, run: &str) -> Value {
    let script = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
tags = events.Tags()
print(json.dumps({
    "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
    "tensors": tags["tensors"],
    "images": {tag: [[e.step, e.width, e.height] for e in events.Images(tag)] for tag in tags["images"]},
    "hparams": sorted(events.PluginTagToContent("hparams")) if "hparams" in events.summary_metadata_plugins else [],
}))
"#;
    // The reader's list of plugins has no public name in all versions; asking for one that is absent raises.
    let script = script.replace(
        "sorted(events.PluginTagToContent(\"hparams\")) if \"hparams\" in events.summary_metadata_plugins else []",
        "sorted(events.PluginTagToContent(\"hparams\"))",
    );
    serde_json::from_str(&python(&script, &[&place.path(run)])).unwrap()
}

fn steps(points: &Value) -> Vec<u64> {
    points.as_array().unwrap().iter().map(|point| point[0].as_u64().unwrap()).collect()
}

const TRAIN: &str = "train gail/cartpole --set rollout.envs=4 --set rollout.steps=32 --set run.total_steps=4096 \
                     --set run.eval_every=1024 --set run.eval_episodes=2 --set run.checkpoint_every=1024 --quiet";

#[test]
fn a_gail_run_in_tensorboard() {
    let place = Place::new();
    place.ok(&format!("{TRAIN} --run-dir a"));
    let events = events(&place, "a");
    let scalars = events["scalars"].as_object().unwrap();
    let wanted = [
        "rollout/return",
        "rollout/length",
        "policy/loss",
        "policy/entropy",
        "policy/approximate_kl",
        "policy/clip_fraction",
        "policy/gradient_norm",
        "policy/learning_rate",
        "value/loss",
        "value/explained_variance",
        "gail/loss",
        "gail/accuracy_expert",
        "gail/accuracy_policy",
        "gail/gradient_norm",
        "gail/logit_expert",
        "gail/logit_policy",
        "gail/entropy",
        "gail/reward_mean",
        "time/steps_per_second",
        "evaluation/return_deterministic",
        "evaluation/return_stochastic",
    ];
    for tag in wanted {
        let points = scalars.get(tag).unwrap_or_else(|| panic!("{tag} is missing in {:?}", scalars.keys()));
        let steps = steps(points);
        assert!(!steps.is_empty() && steps.windows(2).all(|pair| pair[0] < pair[1]), "{tag}: {steps:?}");
        for point in points.as_array().unwrap() {
            assert!(point[1].as_f64().is_some_and(f64::is_finite), "{tag}: {point}");
        }
    }
    let every: Vec<u64> = (1..=32).map(|i| i * 128).collect();
    assert_eq!(steps(&scalars["gail/loss"]), every);
    assert_eq!(steps(&scalars["evaluation/return_deterministic"]), [1024, 2048, 3072, 4096]);
    for tag in ["gail/accuracy_expert", "gail/accuracy_policy"] {
        for point in scalars[tag].as_array().unwrap() {
            assert!((0.0..=1.0).contains(&point[1].as_f64().unwrap()), "{tag}: {point}");
        }
    }
    // Both files say the same.
    for (line, point) in place.metrics("a").iter().zip(scalars["policy/entropy"].as_array().unwrap()) {
        assert_eq!(line["step"], point[0]);
        let (exact, single) = (line["policy/entropy"].as_f64().unwrap(), point[1].as_f64().unwrap());
        assert!((exact - single).abs() < 1e-6, "{line} {point}");
    }
    assert!(!events["hparams"].as_array().unwrap().is_empty(), "no hyperparameters");
    assert!(events["tensors"].to_string().contains("recipe"), "no recipe among {}", events["tensors"]);
}

#[test]
fn no_step_is_there_twice_after_a_kill() {
    let place = Place::new();
    let mut running = place.start(&format!("{TRAIN} --set run.eval_every=0 --run-dir a"));
    running.until("step 1536", || {
        std::fs::read_to_string(place.path("a/metrics.jsonl"))
            .is_ok_and(|text| text.lines().any(|line| line.starts_with("{\"step\":1536,")))
    });
    assert!(running.kill(), "it was over before it could be killed");
    place.run("train a --resume --quiet --stop-at 3000").exits(0);
    place.ok("train a --resume --quiet");
    let files = std::fs::read_dir(place.path("a")).unwrap();
    let files =
        files.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.")).count();
    assert_eq!(files, 3, "event files");
    let scalars = &events(&place, "a")["scalars"];
    let every: Vec<u64> = (1..=32).map(|i| i * 128).collect();
    for tag in ["policy/loss", "gail/loss"] {
        assert_eq!(steps(&scalars[tag]), every, "{tag}");
    }
}

#[test]
fn a_map_shows_where_an_agent_goes() {
    let place = Place::new();
    place.ok(
        "train icm/rooms-sparse --set env.args.size=16 --set rollout.envs=4 --set rollout.steps=32 --set \
         run.total_steps=256 --set run.eval_every=128 --set run.eval_episodes=2 --run-dir a --quiet",
    );
    // 60 squares and a wall on each side, 52 and as many: 6 pixels each.
    let maps = &events(&place, "a")["images"]["evaluation/visits"];
    assert_eq!(*maps, serde_json::json!([[128, 372, 324], [256, 372, 324]]));
    place.ok("eval a --stochastic --episodes 2 --map map.png");
    let bytes = std::fs::read(place.path("map.png")).unwrap();
    assert!(
        bytes.starts_with(b"\x89PNG") && bytes[16..24] == [0, 0, 1, 116, 0, 0, 1, 68],
        "{:?}",
        &bytes[..24]
    );
    place.refuses("eval a --episodes 2 --map map.gif", &["map.gif", ".png"]);
    place.refuses("eval a --episodes 2 --map map.png", &["map.png", "--force"]);
    place.ok("train ppo/cartpole --set run.total_steps=2048 --set run.eval_episodes=1 --run-dir b --quiet");
    place.refuses("eval b --episodes 1 --map other.png", &["CartPole-v1", "no floor plan", "Rooms-v0"]);
    assert!(!place.path("other.png").exists());
}
