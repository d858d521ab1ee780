//! Environments that raise, lie, hang and die in the middle of a training.

use crate::program::Place;

/// One episode in a hundred fails in its seventh step. `starts` starts an engine that will not end by itself.
const MODULE: &str = r#"
import gymnasium, os, signal, subprocess, time
import numpy as np

class Flaky(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails="", one_in=100, starts=False):
        self.fails, self.one_in = fails, one_in
        if starts:
            self.engine = subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 0.1; done"])

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.bad = 0, self.np_random.random() < 1 / self.one_in
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        observation = np.array([self.t / 20, action], np.float32)
        if self.bad and self.t == 7:
            if self.fails == "raise":
                raise RuntimeError("the motor is on fire")
            if self.fails == "nan":
                observation[0] = np.nan
            if self.fails == "space":
                observation[0] = 7
            if self.fails == "shape":
                observation = np.zeros(3, np.float32)
            if self.fails == "hang":
                time.sleep(1000)
            if self.fails == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return observation, float(action), self.t >= 20, False, {}

gymnasium.register("Flaky-v0", Flaky)
"#;

const TRAIN: &str = "train ppo/cartpole --set env.id=gym:flaky:Flaky-v0 --set rollout.steps=128 \
                     --set run.eval_episodes=2 --set run.check_env=false --threads 2 --quiet";

fn place() -> Place {
    let place = Place::new();
    place.write("flaky.py", MODULE);
    let folder = place.folder().to_path_buf();
    place.with("PYTHONPATH", &folder)
}

#[test]
fn a_training_outlives_every_fault_of_its_environments() {
    let place = place();
    // In threads a fault that takes the process with it cannot be outlived.
    let faults = [
        ("raise", "on fire", true),
        ("nan", "NaN", true),
        ("space", "outside its space", true),
        ("shape", "[3]", true),
        ("hang", "did not come back within 2 s", false),
        ("die", "died (signal: 9", false),
    ];
    for (fails, words, threads) in faults {
        for kind in ["processes", "threads"].iter().take(1 + usize::from(threads)) {
            let run = format!("{fails}-{kind}");
            let said = place.ok(&format!(
                "{TRAIN} --set env.args.fails=\"{fails}\" --set run.worker_kind={kind} --set run.env_timeout=2 \
                 --set run.total_steps=4096 --run-dir {run}"
            ));
            let wanted = ["environment ", "episode of seed", "after 6 steps", words, "nothing is learnt"];
            let said = said.says(&wanted);
            let warned = said.stderr.matches("nothing is learnt").count();
            let summary = place.summary(&run);
            assert_eq!(summary["faults"], warned, "{run}: {summary}");
            assert_eq!(summary["step"], 4096);
            let last = place.metrics(&run).pop().unwrap();
            assert_eq!(last["rollout/faults"], warned as f64, "{run}: {last}");
        }
    }
}

#[test]
fn a_hang_where_nothing_can_be_replaced_ends_the_run_and_says_which_environment() {
    let place = place();
    // In a rollout thread, in the learner's own, and in an evaluation beside rollouts in processes.
    let evaluations = "--set run.eval_every=1024 --set run.eval_episodes=200 --set run.max_faults=1000";
    for (run, threads, kind, more) in [
        ("thread", "2", "threads", "--set run.eval_every=0"),
        ("own", "0", "threads", "--set run.eval_every=0"),
        ("evaluation", "2", "processes", evaluations),
    ] {
        let said = place.run(&format!(
            "{} --set env.args.fails=\"hang\" --set run.env_timeout=2 --set run.total_steps=100000 \
             --set run.checkpoint_every=1024 --set run.worker_kind={kind} {more} --run-dir {run}",
            TRAIN.replace("--threads 2", &format!("--threads {threads}"))
        ));
        let said = said.exits(1);
        let said =
            said.says(&["environment ", "episode of seed", "did not come back within 2 s", "processes"]);
        let step = place.steps(run).last().copied();
        assert!(
            step.is_none_or(|step| said.stderr.contains(&format!("go on from step {step}"))),
            "{said:#?}"
        );
    }
}

/// What stands still with the whole program does not hang.
#[test]
fn a_program_that_was_stopped_for_a_while_goes_on() {
    let place = place();
    let mut running = place.start(&format!(
        "{TRAIN} --set run.worker_kind=threads --set run.env_timeout=1 --set run.eval_every=0 \
         --set run.total_steps=100000000 --run-dir a"
    ));
    let metrics = place.path("a/metrics.jsonl");
    running.until("its first lines", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    running.signal("STOP");
    std::thread::sleep(std::time::Duration::from_secs(3));
    running.signal("CONT");
    running.works(std::time::Duration::from_secs(2));
    running.signal("INT");
    running.end().exits(3);
}

#[test]
fn faults_do_not_depend_on_where_the_environments_are() {
    let place = place();
    for kind in ["processes", "threads"] {
        place.ok(&format!(
            "{TRAIN} --set env.args.fails=\"raise\" --set env.frame_stack=3 --set run.worker_kind={kind} \
             --set run.total_steps=4096 --run-dir {kind}"
        ));
    }
    place.assert_same("processes", "threads", 4096);
}

#[test]
fn past_the_limit_a_run_stops_with_a_checkpoint_and_can_be_resumed() {
    let place = place();
    for (kind, fails) in [("threads", "raise"), ("processes", "raise"), ("processes", "die")] {
        let run = format!("{kind}-{fails}");
        // No episode is whole: the first failure past the limit comes in the first rollout.
        let train = format!(
            "{TRAIN} --set env.args.fails=\"{fails}\" --set env.args.one_in=100 --set run.worker_kind={kind} \
             --set run.max_faults=1 --set run.total_steps=100000 --run-dir {run}"
        );
        let said = place.run(&train).exits(1);
        let said = said.says(&["run.max_faults", "environment ", "episode of seed", "--resume"]);
        let step = *place.steps(&run).last().unwrap();
        assert!(step > 0 && said.stderr.contains(&format!("saved at step {step}")), "{said:#?}");
        // The broken environments have left nothing behind that a resumed run would trip over.
        let on = format!("train {run} --resume --set run.max_faults=1000 --stop-at {} --quiet", step + 2048);
        place.ok(&on).says(&["new episodes"]);
    }
}

/// Processes that bear `mark` in their environment variables.
fn bearers(mark: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        environment.windows(mark.len()).any(|part| part == mark.as_bytes()).then_some(id)
    });
    processes.collect()
}

