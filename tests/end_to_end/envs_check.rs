//! `imago envs check`, and the look that every training takes at an environment it has not seen before.

use crate::program::{Output, Place};
use std::path::Path;

/// Toys that keep the contract but for one rule, which `breaks` names.
const MODULE: &str = r#"
import random
import gymnasium
import numpy as np

class Toy(gymnasium.Env):
    """A walk of ten steps that pays the action."""
    metadata = {"render_modes": []}
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, breaks="nothing", size=2):
        self.breaks, self.buffer, self.t = breaks, np.zeros(2, np.float32), 0
        if breaks == "powerful":
            self.action_space = gymnasium.spaces.Box(0, 5, (1,), np.float32)
        if breaks == "spaces":
            self.observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        if breaks == "image":
            self.observation_space = gymnasium.spaces.Box(0, 255, (2,), np.uint8)

    def observe(self):
        values = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if self.breaks == "bounds":
            values[1] = 1 + self.t
        if self.breaks == "infinite":
            values[1] = np.inf
        if self.breaks == "not-a-number":
            values[1] = np.nan
        if self.breaks == "dtype":
            values = values.astype(np.float64)
        if self.breaks == "determinism":
            values[1] = random.uniform(-1, 1)
        if self.breaks == "aliasing":
            self.buffer[:] = values
            values = self.buffer
        return values

    def reset(self, seed=None, options=None):
        if self.breaks != "seeds":
            super().reset(seed=seed)
        else:
            super().reset(seed=7)
        if self.breaks != "leftover":
            self.t = 0
        observation = self.observe()
        if self.breaks == "leftover":
            observation[0] = min(self.t / 1e6, 1)
        return observation, {}

    def step(self, action):
        self.t += 1
        observation, reward = self.observe(), float(np.sum(action))
        if self.breaks == "step" and self.t == 7:
            raise RuntimeError("the motor is on fire")
        if self.breaks == "reward":
            reward = float("inf")
        terminated = self.t % 10 == 0
        if self.breaks == "flags":
            terminated = "yes" if terminated else ""
        if self.breaks == "old":
            return observation, reward, terminated, {}
        return observation, reward, terminated, False, {}

    def close(self):
        if self.breaks == "close":
            raise OSError("the door is stuck")

def wombat():
    raise gymnasium.error.DependencyNotInstalled('Wombat is not installed, run `pip install "gymnasium[wombat]"`')

gymnasium.register("Toy-v0", Toy)
gymnasium.register("Wombat-v0", wombat)
gymnasium.register("Lacking-v0", "toys:no_such_thing")
gymnasium.register("Elsewhere-v0", "no_such_package.envs:Maze")
"#;

fn with_toys() -> Place {
    let place = Place::new();
    place.write("toys.py", MODULE);
    let folder = place.folder().to_path_buf();
    place.with("PYTHONPATH", &folder)
}

fn check(place: &Place, breaks: &str) -> Output {
    place.run(&format!("envs check gym:toys:Toy-v0?breaks={breaks} --seconds 0.5 --json --quiet"))
}

/// The findings of one severity: their rules, and all their words.
fn found(output: &Output, severity: &str) -> (Vec<String>, String) {
    let json = output.json();
    let all = json["findings"].as_array().unwrap().iter();
    let ours: Vec<_> = all.filter(|finding| finding["severity"] == severity).collect();
    let texts = |key: &str| -> Vec<String> {
        ours.iter().map(|finding| finding[key].as_str().unwrap().to_string()).collect()
    };
    (texts("rule"), texts("message").join("\n"))
}

