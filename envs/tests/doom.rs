//! Doom: where episodes begin, what the buttons do, how they end. Skipped without the extra `doom`.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{EnvSpec, Leaf, Registry, Space};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use single::{Single, lacks, spec};

/// x, y and angle (degrees) that episodes of `count` seeds begin with.
fn beginnings(start: &str, count: u64) -> Vec<[f64; 3]> {
    Registry::builtin().make(&EnvSpec::new("Doom")).unwrap();
    Python::attach(|py| {
        let keywords = PyDict::new(py);
        keywords.set_item("start", start).unwrap();
        let gymnasium = py.import("gymnasium").unwrap();
        let env = gymnasium.call_method("make", ("imago/Doom-v0",), Some(&keywords)).unwrap();
        let seen = (0..count).map(|seed| {
            let keywords = PyDict::new(py);
            keywords.set_item("seed", seed).unwrap();
            let info = env.call_method("reset", (), Some(&keywords)).unwrap().get_item(1).unwrap();
            ["x", "y", "angle"].map(|name| info.get_item(name).unwrap().extract().unwrap())
        });
        let seen = seen.collect();
        env.call_method0("close").unwrap();
        seen
    })
}

fn different<T: Ord>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<std::collections::BTreeSet<_>>().len()
}

/// Processes whose parent is this one and that are called `vizdoom`.
fn engines() -> usize {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
    processes
        .filter_map(stat)
        // "pid (name) state parent …"
        .filter(|stat| stat.contains("(vizdoom)") && stat.split(' ').nth(3) == Some(&own))
        .count()
}

/// Spots 10 to 26 of the map, read off its TEXTMAP.
const SPOTS: [[f64; 2]; 17] = [
    [240.0, -176.0],
    [464.0, -176.0],
    [470.0, -322.0],
    [467.0, -467.0],
    [460.0, -596.0],
    [544.0, -672.0],
    [575.0, -172.0],
    [687.0, -173.0],
    [687.0, -62.0],
    [464.0, -60.0],
    [460.0, 56.0],
    [572.0, 55.0],
    [694.0, 58.0],
    [871.0, 55.0],
    [1043.0, 60.0],
    [1040.0, -62.0],
    [1039.0, -170.0],
];

/// Pathak et al. 2017: spot 10 facing 0 to 0.01 turns, spot 15 facing 0.49 to 0.51 turns, or any spot and angle.
/// One test: engines of several tests at once would be counted together.
#[test]
fn doom() {
    if lacks("doom") {
        return;
    }
    let near = |seen: &[f64; 3], spot: &[f64; 2]| (seen[0] - spot[0]).hypot(seen[1] - spot[1]) < 1.0;

    let sparse = beginnings("sparse", 12);
    assert!(sparse.iter().all(|seen| near(seen, &SPOTS[0]) && (0.0..=3.6).contains(&seen[2])), "{sparse:?}");
    assert!(different(sparse.iter().map(|seen| seen[2].to_bits())) > 6, "{sparse:?}");
    let very = beginnings("very-sparse", 24);
    assert!(very.iter().all(|seen| near(seen, &SPOTS[5]) && (176.4..=183.6).contains(&seen[2])), "{very:?}");
    let angles = || very.iter().map(|seen| (seen[2] - 180.0).round() as i32);
    // 24 draws of five angles, one of them straight west, on both sides of it.
    assert!(different(angles()) >= 3 && angles().any(|x| x < 0) && angles().any(|x| x > 0), "{very:?}");
    let dense = beginnings("random", 48);
    assert!(dense.iter().all(|seen| SPOTS.iter().any(|spot| near(seen, spot))), "{dense:?}");
    let spots = dense.iter().map(|seen| SPOTS.iter().position(|spot| near(seen, spot)));
    // 48 draws of 17 leave 0.9 out in the mean.
    assert!(different(spots) > 12, "{dense:?}");
    assert!(different(dense.iter().map(|seen| (seen[2] / 90.0) as i32)) == 4, "{dense:?}");
    assert_eq!(engines(), 0, "closed environments left their engines");

    episodes_end_at_the_timeout_with_a_picture();
    what_the_buttons_do();
    the_brighter_of_two_frames();
    noise_hides_rows_and_squares_are_counted();
    scenarios_of_the_user();
    assert_eq!(engines(), 0);
}