#[test]
fn no_process_outlives_the_program() {
    for kind in ["processes", "threads"] {
        for signal in ["KILL", "INT"] {
            let mark = format!("faults-{kind}-{signal}-{}", std::process::id());
            let place = place().with("IMAGO_TEST_MARK", std::path::Path::new(&mark));
            let mut running = place.start(&format!(
                "{TRAIN} --set env.args.starts=true --set run.worker_kind={kind} --set run.total_steps=10000000 \
                 --set run.eval_every=0 --run-dir a"
            ));
            let metrics = place.path("a/metrics.jsonl");
            running.until("its first lines", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
            let before = bearers(&mark).len();
            assert!(before > 8, "{before} processes: itself and an engine for each environment");
            running.signal(signal);
            let _ = running.end();
            let begun = std::time::Instant::now();
            while !bearers(&mark).is_empty() {
                assert!(
                    begun.elapsed().as_secs() < 20,
                    "left behind after {signal}, {kind}: {:?}",
                    bearers(&mark)
                );
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}

#[test]
fn killed_workers_are_replaced_whenever_it_happens() {
    let mark = format!("killed-{}", std::process::id());
    let place = place().with("IMAGO_TEST_MARK", std::path::Path::new(&mark));
    let mut running = place.start(&format!(
        "{TRAIN} --set env.args.starts=true --set run.worker_kind=processes --set run.max_faults=100 \
         --set run.total_steps=100000000 --set run.eval_every=0 --set run.checkpoint_every=1 --run-dir a"
    ));
    let metrics = place.path("a/metrics.jsonl");
    // Of the last line that is whole.
    let faults = || {
        let text = std::fs::read_to_string(&metrics).unwrap_or_default();
        let line = text.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        line.and_then(|line| line["rollout/faults"].as_f64()).map_or(0, |count| count as u64)
    };
    running.until("its first lines", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    for killed in 1..=6 {
        let is_worker = |id: &u32| {
            std::fs::read(format!("/proc/{id}/cmdline"))
                .is_ok_and(|line| line.windows(14).any(|part| part == b"rollout-worker"))
        };
        let worker = *bearers(&mark).iter().find(|id| is_worker(id)).expect("a worker");
        assert!(
            std::process::Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap().success()
        );
        running.until("the loss to be counted", || faults() >= killed);
        // Between rollouts and within them.
        std::thread::sleep(std::time::Duration::from_millis(7 * killed));
    }
    // The program, two workers, ten engines with two that evaluate, each with a sleep: those of the dead are gone.
    running.until("the engines of the dead to go", || bearers(&mark).len() <= 1 + 2 + 2 * 10);
    running.signal("INT");
    running.end().exits(3).says(&["its process died", "nothing is learnt"]);
}

/// Bytes that these processes have written, each page once. What they read from files they share with whoever else runs
/// the program, and so it says nothing.
fn memory(processes: &[u32]) -> u64 {
    let of = |id: &u32| -> Option<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let kilobytes = |name: &str| -> Option<u64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some((kilobytes("Pss_Anon:")? + kilobytes("Pss_Shmem:")?) * 1024)
    };
    processes.iter().filter_map(of).sum()
}

/// Seconds of [`memory_stays_flat`]: a quarter of a minute, or as `make test-games` says.
fn soak() -> u64 {
    std::env::var("IMAGO_SOAK_SECONDS").map_or(15, |seconds| seconds.parse().unwrap())
}

#[test]
fn memory_stays_flat() {
    let mark = format!("soak-{}", std::process::id());
    let place = place().with("IMAGO_TEST_MARK", std::path::Path::new(&mark));
    let mut running = place.start(&format!(
        "{TRAIN} --set env.args.fails=raise --set env.args.one_in=500 --set run.worker_kind=processes \
         --set run.max_faults=1000000 --set run.total_steps=1000000000 --set run.eval_every=0 \
         --set run.log_every=100000 --set run.checkpoint_every=100000 --run-dir a"
    ));
    let metrics = place.path("a/metrics.jsonl");
    running.until("its first lines", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    let (begun, seconds) = (std::time::Instant::now(), soak());
    let mut seen = Vec::new();
    while begun.elapsed().as_secs() < seconds {
        std::thread::sleep(std::time::Duration::from_millis(200));
        seen.push(memory(&bearers(&mark)) as f64);
    }
    running.signal("INT");
    running.end().exits(3);
    // Of the second quarter and of the last.
    let mean = |quarter: usize| {
        let part = &seen[quarter * seen.len() / 4..(quarter + 1) * seen.len() / 4];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let (before, after) = (mean(1), mean(3));
    println!("{seconds} s: {:.1} MB, then {:.1} MB", before / 1e6, after / 1e6);
    assert!(after < before * 1.02 + 2e6, "memory grew from {before} to {after} bytes within {seconds} s");
    assert!(place.metrics("a").last().unwrap()["rollout/faults"].as_f64().unwrap() > 0.0);
}
