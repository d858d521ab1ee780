//! Runs that begin with what another one has learnt.

use crate::program::Place;

const SMALL: &str = "--set rollout.envs=4 --set rollout.steps=32 --set rollout.group_size=2 --set run.eval_every=0 \
                     --set run.eval_episodes=4 --set run.total_steps=512 --quiet";
/// Two hidden layers of 64 over 4 numbers, weights and biases: they lie first.
const HIDDEN: usize = 4 * 64 + 64 + 64 * 64 + 64;

fn weights(place: &Place, run: &str, step: u64, name: &str) -> Vec<f32> {
    Vec::try_from(place.state(run, step).0.remove(name).unwrap()).unwrap()
}

#[test]
fn a_policy_begins_with_anothers_weights_and_keeps_what_is_frozen() {
    let place = Place::new();
    place.ok(&format!("train ppo/cartpole {SMALL} --run-dir source"));
    let frozen = "--set policy.freeze=[\"policy/hidden\"]";
    let train = format!("train ppo/cartpole {SMALL} --from source --seed 5 {frozen}");
    place.ok(&format!("{train} --run-dir heir"));
    let of = |run: &str, step| weights(&place, run, step, "train/policy/weights");
    assert_eq!(of("heir", 0), of("source", 512));
    let (before, after) = (of("heir", 0), of("heir", 512));
    assert_eq!(before[..HIDDEN], after[..HIDDEN]);
    assert!(before[HIDDEN..] != after[HIDDEN..]);
    // The resolved recipe says which checkpoint it was, and repeats the run.
    let resolved = std::fs::read_to_string(place.path("heir/recipe.toml")).unwrap();
    assert!(resolved.contains("/source@512\""), "{resolved}");
    place.ok("train heir/recipe.toml --run-dir again --quiet");
    place.assert_same("heir", "again", 512);
    // A run that goes on does not need the other one any more.
    place.ok(&format!("{train} --run-dir halved --resume --stop-at 256"));
    std::fs::remove_dir_all(place.path("source/checkpoints")).unwrap();
    place.ok(&format!("{train} --run-dir halved --resume"));
    place.assert_same("heir", "halved", 512);
}

#[test]
fn signals_begin_with_anothers_where_the_recipe_says_so() {
    let place = Place::new();
    let train = format!("train icm/rooms-sparse {SMALL} --set run.check_env=false");
    place.ok(&format!("{train} --run-dir source"));
    place.ok(&format!("{train} --from source --seed 1 --run-dir policy --set run.total_steps=128"));
    let curious = "--set run.from_signals=[\"curiosity\"]";
    place.ok(&format!("{train} --from source --seed 1 {curious} --run-dir both --set run.total_steps=128"));
    let names: Vec<String> = place.state("source", 512).0.into_keys().collect();
    let name =
        names.iter().find(|name| name.starts_with("train/signals/curiosity") && name.ends_with("weights"));
    let name = name.unwrap();
    let of = |run: &str, step| weights(&place, run, step, name);
    assert_eq!(of("both", 0), of("source", 512));
    assert!(of("policy", 0) != of("source", 512));
    let policy = |run: &str, step| weights(&place, run, step, "train/policy/weights");
    assert_eq!(policy("policy", 0), policy("source", 512));
    // Another number of value heads: they alone begin anew.
    place.ok(&format!(
        "train ppo/rooms-sparse {SMALL} --set run.check_env=false --from source --run-dir task --set run.total_steps=128"
    ));
}

#[test]
fn what_does_not_fit_is_refused() {
    let place = Place::new();
    place.ok(&format!("train ppo/cartpole {SMALL} --run-dir source"));
    let refuses =
        |arguments: &str, words: &[&str]| place.refuses(&format!("train {arguments} {SMALL}"), words);
    refuses("ppo/cartpole --from nowhere", &["run.from", "no run is called `nowhere`"]);
    refuses("ppo/pendulum --from source", &["run.from", "observations"]);
    refuses(
        "ppo/cartpole --from source --set policy.hidden=[32]",
        &["policy/hidden0/weight", "[64, 64]", "[32]"],
    );
    // Heads that read another thing, though their shapes are the same.
    place.ok(&format!("train ppo/tmaze {SMALL} --run-dir remembers"));
    refuses(
        "ppo/cartpole --set env.id=TMaze-v0 --set policy.hidden=[32] --set policy.shared=true --from remembers",
        &["run.from", "memory 32 units of Lstm there", "memory none here"],
    );
    refuses("ppo/cartpole --set policy.memory_units=8", &["policy.memory_units", "policy.memory"]);
    refuses("trpo/cartpole --set policy.memory=gru", &["policy.memory", "ppo", "a2c"]);
    refuses(
        "ppo/cartpole --set policy.freeze=[\"torso\"]",
        &["policy.freeze", "`torso`", "policy/hidden0/weight"],
    );
    refuses("ppo/cartpole --set run.from_signals=[\"task\"]", &["run.from_signals"]);
    refuses("trpo/cartpole --set policy.freeze=[\"policy\"]", &["policy.freeze", "ppo"]);
}
