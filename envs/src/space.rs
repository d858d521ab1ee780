//! What an observation or an action can be. Kinds are data, not type parameters.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Element type of a [`Space::Box`] as stored in rollouts and demonstrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floats. Environments with 64-bit observations are rounded to these, as in every peer.
    F32,
    /// Bytes: images stay bytes until the network.
    U8,
    /// 64-bit integers: discrete choices.
    I64,
}

/// A set of observations or actions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// An array of `shape` whose element `i` lies in `[low[i], high[i]]` (row-major; bounds may be infinite).
    Box {
        /// Dimensions; empty for a scalar.
        shape: Vec<usize>,
        /// Element type, [`Dtype::F32`] or [`Dtype::U8`].
        dtype: Dtype,
        /// Lowest value of each element.
        #[serde(with = "bounds")]
        low: Vec<f64>,
        /// Highest value of each element.
        #[serde(with = "bounds")]
        high: Vec<f64>,
    },
    /// One of the integers `start .. start + n`. Rollouts store the offset `0 .. n`; adapters add `start`.
    Discrete {
        /// Number of choices.
        n: i64,
        /// The first choice as the environment's own code numbers it.
        start: i64,
    },
}

/// JSON has no infinity: bounds are written as numbers or as the strings `"inf"` and `"-inf"`, and a run of
/// equal bounds only once, so that an image space is not 20,000 numbers.
mod bounds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// More values than any observation has: a damaged file must not fill the memory.
    const MOST: usize = 1 << 26;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Bound {
        Number(f64),
        Text(String),
    }

    fn bound(x: f64) -> Bound {
        if x.is_finite() { Bound::Number(x) } else { Bound::Text(x.to_string()) }
    }

    fn number<E: Error>(bound: Bound) -> Result<f64, E> {
        match bound {
            Bound::Number(x) => Ok(x),
            Bound::Text(text) => text.parse().map_err(|_| E::custom(format!("`{text}` is not a bound"))),
        }
    }

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let mut runs: Vec<(Bound, usize)> = Vec::new();
        let mut previous = None;
        for &x in values {
            match runs.last_mut() {
                Some(run) if previous == Some(x) => run.1 += 1,
                _ => runs.push((bound(x), 1)),
            }
            previous = Some(x);
        }
        runs.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let runs = Vec::<(Bound, usize)>::deserialize(deserializer)?;
        let mut values = Vec::new();
        for (bound, count) in runs {
            if count > MOST - values.len() {
                return Err(D::Error::custom("more bounds than any space has"));
            }
            values.resize(values.len() + count, number(bound)?);
        }
        Ok(values)
    }
}

impl Space {
    /// A box of 32-bit floats with the same bounds for every element.
    pub fn floats(shape: &[usize], low: f64, high: f64) -> Self {
        let count = shape.iter().product();
        Space::Box { shape: shape.into(), dtype: Dtype::F32, low: vec![low; count], high: vec![high; count] }
    }

    /// The choices `0 .. n`.
    pub fn discrete(n: i64) -> Self {
        Space::Discrete { n, start: 0 }
    }

    /// Dimensions of one element as stored: `shape` of a box, none for a discrete choice.
    pub fn shape(&self) -> &[usize] {
        match self {
            Space::Box { shape, .. } => shape,
            Space::Discrete { .. } => &[],
        }
    }

    /// Number of stored values of one element.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Numbers that a network reads of one element: the values of a box, one for each choice.
    pub fn features(&self) -> usize {
        match self {
            Space::Box { .. } => self.len(),
            Space::Discrete { n, .. } => *n as usize,
        }
    }

    /// Whether an element holds no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type as stored.
    pub fn dtype(&self) -> Dtype {
        match self {
            Space::Box { dtype, .. } => *dtype,
            Space::Discrete { .. } => Dtype::I64,
        }
    }

    /// Refuses another space than this one, naming both. Bounds and element type are part of the comparison
    /// only where they change what the numbers mean: the number of choices, the shape, bytes or floats.
    pub fn check_fits(&self, what: &str, other: &Space) -> Result<()> {
        let fits = match (self, other) {
            (Space::Box { shape: a, dtype: x, .. }, Space::Box { shape: b, dtype: y, .. }) => {
                a == b && x == y
            }
            (Space::Discrete { n: a, .. }, Space::Discrete { n: b, .. }) => a == b,
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(Error::SpaceMismatch { what: what.into(), ours: self.to_string(), theirs: other.to_string() })
        }
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Space::Box { shape, dtype, low, high } => {
                let name = match dtype {
                    Dtype::F32 => "float32",
                    Dtype::U8 => "uint8",
                    Dtype::I64 => "int64",
                };
                write!(f, "Box({shape:?}, {name}")?;
                let same = |xs: &[f64]| xs.windows(2).all(|w| w[0] == w[1]);
                match (low.first(), high.first()) {
                    (Some(low_0), Some(high_0)) if same(low) && same(high) => {
                        write!(f, ", {low_0} to {high_0})")
                    }
                    _ => write!(f, ")"),
                }
            }
            Space::Discrete { n, start: 0 } => write!(f, "Discrete({n})"),
            Space::Discrete { n, start } => write!(f, "Discrete({n}, start {start})"),
        }
    }
}

