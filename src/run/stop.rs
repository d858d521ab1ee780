//! Stopping on request: the first signal asks, the second one does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::error::{Error, Result};

/// Whether the run has been asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that no signal sets.
    pub fn never() -> Self {
        Stop::default()
    }

    /// From now on, the first SIGINT (Ctrl-C) or SIGTERM asks the run to stop after its
    /// iteration, and a second one ends the process at once with 130 or 143.
    pub fn on_signals() -> Result<Self> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal passes the first action and sets the flag in the
            // second, so that only the next signal finds it set.
            flag::register_conditional_shutdown(signal, 128 + signal, stop.0.clone())
                .and_then(|_| flag::register(signal, stop.0.clone()))
                .map_err(|e| Error::Invalid(format!("cannot listen to signal {signal}: {e}")))?;
        }
        Ok(stop)
    }

    /// Asks the run to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked to.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
