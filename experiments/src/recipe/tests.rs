//! What recipes mean, and how wrong ones are answered.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::RECIPES;
use crate::foreign::{Foreign, NAMES};
use crate::schema::tests::is_valid;
use proptest::prelude::*;

const GAIL: &str = "format = 1\n[env]\nid = \"CartPole-v1\"\n[learner]\nkind = \"ppo\"\nepochs = 4\n\n[signal.gail]\ndemos = \"a.demos\"\n";

fn refused(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Recipe::parse("r.toml", text, &overrides, None, &[]).unwrap_err().to_string()
}

#[test]
fn a_resolved_recipe_reads_back_the_same() {
    let sets = ["policy.hidden=[8, 8]".into(), "signal.gail.weight={from=1, to=0}".into()];
    let recipe = Recipe::parse("r.toml", GAIL, &sets, None, &[]).unwrap();
    assert_eq!(recipe.policy.hidden, Some(vec![8, 8]));
    let again = Recipe::parse("resolved", &recipe.to_toml().unwrap(), &[], None, &[]).unwrap();
    assert_eq!(recipe, again);
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest_key() {
    let message = refused(&GAIL.replace("epochs", "epoch"), &[]);
    assert!(message.contains("r.toml line 6") && message.contains("did you mean `epochs`"), "{message}");
    let message = refused(&GAIL.replace("epochs = 4", "n_steps = 4"), &[]);
    assert!(message.contains("`rollout.steps`"), "{message}");
    let message = refused(GAIL, &["learner.ent_coef=0.1"]);
    assert!(
        message.contains("--set learner.ent_coef") && message.contains("entropy_coefficient"),
        "{message}"
    );
    let message = refused(&GAIL.replace("[signal.gail]", "[signal.gial]"), &[]);
    assert!(message.contains("line 8") && message.contains("did you mean \"gail\""), "{message}");
}

#[test]
fn wrong_types_and_values_name_the_place() {
    let message = refused(&GAIL.replace("epochs = 4", "epochs = \"four\""), &[]);
    assert!(message.contains("line 6") && message.contains("learner.epochs"), "{message}");
    let message = refused(GAIL, &["learner.discount=1.5"]);
    assert!(message.contains("--set learner.discount") && message.contains("[0, 1]"), "{message}");
    let message = refused("[learner\nkind = 1", &[]);
    assert!(message.contains("not valid TOML") && message.contains("line 1"), "{message}");
    let message = refused(&GAIL.replace("[env]\nid = \"CartPole-v1\"\n", ""), &[]);
    assert!(message.contains("env.id"), "{message}");
}

#[test]
fn broken_toml_is_told_in_one_line() {
    let message = refused(&GAIL.replace("epochs = 4", "epochs = = 4"), &[]);
    assert!(message.starts_with("r.toml is not valid TOML: line 6, column 10: "), "{message}");
    assert!(message.ends_with("in `epochs = = 4`") && !message.contains('\n'), "{message}");
}

#[test]
fn what_was_set_is_blamed_on_the_set() {
    for (set, place, words) in [
        ("foo.bar=1", "--set foo.bar: unknown key", ""),
        ("run.sede=1", "--set run.sede: unknown key", "did you mean `seed`?"),
        ("signal.gail.weight={from=1, tp=0}", "--set signal.gail.weight: ", "{ from = …, to = … }"),
        ("signal.other.weight=2", "--set signal.other.weight: unknown signal", ""),
        ("policy.hidden=64", "--set policy.hidden: ", "a list of whole numbers in [1, 65536], found 64"),
        ("env.id.x=2", "--set env.id.x", "`id` is a value"),
    ] {
        let message = refused(GAIL, &[set]);
        assert!(message.contains(place) && message.contains(words), "{set}: {message}");
        assert!(!message.contains("r.toml"), "{set}: {message}");
    }
    // The last of several sets, and only what it set.
    let message = refused(GAIL, &["run.seed=1", "run.seed=-1"]);
    assert!(message.contains("--set run.seed") && message.contains("at least 0, found -1"), "{message}");
    let message = refused(&GAIL.replace("epochs", "epoch"), &["learner.clip=0.1"]);
    assert!(message.contains("r.toml line 6"), "{message}");
}

#[test]
fn demonstrations_may_be_missing_until_somebody_trains() {
    let none = Recipe::parse("r.toml", &GAIL.replace("demos = \"a.demos\"", ""), &[], None, &[]).unwrap();
    assert_eq!(none.missing_demonstrations(), ["signal.gail.demos"]);
    let mut empty = Recipe::parse("r.toml", "[learner]\nkind = \"bc\"", &[], None, &[]).unwrap();
    assert_eq!(empty.missing_demonstrations(), ["learner.demos"]);
    empty.anchor(Path::new("/somewhere"));
    assert_eq!(empty.missing_demonstrations(), ["learner.demos"], "no file became a directory");
    let there = Recipe::parse("r.toml", GAIL, &[], None, &[]).unwrap();
    assert!(there.missing_demonstrations().is_empty());
}

/// A recipe in which `key` stands in `section`; of behaviour cloning where the section asks for it.
fn with_key(section: &str, key: &str) -> String {
    let (name, kind) = match section {
        "learner (bc)" => ("learner", "kind = \"bc\"\n"),
        "signal.task" => ("signal.task", "kind = \"extrinsic\"\n"),
        other => (other, ""),
    };
    let id = if name == "env" { "id = \"CartPole-v1\"\n" } else { "" };
    let env = if name == "env" { "" } else { "[env]\nid = \"CartPole-v1\"\n" };
    match name {
        "" => format!("{key} = 1\n{env}"),
        _ => format!("{env}[{name}]\n{id}{kind}{key} = 1\n"),
    }
}

#[test]
fn names_of_other_libraries_are_translated() {
    // Where it stands, what it is called there, what the answer says.
    let matrix = [
        // Stable-Baselines3
        ("learner", "n_steps", "`rollout.steps`"),
        ("", "n_steps", "`rollout.steps`"),
        ("rollout", "n_steps", "`rollout.steps`"),
        ("learner", "batch_size", "`learner.minibatch_size`"),
        ("run", "batch_size", "`learner.minibatch_size`"),
        ("learner", "n_epochs", "`learner.epochs`"),
        ("learner (bc)", "n_epochs", "`learner.epochs` goes with kind = \"ppo\""),
        ("learner", "gamma", "`learner.discount`"),
        ("signal.task", "gamma", "`signal.task.discount`"),
        ("run", "gae_lambda", "`learner.gae_lambda`"),
        ("learner", "clip_range", "`learner.clip`"),
        ("learner", "clip_range_vf", "`learner.value_clip`"),
        ("learner", "ent_coef", "`learner.entropy_coefficient`"),
        ("learner (bc)", "ent_coef", "`learner.entropy_coefficient`"),
        ("learner", "vf_coef", "`learner.value_coefficient`"),
        ("learner", "max_grad_norm", "`learner.max_gradient_norm`"),
        ("", "target_kl", "`learner.target_kl`"),
        ("", "learning_rate", "`learner.learning_rate`"),
        ("policy", "policy_kwargs", "torso, hidden, activation, shared, log_std"),
        ("policy", "net_arch", "`policy.hidden`"),
        ("signal.gail", "net_arch", "`signal.gail.hidden`"),
        ("policy", "activation_fn", "`policy.activation`"),
        ("policy", "log_std_init", "`policy.log_std`"),
        ("policy", "ortho_init", "always start orthogonal"),
        ("run", "total_timesteps", "`run.total_steps`"),
        ("learner", "total_timesteps", "`run.total_steps`"),
        ("env", "n_envs", "`rollout.envs`"),
        ("", "seed", "`run.seed`"),
        ("learner", "device", "there is no other device yet"),
        ("learner", "verbose", "--quiet"),
        ("learner", "normalize_advantage", "`learner.normalise_advantage`"),
        ("policy", "normalize_images", "as 0 to 1"),
        ("learner", "use_sde", "not implemented"),
        ("learner", "sde_sample_freq", "not implemented"),
        ("run", "tensorboard_log", "TensorBoard"),
        ("learner", "buffer_size", "`learner.replay_size` goes with kind = \"sac\""),
        // Its Zoo
        ("", "n_timesteps", "`run.total_steps`"),
        ("env", "normalize", "`policy.normalise`"),
        ("env", "env_wrapper", "wrappers"),
        ("env", "n_stack", "`env.frame_stack`"),
        ("env", "frame_skip", "`env.action_repeat`"),
        ("env", "terminal_on_life_loss", "`env.life_as_episode`"),
        ("env", "screen_size", "`env.resize`, both numbers: [height, width]"),
        ("env", "use_fire_reset", "`env.noop_max`"),
        ("env", "env_kwargs", "`env.args`"),
        // CleanRL
        ("run", "num_envs", "`rollout.envs`"),
        ("learner", "num_steps", "`rollout.steps`"),
        ("learner", "num_minibatches", "envs × steps ÷ num_minibatches"),
        ("learner", "update_epochs", "`learner.epochs`"),
        ("learner", "anneal_lr", "`learner.anneal_learning_rate`"),
        ("learner", "norm_adv", "`learner.normalise_advantage`"),
        ("learner", "clip_coef", "`learner.clip`"),
        ("learner", "clip_vloss", "`learner.value_clip`, a distance"),
        ("run", "torch_deterministic", "repeat to the bit"),
        ("run", "cuda", "there is no other device yet"),
        // imitation
        ("signal.gail", "demo_batch_size", "`signal.gail.batch_size`"),
        ("signal.gail", "n_disc_updates_per_round", "`signal.gail.updates_per_round`"),
        ("learner", "n_disc_updates_per_round", "`signal.gail.updates_per_round`"),
        ("signal.gail", "gen_replay_buffer_capacity", "`signal.gail.replay_rollouts`, counted in rollouts"),
        ("signal.gail", "gen_train_timesteps", "`rollout.steps`"),
        ("signal.gail", "demo_minibatch_size", "`signal.gail.batch_size`"),
        ("learner (bc)", "l2_weight", "`learner.weight_decay`"),
        ("signal.gail", "allow_variable_horizon", "the bias"),
        // Nearly another library's name, ours in the wrong place, another spelling of either.
        ("run", "total_timestep", "`run.total_steps`"),
        ("learner", "Clip-Range", "`learner.clip`"),
        ("learner", "total_steps", "`run.total_steps`"),
        ("run", "hidden", "`policy.hidden` or `signal.gail.hidden`"),
        ("learner", "patience", "`learner.patience` goes with kind = \"bc\""),
        ("learner (bc)", "clip", "`learner.clip` goes with kind = \"ppo\""),
        ("signal.task", "demos", "signals of kind = \"gail\" have it"),
        ("", "learning_rat", "`learner.learning_rate`"),
        ("", "environment", "`env`"),
        ("", "signals", "`signal`"),
    ];
    let mut wrong = Vec::new();
    for (section, key, words) in matrix {
        let message = refused(&with_key(section, key), &[]);
        if !message.contains("unknown key; ") || !message.contains(words) {
            wrong.push(format!("{key} in [{section}]: wanted {words}, got {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_foreign_name_is_answered_in_every_section() {
    let sections = [
        "",
        "run",
        "env",
        "rollout",
        "policy",
        "learner",
        "learner (bc)",
        "signal.gail",
        "signal.task",
        "eval",
    ];
    for (name, foreign) in NAMES {
        for section in sections {
            let Err(error) = Recipe::parse("r.toml", &with_key(section, name), &[], None, &[]) else {
                assert!(["batch_size", "minibatch_size"].contains(name), "[{section}] takes `{name}`");
                continue;
            };
            let message = error.to_string();
            let words = match foreign {
                Foreign::Key(key) | Foreign::Differs(key, _) => key.rsplit('.').next().unwrap(),
                Foreign::Not(why) => why,
            };
            assert!(message.contains(words), "`{name}` in [{section}]: {message}");
        }
    }
}

/// What must hold of any text: a recipe that resolves to itself and that the schema takes too, or one clear line.
fn is_clean(text: &str, sets: &[String]) -> Result<(), TestCaseError> {
    match Recipe::parse("r.toml", text, sets, None, &["rightness"]) {
        Ok(recipe) => {
            let written = recipe.to_toml().unwrap();
            let again = Recipe::parse("resolved", &written, &[], None, &["rightness"]);
            let again = again.map_err(|error| TestCaseError::fail(format!("{error:#}\n{written}")))?;
            prop_assert_eq!(&recipe, &again);
            prop_assert_eq!(&written, &again.to_toml().unwrap());
            prop_assert!(is_valid(&written), "the schema refuses\n{}", written);
        }
        Err(error) => {
            let message = format!("{error:#}");
            prop_assert!(!message.contains('\n') && message.len() > 12, "{}", message);
            prop_assert!(message.contains("r.toml") || message.contains("--set"), "{}", message);
            for jargon in ["usize", "u64", "u32", "i64", "f64", "Vec", "variant", "deserialize"] {
                let expected = message.split("found").next().unwrap_or_default();
                prop_assert!(!expected.contains(&format!("expected {jargon}")), "{}", message);
            }
        }
    }
    Ok(())
}

/// Every place in a table: the path of each value, sections among them.
fn places(table: &Table, path: &[String], into: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        let path = [path, std::slice::from_ref(key)].concat();
        if let Value::Table(inner) = value {
            places(inner, &path, into);
        }
        into.push(path);
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        prop_oneof![Just(0), Just(1), Just(-1), Just(i64::MAX), Just(i64::MIN), any::<i64>()]
            .prop_map(Value::Integer),
        prop_oneof![Just(0.0), Just(1.0), Just(f64::NAN), Just(f64::INFINITY), Just(-1e300), any::<f64>()]
            .prop_map(Value::Float),
        any::<bool>().prop_map(Value::Boolean),
        prop_oneof![
            Just("mlp".to_string()),
            Just("gail".into()),
            Just("bc".into()),
            Just(String::new()),
            ".{0,12}"
        ]
        .prop_map(Value::String),
        Just(Value::Datetime("1979-05-27T07:32:00Z".parse().unwrap())),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| Value::Table(map.into_iter().collect())),
        ]
    })
}

/// A key of ours, of another library, or of nobody.
fn key() -> impl Strategy<Value = String> {
    let foreign = NAMES.iter().map(|(name, _)| name.to_string());
    let ours = ["run", "signal", "gail", "kind", "weight", "demos", "hidden", "clip", "from", "to", "args"];
    let names: Vec<String> = foreign.chain(ours.map(String::from)).collect();
    prop_oneof![proptest::sample::select(names), "[a-z_]{1,8}", ".{0,6}"]
}

#[derive(Clone, Debug)]
enum Change {
    Remove,
    Replace(Value),
    Beside(String, Value),
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    let change = prop_oneof![
        Just(Change::Remove),
        value().prop_map(Change::Replace),
        (key(), value()).prop_map(|(key, value)| Change::Beside(key, value)),
    ];
    (any::<prop::sample::Index>(), change)
}

/// `change` done to the value at one place of `root`.
fn changed(root: &mut Table, index: prop::sample::Index, change: Change) {
    let mut all = Vec::new();
    places(root, &[], &mut all);
    if all.is_empty() {
        return;
    }
    let path = index.get(&all);
    let (last, sections) = path.split_last().unwrap();
    let table = sections.iter().fold(root, |table, section| table[section].as_table_mut().unwrap());
    match change {
        Change::Remove => drop(table.remove(last)),
        Change::Replace(value) => drop(table.insert(last.clone(), value)),
        Change::Beside(key, value) => drop(table.insert(key, value)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_changed_recipe_resolves_or_is_refused(
        (name, text) in proptest::sample::select(RECIPES.to_vec()),
        changes in proptest::collection::vec(change(), 0..4),
    ) {
        let mut root: Table = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (index, change) in changes {
            changed(&mut root, index, change);
        }
        is_clean(&toml::to_string(&root).unwrap(), &[])?;
    }

    #[test]
    fn a_damaged_text_resolves_or_is_refused(
        (_, text) in proptest::sample::select(RECIPES.to_vec()),
        at in any::<prop::sample::Index>(),
        length in 0..20usize,
        instead in prop_oneof!["[\\[\\]={}\"'#.,\n a-z0-9-]{0,12}", ".{0,6}"],
    ) {
        let chars: Vec<char> = text.chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        let damaged: String = chars[..start].iter().copied().chain(instead.chars()).chain(chars[end..].iter().copied()).collect();
        is_clean(&damaged, &[])?;
    }

    #[test]
    fn any_text_resolves_or_is_refused(text in "(.|\n){0,200}") {
        is_clean(&text, &[])?;
    }

    #[test]
    fn any_set_resolves_or_is_refused(
        (_, text) in proptest::sample::select(RECIPES.to_vec()),
        section in prop_oneof![Just("run."), Just("learner."), Just("signal.gail."), Just("env.args."), Just("")],
        key in key(),
        value in prop_oneof![value().prop_map(|value| value.to_string()), ".{0,12}"],
    ) {
        is_clean(text, &[format!("{section}{key}={value}")])?;
    }
}

#[test]
fn serde_tells_its_keys() {
    assert_eq!(keys_of::<RolloutConfig>(), ["envs", "steps", "group_size"]);
    assert!(keys_of::<EnvSpec>().contains(&"id".into()));
}
