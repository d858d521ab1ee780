//! What cannot be done is refused before anything is written: exit code 2, one line, the place and the mend.

use crate::program::Place;
use imago::run::tensor_file;
use imago_agents::Demonstrations;
use std::path::Path;
use tch::Tensor;

const RECIPE: &str = "format = 1\n[env]\nid = \"CartPole-v1\"\n[learner]\nkind = \"ppo\"\nepochs = 4\n[signal.task]\nkind = \"extrinsic\"\n";

/// A place with the recipe above, one line of it changed.
fn with_recipe(line: &str, instead: &str) -> Place {
    let place = Place::new();
    assert!(RECIPE.contains(line));
    place.write("r.toml", &RECIPE.replace(line, instead));
    place
}

/// A place with a short run `a` that has checkpoints at 0, 128 and 256.
fn with_run() -> Place {
    let place = Place::new();
    place.ok(
        "train ppo/cartpole --set rollout.envs=4 --set rollout.steps=32 --set run.total_steps=256 \
         --set run.checkpoint_every=128 --set run.eval_every=0 --set run.eval_episodes=2 --run-dir a --quiet",
    );
    assert_eq!(place.steps("a"), [0, 128, 256]);
    place
}

/// A place with the demonstrations `x.demos`.
fn with_demonstrations() -> Place {
    let place = Place::new();
    place.ok("record --policy random --env seals/CartPole-v0 --episodes 2 --to x.demos");
    place
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, keep: usize) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..keep]).unwrap();
}

#[test]
fn the_recipe_of_these_tests_is_good() {
    let place = with_recipe("epochs = 4", "epochs = 3");
    assert!(place.ok("train r.toml --dry-run").stdout.contains("epochs = 3"));
}

#[test]
fn unknown_keys() {
    let place = with_recipe("epochs = 4", "epoch = 4");
    place
        .refuses("train r.toml --run-dir a", &["r.toml line 6", "`learner.epoch`", "did you mean `epochs`?"]);
    let place = with_recipe("epochs = 4", "n_steps = 4");
    place.refuses("train r.toml --run-dir a", &["r.toml line 6", "`learner.n_steps`", "`rollout.steps`"]);
    let place = with_recipe("[env]", "[enw]");
    place.refuses("train r.toml --run-dir a", &["r.toml line 2", "`enw`", "did you mean `env`?"]);
    place.refuses(
        "train ppo/cartpole --set run.totl_steps=5 --run-dir a",
        &["--set run.totl_steps", "`total_steps`"],
    );
}

#[test]
fn wrong_types_and_values() {
    let place = Place::new();
    place.refuses(
        "train ppo/cartpole --set run.total_steps=0 --run-dir a",
        &["--set run.total_steps", "at least 1"],
    );
    place.refuses(
        "train ppo/cartpole --set learner.discount=2 --run-dir a",
        &["--set learner.discount", "[0, 1]"],
    );
    place.refuses("train ppo/cartpole --set learner.clip --run-dir a", &["--set learner.clip", "KEY=VALUE"]);
    place.refuses(
        "train bc/cartpole --set learner.validation_split=0.99 --run-dir a",
        &["25 pairs", "validation_split"],
    );
    place.refuses(
        "train ppo/cartpole --set policy.torso=mpl --run-dir a",
        &["--set policy.torso", "`mpl`", "`mlp`"],
    );
    let place = with_recipe("epochs = 4", "epochs = \"four\"");
    place.refuses(
        "train r.toml --run-dir a",
        &["r.toml line 6", "learner.epochs", "invalid type: string \"four\""],
    );
    let place = with_recipe("epochs = 4", "learning_rate = \"fast\"");
    place.refuses("train r.toml --run-dir a", &["r.toml line 6", "learner.learning_rate", "f64"]);
    let place = with_recipe("epochs = 4", "epochs = 0");
    place.refuses("train r.toml --run-dir a", &["r.toml line 6", "learner.epochs", "at least 1"]);
    let place = with_recipe("format = 1", "format = 2");
    place.refuses("train r.toml --run-dir a", &["r.toml", "format"]);
    let place = with_recipe("id = \"CartPole-v1\"", "");
    place.refuses("train r.toml --run-dir a", &["r.toml", "id"]);
}

