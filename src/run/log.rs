//! The numbers of a run: collected while it goes on, written to TensorBoard and to
//! `metrics.jsonl` once per interval.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::atomic;
use super::error::{Error, Result};
use super::events::EventFile;
use super::state::{State, word};

const METRICS: &str = "metrics.jsonl";
/// Episodes in the running means of return and length.
const EPISODES: usize = 100;
/// How long writing rests after it failed.
const RETRY: Duration = Duration::from_secs(30);

/// Collects what happens in an interval of training.
///
/// Writing never fails the run: a full disk is warned about once, what cannot be written is
/// dropped, and writing is tried again later.
pub struct Log {
    /// Before every name: see [`Log::scope`].
    prefix: String,
    scalars: BTreeMap<String, Mean>,
    histograms: BTreeMap<String, Vec<f64>>,
    texts: BTreeMap<String, String>,
    images: BTreeMap<String, (u32, u32, Vec<u8>)>,
    returns: VecDeque<f64>,
    lengths: VecDeque<f64>,
    episodes: u64,
    files: Option<Files>,
}

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: i64,
}

impl Log {
    /// A log that begins in the run directory `folder`.
    pub fn create(folder: &Path) -> Result<Self> {
        Ok(Log { files: Some(Files::open(folder, None)?), ..Log::in_memory() })
    }

    /// Makes this log go on in `folder` from `step`: what was written there about later steps is
    /// taken back.
    pub fn resume(&mut self, folder: &Path, step: u64) -> Result<()> {
        self.files = Some(Files::open(folder, Some(step))?);
        Ok(())
    }

    /// A log that only collects; for evaluations, measurements and tests.
    pub fn in_memory() -> Self {
        Log {
            prefix: String::new(),
            scalars: BTreeMap::new(),
            histograms: BTreeMap::new(),
            texts: BTreeMap::new(),
            images: BTreeMap::new(),
            returns: VecDeque::new(),
            lengths: VecDeque::new(),
            episodes: 0,
            files: None,
        }
    }

