//! Any registered Gymnasium environment, through the embedded Python.

use crate::check::stray;
use crate::env::{Env, EnvSpec, Step};
use crate::error::{Error, Result};
use crate::extras::Extra;
use crate::frame::Frame;
use crate::gymnasium_vector::GymnasiumVector;
use crate::python;
use crate::python_space::PythonSpace;
use crate::python_state;
use crate::space::{Dtype, Leaf, LeafMut, Space};
use crate::{games, registering};
use numpy::PyArrayDyn;
use numpy::prelude::*;
use pyo3::exceptions::{PyImportError, PyUserWarning};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::path::Path;
use toml::Value;

/// A Gymnasium environment made by `gymnasium.make`.
///
/// - Observations: `Box` of any type and shape, stored as bytes if the space says uint8, else as 32-bit floats
///   (integers beyond ±2²⁴ are rounded); `Discrete` and `MultiDiscrete`, stored as offsets from `start`;
///   `MultiBinary`. A `Box` of shape `()` is stored with shape `[1]`, so that whoever reads it has a vector.
/// - `Dict` and `Tuple` observations, nested or not, are stored as [`Space::Fields`] in the order of the space,
///   whatever the order of the dictionaries that the environment returns. What no network here can read in them
///   (`Text`, `Sequence`, `Graph` …) is left out, with one warning for each environment id.
/// - Actions: `Box` of any float type, passed as an array of the space's shape and type; `Discrete`, passed as
///   a Python int with `start` added; `MultiDiscrete` and `MultiBinary`, passed as arrays of their shape and
///   type; `Dict` and `Tuple` of these. A `Box` of integers is refused: a density over numbers that are rounded
///   later is not what acts, and `MultiDiscrete` says the same exactly. Each step passes a new array: environments
///   and wrappers keep references to the last action, and 0.1 µs is nothing beside a step in Python.
/// - `info["action_mask"]` of `reset` and `step` is the action mask: an array, or a tuple of arrays for
///   `MultiDiscrete`, anything but 0 and false allowing a choice. An environment whose first reset gives none has
///   none.
/// - `reset` passes the seed, folded to 31 bits (smaller seeds unchanged), each time.
/// - The GIL is held inside each call and not between two.
/// - It has pictures if the arguments say `render_mode = "rgb_array"`
///   ([`Registry::make_rendering`](crate::Registry::make_rendering) says so).
/// - [`Env::info`] reads the last `info`: numbers, truth values and NumPy's scalars; `a.b` is entry `b` of the
///   dictionary at `a`, where there is no entry `a.b`.
/// - It can save its state where the environment is one of Gymnasium's on MuJoCo, or has methods `get_state() ->
///   bytes` and `set_state(bytes)` of its own that hold everything that distinguishes the moment, and no wrappers
///   but those of `gymnasium.make`. Else a resumed run starts a new episode.
///
/// Gymnasium's environment checker is off unless the arguments say `disable_env_checker = false`; shapes,
/// types and NaN are checked here, each step.
pub struct Gymnasium {
    id: String,
    env: Py<PyAny>,
    /// Bound methods, so that a step looks nothing up.
    reset: Py<PyAny>,
    step: Py<PyAny>,
    /// `numpy.require` and `numpy.hstack`
    require: Py<PyAny>,
    hstack: Py<PyAny>,
    observation: PythonSpace,
    action: PythonSpace,
    /// Whether its resets give action masks; not known before the first one.
    masked: Option<bool>,
    /// The latest one.
    mask: Vec<bool>,
    /// Whether observations are held against their space; those of bytes that may be anything cannot leave it.
    check_bounds: bool,
    /// Whether it was made with `render_mode = "rgb_array"`.
    renders: bool,
    /// What the last reset or step said beside the observation; read only when somebody asks.
    info: Option<Py<PyAny>>,
    saves: bool,
}

impl Gymnasium {
    /// What names of Gymnasium environments start with in a recipe.
    pub const PREFIX: &str = "gym:";

    /// Makes the environment `gym:ID`, or `gym:module:ID` to import a Python module first that registers it
    /// (the module must be installed in the `.venv`, lie in `spec.path`, or on `PYTHONPATH`). The modules of
    /// well-known packages need not be named (`gym:ALE/Pong-v5`). `spec.args` become keyword arguments,
    /// `spec.time_limit` becomes `max_episode_steps`; its wrappers are the registry's affair. Starts the interpreter if
    /// need be.
    pub fn new(spec: &EnvSpec) -> Result<Self> {
        Self::called(spec, &spec.id)
    }

