//! The program under test: runs it in a directory of its own and looks at what it left there.

// Each test binary uses a part of it.
#![allow(dead_code)]

use imago::run::tensor_file::{self, Values};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tch::Tensor;

/// Longer than anything takes on a loaded machine; a hang fails and does not hold up the suite for ever.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a call of the program came to.
#[derive(Debug)]
pub struct Output {
    /// What was asked.
    pub arguments: String,
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed as its result.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

impl Output {
    /// Its result as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("a panic:"), "{self:#?}");
        self
    }

    /// Fails unless stderr holds every one of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in: {}", self.stderr);
        }
        self
    }
}

/// A temporary directory in which the program is run.
pub struct Place {
    folder: tempfile::TempDir,
    cache: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        let [folder, cache] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { folder, cache, environment: Vec::new() }
    }

    /// With an environment variable for the program.
    pub fn with(mut self, name: &str, value: &Path) -> Self {
        self.environment.push((name.into(), value.to_string_lossy().into_owned()));
        self
    }

    /// The directory itself.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The user's cache directory, which is not in it.
    pub fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A text file in it.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A call of the program, not yet begun. Arguments are separated by spaces.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imago"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder())
            .env_remove("IMAGO_LOG")
            .env("XDG_CACHE_HOME", self.cache())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Begins a call of the program.
    pub fn start(&self, arguments: &str) -> Running {
        // Files, not pipes: a full pipe would stop a program that nobody listens to.
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = self
            .command(arguments)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Running { arguments: arguments.into(), child, stdout, stderr, begun: Instant::now() }
    }

    /// Runs the program.
    #[track_caller]
    pub fn run(&self, arguments: &str) -> Output {
        self.start(arguments).end()
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &str) -> Output {
        self.run(arguments).exits(0)
    }

    /// Every file below the directory with its content. Locks hold a process number and do not count.
    pub fn listing(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn visit(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    into.insert(path.clone(), Vec::new());
                    visit(&path, into);
                } else if !path.ends_with(".lock") {
                    into.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        visit(self.folder(), &mut files);
        files
    }

    /// Runs the program on bad input: exit code 2, one line on stderr with all of `words`, nothing written.
    #[track_caller]
    pub fn refuses(&self, arguments: &str, words: &[&str]) -> Output {
        let before = self.listing();
        let output = self.run(arguments).exits(2).says(words);
        assert!(output.stderr.starts_with("imago: "), "{output:#?}");
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {output:#?}");
        assert_eq!(output.stdout, "", "{output:#?}");
        let after = self.listing();
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(changed.is_empty(), "`imago {arguments}` changed {changed:?}");
        output
    }

    /// The lines of a run's `metrics.jsonl`.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        let text = self.read(&format!("{run}/metrics.jsonl"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A run's `summary.json`.
    pub fn summary(&self, run: &str) -> Value {
        serde_json::from_str(&self.read(&format!("{run}/summary.json"))).unwrap()
    }

    /// The steps of a run's checkpoints, as the index has them.
    pub fn steps(&self, run: &str) -> Vec<u64> {
        let checkpoints = imago::run::Checkpoints::open(&self.path(run)).unwrap();
        checkpoints.steps()
    }

    /// A checkpoint's file.
    pub fn checkpoint(&self, run: &str, step: u64) -> PathBuf {
        self.path(run).join("checkpoints").join(format!("{step:012}.safetensors"))
    }

    /// A checkpoint's tensors and values.
    pub fn state(&self, run: &str, step: u64) -> (BTreeMap<String, Tensor>, Values) {
        tensor_file::read(&self.checkpoint(run, step)).unwrap()
    }

    /// Fails unless two runs are the same at `step`: every bit of every tensor, every value but the seconds.
    #[track_caller]
    pub fn assert_same(&self, run: &str, other: &str, step: u64) {
        let ((ours, mut our_values), (theirs, mut their_values)) =
            (self.state(run, step), self.state(other, step));
        assert!(ours.keys().eq(theirs.keys()), "{run} and {other} hold different tensors");
        let weights = ["train/policy/weights", "train/generator/weights"];
        assert!(weights.iter().any(|name| ours.contains_key(*name)), "no weights among {:?}", ours.keys());
        for (name, tensor) in &ours {
            assert!(bits(tensor) == bits(&theirs[name]), "`{name}` of {run} and {other} differ at {step}");
        }
        for values in [&mut our_values, &mut their_values] {
            values.remove("run/seconds").expect("`run/seconds` is the one value that may differ");
        }
        assert_eq!(our_values, their_values, "values of {run} and {other} at {step}");
    }
}

/// Kind, shape and bytes of a tensor: NaN equals NaN, 0 is not −0.
fn bits(tensor: &Tensor) -> (tch::Kind, Vec<i64>, Vec<u8>) {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
    (tensor.kind(), tensor.size(), bytes)
}

/// A call of the program that goes on; killed when it is dropped.
pub struct Running {
    arguments: String,
    child: Child,
    stdout: std::fs::File,
    stderr: std::fs::File,
    /// When somebody last began to wait for something.
    begun: Instant,
}

impl Running {
    /// Whether it goes on.
    pub fn goes_on(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `condition` holds; fails if the program ends before.
    #[track_caller]
    pub fn until(&mut self, what: &str, condition: impl Fn() -> bool) {
        self.begun = Instant::now();
        while !condition() {
            let ended = !self.goes_on();
            // It may have come true just before the end.
            assert!(!ended || condition(), "`imago {}` ended before {what}", self.arguments);
            self.check_patience(what);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it has worked for so long again; fails if it ends before.
    #[track_caller]
    pub fn works(&mut self, more: Duration) {
        let schedule = format!("/proc/{}/schedstat", self.child.id());
        let worked = move || -> Option<Duration> {
            let text = std::fs::read_to_string(&schedule).ok()?;
            text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        };
        let before = worked().unwrap_or_default();
        self.until("it has worked", || worked().is_some_and(|now| now >= before + more));
    }

    #[track_caller]
    fn check_patience(&self, what: &str) {
        assert!(self.begun.elapsed() < PATIENCE, "`imago {}` hangs before {what}", self.arguments);
    }

    /// Sends a signal, as in `kill -TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// `kill -9`. Whether there was still something to kill.
    pub fn kill(mut self) -> bool {
        let goes_on = self.goes_on();
        self.child.kill().unwrap();
        let status: ExitStatus = self.child.wait().unwrap();
        goes_on && status.code().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Output {
        self.begun = Instant::now();
        while self.goes_on() {
            self.check_patience("its end");
            std::thread::sleep(Duration::from_millis(2));
        }
        Output {
            arguments: std::mem::take(&mut self.arguments),
            code: self.child.wait().unwrap().code(),
            stdout: content(&mut self.stdout),
            stderr: content(&mut self.stderr),
        }
    }
}

fn content(file: &mut std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
    String::from_utf8(bytes).unwrap()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Python with the packages of the project.
pub fn python(script: &str, arguments: &[&Path]) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let output = Command::new(python).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
