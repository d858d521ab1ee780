//! Python as a guest: whose signals, whose environment variables, and what is said when Gymnasium is missing.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{EnvSpec, Gymnasium};
use pyo3::prelude::*;

/// Bits of the signals this process has handlers for, and of those it ignores.
fn signals() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    ["SigCgt:", "SigIgn:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    })
}

/// One test, because the steps depend on each other and on a process of their own.
#[test]
fn python_is_a_guest() {
    let before = signals();
    imago_envs::python::start();
    imago_envs::python::start();
    Python::attach(|py| {
        let modules = py.import("sys").unwrap().getattr("modules").unwrap();
        modules.set_item("gymnasium", py.None()).unwrap();
    });
    let message = Gymnasium::new(&EnvSpec::new("gym:CartPole-v1")).err().unwrap().to_string();
    assert_eq!(
        message,
        "environment `gym:CartPole-v1`: import gymnasium: Python raised ModuleNotFoundError: \
         import of gymnasium halted; None in sys.modules; run `make setup`"
    );
    Python::attach(|py| {
        let sys = py.import("sys").unwrap();
        sys.getattr("modules").unwrap().del_item("gymnasium").unwrap();
        let prefix: String = sys.getattr("prefix").unwrap().extract().unwrap();
        assert!(prefix.ends_with(".venv"), "{prefix}");
        let executable: String = sys.getattr("executable").unwrap().extract().unwrap();
        assert!(executable.ends_with(".venv/bin/python"), "{executable}");
        let environ = py.import("os").unwrap().getattr("environ").unwrap();
        assert!(!environ.contains("PYTHONEXECUTABLE").unwrap());
    });
    assert!(std::env::var_os("PYTHONEXECUTABLE").is_none(), "children would inherit it");
    let env = Gymnasium::new(&EnvSpec::new("gym:CartPole-v1")).unwrap();
    // Ctrl-C is signal 2, bit 1; Python took none of them.
    assert_eq!(signals(), before);
    drop(env);
}