    /// As [`Gymnasium::new`]; messages call it `id`.
    pub(crate) fn called(spec: &EnvSpec, id: &str) -> Result<Self> {
        python::start();
        python::attach(|py| Self::make(py, spec, id))
    }

    fn make(py: Python, spec: &EnvSpec, id: &str) -> Result<Self> {
        let gymnasium = ready(py, spec, id, Self::name(&spec.id))?;
        let making = |error| raised(py, id, "make", error);
        let arguments = arguments(py, spec, id)?;
        arguments.set_item("disable_env_checker", true).map_err(making)?;
        let make = gymnasium.call_method("make", (Self::name(&spec.id),), Some(&arguments));
        let env = make.map_err(|error| missing(py, id, &error).unwrap_or_else(|| making(error)))?;
        let observation = PythonSpace::of(&env, id, "observation")?;
        let action = PythonSpace::of(&env, id, "action")?;
        let saves = python_state::can_save(&env).map_err(making)?;
        let bind = || -> PyResult<Self> {
            let numpy = py.import("numpy")?;
            Ok(Self {
                id: id.into(),
                saves,
                reset: env.getattr("reset")?.unbind(),
                step: env.getattr("step")?.unbind(),
                require: numpy.getattr("require")?.unbind(),
                hstack: numpy.getattr("hstack")?.unbind(),
                renders: spec.args.get("render_mode").and_then(Value::as_str) == Some("rgb_array"),
                env: env.unbind(),
                mask: vec![true; action.space.choices()],
                masked: None,
                check_bounds: spec.check_bounds && has_bounds(&observation.space),
                info: None,
                observation,
                action,
            })
        };
        bind().map_err(making)
    }

    /// The environment itself, for a check that looks at it from inside Python.
    pub(crate) fn python<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.env.bind(py).clone()
    }

    /// What Gymnasium calls the environment `id`.
    pub(crate) fn name(id: &str) -> &str {
        id.strip_prefix(Self::PREFIX).or_else(|| id.strip_prefix(GymnasiumVector::PREFIX)).unwrap_or(id)
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

    fn read_observation(&self, py: Python, value: &Bound<PyAny>, mut observation: LeafMut) -> Result<()> {
        let whole = self.observation.space.len();
        self.observation.read(py, value, observation.part(0, whole))?;
        match self.check_bounds.then(|| stray(&self.observation.space, observation.leaf())).flatten() {
            Some((rule, message)) => {
                let mend = if rule == "bounds" { " (env.check_bounds = false lets it pass)" } else { "" };
                Err(self.broken(format!("the observation has {message}{mend}")))
            }
            None => Ok(()),
        }
    }

    /// Takes the mask out of `info`, if this environment has masks.
    fn read_mask(&mut self, info: &Bound<PyAny>, moment: Moment) -> Result<()> {
        if self.mask.is_empty() {
            return Ok(());
        }
        let py = info.py();
        let raised = |error| raised(py, &self.id, "read info[\"action_mask\"]", error);
        let found = match info.cast::<PyDict>() {
            Ok(info) => info.get_item(intern!(py, "action_mask")).map_err(raised)?,
            Err(_) => None,
        };
        let found_one = found.is_some();
        match (found, self.masked, moment) {
            // After an end nobody acts.
            (_, _, Moment::End) | (None, None | Some(false), _) => {}
            (Some(_), Some(false), _) => {
                return Err(self.broken(
                    "it gives an action_mask now, but its first reset gave none: give one from the first reset \
                     on"
                        .into(),
                ));
            }
            (None, Some(true), _) => {
                return Err(self.broken(format!(
                    "its first reset gave an action_mask, this {} none",
                    if moment == Moment::Reset { "reset" } else { "step" }
                )));
            }
            (Some(mask), _, _) => {
                let several = mask.is_instance_of::<PyTuple>() || mask.is_instance_of::<PyList>();
                let flat = if several { self.hstack.bind(py).call1((&mask,)) } else { Ok(mask) };
                let dtype = numpy::dtype::<bool>(py);
                let flat = flat.and_then(|mask| self.require.bind(py).call1((mask, dtype, "C")));
                let flat = flat.and_then(|mask| Ok(mask.cast_into::<PyArrayDyn<bool>>()?)).map_err(raised)?;
                let flat = flat.readonly();
                let flat = flat.as_slice().map_err(|error| raised(error.into()))?;
                if flat.len() != self.mask.len() {
                    return Err(self.broken(format!(
                        "expected an action_mask of {} choices for {}, found {}",
                        self.mask.len(),
                        self.action.space,
                        flat.len()
                    )));
                }
                self.mask.copy_from_slice(flat);
            }
        }
        if self.masked.is_none() {
            self.masked = Some(found_one);
        }
        Ok(())
    }
}

