//! The state of an environment in Python, as bytes.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use std::ffi::CString;

/// The Python half of this file.
fn module<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let load = || -> PyResult<Py<PyModule>> {
        let source = CString::new(include_str!("python_state.py"))?;
        Ok(PyModule::from_code(py, &source, c"python_state.py", c"imago_state")?.unbind())
    };
    Ok(MODULE.get_or_try_init(py, load)?.bind(py))
}

/// Whether all that distinguishes a moment of `env` can be saved.
pub(crate) fn can_save(env: &Bound<PyAny>) -> PyResult<bool> {
    module(env.py())?.call_method1("can_save", (env,))?.extract()
}

/// This moment of `env`.
pub(crate) fn save(env: &Bound<PyAny>) -> PyResult<Vec<u8>> {
    module(env.py())?.call_method1("save", (env,))?.extract()
}

/// Returns to a moment of an environment made the same way.
pub(crate) fn load(env: &Bound<PyAny>, state: &[u8]) -> PyResult<()> {
    let py = env.py();
    module(py)?.call_method1("load", (env, PyBytes::new(py, state))).map(drop)
}