#[test]
fn broken_toml() {
    let place = with_recipe("epochs = 4", "epochs = = 4");
    let before = place.listing();
    let said = place.run("train r.toml --run-dir a").exits(2).says(&["r.toml is not valid TOML", "line 6"]);
    assert!(said.stderr.starts_with("imago: ") && said.stdout.is_empty(), "{said:#?}");
    assert_eq!(place.listing(), before);
}

#[test]
fn recipes_that_are_not_there() {
    let place = Place::new();
    place.refuses("train nothere.toml --run-dir a", &["nothere.toml", "No such file"]);
    place.refuses("train ppo/cartpol --run-dir a", &["`ppo/cartpol`", "did you mean `ppo/cartpole`?"]);
    place.refuses("recipes show gial/cartpole", &["did you mean `gail/cartpole`?"]);
}

#[test]
fn environments_that_are_not_there() {
    let place = Place::new();
    let with = |id: &str| format!("train ppo/cartpole --set env.id={id} --run-dir a");
    place.refuses(&with("CartPol-v1"), &["`CartPol-v1`", "did you mean `CartPole-v1`?", "`imago envs list`"]);
    place.refuses(&with("gym:Nope-v0"), &["`gym:Nope-v0`", "NameNotFound", "`Nope` doesn't exist"]);
    place.refuses(&with("gym:no_such_module:Nope-v0"), &["ModuleNotFoundError", "no_such_module"]);
    place.refuses("record --policy random --env Pendulm-v1 --to x.demos", &["did you mean `Pendulum-v1`?"]);
}

#[test]
fn arguments_of_environments() {
    let place = with_recipe("id = \"CartPole-v1\"", "id = \"CartPole-v1\"\nargs = { gravity = 9.8 }");
    place.refuses("train r.toml --run-dir a", &["`CartPole-v1`", "`gravity`"]);
    let place = with_recipe("id = \"CartPole-v1\"", "id = \"gym:CartPole-v1\"\nargs = { nonsense = 1 }");
    place.refuses("train r.toml --run-dir a", &["`gym:CartPole-v1`", "TypeError", "nonsense"]);
}

#[test]
fn runs_that_are_not_there() {
    let place = with_run();
    place.refuses("eval nothing", &["`nothing`"]);
    place.refuses("eval a@7", &["no checkpoint of step 7", "there are: 0, 128, 256"]);
    place.refuses("eval a@newest", &["@newest", "@latest"]);
    place.refuses("eval a --env Pendulum-v1", &["Box([4], float32)", "Box([3], float32)"]);
    place.refuses("eval a --episodes 0", &["--episodes"]);
    place.refuses("train ppo/cartpole --resume", &["--resume needs --run-dir"]);
}

