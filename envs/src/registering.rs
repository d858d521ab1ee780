//! Which Python module registers an id of Gymnasium's, where its user need not know.

use crate::games;
use pyo3::prelude::*;

/// Beginnings of ids, and the module whose import registers them.
const MODULES: [(&str, &str); 5] = [
    ("ALE/", "ale_py"),
    ("BabyAI-", "minigrid"),
    ("MiniGrid-", "minigrid"),
    (VIZDOOM, "vizdoom.gymnasium_wrapper"),
    ("seals/", "seals"),
];

/// Those of the package vizdoom itself, whose engines are to behave like ours.
const VIZDOOM: &str = "Vizdoom";

/// Puts `path` on Python's search path, first, unless it is there.
pub(crate) fn search(py: Python, path: Option<&str>) -> PyResult<()> {
    let Some(path) = path else { return Ok(()) };
    let search = py.import("sys")?.getattr("path")?;
    if !search.contains(path)? {
        search.call_method1("insert", (0, path))?;
    }
    Ok(())
}

/// Imports what registers `name`, an id with or without `module:` before it, with `path` on Python's search path.
/// Whatever is not in the table is left to Gymnasium.
pub(crate) fn prepare(py: Python, name: &str, path: Option<&str>) -> PyResult<()> {
    search(py, path)?;
    if let Some((_, module)) = MODULES.iter().find(|(beginning, _)| name.starts_with(beginning)) {
        let module = py.import(*module)?;
        // Atari's emulator prints who it is with every instance.
        if let (Ok(emulator), Ok(modes)) = (module.getattr("ALEInterface"), module.getattr("LoggerMode")) {
            emulator.call_method1("setLoggerMode", (modes.getattr("Error")?,))?;
        }
    }
    games::load(py, if name.starts_with(VIZDOOM) { games::DOOM } else { name })
}
