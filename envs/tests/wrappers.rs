//! Each wrapper against what its original does with the same game, by hand; and all of them together.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::wrappers::{
    ActionRepeat, ActionSet, FrameStack, LifeAsEpisode, NoopStarts, PickedField, Picture, PictureConfig,
    Pictures, ResizeMethod, StickyActions,
};
use imago_envs::{CartPole, Dtype, Env, EnvSpec, Leaf, LeafMut, Pendulum, Registry, Result, Space, Step};
use single::game::{Game, LIFE, SHAPE};
use single::{Rows, Single, seeds, spec};

fn integers(values: &[i64]) -> Vec<toml::Value> {
    values.iter().map(|&x| x.into()).collect()
}

/// The text of an error that must be there.
fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("it should be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn noops_are_1_to_n_by_the_seed() {
    let game = Game::new();
    let log = game.log.clone();
    let mut env = Single::new(NoopStarts::new(game, 7).unwrap());
    let mut counts = Vec::new();
    for seed in 0..200 {
        env.reset(seed).unwrap();
        let taken = Game::logged(&log);
        assert_eq!(taken[0], -1);
        assert!(taken[1..].iter().all(|&action| action == 0));
        // What is shown is the last of them.
        assert_eq!(env.u8(), Game::picture(seed, taken.len() as u64 - 1, 0));
        counts.push(taken.len() - 1);
    }
    for count in 1..=7 {
        let found = counts.iter().filter(|&&found| found == count).count();
        // 200 / 7 = 28.6, standard deviation 4.9.
        assert!((9..=48).contains(&found), "{found} times {count}");
    }
    env.reset(3).unwrap();
    assert_eq!(Game::logged(&log).len() - 1, counts[3], "a function of the seed");
}

#[test]
fn a_game_that_ends_in_its_noops_is_reset_and_the_rest_follows() {
    let game = Game { cut: 2, ..Game::new() };
    let log = game.log.clone();
    let mut env = Single::new(NoopStarts::new(game, 9).unwrap());
    let mut restarted = false;
    for seed in 0..20 {
        env.reset(seed).unwrap();
        let taken = Game::logged(&log);
        let noops = taken.iter().filter(|&&action| action == 0).count();
        // A reset first and one after every second step.
        let expected: Vec<i64> = std::iter::once(-1)
            .chain((1..=noops).flat_map(|t| [0, -1][..1 + usize::from(t % 2 == 0)].to_vec()))
            .collect();
        assert_eq!(taken, expected);
        restarted |= noops > 1 && env.env.env.seed != seed;
    }
    assert!(restarted, "another start, not the same again");
}

#[test]
fn sticky_actions_repeat_the_last_executed_one() {
    let run = |probability: f64, seed: u64, steps: usize| {
        let game = Game::new();
        let log = game.log.clone();
        let mut env = Single::new(StickyActions::new(game, probability).unwrap());
        env.reset(seed).unwrap();
        let chosen: Vec<i64> = (0..steps as i64).map(|t| 1 + t % 3).collect();
        for &action in &chosen {
            env.step(Leaf::I64(&[action])).unwrap();
        }
        let executed = Game::logged(&log)[1..].to_vec();
        let mut previous = 0;
        let mut repeated = 0;
        for (chosen, executed) in chosen.iter().zip(&executed) {
            // Neighbours differ, so a repetition can be told.
            assert!(
                executed == chosen || *executed == previous,
                "{chosen} became {executed} after {previous}"
            );
            repeated += usize::from(executed != chosen);
            previous = *executed;
        }
        (executed, repeated)
    };
    let (_, repeated) = run(0.25, 5, 4000);
    // Of 4,000 about 1,000, less 1 in 64: after three repetitions the action is the chosen one again.
    assert!((850..1120).contains(&repeated), "{repeated} of 4000");
    assert_eq!(run(0.25, 5, 50), run(0.25, 5, 50));
    assert_ne!(run(0.25, 5, 50), run(0.25, 6, 50));
    assert_eq!(run(0.0, 5, 50).1, 0);
    assert_eq!(run(1.0, 5, 50).0, [0; 50], "before the first step lies action 0");
}

