//! Python environments of every kind of space, and with action masks, through the program.

use crate::program::Place;

/// Environments whose best return is known. Episodes have eight steps.
const MODULE: &str = r#"
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

class Eight(gymnasium.Env):
    def draw(self):
        """The next observation."""
    def pays(self, action):
        """What an action is worth."""
    def info(self):
        return {}
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.draw(), self.info()
    def step(self, action):
        assert self.action_space.contains(action), repr(action)
        reward = self.pays(action)
        self.t += 1
        return self.draw(), reward, np.bool_(self.t == 8), np.bool_(False), self.info()

class Robot(Eight):
    """The right action is told by brightness and gear together; best 8, at random 2."""
    observation_space = Dict([
        ("word", Text(9)),
        ("eye", Box(0, 255, (16, 16, 1), np.uint8)),
        ("inner", Dict([("speed", Box(-np.inf, np.inf, (2,), np.float64)), ("gear", Discrete(2, start=1))])),
        ("pair", Tuple([MultiBinary(2), Text(3)])),
    ])
    action_space = Discrete(4)
    def draw(self):
        self.gear, self.bright = self.np_random.integers(2, size=2)
        eye = np.full((16, 16, 1), 200 if self.bright else 20, np.uint8)
        inner = {"gear": np.int64(self.gear + 1), "speed": self.np_random.normal(size=2) * 100 + 1000}
        return {"inner": inner, "pair": (np.array([1, 0], np.int8), "no"), "eye": eye, "word": "go"}
    def pays(self, action):
        return np.float32(action == 2 * self.gear + self.bright)

class Words(Robot):
    observation_space = Dict(word=Text(9))

class Locks(Eight):
    """Each dial has its own right place, which is shown; best 8, at random 8 (1/3 + 1/4) / 2 = 2.3."""
    observation_space = MultiDiscrete([3, 4], start=[5, 0])
    action_space = MultiDiscrete([3, 4], start=[0, -1])
    def draw(self):
        self.right = self.np_random.integers([3, 4])
        return self.right + np.array([5, 0])
    def pays(self, action):
        return float(np.mean(action + np.array([0, 1]) == self.right))

class Lamps(Eight):
    """What is off shall be on, and the other way round; best 8, at random 4."""
    observation_space = MultiBinary([2, 2])
    action_space = MultiBinary([2, 2])
    def draw(self):
        self.lit = self.np_random.integers(2, size=(2, 2)).astype(np.int8)
        return self.lit
    def pays(self, action):
        return float(np.mean(action != self.lit))

class Arm(Eight):
    """Gear and turn at once; best 8."""
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Dict([("turn", Box(-1, 1, (1,), np.float32)), ("gear", Tuple([Discrete(2, start=3)]))])
    def draw(self):
        self.seen = self.np_random.choice([-1, 1], size=2).astype(np.float32)
        return self.seen
    def pays(self, action):
        return 0.5 * (action["gear"][0] == 3 + (self.seen[0] > 0)) + 0.5 * (1 - abs(action["turn"][0] - self.seen[1]) / 2)

class Masked(Eight):
    """Only the mask tells what is allowed; what is not raises. The highest choice allowed pays most."""
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(5)
    sizes = (5,)
    def draw(self):
        self.masks = []
        for size in self.sizes:
            mask = self.np_random.integers(2, size=size).astype(np.int8)
            mask[self.np_random.integers(size)] = 1
            self.masks.append(mask)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)
    def info(self):
        return {"action_mask": self.masks[0] if len(self.masks) == 1 else tuple(self.masks)}
    def pays(self, action):
        worth = []
        for chosen, mask in zip(np.ravel(action), self.masks):
            if not mask[chosen]:
                raise RuntimeError(f"{chosen} is forbidden by {mask}")
            worth.append(chosen == np.flatnonzero(mask).max())
        return float(np.mean(worth))

class MaskedLocks(Masked):
    action_space = MultiDiscrete([3, 4])
    sizes = (3, 4)

class MaskedLamps(Masked):
    action_space = MultiBinary(3)
    sizes = (2, 2, 2)

class Stuck(Masked):
    """After two steps nothing is allowed."""
    def info(self):
        return {"action_mask": self.masks[0] * (self.t < 2)}

for kind in (Robot, Words, Locks, Lamps, Arm, Masked, MaskedLocks, MaskedLamps, Stuck):
    gymnasium.register(kind.__name__ + "-v0", kind)
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("kinds.py", MODULE);
    let folder = place.folder().to_path_buf();
    place.with("PYTHONPATH", &folder)
}

const SMALL: &str = "--set rollout.steps=64 --set run.eval_episodes=16 --set run.eval_every=2048 --quiet";

/// Trains PPO and returns the deterministic return.
#[track_caller]
fn learnt(place: &Place, env: &str, steps: u32, more: &str) -> f64 {
    place.ok(&format!(
        "train ppo/cartpole --set env.id=gym:kinds:{env}-v0 --set run.total_steps={steps} {SMALL} {more} --run-dir {env}"
    ));
    place.ok(&format!("eval {env}@latest --json --episodes 20")).json()["return_mean"].as_f64().unwrap()
}

