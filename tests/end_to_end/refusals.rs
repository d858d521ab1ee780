//! Every kind of refusal, in one table: what cannot be done is refused before anything is written, with exit code 2
//! and one line that says what is wrong, where, and how to mend it.

use crate::program::Place;
use imago::run::tensor_file;
use imago_agents::Demonstrations;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::OnceLock;
use tch::Tensor;

/// What a refused command finds in its directory.
#[derive(Clone, Copy)]
enum Scene {
    /// Nothing.
    Empty,
    /// `r.toml`: [`RECIPE`] with one line changed.
    Recipe(&'static str, &'static str),
    /// The run `a` with checkpoints at 0, 128 and 256; something done to it.
    Run(fn(&Place)),
    /// `x.demos`, two random episodes of seals/CartPole-v0; something done to it.
    Demos(fn(&Place)),
    /// The same demonstrations, spoilt and written again with a good checksum.
    Spoilt(fn(&mut Demonstrations)),
    /// Files of our own making.
    Files(&'static [(&'static str, &'static str)]),
}

use Scene::{Demos, Empty, Files, Recipe, Run, Spoilt};

const RECIPE: &str = "format = 1\n[env]\nid = \"CartPole-v1\"\n[learner]\nkind = \"ppo\"\nepochs = 4\n[signal.task]\nkind = \"extrinsic\"\n";

/// One refusal: the scene, the command, and words of the answer: what, where, mend.
type Case = (Scene, &'static str, &'static [&'static str]);

fn nothing(_: &Place) {}

/// Recipes: keys, types, ranges, what does not go together.
const RECIPES: &[Case] = &[
    // Not TOML, or not there.
    (
        Recipe("epochs = 4", "epochs = = 4"),
        TRAIN,
        &["r.toml is not valid TOML", "line 6, column 10", "`epochs = = 4`"],
    ),
    (Recipe("[learner]", "[learner"), TRAIN, &["r.toml is not valid TOML", "line 4", "`[learner`"]),
    (Recipe("epochs = 4", "kind = \"bc\""), TRAIN, &["r.toml is not valid TOML", "line 6", "duplicate key"]),
    (Empty, "train nothere.toml --run-dir b", &["nothere.toml", "No such file"]),
    (Empty, "train ppo/cartpol --run-dir b", &["`ppo/cartpol`", "did you mean `ppo/cartpole`?"]),
    (Empty, "recipes show gial/cartpole", &["did you mean `gail/cartpole`?"]),
    (Recipe("format = 1", "format = 2"), TRAIN, &["r.toml line 1: `format`", "reads format 1, not 2"]),
    (
        Empty,
        "train icm/rooms-sparse --set signal.curiosity.downsample=30 --run-dir b",
        &["downsample = 30 is for images", "Box([4, 22, 22], uint8, 0 to 255)", "make it smaller"],
    ),
    (
        Empty,
        "train gail/cartpole --set signal.gail.downsample=2 --run-dir b",
        &["downsample = 2 is for images", "observations here are Box([4]", "remove it"],
    ),
    (
        Empty,
        "train icm/rooms-sparse --set signal.curiosity.episodic=true --run-dir b",
        &[
            "`signal.curiosity.reward_norm`",
            "\"centred\" shifts every reward",
            "signal.curiosity.episodic = false",
        ],
    ),
    // Unknown keys, sections, kinds.
    (
        Recipe("epochs", "epoch"),
        TRAIN,
        &["r.toml line 6: `learner.epoch`", "unknown key", "did you mean `epochs`?"],
    ),
    (
        Recipe("epochs", "n_steps"),
        TRAIN,
        &["r.toml line 6: `learner.n_steps`", "here it is called `rollout.steps`"],
    ),
    (Recipe("epochs", "use_sde"), TRAIN, &["r.toml line 6: `learner.use_sde`", "gSDE", "`policy.log_std`"]),
    (Recipe("epochs", "patience"), TRAIN, &["r.toml line 6: `learner.patience`", "goes with kind = \"bc\""]),
    (Recipe("epochs", "total_steps"), TRAIN, &["r.toml line 6", "belongs elsewhere: `run.total_steps`"]),
    (Recipe("[env]", "[enw]"), TRAIN, &["r.toml line 2: `enw`", "did you mean `env`?"]),
    (
        Recipe("kind = \"ppo\"", "kind = \"ppo2\""),
        TRAIN,
        &["r.toml line 5: `learner.kind`", "\"ppo2\"", "did you mean \"ppo\"?"],
    ),
    (Recipe("kind = \"ppo\"", "kind = 1"), TRAIN, &["r.toml line 5: `learner.kind`", "expected a string"]),
    (
        Recipe("\"extrinsic\"", "\"extrinsik\""),
        TRAIN,
        &["r.toml line 7: `signal.task`", "did you mean \"extrinsic\"?"],
    ),
    (
        Recipe("[signal.task]\nkind = \"extrinsic\"", "[signal]\ntask = 1"),
        TRAIN,
        &["r.toml line 8: `signal.task`", "expected a section"],
    ),
    (
        Recipe("[signal.task]\nkind = \"extrinsic\"", "[policy.x]"),
        TRAIN,
        &["`policy.x`", "unknown key", "known here: torso"],
    ),
    (Recipe("format = 1", "run = 3"), TRAIN, &["r.toml line 1: `run`", "expected a section [run]"]),
    // Types and ranges.
    (
        Recipe("= 4", "= \"four\""),
        TRAIN,
        &["r.toml line 6: `learner.epochs`", "expected a whole number of at least 1", "\"four\""],
    ),
    (
        Recipe("= 4", "= 4.5"),
        TRAIN,
        &["r.toml line 6: `learner.epochs`", "expected a whole number", "found 4.5"],
    ),
    (Recipe("= 4", "= 0"), TRAIN, &["r.toml line 6: `learner.epochs`", "at least 1, found 0"]),
    (
        Recipe("epochs = 4", "learning_rate = \"fast\""),
        TRAIN,
        &["r.toml line 6", "expected a number above 0", "\"fast\""],
    ),
    (
        Recipe("epochs = 4", "learning_rate = 0.0"),
        TRAIN,
        &["r.toml line 6", "expected a number above 0, found 0"],
    ),
    (
        Recipe("epochs = 4", "learning_rate = nan"),
        TRAIN,
        &["r.toml line 6", "expected a finite number, found NaN"],
    ),
    (
        Recipe("epochs = 4", "anneal_learning_rate = 1"),
        TRAIN,
        &["r.toml line 6", "expected true or false, found 1"],
    ),
    (
        Recipe("id = \"CartPole-v1\"", "id = 5"),
        TRAIN,
        &["r.toml line 3: `env.id`", "expected a string, found 5"],
    ),
    (
        Recipe("id = \"CartPole-v1\"", ""),
        TRAIN,
        &["r.toml line 2: `env`", "`env.id` is missing", "CartPole-v1"],
    ),
    (Recipe("[env]\nid = \"CartPole-v1\"", ""), TRAIN, &["r.toml", "`env.id` is missing"]),
    (
        Recipe("id = \"CartPole-v1\"", "id = \"CartPole-v1\"\ntime_limit = 0"),
        TRAIN,
        &["r.toml line 4: `env.time_limit`", "in [1, "],
    ),
    (
        Recipe("id = \"CartPole-v1\"", "id = \"CartPole-v1\"\ncrop = [1, 2]"),
        TRAIN,
        &["r.toml line 4: `env.crop`", "expected a list of 4 whole numbers", "found the list [1, 2]"],
    ),
    (
        Recipe("id = \"CartPole-v1\"", "id = \"CartPole-v1\"\nresize = [42, 42]"),
        TRAIN,
        &["`resize`", "it needs a picture of bytes"],
    ),
    (
        Recipe("id = \"CartPole-v1\"", "id = \"CartPole-v1\"\nargs = 3"),
        TRAIN,
        &["r.toml line 4: `env.args`", "expected a table"],
    ),
    (
        Recipe("[signal.task]\nkind = \"extrinsic\"\n", ""),
        TRAIN,
        &["no reward signal", "add [signal.extrinsic]"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set run.total_steps=0",
        &["--set run.total_steps", "at least 1, found 0"],
    ),
    (Empty, "train ppo/cartpole --run-dir b --set run.log_every=0", &["--set run.log_every", "at least 1"]),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set run.learner_threads=9999999999",
        &["--set run.learner_threads", "in [1, 2147483647]"],
    ),
    (Empty, "train ppo/cartpole --run-dir b --set run.seed=-1", &["--set run.seed", "at least 0, found -1"]),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set learner.discount=2",
        &["--set learner.discount", "in [0, 1], found 2"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set learner.value_clip=0",
        &["--set learner.value_clip", "above 0"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set policy.torso=mpl",
        &["--set policy.torso", "\"mpl\"", "did you mean \"mlp\"?"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set policy.hidden=[64,0]",
        &["--set policy.hidden", "in [1, 65536], found the list [64, 0]"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set policy.hidden=64",
        &["--set policy.hidden", "expected a list of whole numbers"],
    ),
    (Empty, "train ppo/cartpole --run-dir b --set policy.torso=icm", &["needs images", "torso = \"mlp\""]),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set signal.task.weight={from=1}",
        &["--set signal.task.weight", "a number or { from = …, to = … }"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set signal.task.update=never",
        &["--set signal.task.update", "\"before_reward\" or \"after_policy\""],
    ),
    (
        Empty,
        "train gail/cartpole --run-dir b --set signal.gail.label_smoothing=0.5",
        &["--set signal.gail.label_smoothing", "in [0, 0.5)"],
    ),
    (
        Empty,
        "train bc/cartpole --run-dir b --set learner.validation_split=1",
        &["--set learner.validation_split", "in [0, 1)"],
    ),
    // --set itself.
    (
        Empty,
        "train ppo/cartpole --run-dir b --set run.totl_steps=5",
        &["--set run.totl_steps", "did you mean `total_steps`?"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set foo.bar=1",
        &["--set foo.bar", "unknown key", "known here: format"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set learner.clip",
        &["--set learner.clip", "expected KEY=VALUE"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --set env.id.x=1",
        &["--set env.id.x", "`id` is a value, not a section"],
    ),
    // What does not go together.
    (
        Empty,
        "train ppo/cartpole --run-dir b --set rollout.steps=100000000",
        &["--set rollout.steps", "at most 100 million"],
    ),
    (
        Empty,
        "train gail/cartpole --run-dir b --set signal.gail.replay_rollouts=1000000",
        &["replay_rollouts", "at most 100 million"],
    ),
    (
        Empty,
        "train bc/cartpole --run-dir b --set learner.validation_split=0.99",
        &["25 pairs", "validation_split"],
    ),
    (
        Empty,
        "train bc/cartpole --run-dir b --set learner.patience=1 --set run.eval_every=0",
        &["--set learner.patience", "set run.eval_every too"],
    ),
    (
        Empty,
        "train bc/cartpole --run-dir b --set signal.extrinsic.weight=1",
        &["--set signal.extrinsic.weight", "no reward signals"],
    ),
    (
        Empty,
        "train ppo/cartpole --run-dir b --demos x.demos",
        &["--demos", "nothing in recipe ppo/cartpole learns from demonstrations"],
    ),
    (
        Files(&[("r.toml", "[env]\nid = \"CartPole-v1\"\n[signal.gail]\n")]),
        TRAIN,
        &["r.toml", "`signal.gail.demos`", "no demonstrations yet", "--demos FILE"],
    ),
    (
        Files(&[("r.toml", "[learner]\nkind = \"bc\"\ndemos = \"\"\n")]),
        TRAIN,
        &["r.toml line 3: `learner.demos`", "no demonstrations yet", "--demos FILE"],
    ),
    (
        Files(&[("r.toml", "[learner]\nkind = \"bc\"\n")]),
        "train r.toml --dry-run",
        &["neither `env.id` nor `learner.demos`"],
    ),
];

const TRAIN: &str = "train r.toml --run-dir b";

/// Environments.
const ENVIRONMENTS: &[Case] = &[
    (
        Empty,
        "train ppo/cartpole --set env.id=CartPol-v1 --run-dir b",
        &["`CartPol-v1`", "did you mean `CartPole-v1`?", "`imago envs list`"],
    ),
    (Empty, "train ppo/cartpole --set env.id=Nope --dry-run", &["`Nope`", "`imago envs list`"]),
    (
        Empty,
        "train ppo/cartpole --set env.id=gym:Nope-v0 --run-dir b",
        &["`gym:Nope-v0`", "NameNotFound", "`Nope` doesn't exist"],
    ),
    (
        Empty,
        "train ppo/cartpole --set env.id=gym:no_such_module:Nope-v0 --run-dir b",
        &["ModuleNotFoundError", "no_such_module"],
    ),
    (Empty, "record --policy random --env Pendulm-v1 --to x.demos", &["did you mean `Pendulum-v1`?"]),
    (Empty, "new ppo --env Pendulm-v1 --to b.toml", &["did you mean `Pendulum-v1`?"]),
    (Empty, "new ppo --env gym:Nope-v0 --to b.toml", &["`gym:Nope-v0`", "`Nope` doesn't exist"]),
    (
        Recipe("\"CartPole-v1\"", "\"CartPole-v1\"\nargs = { gravity = 9.8 }"),
        TRAIN,
        &["`CartPole-v1`", "`gravity`", "`sutton_barto_reward`"],
    ),
    (
        Recipe("\"CartPole-v1\"", "\"gym:CartPole-v1\"\nargs = { nonsense = 1 }"),
        TRAIN,
        &["`gym:CartPole-v1`", "TypeError", "nonsense"],
    ),
];

/// Runs and checkpoints.
const RUNS: &[Case] = &[
    (Run(nothing), "eval nothing", &["`nothing`"]),
    (Run(nothing), "eval a@7", &["no checkpoint of step 7", "there are: 0, 128, 256"]),
    (Run(nothing), "train a@7 --resume --quiet", &["no checkpoint of step 7"]),
    (Run(nothing), "eval a@newest", &["@newest", "@latest"]),
    (Run(nothing), "eval a --env Pendulum-v1", &["Box([4], float32)", "Box([3], float32)"]),
    (Run(nothing), "eval a --episodes 0", &["--episodes"]),
    (Run(nothing), "record a --episodes 0 --to x.demos", &["--episodes", "at least 1"]),
    (Empty, "train ppo/cartpole --resume", &["--resume needs --run-dir"]),
    // In a weight, in the header, in the header's length; files that end too soon; none.
    (Run(|p| flip(&last(p), -100)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| flip(&last(p), -100)), RESUME, &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| flip(&last(p), -9_000)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| flip(&last(p), 40)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| flip(&last(p), 40)), RESUME, &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| flip(&last(p), 3)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| cut(&last(p), -1)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| cut(&last(p), -1)), RESUME, &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| cut(&last(p), 100)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (Run(|p| cut(&last(p), 0)), "eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]),
    (
        Run(|p| std::fs::remove_file(last(p)).unwrap()),
        "eval a@latest",
        &["000000000256.safetensors", "go on from `a@128`"],
    ),
    (
        Run(|p| std::fs::remove_file(last(p)).unwrap()),
        RESUME,
        &["000000000256.safetensors", "go on from `a@128`"],
    ),
    (Run(half_an_index), "eval a", &["index.json", "damaged", "move it away"]),
    (Run(half_an_index), RESUME, &["index.json", "damaged", "move it away"]),
    (
        Run(|p| p.write("a/recipe.toml", "[run")),
        "eval a",
        &["a/recipe.toml is not valid TOML", "line 1", "`[run`"],
    ),
    (
        Run(|p| p.write("a/recipe.toml", "[run]\nsede = 1\n")),
        RESUME,
        &["a/recipe.toml line 2", "did you mean `seed`?"],
    ),
    // Another recipe on resume; from the recipe's name everything that was set must be set again.
    (
        Run(nothing),
        "train a --resume --quiet --set learner.epochs=3 --seed 1",
        &["learner.epochs", "run.seed", "begin a new run", "run.total_steps"],
    ),
    (Run(nothing), "train ppo/cartpole --run-dir a --resume --quiet", &["rollout.envs", "rollout.steps"]),
    (Run(nothing), "train gail/cartpole --run-dir a --resume --quiet", &["signal.gail.kind", "env.id"]),
];

const RESUME: &str = "train a --resume --quiet --set run.total_steps=512";

/// Demonstration files. Those that anything that reads them refuses are asked for in four ways: see [`ASKED`].
const DEMONSTRATIONS: &[Case] = &[
    (Empty, ASKED, &["x.demos", "no such file"]),
    (Files(&[("x.demos", "")]), ASKED, &["x.demos", "not a safetensors file"]),
    (Files(&[("x.demos", "left, right, left, right, right")]), ASKED, &["x.demos", "not a safetensors file"]),
    (Demos(|p| flip(&p.path("x.demos"), -10)), ASKED, &["x.demos", "damaged"]),
    (Demos(|p| flip(&p.path("x.demos"), -5_000)), ASKED, &["x.demos", "damaged"]),
    (Demos(|p| flip(&p.path("x.demos"), 30)), ASKED, &["x.demos", "damaged"]),
    (Demos(|p| cut(&p.path("x.demos"), -1)), ASKED, &["x.demos", "damaged", "ends"]),
    (Demos(|p| cut(&p.path("x.demos"), -5_000)), ASKED, &["x.demos", "damaged", "ends"]),
    (Demos(|p| cut(&p.path("x.demos"), 60)), ASKED, &["x.demos", "damaged", "ends"]),
    (
        Run(|p| copy(&last(p), &p.path("x.demos"))),
        ASKED,
        &["x.demos", "no usable demonstration file", "a checkpoint?"],
    ),
    (Demos(|p| other_header(p, 1.into())), ASKED, &["x.demos", "its header"]),
    (Demos(|p| other_header(p, "newer".into())), ASKED, &["x.demos", "its header"]),
    (
        Spoilt(|d| drop(d.observations.get(5).fill_(f64::NAN))),
        ASKED,
        &["x.demos", "`observation` row 5", "NaN"],
    ),
    (
        Spoilt(|d| drop(d.observations.get(1).get(2).fill_(f64::INFINITY))),
        ASKED,
        &["x.demos", "`observation` row 1", "infinity"],
    ),
    (Spoilt(|d| drop(d.rewards.get(7).fill_(f64::NAN))), ASKED, &["x.demos", "`reward` row 7"]),
    (Spoilt(|d| drop(d.actions.get(9).fill_(2))), ASKED, &["x.demos", "`action` row 9", "Discrete(2)"]),
    (
        Spoilt(|d| d.observations = d.observations.narrow(1, 0, 3)),
        ASKED,
        &["x.demos", "`observation`", "header"],
    ),
    (Spoilt(|d| d.actions = d.actions.to_kind(tch::Kind::Float)), ASKED, &["x.demos", "`action`", "header"]),
    (Spoilt(|d| d.episodes[0].pairs -= 1), ASKED, &["x.demos", "header"]),
    // Good ones of another task, or not enough of them.
    (Demos(nothing), "train gail/cartpole --demos x.demos --set env.id=Pendulum-v1 --run-dir b", OTHER_TASK),
    (Demos(nothing), "train bc/cartpole --demos x.demos --set env.id=Pendulum-v1 --run-dir b", OTHER_TASK),
    (Demos(nothing), "new gail --env Pendulum-v1 --demos x.demos --to b.toml", OTHER_TASK),
    (
        Demos(nothing),
        "train gail/cartpole --demos x.demos --set signal.gail.demos_skip=2 --run-dir b",
        &["x.demos", "hold 2 episodes", "demos_skip"],
    ),
    (
        Demos(nothing),
        "train bc/cartpole --demos x.demos --set learner.demos_episodes=3 --run-dir b",
        &["x.demos", "hold 2 episodes", "use 3"],
    ),
    (
        Demos(nothing),
        "train bc/cartpole --demos x.demos --set learner.demos_stride=0 --run-dir b",
        &["--set learner.demos_stride", "at least 1"],
    ),
    (Demos(nothing), "demos subsample x.demos --episodes 3 --to y.demos", &["hold 2 episodes"]),
    (Demos(nothing), "demos subsample x.demos --skip 2 --to y.demos", &["hold 2 episodes"]),
    (Demos(nothing), "demos subsample x.demos --stride 0 --to y.demos", &["stride 0"]),
    (
        Demos(nothing),
        "demos subsample x.demos --from-step 999 --to y.demos",
        &["from step 999 on leaves no pair"],
    ),
    (Demos(thin), "demos subsample y.demos --stride 2 --to z.demos", &["already sub-sampled with stride 20"]),
    (
        Empty,
        "train gail/cartpole --set signal.gail.demos=builtin:nobody --run-dir b",
        &["no built-in demonstrations `nobody`", "seals-cartpole"],
    ),
    (
        Empty,
        "train gail/cartpole --set signal.gail.demos_hash=00000000 --run-dir b",
        &["not the file", "remove `demos_hash`"],
    ),
];

/// Stands for every command that reads `x.demos`.
const ASKED: &str = "…";
const WAYS: [&str; 5] = [
    "train gail/cartpole --demos x.demos --run-dir b",
    "train bc/cartpole --demos x.demos --run-dir b",
    "demos info x.demos",
    "demos subsample x.demos --episodes 1 --to y.demos",
    "new gail --demos x.demos --to b.toml",
];
const OTHER_TASK: &[&str] =
    &["x.demos", "seals/CartPole-v0", "Pendulum-v1", "Box([3], float32)", "Box([4], float32)"];

/// Command lines, and places where nothing can or may be written.
const COMMANDS: &[Case] = &[
    (Empty, "new gial --env CartPole-v1", &["`gial`", "did you mean `gail`?"]),
    (Empty, "new dreamer --env CartPole-v1", &["`dreamer`", "gail, bc, ppo"]),
    (Empty, "new ppo", &["for which environment?", "--env ENV"]),
    (Empty, "new bc", &["for which environment?", "--demos FILE"]),
    (Demos(nothing), "new ppo --env CartPole-v1 --demos x.demos", &["--demos", "`new gail`"]),
    (Empty, "recipes keys learnr", &["`learnr`", "did you mean `learner`?"]),
    (Empty, "recipes keys gamma", &["`gamma`", "here it is called `learner.discount`"]),
    (Empty, "recipes keys device", &["`device`", "no other device"]),
    (Empty, "recipes list --set run.seed=1", &["--set", "`imago train`"]),
    (Empty, "envs list --seed 1", &["--seed", "train, eval, watch, record and generate"]),
    (Empty, "eval a --threads 2", &["--threads", "`imago train`"]),
    // Runs are never overwritten, files only with --force.
    (Run(nothing), "train ppo/cartpole --run-dir a", &["a: ", "--resume", "another --run-dir"]),
    (Run(nothing), "train ppo/cartpole --run-dir a --force", &["a: ", "another --run-dir"]),
    (MINE, "train ppo/cartpole --run-dir mine.txt", &["mine.txt", "another --run-dir"]),
    (MINE, "train ppo/cartpole --run-dir mine.txt --dry-run", &["mine.txt", "another --run-dir"]),
    (MINE, "record --policy random --env CartPole-v1 --to mine.txt", &["mine.txt exists", "--force"]),
    (MINE, "recipes copy ppo/cartpole --to mine.txt", &["mine.txt exists", "--force"]),
    (MINE, "new ppo --env CartPole-v1 --to mine.txt", &["mine.txt exists", "--force"]),
    (MINE, "demos subsample x.demos --to mine.txt", &["mine.txt exists", "--force"]),
    // Root may write anywhere, but not below a file.
    (
        MINE,
        "record --policy random --env CartPole-v1 --to no/where.demos",
        &["no/where.demos", "directory does not exist"],
    ),
    (MINE, "new ppo --env CartPole-v1 --to no/where.toml", &["no/where.toml", "directory does not exist"]),
    (
        MINE,
        "record --policy random --env CartPole-v1 --to mine.txt/x.demos",
        &["mine.txt/x.demos", "directory"],
    ),
    (
        MINE,
        "train ppo/cartpole --run-dir mine.txt/run",
        &["mine.txt/run", "cannot be written", "another --run-dir"],
    ),
    (Files(&[("runs", "")]), "train ppo/cartpole", &["runs", "cannot be written", "another --run-dir"]),
    (MINE, "demo --smoke --to mine.txt", &["mine.txt", "--to"]),
];
const MINE: Scene = Files(&[("mine.txt", "mine")]);

/// Command lines that the flags' own reader refuses: more than one line, with the usage or where to find it.
const USAGE: [&str; 10] = [
    "",
    "nonsense",
    "train",
    "new",
    "eval a --nonsense",
    "record --policy random --to x.demos",
    "record a --policy random --env CartPole-v1 --to x.demos",
    "train x --seed y",
    "train x --seed -1",
    "recipes keys run --schema",
];

/// Paths within a run.
fn last(place: &Place) -> std::path::PathBuf {
    place.checkpoint("a", 256)
}

/// A position in `length` bytes, from the end if negative.
fn position(length: usize, at: i64) -> usize {
    if at < 0 { length - at.unsigned_abs() as usize } else { at as usize }
}

fn flip(path: &Path, at: i64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = position(bytes.len(), at);
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, keep: i64) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..position(bytes.len(), keep)]).unwrap();
}

fn half_an_index(place: &Place) {
    place.write("a/checkpoints/index.json", "{\"format\": 1, \"entr");
}

fn thin(place: &Place) {
    place.ok("demos subsample x.demos --stride 20 --to y.demos");
}

fn other_header(place: &Place, version: serde_json::Value) {
    let tensors = [("observation".to_string(), Tensor::zeros([3], tch::kind::FLOAT_CPU))];
    let mut values = tensor_file::Values::new();
    values.insert("demonstrations".into(), version);
    tensor_file::write(&place.path("x.demos"), &tensors, &values).unwrap();
}

/// A run and demonstrations, made once.
fn made() -> &'static Place {
    static MADE: OnceLock<Place> = OnceLock::new();
    MADE.get_or_init(|| {
        let place = Place::new();
        place.ok(
            "train ppo/cartpole --set rollout.envs=4 --set rollout.steps=32 --set run.total_steps=256 \
             --set run.checkpoint_every=128 --set run.eval_every=0 --set run.eval_episodes=2 --run-dir a --quiet",
        );
        assert_eq!(place.steps("a"), [0, 128, 256]);
        place.ok("record --policy random --env seals/CartPole-v0 --episodes 2 --to x.demos");
        place
    })
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn set(scene: Scene) -> Place {
    let place = Place::new();
    match scene {
        Empty => {}
        Recipe(line, instead) => {
            assert_eq!(RECIPE.matches(line).count(), 1, "`{line}` is not once in the recipe");
            place.write("r.toml", &RECIPE.replace(line, instead));
        }
        Run(change) => {
            copy(&made().path("a"), &place.path("a"));
            change(&place);
        }
        Demos(change) => {
            copy(&made().path("x.demos"), &place.path("x.demos"));
            change(&place);
        }
        Spoilt(spoil) => {
            let mut demonstrations = Demonstrations::load(&made().path("x.demos")).unwrap();
            spoil(&mut demonstrations);
            demonstrations.save(&place.path("x.demos")).unwrap();
        }
        Files(files) => files.iter().for_each(|(name, text)| place.write(name, text)),
    }
    place
}

/// Runs the cases, all of them even if some fail; returns how many commands were refused.
#[track_caller]
fn refuse(cases: &[Case]) -> usize {
    let (mut count, mut failed) = (0, Vec::new());
    for (scene, command, words) in cases {
        let place = set(*scene);
        let commands = if *command == ASKED { &WAYS[..] } else { std::slice::from_ref(command) };
        for command in commands {
            let refused = std::panic::catch_unwind(AssertUnwindSafe(|| place.refuses(command, words)));
            if refused.is_err() {
                failed.push(*command);
            }
            count += 1;
        }
    }
    assert!(
        failed.is_empty(),
        "of {count} commands these were not refused as they should be (see above): {failed:#?}"
    );
    count
}

/// What must not vanish unnoticed: change these numbers together with the tables.
const COUNTS: [usize; 6] = [64, 9, 27, 108, 25, 10];

#[test]
fn recipes() {
    assert_eq!(refuse(RECIPES), COUNTS[0]);
}

#[test]
fn environments() {
    assert_eq!(refuse(ENVIRONMENTS), COUNTS[1]);
}

#[test]
fn runs_and_checkpoints() {
    assert_eq!(refuse(RUNS), COUNTS[2]);
}

#[test]
fn demonstrations() {
    assert_eq!(refuse(DEMONSTRATIONS), COUNTS[3]);
}

#[test]
fn command_lines() {
    assert_eq!(refuse(COMMANDS), COUNTS[4]);
    for arguments in USAGE {
        let place = Place::new();
        let said = place.run(arguments).exits(2);
        assert!(said.stderr.contains("Usage") || said.stderr.contains("--help"), "{said:#?}");
        assert!(said.stdout.is_empty() && place.listing().is_empty(), "{said:#?}");
    }
    assert_eq!(USAGE.len(), COUNTS[5]);
}

#[test]
fn the_unspoilt_scenes_are_good() {
    let place = set(Recipe("epochs = 4", "epochs = 3"));
    assert!(place.ok("train r.toml --dry-run").stdout.contains("epochs = 3"));
    set(Run(nothing)).ok("eval a@128 --episodes 1");
    set(Demos(nothing)).ok("demos info x.demos");
    set(Spoilt(|_| {})).ok("train bc/cartpole --demos x.demos --dry-run");
}