#[test]
fn rewards_of_repeated_actions_are_summed_up_to_the_end() {
    let mut env = Single::new(ActionRepeat::new(Game::new(), 4, false).unwrap());
    env.reset(9).unwrap();
    // 1 + 2 + 3 + 4, 5 + … + 8, 9 + … + 12, 13 + 14 + 15 and over.
    for (frame, reward, terminated) in
        [(4, 10.0, false), (8, 26.0, false), (12, 42.0, false), (15, 42.0, true)]
    {
        let step = env.step(Leaf::I64(&[2])).unwrap();
        assert_eq!(step, Step { reward, terminated, truncated: false });
        assert_eq!(env.u8(), Game::picture(9, frame, 2));
    }
}

#[test]
fn the_brighter_of_the_last_two_frames_is_shown() {
    let brighter = |a: Vec<u8>, b: Vec<u8>| a.iter().zip(&b).map(|(a, b)| *a.max(b)).collect::<Vec<u8>>();
    for times in [1, 2, 4] {
        let mut env = Single::new(ActionRepeat::new(Game::new(), times, true).unwrap());
        env.reset(9).unwrap();
        assert_eq!(env.u8(), Game::picture(9, 0, 0));
        let mut frame = 0;
        loop {
            let step = env.step(Leaf::I64(&[2])).unwrap();
            let before = if frame == 0 && times == 1 { Game::picture(9, 0, 0) } else { vec![] };
            frame = (frame + u64::from(times)).min(15);
            let before = if before.is_empty() { Game::picture(9, frame - 1, 2) } else { before };
            assert_eq!(
                env.u8(),
                brighter(before, Game::picture(9, frame, 2)),
                "{times} times, frame {frame}"
            );
            if step.terminated {
                break;
            }
        }
    }
}

#[test]
fn a_lost_life_ends_the_episode_and_not_the_game() {
    for called in ["lives", "life"] {
        let game = Game { called, ..Game::new() };
        let log = game.log.clone();
        let mut env = Single::new(LifeAsEpisode::new(game).unwrap());
        let mut lengths = Vec::new();
        for seed in 0..4 {
            env.reset(seed).unwrap();
            let mut length = 0;
            loop {
                length += 1;
                if env.step(Leaf::I64(&[1])).unwrap().terminated {
                    break;
                }
            }
            lengths.push((length, env.env.info("frame").unwrap() as u64));
        }
        // Going on costs one of a life's frames. The third life's end is the game's.
        assert_eq!(lengths, [(LIFE, 5), (LIFE - 1, 10), (LIFE - 1, 15), (LIFE, 5)], "{called}");
        let resets = Game::logged(&log).iter().filter(|&&action| action == -1).count();
        assert_eq!(resets, 2, "{called}");
    }
}

#[test]
fn a_reset_in_the_middle_of_a_life_begins_a_new_game() {
    let mut env = Single::new(LifeAsEpisode::new(Game::new()).unwrap());
    env.reset(1).unwrap();
    env.step(Leaf::I64(&[1])).unwrap();
    env.reset(2).unwrap();
    assert_eq!(env.u8(), Game::picture(2, 0, 0));
    // A game that ends with the no-op after a lost life is begun anew.
    let mut env = Single::new(LifeAsEpisode::new(Game { cut: LIFE + 1, ..Game::new() }).unwrap());
    env.reset(1).unwrap();
    while !env.step(Leaf::I64(&[1])).unwrap().terminated {}
    env.reset(2).unwrap();
    assert_eq!(env.u8(), Game::picture(2, 0, 0));
    let mut env = Single::new(LifeAsEpisode::new(Game { called: "health", ..Game::new() }).unwrap());
    env.reset(1).unwrap();
    let said = message(env.step(Leaf::I64(&[1])));
    assert_eq!(
        said,
        "environment `Game`: argument `life_as_episode`: its info has neither `lives` nor `life`"
    );
}

