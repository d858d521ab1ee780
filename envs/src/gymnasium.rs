//! Any registered Gymnasium environment, through the embedded Python.

use crate::env::{Env, EnvSpec, Step};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::python;
use crate::space::{Dtype, Leaf, LeafMut, Space};
use numpy::prelude::*;
use numpy::{Element, PyArray1, PyArrayDyn, PyUntypedArray};
use pyo3::exceptions::{PyImportError, PyUserWarning};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
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
    /// `numpy.require` and `numpy.hstack`
    require: Py<PyAny>,
    hstack: Py<PyAny>,
    observation: PythonSpace,
    action: PythonSpace,
    /// Whether its resets give action masks; not known before the first one.
    masked: Option<bool>,
    /// The latest one.
    mask: Vec<bool>,
}

/// A space with how Python's elements of it are built.
struct PythonSpace {
    space: Space,
    tree: Tree,
}

/// How an element of a space is nested in Python.
enum Tree {
    /// The field of this index, or the only leaf there is.
    Leaf(usize, PythonLeaf),
    /// Keys in the order of the space.
    Dict(Vec<(Py<PyAny>, Tree)>),
    /// Elements with their position; some may be left out.
    Tuple(Vec<(usize, Tree)>),
}

/// A leaf as Python has it.
struct PythonLeaf {
    /// As the field is called; empty where the leaf is the whole.
    name: String,
    space: Space,
    /// Shape in Python: `()` where the space above has `[1]`.
    shape: Vec<usize>,
    /// Its dtype, unless it is what Rust makes by itself: float32 of a `Box`, int64 of `MultiDiscrete`, int8 of
    /// `MultiBinary`.
    dtype: Option<Py<PyAny>>,
}

