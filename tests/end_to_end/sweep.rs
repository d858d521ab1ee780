//! Sweeps: many runs in processes of their own, whatever happens to some of them or to the sweep.

use crate::program::Place;
use serde_json::Value;

/// Short rollouts and evaluations on native CartPole.
const SMALL: &str = "--set rollout.envs=4 --set rollout.steps=32 --set rollout.group_size=2 --set run.eval_episodes=4 \
                     --quiet";

fn report(place: &Place, folder: &str) -> Value {
    serde_json::from_str(&place.read(&format!("{folder}/report.json"))).unwrap()
}

/// Everything but times and places.
fn results(place: &Place, folder: &str) -> Value {
    let mut report = report(place, folder);
    for row in report["rows"].as_array_mut().unwrap() {
        for run in row["runs"].as_array_mut().unwrap() {
            let run = run.as_object_mut().unwrap();
            run.remove("seconds").unwrap();
            run.remove("run").unwrap();
        }
    }
    report
}

/// A report's table without its last column, the time.
fn table(place: &Place, folder: &str) -> Vec<String> {
    let text = place.read(&format!("{folder}/report.md"));
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.map(|line| line.trim_end_matches([' ', '|']).rsplit_once('|').unwrap().0.to_string()).collect()
}

/// Processes other than this one that work in the place's directory.
fn others_there(place: &Place) -> Vec<String> {
    let here = place.folder().canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == here))
        .map(|process| {
            std::fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ")
        })
        .filter(|line| !line.is_empty())
        .collect()
}

fn finished(place: &Place, run: &str) -> bool {
    std::fs::read_to_string(place.path(run).join("summary.json")).is_ok_and(|text| {
        serde_json::from_str::<Value>(&text).is_ok_and(|summary| summary["finished"] == true)
    })
}

#[test]
fn every_combination_is_a_run_like_any_other() {
    let place = Place::new();
    let sweep = format!(
        "sweep ppo/cartpole {SMALL} --set run.total_steps=1024 --set run.eval_every=256 --set eval.random_return=20 \
         --set eval.expert_return=500 --grid learner.learning_rate=1e-3,3e-4 --seeds 0..2 --jobs 2 --to s"
    );
    let planned = place.ok(&format!("{sweep} --dry-run"));
    assert!(planned.stdout.contains("s/learning_rate=0.0003/seed-1  to begin"), "{planned:#?}");
    assert!(planned.stdout.contains("4 of 4 runs to train, 2 at a time"), "{planned:#?}");
    assert!(place.listing().is_empty(), "a dry run wrote something");

    let said = place.ok(&sweep);
    assert!(said.stdout.contains("| learning_rate=0.001 | 2 |"), "{said:#?}");
    assert!(said.stdout.contains("scaled IQM") && !said.stdout.contains("failed"), "{said:#?}");
    for name in ["report.md", "curves.svg", "curves.png"] {
        assert!(place.path("s").join(name).is_file(), "{name}");
    }
    // The same bits as that run alone, and the report has its numbers.
    place.ok(&format!(
        "train ppo/cartpole {SMALL} --set run.total_steps=1024 --set run.eval_every=256 --seed 1 --run-dir alone \
         --set learner.learning_rate=3e-4 --set eval.random_return=20 --set eval.expert_return=500"
    ));
    let run = "s/learning_rate=0.0003/seed-1";
    place.assert_same("alone", run, 1024);
    let report = report(&place, "s");
    assert_eq!((&report["finished"], &report["failed"], &report["left"]), (&4.into(), &0.into(), &0.into()));
    let row = &report["rows"][1];
    let score = |seed: usize| row["runs"][seed]["score"].as_f64().unwrap();
    assert_eq!(row["row"], "learning_rate=0.0003");
    assert_eq!(row["runs"][1]["run"], run);
    assert_eq!(score(1), place.summary("alone")["returns"]["deterministic_mean"].as_f64().unwrap());
    // Of two scores the interquartile mean is the mean.
    let near = |value: &Value, wanted: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - wanted).abs() < 1e-9, "{value} is not {wanted}");
    };
    let mean = (score(0) + score(1)) / 2.0;
    near(&row["score"]["iqm"], mean);
    near(&row["scaled_score"]["mean"], (mean - 20.0) / 480.0);
    near(&row["score"]["iqm_interval"][0], score(0).min(score(1)));
    let curve = row["curve"].as_array().unwrap();
    let steps: Vec<u64> = curve.iter().map(|point| point["step"].as_f64().unwrap() as u64).collect();
    assert_eq!(steps, [256, 512, 768, 1024]);
    near(&curve[3]["iqm"], mean);
    let (ours, theirs) =
        (&report["probability_of_improvement"][0][1], &report["probability_of_improvement"][1][0]);
    near(ours, 1.0 - theirs.as_f64().unwrap());

    // What is finished is kept, to the byte.
    let before = place.listing();
    let again = place.ok(&sweep.replace("--quiet", ""));
    assert!(again.stderr.contains("4 of 4 runs are finished already"), "{again:#?}");
    let after = place.listing();
    let changed: Vec<_> = before.keys().filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty() && before.len() == after.len(), "{changed:?}");
    assert_eq!(place.ok("sweep s --report-only --json").json()["rows"], report["rows"]);
}