#[test]
fn stacks_begin_black_and_are_oldest_first() {
    // Grey planes of the game, by the picture's own tests.
    let config = PictureConfig { grayscale: true, ..Default::default() };
    let grey = |frame| {
        let mut picture = Picture::new("test", &config, SHAPE).unwrap();
        let mut to = vec![0; 48];
        picture.make(&Game::picture(4, frame, if frame == 0 { 0 } else { 3 }), &mut to);
        to
    };
    let mut env = Single::new(FrameStack::new(Pictures::new(Game::new(), &config).unwrap(), 3).unwrap());
    assert_eq!(env.env.observation_space().shape(), [3, 6, 8]);
    for _ in 0..2 {
        env.reset(4).unwrap();
        assert_eq!(env.u8(), [vec![0; 96], grey(0)].concat());
        env.step(Leaf::I64(&[3])).unwrap();
        assert_eq!(env.u8(), [vec![0; 48], grey(0), grey(1)].concat());
        env.step(Leaf::I64(&[3])).unwrap();
        env.step(Leaf::I64(&[3])).unwrap();
        assert_eq!(env.u8(), [grey(1), grey(2), grey(3)].concat());
    }
}

#[test]
fn vectors_are_stacked_one_after_another() {
    let mut alone = Single::new(CartPole::new(false));
    let mut env = Single::new(FrameStack::new(CartPole::new(false), 2).unwrap());
    assert_eq!(env.env.observation_space().shape(), [8]);
    alone.reset(1).unwrap();
    env.reset(1).unwrap();
    let first = alone.f32().to_vec();
    assert_eq!(env.f32(), [vec![0.0; 4], first.clone()].concat());
    alone.step(Leaf::I64(&[1])).unwrap();
    env.step(Leaf::I64(&[1])).unwrap();
    assert_eq!(env.f32(), [first, alone.f32().to_vec()].concat());
}

#[test]
fn colours_are_stacked_as_planes() {
    let mut registry = Registry::default();
    registry.register("Game", "", None, |_| Ok(Game::new()));
    let mut env =
        Single::new(registry.make(&EnvSpec { frame_stack: Some(2), ..EnvSpec::new("Game") }).unwrap());
    assert_eq!(env.env.observation_space().shape(), [6, 6, 8]);
    env.reset(4).unwrap();
    let picture = Game::picture(4, 0, 0);
    let plane = |colour| picture.iter().skip(colour).step_by(3).copied().collect::<Vec<u8>>();
    assert_eq!(env.u8(), [vec![0; 144], plane(0), plane(1), plane(2)].concat());
}

/// Shows the action that it was given; every kind of action.
struct Echo(Space, Space);

impl Echo {
    fn new(action: Space) -> Self {
        Self(Space::floats(&[action.len()], -9.0, 9.0), action)
    }
}

impl Env for Echo {
    fn id(&self) -> &str {
        "Echo"
    }
    fn observation_space(&self) -> &Space {
        &self.0
    }
    fn action_space(&self) -> &Space {
        &self.1
    }
    fn reset(&mut self, _: u64, mut observation: LeafMut) -> Result<()> {
        observation.f32().fill(0.0);
        Ok(())
    }
    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        for (i, to) in observation.f32().iter_mut().enumerate() {
            *to = match action {
                Leaf::F32(values) => values[i],
                Leaf::U8(values) => values[i].into(),
                Leaf::I64(values) => values[i] as f32,
            };
        }
        Ok(Step::default())
    }
    /// Of each choice the last is forbidden, each switch must be off.
    fn action_mask(&self, mask: &mut [bool]) -> bool {
        match &self.1 {
            Space::MultiDiscrete { n, .. } => {
                let mut first = 0;
                mask.fill(true);
                for &n in n {
                    first += n as usize;
                    mask[first - 1] = false;
                }
            }
            Space::MultiBinary { .. } => mask.iter_mut().enumerate().for_each(|(i, m)| *m = i % 2 == 0),
            _ => return false,
        }
        true
    }
}