    /// What `f` logs goes under `name/…`, so that two of a kind do not write into each other's curves.
    pub fn scope<R>(&mut self, name: &str, f: impl FnOnce(&mut Log) -> R) -> R {
        let outer = self.prefix.len();
        self.prefix += name;
        self.prefix.push('/');
        let result = f(self);
        self.prefix.truncate(outer);
        result
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A number. Several under one name within an interval are averaged.
    pub fn scalar(&mut self, name: &str, x: f64) {
        let mean = self.scalars.entry(self.full(name)).or_default();
        mean.sum += x;
        mean.count += 1;
    }

    /// A distribution. The last one of an interval is written.
    pub fn histogram(&mut self, name: &str, values: Vec<f64>) {
        self.histograms.insert(self.full(name), values);
    }

    /// A text in Markdown. The last one of an interval is written.
    pub fn text(&mut self, name: &str, markdown: &str) {
        self.texts.insert(self.full(name), markdown.to_string());
    }

    /// An image from encoded bytes (PNG, GIF). The last one of an interval is written.
    pub fn image(&mut self, name: &str, width: u32, height: u32, encoded: Vec<u8>) {
        self.images.insert(self.full(name), (width, height, encoded));
    }

    /// An episode of training that has ended.
    pub fn episode(&mut self, episode_return: f64, length: u64) {
        for (window, x) in [(&mut self.returns, episode_return), (&mut self.lengths, length as f64)] {
            if window.len() == EPISODES {
                window.pop_front();
            }
            window.push_back(x);
        }
        self.episodes += 1;
    }

    /// Mean return of the last hundred episodes.
    pub fn return_mean(&self) -> Option<f64> {
        mean(&self.returns)
    }

    /// Mean length of the last hundred episodes.
    pub fn length_mean(&self) -> Option<f64> {
        mean(&self.lengths)
    }

    /// Episodes since the run began.
    pub fn episodes(&self) -> u64 {
        self.episodes
    }

    /// What the interval would write under `name` now.
    pub fn current(&self, name: &str) -> Option<f64> {
        self.scalars.get(name).map(|mean| mean.sum / mean.count as f64)
    }

    /// Whether the interval has nothing to write yet.
    pub fn is_empty(&self) -> bool {
        self.scalars.is_empty()
            && self.histograms.is_empty()
            && self.texts.is_empty()
            && self.images.is_empty()
    }

    /// Ends the interval: writes it under `step`, `seconds` into the run.
    pub fn flush(&mut self, step: u64, seconds: f64) {
        let means = [("rollout/return", self.return_mean()), ("rollout/length", self.length_mean())];
        for (name, mean) in means {
            if let Some(mean) = mean {
                self.scalar(name, mean);
            }
        }
        let scalars: Vec<(String, f64)> = std::mem::take(&mut self.scalars)
            .into_iter()
            .map(|(name, mean)| (name, mean.sum / mean.count as f64))
            .collect();
        let histograms = std::mem::take(&mut self.histograms);
        let texts = std::mem::take(&mut self.texts);
        let images = std::mem::take(&mut self.images);
        let Some(files) = &mut self.files else { return };
        files.attempt(|files| {
            // The lines do without TensorBoard, and the other way round.
            let lines = files.append(&line(step, seconds, &scalars));
            let events = files.record(|events| {
                scalars.iter().try_for_each(|(name, x)| events.scalar(name, *x, step))?;
                histograms.iter().try_for_each(|(name, values)| events.histogram(name, values, step))?;
                texts.iter().try_for_each(|(name, text)| events.text(name, text, step))?;
                images.iter().try_for_each(|(name, (w, h, bytes))| events.image(name, *w, *h, bytes, step))
            });
            lines.and(events)
        });
    }

    /// Writes to TensorBoard what is not part of an interval: hyperparameters.
    pub fn record(&mut self, write: impl FnOnce(&mut EventFile) -> io::Result<()>) {
        if let Some(files) = &mut self.files {
            files.attempt(|files| files.record(write));
        }
    }

    /// What of the log outlives a pause: the running means, and the scalars of an interval that
    /// is not over.
    pub fn state(&mut self, s: &mut State) -> Result<()> {
        let mut returns: Vec<f64> = self.returns.iter().copied().collect();
        let mut lengths: Vec<f64> = self.lengths.iter().copied().collect();
        let mut names: Vec<String> = self.scalars.keys().cloned().collect();
        let mut sums: Vec<f64> = self.scalars.values().map(|mean| mean.sum).collect();
        let mut counts: Vec<i64> = self.scalars.values().map(|mean| mean.count).collect();
        s.vector("returns", &mut returns)?;
        s.vector("lengths", &mut lengths)?;
        s.value("episodes", &mut self.episodes)?;
        s.value("names", &mut names)?;
        s.vector("sums", &mut sums)?;
        s.vector("counts", &mut counts)?;
        if s.is_loading() {
            self.returns = returns.into();
            self.lengths = lengths.into();
            let means = sums.into_iter().zip(counts).map(|(sum, count)| Mean { sum, count });
            self.scalars = names.into_iter().zip(means).collect();
        }
        Ok(())
    }
}

fn mean(window: &VecDeque<f64>) -> Option<f64> {
    (!window.is_empty()).then(|| window.iter().sum::<f64>() / window.len() as f64)
}

/// The files of a log, and what to do when they cannot be written.
struct Files {
    folder: PathBuf,
    /// `None` after an error: the file may end in half a record, so the next try begins another.
    events: Option<EventFile>,
    metrics: File,
    /// Whether `metrics` ends in half a line that could not be cut off.
    half_line: bool,
    failed: Option<Instant>,
    retry: Duration,
    lost: u64,
}

impl Files {
    fn open(folder: &Path, resumed: Option<u64>) -> Result<Self> {
        let path = folder.join(METRICS);
        if let Some(step) = resumed {
            cut_back(&path, step)?;
        }
        let metrics =
            File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        let begin = || -> io::Result<EventFile> {
            let mut events = EventFile::create(folder)?;
            if let Some(step) = resumed {
                events.resumed_at(step)?;
            }
            events.flush()?;
            Ok(events)
        };
        let events = Some(begin().map_err(Error::io("begin an event file in", folder))?);
        let folder = folder.to_path_buf();
        Ok(Files { folder, events, metrics, half_line: false, failed: None, retry: RETRY, lost: 0 })
    }

