//! A handful of actions in place of all.

use super::refuse;
use crate::env::{Env, Step};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::space::{Dtype, Leaf, LeafBuf, LeafMut, Space};
use std::cell::RefCell;
use toml::Value;

/// Makes a discrete choice of some actions of `E`: action `i` is the `i`-th of a list. What games with pads need
/// (most combinations of buttons do nothing), and a way to act in a continuous environment by choices.
///
/// Where `E` has action masks, an action is allowed if each of its parts is.
pub struct ActionSet<E> {
    /// The environment itself.
    pub env: E,
    /// As stored, one after another.
    actions: LeafBuf,
    action: Space,
    /// The mask of `env`; a mask is asked for through a shared reference.
    mask: RefCell<Vec<bool>>,
}

impl<E: Env> ActionSet<E> {
    /// A choice of `actions`, each a number or an array of numbers: what the environment's own code takes, so that
    /// choices begin at `start`, switches are 0 or 1, and values of a box lie within its bounds.
    ///
    /// # Errors
    /// No action, one that is not in the action space, or a space of fields.
    pub fn new(env: E, actions: &[Value]) -> Result<Self> {
        let space = env.action_space();
        let mut stored = LeafBuf::zeros(space, 0);
        for (i, action) in actions.iter().enumerate() {
            let numbers = numbers_of(action).filter(|numbers| numbers.len() == space.len());
            if !numbers.is_some_and(|numbers| store(space, &numbers, &mut stored)) {
                return refuse(&env, "actions", format!("number {i}, {action}, is no action of {space}"));
            }
        }
        if actions.is_empty() {
            return refuse(&env, "actions", "expected at least one action");
        }
        let mask = RefCell::new(vec![true; space.choices()]);
        Ok(Self { actions: stored, action: Space::discrete(actions.len() as i64), mask, env })
    }

    fn inner(&self, index: usize) -> Leaf<'_> {
        self.actions.leaf().part(index, self.env.action_space().len())
    }
}

/// A number, or an array of numbers.
fn numbers_of(action: &Value) -> Option<Vec<f64>> {
    let number = |value: &Value| match value {
        Value::Integer(x) => Some(*x as f64),
        Value::Float(x) => Some(*x),
        _ => None,
    };
    match action {
        Value::Array(values) => values.iter().map(number).collect(),
        one => Some(vec![number(one)?]),
    }
}

/// Appends an element of `space` to `stored`, if `numbers` are one.
fn store(space: &Space, numbers: &[f64], stored: &mut LeafBuf) -> bool {
    let choice = |x: f64, n: i64, start: i64| {
        let offset = x as i64 - start;
        (x.fract() == 0.0 && (0..n).contains(&offset)).then_some(offset)
    };
    match space {
        Space::Discrete { n, start } => match choice(numbers[0], *n, *start) {
            Some(offset) => stored.extend(Leaf::I64(&[offset])),
            None => return false,
        },
        Space::MultiDiscrete { n, start, .. } => {
            let offsets: Option<Vec<i64>> =
                numbers.iter().zip(n).zip(start).map(|((&x, &n), &start)| choice(x, n, start)).collect();
            match offsets {
                Some(offsets) => stored.extend(Leaf::I64(&offsets)),
                None => return false,
            }
        }
        Space::MultiBinary { .. } => {
            if !numbers.iter().all(|&x| x == 0.0 || x == 1.0) {
                return false;
            }
            stored.extend(Leaf::U8(&numbers.iter().map(|&x| x as u8).collect::<Vec<_>>()));
        }
        Space::Box { dtype, low, high, .. } => {
            let inside = |((x, low), high): ((&f64, &f64), &f64)| x.is_finite() && x >= low && x <= high;
            if !numbers.iter().zip(low).zip(high).all(inside) {
                return false;
            }
            match dtype {
                Dtype::U8 => stored.extend(Leaf::U8(&numbers.iter().map(|&x| x as u8).collect::<Vec<_>>())),
                _ => stored.extend(Leaf::F32(&numbers.iter().map(|&x| x as f32).collect::<Vec<_>>())),
            }
        }
        Space::Fields(_) => return false,
    }
    true
}

/// Whether `mask` allows each part of `action`.
fn allows(space: &Space, mask: &[bool], action: Leaf) -> bool {
    match space {
        Space::Discrete { .. } => mask[action.i64()[0] as usize],
        Space::MultiDiscrete { n, .. } => {
            let mut first = 0;
            action.i64().iter().zip(n).all(|(&offset, &n)| {
                let allowed = mask[first + offset as usize];
                first += n as usize;
                allowed
            })
        }
        Space::MultiBinary { .. } => {
            action.u8().iter().enumerate().all(|(i, &on)| mask[2 * i + usize::from(on)])
        }
        Space::Box { .. } | Space::Fields(_) => true,
    }
}

impl<E: Env> Env for ActionSet<E> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        self.env.observation_space()
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        self.env.reset(seed, observation)
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let (chosen, count) = (action.i64()[0], self.action.features());
        let index =
            usize::try_from(chosen).ok().filter(|&index| index < count).ok_or_else(|| Error::Contract {
                id: self.env.id().into(),
                message: format!("it was given the action {chosen}, not one of 0 to {}", count - 1),
            })?;
        let size = self.env.action_space().len();
        self.env.step(self.actions.leaf().part(index, size), observation)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        let inner = &mut *self.mask.borrow_mut();
        if inner.is_empty() || !self.env.action_mask(inner) {
            return false;
        }
        for (index, allowed) in mask.iter_mut().enumerate() {
            *allowed = allows(self.env.action_space(), inner, self.inner(index));
        }
        true
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        self.env.render()
    }

    fn info(&self, name: &str) -> Option<f64> {
        self.env.info(name)
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.env.save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.env.load(state)
    }
}
