//! Any registered Gymnasium environment, through the embedded Python.

use crate::env::{Env, EnvSpec, Step};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::python;
use crate::space::{Dtype, Leaf, LeafMut, Space};
use numpy::prelude::*;
use numpy::{Element, PyArray1, PyArrayDyn, PyUntypedArray};
use pyo3::exceptions::{PyImportError, PyUserWarning};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use toml::Value;

/// A Gymnasium environment made by `gymnasium.make`.
///
/// - Observations: `Box` of up to three dimensions, stored as bytes if the space says uint8, else as 32-bit
///   floats; or `Discrete`, stored as offset from `start`. A `Box` of shape `()` is stored with shape `[1]`,
///   so that whoever reads it has a vector.
/// - Actions: `Box` of any float type, passed as an array of the space's shape and type; or `Discrete`, passed
///   as a Python int with `start` added. Each step passes a new array: environments and wrappers keep
///   references to the last action, and 0.1 µs is nothing beside a step in Python.
/// - `reset` passes the seed, folded to 31 bits (smaller seeds unchanged), each time.
/// - The GIL is held inside each call and not between two.
/// - It has pictures if the arguments say `render_mode = "rgb_array"`
///   ([`Registry::make_rendering`](crate::Registry::make_rendering) says so).
/// - It cannot save its state: a resumed run starts a new episode.
///
/// Gymnasium's environment checker is off unless the arguments say `disable_env_checker = false`; shapes,
/// types and NaN are checked here, each step.
pub struct Gymnasium {
    id: String,
    env: Py<PyAny>,
    /// Bound methods, so that a step looks nothing up.
    reset: Py<PyAny>,
    step: Py<PyAny>,
    /// `numpy.require`
    require: Py<PyAny>,
    /// Whether it was made with `render_mode = "rgb_array"`.
    renders: bool,
    observation: Space,
    action: Space,
    /// Shape as Python has it: `()` where the space above has `[1]`.
    observation_shape: Vec<usize>,
    action_shape: Vec<usize>,
    /// Python's dtype of a `Box` action that is not of 32-bit floats.
    action_dtype: Option<Py<PyAny>>,
}

impl Gymnasium {
    /// What names of Gymnasium environments start with in a recipe.
    pub const PREFIX: &str = "gym:";

    /// Makes the environment `gym:ID`, or `gym:module:ID` to import a Python module first that registers it
    /// (the module must be installed in the `.venv` or lie on `PYTHONPATH`). `spec.args` become keyword
    /// arguments, `spec.time_limit` becomes `max_episode_steps`. Starts the interpreter if need be.
    pub fn new(spec: &EnvSpec) -> Result<Self> {
        python::start();
        python::attach(|py| Self::make(py, spec))
    }

    fn make(py: Python, spec: &EnvSpec) -> Result<Self> {
        let id = &spec.id;
        let gymnasium = import(py).map_err(|error| {
            let hint = if error.is_instance_of::<PyImportError>(py) { "; run `make setup`" } else { "" };
            let message = describe(py, &error) + hint;
            Error::Python { id: id.clone(), doing: "import gymnasium", message }
        })?;
        let arguments = PyDict::new(py);
        let making = |error| raised(py, id, "make", error);
        arguments.set_item("disable_env_checker", true).map_err(making)?;
        for (name, value) in &spec.args {
            let value = to_python(py, value).map_err(making)?.ok_or_else(|| Error::BadArgument {
                id: id.clone(),
                argument: name.clone(),
                message: "dates and times cannot be passed to Python; write a string".into(),
            })?;
            arguments.set_item(name, value).map_err(making)?;
        }
        if let Some(limit) = spec.time_limit {
            arguments.set_item("max_episode_steps", limit).map_err(making)?;
        }
        let name = id.strip_prefix(Self::PREFIX).unwrap_or(id);
        let env = gymnasium.call_method("make", (name,), Some(&arguments)).map_err(making)?;
        let (observation, observation_shape, _) = read_space(&env, id, "observation")?;
        let (action, action_shape, action_dtype) = read_space(&env, id, "action")?;
        let bind = || -> PyResult<Self> {
            Ok(Self {
                id: id.clone(),
                reset: env.getattr("reset")?.unbind(),
                step: env.getattr("step")?.unbind(),
                require: py.import("numpy")?.getattr("require")?.unbind(),
                renders: spec.args.get("render_mode").and_then(Value::as_str) == Some("rgb_array"),
                env: env.unbind(),
                observation,
                action,
                observation_shape,
                action_shape,
                action_dtype: action_dtype.map(Bound::unbind),
            })
        };
        bind().map_err(making)
    }

