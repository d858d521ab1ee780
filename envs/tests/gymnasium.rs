//! The Gymnasium adapter beside Python itself, and with environments that behave in every way.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{Dtype, Env, EnvSpec, Gymnasium, Leaf, LeafBuf, Registry, Space, Step};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use single::{Rows, Single, seeds, spec};
use std::ffi::CString;
use std::sync::Once;

/// Environments of one behaviour each.
const SOURCE: &str = r#"
import gymnasium as gym, numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

closed = []

class Base(gym.Env):
    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)
    def observe(self): return np.array([self.t, self.last, 0.5], np.float32)
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.last, self.seed_given = 0, 0, seed
        return self.observe(), {}
    def step(self, action):
        self.t += 1
        self.last = action
        return self.observe(), 1.0, False, False, {}

class Start(Base):
    action_space = Discrete(3, start=-1)
    observation_space = Discrete(5, start=10)
    def observe(self): return np.int64(11 + self.last)
class BeyondStart(Start):
    def observe(self): return 15 if self.t else 10
class Image(Base):
    observation_space = Box(0, 255, (2, 3, 3), np.uint8)
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    def observe(self): return self.pixels + np.uint8(self.t)
class Flipped(Image):
    def observe(self): return self.pixels[::-1, :, ::-1]
class Fortran(Image):
    def observe(self): return np.asfortranarray(self.pixels)
class FloatImage(Image):
    def observe(self): return self.pixels / 255
class Double(Base):
    observation_space = Box(-np.inf, np.inf, (2, 2), np.float64)
    def observe(self): return np.array([[1 / 3, self.t], [2, 3]])
class DoubleStrided(Double):
    def observe(self): return np.arange(16.).reshape(4, 4)[::2, ::-2]
class Unaligned(Base):
    def observe(self): return np.frombuffer(b"x" + np.array([1, 2, 3], np.float32).tobytes(), np.float32, 3, 1)
class BigEndian(Base):
    def observe(self): return np.array([1, 2, 3], ">f4")
class ListOfInts(Base):
    def observe(self): return [1, 2, 3]
class Scalar(Base):
    observation_space = Box(0, 9, (), np.float32)
    action_space = Box(-1, 1, (), np.float32)
    def observe(self): return np.float32(self.last)
    def step(self, action):
        assert action.shape == () and action.dtype == np.float32, repr(action)
        return super().step(float(action))
class Matrix(Base):
    action_space = Box(-1, 1, (2, 2), np.float64)
    def step(self, action):
        assert action.shape == (2, 2) and action.dtype == np.float64, repr(action)
        self.kept = getattr(self, "kept", []) + [action]
        super().step(action[1, 0])
        return self.observe(), sum(a[0, 1] for a in self.kept), False, False, {}
class NumpyScalars(Base):
    def step(self, action):
        super().step(action)
        return self.observe(), np.float32(0.25), np.bool_(self.t == 2), np.array(self.t == 3), {}
class Raises(Base):
    def step(self, action):
        if action: raise ValueError("the gate is shut")
        raise KeyError()
class RaisesEarly(Base):
    def reset(self, **_): raise RuntimeError("no map")
class WrongShape(Base):
    def observe(self): return np.zeros(3 + self.t, np.float32)
class ScalarForVector(Base):
    def observe(self): return np.float32(1)
class Nan(Base):
    def observe(self): return np.array([0, np.nan, 0], np.float32)
class NanReward(Base):
    def step(self, action): return self.observe(), float("nan"), False, False, {}
class TextReward(Base):
    def step(self, action): return self.observe(), "much", False, False, {}
class Old(Base):
    def step(self, action): return self.observe(), 1.0, False, {}
class OldReset(Base):
    def reset(self, **_): return np.zeros(3, np.float32)
class Words(Base):
    observation_space = Dict(a=Text(5), b=Tuple([Text(3)]))
class Video(Base):
    observation_space = Box(0, 1, (2, 2, 2, 2), np.float32)
    def observe(self): return np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)
class Half(Base):
    observation_space = Box(-1, 1, (2,), np.float16)
    def observe(self): return np.array([0.5, -0.25], np.float16)
class Integers(Base):
    observation_space = Box(-2**62, 2**62, (3,), np.int64)
    def observe(self): return np.array([-7, 2**24 + 1, self.t])
