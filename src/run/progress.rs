//! How far a run is: a bar on a terminal, now and then a line elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// The terminal is one, so there is one set of bars: [`Stderr`] must know it to write between
/// two drawings.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The bars that are on the terminal, for whoever shows several: [`Stderr`] knows them.
pub fn screen() -> &'static MultiProgress {
    &BARS
}

/// Shows on stderr how far a run is.
pub struct Progress {
    total: u64,
    begun: Instant,
    first_step: u64,
    last: (u64, Option<f64>),
    shown: Shown,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { next: Instant },
}

impl Progress {
    /// Begins at `step` of `total`.
    pub fn new(step: u64, total: u64, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Nothing
        } else if io::stderr().is_terminal() {
            let bar = BARS.add(ProgressBar::new(total));
            let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} steps  {msg}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_position(step);
            Shown::Bar(bar)
        } else {
            Shown::Lines { next: Instant::now() + PAUSE }
        };
        Progress { total, begun: Instant::now(), first_step: step, last: (step, None), shown }
    }

    /// Shows that the run is at `step`, with the mean return of late if there is one.
    pub fn update(&mut self, step: u64, return_mean: Option<f64>) {
        self.last = (step, return_mean);
        let (rate, left) = self.speed();
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(step);
                bar.set_message(describe(rate, return_mean, left));
            }
            Shown::Lines { next } => {
                if Instant::now() >= *next {
                    *next = Instant::now() + PAUSE;
                    self.line();
                }
            }
        }
    }

    /// Shows where the run ended.
    pub fn finish(&self) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.abandon(),
            Shown::Lines { .. } => self.line(),
        }
    }

    /// Steps per second since it began, and the time left at that rate.
    fn speed(&self) -> (f64, Duration) {
        let rate = (self.last.0 - self.first_step) as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        let left = self.total.saturating_sub(self.last.0) as f64 / rate;
        (rate, Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX))
    }

    fn line(&self) {
        let (rate, left) = self.speed();
        let text = describe(rate, self.last.1, left);
        // Whoever closed stderr does not want to know.
        let _ = writeln!(io::stderr(), "{}/{} steps  {text}", self.last.0, self.total);
    }
}

fn describe(rate: f64, return_mean: Option<f64>, left: Duration) -> String {
    let returns = return_mean.map(|x| format!("  return {x:.1}")).unwrap_or_default();
    format!("{rate:.0} steps/s{returns}  {} left", clock(left))
}

/// `1h02m`, `3m04s` or `5s`.
fn clock(time: Duration) -> String {
    match time.as_secs() {
        s if time == Duration::MAX || s >= 360_000_000 => "?".into(),
        s if s >= 3600 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        s if s >= 60 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{s}s"),
    }
}

/// The error stream for everything but the bar, such as log lines: it takes the bar off the
/// screen while it writes.
///
/// For `tracing_subscriber`: `.with_writer(|| Stderr)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(buffer))
    }

    // The bar must not come back between the pieces of one line.
    fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
        BARS.suspend(|| io::stderr().write_all(buffer))
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        BARS.suspend(|| io::stderr().write_fmt(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(clock(Duration::from_secs(5)), "5s");
        assert_eq!(clock(Duration::from_secs(184)), "3m04s");
        assert_eq!(clock(Duration::from_secs(3720)), "1h02m");
        assert_eq!(clock(Duration::MAX), "?");
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let mut progress = Progress::new(0, 0, true);
        progress.update(0, None);
        assert_eq!(clock(progress.speed().1), "?");
        progress.finish();
        let text = describe(3420.4, Some(21.25), Duration::from_secs(9));
        assert_eq!(text, "3420 steps/s  return 21.2  9s left");
    }
}