fn episodes_end_at_the_timeout_with_a_picture() {
    let registry = Registry::builtin();
    let mut env = Single::new(registry.make(&EnvSpec::new("DoomMyWayHome-sparse")).unwrap());
    assert_eq!(env.env.observation_space().to_string(), "Box([4, 42, 42], uint8, 0 to 255)");
    assert_eq!(env.env.action_space(), &Space::discrete(4));
    env.reset(3).unwrap();
    assert_eq!(engines(), 1);
    let first = env.observation.clone();
    let (mut total, mut length) = (0.0, 0);
    loop {
        let step = env.step(Leaf::I64(&[0])).unwrap();
        (total, length) = (total + step.reward, length + 1);
        // The engine gives no picture at the end; nobody sees black.
        assert!(env.observation.leaf().u8().iter().any(|&x| x > 50), "black at {length}");
        if step.terminated || step.truncated {
            assert!(step.truncated && !step.terminated);
            break;
        }
    }
    // 2,100 tics of 4 a decision, each at −0.0001.
    assert_eq!(length, 525);
    assert!((total + 0.21).abs() < 1e-9, "{total}");
    env.reset(3).unwrap();
    assert_eq!(env.observation, first, "the same seed in the same instance");
    drop(env);
    assert_eq!(engines(), 0, "a dropped environment left its engine");
    // As wanted: another timeout and reward.
    let mut env = Single::new(
        registry.make(&spec("DoomMyWayHome-sparse", "living_reward = 0.0\ntimeout = 50", None)).unwrap(),
    );
    env.reset(0).unwrap();
    let rewards: Vec<f64> = (0..13).map(|_| env.step(Leaf::I64(&[0])).unwrap().reward).collect();
    assert_eq!(rewards, [0.0; 13]);
}

/// Nothing, forward, right, left: in the order of the paper.
fn what_the_buttons_do() {
    Python::attach(|py| {
        let code = c"
import gymnasium
env = gymnasium.make('imago/Doom-v0', start='sparse')
def after(action):
    _, before = env.reset(seed=0)
    for _ in range(10):
        info = env.step(action)[4]
    turn = (info['angle'] - before['angle'] + 180) % 360 - 180
    return info['x'] - before['x'], abs(info['y'] - before['y']), turn
moved = [after(action) for action in range(4)]
env.close()
";
        let globals = PyDict::new(py);
        py.run(code, Some(&globals), None).unwrap();
        let moved: [(f64, f64, f64); 4] =
            globals.get_item("moved").unwrap().unwrap().extract::<Vec<_>>().unwrap().try_into().unwrap();
        let [nothing, forward, right, left] = moved;
        assert_eq!(nothing, (0.0, 0.0, 0.0));
        // East; 40 tics at up to 8.3 units.
        assert!(forward.0 > 100.0 && forward.1 < 30.0 && forward.2 == 0.0, "{forward:?}");
        // Doom turns 1.76° and then 3.52° a tic, to the right clockwise: 6 slow tics, 34 fast ones at most.
        assert!(right.0 == 0.0 && (-140.0..-100.0).contains(&right.2), "{right:?}");
        assert!((left.2 + right.2).abs() < 1e-6, "{left:?} {right:?}");
    });
}

fn the_brighter_of_two_frames() {
    let registry = Registry::builtin();
    let play = |args: &str| {
        let mut env = Single::new(registry.make(&spec("Doom", args, None)).unwrap());
        env.reset(5).unwrap();
        (0..10).for_each(|_| assert!(!env.step(Leaf::I64(&[2])).unwrap().terminated));
        env.observation.leaf().u8().to_vec()
    };
    let (last, brighter) = (play(""), play("max_of_two = true"));
    let pairs = || last.iter().zip(&brighter);
    assert!(pairs().all(|(last, brighter)| brighter >= last));
    assert!(pairs().filter(|(last, brighter)| brighter > last).count() > 100, "it turns");
    assert_eq!(play("colour = true").len(), 120 * 160 * 3);
    assert_eq!(play("resolution = \"320x240\"").len(), 240 * 320);
}