class Booleans(Base):
    observation_space = Box(0, 1, (3,), bool)
    def observe(self): return np.array([True, False, True])
class ZeroDimensional(Base):
    observation_space = Dict(a=Discrete(3), b=Box(0, 9, (), np.int32))
    def observe(self): return dict(a=np.array(2), b=np.array(7, np.int32))
class Choices(Base):
    action_space = MultiDiscrete([2, 3], start=[10, -1])
    observation_space = MultiDiscrete([[20, 20], [20, 20]], start=[[0, -5], [0, 0]])
    def observe(self): return np.array([[self.t, -5], [11, 12]])
    def step(self, action):
        assert action.shape == (2,) and action.dtype == np.int64, repr(action)
        assert self.action_space.contains(action), repr(action)
        super().step(0)
        return self.observe(), float(action[0] * 10 + action[1]), False, False, {}
class ChoicesAsBytes(Choices):
    observation_space = MultiDiscrete([20, 20], dtype=np.int32)
    def observe(self): return np.array([3, 19], np.uint8)
class ChoicesBeyond(Choices):
    def observe(self): return np.array([[0, 15], [0, 0]])
class ChoicesAsFloats(Choices):
    def observe(self): return np.zeros((2, 2))
class Switches(Base):
    action_space = MultiBinary([2, 2])
    observation_space = MultiBinary(3)
    def observe(self): return np.array([1, 0, self.t % 2], np.int8)
    def step(self, action):
        assert action.shape == (2, 2) and action.dtype == np.int8, repr(action)
        super().step(0)
        return self.observe(), float(action[0, 1] + 10 * action[1, 1]), False, False, {}
class SwitchesAsBooleans(Switches):
    def observe(self): return [True, False, True]
class SwitchesBeyond(Switches):
    def observe(self): return np.array([0, 2, 0], np.int8)
class Steps(Base):
    action_space = Box(0, 5, (2,), np.int32)
class Nested(Base):
    # Not in the order of the alphabet, and returned in another one still.
    observation_space = Dict([
        ("zeta", Box(0, 255, (2, 2), np.uint8)),
        ("inner", Dict([("position", Box(-1, 1, (3,), np.float64)), ("mission", Text(9))])),
        ("alpha", Tuple([Discrete(4, start=1), Text(9), MultiBinary(2)])),
    ])
    def observe(self):
        return {
            "alpha": (np.int64(3), "left", np.array([0, 1], np.int8)),
            "inner": {"mission": "go", "position": np.array([0.25, self.t, -1])},
            "zeta": np.array([[1, 2], [3, 4]], np.uint8),
            "more": "than the space says",
        }
class Sorted(Base):
    observation_space = Dict({"b": Discrete(9), "a": Discrete(9)})
    def observe(self): return {"b": 2, "a": 1}
class SameNames(Base):
    observation_space = Dict({"a/b": Discrete(2), "a": Dict(b=Discrete(2))})
class NestedLacks(Nested):
    def observe(self): return {key: value for key, value in super().observe().items() if key != "inner"}
class NestedShort(Nested):
    def observe(self): return super().observe() | {"alpha": (np.int64(3), "left")}
class NestedNan(Nested):
    def observe(self): return super().observe() | {"inner": {"position": np.array([0, np.nan, 0])}}
class NestedShape(Nested):
    def observe(self): return super().observe() | {"zeta": np.zeros((2, 3), np.uint8)}
class NestedActions(Base):
    action_space = Dict([("turn", Box(-1, 1, (2,), np.float32)), ("rest", Tuple([Discrete(3, start=5), MultiBinary(2)]))])
    def step(self, action):
        assert list(action) == ["turn", "rest"] and type(action["rest"]) is tuple, repr(action)
        assert self.action_space.contains(action), repr(action)
        turn, (gear, lights) = action["turn"], action["rest"]
        super().step(0)
        return self.observe(), float(turn[1] + 10 * gear + 100 * lights[1]), False, False, {}
class Masked(Base):
    action_space = Discrete(3)
    masks = [[1, 0, 1], [0, 1, 0], [1, 1, 1]]
    def mask(self): return np.array(self.masks[self.t % 3], np.int8)
    def reset(self, **arguments): return super().reset(**arguments)[0], {"action_mask": self.mask()}
    def step(self, action):
        result = super().step(action)
        return *result[:4], {"action_mask": self.mask()}
