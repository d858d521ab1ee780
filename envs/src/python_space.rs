//! A Gymnasium space: what of it is stored here, and how its elements are read from Python and built for it.

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::gymnasium::{raised, type_name};
use crate::space::{Dtype, Leaf, LeafMut, Space};
use numpy::prelude::*;
use numpy::{Element, PyArray1, PyArrayDyn, PyUntypedArray};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

/// A space of an environment, with how Python's elements of it are built.
pub(crate) struct PythonSpace {
    /// As rollouts store it.
    pub space: Space,
    tree: Tree,
    /// The environment, for messages.
    id: String,
    /// `numpy.require`
    require: Py<PyAny>,
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

impl PythonSpace {
    /// The space called `what` ("observation" or "action") of an environment. What no network can read in a
    /// nested observation is left out.
    ///
    /// # Errors
    /// A space of which nothing is left, or an action space with anything to leave out.
    pub fn of(env: &Bound<PyAny>, id: &str, what: &'static str) -> Result<Self> {
        Self::of_attribute(env, id, what, &format!("{what}_space"))
    }

    /// The same where the space has another name.
    pub fn of_attribute(env: &Bound<PyAny>, id: &str, what: &'static str, attribute: &str) -> Result<Self> {
        let py = env.py();
        let failed = |error| raised(py, id, "read its spaces", error);
        let whole = env.getattr(attribute).map_err(failed)?;
        let module = py.import("gymnasium.spaces").map_err(failed)?;
        let mut reader = Reader { module, what, leaves: Vec::new(), left_out: Vec::new() };
        let tree = reader.read("", &whole).map_err(failed)?;
        let refused = |hint| {
            let space = whole.str().map_or_else(|_| type_name(&whole), |text| text.to_string());
            Error::UnsupportedSpace { id: id.into(), what, space, hint }
        };
        let hint = match what == "action" && reader.left_out.iter().any(|(_, _, integers)| *integers) {
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
                &format!(
                    "left out of its observations, since no network here reads them: {}",
                    names.join(", ")
                ),
            );
        }
        let space = match tree {
            Tree::Leaf(..) => reader.leaves.swap_remove(0).1,
            // The one thing that can be wrong: keys that contain `/`, or differ in their type alone.
            _ => Space::fields(reader.leaves).map_err(|_| {
                refused(": two of its fields would have the same name, `/` standing for nesting")
            })?,
        };
        let require = py.import("numpy").and_then(|numpy| numpy.getattr("require")).map_err(failed)?;
        Ok(Self { space, tree, id: id.into(), require: require.unbind() })
    }

    fn raised(&self, py: Python, doing: &'static str, error: PyErr) -> Error {
        raised(py, &self.id, doing, error)
    }

    fn broken(&self, message: String) -> Error {
        Error::Contract { id: self.id.clone(), message }
    }

    /// An action as Python's.
    pub fn python<'py>(&self, py: Python<'py>, action: Leaf) -> PyResult<Bound<'py, PyAny>> {
        self.tree.python(py, &self.space, action)
    }

    /// Reads an observation.
    ///
    /// # Errors
    /// Whatever is not in the space as NumPy has it: a wrong shape, a missing key, a NaN.
    pub fn read(&self, py: Python, value: &Bound<PyAny>, mut observation: LeafMut) -> Result<()> {
        match &self.space {
            Space::Fields(fields) => self.read_fields(py, &self.tree, fields, value, observation.u8()),
            _ => match &self.tree {
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
    /// Name, space in Python's words, and whether it is a `Box` of integers.
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
                let integers = self.is(space, "Box")?
                    && "biu".contains(&space.getattr("dtype")?.getattr("kind")?.extract::<String>()?);
                self.left_out.push((name.into(), space.str()?.to_string(), integers));
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
