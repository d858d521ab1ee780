//! Several calls of this same program, some at a time. One that fails does not stop the others; all end with this
//! process.

use crate::commands::worker::program_itself;
use anyhow::{Context, Result};
use imago::run::Stop;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// Time between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(20);

/// How much of what a failed call said is told: lines, and bytes to look for them in.
const LAST_LINES: usize = 5;
const LAST_BYTES: u64 = 8192;

/// One call of this program.
#[derive(Clone, Debug)]
pub struct Job {
    /// What messages call it.
    pub name: String,
    /// What follows `imago` on its command line.
    pub arguments: Vec<OsString>,
    /// Where its stderr goes. Its stdout goes nowhere.
    pub log: PathBuf,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With exit code 0.
    Done,
    /// Before its end, because this program was asked to stop; or never begun for that reason.
    Stopped,
    /// Otherwise: how, and the last lines that it said.
    Failed(String),
}

/// What [`run_all`] tells while it waits.
pub enum Event<'a> {
    /// Job number so-and-so has begun.
    Begun(usize),
    /// It has ended.
    Ended(usize, &'a Ended),
    /// Some time has passed.
    Waiting,
}

/// A process that is killed if nobody waits for its end.
struct Running {
    job: usize,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing to a child that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs all jobs, `at_once` at a time, in their order. Once `stop` is requested no more are begun, and those that
/// run are asked to stop with a checkpoint. Call it from a thread that lives until it returns: the kernel ends the
/// processes with it.
pub fn run_all(jobs: &[Job], at_once: usize, stop: &Stop, mut tell: impl FnMut(Event)) -> Vec<Ended> {
    let mut ends = vec![Ended::Stopped; jobs.len()];
    let mut waiting = 0..jobs.len();
    let mut running: Vec<Running> = Vec::new();
    let mut asked = false;
    loop {
        if stop.requested() && !asked {
            asked = true;
            running.iter().for_each(ask_to_stop);
        }
        while !asked
            && running.len() < at_once.max(1)
            && let Some(job) = waiting.next()
        {
            match start(&jobs[job]) {
                Ok(child) => {
                    running.push(Running { job, child });
                    tell(Event::Begun(job));
                }
                Err(error) => {
                    ends[job] = Ended::Failed(format!("{error:#}"));
                    tell(Event::Ended(job, &ends[job]));
                }
            }
        }
        if running.is_empty() {
            return ends;
        }
        std::thread::sleep(PAUSE);
        running.retain_mut(|Running { job, child }| {
            let end = match child.try_wait() {
                Ok(None) => return true,
                Ok(Some(status)) => end(status, asked, &jobs[*job].log),
                Err(error) => Ended::Failed(format!("it cannot be waited for: {error}")),
            };
            ends[*job] = end;
            tell(Event::Ended(*job, &ends[*job]));
            false
        });
        tell(Event::Waiting);
    }
}

fn start(job: &Job) -> Result<Child> {
    let log = File::create(&job.log).with_context(|| format!("cannot write {}", job.log.display()))?;
    program_itself()
        .arg0("imago")
        .args(&job.arguments)
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C reaches this process alone, which passes it on: a second signal would cost the checkpoint.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", job.name))
}

fn ask_to_stop(running: &Running) {
    if let Some(pid) = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw) {
        // One that has just ended needs no asking; until it is waited for, its number is nobody else's.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn end(status: ExitStatus, asked: bool, log: &Path) -> Ended {
    // By the signal itself: it came before the process listened.
    let stopped = status.code() == Some(3) || status.signal() == Some(Signal::TERM.as_raw());
    match status.code() {
        Some(0) => Ended::Done,
        _ if asked && stopped => Ended::Stopped,
        code => {
            let how = match (code, status.signal()) {
                (Some(3), _) => "it was stopped by a signal".into(),
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(9)) => "killed by signal 9 (is there enough memory?)".into(),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => status.to_string(),
            };
            let said = last_lines(log).unwrap_or_default();
            Ended::Failed(if said.is_empty() { how } else { format!("{how}\n{said}") })
        }
    }
}

/// The last lines of a file, however long it is.
fn last_lines(path: &Path) -> std::io::Result<String> {
    let text = tail(path, LAST_BYTES)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
}

/// The last `bytes` of a text file.
///
/// # Errors
/// None that can be read.
pub fn tail(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text: String = (0..2000).map(|i| format!("line {i}\n\n")).collect();
        std::fs::write(&log, text).unwrap();
        assert_eq!(last_lines(&log).unwrap(), "line 1995\nline 1996\nline 1997\nline 1998\nline 1999");
        let status = |code: i32| ExitStatus::from_raw(code);
        std::fs::write(&log, "imago: no luck\n").unwrap();
        assert_eq!(end(status(0), false, &log), Ended::Done);
        assert_eq!(end(status(1 << 8), true, &log), Ended::Failed("exit code 1\nimago: no luck".into()));
        assert_eq!(end(status(3 << 8), true, &log), Ended::Stopped);
        assert_eq!(end(status(15), true, &log), Ended::Stopped);
        std::fs::write(&log, "").unwrap();
        assert_eq!(end(status(3 << 8), false, &log), Ended::Failed("it was stopped by a signal".into()));
        assert_eq!(end(status(11), false, &log), Ended::Failed("killed by signal 11".into()));
    }
}