class MaskedBooleans(Masked):
    def mask(self): return [bool(x) for x in self.masks[self.t % 3]]
class MaskedParts(Masked):
    action_space = MultiDiscrete([2, 3])
    def mask(self): return (np.array([True, False]), np.array([0, 1, 1], np.int8))
class MaskedSwitches(Masked):
    action_space = MultiBinary(2)
    def mask(self): return np.array([[1, 0], [1, 1]])
class MaskedWrongly(Masked):
    def mask(self): return np.ones(4, np.int8)
class MaskedWithWords(Masked):
    def mask(self): return "all"
class MaskedOnce(Masked):
    def step(self, action): return *super().step(action)[:4], {}
class MaskedLate(Masked):
    def reset(self, **arguments): return super().reset(**arguments)[0], {}
class MaskedToTheEnd(Masked):
    def step(self, action): return self.observe(), 1.0, True, False, {}
class Stuck(Masked):
    masks = [[1, 0, 1], [0, 0, 0]]
class MaskedBox(Masked):
    action_space = Box(-1, 1, (1,), np.float32)
class Keeps(Base):
    def __init__(self, **arguments): self.arguments = arguments
    def observe(self):
        expected = dict(size=3, rate=0.5, on=True, name="maze", walls=[[1, 2], [3.5]], inner=dict(depth=2))
        assert self.arguments == expected, self.arguments
        assert all(type(self.arguments[k]) is type(v) for k, v in expected.items())
        return np.zeros(3, np.float32)
class Seeds(Base):
    observation_space = Discrete(2**40)
    def observe(self): return self.seed_given
class Draws(Base):
    metadata = {"render_modes": ["rgb_array"]}
    def __init__(self, render_mode=None, picture="colour"): self.render_mode, self.picture = render_mode, picture
    def render(self):
        if self.picture == "broken": raise OSError("no paint")
        values = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) + np.uint8(self.t)
        return values[:, ::-1] if self.picture == "colour" else values[..., 0]
class Closes(Base):
    def close(self):
        closed.append(self)
        raise RuntimeError("close fails")

for name, kind in list(globals().items()):
    if isinstance(kind, type) and issubclass(kind, Base):
        gym.register("imago/" + name + "-v0", entry_point=kind)
"#;

/// The spec of an environment defined above. What they show is chosen for its type and leaves their spaces.
fn test_spec(name: &str) -> EnvSpec {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        imago_envs::python::start();
        Python::attach(|py| {
            let source = CString::new(SOURCE).unwrap();
            PyModule::from_code(py, &source, c"imago_test.py", c"imago_test").unwrap();
        });
    });
    EnvSpec { check_bounds: false, ..EnvSpec::new(&format!("gym:imago/{name}-v0")) }
}

fn open(name: &str) -> Single<Gymnasium> {
    Single::new(Gymnasium::new(&test_spec(name)).unwrap())
}

/// The first observation.
fn first(name: &str) -> LeafBuf {
    let mut env = open(name);
    env.reset(0).unwrap();
    env.observation
}

/// What the adapter says when the environment is made, reset, and stepped with action 1.
fn complaint(name: &str) -> String {
    let prefix = format!("environment `gym:imago/{name}-v0`: ");
    let run = || {
        let mut env = Single::new(Gymnasium::new(&test_spec(name))?);
        env.reset(0)?;
        env.step(Leaf::I64(&[1]))
    };
    run().unwrap_err().to_string().strip_prefix(&prefix).unwrap().into()
}

