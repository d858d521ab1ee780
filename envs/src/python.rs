//! The embedded Python interpreter.

use pyo3::ffi;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Starts the interpreter of the project's `.venv`; later calls do nothing. [`Gymnasium`](crate::Gymnasium)
/// calls it when it is first needed; a program with threads should call it first thing in `main`, since it
/// writes an environment variable for a moment, and another one for good (see the guard of engines).
///
/// Python installs no signal handlers: Ctrl-C stays with the program.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: as below.
        unsafe { crate::guard::set() };
        // The interpreter looks for `pyvenv.cfg` beside this file. Cargo gives the path at build time
        // (.cargo/config.toml); without it, or once it is gone, Python starts bare and lacks Gymnasium.
        if let Some(python) = executable() {
            // SAFETY: nothing else writes the environment meanwhile, which is what "first thing in main" asks.
            unsafe { std::env::set_var("PYTHONEXECUTABLE", python) };
        }
        Python::initialize();
        // An error here leaves Python as it is, which is no reason to refuse to run.
        let _ = Python::attach(be_a_guest);
    });
}

/// The Python that Cargo built this program for, if it is still there.
fn executable() -> Option<PathBuf> {
    option_env!("PYO3_PYTHON").map(PathBuf::from).filter(|path| path.exists())
}

/// The Python of the project's `.venv`, if it is there. Never one of the system's.
pub fn interpreter() -> Option<PathBuf> {
    executable().filter(|python| {
        python.ancestors().nth(2).is_some_and(|environment| environment.join("pyvenv.cfg").exists())
    })
}

/// Where the packages of the project's `.venv` lie.
pub(crate) fn site_packages() -> Option<PathBuf> {
    let lib = interpreter()?.ancestors().nth(2)?.join("lib");
    let mut versions = std::fs::read_dir(lib).ok()?.filter_map(Result::ok);
    let version = versions.find(|entry| entry.file_name().to_string_lossy().starts_with("python3."))?;
    Some(version.path().join("site-packages"))
}

fn be_a_guest(py: Python) -> PyResult<()> {
    // Children that run another Python must not inherit it: they would take this .venv for theirs.
    let environ = py.import("os")?.getattr("environ")?;
    environ.call_method1("pop", ("PYTHONEXECUTABLE", py.None()))?;
    // pygame greets on standard output whoever imports it.
    environ.call_method1("setdefault", ("PYGAME_HIDE_SUPPORT_PROMPT", "1"))?;
    // The interpreter starts without signal handlers, but the first import of `signal` (by nearly anything)
    // takes SIGINT where it finds the default action. So it is imported here, and the default put back.
    let signal = py.import("signal")?;
    let interrupt = signal.getattr("SIGINT")?;
    if signal.call_method1("getsignal", (&interrupt,))?.is(signal.getattr("default_int_handler")?) {
        signal.call_method1("signal", (interrupt, signal.getattr("SIG_DFL")?))?;
    }
    Ok(())
}

/// The `pip` that installs into the interpreter's environment, as one would type it here.
pub(crate) fn pip(py: Python) -> String {
    let executable = || -> PyResult<String> { py.import("sys")?.getattr("executable")?.extract() };
    let Ok(executable) = executable() else { return "pip".into() };
    let pip = Path::new(&executable).with_file_name("pip");
    let here = std::env::current_dir().unwrap_or_default();
    pip.strip_prefix(&here).unwrap_or(&pip).display().to_string()
}

/// Runs `f` with the GIL held.
///
/// A thread's first call keeps Python's record of the thread until the thread ends. Left alone, Python would
/// make and delete it around every call, which took longer than a step of CartPole.
pub(crate) fn attach<R>(f: impl FnOnce(Python) -> R) -> R {
    thread_local!(static RECORD: Record = Record::keep());
    Python::attach(|py| {
        // Not in a thread that is ending: there it is only slower.
        let _ = RECORD.try_with(|_| ());
        f(py)
    })
}

/// One use of this thread's Python record, so that it never has none.
struct Record(ffi::PyGILState_STATE);

impl Record {
    /// Called with the GIL held, so that the state is "locked" and nothing is acquired for good.
    fn keep() -> Self {
        // SAFETY: the interpreter runs; `drop` releases it in the same thread.
        Self(unsafe { ffi::PyGILState_Ensure() })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: the use that `keep` added is released inside another one, with the GIL held as it was then;
        // the record itself goes with the last use.
        unsafe {
            if ffi::Py_IsInitialized() != 0 {
                let outer = ffi::PyGILState_Ensure();
                ffi::PyGILState_Release(self.0);
                ffi::PyGILState_Release(outer);
            }
        }
    }
}