    fn raised(&self, py: Python, doing: &'static str, error: PyErr) -> Error {
        raised(py, &self.id, doing, error)
    }

    fn broken(&self, message: String) -> Error {
        Error::Contract { id: self.id.clone(), message }
    }

    /// What `reset` or `step` returned, as a tuple of `count` values.
    fn unpack<'a, 'py>(
        &self,
        result: &'a Bound<'py, PyAny>,
        count: usize,
        expected: &str,
    ) -> Result<&'a Bound<'py, PyTuple>> {
        let found = match result.cast::<PyTuple>() {
            Ok(tuple) if tuple.len() == count => return Ok(tuple),
            Ok(tuple) => format!("{} values", tuple.len()),
            Err(_) => format!("a {}", type_name(result)),
        };
        Err(self.broken(format!("expected {expected}, found {found}")))
    }

    fn read(&self, py: Python, value: &Bound<PyAny>, mut observation: LeafMut) -> Result<()> {
        match &self.observation {
            Space::Discrete { n, start } => {
                let choice: i64 =
                    value.extract().map_err(|error| self.raised(py, "read the observation", error))?;
                let offset = choice.wrapping_sub(*start);
                if !(0..*n).contains(&offset) {
                    return Err(self.broken(format!("observation {choice} is not in {}", self.observation)));
                }
                observation.i64()[0] = offset;
            }
            Space::Box { dtype: Dtype::U8, .. } => {
                let observation = observation.u8();
                if !self.copy(value, observation, |x: u8| x)? {
                    let array = self.array::<u8>(py, value, true)?;
                    self.copy(&array, observation, |x: u8| x)?;
                }
            }
            Space::Box { .. } => {
                let observation = observation.f32();
                if !self.copy(value, observation, |x: f32| x)?
                    && !self.copy(value, observation, |x: f64| x as f32)?
                {
                    let array = self.array::<f32>(py, value, false)?;
                    self.copy(&array, observation, |x: f32| x)?;
                }
                if let Some(i) = observation.iter().position(|x| x.is_nan()) {
                    return Err(self.broken(format!("value {i} of the observation is NaN")));
                }
            }
        }
        Ok(())
    }

    /// Copies `value` if it is a plain array of `T` in memory order, and says whether it was. Refuses a wrong
    /// shape.
    fn copy<T: Element + Copy, U>(
        &self,
        value: &Bound<PyAny>,
        to: &mut [U],
        cast: impl Fn(T) -> U,
    ) -> Result<bool> {
        let Ok(array) = value.cast::<PyArrayDyn<T>>() else { return Ok(false) };
        if array.shape() != self.observation_shape {
            return Err(self.broken(format!(
                "expected an observation of shape {:?}, found {:?}",
                self.observation_shape,
                array.shape()
            )));
        }
        // `as_slice` accepts Fortran order too, and refuses unaligned memory.
        let Some(array) = array.try_readonly().ok().filter(|array| array.is_c_contiguous()) else {
            return Ok(false);
        };
        let Ok(from) = array.as_slice() else { return Ok(false) };
        for (to, from) in to.iter_mut().zip(from) {
            *to = cast(*from);
        }
        Ok(true)
    }