#[test]
fn a_good_environment_passes() {
    let place = with_toys();
    let output = check(&place, "nothing").exits(0);
    let report = output.json();
    assert_eq!((&report["passes"], &report["format"]), (&true.into(), &1.into()));
    assert_eq!(report["findings"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(report["env"], serde_json::json!({"id": "gym:toys:Toy-v0", "args": {"breaks": "nothing"}}));
    let episodes = &report["episodes"];
    for key in ["shortest", "median", "longest"] {
        assert_eq!(episodes[key], 10, "{report:#}");
    }
    // Ten steps each, but for those that were left in the middle.
    assert!(report["steps"].as_u64().unwrap() >= 10 * episodes["count"].as_u64().unwrap());
    let number = |key: &str| report[key].as_f64().unwrap();
    // Between what nobody is and what no Python is.
    assert!((100.0..1e7).contains(&number("steps_per_second")), "{report:#}");
    assert!((100.0..1e7).contains(&number("group_steps_per_second")), "{report:#}");
    assert!((1e-7..0.1).contains(&number("reset_seconds")), "{report:#}");
    assert!(number("memory_growth").abs() < 5e7, "{report:#}");
    assert_eq!((&report["saves"], &report["group_size"]), (&false.into(), &8.into()));
}

#[test]
fn every_native_environment_passes() {
    let place = Place::new();
    let all = place.ok("envs list --json").json();
    for env in all.as_array().unwrap().iter().filter(|env| env["extra"].is_null()) {
        let id = env["id"].as_str().unwrap();
        let report = place.ok(&format!("envs check {id} --seconds 0.3 --json")).json();
        assert_eq!(report["saves"], true, "{id}");
        assert!(
            report["findings"].as_array().unwrap().iter().all(|f| f["rule"] == "action bounds"),
            "{report:#}"
        );
        assert!(report["steps_per_second"].as_f64().unwrap() > 1e4, "{report:#}");
    }
}

#[test]
fn each_broken_rule_is_found() {
    let place = with_toys();
    for (breaks, rule, words) in [
        ("bounds", "bounds", "the observation has 2 at 1, outside its space's -1 to 1"),
        ("infinite", "finite", "the observation has inf at 1 (in the first reset)"),
        ("not-a-number", "contract", "value 1 of the observation is NaN"),
        ("spaces", "contract", "shape [3], found [2] (in the first reset)"),
        ("image", "contract", "type uint8, found float32"),
        ("reward", "contract", "the reward is inf (in step 1 of the check)"),
        (
            "step",
            "exception",
            "step: Python raised RuntimeError: the motor is on fire (in step 7 of the check)",
        ),
        ("old", "contract", "expected (observation, reward, terminated, truncated, info) from step, found 4"),
        (
            "determinism",
            "determinism",
            "two instances with the same seed and actions differ in the first observation",
        ),
        (
            "leftover",
            "determinism",
            "after another episode, the same seed and actions differ in the first observation",
        ),
        ("flags", "flags", "step 1: `terminated` is '' (str), not True or False"),
    ] {
        let output = check(&place, breaks).exits(1);
        let (rules, said) = found(&output, "violation");
        assert!(rules.contains(&rule.into()) && said.contains(words), "{breaks}: {rules:?} {said}");
        assert_eq!(output.json()["passes"], false);
        output.says(&["imago: gym:toys:Toy-v0 breaks its contract"]);
    }
}

#[test]
fn what_is_only_odd_is_a_warning() {
    let place = with_toys();
    for (breaks, rule, words) in [
        ("dtype", "type", "the observation has type float64, its space float32"),
        ("aliasing", "aliasing", "reset: the observation it returned was changed by a later call"),
        ("close", "close", "close raised OSError: the door is stuck"),
        ("seeds", "seeds", "different seeds gave the same beginning"),
        ("powerful", "action bounds", "action 0 lies in 0 to 5, not in -1 to 1 or 0 to 1"),
    ] {
        let output = check(&place, breaks);
        let (rules, said) = found(&output, "warning");
        assert!(rules.contains(&rule.into()) && said.contains(words), "{breaks}: {rules:?} {said}");
        // Whatever else there is comes from Gymnasium's own, stricter checker.
        let (rules, said) = found(&output, "violation");
        assert!(rules.iter().all(|rule| rule == "gymnasium"), "{breaks}: {rules:?} {said}");
    }
}

#[test]
fn people_read_a_line_for_each_thing() {
    let place = with_toys();
    let said = place.run("envs check gym:toys:Toy-v0?breaks=bounds --seconds 0.3").exits(1);
    let begins = |name: &str| said.stdout.lines().any(|line| line.starts_with(name));
    for name in [
        "environment  gym:toys:Toy-v0 breaks its contract (1 violation, ",
        "observation  Box([2], float32, -1 to 1)",
        "action       Discrete(2)",
        "episodes     ",
        "steps/s      ",
        "reset        ",
        "memory       ",
        "save         no: resumed runs begin new episodes",
        "VIOLATION    the observation has 2 at 1",
        "warning      Gymnasium's checker: The obs returned by the `step()` method is not within",
    ] {
        assert!(begins(name), "`{name}` is missing in {said:#?}");
    }
    assert_eq!(said.stderr.lines().next(), Some("checking gym:toys:Toy-v0 for about 0.3 s"));
    assert!(
        place.listing().keys().all(|path| !path.ends_with("runs")),
        "it wrote {:?}",
        place.listing().keys()
    );
}

#[test]
fn what_cannot_be_made_is_bad_input() {
    let place = with_toys();
    // Python compiles the module once.
    place.ok("envs check gym:toys:Toy-v0 --seconds 0.1");
    place.refuses("envs check Nope-v1 --quiet", &["unknown environment `Nope-v1`"]);
    place.refuses("envs check CartPole-v1?x --quiet", &["argument `x`: expected x=VALUE"]);
    place.refuses("envs check CartPole-v1?x=1 --quiet", &["argument `x`: unknown"]);
    let said =
        place.ok("envs check CartPole-v1?action_repeat=2&frame_stack=3&time_limit=9 --quiet --seconds 0.3");
    assert!(said.stdout.contains("Box([12], float32"), "{said:?}");
    place.refuses(
        "envs check CartPole-v1?grayscale=true --quiet",
        &["`grayscale`: it needs a picture of bytes"],
    );
    place.refuses("envs check CartPole-v1 --quiet --seconds 0", &["--seconds must be a number above 0"]);
    place.refuses("envs check CartPole-v1 --quiet --seconds inf", &["--seconds must be a number above 0"]);
    let wombat =
        place.refuses("envs check gym:toys:Wombat-v0 --quiet", &["needs Wombat, which is not installed"]);
    wombat.says(&["install it with: ", ".venv/bin/pip install \"gymnasium[wombat]\""]);
    place.refuses("envs check gym:toys:Lacking-v0 --quiet", &["AttributeError", "no_such_thing"]);
    for id in ["gym:toys:Elsewhere-v0", "gym:no_such_package:X-v0"] {
        place.refuses(
            &format!("envs check {id} --quiet"),
            &["brings `no_such_package`", "pip install", "PYTHONPATH"],
        );
    }
    place.refuses(
        "envs check gym:Nowhere/Pong-v5 --quiet",
        &["NamespaceNotFound", "gym:MODULE:Nowhere/Pong-v5"],
    );
}

#[test]
fn what_needs_an_extra_says_which() {
    let place = Place::new();
    // As if no extra were installed, whether it is or not.
    for module in ["ale_py", "Box2D", "minigrid", "mujoco", "vizdoom", "gym_notices", "gym_super_mario_bros"]
    {
        let text = format!("raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')");
        place.write(&format!("{module}.py"), &text);
    }
    let folder = place.folder().to_path_buf();
    let place = place.with("PYTHONPATH", &folder).with("PYTHONDONTWRITEBYTECODE", Path::new("1"));
    for (id, extra) in [
        ("gym:LunarLander-v3", "box2d"),
        ("gym:ALE/Pong-v5", "atari"),
        ("vec:ALE/Pong-v5", "atari"),
        ("gym:Hopper-v5", "mujoco"),
        ("gym:MiniGrid-DoorKey-8x8-v0", "minigrid"),
        ("gym:VizdoomMyWayHome-v1", "doom"),
        ("DoomMyWayHome-sparse", "doom"),
        ("SuperMarioBros-1-1", "mario"),
    ] {
        let command = format!("; install it with: imago envs install {extra}");
        place
            .refuses(&format!("envs check {id} --quiet"), &[&format!("environment `{id}` needs "), &command]);
    }
}

#[test]
fn extras_are_listed_and_named_exactly() {
    let place = Place::new();
    let listed = place.ok("envs list").stdout;
    for extra in ["doom", "mario", "atari", "mujoco", "minigrid", "box2d"] {
        let line = listed.lines().find(|line| line.starts_with(&format!("{extra} "))).unwrap_or_default();
        assert!(line.contains("installed") || line.contains("in part"), "{listed}");
    }
    assert!(listed.lines().any(|line| line.starts_with("SuperMarioBros-1-1 … 8-4 ")), "{listed}");
    place.refuses("envs install dooom", &["no extra `dooom`; did you mean `doom`?"]);
    place.refuses("envs install --requirements none.txt", &["cannot read none.txt"]);
    assert_eq!(place.run("envs install").code, Some(2));
}

#[test]
fn modules_in_a_directory_of_their_own() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("lab/code")).unwrap();
    place.write("lab/code/toys.py", MODULE);
    place.ok("envs check gym:toys:Toy-v0 --path lab/code --seconds 0.3");
    place.refuses("envs check gym:toys:Toy-v0 --path lab/none --quiet", &["`path`", "lab/none is none"]);
    place.refuses("envs check gym:toys:Toy-v0 --quiet", &["brings `toys`", "env.path"]);
    let recipe = place.ok("recipes show ppo/cartpole").stdout;
    place.write(
        "lab/r.toml",
        &recipe.replace("id = \"CartPole-v1\"", "id = \"gym:toys:Toy-v0\"\npath = \"code\""),
    );
    let short = "--set rollout.steps=64 --set run.total_steps=512 --set run.eval_episodes=2 --quiet";
    place.ok(&format!("train lab/r.toml {short} --run-dir a"));
    // Anchored to the recipe: what is written works from anywhere.
    assert!(
        place.read("a/recipe.toml").contains(&format!("path = \"{}\"", place.path("lab/code").display()))
    );
    place.ok("eval a --episodes 2");
    place.refuses(
        &format!("train lab/r.toml {short} --set env.path=nowhere --run-dir b"),
        &["nowhere is none"],
    );
}