    fn attempt(&mut self, write: impl FnOnce(&mut Files) -> io::Result<()>) {
        if self.failed.is_some_and(|when| when.elapsed() < self.retry) {
            self.lost += 1;
            return;
        }
        match write(self) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    tracing::warn!(lost = self.lost, "the log can be written again; some intervals are lost");
                }
                self.lost = 0;
            }
            Err(error) => {
                if self.failed.is_none() {
                    tracing::warn!(
                        "{}: cannot write the log: {error}; training goes on, and writing is tried again",
                        self.folder.display()
                    );
                }
                self.failed = Some(Instant::now());
                self.lost += 1;
            }
        }
    }

    fn record(&mut self, write: impl FnOnce(&mut EventFile) -> io::Result<()>) -> io::Result<()> {
        let mut events = match self.events.take() {
            Some(events) => events,
            None => EventFile::create(&self.folder)?,
        };
        write(&mut events)?;
        events.flush()?;
        self.events = Some(events);
        Ok(())
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let length = self.metrics.metadata()?.len();
        let end = if self.half_line { "\n" } else { "" };
        let written = self.metrics.write_all(format!("{end}{line}\n").as_bytes());
        if written.is_ok() {
            self.half_line = false;
        } else if self.metrics.set_len(length).is_err() {
            self.half_line = true;
        }
        written
    }
}

/// One line of `metrics.jsonl`; built by hand so that step and time come first.
fn line(step: u64, seconds: f64, scalars: &[(String, f64)]) -> String {
    let mut line = format!("{{\"step\":{step},\"time\":{}", number(seconds));
    for (name, x) in scalars {
        line += &format!(",{}:{}", Value::from(name.as_str()), number(*x));
    }
    line + "}"
}

fn number(x: f64) -> String {
    if x.is_finite() { Value::from(x).to_string() } else { format!("\"{}\"", word(x)) }
}