#[test]
fn sets_of_actions_are_those_of_every_kind_of_space() {
    let several =
        |text: &str| -> Vec<toml::Value> { text.parse::<toml::Value>().unwrap().as_array().unwrap().clone() };
    let discrete = Space::Discrete { n: 5, start: 10 };
    let multi = Space::MultiDiscrete { shape: vec![2], n: vec![3, 4], start: vec![0, 1] };
    // Space, actions, what the environment gets, what is left of its mask.
    type Case<'a> = (Space, &'a str, &'a [&'a [f32]], Option<&'a [bool]>);
    let cases: [Case; 4] = [
        // Stored as offsets from `start`.
        (discrete.clone(), "[12, 10, [14]]", &[&[2.0], &[0.0], &[4.0]], None),
        (
            multi.clone(),
            "[[0, 1], [2, 1], [1, 4]]",
            &[&[0.0, 0.0], &[2.0, 0.0], &[1.0, 3.0]],
            Some(&[true, false, false]),
        ),
        (Space::multi_binary(&[2]), "[[0, 0], [1, 0]]", &[&[0.0, 0.0], &[1.0, 0.0]], Some(&[true, false])),
        (Space::floats(&[2], -1.0, 1.0), "[[0, 0.5], [-1, 1]]", &[&[0.0, 0.5], &[-1.0, 1.0]], None),
    ];
    for (space, actions, expected, mask) in cases {
        let mut env = Single::new(ActionSet::new(Echo::new(space), &several(actions)).unwrap());
        assert_eq!(env.env.action_space(), &Space::discrete(expected.len() as i64));
        env.reset(0).unwrap();
        for (i, expected) in expected.iter().enumerate() {
            env.step(Leaf::I64(&[i as i64])).unwrap();
            assert_eq!(env.f32(), *expected);
        }
        let mut found = vec![true; expected.len()];
        assert_eq!(env.env.action_mask(&mut found), mask.is_some());
        if let Some(mask) = mask {
            assert_eq!(found, mask);
        }
        assert!(message(env.step(Leaf::I64(&[9]))).contains("it was given the action 9, not one of 0 to"));
    }
    let refused =
        |space: &Space, actions: &str| message(ActionSet::new(Echo::new(space.clone()), &several(actions)));
    assert_eq!(
        refused(&discrete, "[10, 9]"),
        "environment `Echo`: argument `actions`: number 1, 9, is no action of Discrete(5, start 10)"
    );
    for (space, actions) in [
        (&discrete, "[15]"),
        (&discrete, "[10.5]"),
        (&discrete, "[[10, 11]]"),
        (&discrete, "[\"up\"]"),
        (&multi, "[[0, 0]]"),
        (&multi, "[1]"),
        (&Space::multi_binary(&[2]), "[[0, 2]]"),
        (&Space::floats(&[1], -1.0, 1.0), "[1.5]"),
        (&Space::floats(&[1], -1.0, f64::INFINITY), "[inf]"),
    ] {
        assert!(refused(space, actions).contains("is no action of"), "{actions}");
    }
    assert!(refused(&discrete, "[]").contains("at least one action"));
}

#[test]
fn masks_go_through_a_set_of_actions() {
    let mut env = Single::new(ActionSet::new(Game::new(), &integers(&[0, 3, 3])).unwrap());
    env.reset(0).unwrap();
    let mut mask = [true; 3];
    assert!(env.env.action_mask(&mut mask));
    // The game forbids its last action: 0 at first, then 3.
    assert_eq!(mask, [false, true, true]);
    env.step(Leaf::I64(&[1])).unwrap();
    assert!(env.env.action_mask(&mut mask));
    assert_eq!(mask, [true, false, false]);
}

/// Shows a picture and a number.
struct Two(Space, Game);

