//! Nothing that an environment has started outlives this process, however that ends.
//!
//! Game engines are processes of their own, and some ignore being asked to end. They inherit our environment
//! variables; one of them marks them as ours. A shell waits until this process is gone (the pipe that it reads closes
//! then, after a kill −9 too) and ends whatever bears the mark.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The variable that marks descendants. Those of a descendant bear the mark of the first of the line.
const MARK: &str = "IMAGO_GUARD";

/// Waits for the end of its input; then, for 5 seconds or until none is left, kills whoever bears the mark `$1`. Its
/// own environment is empty: it bears none.
const WAIT_AND_END: &str = r#"
trap '' HUP INT TERM
read -r _
rounds=0
while [ $rounds -lt 50 ]; do
    found=
    for environment in /proc/[0-9]*/environ; do
        if grep -qsF "$1" "$environment"; then
            process=${environment#/proc/}
            kill -9 "${process%/environ}" 2>/dev/null && found=yes
        fi
    done
    [ -n "$found" ] || exit 0
    sleep 0.1
    rounds=$((rounds + 1))
done
"#;

/// Starts the guard, once. What this process starts from now on is marked.
///
/// # Safety
/// It writes an environment variable: nothing else may read or write them meanwhile.
pub(crate) unsafe fn set() {
    // Never waited for: it ends after us. The pipe to it is held until then.
    static GUARD: OnceLock<Option<Child>> = OnceLock::new();
    GUARD.get_or_init(|| {
        if std::env::var_os(MARK).is_some() {
            return None; // a descendant of a process that has one
        }
        let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mark = format!("{}-{}", std::process::id(), begun.as_nanos());
        let guard = start(&format!("{MARK}={mark}"));
        match guard {
            // SAFETY: what this function asks for.
            Ok(_) => unsafe { std::env::set_var(MARK, mark) },
            Err(ref error) => tracing::debug!("engines may outlive a killed run: cannot start sh: {error}"),
        }
        guard.ok()
    });
}

/// In a process group of its own, so that Ctrl-C does not end it first.
fn start(mark: &str) -> io::Result<Child> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    Command::new("/bin/sh")
        .args(["-c", WAIT_AND_END, "imago-guard", mark])
        .env_clear()
        .env("PATH", path)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}
