//! Reward signals that users write in Python: the side that knows Python, and nothing of tensors.

use crate::error::{Error, Result};
use crate::gymnasium::{describe, to_python};
use crate::registering;
use crate::{Leaf, python};
use numpy::prelude::*;
use numpy::{Element, PyArray1, PyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use toml::Table;

/// A rollout of T steps of N environments in plain memory, as the Python object gets it: a dictionary of NumPy arrays of
/// these names, copies that it may keep or change.
#[derive(Debug)]
pub struct RolloutView<'a> {
    /// `[T, N]`
    pub lead: [usize; 2],
    /// Shape of one observation.
    pub observation_shape: &'a [usize],
    /// Shape of one action.
    pub action_shape: &'a [usize],
    /// `[T, N, …]`: in which the actions were taken.
    pub observation: Leaf<'a>,
    /// `[T, N, …]`: what truly followed, the final observation where the episode ended.
    pub next_observation: Leaf<'a>,
    /// `[T, N, …]`: as the policy chose them.
    pub action: Leaf<'a>,
    /// `[T, N]`: the environment's.
    pub reward: &'a [f32],
    /// `[T, N]`: the task ended the episode.
    pub terminated: &'a [bool],
    /// `[T, N]`: something else cut it off.
    pub truncated: &'a [bool],
    /// `[T, N]`: false where a row belongs to no episode; what is paid there counts nowhere.
    pub valid: &'a [bool],
}

/// An object of a Python class with `reward(rollout) → array [T, N]`, and, if it likes, `update(rollout) → None or a
/// dictionary of numbers for the log`, `get_state() → bytes` and `set_state(bytes)`.
pub struct PythonReward {
    target: String,
    object: Py<PyAny>,
}

impl PythonReward {
    /// Imports `module:Class`, from the directory `path` if there is one, and calls it with `args` as keyword arguments.
    /// Starts the interpreter if need be.
    ///
    /// # Errors
    /// No such module or class; an object without `reward`; whatever Python raises.
    pub fn new(path: Option<&str>, target: &str, args: &Table) -> Result<Self> {
        let refuse = |message: String| Error::Signal { target: target.into(), message };
        let Some((module, class)) = target.split_once(':').filter(|(m, c)| !m.is_empty() && !c.is_empty())
        else {
            return Err(refuse("expected `module:Class`".into()));
        };
        python::start();
        python::attach(|py| {
            let raised = |doing: &str, error: PyErr| {
                refuse(format!("{doing}: Python raised {}", describe(py, &error)))
            };
            registering::search(py, path).map_err(|error| raised("importing", error))?;
            let module = py.import(module).map_err(|error| raised("importing", error))?;
            let class = module.getattr(class).map_err(|error| raised("importing", error))?;
            let keywords = PyDict::new(py);
            for (key, value) in args {
                let value = to_python(py, value).map_err(|error| raised("making", error))?;
                let value =
                    value.ok_or_else(|| refuse(format!("args.{key}: write dates and times as strings")))?;
                keywords.set_item(key, value).map_err(|error| raised("making", error))?;
            }
            let object = class.call((), Some(&keywords)).map_err(|error| raised("making", error))?;
            match object.getattr("reward").is_ok_and(|method| method.is_callable()) {
                true => Ok(Self { target: target.into(), object: object.unbind() }),
                false => Err(refuse("it has no method `reward(self, rollout)`".into())),
            }
        })
    }

    fn refuse(&self, message: String) -> Error {
        Error::Signal { target: self.target.clone(), message }
    }

    fn raised(&self, py: Python, doing: &str, error: &PyErr) -> Error {
        self.refuse(format!("{doing}: Python raised {}", describe(py, error)))
    }

    fn has(&self, py: Python, method: &str) -> bool {
        self.object.bind(py).getattr(method).is_ok_and(|method| method.is_callable())
    }