impl Env for Two {
    fn id(&self) -> &str {
        "Two"
    }
    fn observation_space(&self) -> &Space {
        &self.0
    }
    fn action_space(&self) -> &Space {
        self.1.action_space()
    }
    fn reset(&mut self, seed: u64, mut observation: LeafMut) -> Result<()> {
        observation.field(&self.0, "speed").f32()[0] = 0.5;
        self.1.reset(seed, observation.field(&self.0, "screen"))
    }
    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        observation.field(&self.0, "speed").f32()[0] = 1.5;
        self.1.step(action, observation.field(&self.0, "screen"))
    }
}

impl Two {
    fn new() -> Self {
        let game = Game::new();
        let fields = [("speed", Space::floats(&[1], 0.0, 9.0)), ("screen", game.observation_space().clone())];
        Self(Space::fields(fields).unwrap(), game)
    }
}

#[test]
fn one_field_is_picked() {
    let mut env = Single::new(PickedField::new(Two::new(), "screen").unwrap());
    env.reset(4).unwrap();
    assert_eq!(env.u8(), Game::picture(4, 0, 0));
    env.step(Leaf::I64(&[1])).unwrap();
    assert_eq!(env.u8(), Game::picture(4, 1, 1));
    let mut env = Single::new(PickedField::new(Two::new(), "speed").unwrap());
    env.reset(4).unwrap();
    env.step(Leaf::I64(&[1])).unwrap();
    assert_eq!(env.f32(), [1.5]);
    assert_eq!(
        message(PickedField::new(Two::new(), "scren")),
        "environment `Two`: argument `observation`: there is no field `scren`; there are `speed`, `screen`"
    );
    assert!(message(PickedField::new(Game::new(), "screen")).contains("have no fields"));
}

/// Every wrapper, and what they come to.
fn everything() -> EnvSpec {
    EnvSpec {
        actions: Some(integers(&[0, 2, 3])),
        noop_max: Some(3),
        sticky_actions: Some(0.3),
        action_repeat: Some(2),
        repeat_max: true,
        life_as_episode: true,
        crop: Some([1, 0, 0, 2]),
        grayscale: true,
        resize: Some([3, 4]),
        resize_method: Some(ResizeMethod::Bilinear),
        frame_stack: Some(2),
        time_limit: Some(5),
        ..EnvSpec::new("Game")
    }
}

fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.register("Game", "three lives", Some(1000), |_| Ok(Game::new()));
    registry.register("Two", "a picture and a number", None, |_| Ok(Two::new()));
    registry
}

#[test]
fn all_wrappers_come_back_in_the_middle_of_an_episode() {
    let make = |spec: &EnvSpec| Single::new(registry().make(spec).unwrap());
    let record = |env: &mut Single<Box<dyn Env>>, from: u64| {
        let mut seen = Vec::new();
        for t in from..from + 40 {
            let step = env.step(Leaf::I64(&[t as i64 % 3])).unwrap();
            seen.push((env.u8().to_vec(), step.reward, step.terminated, step.truncated));
            if step.terminated || step.truncated {
                env.reset(t).unwrap();
                seen.push((env.u8().to_vec(), 0.0, false, false));
            }
        }
        seen
    };
    // The whole stack, and each alone.
    let plain = EnvSpec::new("Game");
    let specs = [
        everything(),
        EnvSpec { actions: Some(integers(&[0, 2, 3])), ..plain.clone() },
        EnvSpec { noop_max: Some(3), ..plain.clone() },
        EnvSpec { sticky_actions: Some(0.5), ..plain.clone() },
        EnvSpec { action_repeat: Some(3), ..plain.clone() },
        EnvSpec { action_repeat: Some(1), repeat_max: true, ..plain.clone() },
        EnvSpec { life_as_episode: true, ..plain.clone() },
        EnvSpec { grayscale: true, ..plain.clone() },
        EnvSpec { frame_stack: Some(3), ..plain.clone() },
    ];
    for spec in specs {
        for steps in [0, 1, 2, 4, 5, 7, 13] {
            let mut first = make(&spec);
            first.reset(77).unwrap();
            for t in 0..steps {
                let step = first.step(Leaf::I64(&[t as i64 % 3])).unwrap();
                // Once before the reset that follows an end: a group is saved after it, but nobody says so.
                if (step.terminated || step.truncated) && t + 1 < steps {
                    first.reset(t).unwrap();
                }
            }
            let saved = first.env.save().unwrap();
            let mut second = make(&spec);
            second.env.load(&saved).unwrap();
            assert_eq!(second.env.save().unwrap(), saved);
            assert_eq!(record(&mut first, steps), record(&mut second, steps), "{spec:?} after {steps}");
        }
    }
}