fn noise_hides_rows_and_squares_are_counted() {
    let registry = Registry::builtin();
    let play = |args: &str| {
        let mut env = Single::new(registry.make(&spec("Doom", args, None)).unwrap());
        env.reset(5).unwrap();
        assert_eq!(env.env.info("cells"), Some(1.0));
        (0..10).for_each(|_| assert!(!env.step(Leaf::I64(&[2])).unwrap().terminated));
        assert_eq!(env.env.info("cells"), Some(1.0), "it turns where it stands");
        let seen = env.observation.leaf().u8().to_vec();
        (0..40).for_each(|_| assert!(!env.step(Leaf::I64(&[1])).unwrap().terminated));
        (seen, env.env.info("cells").unwrap())
    };
    let ((clear, cells), (noisy, same)) = (play(""), play("noise = 0.4"));
    assert!(cells > 1.0 && cells == same, "{cells} {same}");
    // Looks in between leave the player where he would be, and count what a decision passes but does not end in.
    let far = |args: &str| {
        let mut env = Single::new(registry.make(&spec("Doom", args, None)).unwrap());
        env.reset(5).unwrap();
        (0..10).for_each(|_| assert!(!env.step(Leaf::I64(&[1])).unwrap().terminated));
        ["x", "y", "cells"].map(|name| env.env.info(name).unwrap())
    };
    let ([x, y, ends], [same_x, same_y, all]) = (far("repeat = 16"), far("repeat = 16\ncells_every = 1"));
    assert!((x, y) == (same_x, same_y) && all > ends, "{ends} {all}");
    // 40 % of 120 rows of 160 pixels.
    let (hidden, below) = noisy.split_at(48 * 160);
    assert_eq!(below, &clear[48 * 160..]);
    assert!(hidden.iter().zip(&clear).filter(|(noise, clear)| noise != clear).count() > 7_000);
}

fn scenarios_of_the_user() {
    let registry = Registry::builtin();
    let folder = std::env::temp_dir().join(format!("imago-doom-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let cfg = "doom_scenario_path = basic.wad\nliving_reward = -1\nepisode_timeout = 40\navailable_buttons = { ATTACK }\n";
    std::fs::write(folder.join("mine.cfg"), cfg).unwrap();
    let mut own = spec("Doom", "cfg = \"mine.cfg\"\nwad = \"basic.wad\"\nrepeat = 1", None);
    own.args.insert("actions".into(), r#"[[], ["move_left", "ATTACK"]]"#.parse().unwrap());
    own.path = Some(folder.to_string_lossy().into());
    let mut env = Single::new(registry.make(&own).unwrap());
    assert_eq!(env.env.action_space(), &Space::discrete(2));
    env.reset(0).unwrap();
    let step = env.step(Leaf::I64(&[1])).unwrap();
    assert_eq!(step.reward, -1.0);
    std::fs::remove_dir_all(&folder).unwrap();

    let refused = |args: &str| registry.make(&spec("Doom", args, None)).err().unwrap().to_string();
    for (args, words) in [
        ("cfg = \"none.cfg\"", "no file 'none.cfg', here or among vizdoom's own: basic.cfg"),
        ("cfg = \"cig.cfg\"", "is for several players"),
        ("actions = [[\"FORWARD\"]]", "no button 'FORWARD'; there are "),
        ("actions = [\"ATTACK\"]", "expected lists of buttons"),
        ("start = \"near\"", "expected one of random, sparse, very-sparse"),
        ("cfg = \"basic.cfg\"\nstart = \"sparse\"", "goes with cfg = 'my_way_home.cfg'"),
        ("noise = 1.5", "noise = 1.5: expected a share from 0 to 1"),
        ("resolution = \"161x120\"", "expected one of 160x120"),
        ("repeat = 0", "at least 1 tic"),
        ("nonsense = 1", "nonsense"),
    ] {
        let said = refused(args);
        assert!(
            said.starts_with("environment `Doom`: make: Python raised ") && said.contains(words),
            "{said}"
        );
    }
}