#[test]
fn a_sweep_may_grow() {
    let place = Place::new();
    let sweep = format!("sweep ppo/cartpole {SMALL} --set run.total_steps=256 --to s");
    place.ok(&format!("{sweep} --grid policy.hidden=[8] --seeds 0"));
    let first = place.state("s/hidden=8/seed-0", 256);
    let said = place.ok(&format!("{sweep} --grid policy.hidden=[8],[4,4] --seeds 0..2 --json"));
    assert_eq!(said.json()["finished"], 4);
    let again = place.state("s/hidden=8/seed-0", 256);
    // Not trained anew: its seconds are the same too.
    assert_eq!(first.1, again.1);
    // By its folder alone, and by its name under runs/.
    assert_eq!(place.ok("sweep s --json").json()["finished"], 4);
    place.ok(&format!("sweep ppo/cartpole {SMALL} --set run.total_steps=256"));
    assert_eq!(place.ok("sweep sweep-ppo-cartpole --json").json()["rows"][0]["row"], "ppo/cartpole");
    assert_eq!(place.ok("eval sweep-ppo-cartpole/seed-0 --json --episodes 1").json()["checkpoint"], 256);
}

#[test]
fn recipes_are_compared_in_one_sweep() {
    let place = Place::new();
    let sweep = format!("sweep ppo/cartpole ppo/mountaincar {SMALL} --set run.total_steps=256 --to s");
    let report = place.ok(&format!("{sweep} --seeds 0..2 --json")).json();
    let rows: Vec<&Value> = report["rows"].as_array().unwrap().iter().map(|row| &row["row"]).collect();
    assert_eq!(rows, ["ppo/cartpole", "ppo/mountaincar"]);
    assert!(finished(&place, "s/ppo-cartpole/seed-1") && finished(&place, "s/ppo-mountaincar/seed-0"));
    // It goes on by its folder, and grows by a grid only in another one.
    assert_eq!(place.ok("sweep s --json").json()["finished"], 4);
    place.refuses(
        &sweep.replace(" ppo/mountaincar", ""),
        &["is of ppo/cartpole, ppo/mountaincar", "--to DIR"],
    );
    place.refuses(&sweep.replace(" ppo/mountaincar", " ppo/cartpole"), &["are called ppo-cartpole", "share"]);
    place.refuses("sweep s ppo/cartpole", &["s is a sweep and goes on alone", "recipes"]);
    let grid = sweep.replace("--to s", "--grid policy.hidden=[4],[8] --to t --dry-run");
    let listed = place.ok(&grid).stdout;
    assert!(listed.contains("ppo-mountaincar/hidden=8/seed-0"), "{listed}");
}

#[test]
fn a_killed_sweep_ends_as_one_that_was_not() {
    let place = Place::new();
    let sweep = format!(
        "sweep ppo/cartpole {SMALL} --set run.total_steps=16384 --set run.eval_every=4096 \
         --set run.checkpoint_every=512 --grid learner.learning_rate=1e-3,1e-4 --seeds 0..2 --jobs 2 --to"
    );
    place.ok(&format!("{sweep} whole"));
    let mut running = place.start(&format!("{sweep} a"));
    let (first, third) = ("a/learning_rate=0.001/seed-0", "a/learning_rate=0.001/seed-1");
    // One run is finished and another has begun.
    running.until("its third run", || {
        finished(&place, first)
            && place.path(third).join("checkpoints/index.json").is_file()
            && place.steps(third).last() > Some(&0)
    });
    assert!(running.kill(), "it was over before it could be killed");
    // The kernel ends the runs; a moment later they are gone.
    let begun = std::time::Instant::now();
    while !others_there(&place).is_empty() {
        assert!(begun.elapsed().as_secs() < 10, "left behind: {:?}", others_there(&place));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!finished(&place, third));
    let kept = place.summary(first);
    let planned = place.ok("sweep a --dry-run").stdout;
    assert!(planned.contains("finished") && planned.contains("to go on from step"), "{planned}");
    place.ok(&format!("{sweep} a"));
    assert_eq!(place.summary(first), kept, "a finished run was trained again");
    assert_eq!(results(&place, "whole"), results(&place, "a"));
    assert_eq!(table(&place, "whole"), table(&place, "a"));
    assert_eq!(place.read("whole/curves.svg"), place.read("a/curves.svg"));
    place.assert_same(&third.replace("a/", "whole/"), third, 16384);
}