#[test]
fn wrong_saved_actions_and_lives_are_refused() {
    let saved = |action: i64, lost: u8| {
        let sticky = [0u64.to_le_bytes(), 0u64.to_le_bytes(), action.to_le_bytes()].concat();
        (sticky, [3f64.to_le_bytes().as_slice(), &[lost]].concat())
    };
    let mut sticky = StickyActions::new(Game::new(), 0.2).unwrap();
    let said = message(sticky.load(&saved(4, 0).0));
    assert!(said.contains("the last action has the choice 4, not one of 0 to 3"), "{said}");
    let mut life = LifeAsEpisode::new(Game::new()).unwrap();
    assert!(message(life.load(&saved(0, 2).1)).contains("0 or 1, not 2"));
}

#[test]
fn the_order_is_that_of_the_originals() {
    // One decision of everything is two frames, each with its own sticky draw, then one small picture.
    let registry = registry();
    let mut env = Single::new(registry.make(&everything()).unwrap());
    assert_eq!(env.env.observation_space().shape(), [2, 3, 4]);
    assert_eq!(env.env.observation_space().dtype(), Dtype::U8);
    assert_eq!(env.env.action_space(), &Space::discrete(3));
    env.reset(1).unwrap();
    let begun = env.env.info("frame").unwrap();
    assert!((1.0..=3.0).contains(&begun), "the no-ops are frames: {begun}");
    env.step(Leaf::I64(&[1])).unwrap();
    assert_eq!(env.env.info("frame").unwrap(), begun + 2.0);
    assert_eq!(env.env.info("score"), None);
    // By hand: the picture is made of the brighter of the last two frames.
    let mut by_hand = Picture::new(
        "test",
        &PictureConfig {
            crop: Some([1, 0, 0, 2]),
            grayscale: true,
            resize: Some([3, 4]),
            method: ResizeMethod::Bilinear,
        },
        SHAPE,
    )
    .unwrap();
    let spec = EnvSpec { sticky_actions: None, noop_max: None, ..everything() };
    let mut env = Single::new(registry.make(&spec).unwrap());
    env.reset(1).unwrap();
    env.step(Leaf::I64(&[1])).unwrap();
    let brighter: Vec<u8> =
        Game::picture(1, 1, 2).iter().zip(&Game::picture(1, 2, 2)).map(|(a, b)| *a.max(b)).collect();
    let (mut first, mut second) = (vec![0; 12], vec![0; 12]);
    by_hand.make(&Game::picture(1, 0, 0), &mut first);
    by_hand.make(&brighter, &mut second);
    assert_eq!(env.u8(), [first, second].concat());
}

#[test]
fn groups_are_wrapped_as_single_ones_are() {
    let registry = registry();
    let mut group = registry.make_group(&everything(), 2).unwrap();
    let mut rows = Rows::new(group.as_ref());
    let mut alone: Vec<_> = (0..2).map(|_| Single::new(registry.make(&everything()).unwrap())).collect();
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    let mut episode = [0; 2];
    for (i, env) in alone.iter_mut().enumerate() {
        env.reset(seeds(i, 0)).unwrap();
    }
    for t in 0..60i64 {
        let action = [t % 3, (t + 1) % 3];
        rows.step(group.as_mut(), Leaf::I64(&action)).unwrap();
        for (i, env) in alone.iter_mut().enumerate() {
            let step = env.step(Leaf::I64(&action[i..=i])).unwrap();
            assert_eq!(
                (rows.reward[i], rows.terminated[i], rows.truncated[i]),
                (step.reward as f32, step.terminated, step.truncated)
            );
            if step.terminated || step.truncated {
                episode[i] += 1;
                env.reset(seeds(i, episode[i])).unwrap();
            }
            assert_eq!(rows.observation.leaf().part(i, 24), env.observation.leaf());
        }
    }
    assert!(episode[0] > 5);
}