/// Keeps the whole lines with a step up to `step`.
fn cut_back(path: &Path, step: u64) -> Result<()> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let kept: Vec<u8> = content
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| {
            let step_of_line =
                serde_json::from_slice::<Value>(line).ok().and_then(|value| value.get("step")?.as_u64());
            line.ends_with(b"\n") && step_of_line.is_some_and(|found| found <= step)
        })
        .flatten()
        .copied()
        .collect();
    if kept.len() == content.len() { Ok(()) } else { atomic::replace_with(path, &kept) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::run::tests::{metrics, python};
    use proptest::prelude::*;
    use serde_json::json;
    use std::process::Command;

    #[test]
    fn an_interval_is_one_line_of_means() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::create(folder.path()).unwrap();
        log.scalar("policy/entropy", 1.0);
        log.scalar("policy/entropy", 2.0);
        assert_eq!(log.current("policy/entropy"), Some(1.5));
        log.scalar("bad \"name\"", f64::NAN);
        log.scalar("worse", f64::NEG_INFINITY);
        for i in 0..150u32 {
            log.episode(f64::from(i), 10);
        }
        log.flush(64, 0.5);
        log.flush(128, 1.0);
        let lines = metrics(folder.path());
        assert_eq!(lines[0]["policy/entropy"], json!(1.5));
        assert_eq!((&lines[0]["step"], &lines[0]["time"]), (&json!(64), &json!(0.5)));
        assert_eq!((&lines[0]["bad \"name\""], &lines[0]["worse"]), (&json!("NaN"), &json!("-inf")));
        assert_eq!((&lines[0]["rollout/return"], &lines[0]["rollout/length"]), (&json!(99.5), &json!(10.0)));
        assert_eq!(lines[1].get("policy/entropy"), None);
        assert_eq!(log.episodes(), 150);
    }

    #[test]
    fn the_state_carries_means_over() {
        let mut log = Log::in_memory();
        log.episode(1.0, 5);
        log.episode(2.0, 7);
        log.scalar("x", 4.0);
        log.scalar("x", f64::INFINITY);
        let mut state = State::saving();
        log.state(&mut state).unwrap();
        let (tensors, values) = state.finish().unwrap();
        let mut other = Log::in_memory();
        let mut state = State::loading(tensors.into_iter().collect(), values);
        other.state(&mut state).unwrap();
        state.finish().unwrap();
        assert_eq!((other.return_mean(), other.length_mean()), (Some(1.5), Some(6.0)));
        assert_eq!((other.current("x"), other.episodes()), (Some(f64::INFINITY), 2));
    }

    #[test]
    fn resuming_takes_back_what_came_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::create(folder.path()).unwrap();
        for step in [10, 20, 30] {
            log.scalar("x", step as f64);
            log.flush(step, 0.0);
        }
        drop(log);
        // As a kill may leave it.
        let path = folder.path().join(METRICS);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":15,\"ti").unwrap();
        let mut log = Log::in_memory();
        log.resume(folder.path(), 20).unwrap();
        log.scalar("x", 31.0);
        log.flush(31, 0.0);
        let steps: Vec<u64> = metrics(folder.path()).iter().map(|l| l["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [10, 20, 31]);
        let script = "import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
e = EventAccumulator(sys.argv[1]); e.Reload()
print(json.dumps([s.step for s in e.Scalars('x')]))";
        if let Some(steps) = python(script, folder.path()) {
            assert_eq!(steps, json!([10, 20, 31]));
        }
    }

    #[test]
    fn a_metrics_file_that_refuses_does_not_stop_the_run() {
        if !Path::new("/dev/full").exists() {
            println!("skipped: there is no /dev/full");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.path().join(METRICS)).unwrap();
        let mut log = Log::create(folder.path()).unwrap();
        for step in 0..3 {
            log.scalar("x", 1.0);
            log.flush(step, 0.0);
        }
        let files = log.files.as_ref().unwrap();
        assert!(files.failed.is_some() && files.half_line);
        assert_eq!(files.lost, 3, "the second and third were not even tried");
    }

    #[test]
    fn a_full_disk_does_not_stop_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let mount = |program: &str, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).arg(folder.path()).output();
            done.is_ok_and(|done| done.status.success())
        };
        if !mount("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
            println!("skipped: no right to mount a small file system");
            return;
        }
        let result = std::panic::catch_unwind(|| fill_and_recover(folder.path()));
        mount("umount", &[]);
        result.unwrap();
    }

    fn fill_and_recover(folder: &Path) {
        let mut log = Log::create(folder).unwrap();
        log.files.as_mut().unwrap().retry = Duration::ZERO;
        for step in 0..2000 {
            log.scalar("x", 1.0);
            log.scalar("a rather long name to fill the disk sooner", 1.0 / 3.0);
            log.flush(step, 0.0);
        }
        assert!(log.files.as_ref().unwrap().failed.is_some(), "64 KiB held it all");
        let before = metrics(folder).len();
        assert!(before > 100);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains("tfevents") {
                fs::remove_file(path).unwrap();
            }
        }
        log.scalar("x", 7.0);
        log.flush(2000, 0.0);
        assert!(log.files.as_ref().unwrap().failed.is_none());
        let lines = metrics(folder);
        assert_eq!((lines.len(), &lines[lines.len() - 1]["x"]), (before + 1, &json!(7.0)));
        let script = "import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
e = EventAccumulator(sys.argv[1]); e.Reload()
print(json.dumps([[s.step, s.value] for s in e.Scalars('x')]))";
        if let Some(found) = python(script, folder) {
            assert_eq!(found.as_array().unwrap().last().unwrap(), &json!([2000, 7.0]));
        }
    }

    proptest! {
        #[test]
        fn every_line_is_json(step in any::<u64>(), seconds in any::<f64>(), name in any::<String>(), x in any::<f64>()) {
            let text = line(step, seconds, &[(name.clone(), x)]);
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["step"].as_u64(), Some(step));
            if x.is_finite() && name != "step" && name != "time" {
                prop_assert_eq!(value[&name].as_f64(), Some(x));
            }
            prop_assert!(!text.contains('\n'));
        }
    }
}