    /// `value` as an aligned array of `T` in memory order. `exact` refuses another type: a float image would
    /// silently become zeros.
    fn array<'py, T: Element>(
        &self,
        py: Python<'py>,
        value: &Bound<'py, PyAny>,
        exact: bool,
    ) -> Result<Bound<'py, PyAny>> {
        let dtype = numpy::dtype::<T>(py);
        if exact {
            let found = match value.cast::<PyUntypedArray>() {
                Ok(array) if array.dtype().is_equiv_to(&dtype) => None,
                Ok(array) => Some(array.dtype().to_string()),
                Err(_) => Some(format!("a {}", type_name(value))),
            };
            if let Some(found) = found {
                return Err(self.broken(format!("expected an observation of type {dtype}, found {found}")));
            }
        }
        let require = self.require.bind(py);
        require
            .call1((value, dtype, ("C_CONTIGUOUS", "ALIGNED")))
            .map_err(|error| self.raised(py, "read the observation", error))
    }

    fn action<'py>(&self, py: Python<'py>, action: Leaf) -> PyResult<Bound<'py, PyAny>> {
        if let Space::Discrete { start, .. } = self.action {
            return Ok((action.i64()[0] + start).into_pyobject(py)?.into_any());
        }
        let array = PyArray1::from_slice(py, action.f32());
        let array = match self.action_shape.len() {
            1 => array.into_any(),
            _ => array.reshape(self.action_shape.as_slice())?.into_any(),
        };
        match &self.action_dtype {
            Some(dtype) => array.call_method1("astype", (dtype,)),
            None => Ok(array),
        }
    }
}

impl Env for Gymnasium {
    fn id(&self) -> &str {
        &self.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        python::attach(|py| {
            let call = || {
                let arguments = PyDict::new(py);
                arguments.set_item("seed", fold(seed))?;
                self.reset.bind(py).call((), Some(&arguments))
            };
            let result = call().map_err(|error| self.raised(py, "reset", error))?;
            let result = self.unpack(&result, 2, "(observation, info) from reset")?;
            let value = result.get_item(0).map_err(|error| self.raised(py, "reset", error))?;
            self.read(py, &value, observation)
        })
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        python::attach(|py| {
            let raised = |error| self.raised(py, "step", error);
            let action = self.action(py, action).map_err(raised)?;
            let result = self.step.bind(py).call1((action,)).map_err(raised)?;
            let expected = "(observation, reward, terminated, truncated, info) from step";
            let result = self.unpack(&result, 5, expected)?;
            let item = |i| result.get_item(i).map_err(raised);
            self.read(py, &item(0)?, observation)?;
            let reward: f64 =
                item(1)?.extract().map_err(|error| self.raised(py, "read the reward", error))?;
            if !reward.is_finite() {
                return Err(self.broken(format!("the reward is {reward}")));
            }
            Ok(Step {
                reward,
                terminated: item(2)?.is_truthy().map_err(raised)?,
                truncated: item(3)?.is_truthy().map_err(raised)?,
            })
        })
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        if !self.renders {
            return Ok(None);
        }
        python::attach(|py| {
            let picture = self.picture(py).map_err(|error| self.raised(py, "render", error))?;
            picture.map(Some).map_err(|message| self.broken(message))
        })
    }
}

impl Gymnasium {
    /// What `env.render()` gave, as an image.
    fn picture(&self, py: Python) -> PyResult<std::result::Result<Frame, String>> {
        let picture = self.env.call_method0(py, "render")?;
        let array =
            self.require.bind(py).call1((picture, numpy::dtype::<u8>(py), ("C_CONTIGUOUS", "ALIGNED")))?;
        let array = array.cast::<PyArrayDyn<u8>>()?.try_readonly()?;
        let &[height, width, 3] = array.shape() else {
            return Ok(Err(format!(
                "expected a picture of shape [height, width, 3], found {:?}",
                array.shape()
            )));
        };
        let pixels = array.as_slice()?.as_chunks().0.to_vec();
        Ok(Ok(Frame { width, height, pixels }))
    }
}

impl Drop for Gymnasium {
    fn drop(&mut self) {
        // Nobody is left to tell about an error; an interpreter that has ended needs no closing.
        Python::try_attach(|py| drop(self.env.call_method0(py, "close")));
    }
}

/// Gymnasium itself. Its warnings to the authors of environments are hidden.
fn import(py: Python) -> PyResult<Bound<PyModule>> {
    py.import("numpy")?;
    let gymnasium = py.import("gymnasium")?;
    let filter = PyDict::new(py);
    filter.set_item("category", py.get_type::<PyUserWarning>())?;
    filter.set_item("module", r"gymnasium($|\.)")?;
    py.import("warnings")?.call_method("filterwarnings", ("ignore",), Some(&filter))?;
    Ok(gymnasium)
}