    /// The reward of each step, `[T, N]`.
    ///
    /// # Errors
    /// An exception; another shape; what is no number, or no finite one in a valid row.
    pub fn reward(&self, rollout: &RolloutView) -> Result<Vec<f32>> {
        python::attach(|py| {
            let raised = |error: PyErr| self.raised(py, "reward", &error);
            let arrays = rollout.arrays(py).map_err(raised)?;
            let paid = self.object.bind(py).call_method1("reward", (arrays,)).map_err(raised)?;
            let numpy = py.import("numpy").map_err(raised)?;
            let paid = numpy.call_method1("ascontiguousarray", (paid, "float32")).map_err(raised)?;
            let paid = paid.cast_into::<PyArrayDyn<f32>>().map_err(|error| raised(error.into()))?;
            if paid.shape() != rollout.lead {
                let [steps, envs] = rollout.lead;
                return Err(self.refuse(format!(
                    "reward returned an array of shape {:?}, expected [{steps}, {envs}]: a number for each step of each \
                     environment",
                    paid.shape()
                )));
            }
            let mut paid = paid.to_vec().map_err(|error| raised(error.into()))?;
            for (i, (paid, &valid)) in paid.iter_mut().zip(rollout.valid).enumerate() {
                match valid {
                    true if !paid.is_finite() => {
                        let (step, env) = (i / rollout.lead[1], i % rollout.lead[1]);
                        return Err(self
                            .refuse(format!("reward returned {paid} in step {step} of environment {env}")));
                    }
                    true => {}
                    false => *paid = 0.0,
                }
            }
            Ok(paid)
        })
    }

    /// Lets it learn from a rollout, if it does; what it wants logged.
    ///
    /// # Errors
    /// An exception; something else than numbers by name.
    pub fn update(&self, rollout: &RolloutView) -> Result<Vec<(String, f64)>> {
        python::attach(|py| {
            if !self.has(py, "update") {
                return Ok(Vec::new());
            }
            let raised = |error: PyErr| self.raised(py, "update", &error);
            let arrays = rollout.arrays(py).map_err(raised)?;
            let said = self.object.bind(py).call_method1("update", (arrays,)).map_err(raised)?;
            if said.is_none() {
                return Ok(Vec::new());
            }
            let said = said.cast_into::<PyDict>().map_err(|error| raised(error.into()))?;
            said.iter()
                .map(|(name, value)| Ok((name.extract()?, value.extract()?)))
                .collect::<PyResult<_>>()
                .map_err(raised)
        })
    }

    /// What a checkpoint keeps of it; nothing if it has no `get_state`.
    ///
    /// # Errors
    /// An exception; something else than bytes.
    pub fn save(&self) -> Result<Vec<u8>> {
        python::attach(|py| {
            if !self.has(py, "get_state") {
                return Ok(Vec::new());
            }
            let state = self
                .object
                .bind(py)
                .call_method0("get_state")
                .and_then(|state| Ok(state.cast::<PyBytes>()?.as_bytes().to_vec()));
            state.map_err(|error| self.raised(py, "get_state", &error))
        })
    }

    /// Puts back what [`PythonReward::save`] gave; `false` if it cannot take it.
    ///
    /// # Errors
    /// An exception.
    pub fn load(&self, state: &[u8]) -> Result<bool> {
        python::attach(|py| {
            if !self.has(py, "set_state") {
                return Ok(false);
            }
            let done = self.object.bind(py).call_method1("set_state", (PyBytes::new(py, state),));
            done.map(|_| true).map_err(|error| self.raised(py, "set_state", &error))
        })
    }
}

impl RolloutView<'_> {
    fn arrays<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fn array<'py, T: Element>(
            py: Python<'py>,
            values: &[T],
            shape: &[usize],
        ) -> PyResult<Bound<'py, PyAny>> {
            Ok(PyArray1::from_slice(py, values).reshape(shape)?.into_any())
        }
        let leaf = |leaf: &Leaf, each: &[usize]| {
            let shape = [&self.lead, each].concat();
            match leaf {
                Leaf::F32(values) => array(py, values, &shape),
                Leaf::U8(values) => array(py, values, &shape),
                Leaf::I64(values) => array(py, values, &shape),
            }
        };
        let all = PyDict::new(py);
        all.set_item("observation", leaf(&self.observation, self.observation_shape)?)?;
        all.set_item("next_observation", leaf(&self.next_observation, self.observation_shape)?)?;
        all.set_item("action", leaf(&self.action, self.action_shape)?)?;
        all.set_item("reward", array(py, self.reward, &self.lead)?)?;
        for (name, flags) in
            [("terminated", self.terminated), ("truncated", self.truncated), ("valid", self.valid)]
        {
            all.set_item(name, array(py, flags, &self.lead)?)?;
        }
        Ok(all)
    }
}