/// Whether an observation that could be read may still lie outside `space`.
fn has_bounds(space: &Space) -> bool {
    match space {
        Space::Box { low, high, dtype: Dtype::U8, .. } => {
            low.iter().any(|&low| low > 0.0) || high.iter().any(|&high| high < 255.0)
        }
        Space::Box { .. } => true,
        Space::Fields(fields) => fields.iter().any(|field| has_bounds(&field.space)),
        Space::Discrete { .. } | Space::MultiDiscrete { .. } | Space::MultiBinary { .. } => false,
    }
}

/// When an `info` was given.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Reset,
    Step,
    End,
}

impl Env for Gymnasium {
    fn id(&self) -> &str {
        &self.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation.space
    }

    fn action_space(&self) -> &Space {
        &self.action.space
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
            let item = |i| result.get_item(i).map_err(|error| self.raised(py, "reset", error));
            let (value, info) = (item(0)?, item(1)?);
            self.read_observation(py, &value, observation)?;
            self.read_mask(&info, Moment::Reset)?;
            self.info = Some(info.unbind());
            Ok(())
        })
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        python::attach(|py| {
            let raised = |error| self.raised(py, "step", error);
            let action = self.action.python(py, action).map_err(raised)?;
            let result = self.step.bind(py).call1((action,)).map_err(raised)?;
            let expected = "(observation, reward, terminated, truncated, info) from step";
            let result = self.unpack(&result, 5, expected)?;
            let item = |i| result.get_item(i).map_err(raised);
            self.read_observation(py, &item(0)?, observation)?;
            let reward: f64 =
                item(1)?.extract().map_err(|error| self.raised(py, "read the reward", error))?;
            if !reward.is_finite() {
                return Err(self.broken(format!("the reward is {reward}")));
            }
            let (terminated, truncated) =
                (item(2)?.is_truthy().map_err(raised)?, item(3)?.is_truthy().map_err(raised)?);
            let info = item(4)?;
            self.read_mask(&info, if terminated || truncated { Moment::End } else { Moment::Step })?;
            self.info = Some(info.unbind());
            Ok(Step { reward, terminated, truncated })
        })
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        if self.masked == Some(true) {
            mask.copy_from_slice(&self.mask);
        }
        self.masked == Some(true)
    }

    fn save(&self) -> Option<Vec<u8>> {
        // One that fails has no state to show: the run goes on with a new episode, and says so.
        self.saves.then(|| python::attach(|py| self.saved(py).ok())).flatten()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let refuse = |message: String| Error::CannotRestore { id: self.id.clone(), message };
        if !self.saves {
            return Err(refuse("it cannot save or restore its state".into()));
        }
        let (masked, mask, rest) = state
            .split_first()
            .and_then(|(masked, rest)| Some((masked, rest.split_at_checked(self.mask.len())?)))
            .map(|(masked, (mask, rest))| (*masked, mask, rest))
            .filter(|(masked, _, _)| *masked < 3)
            .ok_or_else(|| refuse(format!("the saved state of {} bytes is none of it", state.len())))?;
        python::attach(|py| {
            python_state::load(self.env.bind(py), rest).map_err(|error| refuse(describe(py, &error)))
        })?;
        self.masked = [None, Some(false), Some(true)][usize::from(masked)];
        self.mask.iter_mut().zip(mask).for_each(|(allowed, &byte)| *allowed = byte != 0);
        Ok(())
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

    fn info(&self, name: &str) -> Option<f64> {
        let info = self.info.as_ref()?;
        python::attach(|py| {
            let info = info.bind(py).cast::<PyDict>().ok()?;
            number_in(info, name)
        })
    }
}

impl Gymnasium {
    /// A saved moment: whether there are masks (0 not known, 1 no, 2 yes), the mask, a byte a choice, and what
    /// Python says.
    fn saved(&self, py: Python) -> PyResult<Vec<u8>> {
        let masked = match self.masked {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        let mut state = vec![masked];
        state.extend(self.mask.iter().map(|&allowed| u8::from(allowed)));
        state.extend(python_state::save(self.env.bind(py))?);
        Ok(state)
    }

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

/// The entry `name` of `info` as a number, or entry `b` of the dictionary `a` for `a.b`.
fn number_in(info: &Bound<PyDict>, name: &str) -> Option<f64> {
    match info.get_item(name).ok()? {
        Some(value) => value.extract().ok(),
        None => {
            let (outer, inner) = name.split_once('.')?;
            number_in(info.get_item(outer).ok()??.cast::<PyDict>().ok()?, inner)
        }
    }
}

/// Gymnasium, with what it needs to make the environment `name`.
pub(crate) fn ready<'py>(
    py: Python<'py>,
    spec: &EnvSpec,
    id: &str,
    name: &str,
) -> Result<Bound<'py, PyModule>> {
    let gymnasium = import(py).map_err(|error| {
        let hint = if error.is_instance_of::<PyImportError>(py) { "; run `make setup`" } else { "" };
        let message = describe(py, &error) + hint;
        Error::Python { id: id.into(), doing: "import gymnasium", message }
    })?;
    if let Some(path) = spec.path.as_ref().filter(|path| !Path::new(path).is_dir()) {
        return Err(Error::BadArgument {
            id: id.into(),
            argument: "path".into(),
            message: format!("expected a directory, and {path} is none"),
        });
    }
    let prepared = registering::prepare(py, name, spec.path.as_deref());
    prepared.map_err(|error| missing(py, id, &error).unwrap_or_else(|| raised(py, id, "import", error)))?;
    Ok(gymnasium)
}

