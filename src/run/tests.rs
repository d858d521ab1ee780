//! Whole runs: interrupted, killed, poisoned.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::*;

/// What a Python script prints as JSON, given a folder; `None` without the project's Python.
pub(super) fn python(script: &str, folder: &Path) -> Option<Value> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    if !python.exists() {
        println!("skipped: {} is missing (make setup)", python.display());
        return None;
    }
    let done = Command::new(python).args(["-c", script]).arg(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(serde_json::from_slice(&done.stdout).unwrap())
}

/// The lines of a folder's `metrics.jsonl`.
pub(super) fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A chaotic but deterministic trainee: any part that is not restored shows at once.
struct Fake {
    step: u64,
    weights: Tensor,
    momentum: Tensor,
    noise: u64,
    episode: f64,
    poison_at: Option<u64>,
    poison_weights: bool,
    pause: Duration,
}

impl Fake {
    fn new() -> Self {
        Fake {
            step: 0,
            weights: Tensor::from_slice(&[0.1f64, 0.2, 0.3]).set_requires_grad(true),
            momentum: Tensor::zeros([3], (Kind::Double, tch::Device::Cpu)),
            noise: 1,
            episode: 0.0,
            poison_at: None,
            poison_weights: false,
            pause: Duration::ZERO,
        }
    }

    fn weights(&self) -> Vec<f64> {
        Vec::try_from(self.weights.detach()).unwrap()
    }
}

impl Train for Fake {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self, log: &mut Log) -> Result<()> {
        std::thread::sleep(self.pause);
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let noise = (self.noise >> 40) as f64 / 16_777_216.0;
        self.step += 7;
        if self.poison_at.is_some_and(|at| self.step >= at) {
            if self.poison_weights {
                let _ = tch::no_grad(|| self.weights.fill_(f64::NAN));
                return Ok(());
            }
            let batch = vec![
                ("observation".to_string(), Tensor::from_slice(&[1.0f32])),
                ("advantage".into(), Tensor::from_slice(&[0.0f32, f32::INFINITY]).to_kind(Kind::Half)),
            ];
            return Err(Error::non_finite("policy loss", batch));
        }
        tch::no_grad(|| {
            self.momentum = &self.momentum * 0.9 + noise;
            let next: Tensor = (&self.weights * 3.9) * (-&self.weights + 1.0) + &self.momentum * 1e-3;
            self.weights.copy_(&next.remainder(1.0));
        });
        self.episode += self.weights.detach().sum(Kind::Double).double_value(&[]);
        log.scalar("fake/noise", noise);
        log.scalar("fake/odd", if noise < 0.1 { f64::NAN } else { 1.0 });
        if self.noise & 1024 == 0 {
            log.episode(self.episode, 3);
            self.episode = 0.0;
        }
        Ok(())
    }

    fn evaluate(&mut self, log: &mut Log) -> Result<Option<f64>> {
        let score = self.weights()[0];
        log.scalar("eval/first", score);
        Ok(Some(score))
    }

    fn state(&mut self, s: &mut State) -> Result<()> {
        s.value("step", &mut self.step)?;
        s.tensor("weights", &mut self.weights)?;
        s.tensor("momentum", &mut self.momentum)?;
        s.value("noise", &mut self.noise)?;
        s.value("episode", &mut self.episode)
    }

    fn conclude(&mut self, _log: &mut Log) -> Result<Value> {
        Ok(json!({"verdict": "passed", "step": "is ours"}))
    }
}

fn schedule() -> Timetable {
    Timetable {
        total_steps: 1000,
        stop_at: None,
        eval_every: 200,
        checkpoint_every: 100,
        log_every: 50,
        keep: 2,
    }
}

fn session<'a>(
    directory: &'a Directory,
    schedule: &'a Timetable,
    stop: &'a Stop,
    resume: bool,
) -> Session<'a> {
    let resume = resume.then_some(Which::Latest);
    Session { directory, schedule, stop, resume, quiet: true, hyperparameters: &[] }
}