/// Plays with the adapter and in Python with the same seeds and actions; everything must be equal.
fn beside(id: &str, seeds: std::ops::Range<u64>, action: impl Fn(u64) -> LeafBuf) {
    let mut env = Single::new(Gymnasium::new(&EnvSpec::new(&format!("gym:{id}"))).unwrap());
    let python =
        Python::attach(|py| py.import("gymnasium").unwrap().call_method1("make", (id,)).unwrap().unbind());
    let list = |x: Bound<PyAny>| x.call_method0("tolist").unwrap().extract::<Vec<f32>>().unwrap();
    let mut ends = 0;
    for seed in seeds {
        env.reset(seed).unwrap();
        Python::attach(|py| {
            let kwargs = PyDict::new(py);
            kwargs.set_item("seed", seed).unwrap();
            let result = python.bind(py).call_method("reset", (), Some(&kwargs)).unwrap();
            assert_eq!(env.f32(), list(result.get_item(0).unwrap()));
        });
        for t in 0.. {
            let action = action(t);
            let step = env.step(action.leaf()).unwrap();
            Python::attach(|py| {
                let action = match &action {
                    LeafBuf::I64(action) => action[0].into_pyobject(py).unwrap().into_any(),
                    other => numpy::PyArray1::from_slice(py, other.leaf().f32()).into_any(),
                };
                let result = python.bind(py).call_method1("step", (action,)).unwrap();
                assert_eq!(env.f32(), list(result.get_item(0).unwrap()));
                let reward = result.get_item(1).unwrap().extract().unwrap();
                let terminated = result.get_item(2).unwrap().extract().unwrap();
                let truncated = result.get_item(3).unwrap().extract().unwrap();
                assert_eq!(step, Step { reward, terminated, truncated });
            });
            if step.terminated || step.truncated {
                ends += 1;
                break;
            }
        }
    }
    assert!(ends > 1);
}

#[test]
fn cartpole_equals_python() {
    beside("CartPole-v1", 0..20, |t| LeafBuf::I64(vec![(t % 2) as i64]));
}

#[test]
fn pendulum_equals_python() {
    beside("Pendulum-v1", 0..3, |t| LeafBuf::F32(vec![(t % 7) as f32 - 3.0]));
}

#[test]
fn a_module_is_imported_first() {
    beside("seals:seals/CartPole-v0", 0..2, |t| LeafBuf::I64(vec![(t % 2) as i64]));
}

#[test]
fn a_group_resets_with_its_own_seeds_and_keeps_finals() {
    let registry = Registry::builtin();
    let mut group = registry.make_group(&spec("gym:CartPole-v1", "", Some(3)), 2).unwrap();
    let mut rows = Rows::new(group.as_ref());
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    let mut alone = Single::new(registry.make(&spec("gym:CartPole-v1", "", Some(3))).unwrap());
    alone.reset(seeds(1, 0)).unwrap();
    for _ in 0..3 {
        rows.step(group.as_mut(), Leaf::I64(&[0, 1])).unwrap();
        alone.step(Leaf::I64(&[1])).unwrap();
    }
    assert_eq!(rows.truncated, [true, true]);
    let finals: Vec<_> = rows.finals.iter().collect();
    assert_eq!(finals[1], (1, alone.observation.leaf()));
    alone.reset(seeds(1, 1)).unwrap();
    assert_eq!(rows.observation.leaf().part(1, 4), alone.observation.leaf());
    assert_eq!(group.save(), [(1, None), (1, None)]);
}

#[test]
fn discrete_choices_are_offsets_from_start() {
    let mut env = open("Start");
    assert_eq!(*env.env.action_space(), Space::Discrete { n: 3, start: -1 });
    assert_eq!(*env.env.observation_space(), Space::Discrete { n: 5, start: 10 });
    env.reset(0).unwrap();
    assert_eq!(env.observation.leaf().i64(), [1]);
    for (action, offset) in [(0, 0), (1, 1), (2, 2)] {
        env.step(Leaf::I64(&[action])).unwrap();
        assert_eq!(env.observation.leaf().i64(), [offset]);
    }
    assert_eq!(complaint("BeyondStart"), "observation 15 is not in Discrete(5, start 10)");
}

#[test]
fn images_stay_bytes_in_any_memory_order() {
    let mut env = open("Image");
    assert_eq!(env.env.observation_space().dtype(), Dtype::U8);
    assert_eq!(env.env.observation_space().shape(), [2, 3, 3]);
    env.reset(0).unwrap();
    env.step(Leaf::I64(&[0])).unwrap();
    assert_eq!(env.observation.leaf().u8(), (1..19).collect::<Vec<u8>>());
    assert_eq!(first("Fortran").leaf().u8(), (0..18).collect::<Vec<u8>>());
    let flipped = [11, 10, 9, 14, 13, 12, 17, 16, 15, 2, 1, 0, 5, 4, 3, 8, 7, 6];
    assert_eq!(first("Flipped").leaf().u8(), flipped);
    assert_eq!(complaint("FloatImage"), "expected an observation of type uint8, found float64");
}