/// The runs are longer than any machine is slow.
#[test]
fn ctrl_c_gives_every_run_a_checkpoint() {
    let place = Place::new();
    let sweep = format!(
        "sweep ppo/cartpole {SMALL} --set run.total_steps=100000000 --set run.checkpoint_every=100000000 \
         --set run.eval_every=0 --set run.log_every=1000 --seeds 0..3 --jobs 2 --to a"
    );
    let mut before = [0, 0];
    // Begun, and gone on with.
    for line in [sweep.as_str(), "sweep a --quiet --jobs 2"] {
        let mut running = place.start(line);
        let step = |run: &str| -> Option<u64> {
            let text = std::fs::read_to_string(place.path(run).join("metrics.jsonl")).ok()?;
            let line: Value = serde_json::from_str(text.lines().last()?).ok()?;
            line["step"].as_u64()
        };
        running.until("two runs", || (0..2).all(|run| step(&format!("a/seed-{run}")) > Some(before[run])));
        running.signal("INT");
        let said = running.end().exits(3);
        assert!(said.stdout.contains("to be done"), "{said:#?}");
        for (run, before) in before.iter_mut().enumerate() {
            let run = format!("a/seed-{run}");
            let step = *place.steps(&run).last().unwrap();
            assert!(step > *before, "{run}: {step}");
            assert_eq!(place.summary(&run)["step"], step);
            *before = step;
        }
        assert!(!place.path("a/seed-2").exists());
        assert!(others_there(&place).is_empty());
    }
}

#[test]
fn a_run_that_fails_does_not_stop_the_others() {
    let place = Place::new();
    let sweep = format!(
        "sweep ppo/cartpole {SMALL} --set run.total_steps=512 --grid learner.learning_rate=1e30,1e-3 --seeds 0..2 \
         --jobs 1 --to s"
    );
    let said = place.run(&sweep).exits(1);
    let said = said.says(&[
        "2 of 4 runs failed",
        "learning_rate=1e30/seed-0 (exit code 1: ",
        "is not finite",
        "sweep s",
    ]);
    assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
    assert!(said.stdout.contains("| learning_rate=1e30 | 0 | – | – | 2 |"), "{said:#?}");
    let report = report(&place, "s");
    assert_eq!((&report["finished"], &report["failed"]), (&2.into(), &2.into()));
    assert!(report["rows"][0]["failed"][1]["how"].as_str().unwrap().contains("is not finite"));
    assert!(place.read("s/report.md").contains("## Failed"));
    // A later look knows it too; a later call tries again, and keeps what is finished.
    let planned = place.ok("sweep s --dry-run").stdout;
    assert!(planned.contains("learning_rate=1e30/seed-1  failed, to try again"), "{planned}");
    assert!(planned.contains("2 of 4 runs to train"), "{planned}");
    assert_eq!(place.ok("sweep s --report-only --json").json()["failed"], 2);
    place.run("sweep s --quiet").exits(1).says(&["2 of 4 runs failed"]);
}

/// An argument that the environment does not know shows only in the run's own process.
#[test]
fn a_run_that_cannot_begin_fails_alone() {
    let place = Place::new();
    let sweep = format!(
        "sweep ppo/cartpole {SMALL} --set run.total_steps=256 --grid env.id=CartPole-v1,CartPole-v77 --seeds 0 --to s"
    );
    let said = place.run(&sweep).exits(1);
    said.says(&["1 of 2 runs failed", "id=CartPole-v77/seed-0 (exit code 2: ", "CartPole-v77"]);
    assert_eq!(report(&place, "s")["rows"][0]["runs"][0]["seed"], 0);
}