impl PythonLeaf {
    /// What messages call it.
    fn called(&self, article: &str) -> String {
        match self.name.as_str() {
            "" => format!("{article}observation"),
            name => format!("field `{name}`"),
        }
    }
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
        let observation = read_space(&env, id, "observation")?;
        let action = read_space(&env, id, "action")?;
        let bind = || -> PyResult<Self> {
            let numpy = py.import("numpy")?;
            Ok(Self {
                id: id.clone(),
                reset: env.getattr("reset")?.unbind(),
                step: env.getattr("step")?.unbind(),
                require: numpy.getattr("require")?.unbind(),
                hstack: numpy.getattr("hstack")?.unbind(),
                env: env.unbind(),
                mask: vec![true; action.space.choices()],
                masked: None,
                observation,
                action,
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
        match &self.observation.space {
            Space::Fields(fields) => {
                self.read_fields(py, &self.observation.tree, fields, value, observation.u8())
            }
            _ => match &self.observation.tree {
                Tree::Leaf(_, leaf) => self.read_leaf(py, leaf, value, observation),
                _ => unreachable!("what is nested is stored as fields"),
            },
        }
    }

    fn read_fields(
        &self,
        py: Python,
        tree: &Tree,
        fields: &Fields,
        value: &Bound<PyAny>,
        record: &mut [u8],
    ) -> Result<()> {
        let lacks = |what: String| {
            let message = format!("expected an observation with {what}, found a {}", type_name(value));
            Err(self.broken(message + " without it"))
        };
        match tree {
            Tree::Leaf(index, leaf) => self.read_leaf(py, leaf, value, fields[*index].write(record)),
            Tree::Dict(inner) => inner.iter().try_for_each(|(key, tree)| match value.get_item(key) {
                Ok(value) => self.read_fields(py, tree, fields, &value, record),
                Err(_) => lacks(format!("the key {key}")),
            }),
            Tree::Tuple(inner) => inner.iter().try_for_each(|(index, tree)| match value.get_item(index) {
                Ok(value) => self.read_fields(py, tree, fields, &value, record),
                Err(_) => lacks(format!("element {index}")),
            }),
        }
    }

    fn read_leaf(
        &self,
        py: Python,
        leaf: &PythonLeaf,
        value: &Bound<PyAny>,
        mut observation: LeafMut,
    ) -> Result<()> {
        let outside = |found: &dyn Display| {
            self.broken(format!("{} {found} is not in {}", leaf.called(""), leaf.space))
        };
        match &leaf.space {
            Space::Discrete { n, start } => {
                let doing = "read the observation";
                let choice: i64 = value.extract().map_err(|error| self.raised(py, doing, error))?;
                let offset = choice.wrapping_sub(*start);
                if !(0..*n).contains(&offset) {
                    return Err(outside(&choice));
                }
                observation.i64()[0] = offset;
            }
            Space::MultiDiscrete { n, start, .. } => {
                let observation = observation.i64();
                if !self.copy(leaf, value, observation, |x: i64| x)? {
                    self.copy(leaf, &self.integers(py, leaf, value)?, observation, |x: i64| x)?;
                }
                for ((value, n), start) in observation.iter_mut().zip(n).zip(start) {
                    *value = value.wrapping_sub(*start);
                    if !(0..*n).contains(value) {
                        return Err(outside(&value.wrapping_add(*start)));
                    }
                }
            }
            Space::MultiBinary { .. } => {
                let observation = observation.u8();
                // Whatever is no switch becomes 2 and is found below.
                if !self.copy(leaf, value, observation, |x: i8| u8::try_from(x).unwrap_or(2))? {
                    let array = self.integers(py, leaf, value)?;
                    self.copy(leaf, &array, observation, |x: i64| u8::try_from(x).unwrap_or(2))?;
                }
                if observation.iter().any(|&x| x > 1) {
                    return Err(outside(&value));
                }
            }
            Space::Box { dtype: Dtype::U8, .. } => {
                let observation = observation.u8();
                if !self.copy(leaf, value, observation, |x: u8| x)? {
                    let array = self.array::<u8>(py, leaf, value, true)?;
                    self.copy(leaf, &array, observation, |x: u8| x)?;
                }
            }
            Space::Box { .. } => {
                let observation = observation.f32();
                if !self.copy(leaf, value, observation, |x: f32| x)?
                    && !self.copy(leaf, value, observation, |x: f64| x as f32)?
                {
                    let array = self.array::<f32>(py, leaf, value, false)?;
                    self.copy(leaf, &array, observation, |x: f32| x)?;
                }
                if let Some(i) = observation.iter().position(|x| x.is_nan()) {
                    return Err(self.broken(format!("value {i} of {} is NaN", leaf.called("the "))));
                }
            }
            Space::Fields(_) => unreachable!("fields are not nested"),
        }
        Ok(())
    }

    /// Copies `value` if it is a plain array of `T` in memory order, and says whether it was. Refuses a wrong
    /// shape.
    fn copy<T: Element + Copy, U>(
        &self,
        leaf: &PythonLeaf,
        value: &Bound<PyAny>,
        to: &mut [U],
        cast: impl Fn(T) -> U,
    ) -> Result<bool> {
        let Ok(array) = value.cast::<PyArrayDyn<T>>() else { return Ok(false) };
        if array.shape() != leaf.shape {
            return Err(self.broken(format!(
                "expected {} of shape {:?}, found {:?}",
                leaf.called("an "),
                leaf.shape,
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
        leaf: &PythonLeaf,
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
                let wanted = leaf.called("an ");
                return Err(self.broken(format!("expected {wanted} of type {dtype}, found {found}")));
            }
        }
        let require = self.require.bind(py);
        require
            .call1((value, dtype, ("C_CONTIGUOUS", "ALIGNED")))
            .map_err(|error| self.raised(py, "read the observation", error))
    }

    /// `value` as an array of 64-bit integers. Floats are refused: they would be cut off.
    fn integers<'py>(
        &self,
        py: Python<'py>,
        leaf: &PythonLeaf,
        value: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>> {
        let raised = |error| self.raised(py, "read the observation", error);
        let array = self.require.bind(py).call1((value,)).map_err(raised)?;
        let array = array.cast_into::<PyUntypedArray>().map_err(|error| raised(error.into()))?;
        let dtype = array.dtype();
        if !b"biu".contains(&dtype.kind()) {
            return Err(self.broken(format!("expected {} of integers, found {dtype}", leaf.called("an "))));
        }
        self.array::<i64>(py, leaf, &array, false)
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

/// When an `info` was given.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Reset,
    Step,
    End,
}

impl Tree {
    /// The element in `action` as Python's.
    fn python<'py>(&self, py: Python<'py>, space: &Space, action: Leaf) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Tree::Leaf(index, leaf) => leaf.python(
                py,
                match space {
                    Space::Fields(fields) => fields[*index].read(action.u8()),
                    _ => action,
                },
            ),
            Tree::Dict(inner) => {
                let dict = PyDict::new(py);
                for (key, tree) in inner {
                    dict.set_item(key, tree.python(py, space, action)?)?;
                }
                Ok(dict.into_any())
            }
            Tree::Tuple(inner) => {
                let elements = inner.iter().map(|(_, tree)| tree.python(py, space, action));
                Ok(PyTuple::new(py, elements.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
        }
    }
}

impl PythonLeaf {
    /// Its element in `action` as Python's.
    fn python<'py>(&self, py: Python<'py>, action: Leaf) -> PyResult<Bound<'py, PyAny>> {
        let array = match (&self.space, action) {
            (Space::Discrete { start, .. }, action) => {
                return Ok((action.i64()[0] + start).into_pyobject(py)?.into_any());
            }
            (Space::MultiDiscrete { start, .. }, action) => {
                let choices = action.i64().iter().zip(start).map(|(offset, start)| offset + start);
                self.shaped(PyArray1::from_iter(py, choices))?
            }
            (_, Leaf::U8(switches)) => {
                self.shaped(PyArray1::from_iter(py, switches.iter().map(|&x| x as i8)))?
            }
            (_, action) => self.shaped(PyArray1::from_slice(py, action.f32()))?,
        };
        match &self.dtype {
            Some(dtype) => array.call_method1("astype", (dtype,)),
            None => Ok(array),
        }
    }

    fn shaped<'py, T: Element>(&self, flat: Bound<'py, PyArray1<T>>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.shape.len() {
            1 => flat.into_any(),
            _ => flat.reshape(self.shape.as_slice())?.into_any(),
        })
    }
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
            self.read(py, &value, observation)?;
            self.read_mask(&info, Moment::Reset)
        })
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        python::attach(|py| {
            let raised = |error| self.raised(py, "step", error);
            let action = self.action.tree.python(py, &self.action.space, action).map_err(raised)?;
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
            let (terminated, truncated) =
                (item(2)?.is_truthy().map_err(raised)?, item(3)?.is_truthy().map_err(raised)?);
            let info = item(4)?;
            self.read_mask(&info, if terminated || truncated { Moment::End } else { Moment::Step })?;
            Ok(Step { reward, terminated, truncated })
        })
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        if self.masked == Some(true) {
            mask.copy_from_slice(&self.mask);
        }
        self.masked == Some(true)
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

