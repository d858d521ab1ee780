//! Help, lists, dry runs, and the demo.

use crate::program::Place;
use imago_envs::extras::Extra;
use std::time::Instant;

const RECIPES: [&str; 25] = [
    "a2c/cartpole",
    "bc/cartpole",
    "compose/gail-icm-rooms",
    "dcgan/faces",
    "dcgan/faces-modern",
    "dcgan/frames",
    "dcgan/photos",
    "dcgan/pixel-art",
    "dcgan/tiles",
    "gail/cartpole",
    "gail/original-cartpole",
    "gail/pixels-rooms",
    "icm/rooms-noise",
    "icm/rooms-sparse",
    "ppo/cartpole",
    "ppo/mountaincar",
    "ppo/orchard",
    "ppo/pendulum",
    "ppo/rooms-dense",
    "ppo/rooms-sparse",
    "ppo/tmaze",
    "rnd/rooms-sparse",
    "sac/pendulum",
    "trpo/acrobot",
    "trpo/cartpole",
];

/// Recipes that need an extra.
const GAMES: [(&str, &str); 21] = [
    ("dac/hopper", "mujoco"),
    ("gail/hopper", "mujoco"),
    ("icm/doom-dense", "doom"),
    ("icm/doom-no-reward", "doom"),
    ("icm/doom-noise", "doom"),
    ("icm/doom-sparse", "doom"),
    ("icm/doom-very-sparse", "doom"),
    ("icm/mario-finetune", "mario"),
    ("icm/mario-no-reward", "mario"),
    ("icm/original-doom", "doom"),
    ("ppo/doom-basic", "doom"),
    ("ppo/doom-dense", "doom"),
    ("ppo/doom-sparse", "doom"),
    ("ppo/halfcheetah-seals", "mujoco"),
    ("ppo/hopper", "mujoco"),
    ("ppo/lunarlander", "box2d"),
    ("ppo/mario", "mario"),
    ("ppo/minigrid-empty", "minigrid"),
    ("ppo/pong", "atari"),
    ("sac/halfcheetah", "mujoco"),
    ("sac/hopper", "mujoco"),
];

#[test]
fn help_tells_every_command_and_exit_code() {
    let place = Place::new();
    let help = place.ok("--help").stdout;
    for word in [
        "new",
        "train",
        "sweep",
        "eval",
        "record",
        "demos",
        "generate",
        "export",
        "data",
        "models",
        "reproduce",
        "recipes",
        "envs",
        "demo",
        "watch",
        "--set",
        "--json",
        "Exit codes: 0",
    ] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    for command in [
        "new",
        "train",
        "sweep",
        "eval",
        "record",
        "demos",
        "demos subsample",
        "generate grid",
        "generate interpolation",
        "generate samples",
        "data",
        "data fetch",
        "models",
        "recipes",
        "recipes keys",
        "reproduce",
        "envs",
        "watch",
        "demo",
    ] {
        assert!(place.ok(&format!("{command} --help")).stdout.contains("Usage: imago"), "{command}");
    }
    assert!(place.ok("--version").stdout.starts_with("imago 0."));
}

#[test]
fn recipes_are_listed_shown_and_copied() {
    let place = Place::new();
    let listed = place.ok("recipes list").stdout;
    assert_eq!(place.ok("recipes").stdout, listed, "a bare noun lists");
    let names: Vec<&str> = listed.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    let mut all = [&RECIPES[..], &GAMES.map(|(name, _)| name)].concat();
    all.sort_unstable();
    assert_eq!(names, all);
    let json = place.ok("recipes list --json").json();
    assert_eq!(json.as_array().unwrap().len(), all.len());
    for name in all {
        let shown = place.ok(&format!("recipes show {name}")).stdout;
        let says = |words: &[&str]| words.iter().any(|word| shown.to_lowercase().contains(word));
        // A recipe says where it is from and what to expect of it.
        assert!(says(&["paper:", "ho & ermon"]) && says(&["expected:"]) && says(&["format = 1"]), "{shown}");
        place.ok(&format!("recipes copy {name}"));
        assert_eq!(place.read(&format!("{}.toml", name.replace('/', "-"))), shown);
    }
    place.ok("recipes copy ppo/cartpole --to mine.toml");
    let short = "--set run.total_steps=2048 --quiet";
    place.ok(&format!("train mine.toml {short} --run-dir copied"));
    place.ok(&format!("train ppo/cartpole {short} --run-dir builtin"));
    place.assert_same("copied", "builtin", 2048);
}