#[test]
fn a_recipes_limit_counts_decisions_the_environments_own_its_steps() {
    let length = |spec: &EnvSpec| {
        let mut env = Single::new(Registry::builtin().make(spec).unwrap());
        env.reset(0).unwrap();
        1 + (0..).take_while(|_| !env.step(Leaf::I64(&[1])).unwrap().truncated).count()
    };
    // seals/MountainCar-v0 has 200 steps, whatever happens.
    let own = spec("seals/MountainCar-v0", "", None);
    assert_eq!(length(&EnvSpec { action_repeat: Some(4), ..own.clone() }), 50);
    assert_eq!(length(&EnvSpec { action_repeat: Some(4), time_limit: Some(80), ..own }), 80);
    let gym = spec("gym:MountainCar-v0", "", None);
    assert_eq!(length(&EnvSpec { action_repeat: Some(4), ..gym.clone() }), 50);
    assert_eq!(length(&EnvSpec { action_repeat: Some(4), time_limit: Some(80), ..gym }), 80);
}

#[test]
fn settings_that_do_not_fit_are_refused_with_their_key() {
    let refused = |spec: EnvSpec| {
        let one = message(registry().make(&spec));
        assert_eq!(one, message(registry().make_group(&spec, 2)));
        one
    };
    let (game, pole, two) = (EnvSpec::new("Game"), EnvSpec::new("CartPole-v1"), EnvSpec::new("Two"));
    for (spec, expected) in [
        (EnvSpec { noop_max: Some(0), ..game.clone() }, "`noop_max`: expected at least 1 step"),
        (
            EnvSpec { sticky_actions: Some(1.1), ..game.clone() },
            "`sticky_actions`: expected a probability in [0, 1], found 1.1",
        ),
        (EnvSpec { sticky_actions: Some(f64::NAN), ..game.clone() }, "`sticky_actions`"),
        (EnvSpec { action_repeat: Some(0), ..game.clone() }, "`action_repeat`: expected at least 1 frame"),
        (EnvSpec { repeat_max: true, ..game.clone() }, "`repeat_max`: it needs `action_repeat`"),
        (
            EnvSpec { repeat_max: true, action_repeat: Some(4), ..pole.clone() },
            "`repeat_max`: it needs a picture of bytes, not Box([4], float32",
        ),
        (
            EnvSpec { repeat_max: true, action_repeat: Some(4), ..two.clone() },
            "pick one field with `observation`",
        ),
        (
            EnvSpec { crop: Some([6, 0, 0, 0]), ..game.clone() },
            "`crop`: [top, bottom, left, right] = [6, 0, 0, 0] leaves nothing of 6 × 8 pixels",
        ),
        (EnvSpec { grayscale: true, ..pole.clone() }, "`grayscale`: it needs a picture of bytes"),
        (
            EnvSpec { grayscale: true, ..two.clone() },
            "`grayscale`: it needs a picture of bytes, [height, width] or [height, width, colours], not {speed",
        ),
        (
            EnvSpec { resize: Some([42, 42]), ..game.clone() },
            "`resize`: [42, 42] is larger than the picture of 6 × 8",
        ),
        (
            EnvSpec { resize_method: Some(ResizeMethod::Area), ..game.clone() },
            "`resize_method`: it needs `resize`",
        ),
        (EnvSpec { frame_stack: Some(0), ..game.clone() }, "`frame_stack`: expected 1 to 64"),
        (EnvSpec { frame_stack: Some(4), ..two.clone() }, "`frame_stack`: only observations of one box"),
        (
            EnvSpec { observation: Some("image".into()), ..game.clone() },
            "`observation`: its observations have no fields",
        ),
        (
            EnvSpec { actions: Some(integers(&[0, 4])), ..game.clone() },
            "`actions`: number 1, 4, is no action of Discrete(4)",
        ),
        (EnvSpec { time_limit: Some(0), frame_stack: Some(2), ..game }, "`time_limit`"),
    ] {
        let said = refused(spec);
        assert!(said.contains(expected), "{said}");
    }
    // Nothing that does nothing: a torque between 1 and 2.
    let high = Echo::new(Space::floats(&[1], 1.0, 2.0));
    assert!(message(NoopStarts::new(high, 3)).contains("value 0 of its actions cannot be 0"));
}