#[test]
fn other_numbers_become_32_bit_floats() {
    assert_eq!(first("Double").leaf().f32(), [1.0f32 / 3.0, 0.0, 2.0, 3.0]);
    assert_eq!(first("DoubleStrided").leaf().f32(), [3.0, 1.0, 11.0, 9.0]);
    assert_eq!(
        *open("Double").env.observation_space(),
        Space::floats(&[2, 2], f64::NEG_INFINITY, f64::INFINITY)
    );
    for name in ["Unaligned", "BigEndian", "ListOfInts"] {
        assert_eq!(first(name).leaf().f32(), [1.0, 2.0, 3.0], "{name}");
    }
}

#[test]
fn actions_have_the_spaces_shape_and_type() {
    let mut env = open("Scalar");
    assert_eq!(*env.env.observation_space(), Space::floats(&[1], 0.0, 9.0));
    env.reset(0).unwrap();
    env.step(Leaf::F32(&[0.75])).unwrap();
    assert_eq!(env.f32(), [0.75]);
    let mut env = open("Matrix");
    env.reset(0).unwrap();
    env.step(Leaf::F32(&[0.0, 1.0, 0.5, 0.0])).unwrap();
    assert_eq!(env.f32(), [1.0, 0.5, 0.5]);
    // It kept the first action, which the second must not have overwritten.
    assert_eq!(env.step(Leaf::F32(&[0.0, 0.25, 0.5, 0.0])).unwrap().reward, 1.25);
}

#[test]
fn what_lies_outside_its_space_is_refused_unless_it_is_let_pass() {
    let strict = EnvSpec { check_bounds: true, ..test_spec("NumpyScalars") };
    let mut env = Single::new(Gymnasium::new(&strict).unwrap());
    // It shows 0, 1, 2.
    env.reset(0).unwrap();
    env.step(Leaf::I64(&[0])).unwrap();
    let error = env.step(Leaf::I64(&[0])).unwrap_err().to_string();
    assert!(
        error.contains("2 at 0, outside its space's -1 to 1") && error.contains("check_bounds"),
        "{error}"
    );
}

#[test]
fn numpys_scalars_are_taken() {
    let mut env = open("NumpyScalars");
    env.reset(0).unwrap();
    for (terminated, truncated) in [(false, false), (true, false), (false, true)] {
        assert_eq!(env.step(Leaf::I64(&[0])).unwrap(), Step { reward: 0.25, terminated, truncated });
    }
}

#[test]
fn what_breaks_is_said() {
    for (name, text) in [
        ("Raises", "step: Python raised ValueError: the gate is shut"),
        ("RaisesEarly", "reset: Python raised RuntimeError: no map"),
        ("WrongShape", "expected an observation of shape [3], found [4]"),
        ("ScalarForVector", "expected an observation of shape [3], found []"),
        ("Nan", "value 1 of the observation is NaN"),
        ("NanReward", "the reward is NaN"),
        ("TextReward", "read the reward: Python raised TypeError: must be real number, not str"),
        ("Old", "expected (observation, reward, terminated, truncated, info) from step, found 4 values"),
        ("OldReset", "expected (observation, info) from reset, found a ndarray"),
    ] {
        assert_eq!(complaint(name), text, "{name}");
    }
    let mut env = open("Raises");
    env.reset(0).unwrap();
    let message = env.step(Leaf::I64(&[0])).unwrap_err().to_string();
    assert_eq!(message, "environment `gym:imago/Raises-v0`: step: Python raised KeyError");
}

#[test]
fn boxes_of_any_type_and_shape() {
    let video = open("Video");
    assert_eq!(video.env.observation_space().shape(), [2, 2, 2, 2]);
    assert_eq!(first("Video").leaf().f32(), (0..16).map(|x| x as f32).collect::<Vec<f32>>());
    assert_eq!(first("Half").leaf().f32(), [0.5, -0.25]);
    // 2²⁴ + 1 is the first whole number that 32-bit floats do not have.
    assert_eq!(first("Integers").leaf().f32(), [-7.0, 16_777_216.0, 0.0]);
    assert_eq!(first("Booleans").leaf().f32(), [1.0, 0.0, 1.0]);
    let zero = open("ZeroDimensional");
    let first = first("ZeroDimensional");
    assert_eq!(first.leaf().field(zero.env.observation_space(), "a").i64(), [2]);
    assert_eq!(first.leaf().field(zero.env.observation_space(), "b").f32(), [7.0]);
}