#[test]
fn environments_are_listed() {
    let place = Place::new();
    let listed = place.ok("envs list").stdout;
    assert_eq!(place.ok("envs").stdout, listed, "a bare noun lists");
    for id in [
        "Acrobot-v0",
        "CartPole-v1",
        "MountainCarContinuous-v0",
        "Rooms-v0",
        "seals/MountainCar-v0",
        "gym:ID",
    ] {
        assert!(listed.lines().any(|line| line.starts_with(id)), "{id} is missing in {listed}");
    }
    // Those that need an extra are for `make test-games`.
    let all = place.ok("envs list --json").json();
    for env in all.as_array().unwrap().iter().filter(|env| env["extra"].is_null()) {
        let id = env["id"].as_str().unwrap();
        place.ok(&format!("record --policy random --env {id} --episodes 1 --to x.demos --force"));
    }
}

#[test]
fn dry_runs_check_everything_and_write_nothing() {
    let place = Place::new();
    for name in RECIPES {
        let resolved = place.ok(&format!("train {name} --dry-run --threads 1")).stdout;
        assert!(resolved.contains("total_steps") && resolved.contains("workers = 1"), "{resolved}");
        assert!(place.listing().is_empty(), "{name} wrote {:?}", place.listing().keys());
        // What it prints is a recipe that resolves to itself.
        let elsewhere = Place::new();
        elsewhere.write("resolved.toml", &resolved);
        assert_eq!(elsewhere.ok("train resolved.toml --dry-run").stdout, resolved, "{name}");
    }
    place.refuses("train gail/cartpole --dry-run --demos none.demos", &["none.demos"]);
    place.refuses("train ppo/cartpole --dry-run --set env.id=Nope", &["Nope"]);
}

#[test]
fn recipes_of_games_resolve_or_say_what_to_install() {
    let place = Place::new();
    for (name, extra) in GAMES {
        let said = place.run(&format!("train {name} --dry-run --set run.check_env=false"));
        if said.code == Some(0) {
            continue;
        }
        assert!(std::env::var_os("IMAGO_TEST_GAMES").is_none(), "{name} with all games: {said:#?}");
        said.exits(2).says(&[&format!("imago envs install {extra}")]);
    }
}

/// Skipped where the extra `doom` is not installed.
#[test]
fn numbers_that_a_preset_names_are_logged() {
    if !Extra::named("doom").unwrap().missing().is_empty() {
        eprintln!("skipped: imago envs install doom");
        return;
    }
    let place = Place::new();
    place.ok(
        "train icm/doom-no-reward --set rollout.envs=1 --set rollout.group_size=1 --set rollout.steps=526 \
         --set run.total_steps=526 --set run.eval_episodes=1 --set run.check_env=false --threads 1 --quiet --run-dir a",
    );
    let line = place.metrics("a").pop().unwrap();
    let of = |name: &str| line[name].as_f64().unwrap();
    assert!(of("env/cells") >= 1.0 && (128.0..1152.0).contains(&of("env/x")), "{line}");
}

#[test]
fn the_demo_runs_through_and_is_done_once() {
    let place = Place::new();
    let begun = Instant::now();
    let first = place.ok("demo --smoke --to story");
    let whole = begun.elapsed();
    let table = place.read("story/table.md");
    for row in [
        "| random | 10 |",
        "| behaviour cloning, 25 pairs | 10 |",
        "| GAIL, 25 pairs | 3 |",
        "| expert (PPO, true reward), one run evaluated 3 times | 3 |",
    ] {
        assert!(table.contains(row), "{row} is missing in {table}");
    }
    for row in table.split("\n\n") {
        assert!(first.stdout.contains(row.trim_end()), "{first:#?}");
    }
    assert!(table.contains("| PPO + curiosity (ICM), last quarter |"), "{table}");
    assert!(place.read("story/rooms.svg").contains("squares"));
    let picture = place.read("story/curves.svg");
    assert!(picture.starts_with("<svg") && picture.contains("GAIL, seed 2") && picture.contains("polyline"));
    assert!(picture.trim_end().ends_with("</svg>"));
    for run in ["expert", "gail-0", "gail-2", "bc-9"] {
        assert_eq!(place.summary(&format!("story/{run}"))["finished"], true, "{run}");
    }

    let begun = Instant::now();
    let second = place.ok("demo --smoke --to story --json");
    assert!(begun.elapsed() < whole, "the second call took {:?}, the first {whole:?}", begun.elapsed());
    assert_eq!(place.read("story/table.md"), table);
    assert_eq!(place.read("story/curves.svg"), picture);
    let json = second.json();
    assert_eq!(json["rows"].as_array().unwrap().len(), 4);
    let explored = json["explored"].as_array().unwrap();
    assert!(
        explored.len() == 3 && explored.iter().all(|row| row["cells"].as_f64().unwrap() >= 1.0),
        "{explored:?}"
    );
    place.write("file", "");
    place.refuses("demo --smoke --to file", &["file", "--to"]);
}
