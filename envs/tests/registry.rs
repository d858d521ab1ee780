//! Environments by name, and what is said about wrong names and arguments.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{CartPole, EnvSpec, Leaf, ROBOTS, Registry};
use single::{Rows, seeds, spec};

fn refusal(id: &str, args: &str, time_limit: Option<u32>) -> String {
    let registry = Registry::builtin();
    let spec = spec(id, args, time_limit);
    let message = registry.make(&spec).err().unwrap().to_string();
    assert_eq!(message, registry.make_group(&spec, 2).err().unwrap().to_string());
    message
}

#[test]
fn lists_what_it_has() {
    let registry = Registry::builtin();
    let (python, ids): (Vec<_>, Vec<_>) =
        registry.ids().map(|(id, _)| id).partition(|id| registry.is_python(id));
    let known = [
        "Acrobot-v0",
        "Acrobot-v1",
        "CartPole-v0",
        "CartPole-v1",
        "MountainCar-v0",
        "MountainCarContinuous-v0",
        "Orchard-v0",
        "Pendulum-v1",
        "Rooms-v0",
        "TMaze-v0",
        "seals/CartPole-v0",
        "seals/MountainCar-v0",
    ];
    let (robots, ids): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| registry.extra(id).is_some());
    assert_eq!(ids, known);
    assert_eq!(robots, ROBOTS.each_ref().map(|robot| robot.id));
    assert!(robots.iter().chain(&ids).all(|id| registry.is_builtin(id)));
    assert!(robots.iter().all(|id| registry.extra(id) == Some("mujoco")));
    // Four of Doom, and eight worlds of four levels; each says what it needs.
    assert_eq!(python.len(), 4 + 8 * 4, "{python:?}");
    assert!(python.contains(&"Doom") && python.contains(&"DoomMyWayHome-very-sparse"));
    assert!(python.contains(&"SuperMarioBros-1-1") && python.contains(&"SuperMarioBros-8-4"));
    assert!(python.iter().all(|id| !registry.is_builtin(id) && registry.extra(id).is_some()));
    assert!(registry.ids().all(|(_, description)| !description.is_empty()));
}

#[test]
fn presets_are_filled_in_and_the_users_keys_win() {
    let mut registry = Registry::builtin();
    let heavy =
        EnvSpec { time_limit: Some(7), path: Some("here".into()), ..spec("Pendulum-v1", "g = 20.0", None) };
    registry.preset("Heavy", "a pendulum on a large planet", heavy);
    registry.preset("Heavier", "on a larger one", spec("Heavy", "g = 40.0", None));
    let filled = registry.resolve(&EnvSpec::new("Heavier"));
    assert_eq!(
        filled.to_owned(),
        EnvSpec { path: Some("here".into()), ..spec("Pendulum-v1", "g = 40.0", Some(7)) }
    );
    let own = EnvSpec { path: Some("there".into()), ..spec("Heavier", "g = 1.0\nother = true", Some(3)) };
    let filled = registry.resolve(&own);
    let expected = spec("Pendulum-v1", "g = 1.0\nother = true", Some(3));
    assert_eq!(filled, EnvSpec { path: Some("there".into()), ..expected });
    // What is no preset stays what it is.
    assert_eq!(registry.resolve(&spec("gym:X-v0", "a = 1", None)), spec("gym:X-v0", "a = 1", None));
    assert!(
        registry.is_python("DoomMyWayHome-sparse")
            && registry.is_python("vec:X")
            && !registry.is_python("Heavy")
    );

    let mut group = registry.make_group(&EnvSpec::new("Heavier"), 1).unwrap();
    let mut rows = Rows::new(group.as_ref());
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    let ends = (1..=7).filter(|_| {
        rows.step(group.as_mut(), Leaf::F32(&[0.0])).unwrap();
        rows.truncated[0]
    });
    assert_eq!(ends.count(), 1, "the limit is 7");
    assert!(rows.truncated[0]);
    let refused = registry.make(&spec("Heavy", "mass = 1", None)).err().unwrap().to_string();
    assert!(refused.contains("argument `mass`: unknown"), "{refused}");

    // In a circle there is no environment.
    registry.preset("One", "", EnvSpec::new("Other"));
    registry.preset("Other", "", EnvSpec::new("One"));
    assert!(
        registry.make(&EnvSpec::new("One")).err().unwrap().to_string().starts_with("unknown environment `O")
    );
}