/// A space of the environment, its shape in Python, and the dtype of a `Box` unless that is float32.
fn read_space<'py>(
    env: &Bound<'py, PyAny>,
    id: &str,
    what: &'static str,
) -> Result<(Space, Vec<usize>, Option<Bound<'py, PyAny>>)> {
    let py = env.py();
    let read = || -> PyResult<_> {
        let spaces = py.import("gymnasium.spaces")?;
        let space = env.getattr(format!("{what}_space"))?;
        if space.is_instance(&spaces.getattr("Discrete")?)? {
            let (n, start) = (space.getattr("n")?.extract()?, space.getattr("start")?.extract()?);
            return Ok(Ok((Space::Discrete { n, start }, Vec::new(), None)));
        }
        if space.is_instance(&spaces.getattr("Box")?)? {
            let python_shape: Vec<usize> = space.getattr("shape")?.extract()?;
            let dtype = space.getattr("dtype")?;
            let kind: String = dtype.getattr("kind")?.extract()?;
            let bytes: usize = dtype.getattr("itemsize")?.extract()?;
            let fits = match what {
                "action" => kind == "f",
                _ => "biuf".contains(&kind) && python_shape.len() <= 3,
            };
            if fits && !python_shape.contains(&0) {
                let bound = |name| -> PyResult<Vec<f64>> {
                    let bound = space.getattr(name)?.call_method1("astype", ("float64",))?;
                    bound.call_method0("ravel")?.call_method0("tolist")?.extract()
                };
                let (low, high) = (bound("low")?, bound("high")?);
                let shape = if python_shape.is_empty() { vec![1] } else { python_shape.clone() };
                let stored = if kind == "u" && bytes == 1 { Dtype::U8 } else { Dtype::F32 };
                let space = Space::Box { shape, dtype: stored, low, high };
                let is_f32 = kind == "f" && bytes == 4;
                return Ok(Ok((space, python_shape, (!is_f32).then_some(dtype))));
            }
        }
        Ok(Err(space.str()?.to_string()))
    };
    match read() {
        Ok(Ok(space)) => Ok(space),
        Ok(Err(space)) => Err(Error::UnsupportedSpace { id: id.into(), what, space }),
        Err(error) => Err(raised(py, id, "read its spaces", error)),
    }
}

/// A recipe's value as Python's; `None` for dates and times.
fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(Some(match value {
        Value::String(x) => x.into_pyobject(py)?.into_any(),
        Value::Integer(x) => x.into_pyobject(py)?.into_any(),
        Value::Float(x) => x.into_pyobject(py)?.into_any(),
        Value::Boolean(x) => x.into_pyobject(py)?.to_owned().into_any(),
        Value::Datetime(_) => return Ok(None),
        Value::Array(values) => {
            let list = PyList::empty(py);
            for value in values {
                let Some(value) = to_python(py, value)? else { return Ok(None) };
                list.append(value)?;
            }
            list.into_any()
        }
        Value::Table(table) => {
            let dict = PyDict::new(py);
            for (name, value) in table {
                let Some(value) = to_python(py, value)? else { return Ok(None) };
                dict.set_item(name, value)?;
            }
            dict.into_any()
        }
    }))
}

/// Gymnasium and NumPy take seeds from 0 to 2³¹ − 1 everywhere.
fn fold(seed: u64) -> u32 {
    ((seed ^ (seed >> 31) ^ (seed >> 62)) & 0x7fff_ffff) as u32
}

fn raised(py: Python, id: &str, doing: &'static str, error: PyErr) -> Error {
    Error::Python { id: id.into(), doing, message: describe(py, &error) }
}

/// `ExceptionType: text`
fn describe(py: Python, error: &PyErr) -> String {
    let kind = type_name(error.value(py));
    match error.value(py).str() {
        Ok(text) if text.is_empty().unwrap_or(true) => kind,
        Ok(text) => format!("{kind}: {text}"),
        Err(_) => kind,
    }
}

fn type_name(value: &Bound<PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".into(), |name| name.to_string())
}