/// A space of the environment. What no network can read in a nested observation is left out.
fn read_space(env: &Bound<PyAny>, id: &str, what: &'static str) -> Result<PythonSpace> {
    let py = env.py();
    let failed = |error| raised(py, id, "read its spaces", error);
    let whole = env.getattr(format!("{what}_space")).map_err(failed)?;
    let module = py.import("gymnasium.spaces").map_err(failed)?;
    let mut reader = Reader { module, what, leaves: Vec::new(), left_out: Vec::new() };
    let tree = reader.read("", &whole).map_err(failed)?;
    let refused = |hint| {
        let space = whole.str().map_or_else(|_| type_name(&whole), |text| text.to_string());
        Error::UnsupportedSpace { id: id.into(), what, space, hint }
    };
    let integers = reader.left_out.iter().any(|(_, _, is_box)| *is_box) && what == "action";
    let hint = match integers {
        true => ": make a Box of integers a MultiDiscrete, with `start` for its lowest values",
        false => "",
    };
    let Some(tree) = tree.filter(|_| what == "observation" || reader.left_out.is_empty()) else {
        return Err(refused(hint));
    };
    if !reader.left_out.is_empty() {
        let names: Vec<String> =
            reader.left_out.iter().map(|(name, space, _)| format!("`{name}` ({space})")).collect();
        warn_once(
            id,
            &format!("left out of its observations, since no network here reads them: {}", names.join(", ")),
        );
    }
    let space = match tree {
        Tree::Leaf(..) => reader.leaves.swap_remove(0).1,
        _ => Space::fields(reader.leaves).map_err(|error| Error::Contract {
            id: id.into(),
            message: format!("its {what} space: {error}"),
        })?,
    };
    Ok(PythonSpace { space, tree })
}

/// A warning about an environment that many instances of it would repeat.
fn warn_once(id: &str, text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into()) {
        tracing::warn!("`{id}`: {text}");
    }
}