/// The recipe's arguments and time limit as keyword arguments.
pub(crate) fn arguments<'py>(py: Python<'py>, spec: &EnvSpec, id: &str) -> Result<Bound<'py, PyDict>> {
    let arguments = PyDict::new(py);
    let making = |error| raised(py, id, "make", error);
    if let Some(path) = spec.path.as_ref().filter(|_| games::reads_files(Gymnasium::name(&spec.id))) {
        arguments.set_item("folder", path).map_err(making)?;
    }
    for (name, value) in &spec.args {
        let value = to_python(py, value).map_err(making)?.ok_or_else(|| Error::BadArgument {
            id: id.into(),
            argument: name.clone(),
            message: "dates and times cannot be passed to Python; write a string".into(),
        })?;
        arguments.set_item(name, value).map_err(making)?;
    }
    if let Some(limit) = spec.time_limit {
        arguments.set_item("max_episode_steps", limit).map_err(making)?;
    }
    Ok(arguments)
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

/// A recipe's value as Python's; `None` for dates and times.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Option<Bound<'py, PyAny>>> {
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
pub(crate) fn fold(seed: u64) -> u32 {
    ((seed ^ (seed >> 31) ^ (seed >> 62)) & 0x7fff_ffff) as u32
}

pub(crate) fn raised(py: Python, id: &str, doing: &'static str, error: PyErr) -> Error {
    Error::Python { id: id.into(), doing, message: describe(py, &error) }
}

/// What an environment that cannot be made lacks, if that is a Python package.
pub(crate) fn missing(py: Python, id: &str, error: &PyErr) -> Option<Error> {
    let text = error.value(py).str().ok()?.to_string();
    match type_name(error.value(py)).as_str() {
        // "Box2D is not installed, … `pip install "gymnasium[box2d]"`"
        "DependencyNotInstalled" => {
            let (package, _) = text.split_once(" is not installed")?;
            let (extra, _) = text.split_once("gymnasium[")?.1.split_once(']')?;
            let install = match Extra::named(extra) {
                Some(extra) => extra.command(),
                None => format!("{} install \"gymnasium[{extra}]\"", python::pip(py)),
            };
            Some(Error::MissingPackage { id: id.into(), package: package.into(), install })
        }
        "ModuleNotFoundError" => {
            // Gymnasium raises its own in place of the import's, which alone knows the name.
            let cause = error.cause(py);
            let named = |error: &PyErr| error.value(py).getattr("name").ok()?.extract::<String>().ok();
            let module = named(error).or_else(|| named(cause.as_ref()?))?;
            if let Some(extra) = Extra::of_module(&module) {
                let (package, install) = (format!("the Python module `{module}`"), extra.command());
                return Some(Error::MissingPackage { id: id.into(), package, install });
            }
            let message = format!(
                "{}; install the package that brings `{module}` ({} install …), name its directory as `env.path`, or put it \
                 on PYTHONPATH",
                describe(py, error),
                python::pip(py)
            );
            Some(Error::Python { id: id.into(), doing: "make", message })
        }
        "NamespaceNotFound" => {
            let message = format!(
                "{}; write gym:MODULE:{} with the module that registers it",
                describe(py, error),
                Gymnasium::name(id)
            );
            Some(Error::Python { id: id.into(), doing: "make", message })
        }
        _ => None,
    }
}

/// `ExceptionType: text`
pub(crate) fn describe(py: Python, error: &PyErr) -> String {
    let kind = type_name(error.value(py));
    match error.value(py).str() {
        Ok(text) if text.is_empty().unwrap_or(true) => kind,
        Ok(text) => format!("{kind}: {text}"),
        Err(_) => kind,
    }
}

pub(crate) fn type_name(value: &Bound<PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".into(), |name| name.to_string())
}
