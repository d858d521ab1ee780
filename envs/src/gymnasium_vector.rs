//! Engines that step many environments at once by themselves, through Gymnasium's `VectorEnv` interface.

use crate::env::{Env, EnvSpec, Step, VecEnv};
use crate::error::{Error, Result};
use crate::gymnasium::{Gymnasium, arguments, describe, fold, missing, raised, ready};
use crate::python;
use crate::python_space::PythonSpace;
use crate::row::{Finals, Row};
use crate::space::{Dtype, Leaf, LeafMut, Space};
use numpy::prelude::*;
use numpy::{Element, PyArray1, PyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::sync::atomic::AtomicI64;

/// A batch of environments made by `gymnasium.make_vec`. What they show and do crosses into Python and back once a
/// step, not once for each environment.
///
/// - Observations: `Box` and `Discrete`; actions: `Box` of floats and `Discrete`. No action masks, no pictures, no
///   saved states: a resumed run starts new episodes.
/// - What happens at the end of an episode is the engine's own affair (`metadata["autoreset_mode"]`). One that resets
///   on the next step makes a row of it that belongs to no episode (`valid = false`), whose action it ignores; one
///   that resets in the same step hands over the last observation beside the new one (`info["final_obs"]`); one that
///   does not reset is reset here.
/// - Seeds: engines that reset by themselves take them at the first reset alone, and what follows is their own
///   generators' affair: a run repeats, an episode by itself does not. Those that do not reset by themselves
///   (`AutoresetMode.DISABLED`) get the seed of each episode. An engine that takes one seed for all gets that of its
///   first environment.
pub struct GymnasiumVector {
    id: String,
    env: Py<PyAny>,
    /// Bound methods.
    reset: Py<PyAny>,
    step: Py<PyAny>,
    /// `numpy.require`
    require: Py<PyAny>,
    /// Of one environment; of the batch.
    observation: PythonSpace,
    observations: PythonSpace,
    action: Space,
    actions: PythonSpace,
    mode: Autoreset,
    seeds: Seeds,
    episodes: Vec<u64>,
    /// Environments whose episode ended in the latest row, and which the next step resets.
    ended: Vec<bool>,
    /// For a group of one that is stepped as a single environment.
    finals: Finals,
}

/// When an engine resets an environment whose episode has ended.
#[derive(Clone, Copy, PartialEq)]
enum Autoreset {
    NextStep,
    SameStep,
    Disabled,
}

/// How an engine takes the seeds of its environments.
#[derive(Clone, Copy)]
enum Seeds {
    /// A list, of all environments whether they are reset or not.
    List,
    /// An array, of those that are reset.
    Array,
    /// One number.
    One,
}

impl GymnasiumVector {
    /// What names of batched engines start with in a recipe.
    pub const PREFIX: &str = "vec:";

    /// Makes `count` environments `vec:ID` or `vec:module:ID`. Arguments are those of the engine: what
    /// `gymnasium.make_vec` takes, `spec.time_limit` as `max_episode_steps`. Starts the interpreter if need be.
    ///
    /// # Errors
    /// No such environment, or one without an engine of its own; spaces that are not read here.
    pub fn new(spec: &EnvSpec, count: usize) -> Result<Self> {
        Self::called(spec, &spec.id, count)
    }

    /// As [`GymnasiumVector::new`]; messages call it `id`.
    pub(crate) fn called(spec: &EnvSpec, id: &str, count: usize) -> Result<Self> {
        python::start();
        python::attach(|py| Self::make(py, spec, id, count))
    }

    fn make(py: Python, spec: &EnvSpec, id: &str, count: usize) -> Result<Self> {
        let name = Gymnasium::name(&spec.id);
        let gymnasium = ready(py, spec, id, name)?;
        let making = |error| raised(py, id, "make", error);
        let wanted = PyDict::new(py);
        wanted.set_item("vectorization_mode", "vector_entry_point").map_err(making)?;
        wanted.update(arguments(py, spec, id)?.as_mapping()).map_err(making)?;
        wanted.set_item("num_envs", count).map_err(making)?;
        let env = gymnasium.call_method("make_vec", (name,), Some(&wanted));
        let env = env.map_err(|error| missing(py, id, &error).unwrap_or_else(|| making(error)))?;
        let space = |what, attribute| PythonSpace::of_attribute(&env, id, what, attribute);
        let observation = space("observation", "single_observation_space")?;
        let action = space("action", "single_action_space")?.space;
        for (what, space) in [("observation", &observation.space), ("action", &action)] {
            if !matches!(space, Space::Box { .. } | Space::Discrete { .. }) {
                let hint = " in a batched engine, only Box and Discrete; take gym: in place of vec:";
                return Err(Error::UnsupportedSpace { id: id.into(), what, space: space.to_string(), hint });
            }
        }
        let observations = space("observation", "observation_space")?;
        let actions = space("action", "action_space")?;
        for (what, one, all) in
            [("observations", &observation.space, &observations.space), ("actions", &action, &actions.space)]
        {
            if !is_batch(one, all, count) {
                return Err(Error::SpaceMismatch {
                    what: format!("environment `{id}`: the {what} of one environment and of all"),
                    ours: format!("{count} × {one}"),
                    theirs: all.to_string(),
                });
            }
        }
        let mode = autoreset(&env).map_err(making)?.ok_or_else(|| Error::Contract {
            id: id.into(),
            message: "its metadata say no autoreset_mode: expected gymnasium.vector.AutoresetMode".into(),
        })?;
        let bind = || -> PyResult<Self> {
            Ok(Self {
                id: id.into(),
                reset: env.getattr("reset")?.unbind(),
                step: env.getattr("step")?.unbind(),
                require: py.import("numpy")?.getattr("require")?.unbind(),
                env: env.unbind(),
                seeds: Seeds::List,
                episodes: vec![0; count],
                ended: vec![false; count],
                finals: Finals::default(),
                observation,
                observations,
                action,
                actions,
                mode,
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

    /// Calls `reset`, of all environments or of those in `which`, with the seeds of the episodes that follow, in
    /// whichever form the engine takes them.
    fn start<'py>(
        &mut self,
        py: Python<'py>,
        seeds: &dyn Fn(usize, u64) -> u64,
        which: Option<&[bool]>,
    ) -> Result<Bound<'py, PyAny>> {
        let forms = match self.seeds {
            Seeds::List => &[Seeds::List, Seeds::Array, Seeds::One][..],
            Seeds::Array => &[Seeds::Array],
            Seeds::One => &[Seeds::One],
        };
        let all: Vec<u32> = self.episodes.iter().enumerate().map(|(i, &e)| fold(seeds(i, e))).collect();
        let call = |form| -> PyResult<Bound<'py, PyAny>> {
            let keywords = PyDict::new(py);
            match form {
                Seeds::List => keywords.set_item("seed", PyList::new(py, &all)?)?,
                Seeds::Array => {
                    let reset = |i: &usize| which.is_none_or(|which| which[*i]);
                    let some = (0..all.len()).filter(reset).map(|i| i64::from(all[i]));
                    keywords.set_item("seed", PyArray1::from_iter(py, some))?;
                }
                // One seed for all again would repeat what all did before.
                Seeds::One if which.is_some() => {}
                Seeds::One => keywords.set_item("seed", all[0])?,
            }
            if let Some(which) = which {
                let options = PyDict::new(py);
                options.set_item("reset_mask", PyArray1::from_slice(py, which))?;
                keywords.set_item("options", options)?;
            }
            self.reset.bind(py).call((), Some(&keywords))
        };
        let mut refusal = None;
        for &form in forms {
            match call(form) {
                Ok(result) => {
                    self.seeds = form;
                    return result.get_item(0).map_err(|error| self.raised(py, "reset", error));
                }
                // The first refusal is about the form that Gymnasium itself documents.
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(match refusal {
            Some(error) => self.raised(py, "reset", error),
            None => self.broken("it takes no seeds".into()),
        })
    }

    /// Copies an array of one number for each environment, of whatever type, into `to`.
    fn column<T: Element + Copy>(
        &self,
        py: Python,
        what: &'static str,
        value: Bound<PyAny>,
        to: &mut [T],
    ) -> Result<()> {
        let read = || -> PyResult<Result<(), usize>> {
            let array = self.require.bind(py).call1((value, numpy::dtype::<T>(py), ("C", "A")))?;
            let array = array.cast_into::<PyArrayDyn<T>>()?;
            let array = array.try_readonly()?;
            let values = array.as_slice()?;
            if values.len() != to.len() {
                return Ok(Err(values.len()));
            }
            to.copy_from_slice(values);
            Ok(Ok(()))
        };
        read().map_err(|error| self.raised(py, what, error))?.map_err(|found| {
            self.broken(format!("{what}: expected one for each of {} environments, found {found}", to.len()))
        })
    }

    /// The last observation of environment `i`, which `info` holds beside the first one of its next episode.
    fn read_final(&self, py: Python, info: &Bound<PyAny>, i: usize, to: LeafMut) -> Result<()> {
        let found = info.get_item("final_obs").and_then(|all| all.get_item(i)).map_err(|error| {
            self.broken(format!(
                "environment {i} of it was reset in the step that ended its episode, and info[\"final_obs\"] does \
                 not hold its last observation: {}",
                describe(py, &error)
            ))
        })?;
        self.observation.read(py, &found, to)
    }
}

/// Whether `all` are `count` of `one`, stored in the same way.
fn is_batch(one: &Space, all: &Space, count: usize) -> bool {
    let kinds = match (one, all) {
        (Space::Box { dtype: a, .. }, Space::Box { dtype: b, .. }) => a == b && *a != Dtype::I64,
        (Space::Discrete { n, start }, Space::MultiDiscrete { n: all, start: starts, .. }) => {
            all.iter().all(|x| x == n) && starts.iter().all(|x| x == start)
        }
        _ => false,
    };
    kinds && all.len() == count * one.len()
}

/// What the engine says of its resets.
fn autoreset(env: &Bound<PyAny>) -> PyResult<Option<Autoreset>> {
    let mode = env.getattr("metadata")?.call_method1("get", ("autoreset_mode",))?;
    // An enum of strings, or the string itself.
    let value = mode.getattr("value").unwrap_or(mode);
    Ok(match value.extract::<String>().unwrap_or_default().as_str() {
        "NextStep" => Some(Autoreset::NextStep),
        "SameStep" => Some(Autoreset::SameStep),
        "Disabled" => Some(Autoreset::Disabled),
        _ => None,
    })
}

impl VecEnv for GymnasiumVector {
    fn len(&self) -> usize {
        self.episodes.len()
    }

    fn observation_space(&self) -> &Space {
        &self.observation.space
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seeds: &dyn Fn(usize, u64) -> u64, observation: LeafMut) -> Result<()> {
        self.episodes.fill(0);
        self.ended.fill(false);
        python::attach(|py| {
            let first = self.start(py, seeds, None)?;
            self.observations.read(py, &first, observation)
        })
    }

    fn step(&mut self, action: Leaf, seeds: &dyn Fn(usize, u64) -> u64, row: &mut Row) -> Result<()> {
        let (count, size) = (self.episodes.len(), self.observation.space.len());
        python::attach(|py| {
            let stepping = |error| raised(py, &self.id, "step", error);
            let actions = self.actions.python(py, action).map_err(stepping)?;
            let result = self.step.bind(py).call1((actions,)).map_err(stepping)?;
            let result = result.cast_into::<PyTuple>().ok().filter(|tuple| tuple.len() == 5);
            let result = result.ok_or_else(|| {
                self.broken(
                    "expected (observations, rewards, terminations, truncations, infos) from step".into(),
                )
            })?;
            let item = |i| result.get_item(i).map_err(|error| raised(py, &self.id, "step", error));
            self.observations.read(py, &item(0)?, row.observation.part(0, count * size))?;
            self.column(py, "read the rewards", item(1)?, row.reward)?;
            self.column(py, "read the terminations", item(2)?, row.terminated)?;
            self.column(py, "read the truncations", item(3)?, row.truncated)?;
            row.valid.fill(true);
            let mut any = false;
            for i in 0..count {
                if self.ended[i] {
                    // This step reset it.
                    self.episodes[i] += 1;
                    self.ended[i] = false;
                    (row.valid[i], row.reward[i]) = (false, 0.0);
                    (row.terminated[i], row.truncated[i]) = (false, false);
                    continue;
                }
                if !row.reward[i].is_finite() {
                    return Err(
                        self.broken(format!("the reward of environment {i} of it is {}", row.reward[i]))
                    );
                }
                if !(row.terminated[i] || row.truncated[i]) {
                    continue;
                }
                any = true;
                let last = row.finals.push(i, &self.observation.space);
                match self.mode {
                    Autoreset::SameStep => {
                        self.read_final(py, &item(4)?, i, last)?;
                        self.episodes[i] += 1;
                    }
                    _ => {
                        let mut last = last;
                        last.copy_from(row.observation.part(i, size).leaf());
                        self.ended[i] = true;
                    }
                }
            }
            if any && self.mode == Autoreset::Disabled {
                let mut which = std::mem::take(&mut self.ended);
                self.episodes
                    .iter_mut()
                    .zip(&which)
                    .for_each(|(episode, &ended)| *episode += u64::from(ended));
                let first = self.start(py, seeds, Some(&which));
                which.fill(false);
                self.ended = which;
                self.observations.read(py, &first?, row.observation.part(0, count * size))?;
            }
            Ok(())
        })
    }

    fn save(&self) -> Vec<(u64, Option<Vec<u8>>)> {
        self.episodes.iter().map(|&episode| (episode, None)).collect()
    }

    fn load(
        &mut self,
        state: &[(u64, Option<Vec<u8>>)],
        seeds: &dyn Fn(usize, u64) -> u64,
        observation: LeafMut,
    ) -> Result<Vec<usize>> {
        let refuse = |message| Err(Error::CannotRestore { id: self.id.clone(), message });
        if state.len() != self.episodes.len() {
            let (saved, own) = (state.len(), self.episodes.len());
            return refuse(format!("the saved group has {saved} environments, this one {own}"));
        }
        if state.iter().any(|(_, saved)| saved.is_some()) {
            return refuse("it was saved in environments that are not a batch".into());
        }
        for (episode, (saved, _)) in self.episodes.iter_mut().zip(state) {
            *episode = saved.saturating_add(1);
        }
        self.ended.fill(false);
        python::attach(|py| {
            let first = self.start(py, seeds, None)?;
            self.observations.read(py, &first, observation)
        })?;
        Ok((0..state.len()).collect())
    }
}

/// A batch of one as a single environment.
impl Env for GymnasiumVector {
    fn id(&self) -> &str {
        &self.id
    }

    fn observation_space(&self) -> &Space {
        &self.observation.space
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        VecEnv::reset(self, &|_, _| seed, observation)
    }

    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> Result<Step> {
        let size = self.observation.space.len();
        let (mut reward, mut terminated, mut truncated, mut valid) = ([0.0], [false], [false], [true]);
        let mut finals = std::mem::take(&mut self.finals);
        finals.clear();
        let mut row = Row {
            observation: observation.part(0, size),
            reward: &mut reward,
            terminated: &mut terminated,
            truncated: &mut truncated,
            valid: &mut valid,
            finals: &mut finals,
            // A batch fails as a whole.
            faults: &mut Vec::new(),
            stepping: &AtomicI64::new(0),
        };
        let stepped = VecEnv::step(self, action, &|_, episode| episode, &mut row);
        if let Some((_, last)) = finals.iter().next() {
            observation.copy_from(last);
        }
        self.finals = finals;
        stepped?;
        Ok(Step { reward: reward[0].into(), terminated: terminated[0], truncated: truncated[0] })
    }
}

impl Drop for GymnasiumVector {
    fn drop(&mut self) {
        // Nobody is left to tell about an error; an interpreter that has ended needs no closing.
        Python::try_attach(|py| drop(self.env.call_method0(py, "close")));
    }
}
