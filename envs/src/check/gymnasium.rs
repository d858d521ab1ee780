//! The part of a check that looks at an environment from inside Python.

use super::Severity;
use crate::env::{Env, EnvSpec};
use crate::error::{Error, Result};
use crate::gymnasium::{Gymnasium, describe, ready};
use crate::python;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CString;
use std::time::Duration;

/// The rule under which Gymnasium's own checker speaks.
pub(super) const CHECKER: &str = "gymnasium";

/// The Python half of this file.
fn module<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let load = || -> PyResult<Py<PyModule>> {
        let source = CString::new(include_str!("gymnasium.py"))?;
        Ok(PyModule::from_code(py, &source, c"check/gymnasium.py", c"imago_check")?.unbind())
    };
    Ok(MODULE.get_or_try_init(py, load)?.bind(py))
}

/// Whether the registered environment says of itself that its episodes do not repeat. It has been made before.
pub(super) fn declared_nondeterministic(spec: &EnvSpec) -> bool {
    let ask = |py: Python| -> PyResult<bool> {
        module(py)?.getattr("nondeterministic")?.call1((Gymnasium::name(&spec.id),))?.extract()
    };
    python::attach(|py| ask(py).unwrap_or(false))
}

/// Plays with `env` and closes it. With `whole`, Gymnasium's checker has its say.
pub(super) fn examine(
    env: Gymnasium,
    time: Duration,
    whole: bool,
) -> Result<Vec<(Severity, &'static str, String)>> {
    let ask = |py: Python| -> PyResult<Vec<(bool, String, String)>> {
        module(py)?.getattr("examine")?.call1((env.python(py), time.as_secs_f64(), whole))?.extract()
    };
    let found = python::attach(|py| {
        ask(py).map_err(|error| Error::Python {
            id: env.id().into(),
            doing: "check",
            message: describe(py, &error),
        })
    })?;
    let rules = ["type", "flags", "aliasing", "close", CHECKER];
    Ok(found
        .into_iter()
        .map(|(violation, rule, message)| {
            let severity = if violation { Severity::Violation } else { Severity::Warning };
            (severity, rules.into_iter().find(|known| *known == rule).unwrap_or("python"), message)
        })
        .collect())
}

impl Gymnasium {
    /// What changes whenever the environment `spec` may have: Gymnasium's version, and when its file, or any file of
    /// the package that it is in, was written. Messages call it `id`.
    pub(crate) fn version(spec: &EnvSpec, id: &str) -> Result<String> {
        python::start();
        python::attach(|py| {
            let name = Self::name(&spec.id);
            ready(py, spec, id, name)?;
            let ask = || -> PyResult<String> { module(py)?.getattr("version")?.call1((name,))?.extract() };
            ask().map_err(|error| Error::Python {
                id: id.into(),
                doing: "look at its file",
                message: describe(py, &error),
            })
        })
    }
}