/// Takes a space apart.
struct Reader<'py> {
    /// `gymnasium.spaces`
    module: Bound<'py, PyModule>,
    what: &'static str,
    leaves: Vec<(String, Space)>,
    /// Name, space in Python's words, and whether it is a `Box`.
    left_out: Vec<(String, String, bool)>,
}

impl<'py> Reader<'py> {
    fn is(&self, space: &Bound<'py, PyAny>, kind: &str) -> PyResult<bool> {
        space.is_instance(&self.module.getattr(kind)?)
    }

    /// `space`, called `name`; `None` if nothing of it can be read.
    fn read(&mut self, name: &str, space: &Bound<'py, PyAny>) -> PyResult<Option<Tree>> {
        let inner_name = |key: &dyn Display| match name {
            "" => key.to_string(),
            name => format!("{name}/{key}"),
        };
        if self.is(space, "Dict")? {
            let mut inner = Vec::new();
            for item in space.getattr("spaces")?.call_method0("items")?.try_iter()? {
                let (key, space): (Bound<PyAny>, Bound<PyAny>) = item?.extract()?;
                if let Some(tree) = self.read(&inner_name(&key), &space)? {
                    inner.push((key.unbind(), tree));
                }
            }
            return Ok((!inner.is_empty()).then_some(Tree::Dict(inner)));
        }
        if self.is(space, "Tuple")? {
            let mut inner = Vec::new();
            for (index, space) in space.getattr("spaces")?.try_iter()?.enumerate() {
                if let Some(tree) = self.read(&inner_name(&index), &space?)? {
                    inner.push((index, tree));
                }
            }
            return Ok((!inner.is_empty()).then_some(Tree::Tuple(inner)));
        }
        match self.leaf(name, space)? {
            Some(leaf) => {
                self.leaves.push((name.into(), leaf.space.clone()));
                Ok(Some(Tree::Leaf(self.leaves.len() - 1, leaf)))
            }
            None => {
                let is_box = self.is(space, "Box")?;
                self.left_out.push((name.into(), space.str()?.to_string(), is_box));
                Ok(None)
            }
        }
    }

    fn leaf(&self, name: &str, space: &Bound<'py, PyAny>) -> PyResult<Option<PythonLeaf>> {
        let array =
            |name: &str| -> PyResult<Bound<'py, PyAny>> { space.getattr(name)?.call_method0("ravel") };
        if self.is(space, "Discrete")? {
            let space = Space::Discrete {
                n: space.getattr("n")?.extract()?,
                start: space.getattr("start")?.extract()?,
            };
            return Ok(Some(PythonLeaf { name: name.into(), space, shape: Vec::new(), dtype: None }));
        }
        let (is_box, choices) = (self.is(space, "Box")?, self.is(space, "MultiDiscrete")?);
        if !is_box && !choices && !self.is(space, "MultiBinary")? {
            return Ok(None);
        }
        let python_shape: Vec<usize> = space.getattr("shape")?.extract()?;
        let dtype = space.getattr("dtype")?;
        let kind: String = dtype.getattr("kind")?.extract()?;
        let bytes: usize = dtype.getattr("itemsize")?.extract()?;
        let fits = !is_box || if self.what == "action" { kind == "f" } else { "biuf".contains(&kind) };
        if !fits || python_shape.contains(&0) {
            return Ok(None);
        }
        let shape = if python_shape.is_empty() { vec![1] } else { python_shape.clone() };
        let (space, made_here) = if is_box {
            let bound = |name| -> PyResult<Vec<f64>> {
                array(name)?.call_method1("astype", ("float64",))?.call_method0("tolist")?.extract()
            };
            let (low, high) = (bound("low")?, bound("high")?);
            let stored = if kind == "u" && bytes == 1 { Dtype::U8 } else { Dtype::F32 };
            (Space::Box { shape, dtype: stored, low, high }, kind == "f" && bytes == 4)
        } else if choices {
            let n = array("nvec")?.call_method0("tolist")?.extract()?;
            let start = array("start")?.call_method0("tolist")?.extract()?;
            (Space::MultiDiscrete { shape, n, start }, kind == "i" && bytes == 8)
        } else {
            (Space::MultiBinary { shape }, kind == "i" && bytes == 1)
        };
        let dtype = (!made_here).then(|| dtype.unbind());
        Ok(Some(PythonLeaf { name: name.into(), space, shape: python_shape, dtype }))
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