#[test]
fn several_choices_are_offsets_from_start() {
    let mut env = open("Choices");
    assert_eq!(env.env.action_space().to_string(), "MultiDiscrete([2, 3], start [10, -1])");
    assert_eq!(env.env.observation_space().shape(), [2, 2]);
    env.reset(0).unwrap();
    assert_eq!(env.observation.leaf().i64(), [0, 0, 11, 12]);
    assert_eq!(env.step(Leaf::I64(&[1, 2])).unwrap().reward, 111.0);
    assert_eq!(env.step(Leaf::I64(&[0, 0])).unwrap().reward, 99.0);
    assert_eq!(env.observation.leaf().i64(), [2, 0, 11, 12]);
    assert_eq!(first("ChoicesAsBytes").leaf().i64(), [3, 19]);
}

#[test]
fn switches_are_bytes() {
    let mut env = open("Switches");
    assert_eq!(*env.env.action_space(), Space::multi_binary(&[2, 2]));
    env.reset(0).unwrap();
    assert_eq!(env.observation.leaf().u8(), [1, 0, 0]);
    assert_eq!(env.step(Leaf::U8(&[0, 1, 0, 0])).unwrap().reward, 1.0);
    assert_eq!(env.step(Leaf::U8(&[1, 0, 1, 1])).unwrap().reward, 10.0);
    assert_eq!(first("SwitchesAsBooleans").leaf().u8(), [1, 0, 1]);
}

#[test]
fn nested_observations_are_fields_in_the_order_of_their_space() {
    let mut env = open("Nested");
    let space = env.env.observation_space().clone();
    let text = "{zeta: Box([2, 2], uint8, 0 to 255), inner/position: Box([3], float32, -1 to 1), \
                alpha/0: Discrete(4, start 1), alpha/2: MultiBinary([2])}";
    assert_eq!(space.to_string(), text);
    env.reset(0).unwrap();
    env.step(Leaf::I64(&[0])).unwrap();
    let seen = env.observation.leaf();
    assert_eq!(seen.field(&space, "zeta").u8(), [1, 2, 3, 4]);
    assert_eq!(seen.field(&space, "inner/position").f32(), [0.25, 1.0, -1.0]);
    assert_eq!(seen.field(&space, "alpha/0").i64(), [2]);
    assert_eq!(seen.field(&space, "alpha/2").u8(), [0, 1]);
    // A dictionary without an order of its own is sorted by Gymnasium.
    let space = open("Sorted").env.observation_space().clone();
    assert_eq!(space.to_string(), "{a: Discrete(9), b: Discrete(9)}");
    assert_eq!(first("Sorted").leaf().field(&space, "b").i64(), [2]);
}

#[test]
fn nested_actions_are_built_as_python_has_them() {
    let mut env = open("NestedActions");
    let space = env.env.action_space().clone();
    assert_eq!(
        space.to_string(),
        "{turn: Box([2], float32, -1 to 1), rest/0: Discrete(3, start 5), rest/1: MultiBinary([2])}"
    );
    let mut action = LeafBuf::zeros(&space, 1);
    action.leaf_mut().field(&space, "turn").f32()[1] = 0.5;
    action.leaf_mut().field(&space, "rest/0").i64()[0] = 2;
    action.leaf_mut().field(&space, "rest/1").u8()[1] = 1;
    env.reset(0).unwrap();
    assert_eq!(env.step(action.leaf()).unwrap().reward, 0.5 + 70.0 + 100.0);
}

#[test]
fn nested_observations_that_break_their_space_are_named() {
    for (name, text) in [
        ("NestedLacks", "expected an observation with the key inner, found a dict without it"),
        ("NestedShort", "expected an observation with element 2, found a tuple without it"),
        ("NestedNan", "value 1 of field `inner/position` is NaN"),
        ("NestedShape", "expected field `zeta` of shape [2, 2], found [2, 3]"),
        ("ChoicesBeyond", "observation 15 is not in MultiDiscrete([20, 20, 20, 20], start [0, -5, 0, 0])"),
        ("ChoicesAsFloats", "expected an observation of integers, found float64"),
        ("SwitchesBeyond", "observation [0 2 0] is not in MultiBinary([3])"),
    ] {
        assert_eq!(complaint(name), text, "{name}");
    }
}