fn begin(path: &Path) -> Directory {
    let directory = Directory::create(path).unwrap();
    directory.write_recipe("format = 1\n").unwrap();
    directory
}

/// An uninterrupted run: its weights, its log without the times, its summary.
fn straight(path: &Path) -> (Vec<f64>, Vec<Value>, Value) {
    let mut fake = Fake::new();
    let outcome = drive(&mut fake, &session(&begin(path), &schedule(), &Stop::never(), false)).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    (fake.weights(), timeless(path), summary(path))
}

fn timeless(path: &Path) -> Vec<Value> {
    let mut lines = metrics(path);
    for line in &mut lines {
        let fields = line.as_object_mut().unwrap();
        fields.retain(|name, _| !name.starts_with("time"));
    }
    lines
}

fn summary(path: &Path) -> Value {
    let text = fs::read_to_string(path.join("summary.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    // Another test of the same process may have asked for a profile.
    value.as_object_mut().unwrap().remove("profile");
    for name in ["seconds", "steps_per_second"] {
        assert!(value.as_object_mut().unwrap().remove(name).unwrap().as_f64().unwrap() > 0.0);
    }
    value
}

#[test]
fn a_run_does_what_its_schedule_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let (_, lines, summary) = straight(&path);
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=20).map(|i: u64| (i * 50).div_ceil(7) * 7).collect();
    assert_eq!(steps, expected, "the first step at or after each multiple of 50");
    let evaluated = lines.iter().filter(|line| line.get("eval/first").is_some());
    let steps: Vec<u64> = evaluated.map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [203, 406, 602, 805, 1001]);
    let checkpoints = Checkpoints::open(&path).unwrap();
    assert_eq!(checkpoints.latest(), Some(1001));
    let best = checkpoints.best().unwrap();
    assert!(lines.iter().filter_map(|line| line["eval/score"].as_f64()).all(|score| score <= best.score));
    assert_eq!(summary["best"], json!({"step": best.step, "score": best.score}));
    assert_eq!((&summary["verdict"], &summary["step"]), (&json!("passed"), &json!(1001)));
    assert_eq!(summary["evaluation"]["step"], json!(1001));
    assert!(summary["return_mean"].is_f64() && summary["finished"] == json!(true));
}

#[test]
fn interrupted_runs_equal_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let expected = straight(&folder.path().join("straight"));
    for stops in [vec![1], vec![333], vec![203, 210, 650, 1000]] {
        let path = folder.path().join(format!("{stops:?}"));
        let directory = begin(&path);
        let mut resume = false;
        for stop_at in stops {
            let schedule = Timetable { stop_at: Some(stop_at), ..schedule() };
            let outcome = drive(&mut Fake::new(), &session(&directory, &schedule, &Stop::never(), resume));
            match outcome.unwrap() {
                Outcome::Stopped { step } => assert!((stop_at..stop_at + 7).contains(&step)),
                Outcome::Finished(_) => assert_eq!(stop_at, 1000),
            }
            resume = true;
        }
        let mut fake = Fake::new();
        drive(&mut fake, &session(&directory, &schedule(), &Stop::never(), true)).unwrap();
        assert_eq!((fake.weights(), timeless(&path), summary(&path)), expected);
    }
}

#[test]
fn a_request_stops_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let directory = begin(&folder.path().join("run"));
    let stop = Stop::never();
    stop.request();
    let outcome = drive(&mut Fake::new(), &session(&directory, &schedule(), &stop, false)).unwrap();
    assert_eq!(outcome, Outcome::Stopped { step: 0 });
    assert_eq!(Checkpoints::open(directory.path()).unwrap().latest(), Some(0));
    assert_eq!(summary_finished(directory.path()), json!(false));
}