#[test]
fn nested_observations_are_learnt_recorded_and_imitated() {
    let place = place();
    let reached = learnt(&place, "Robot", 12_288, "--set policy.normalise=true");
    assert!(reached > 7.5, "{reached}");
    // One notice for a dozen environments.
    let said = place.ok("record Robot --episodes 20 --to x.demos");
    assert_eq!(said.stderr.matches("left out of its observations").count(), 1, "{said:#?}");
    assert!(said.stderr.contains("`word` (Text(") && said.stderr.contains("`pair/1` (Text("), "{said:#?}");
    let info = place.ok("demos info x.demos --json").json();
    assert_eq!(
        info["observation"],
        "{eye: Box([16, 16, 1], uint8, 0 to 255), inner/speed: Box([2], float32, -inf to inf), inner/gear: \
         Discrete(2, start 1), pair/0: MultiBinary([2])}"
    );
    assert_eq!(info["pairs"], 160);
    place.ok("demos subsample x.demos --stride 2 --to y.demos");
    let env = "--set env.id=gym:kinds:Robot-v0";
    let cloned = place.ok(&format!(
        "train bc/cartpole {env} --demos y.demos --set learner.demos_stride=1 --set learner.demos_episodes=20 \
         --set run.total_steps=600 --set run.eval_episodes=4 --run-dir cloned --quiet --json"
    ));
    let cloned = cloned.json();
    let returned = place.summary("cloned")["returns"]["deterministic_mean"].as_f64().unwrap();
    assert!(returned > 7.0, "{cloned}");
    let gail = "--set signal.gail.demos_stride=1 --set signal.gail.demos_episodes=20";
    place.ok(&format!(
        "train gail/cartpole {env} --demos x.demos {gail} --set policy.normalise=true --set run.total_steps=10240 \
         {SMALL} --run-dir gail"
    ));
    let imitated = place.ok("eval gail@latest --json --episodes 20").json();
    assert!(imitated["return_mean"].as_f64().unwrap() > 4.0, "{imitated}");
}

#[test]
fn images_among_the_fields_take_convolutions_and_any_number_of_threads_is_the_same() {
    let place = place();
    let train = format!(
        "train ppo/cartpole --set env.id=gym:kinds:Robot-v0 --set policy.torso=\"icm\" --set policy.hidden=[32] \
         --set run.total_steps=1024 --set policy.normalise=true {SMALL}"
    );
    for threads in [0, 2] {
        place.ok(&format!("{train} --threads {threads} --run-dir t{threads}"));
    }
    place.assert_same("t0", "t2", 1024);
    place.refuses(
        "train ppo/cartpole --set env.id=gym:kinds:Locks-v0 --set policy.torso=\"icm\" --run-dir none",
        &["convolutional", "MultiDiscrete", "mlp"],
    );
}

#[test]
fn nothing_but_text_is_refused() {
    place().refuses(
        "train ppo/cartpole --set env.id=gym:kinds:Words-v0 --run-dir none",
        &["gym:kinds:Words-v0", "Dict('word': Text(", "is not supported"],
    );
}

#[test]
fn several_choices_switches_and_nested_actions_are_learnt() {
    let place = place();
    for (env, wanted) in [("Locks", 7.5), ("Lamps", 7.5), ("Arm", 7.0)] {
        let reached = learnt(&place, env, 20_480, "");
        assert!(reached > wanted, "{env}: {reached}");
        let random = place.ok(&format!(
            "record --policy random --env gym:kinds:{env}-v0 --episodes 10 --to {env}.random --json"
        ));
        let random = random.json()["score"]["return_mean"].as_f64().unwrap();
        assert!((0.5..5.5).contains(&random), "{env}: {random}");
        // Demonstrations of such actions train a discriminator and a clone.
        place.ok(&format!("record {env} --episodes 5 --to {env}.demos"));
        let train = format!("--set env.id=gym:kinds:{env}-v0 --demos {env}.demos");
        place.ok(&format!(
            "train gail/cartpole {train} --set signal.gail.demos_stride=1 --set run.total_steps=1024 {SMALL} \
             --run-dir {env}-gail"
        ));
        place.ok(&format!(
            "train bc/cartpole {train} --set learner.demos_stride=1 --set run.total_steps=50 \
             --set run.eval_episodes=2 --run-dir {env}-bc --quiet"
        ));
        place.refuses(
            &format!(
                "train gail/cartpole {train} --set signal.gail.demos_stride=1 --set \
                 signal.gail.action_input=\"per_action_logit\" --run-dir none"
            ),
            &["per_action_logit", "one_hot"],
        );
    }
}

/// Whatever acts: an action that a mask forbids raises in Python and fails the run.
#[test]
fn nobody_does_what_a_mask_forbids() {
    let place = place();
    for env in ["Masked", "MaskedLocks", "MaskedLamps"] {
        let reached = learnt(&place, env, 8_192, "--threads 2");
        assert!(reached > 7.5, "{env}: {reached}");
        place.ok(&format!("eval {env} --stochastic --episodes 20"));
        place.ok(&format!("record {env} --stochastic --episodes 5 --to {env}.demos"));
        place.ok(&format!("record --policy random --env gym:kinds:{env}-v0 --episodes 20 --to {env}.random"));
        place.ok(&format!("train {env} --resume --set run.total_steps=9216 --quiet"));
        let train = format!("--set env.id=gym:kinds:{env}-v0 --demos {env}.demos");
        place.ok(&format!(
            "train gail/cartpole {train} --set signal.gail.demos_stride=1 --set run.total_steps=1024 {SMALL} \
             --run-dir {env}-gail"
        ));
    }
    let train = format!(
        "train ppo/cartpole --set env.id=gym:kinds:Stuck-v0 --set run.total_steps=1024 {SMALL} --run-dir stuck"
    );
    // Found before the run begins, or in the middle of it by who did not want the check.
    place.refuses(&train, &["`gym:kinds:Stuck-v0`", "its action mask allows no action"]);
    let said = place.run(&format!("{train} --set run.check_env=false"));
    said.exits(1).says(&["`gym:kinds:Stuck-v0`", "its action mask allows no action"]);
}