#[test]
fn one_sweep_at_a_time_in_a_folder() {
    let place = Place::new();
    let sweep = format!("sweep ppo/cartpole {SMALL} --set run.total_steps=1000000 --to s");
    let mut running = place.start(&sweep);
    running.until("its run", || place.path("s/seed-0/checkpoints/index.json").is_file());
    place.run(&sweep).exits(2).says(&["another process is sweeping there"]);
    assert!(running.goes_on());
}

#[test]
fn what_is_no_sweep_is_refused() {
    let place = Place::new();
    let refusals = [
        (
            "sweep ppo/cartpole --grid learner.learing_rate=1,2",
            ["--grid learner.learing_rate", "did you mean `learning_rate`?"],
        ),
        (
            "sweep ppo/cartpole --grid learner.lr=1,2",
            ["--grid learner.lr", "here it is called `learner.learning_rate`"],
        ),
        ("sweep ppo/cartpole --grid polcy.hidden=[2]", ["--grid polcy.hidden", "did you mean `policy`?"]),
        (
            "sweep ppo/cartpole --grid learner.learning_rate=1e-3,fast",
            ["--grid learner.learning_rate", "fast"],
        ),
        (
            "sweep ppo/cartpole --grid learner.learning_rate=",
            ["--grid learner.learning_rate: which values?", ""],
        ),
        ("sweep ppo/cartpole --grid learner.learning_rate=1e-3,0.001", ["`0.001` is there twice", ""]),
        (
            "sweep ppo/cartpole --grid learner.learning_rate=1,1.0",
            ["`learning_rate=1` and `learning_rate=1.0` are the same", ""],
        ),
        ("sweep ppo/cartpol", ["no built-in recipe", "did you mean `ppo/cartpole`?"]),
        ("sweep ppo/cartpole --seeds 3..3", ["--seeds 3..3", "holds no seed"]),
        ("sweep ppo/cartpole --seed 3", ["--seeds 0..5", ""]),
        ("sweep ppo/cartpole --jobs 0", ["--jobs must be at least 1", ""]),
        (
            "sweep ppo/cartpole --set policy.hidden=[2] --grid policy.hidden=[2]",
            ["policy.hidden is given with --set and with --grid", ""],
        ),
        (
            "sweep ppo/cartpole --set run.seed=2 --seeds 0..2",
            ["run.seed is given with --set and with --seeds", ""],
        ),
        ("sweep gail/cartpole --set signal.gail.demos=", ["no demonstrations yet", "--demos FILE"]),
        ("sweep ppo/cartpole --to s --report-only", ["there is no sweep in it", "s"]),
    ];
    for (line, words) in refusals {
        place.refuses(line, &words);
    }
}

#[test]
fn what_does_not_fit_the_folder_is_refused() {
    let place = Place::new();
    let sweep = format!(
        "sweep ppo/cartpole {SMALL} --set run.total_steps=128 --grid policy.hidden=[4],[8] --seeds 0..2 --to s"
    );
    place.ok(&sweep);
    let refusals = [
        (sweep.replace("=128", "=256"), ["run.total_steps would change", "another sweep"]),
        (
            sweep.replace("policy.hidden=[4],[8]", "learner.epochs=2,3"),
            ["varies policy.hidden", "learner.epochs"],
        ),
        (sweep.replace("[4],[8]", "[4]"), ["has `policy.hidden` = [8] too", "--grid policy.hidden=[4],[8]"]),
        (sweep.replace("0..2", "1"), ["has seed 0 too", "--seeds 0,1"]),
        ("sweep s --seeds 0..3".into(), ["goes on as it was defined", "--seeds was given"]),
        (sweep.replace("--to s", "--to s/hidden=4"), ["is not empty and no sweep is in it", "--to DIR"]),
        (sweep.replace("--to s", "--to s/report.md"), ["is a file", "--to DIR"]),
    ];
    for (line, words) in refusals {
        place.refuses(&line, &words);
    }
    // What does not change results may change, and the order of values is nobody's business.
    place.ok(&sweep
        .replace("[4],[8]", "[8],[4]")
        .replace("run.total_steps", "run.max_faults=3 --set run.total_steps"));
    place.write("s/hidden=4/seed-0.toml", "format = 1\n[env]\nid = \"Pendulum-v1\"\n");
    place.refuses(
        "sweep ppo/cartpole --grid policy.hidden=[4],[8] --seeds 0..2 --to s",
        &["env.id", "would change"],
    );
}
