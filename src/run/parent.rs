//! Processes that this program starts of itself end with it, however it ends.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::error::{Error, Result};

/// Makes the kernel kill this process when the process `parent` that started it is gone (more exactly: when the
/// thread that started it ends). `false` if it is gone already: then there is nothing to do any more.
pub fn end_with_parent(parent: u32) -> Result<bool> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Error::Invalid(format!("cannot be bound to process {parent}: {error}")))?;
    // It may have ended before the kernel was asked.
    Ok(getppid().map(Pid::as_raw_pid) == i32::try_from(parent).ok())
}
