//! Python environments through the program.

use crate::program::Place;

/// A module that registers environments of its own.
const MODULE: &str = r#"
import gymnasium
import numpy as np

class Toy(gymnasium.Env):
    """A walk of ten steps that pays the action."""
    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, bonus=0.0, fails=None):
        self.bonus, self.fails, self.steps = bonus, fails, 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        self.steps += 1
        observation, reward = self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action) + self.bonus
        if self.steps == 100:
            if self.fails == "raise":
                raise RuntimeError("the motor is on fire")
            if self.fails == "reward":
                reward = float("nan")
            if self.fails == "observation":
                observation[1] = float("nan")
            if self.fails == "shape":
                observation = np.zeros(3, np.float32)
        return observation, reward, self.t == 10, False, {}

gymnasium.register("Toy-v0", Toy)
gymnasium.register("Unmakeable-v0", lambda: 1 / 0)
gymnasium.register("Loud-v0", lambda: print("hello from Python") or Toy())
"#;

/// What breaks here shall break in the middle of a run.
const TRAIN: &str = "train ppo/cartpole --set rollout.steps=64 --set run.total_steps=1024 --set run.eval_episodes=2 \
                     --set run.check_env=false --set run.max_faults=0 --quiet";

fn with_module() -> Place {
    let place = Place::new();
    place.write("toys.py", MODULE);
    let folder = place.folder().to_path_buf();
    place.with("PYTHONPATH", &folder)
}

#[test]
fn registered_environments_train_record_and_evaluate() {
    let place = Place::new();
    place
        .ok("train ppo/cartpole --set env.id=gym:CartPole-v1 --set run.total_steps=2048 --run-dir a --quiet");
    let report = place.ok("eval a --json --episodes 3").json();
    assert_eq!(report["env"], "gym:CartPole-v1");
    assert_eq!(report["return_mean"], report["length_mean"]);
    place.ok("record a --episodes 2 --to x.demos");
    assert_eq!(place.ok("demos info x.demos --json").json()["env"]["id"], "gym:CartPole-v1");
    // A native policy acts there, and the other way round.
    place.ok("eval a --env CartPole-v1 --episodes 2");
}

#[test]
fn arguments_reach_python() {
    let place = Place::new();
    let recipe = place.ok("recipes show ppo/pendulum").stdout;
    let with =
        |args: &str| recipe.replace("id = \"Pendulum-v1\"", &format!("id = \"gym:Pendulum-v1\"\n{args}"));
    let short = "--set run.total_steps=2048 --set run.eval_episodes=4 --quiet";
    for (name, args) in
        [("earth", "args = { g = 9.81 }"), ("again", "args = { g = 9.81 }"), ("void", "args = { g = 0.0 }")]
    {
        place.write("r.toml", &with(args));
        place.ok(&format!("train r.toml {short} --run-dir {name}"));
    }
    place.assert_same("earth", "again", 2048);
    let returns = |run| place.summary(run)["returns"]["deterministic_mean"].as_f64().unwrap();
    assert!((returns("earth") - returns("void")).abs() > 1.0, "{} {}", returns("earth"), returns("void"));
    // The limit of time is passed on as well.
    place.write("r.toml", &with("time_limit = 7"));
    place.ok(&format!("train r.toml {short} --run-dir short"));
    assert_eq!(place.ok("eval short --json --episodes 3").json()["length_mean"], 7.0);
}

#[test]
fn modules_of_the_user() {
    let place = with_module();
    place.ok(&format!("{TRAIN} --set env.id=gym:toys:Toy-v0 --set env.args.bonus=1 --run-dir a"));
    let report = place.ok("eval a --json --episodes 4 --stochastic").json();
    assert_eq!(report["length_mean"], 10.0);
    let mean = report["return_mean"].as_f64().unwrap();
    assert!((10.0..=20.0).contains(&mean), "{report}");
    // What Python prints does not mix with what the program prints.
    place.ok(&format!("{TRAIN} --set env.id=gym:toys:Loud-v0 --run-dir b --json")).says(&[]);
}

#[test]
fn python_that_raises_in_the_middle_ends_the_run() {
    let place = with_module();
    let said = place
        .run(&format!("{TRAIN} --set env.id=gym:toys:Toy-v0 --set env.args.fails=\"raise\" --run-dir a"));
    let said =
        said.exits(1).says(&["imago: ", "`gym:toys:Toy-v0`", "step", "RuntimeError: the motor is on fire"]);
    assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
    // The 100th step lies in the second rollout of 64: what was there before is there still.
    let good = *place.steps("a").last().unwrap();
    assert_eq!(place.metrics("a").len(), 1);
    assert_eq!(place.state("a", good).1["step"], good);
}

#[test]
fn python_that_raises_with_workers_ends_the_run_too() {
    let place = with_module();
    let train = format!("{TRAIN} --set env.id=gym:toys:Toy-v0 --set env.args.fails=\"raise\"");
    for threads in [0, 1, 2] {
        let said = place.run(&format!("{train} --threads {threads} --run-dir t{threads}"));
        let said = said.exits(1).says(&["RuntimeError: the motor is on fire"]);
        assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
    }
}

#[test]
fn environments_that_break_their_contract() {
    let place = with_module();
    for (fails, words) in [("reward", "NaN"), ("observation", "NaN"), ("shape", "[3]")] {
        let env = format!("--set env.id=gym:toys:Toy-v0 --set env.args.fails=\"{fails}\"");
        let said = place.run(&format!("{TRAIN} {env} --run-dir {fails}")).exits(1);
        let said = said.says(&["imago: ", "`gym:toys:Toy-v0`", words]);
        assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
    }
}

#[test]
fn environments_that_cannot_be_made() {
    let place = with_module();
    place.write("broken.py", "import no_such_thing\n");
    place.refuses(
        "train ppo/cartpole --set env.id=gym:toys:Unmakeable-v0 --run-dir a",
        &["ZeroDivisionError"],
    );
    place.refuses("train ppo/cartpole --set env.id=gym:broken:X-v0 --run-dir a", &["no_such_thing"]);
}

#[test]
fn any_number_of_threads_is_the_same() {
    let place = Place::new();
    let train = "train ppo/cartpole --set env.id=gym:CartPole-v1 --set run.total_steps=4096 --quiet";
    for threads in [0, 1, 2] {
        place.ok(&format!("{train} --threads {threads} --run-dir t{threads}"));
        place.assert_same("t0", &format!("t{threads}"), 4096);
    }
}

#[test]
fn a_signal_stops_a_run_with_python() {
    let place = Place::new();
    let mut running = place.start(
        "train ppo/cartpole --set env.id=gym:CartPole-v1 --set run.total_steps=1000000 --set run.eval_every=0 \
         --set rollout.steps=64 --run-dir a --quiet",
    );
    let metrics = place.path("a/metrics.jsonl");
    running.until("its first lines", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    running.signal("INT");
    running.end().exits(3);
    // Python's environments cannot be saved: the run goes on with new episodes, and says so.
    let step = *place.steps("a").last().unwrap();
    let said = place.ok(&format!("train a --resume --stop-at {}", step + 512));
    assert!(said.stderr.contains("new episode"), "{said:#?}");
}
