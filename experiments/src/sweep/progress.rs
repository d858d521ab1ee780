//! How far a sweep is: a bar for each run that is trained and one for all; where there is no terminal, a line for
//! each that has ended.

use super::report::return_of;
use super::{Planned, State};
use crate::processes::tail;
use imago::run::{Stderr, screen};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time between two looks at what the runs log.
const PAUSE: Duration = Duration::from_millis(300);

/// More than a line of `metrics.jsonl` has.
const LAST_BYTES: u64 = 8192;

/// What is shown.
pub struct Display {
    begun: Instant,
    count: usize,
    ended: usize,
    failed: usize,
    shown: Shown,
}

enum Shown {
    Nothing,
    Lines,
    Bars { all: ProgressBar, running: Vec<(String, PathBuf, ProgressBar)>, next: Instant },
}

impl Display {
    /// Of those runs that are to be trained.
    pub fn new(quiet: bool, runs: &[Planned], todo: &[usize]) -> Self {
        let kept = runs.len() - todo.len();
        let shown = if quiet {
            Shown::Nothing
        } else if io::stderr().is_terminal() {
            let all = screen().add(ProgressBar::new(runs.len() as u64));
            let template = "{pos} of {len} runs {wide_bar} {msg}{elapsed} gone";
            if let Ok(style) = ProgressStyle::with_template(template) {
                all.set_style(style);
            }
            all.set_position(kept as u64);
            Shown::Bars { all, running: Vec::new(), next: Instant::now() }
        } else {
            Shown::Lines
        };
        let display = Self { begun: Instant::now(), count: todo.len(), ended: 0, failed: 0, shown };
        if kept > 0 {
            display.say(&format!("{kept} of {} runs are finished already and kept", runs.len()));
        }
        display
    }

    fn say(&self, text: &str) {
        if !matches!(self.shown, Shown::Nothing) {
            // Whoever closed stderr does not want to know.
            let _ = writeln!(Stderr, "{text}");
        }
    }

    /// A run has begun.
    pub fn begun(&mut self, run: &Planned) {
        if let Shown::Bars { running, .. } = &mut self.shown {
            let bar = screen().add(ProgressBar::new(run.recipe.run.total_steps));
            if let Ok(style) = ProgressStyle::with_template("  {bar:20} {human_pos} steps  {msg}") {
                bar.set_style(style);
            }
            if let State::Begun(step) = run.state {
                bar.set_position(step);
            }
            bar.set_message(run.name.clone());
            running.push((run.name.clone(), run.path.clone(), bar));
        }
    }

    /// Looks how far the runs are, now and then.
    pub fn look(&mut self) {
        let Shown::Bars { all, running, next } = &mut self.shown else { return };
        if Instant::now() < *next {
            return;
        }
        *next = Instant::now() + PAUSE;
        all.tick();
        for (name, path, bar) in running {
            // There may be none yet, and the last line may be half written.
            let text = tail(&path.join("metrics.jsonl"), LAST_BYTES).unwrap_or_default();
            let line =
                text.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let Some(line) = line else { continue };
            bar.set_position(line["step"].as_u64().unwrap_or(0));
            if let Some(x) = line["rollout/return"].as_f64() {
                bar.set_message(format!("{name}  return {x:.1}"));
            }
        }
    }

    /// A run has ended.
    pub fn ended(&mut self, run: &Planned) {
        if let Shown::Bars { running, .. } = &mut self.shown
            && let Some(at) = running.iter().position(|(name, ..)| *name == run.name)
        {
            let (.., bar) = running.remove(at);
            bar.finish_and_clear();
            screen().remove(&bar);
        }
        let how = match &run.state {
            State::Finished(summary) => {
                self.ended += 1;
                return_of(summary).map_or("finished".into(), |x| format!("return {x:.1}"))
            }
            State::Failed(how) => {
                self.ended += 1;
                self.failed += 1;
                format!("failed: {}", how.replace('\n', "\n         "))
            }
            State::Begun(step) => format!("stopped at step {step}"),
            State::New => "stopped before its first checkpoint".into(),
        };
        if let Shown::Bars { all, .. } = &self.shown {
            all.inc(u64::from(matches!(run.state, State::Finished(_) | State::Failed(_))));
            if self.failed > 0 {
                all.set_message(format!("{} failed, ", self.failed));
            }
        }
        let (seconds, ended, count) = (self.begun.elapsed().as_secs_f64(), self.ended, self.count);
        self.say(&format!("[{seconds:>4.0} s] {ended:>2} of {count}: {}: {how}", run.name));
    }

    /// The end of the sweep.
    pub fn finish(&self) {
        if let Shown::Bars { all, .. } = &self.shown {
            all.finish_and_clear();
        }
    }
}