#[test]
fn masks_follow_every_reset_and_step() {
    for name in ["Masked", "MaskedBooleans"] {
        let mut env = open(name);
        let mask = |env: &Single<Gymnasium>| {
            let mut mask = [true; 3];
            env.env.action_mask(&mut mask).then_some(mask)
        };
        assert_eq!(mask(&env), None);
        env.reset(0).unwrap();
        assert_eq!(mask(&env), Some([true, false, true]), "{name}");
        env.step(Leaf::I64(&[0])).unwrap();
        assert_eq!(mask(&env), Some([false, true, false]), "{name}");
        env.step(Leaf::I64(&[1])).unwrap();
        env.reset(1).unwrap();
        assert_eq!(mask(&env), Some([true, false, true]), "{name}");
    }
    let mask = |name, size| {
        let mut env = open(name);
        env.reset(0).unwrap();
        let mut mask = vec![true; size];
        env.env.action_mask(&mut mask).then_some(mask)
    };
    assert_eq!(mask("MaskedParts", 5), Some(vec![true, false, false, true, true]));
    assert_eq!(mask("MaskedSwitches", 4), Some(vec![true, false, true, true]));
    assert_eq!(mask("MaskedBox", 0), None);
    assert_eq!(mask("Image", 2), None);
}

#[test]
fn masks_that_break_their_contract_are_named() {
    for (name, text) in [
        ("MaskedWrongly", "expected an action_mask of 3 choices for Discrete(3), found 4"),
        ("MaskedOnce", "its first reset gave an action_mask, this step none"),
        (
            "MaskedLate",
            "it gives an action_mask now, but its first reset gave none: give one from the first reset on",
        ),
    ] {
        assert_eq!(complaint(name), text, "{name}");
    }
    assert!(complaint("MaskedWithWords").contains("action_mask"), "{}", complaint("MaskedWithWords"));
    // After an end nobody asks.
    let mut env = open("MaskedToTheEnd");
    env.reset(0).unwrap();
    assert!(env.step(Leaf::I64(&[0])).unwrap().terminated);
}

#[test]
fn a_group_has_the_masks_of_all_and_refuses_one_that_allows_nothing() {
    let mut group = Registry::builtin().make_group(&test_spec("Stuck"), 2).unwrap();
    let mut rows = Rows::new(group.as_ref());
    group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
    let mut mask = [true; 6];
    assert!(group.action_mask(&mut mask).unwrap());
    assert_eq!(mask, [true, false, true, true, false, true]);
    rows.step(group.as_mut(), Leaf::I64(&[0, 2])).unwrap();
    let message = group.action_mask(&mut mask).unwrap_err().to_string();
    assert_eq!(message, "environment `gym:imago/Stuck-v0`: its action mask allows no action");
}

#[test]
fn spaces_that_nothing_here_can_read_are_refused() {
    for (name, text) in [
        ("Words", "observation space Dict('a': Text("),
        (
            "SameNames",
            "observation space Dict('a': Dict('b': Discrete(2)), 'a/b': Discrete(2)) is not supported: two",
        ),
        (
            "Steps",
            "action space Box(0, 5, (2,), int32) is not supported: make a Box of integers a MultiDiscrete",
        ),
    ] {
        let message = complaint(name);
        assert!(message.starts_with(text) && message.contains("is not supported"), "{message}");
    }
}

#[test]
fn what_cannot_be_made_is_said() {
    let message = |spec: &EnvSpec| Gymnasium::new(spec).err().unwrap().to_string();
    assert_eq!(
        message(&EnvSpec::new("gym:CartPool-v1")),
        "environment `gym:CartPool-v1`: make: Python raised NameNotFound: Environment `CartPool` doesn't exist. \
         Did you mean: `CartPole`?"
    );
    assert!(message(&EnvSpec::new("gym:no_such_module:Maze-v0")).contains("ModuleNotFoundError: "));
    let text = message(&spec("gym:CartPole-v1", "wind = 3", None));
    assert!(text.contains("TypeError: ") && text.contains("wind"), "{text}");
    assert_eq!(
        message(&spec("gym:CartPole-v1", "day = 2020-01-01", None)),
        "environment `gym:CartPole-v1`: argument `day`: dates and times cannot be passed to Python; write a string"
    );
}