/// What a training says when it meets an environment for the first time.
const NEW: &str = "gym:toys:Toy-v0 was never trained in as it is now";
const TRAIN: &str = "train ppo/cartpole --set env.id=gym:toys:Toy-v0 --set rollout.steps=64 --set run.eval_episodes=2 \
                     --set run.total_steps=512";

#[test]
fn a_training_looks_first_and_writes_nothing_if_it_must_not_go_on() {
    let place = with_toys();
    place.ok("envs check gym:toys:Toy-v0 --seconds 0.1");
    for (breaks, words) in [
        ("bounds", "the observation has 2 at 1"),
        ("determinism", "two instances with the same seed"),
        ("flags", "`terminated` is ''"),
        ("step", "the motor is on fire"),
    ] {
        let train = format!("{TRAIN} --set env.args.breaks=\"{breaks}\" --run-dir {breaks} --quiet");
        let ways = ["imago envs check", "--set run.check_env=false"];
        place.refuses(&train, &["`gym:toys:Toy-v0` breaks its contract: ", words]).says(&ways);
        place.refuses(&format!("{train} --dry-run"), &[words]);
    }
    assert!(std::fs::read_dir(place.cache()).unwrap().next().is_none(), "only what passes is remembered");
    // The user knows better.
    let known = place
        .ok(&format!("{TRAIN} --set env.args.breaks=\"determinism\" --set run.check_env=false --run-dir a"));
    assert!(!known.stderr.contains("never trained in"), "{known:#?}");
    assert!(place.read("a/recipe.toml").contains("check_env = false"));
    // And may think otherwise when the run goes on.
    let on = "train a --resume --set run.total_steps=1024 --quiet";
    place.refuses(&format!("{on} --set run.check_env=true"), &["two instances with the same seed"]);
    place.ok(on);
    // What leaves its space is a fault all along, unless it is let pass: then it is worth a warning.
    let bounds = format!("{TRAIN} --set env.args.breaks=\"bounds\"");
    let said = place.run(&format!("{bounds} --set run.check_env=false --run-dir b")).exits(1);
    said.says(&["the observation has 2 at 1", "env.check_bounds"]);
    place
        .ok(&format!("{bounds} --set env.check_bounds=false --run-dir c"))
        .says(&["the observation has 2 at 1"]);
}

