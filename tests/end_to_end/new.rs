//! Starter recipes, and the reference of all keys.

use crate::program::Place;
use serde_json::Value;

/// The acceptance of issue 3, and what it leaves open.
#[test]
fn a_starter_recipe_without_demonstrations_is_checked_but_not_trained() {
    let place = Place::new();
    let said = place.ok("new gail --env gym:Pendulum-v1 --to my.toml");
    assert!(said.stdout.contains("fill in signal.gail.demos"), "{said:#?}");
    let recipe = place.read("my.toml");
    for word in
        ["id = \"gym:Pendulum-v1\"", "normalise = true", "log_std = 0.0", "time_limit = 200", "demos = \"\""]
    {
        assert!(recipe.contains(word), "{word} is missing in {recipe}");
    }
    let before = place.listing();
    let dry = place.ok("train my.toml --dry-run");
    assert!(dry.stderr.contains("`signal.gail.demos`: no demonstrations yet"), "{dry:#?}");
    assert!(dry.stdout.contains("updates_per_round = 20"), "{dry:#?}");
    assert_eq!(place.listing(), before);
    place.refuses("train my.toml --run-dir a", &["my.toml line ", "`signal.gail.demos`", "--demos FILE"]);
    // The rest is checked all the same.
    place.refuses("train my.toml --dry-run --set policy.torso=icm", &["needs images"]);
}

#[test]
fn every_kind_is_written_and_trained() {
    let place = Place::new();
    place.ok("record --policy random --env seals/CartPole-v0 --episodes 2 --to x.demos");
    std::fs::create_dir(place.path("inner")).unwrap();
    for (arguments, words) in [
        (
            "ppo --env CartPole-v1 --to a.toml",
            &["[signal.task]", "normalise = true", "entropy_coefficient = 0.01"][..],
        ),
        // Where they were recorded; relative to the recipe.
        (
            "bc --demos x.demos --to inner/b.toml",
            &["seals/CartPole-v0", "demos = \"../x.demos\"", "1000 pairs"],
        ),
        (
            "gail --demos x.demos --to c.toml",
            &["demos = \"x.demos\"", "reward = \"positive\"", "time_limit = 500"],
        ),
        ("gail --env CartPole-v1 --demos x.demos --to d.toml", &["CartPole-v1", "to end early is to fail"]),
    ] {
        place.ok(&format!("new {arguments}"));
        let file = arguments.split(' ').next_back().unwrap();
        let recipe = place.read(file);
        for word in words {
            assert!(recipe.contains(word), "{word} is missing in {recipe}");
        }
        let sets =
            "--set run.total_steps=100 --set run.eval_episodes=1 --set rollout.steps=16 --threads 0 --quiet";
        place.ok(&format!("train {file} {sets} --run-dir run-{}", file.replace('/', "-")));
    }
}

#[test]
fn a_starter_recipe_is_printed_without_a_file_and_never_overwrites() {
    let place = Place::new();
    let printed = place.ok("new ppo --env Pendulum-v1");
    assert!(place.listing().is_empty());
    place.ok("new ppo --env Pendulum-v1 --to a.toml");
    assert_eq!(place.read("a.toml"), printed.stdout);
    assert_eq!(place.ok("new ppo --env Pendulum-v1 --json").json()["recipe"], printed.stdout.as_str());
    place.refuses("new gail --env Pendulum-v1 --to a.toml", &["a.toml exists", "--force"]);
    let json = place.ok("new gail --env Pendulum-v1 --to a.toml --force --json").json();
    assert_eq!(json["missing"], serde_json::json!(["signal.gail.demos"]));
    assert!(place.read("a.toml").contains("[signal.gail]"));
    assert_eq!(place.listing().len(), 1, "a temporary file is left");
}

#[test]
fn a_starter_recipe_has_the_wrappers_that_were_asked_for() {
    let place = Place::new();
    place
        .ok("new ppo --env Pendulum-v1?g=9.8&frame_stack=3&actions=[-2.0,0.0,2.0]&time_limit=50 --to a.toml");
    let text = place.read("a.toml");
    for line in ["frame_stack = 3", "actions = [-2.0, 0.0, 2.0]", "time_limit = 50", "g = 9.8"] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    place.ok("train a.toml --set run.total_steps=2048 --run-dir run --quiet");
    place.refuses("new ppo --env Pendulum-v1?frame_stack=0", &["`frame_stack`: expected 1 to 64"]);
}

#[test]
fn a_dry_run_says_where_the_run_will_end() {
    let place = Place::new();
    let steps = "--set rollout.envs=8 --set rollout.steps=256 --set run.total_steps";
    let said = place.ok(&format!("train ppo/cartpole --dry-run {steps}=100000"));
    assert!(said.stderr.contains("run.total_steps = 100000: the run will end at 100352"), "{said:#?}");
    let said = place.ok(&format!("train ppo/cartpole --dry-run {steps}=102400"));
    assert_eq!(said.stderr, "");
}

#[test]
fn keys_are_listed_as_text_json_and_schema() {
    let place = Place::new();
    let all = place.ok("recipes keys").stdout;
    for words in ["[run]", "[signal.NAME] with kind = \"gail\"", "one for each processor", "[64, 64] for mlp"]
    {
        assert!(all.contains(words), "{words} is missing in {all}");
    }
    let widest = all.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 130, "{widest} columns");
    let keys = place.ok("recipes keys --json").json();
    let keys: Vec<&Value> = keys.as_array().unwrap().iter().collect();
    let find =
        |section: &str, key: &str| keys.iter().find(|k| k["section"] == section && k["key"] == key).unwrap();
    assert_eq!(find("learner", "clip")["default"], 0.2);
    assert_eq!(find("run", "workers")["default"], Value::Null);
    // What the reference says is what a recipe without anything resolves to.
    let bare = place.ok("train ppo/cartpole --dry-run --set run.total_steps=2048").stdout;
    let bare: toml::Table = toml::from_str(&bare).unwrap();
    for (section, key) in
        [("run", "log_every"), ("learner", "clip"), ("learner", "gae_lambda"), ("rollout", "group_size")]
    {
        let resolved = serde_json::to_value(&bare[section][key]).unwrap();
        assert_eq!(find(section, key)["default"], resolved, "{section}.{key}");
    }
    let part = place.ok("recipes keys signal.gail").stdout;
    assert!(part.contains("label_smoothing") && !part.contains("minibatch_size"), "{part}");
    assert!(place.ok("recipes keys discount").stdout.contains("learner.discount"));
    let schema = place.ok("recipes keys --schema").json();
    assert_eq!(schema["$defs"]["run"]["properties"]["total_steps"]["minimum"], 1);
}