#[test]
fn damaged_checkpoints() {
    let place = with_run();
    let path = place.checkpoint("a", 256);
    let whole = std::fs::read(&path).unwrap();
    let size = whole.len();
    // In a weight, in the header, in the header's length; and files that end too soon.
    let damages: [&dyn Fn(); 6] = [
        &|| flip(&path, size - 100),
        &|| flip(&path, size / 2),
        &|| flip(&path, 40),
        &|| flip(&path, 3),
        &|| cut(&path, size - 1),
        &|| cut(&path, 100),
    ];
    for damage in damages {
        damage();
        for command in ["eval a@latest", "train a --resume --quiet --set run.total_steps=512"] {
            place.refuses(command, &["000000000256.safetensors", "go on from `a@128`"]);
        }
        std::fs::write(&path, &whole).unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    place.refuses("eval a@latest", &["000000000256.safetensors", "go on from `a@128`"]);
    place.ok("eval a@128 --episodes 1");
}

#[test]
fn a_damaged_index() {
    let place = with_run();
    place.write("a/checkpoints/index.json", "{\"format\": 1, \"entr");
    place.refuses("eval a", &["index.json", "damaged", "move it away"]);
    place.refuses("train a --resume --quiet", &["index.json", "damaged", "move it away"]);
    std::fs::remove_file(place.path("a/checkpoints/index.json")).unwrap();
    assert_eq!(place.ok("eval a@latest --json --episodes 1").json()["checkpoint"], 256);
}

#[test]
fn damaged_demonstrations() {
    let place = with_demonstrations();
    let path = place.path("x.demos");
    let whole = std::fs::read(&path).unwrap();
    let size = whole.len();
    place.write("empty.demos", "");
    place.write("text.demos", "left, right, left, right, right");
    let refuse = |file: &str, words: &[&str]| {
        let words = [&[file], words].concat();
        place.refuses(&format!("train gail/cartpole --demos {file} --run-dir a"), &words);
        place.refuses(&format!("train bc/cartpole --demos {file} --run-dir a"), &words);
        place.refuses(&format!("demos info {file}"), &words);
        place.refuses(&format!("demos subsample {file} --episodes 1 --to y.demos"), &words);
    };
    refuse("none.demos", &["no such file"]);
    refuse("empty.demos", &["not a safetensors file"]);
    refuse("text.demos", &["not a safetensors file"]);
    for damage in [size - 10, size / 2, 30] {
        flip(&path, damage);
        refuse("x.demos", &["damaged"]);
        std::fs::write(&path, &whole).unwrap();
    }
    for keep in [size - 1, size / 2, 60] {
        cut(&path, keep);
        refuse("x.demos", &["damaged", "ends"]);
        std::fs::write(&path, &whole).unwrap();
    }
    place.ok("demos info x.demos");
}

#[test]
fn demonstrations_that_cannot_be() {
    let place = with_demonstrations();
    let refuse = |spoil: &dyn Fn(&mut Demonstrations), words: &[&str]| {
        let mut demonstrations = Demonstrations::load(&place.path("x.demos")).unwrap();
        spoil(&mut demonstrations);
        demonstrations.save(&place.path("bad.demos")).unwrap();
        for recipe in ["gail/cartpole", "bc/cartpole"] {
            let words = [&["bad.demos"], words].concat();
            place.refuses(&format!("train {recipe} --demos bad.demos --run-dir a"), &words);
        }
    };
    refuse(&|d| drop(d.observations.get(5).fill_(f64::NAN)), &["`observation` row 5", "NaN"]);
    refuse(
        &|d| drop(d.observations.get(1).get(2).fill_(f64::INFINITY)),
        &["`observation` row 1", "infinity"],
    );
    refuse(&|d| drop(d.rewards.get(7).fill_(f64::NAN)), &["`reward` row 7"]);
    refuse(&|d| drop(d.actions.get(9).fill_(2)), &["`action` row 9", "Discrete(2)"]);
    refuse(&|d| d.observations = d.observations.narrow(1, 0, 3), &["`observation`", "header"]);
    refuse(&|d| d.actions = d.actions.to_kind(tch::Kind::Float), &["`action`", "header"]);
    refuse(&|d| d.episodes[0].pairs -= 1, &["header"]);
}

#[test]
fn files_of_another_kind() {
    let place = with_run();
    let checkpoint = place.checkpoint("a", 256);
    let checkpoint = checkpoint.strip_prefix(place.folder()).unwrap().display();
    place.refuses(&format!("demos info {checkpoint}"), &["no usable demonstration file", "a checkpoint?"]);
    let tensors = [("observation".to_string(), Tensor::zeros([3], tch::kind::FLOAT_CPU))];
    let mut values = tensor_file::Values::new();
    values.insert("demonstrations".into(), 1.into());
    tensor_file::write(&place.path("half.demos"), &tensors, &values).unwrap();
    place.refuses("demos info half.demos", &["half.demos", "its header"]);
    values.insert("demonstrations".into(), "newer".into());
    tensor_file::write(&place.path("half.demos"), &tensors, &values).unwrap();
    place.refuses("demos info half.demos", &["half.demos", "its header"]);
}

#[test]
fn demonstrations_of_another_task() {
    let place = with_demonstrations();
    let words = ["x.demos", "seals/CartPole-v0", "Pendulum-v1", "Box([3], float32)", "Box([4], float32)"];
    for recipe in ["gail/cartpole", "bc/cartpole"] {
        place
            .refuses(&format!("train {recipe} --demos x.demos --set env.id=Pendulum-v1 --run-dir a"), &words);
    }
    // The same spaces are no mistake, only worth a word.
    let said = place
        .ok("train bc/cartpole --demos x.demos --set env.id=CartPole-v1 --set run.total_steps=5 --run-dir a");
    assert!(said.stderr.contains("was recorded in seals/CartPole-v0, not in CartPole-v1"), "{said:#?}");
}

#[test]
fn demonstrations_nobody_wants_or_that_are_too_few() {
    let place = with_demonstrations();
    place.refuses("train ppo/cartpole --demos x.demos --run-dir a", &["--demos", "ppo/cartpole"]);
    place.refuses("demos subsample x.demos --episodes 3 --to y.demos", &["hold 2 episodes"]);
    place.refuses("demos subsample x.demos --skip 2 --to y.demos", &["hold 2 episodes"]);
    place.refuses("demos subsample x.demos --stride 0 --to y.demos", &["stride 0"]);
    place.refuses(
        "train gail/cartpole --demos x.demos --set signal.gail.demos_skip=2 --run-dir a",
        &["hold 2 episodes"],
    );
    place.ok("demos subsample x.demos --stride 20 --to y.demos");
    place.refuses("demos subsample y.demos --stride 2 --to z.demos", &["already sub-sampled with stride 20"]);
}

#[test]
fn what_exists_is_not_overwritten() {
    let place = with_run();
    place.write("mine.txt", "mine");
    place.refuses("train ppo/cartpole --run-dir a", &["a: ", "--resume", "another --run-dir"]);
    // Runs are never overwritten.
    place.refuses("train ppo/cartpole --run-dir a --force", &["a: ", "another --run-dir"]);
    place.refuses("train ppo/cartpole --run-dir mine.txt", &["mine.txt", "another --run-dir"]);
    place.refuses("record a --to mine.txt", &["mine.txt exists", "--force"]);
    place.refuses("recipes copy ppo/cartpole --to mine.txt", &["mine.txt exists", "--force"]);
    place.ok("record a --to x.demos --episodes 1");
    place.refuses("demos subsample x.demos --to mine.txt", &["mine.txt exists", "--force"]);
    place.refuses("record a --to no/where.demos", &["no/where.demos", "directory does not exist"]);
    place.ok("record a --to mine.txt --episodes 1 --force");
    assert_eq!(place.ok("demos info mine.txt --json").json(), place.ok("demos info x.demos --json").json());
}

#[test]
fn where_nothing_can_be_written() {
    let place = Place::new();
    // Root may write anywhere, but not below a file.
    place.write("file", "");
    place.refuses(
        "train ppo/cartpole --run-dir file/run",
        &["file/run", "cannot be written", "another --run-dir"],
    );
    place.refuses(
        "record --policy random --env CartPole-v1 --to file/x.demos",
        &["file/x.demos", "directory"],
    );
    place.write("runs", "");
    place.refuses("train ppo/cartpole", &["runs", "cannot be written", "another --run-dir"]);
}

#[test]
fn another_recipe_on_resume() {
    let place = with_run();
    let resume = "train a --resume --quiet";
    let words = ["learner.epochs", "run.seed", "begin a new run", "run.total_steps"];
    place.refuses(&format!("{resume} --set learner.epochs=3 --seed 1"), &words);
    // From the recipe's name everything that was set must be set again.
    place.refuses("train ppo/cartpole --run-dir a --resume --quiet", &["rollout.envs", "rollout.steps"]);
    place.refuses("train gail/cartpole --run-dir a --resume --quiet", &["signal.gail.kind", "env.id"]);
    place.ok(&format!("{resume} --set run.log_every=7 --threads 0"));
}

#[test]
fn a_run_that_is_being_trained() {
    let place = Place::new();
    let mut running = place.start("train ppo/cartpole --set run.total_steps=100000000 --run-dir a --quiet");
    running.until("its first checkpoint", || place.path("a/checkpoints/index.json").is_file());
    let said = place.run("train a --resume --quiet").exits(2);
    said.says(&["imago: a: process", "is training into it", "another --run-dir"]);
    assert!(running.goes_on());
    assert!(running.kill());
    assert!(place.run("train a --resume --quiet --stop-at 1").code == Some(0));
}

#[test]
fn the_command_line() {
    let place = Place::new();
    for arguments in [
        "",
        "nonsense",
        "train",
        "eval a --nonsense",
        "record --policy random --to x.demos",
        "train x --seed y",
    ] {
        let said = place.run(arguments).exits(2);
        assert!(said.stderr.contains("Usage") || said.stderr.contains("--help"), "{said:#?}");
        assert!(said.stdout.is_empty());
    }
    assert!(place.listing().is_empty());
}
