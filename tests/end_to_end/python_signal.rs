//! Reward signals in Python.

use crate::program::Place;

const SMALL: &str = "--set rollout.envs=4 --set rollout.steps=32 --set rollout.group_size=2 --set run.eval_every=0 \
                     --set run.eval_episodes=4 --set run.total_steps=512 --quiet";

fn upright() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    format!(
        "--set signal.upright.kind=\"python\" --set signal.upright.path=\"{folder}\" \
         --set signal.upright.target=\"upright:Upright\" --set signal.upright.args.steepness=5.0"
    )
}

#[test]
fn the_example_pays_learns_and_resumes_to_the_bit() {
    let place = Place::new();
    let train = format!("train ppo/cartpole {SMALL} {}", upright());
    place.ok(&format!("{train} --run-dir whole"));
    let lines = place.metrics("whole");
    // It begins at a tenth of a radian, more than poles that fall at 0.2 lean on average.
    let usual: Vec<f64> = lines.iter().filter_map(|line| line["upright/usual_angle"].as_f64()).collect();
    assert_eq!(usual.len(), 4);
    assert!(usual[0] < 0.1 && usual[3] < usual[0], "{usual:?}");
    let paid = lines[0]["upright/reward_mean"].as_f64().unwrap();
    assert!(paid > 0.0 && paid < 1.0, "{paid}");
    place.ok(&format!("{train} --run-dir halved --stop-at 256"));
    place.ok("train halved --resume --quiet");
    place.assert_same("whole", "halved", 512);
}

/// What arrays hold is held against what the environment does: CartPole pays 1 a step, and what followed the last step of
/// an episode is no beginning of the next.
#[test]
fn arrays_are_what_they_are_said_to_be() {
    let place = Place::new();
    place.write(
        "mine.py",
        "import numpy as np\n\
         class Looks:\n\
         \x20   def reward(self, r):\n\
         \x20       assert set(r) == {'observation', 'next_observation', 'action', 'reward', 'terminated', 'truncated', 'valid'}\n\
         \x20       assert r['observation'].shape == r['next_observation'].shape == (32, 4, 4), r['observation'].shape\n\
         \x20       assert r['action'].shape == (32, 4) and r['action'].dtype == np.int64\n\
         \x20       assert r['terminated'].dtype == r['valid'].dtype == bool and (r['reward'] == 1).all()\n\
         \x20       ended = r['terminated'] | r['truncated']\n\
         \x20       goes_on = ~ended[:-1]\n\
         \x20       assert (r['next_observation'][:-1][goes_on] == r['observation'][1:][goes_on]).all()\n\
         \x20       last = r['next_observation'][r['terminated']]\n\
         \x20       assert len(last) and ((abs(last[:, 0]) > 2.4) | (abs(last[:, 2]) > 0.2094)).all()\n\
         \x20       return -r['reward']\n",
    );
    let signal = "--set signal.looks.kind=\"python\" --set signal.looks.target=\"mine:Looks\"";
    place.write("r.toml", &place.ok("recipes show ppo/cartpole").stdout);
    place.ok(&format!("train r.toml {SMALL} {signal} --set signal.looks.path=\".\" --run-dir a"));
    assert_eq!(place.metrics("a")[0]["looks/reward_mean"], -1.0);
    // A path is relative to the recipe.
    assert!(place.read("a/recipe.toml").contains(&format!("path = \"{}", place.folder().display())));
}

#[test]
fn what_goes_wrong_in_python_is_one_clear_error() {
    let place = Place::new();
    // Apart from the place: Python writes what it has compiled beside it.
    let modules = tempfile::tempdir().unwrap();
    std::fs::write(
        modules.path().join("bad.py"),
        "import numpy as np\n\
         class Raises:\n    def reward(self, r): raise KeyError('speed')\n\
         class Shape:\n    def reward(self, r): return np.zeros(3)\n\
         class Nan:\n    def reward(self, r): return r['reward'] * float('nan')\n\
         class Nothing: pass\n",
    )
    .unwrap();
    let train = |target: &str| {
        format!(
            "train ppo/cartpole {SMALL} --set signal.x.kind=\"python\" --set signal.x.path=\"{}\" --set signal.x.target=\"{target}\"",
            modules.path().display()
        )
    };
    for (target, word) in [
        ("bad:Nothing", "no method `reward"),
        ("bad:Absent", "Absent"),
        ("worse:X", "worse"),
        ("bad", "module:Class"),
    ] {
        place.refuses(&train(target), &[target, word]);
    }
    for (target, words) in [
        ("bad:Raises", ["KeyError", "speed"]),
        ("bad:Shape", ["[3]", "[32, 4]"]),
        ("bad:Nan", ["NaN", "step 0 of environment 0"]),
    ] {
        let output = place.run(&train(target)).exits(1);
        output.says(&[target, words[0], words[1]]);
    }
    place.refuses(
        "train sac/pendulum --set signal.x.kind=\"python\" --set signal.x.target=\"a:B\" --quiet",
        &["signal.x", "rollouts"],
    );
}