#[test]
fn what_has_passed_is_not_looked_at_again_until_it_changes() {
    let place = with_toys();
    let is_new = |arguments: &str| {
        let said = place.ok(&format!("{TRAIN} {arguments}"));
        // With a policy's warnings, if any, nothing but this.
        said.stderr.contains(NEW)
    };
    assert!(is_new("--dry-run"));
    assert!(is_new("--run-dir a"), "a dry run remembers nothing");
    assert!(!is_new("--run-dir b"));
    // A check disturbs nothing.
    place.assert_same("a", "b", 512);
    assert!(is_new("--run-dir c --set env.args.size=3"), "other arguments are another environment");
    assert!(is_new("--run-dir d --set env.time_limit=5"));
    assert!(!is_new("--run-dir e --set env.args.size=3"));
    place.write("toys.py", &format!("{MODULE}\n# changed\n"));
    assert!(is_new("--run-dir f"));
    assert!(!is_new("--run-dir g"));
    let memory = place.cache().join("imago/checked_envs.json");
    assert!(memory.is_file());
    std::fs::write(&memory, "{ broken").unwrap();
    assert!(is_new("--run-dir h"), "a damaged memory is no memory");
    assert!(!is_new("--run-dir i"));
    let files = std::fs::read_dir(place.cache().join("imago")).unwrap().count();
    assert_eq!(files, 1, "temporary files were left");
}

#[test]
fn a_training_warns_once_and_does_not_need_a_cache() {
    let place = with_toys();
    let train = format!("{TRAIN} --set env.args.breaks=\"seeds\" --quiet");
    place.ok(&format!("{train} --run-dir a")).says(&[
        "WARN",
        "gym:toys:Toy-v0: ",
        "different seeds gave the same",
    ]);
    assert_eq!(place.ok(&format!("{train} --run-dir b")).stderr, "");
    let place = place.with("XDG_CACHE_HOME", std::path::Path::new("/proc/nowhere"));
    for run in ["c", "d"] {
        place.ok(&format!("{train} --run-dir {run}")).says(&["different seeds gave the same"]);
    }
}

#[test]
fn environments_of_this_program_need_no_look() {
    let place = Place::new();
    let said = place.ok("train ppo/cartpole --set run.total_steps=2048 --run-dir a");
    assert!(!said.stderr.contains("never trained in"), "{said:#?}");
    assert!(std::fs::read_dir(place.cache()).unwrap().next().is_none());
}