#[test]
fn arguments_keep_their_types() {
    let args = r#"
        size = 3
        rate = 0.5
        on = true
        name = "maze"
        walls = [[1, 2], [3.5]]
        inner = { depth = 2 }
    "#;
    let mut keeps = test_spec("Keeps");
    keeps.args = args.parse().unwrap();
    Single::new(Gymnasium::new(&keeps).unwrap()).reset(0).unwrap();
}

#[test]
fn seeds_are_folded_to_31_bits() {
    let mut env = open("Seeds");
    for (seed, passed) in [(0, 0), (5, 5), (0x7fff_ffff, 0x7fff_ffff), (1 << 31, 1), (1 << 62, 1)] {
        env.reset(seed).unwrap();
        assert_eq!(env.observation.leaf().i64(), [passed]);
    }
    env.reset(u64::MAX).unwrap();
}

#[test]
fn dropping_closes_and_does_not_panic() {
    let mut env = open("Closes");
    env.reset(0).unwrap();
    drop(env);
    Python::attach(|py| {
        let closed = py.import("imago_test").unwrap().getattr("closed").unwrap();
        assert_eq!(closed.len().unwrap(), 1);
    });
}

#[test]
fn stepping_before_a_reset_is_pythons_error() {
    let message = open("Image").step(Leaf::I64(&[0])).unwrap_err().to_string();
    assert!(message.contains("step: Python raised ResetNeeded: "), "{message}");
}

#[test]
fn threads_come_and_go() {
    let run = || {
        let mut env = open("Image");
        env.reset(0).unwrap();
        for _ in 0..200 {
            env.step(Leaf::I64(&[1])).unwrap();
        }
        env
    };
    for _ in 0..5 {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(run)).collect();
        for thread in threads {
            // Made in one thread, stepped and dropped in another.
            let mut env = thread.join().unwrap();
            env.step(Leaf::I64(&[1])).unwrap();
            assert_eq!(env.observation.leaf().u8()[0], 201);
        }
    }
}

#[test]
fn gymnasiums_warnings_are_hidden() {
    open("Image"); // sets the filter
    let shown: Vec<String> = Python::attach(|py| {
        let code = c"
import warnings, gymnasium, numpy
shown = []
hook, warnings.showwarning = warnings.showwarning, lambda *a, **k: shown.append(str(a[0]))
gymnasium.spaces.Box(numpy.zeros(1), numpy.ones(1))
warnings.warn('this one stays')
warnings.showwarning = hook
";
        let globals = PyDict::new(py);
        py.run(code, Some(&globals), None).unwrap();
        globals.get_item("shown").unwrap().unwrap().extract().unwrap()
    });
    assert_eq!(shown, ["this one stays"]);
}

#[test]
fn pictures_come_from_those_who_are_asked_for_them() {
    let spec = test_spec("Draws");
    let registry = Registry::builtin();
    let mut env = Single::new(registry.make_rendering(&spec).unwrap());
    env.reset(0).unwrap();
    env.step(Leaf::I64(&[1])).unwrap();
    let frame = env.env.render().unwrap().unwrap();
    assert_eq!((frame.width, frame.height), (4, 2));
    // Mirrored, and one step on: pixel (0, 0) holds 9, 10, 11 and 1.
    assert_eq!(frame.pixels[..2], [[10, 11, 12], [7, 8, 9]]);
    assert_eq!(frame.pixels[4], [22, 23, 24]);

    let mut silent = Single::new(registry.make(&spec).unwrap());
    silent.reset(0).unwrap();
    assert!(silent.env.render().unwrap().is_none(), "a picture that nobody asked for");

    for (picture, words) in [
        ("grey", "expected a picture of shape [height, width, 3], found [2, 4]"),
        ("broken", "render: Python raised OSError: no paint"),
    ] {
        let mut spec = spec.clone();
        spec.args.insert("picture".into(), picture.into());
        let mut env = Single::new(registry.make_rendering(&spec).unwrap());
        env.reset(0).unwrap();
        let message = env.env.render().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