fn summary_finished(path: &Path) -> Value {
    let text = fs::read_to_string(path.join("summary.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["finished"].clone()
}

#[test]
fn a_run_may_go_on_from_an_earlier_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let expected = straight(&path);
    let earlier = Checkpoints::open(&path).unwrap().steps()[0];
    let directory = Directory::open(&path).unwrap();
    let mut fake = Fake::new();
    let schedule = schedule();
    let stop = Stop::never();
    let session =
        Session { resume: Some(Which::Step(earlier)), ..session(&directory, &schedule, &stop, true) };
    drive(&mut fake, &session).unwrap();
    assert_eq!((fake.weights(), timeless(&path), summary(&path)), expected);
}

#[test]
fn a_number_that_is_not_finite_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let directory = begin(&path);
    let mut fake = Fake { poison_at: Some(500), ..Fake::new() };
    let error = drive(&mut fake, &session(&directory, &schedule(), &Stop::never(), false)).unwrap_err();
    let message = error.to_string();
    let dump = path.join("non_finite_504.safetensors");
    for part in
        ["step 504", "policy loss", "advantage", "non_finite_504.safetensors", "of step 406", "--resume"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!error.bad_input());
    let (tensors, metadata) = tensor_file::read(&dump).unwrap();
    assert_eq!((tensors.len(), &metadata["what"]), (2, &json!("policy loss")));
    assert_eq!(tensors["advantage"].double_value(&[1]), f64::INFINITY);

    // The last good checkpoint is one to go on from.
    let mut fake = Fake::new();
    drive(&mut fake, &session(&directory, &schedule(), &Stop::never(), true)).unwrap();
    assert_eq!(fake.weights(), straight(&folder.path().join("straight")).0);
}

#[test]
fn poisoned_weights_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let directory = begin(&path);
    let mut fake = Fake { poison_at: Some(504), poison_weights: true, ..Fake::new() };
    let error = drive(&mut fake, &session(&directory, &schedule(), &Stop::never(), false)).unwrap_err();
    assert!(error.to_string().contains("train/weights"), "{error}");
    let checkpoints = Checkpoints::open(&path).unwrap();
    assert!(checkpoints.latest().unwrap() < 504);
    checkpoints.load(Which::Latest).unwrap();
}

#[test]
fn a_misfitting_checkpoint_leaves_the_run_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    straight(&path);
    let before = fs::read(path.join("metrics.jsonl")).unwrap();
    let directory = Directory::open(&path).unwrap();
    let mut wide = Fake { weights: Tensor::zeros([4], (Kind::Double, tch::Device::Cpu)), ..Fake::new() };
    let error = drive(&mut wide, &session(&directory, &schedule(), &Stop::never(), true)).unwrap_err();
    assert!(error.to_string().contains("train/weights") && error.bad_input(), "{error}");
    assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), before);
}

// The tests below re-run this test binary as a child that does only what the variable says.
const CHILD: &str = "IMAGO_TEST_CHILD";