/// A read-only slice of stored values: one action of one environment, or of a whole group in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leaf<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Bytes.
    U8(&'a [u8]),
    /// Integers.
    I64(&'a [i64]),
}

/// A writable slice of stored values: one observation of one environment, or of a whole group in a row.
#[derive(Debug)]
pub enum LeafMut<'a> {
    /// Floats.
    F32(&'a mut [f32]),
    /// Bytes.
    U8(&'a mut [u8]),
    /// Integers.
    I64(&'a mut [i64]),
}

impl<'a> Leaf<'a> {
    /// The values as floats.
    ///
    /// # Panics
    /// If the leaf holds another type: the space says which one it is.
    pub fn f32(&self) -> &'a [f32] {
        match self {
            Leaf::F32(values) => values,
            other => panic!("expected a float leaf, found {other:?}"),
        }
    }

    /// The values as bytes; panics on another type, as [`Leaf::f32`] does.
    pub fn u8(&self) -> &'a [u8] {
        match self {
            Leaf::U8(values) => values,
            other => panic!("expected a byte leaf, found {other:?}"),
        }
    }

    /// The values as integers; panics on another type, as [`Leaf::f32`] does.
    pub fn i64(&self) -> &'a [i64] {
        match self {
            Leaf::I64(values) => values,
            other => panic!("expected an integer leaf, found {other:?}"),
        }
    }

    /// The `index`-th of equal parts of `size` values.
    pub fn part(&self, index: usize, size: usize) -> Leaf<'a> {
        let range = index * size..(index + 1) * size;
        match self {
            Leaf::F32(values) => Leaf::F32(&values[range]),
            Leaf::U8(values) => Leaf::U8(&values[range]),
            Leaf::I64(values) => Leaf::I64(&values[range]),
        }
    }
}

impl LeafMut<'_> {
    /// The values as floats.
    ///
    /// # Panics
    /// If the leaf holds another type: the space says which one it is.
    pub fn f32(&mut self) -> &mut [f32] {
        match self {
            LeafMut::F32(values) => values,
            other => panic!("expected a float leaf, found {other:?}"),
        }
    }

    /// The values as bytes; panics on another type, as [`LeafMut::f32`] does.
    pub fn u8(&mut self) -> &mut [u8] {
        match self {
            LeafMut::U8(values) => values,
            other => panic!("expected a byte leaf, found {other:?}"),
        }
    }

    /// The values as integers; panics on another type, as [`LeafMut::f32`] does.
    pub fn i64(&mut self) -> &mut [i64] {
        match self {
            LeafMut::I64(values) => values,
            other => panic!("expected an integer leaf, found {other:?}"),
        }
    }

    /// The `index`-th of equal parts of `size` values, to write to.
    pub fn part(&mut self, index: usize, size: usize) -> LeafMut<'_> {
        let range = index * size..(index + 1) * size;
        match self {
            LeafMut::F32(values) => LeafMut::F32(&mut values[range]),
            LeafMut::U8(values) => LeafMut::U8(&mut values[range]),
            LeafMut::I64(values) => LeafMut::I64(&mut values[range]),
        }
    }

    /// A read-only view.
    pub fn leaf(&self) -> Leaf<'_> {
        match self {
            LeafMut::F32(values) => Leaf::F32(values),
            LeafMut::U8(values) => Leaf::U8(values),
            LeafMut::I64(values) => Leaf::I64(values),
        }
    }

    /// Copies all values of `from`.
    ///
    /// # Panics
    /// If the two differ in type or in length.
    pub fn copy_from(&mut self, from: Leaf) {
        match self {
            LeafMut::F32(to) => to.copy_from_slice(from.f32()),
            LeafMut::U8(to) => to.copy_from_slice(from.u8()),
            LeafMut::I64(to) => to.copy_from_slice(from.i64()),
        }
    }
}

/// An owned leaf: true final observations, single-environment loops, demonstrations.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafBuf {
    /// Floats.
    F32(Vec<f32>),
    /// Bytes.
    U8(Vec<u8>),
    /// Integers.
    I64(Vec<i64>),
}

impl LeafBuf {
    /// `count` elements of `space`, all zero.
    pub fn zeros(space: &Space, count: usize) -> Self {
        let len = space.len() * count;
        match space.dtype() {
            Dtype::F32 => LeafBuf::F32(vec![0.0; len]),
            Dtype::U8 => LeafBuf::U8(vec![0; len]),
            Dtype::I64 => LeafBuf::I64(vec![0; len]),
        }
    }

    /// A read-only view.
    pub fn leaf(&self) -> Leaf<'_> {
        match self {
            LeafBuf::F32(values) => Leaf::F32(values),
            LeafBuf::U8(values) => Leaf::U8(values),
            LeafBuf::I64(values) => Leaf::I64(values),
        }
    }

    /// A view to write to.
    pub fn leaf_mut(&mut self) -> LeafMut<'_> {
        match self {
            LeafBuf::F32(values) => LeafMut::F32(values),
            LeafBuf::U8(values) => LeafMut::U8(values),
            LeafBuf::I64(values) => LeafMut::I64(values),
        }
    }
}