#[test]
fn names_the_nearest_environment() {
    let help = "`imago envs list` shows those with names of their own, `gym:ID` opens any registered Gymnasium environment";
    for (id, hint) in [
        ("cartpole", "; did you mean `CartPole-v1`?"),
        (
            "Acrobot-v2",
            "; did you mean `Acrobot-v1`?; if it is a Gymnasium environment, write `gym:Acrobot-v2`",
        ),
        ("LunarLander-v3", "; if it is a Gymnasium environment, write `gym:LunarLander-v3`"),
        ("zzz", ""),
    ] {
        assert_eq!(refusal(id, "", None), format!("unknown environment `{id}`{hint}; {help}"));
    }
}

#[test]
fn names_the_arguments_there_are() {
    assert_eq!(
        refusal("Pendulum-v1", "gravity = 9.81", None),
        "environment `Pendulum-v1`: argument `gravity`: unknown; this environment takes `g`"
    );
    assert_eq!(
        refusal("Pendulum-v1", "g = \"heavy\"", None),
        "environment `Pendulum-v1`: argument `g`: expected a number, found \"heavy\" (string); \
         this environment takes `g`"
    );
    assert_eq!(
        refusal("Pendulum-v1", "g = nan", None),
        "environment `Pendulum-v1`: argument `g`: expected a finite number, found NaN; this environment takes `g`"
    );
    assert_eq!(
        refusal("CartPole-v1", "sutton_barto_reward = 1", None),
        "environment `CartPole-v1`: argument `sutton_barto_reward`: expected true or false, found 1 (integer); \
         this environment takes `sutton_barto_reward`"
    );
    assert_eq!(
        refusal("seals/CartPole-v0", "g = 1", None),
        "environment `seals/CartPole-v0`: argument `g`: unknown; this environment takes no arguments"
    );
    for (id, args, takes) in [
        ("Acrobot-v0", "g = 1", "no arguments"),
        ("CartPole-v0", "g = 1", "`sutton_barto_reward`"),
        ("seals/MountainCar-v0", "g = 1", "`goal_velocity`"),
        ("TMaze-v0", "g = 1", "`length`"),
        ("MountainCarContinuous-v0", "g = 1", "`goal_velocity`"),
    ] {
        let expected = format!("environment `{id}`: argument `g`: unknown; this environment takes {takes}");
        assert_eq!(refusal(id, args, None), expected);
    }
    assert!(Registry::builtin().make(&spec("Pendulum-v1", "g = 9", None)).is_ok());
    assert!(Registry::builtin().make(&spec("MountainCar-v0", "goal_velocity = 0.01", None)).is_ok());
}

#[test]
fn refuses_empty_limits_and_groups() {
    for id in ["CartPole-v1", "gym:CartPole-v1"] {
        assert_eq!(
            refusal(id, "", Some(0)),
            format!(
                "environment `{id}`: argument `time_limit`: expected at least 1 step, found 0; \
                 leave it out for the environment's own limit"
            )
        );
    }
    let message =
        Registry::builtin().make_group(&spec("CartPole-v1", "", None), 0).err().unwrap().to_string();
    assert_eq!(message, "environment `CartPole-v1`: argument `count`: a group has at least one environment");
}

#[test]
fn takes_a_users_environment_and_crosses_threads() {
    let mut registry = Registry::builtin();
    registry.register("Endless", "no limit at all", None, |_| Ok(imago_envs::SealsCartPole::new()));
    registry.register("Short", "CartPole with three steps", Some(3), CartPole::from_args);
    let registry = std::sync::Arc::new(registry);
    for (id, ends) in [("Endless", 0), ("Short", 200)] {
        let registry = registry.clone();
        let found = std::thread::spawn(move || {
            let mut group = registry.make_group(&spec(id, "", None), 1).unwrap();
            let mut rows = Rows::new(group.as_ref());
            group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
            let mut ends = 0;
            for _ in 0..600 {
                rows.step(group.as_mut(), Leaf::I64(&[0])).unwrap();
                ends += rows.finals.len();
            }
            ends
        });
        assert_eq!(found.join().unwrap(), ends, "{id}");
    }
}

#[test]
#[should_panic(expected = "belong to Gymnasium")]
fn gymnasiums_names_cannot_be_taken() {
    Registry::default().register("gym:Mine-v0", "", None, CartPole::from_args);
}

#[test]
#[should_panic(expected = "belong to Gymnasium")]
fn nor_by_presets() {
    Registry::default().preset("vec:Mine-v0", "", EnvSpec::new("CartPole-v1"));
}