#[test]
fn vizdooms_way_to_a_stack_is_open() {
    let spec = EnvSpec {
        observation: Some("screen".into()),
        action_repeat: Some(4),
        repeat_max: true,
        grayscale: true,
        resize: Some([3, 4]),
        frame_stack: Some(4),
        ..EnvSpec::new("Two")
    };
    assert_eq!(registry().make(&spec).unwrap().observation_space().shape(), [4, 3, 4]);
}

#[test]
fn recipes_of_before_read_as_before() {
    assert_eq!(EnvSpec::new("CartPole-v1"), toml::from_str("id = \"CartPole-v1\"").unwrap());
    assert_eq!(toml::to_string(&EnvSpec::new("CartPole-v1")).unwrap(), "id = \"CartPole-v1\"\n");
    let whole = everything();
    let text = toml::to_string(&whole).unwrap();
    assert_eq!(toml::from_str::<EnvSpec>(&text).unwrap(), whole);
    let json = serde_json::to_string(&whole).unwrap();
    assert_eq!(serde_json::from_str::<EnvSpec>(&json).unwrap(), whole);
}

#[test]
fn keys_follow_a_name_like_arguments() {
    let expected = EnvSpec {
        args: "frameskip = 1\ncrop = 3".parse().unwrap(),
        grayscale: true,
        resize: Some([42, 42]),
        resize_method: Some(ResizeMethod::Bilinear),
        actions: Some(integers(&[0, 2])),
        time_limit: Some(9),
        ..EnvSpec::new("gym:ALE/Pong-v5")
    };
    let text = "gym:ALE/Pong-v5?grayscale=true&frameskip=1&resize=[42,42]&resize_method=bilinear&actions=[0,2]\
                &time_limit=9&args.crop=3";
    assert_eq!(EnvSpec::parse(text).unwrap(), expected);
    let said = message(EnvSpec::parse("X?a=1&resize=42"));
    assert!(said.starts_with("environment `X`: argument `resize`: "), "{said}");
    assert!(message(EnvSpec::parse("X?resize_method=cubic")).contains("argument `resize_method`"));
    let known = serde_json::to_value(schemars::schema_for!(EnvSpec)).unwrap();
    for key in
        known["properties"].as_object().unwrap().keys().filter(|key| !["id", "args"].contains(&key.as_str()))
    {
        // Read as a key, a table is refused; as an argument it would be taken.
        assert!(EnvSpec::parse(&format!("X?{key}={{a=1}}")).is_err(), "`{key}` is taken for an argument");
    }
}

#[test]
fn continuous_actions_stick_and_repeat() {
    let mut env = Single::new(
        StickyActions::new(ActionRepeat::new(Pendulum::new(10.0), 3, false).unwrap(), 0.0).unwrap(),
    );
    let mut alone = Single::new(Pendulum::new(10.0));
    env.reset(2).unwrap();
    alone.reset(2).unwrap();
    let step = env.step(Leaf::F32(&[1.5])).unwrap();
    let reward: f64 = (0..3).map(|_| alone.step(Leaf::F32(&[1.5])).unwrap().reward).sum();
    assert_eq!((step.reward, env.observation), (reward, alone.observation));
}
