//! Published tables: experts, what they do, who imitates them, and the report.

use crate::program::Place;
use serde_json::Value;

const SMOKE: &str = "reproduce gail-seals --smoke --demos 1 --jobs 2 --quiet --to out";

fn cells(place: &Place) -> Vec<Value> {
    let report: Value = serde_json::from_str(&place.read("out/gail-seals.json")).unwrap();
    report["cells"].as_array().unwrap().clone()
}

#[test]
fn a_table_is_made_and_made_no_second_time() {
    let place = Place::new();
    let said = place.ok(SMOKE);
    assert!(said.stdout.contains("| seals-CartPole | 1 |"), "{said:#?}");
    let text = place.read("out/gail-seals.md");
    for words in ["smoke run", "GAIL, every pair", "constant reward", "not reached", "gail-seals.svg"] {
        assert!(text.contains(words), "`{words}` is missing in {text}");
    }
    assert!(place.path("out/gail-seals.svg").is_file());
    let methods: Vec<Value> = cells(&place).iter().map(|cell| cell["method"].clone()).collect();
    assert_eq!(methods, ["bc", "gail", "gail-all", "constant", "mismatched"]);
    // A run of it is one like any other, and its score is that of `imago eval`.
    let run = "out/runs/seals-cartpole/gail-1/seed-0";
    let scored = place.ok(&format!("eval {run}@latest --json"));
    let scored: Value = serde_json::from_str(&scored.stdout).unwrap();
    assert_eq!(cells(&place)[1]["return_means"][0], scored["return_mean"]);
    assert_eq!(cells(&place)[1]["steps"][0], 4096);
    // Whoever imitates a random policy has its episodes, not the expert's.
    let recipe = place.read("out/runs/seals-cartpole/mismatched-1/seed-0.toml");
    assert!(recipe.contains("random.demos"), "{recipe}");

    let before = std::fs::metadata(place.path(run).join("summary.json")).unwrap().modified().unwrap();
    let table = place.read("out/gail-seals.json");
    place.ok(SMOKE);
    assert_eq!(place.read("out/gail-seals.json"), table);
    let after = std::fs::metadata(place.path(run).join("summary.json")).unwrap().modified().unwrap();
    assert_eq!(before, after, "a finished run was trained again");
    // More of it in the same folder; what is there stays.
    place.ok("reproduce gail-seals --smoke --demos 60 --method gail --quiet --to out");
    assert_eq!(cells(&place)[0]["demonstrations"], 60);
}

#[test]
fn what_a_study_does_not_have_is_refused() {
    let place = Place::new();
    let list = place.ok("reproduce").stdout;
    for name in ["gail-classic", "gail-seals", "gail-mujoco"] {
        assert!(list.contains(name), "{list}");
    }
    for (line, words) in [
        ("reproduce gail-clasic", "gail-classic"),
        ("reproduce gail-classic --task Hopper", "CartPole, Acrobot, MountainCar"),
        ("reproduce gail-classic --method dac", "bc, bc-all, gail"),
        ("reproduce gail-classic --demos 5", "1, 4, 7, 10"),
        ("reproduce gail-classic --seeds 3..1", "3..1"),
        ("reproduce gail-classic --seed 3", "--seeds"),
        ("reproduce gail-classic --jobs 0", "--jobs"),
        ("reproduce gail-classic --set run.seed=3", "--set"),
    ] {
        place.refuses(line, &[words]);
    }
    let planned =
        place.ok("reproduce gail-classic --task acrobot --demos 4,7 --seeds 0..2 --dry-run --to out").stdout;
    assert!(planned.contains("out/runs/acrobot/gail-7/seed-1"), "{planned}");
    // Four methods with two numbers of demonstrations, one that needs none.
    assert!(planned.contains("1 experts and 18 imitators"), "{planned}");
    assert!(place.listing().is_empty(), "something was written");
}
