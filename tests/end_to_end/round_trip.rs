//! From a recipe to a run, its measure, demonstrations of it, and what imitates them.

use crate::program::Place;
use serde_json::json;

#[test]
fn a_run_leaves_its_files() {
    let place = Place::new();
    let said = place.ok("train ppo/cartpole --set run.total_steps=4096 --run-dir a");
    assert!(said.stdout.contains("4096 steps") && said.stdout.contains("imago eval a"), "{said:#?}");
    for file in ["recipe.toml", "metrics.jsonl", "checkpoints/index.json", "summary.json"] {
        assert!(place.path("a").join(file).is_file(), "{file} is missing");
    }
    let names: Vec<String> = std::fs::read_dir(place.path("a"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("events.out.tfevents.")), "{names:?}");
    assert_eq!(place.steps("a"), [0, 4096]);
    let steps: Vec<_> = place.metrics("a").iter().map(|line| line["step"].clone()).collect();
    assert_eq!(steps, [2048, 4096]);

    let summary = place.summary("a");
    assert_eq!(json!([summary["format"], summary["finished"], summary["step"]]), json!([1, true, 4096]));
    let returns = &summary["returns"];
    assert_eq!(summary["best"]["score"], returns["deterministic_mean"]);
    assert!(returns["stochastic_mean"].as_f64().unwrap() > 10.0, "{summary}");
}

#[test]
fn json_is_the_only_thing_on_stdout() {
    let place = Place::new();
    let said = place.ok("train ppo/cartpole --set run.total_steps=2048 --run-dir a --json --quiet");
    assert_eq!(said.stderr, "");
    let mut printed = said.json();
    assert_eq!(printed.as_object_mut().unwrap().remove("run"), Some("a".into()));
    assert_eq!(printed, place.summary("a"));
}