fn child(role: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run::tests::as_a_child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{role}:{}", folder.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn as_a_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (role, folder) = what.split_once(':').unwrap();
    let path = PathBuf::from(folder);
    match role {
        "save" => {
            let mut checkpoints = Checkpoints::open_for_writing(&path, 2).unwrap();
            println!("\nready");
            let first = checkpoints.latest().map_or(0, |step| step + 1);
            for step in first.. {
                let mut state = State::saving();
                for i in 0..4 {
                    let mut tensor = Tensor::full([64, 1024], step as i64, tch::kind::INT64_CPU);
                    state.tensor(&format!("t{i}"), &mut tensor).unwrap();
                }
                checkpoints.save(step, state).unwrap();
                if step % 3 == 0 {
                    checkpoints.mark_best(step, step as f64).unwrap();
                }
            }
        }
        "train" => {
            let directory =
                if Directory::holds_run(&path) { Directory::open(&path).unwrap() } else { begin(&path) };
            let mut fake = Fake { pause: Duration::from_millis(1), ..Fake::new() };
            println!("\nready");
            drive(&mut fake, &session(&directory, &schedule(), &Stop::never(), true)).unwrap();
        }
        "signal" => {
            let directory = begin(&path);
            let stop = Stop::on_signals().unwrap();
            println!("\nready");
            let endless = Timetable { total_steps: u64::MAX, ..schedule() };
            let mut fake = Fake { pause: Duration::from_millis(1), ..Fake::new() };
            drive(&mut fake, &session(&directory, &endless, &stop, false)).unwrap();
            std::process::exit(3);
        }
        "signals" => {
            let _stop = Stop::on_signals().unwrap();
            println!("\nready");
            std::thread::sleep(Duration::from_secs(60));
        }
        other => panic!("no role {other}"),
    }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Moments to kill at that cover the range without repeating.
fn moment(i: u64, within: u64) -> Duration {
    Duration::from_micros(i.wrapping_mul(2_654_435_761) % (within * 1000))
}

#[test]
fn a_kill_at_any_moment_leaves_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = None;
    let mut advanced = 0;
    for i in 0..25 {
        let mut saver = child("save", folder.path());
        let _output = until_ready(&mut saver);
        std::thread::sleep(moment(i, 60));
        kill(&mut saver);
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        if let Some(latest) = checkpoints.latest() {
            for step in checkpoints.steps() {
                let (found, mut state) = checkpoints.load(Which::Step(step)).unwrap();
                assert_eq!(found, step);
                for i in 0..4 {
                    let mut tensor = Tensor::zeros([64, 1024], tch::kind::INT64_CPU);
                    state.tensor(&format!("t{i}"), &mut tensor).unwrap();
                    assert!(tensor.eq(step as i64).all().int64_value(&[]) != 0, "t{i} of step {step}");
                }
                state.finish().unwrap();
            }
            advanced += u32::from(last.is_none_or(|before| latest > before));
        }
        assert!(checkpoints.latest() >= last, "a kill lost a checkpoint");
        last = checkpoints.latest();
    }
    assert!(advanced > 5, "the kills came too early to test anything: {advanced}");
}

#[test]
fn a_killed_run_that_goes_on_equals_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let expected = straight(&folder.path().join("straight"));
    let path = folder.path().join("killed");
    let mut within = 0;
    for i in 0.. {
        let mut trainer = child("train", &path);
        let _output = until_ready(&mut trainer);
        // The last one is left alone, whatever the speed of the machine.
        if i < 12 {
            std::thread::sleep(moment(i, 60));
        } else {
            assert!(trainer.wait().unwrap().success());
        }
        match trainer.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => kill(&mut trainer),
        }
        within += u32::from(Checkpoints::open(&path).unwrap().latest().is_some_and(|step| step > 0));
    }
    assert!(within > 0, "every kill came before the first checkpoint of some steps");
    let mut weights = Tensor::zeros([3], (Kind::Double, tch::Device::Cpu));
    let (_, mut state) = Checkpoints::open(&path).unwrap().load(Which::Latest).unwrap();
    state.scope("train", |s| s.tensor("weights", &mut weights)).unwrap();
    assert_eq!((Vec::try_from(weights).unwrap(), timeless(&path), summary(&path)), expected);
}

fn until_ready(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child ended");
    }
    output
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn one_signal_asks_and_a_second_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-TERM"] {
        let path = folder.path().join(signal);
        let mut runner = child("signal", &path);
        let _output = until_ready(&mut runner);
        std::thread::sleep(Duration::from_millis(50));
        send(signal, &runner);
        assert_eq!(runner.wait().unwrap().code(), Some(3));
        let (_, state) = Checkpoints::open(&path).unwrap().load(Which::Latest).unwrap();
        drop(state);
        assert_eq!(summary_finished(&path), json!(false));
    }
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut sleeper = child("signals", folder.path());
        let _output = until_ready(&mut sleeper);
        send(signal, &sleeper);
        std::thread::sleep(Duration::from_millis(100));
        assert!(sleeper.try_wait().unwrap().is_none(), "the first signal only asks");
        send(signal, &sleeper);
        assert_eq!(sleeper.wait().unwrap().code(), Some(code));
    }
}