#[test]
fn without_a_directory_runs_are_named_and_found_by_name() {
    let place = Place::new();
    place.ok("train ppo/cartpole --set run.total_steps=2048 --seed 3 --quiet");
    let runs: Vec<String> = std::fs::read_dir(place.path("runs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(runs.len() == 1 && runs[0].starts_with("ppo-cartpole-3-"), "{runs:?}");
    let by_name = place.ok(&format!("eval {}@latest --json --episodes 2", runs[0])).json();
    let latest = place.ok("eval latest@2048 --json --episodes 2").json();
    assert_eq!(by_name, latest);
    assert_eq!(latest["checkpoint"], 2048);
}

#[test]
fn eval_says_what_it_measured() {
    let place = Place::new();
    place.ok("train ppo/cartpole --set run.total_steps=4096 --run-dir a --quiet");
    let report = place.ok("eval a --json --episodes 5").json();
    let fields: Vec<&String> = report.as_object().unwrap().keys().collect();
    let wanted = [
        "checkpoint",
        "deterministic",
        "env",
        "episodes",
        "expert_return",
        "format",
        "length_mean",
        "metrics",
        "random_return",
        "return_mean",
        "return_std",
        "run",
        "scaled_score",
        "seed",
        "terminated_share",
    ];
    assert_eq!(fields, wanted);
    let known = json!({
        "checkpoint": 4096, "deterministic": true, "episodes": 5, "format": 1, "env": "CartPole-v1", "seed": 0,
    });
    for (field, value) in known.as_object().unwrap() {
        assert_eq!(&report[field], value, "{field}");
    }
    // CartPole pays 1 a step. Nothing says what an expert earns, so there is no scale.
    assert_eq!(report["return_mean"], report["length_mean"]);
    assert!(report["scaled_score"].is_null() && report["random_return"].is_null(), "{report}");

    assert_eq!(place.ok("eval a --json --episodes 5").json(), report, "the same question, another answer");
    assert_ne!(place.ok("eval a --json --episodes 5 --seed 9").json()["return_mean"], report["return_mean"]);
    let stochastic = place.ok("eval a --json --episodes 5 --stochastic").json();
    assert_eq!(stochastic["deterministic"], false);
    assert_ne!(stochastic["return_mean"], report["return_mean"]);
    let untrained = place.ok("eval a@0 --json --episodes 5").json();
    assert_eq!(untrained["checkpoint"], 0);
    // Sampled actions of a policy that knows nothing let it fall long before the limit.
    let chance = place.ok("eval a@0 --json --episodes 5 --stochastic").json();
    assert_eq!((&chance["terminated_share"], &chance["metrics"]), (&json!(1.0), &json!({})));
    assert_ne!(untrained["return_mean"], report["return_mean"]);
}

#[test]
fn the_scale_of_scores_can_be_given() {
    let place = Place::new();
    let ends = "--set eval.random_return=20 --set eval.expert_return=520";
    place.ok(&format!("train ppo/cartpole --set run.total_steps=2048 {ends} --run-dir a --quiet"));
    let report = place.ok("eval a --json --episodes 5").json();
    let wanted = (report["return_mean"].as_f64().unwrap() - 20.0) / 500.0;
    assert!((report["scaled_score"].as_f64().unwrap() - wanted).abs() < 1e-12, "{report}");
}

/// Expert → demonstrations → a part of them → cloning and GAIL.
#[test]
fn demonstrations_make_the_round() {
    let place = Place::new();
    let expert = "--set env.id=seals/CartPole-v0 --set run.total_steps=4096 --run-dir expert --quiet";
    place.ok(&format!("train ppo/cartpole {expert}"));
    let recorded = place.ok("record expert --episodes 3 --to x.demos --json").json();
    assert_eq!(json!([recorded["pairs"], recorded["env"]]), json!([1500, "seals/CartPole-v0"]));

    let info = place.ok("demos info x.demos --json").json();
    assert_eq!(json!([info["pairs"], info["stride"], info["format"]]), json!([1500, 1, 1]));
    assert_eq!(info["return_mean"], recorded["score"]["return_mean"]);
    let episodes = info["episodes"].as_array().unwrap();
    assert_eq!(episodes.len(), 3);
    for episode in episodes {
        assert_eq!(json!([episode["length"], episode["truncated"]]), json!([500, true]), "{episode}");
    }
    assert_ne!(episodes[0]["seed"], episodes[1]["seed"]);
    assert!(place.ok("demos info x.demos").stdout.contains("1500 (every 1 steps)"));

    let part =
        place.ok("demos subsample x.demos --skip 1 --episodes 1 --stride 20 --to part.demos --json").json();
    assert_eq!(json!([part["pairs"], part["stride"]]), json!([25, 20]));
    assert_eq!(part["episodes"][0]["seed"], episodes[1]["seed"]);
    let late = "--skip 1 --episodes 1 --stride 20 --from-step 100 --to late.demos";
    assert_eq!(place.ok(&format!("demos subsample x.demos {late} --json")).json()["pairs"], 20);
    assert_eq!(place.ok("demos info part.demos --json").json(), part);
    let builtin = place.ok("demos info builtin:hopper --json").json();
    assert_eq!(json!([builtin["pairs"], builtin["stride"]]), json!([200, 20]));
    place.refuses("demos info builtin:hoper", &["hoper", "cartpole-v0, ", "hopper"]);

    let transitions = "train gail/cartpole --demos x.demos --set signal.gail.action_input=next_observation";
    place.refuses(&format!("{transitions} --run-dir none"), &["demos_stride = 1"]);
    place.refuses(
        "train sac/pendulum --set signal.gail.demos=x.demos --set signal.gail.action_input=next_observation \
         --run-dir none",
        &["signal.gail.action_input", "learner.kind = \"ppo\""],
    );
    place.ok(&format!(
        "{transitions} --set signal.gail.demos_stride=1 --set run.total_steps=4096 --run-dir next --quiet"
    ));

    place.ok("train gail/cartpole --demos x.demos --set run.total_steps=4096 --run-dir gail --quiet");
    let report = place.ok("eval gail --json --episodes 5").json();
    let of = |field: &str| report[field].as_f64().unwrap_or_else(|| panic!("{field}: {report}"));
    // Demonstrations and a measured random policy give the scale.
    let scaled = (of("return_mean") - of("random_return")) / (of("expert_return") - of("random_return"));
    assert!((of("scaled_score") - scaled).abs() < 1e-9, "{report}");
    // The recipe takes one episode: that one is the expert.
    assert_eq!(report["expert_return"], episodes[0]["episode_return"]);
    // Who imitates does not know the true reward, so nothing is chosen by it.
    assert_eq!(of("checkpoint"), 4096.0);
    place.refuses("eval gail@best", &["gail", "@latest"]);
    let summary = place.summary("gail");
    assert!(summary["verdict"]["gail"].as_str().unwrap().contains("discriminator is"), "{summary}");
    assert_eq!(summary["signals"]["gail"]["termination_bias"], "none");

    place.ok("train bc/cartpole --demos x.demos --set run.total_steps=201 --run-dir bc --quiet");
    let losses: Vec<f64> =
        place.metrics("bc").iter().filter_map(|line| line["cloning/validation_loss"].as_f64()).collect();
    assert!(losses.len() >= 3 && losses[losses.len() - 1] < losses[0], "{losses:?}");
    assert!(place.ok("eval bc --json --episodes 5").json()["scaled_score"].is_number());
}

#[test]
fn a_random_policy_can_be_recorded() {
    let place = Place::new();
    let one = place.ok("record --policy random --env CartPole-v1 --episodes 50 --to a.demos --json").json();
    place.ok("record --policy random --env CartPole-v1 --episodes 50 --to b.demos");
    place.ok("record --policy random --env CartPole-v1 --episodes 50 --to c.demos --seed 1");
    let mean = one["score"]["return_mean"].as_f64().unwrap();
    // 22 ± 1.6, Brockman et al. 2016 and everybody since.
    assert!((17.0..28.0).contains(&mean), "{one}");
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(bytes("a.demos") == bytes("b.demos"), "one seed, two recordings");
    assert!(bytes("a.demos") != bytes("c.demos"), "two seeds, one recording");
}

#[test]
fn cloning_needs_no_environment() {
    let place = Place::new();
    place.ok("record --policy random --env CartPole-v1 --episodes 3 --to x.demos");
    place.write(
        "bc.toml",
        "format = 1\n[run]\ntotal_steps = 50\neval_every = 25\n[learner]\nkind = \"bc\"\ndemos = \"x.demos\"\n",
    );
    place.ok("train bc.toml --run-dir bc --quiet");
    assert!(!place.read("bc/recipe.toml").contains("[env]"));
    let summary = place.summary("bc");
    assert!(summary["validation_loss"].as_f64().unwrap() > 0.0, "{summary}");
    assert!(summary["returns"].is_null(), "{summary}");
    place.refuses("eval bc", &["bc has no environment", "--env"]);
    assert_eq!(place.ok("eval bc --env CartPole-v1 --json --episodes 3").json()["env"], "CartPole-v1");
}

#[test]
fn the_resolved_recipe_alone_repeats_the_run() {
    let place = Place::new();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    place.ok("record --policy random --env seals/CartPole-v0 --episodes 3 --to elsewhere/x.demos");
    let recipe = place.ok("recipes show gail/cartpole").stdout;
    // Relative to the recipe, not to where the program is called.
    place.write("elsewhere/r.toml", &recipe.replace("builtin:seals-cartpole", "x.demos"));
    let sets =
        "--set run.total_steps=4096 --set policy.hidden=[16,16] --set signal.gail.weight={from=1,to=0.5}";
    place.ok(&format!("train elsewhere/r.toml {sets} --seed 5 --threads 2 --run-dir a --quiet"));
    std::fs::copy(place.path("a/recipe.toml"), place.path("resolved.toml")).unwrap();
    place.ok("train resolved.toml --run-dir b --quiet");
    place.ok("train a --run-dir c --quiet");
    place.assert_same("a", "b", 4096);
    place.assert_same("a", "c", 4096);
    assert_eq!(place.read("a/recipe.toml"), place.read("b/recipe.toml"));
    place.ok("train resolved.toml --seed 6 --run-dir d --quiet");
    let weights = |run| place.state(run, 4096).0.remove("train/policy/weights").unwrap();
    assert_ne!(weights("a"), weights("d"), "another seed, the same weights");

    // The recipe knows its demonstrations by content.
    place.ok(
        "record --policy random --env seals/CartPole-v0 --episodes 3 --to elsewhere/x.demos --seed 1 --force",
    );
    place.refuses("train resolved.toml --run-dir e", &["elsewhere/x.demos", "not the file", "demos_hash"]);
}

#[test]
fn steps_of_the_schedule_are_kept() {
    let place = Place::new();
    let sets = "--set run.checkpoint_every=4096 --set run.keep_checkpoints=2 --set run.eval_every=8192";
    place.ok(&format!(
        "train ppo/cartpole {sets} --set run.total_steps=16384 --set run.log_every=6000 --run-dir a --quiet"
    ));
    let best = place.summary("a")["best"]["step"].as_u64().unwrap();
    let mut wanted = vec![best, 12288, 16384];
    wanted.sort();
    wanted.dedup();
    assert_eq!(place.steps("a"), wanted);
    let metrics = place.metrics("a");
    let steps: Vec<u64> = metrics.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    // Every first iteration of 2,048 steps past a multiple of 6,000 or 8,192.
    assert_eq!(steps, [6144, 8192, 12288, 16384]);
    let evaluated = |line: &serde_json::Value| line.get("evaluation/return_deterministic").is_some();
    let at: Vec<u64> = metrics.iter().filter(|l| evaluated(l)).map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(at, [8192, 16384]);
}

#[test]
fn a_profile_says_where_the_time_went() {
    let place = Place::new();
    let run = "train ppo/cartpole --set run.total_steps=4096 --threads 0 --run-dir profiled --profile";
    let ran = place.ok(run);
    let profile = &place.summary("profiled")["profile"];
    let seconds = |phase: &str| profile["seconds"][phase].as_f64().unwrap();
    for phase in ["environment", "inference", "signals", "update", "evaluation", "writing", "other"] {
        assert!(
            ran.stderr.lines().any(|line| line.starts_with(phase)),
            "{phase} is missing in {}",
            ran.stderr
        );
    }
    assert!(
        seconds("update") > 0.0 && seconds("inference") > 0.0 && seconds("environment") > 0.0,
        "{profile}"
    );
    let sum: f64 = profile["seconds"].as_object().unwrap().values().map(|x| x.as_f64().unwrap()).sum();
    let wall = profile["wall"].as_f64().unwrap();
    assert!((sum - wall).abs() < 0.02 * wall, "one thread's phases add up: {profile}");
    assert!(
        place
            .ok("train ppo/cartpole --set run.total_steps=2048 --run-dir plain")
            .stderr
            .find("wall")
            .is_none()
    );
}
