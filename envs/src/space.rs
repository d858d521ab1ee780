//! What an observation or an action can be. Kinds are data, not type parameters.

use crate::error::{Error, Result};
use crate::fields::Fields;
use serde::{Deserialize, Serialize};

/// Element type as stored in rollouts and demonstrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floats. Everything that is neither bytes nor a choice is rounded to these, as in every peer:
    /// integers beyond ±2²⁴ and 64-bit floats lose their last digits.
    F32,
    /// Bytes: images stay bytes until the network; switches are 0 or 1; records of [`Fields`].
    U8,
    /// 64-bit integers: discrete choices.
    I64,
}

impl Dtype {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::U8 => 1,
            Dtype::I64 => 8,
        }
    }
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
    /// Several choices at once: element `i` is one of `start[i] .. start[i] + n[i]` (row-major). Rollouts store
    /// the offsets `0 .. n[i]`; adapters add `start`.
    MultiDiscrete {
        /// Dimensions.
        shape: Vec<usize>,
        /// Number of choices of each element.
        n: Vec<i64>,
        /// The first choice of each.
        start: Vec<i64>,
    },
    /// Switches, each 0 or 1, stored as bytes.
    MultiBinary {
        /// Dimensions.
        shape: Vec<usize>,
    },
    /// Several named spaces side by side: what Gymnasium nests as `Dict` and `Tuple`.
    Fields(Fields),
}

/// JSON has no infinity: bounds are written as numbers or as the strings `"inf"` and `"-inf"`, and a run of
/// equal bounds only once, so that an image space is not 20,000 numbers.
mod bounds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// More values than any observation has: a damaged file must not fill the memory.
    pub const MOST: usize = 1 << 25;

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

    /// Bytes `0 ..= 255` in an array of `shape`: pictures.
    pub fn bytes(shape: &[usize]) -> Self {
        let count = shape.iter().product();
        Space::Box { shape: shape.into(), dtype: Dtype::U8, low: vec![0.0; count], high: vec![255.0; count] }
    }

    /// The choices `0 .. n`.
    pub fn discrete(n: i64) -> Self {
        Space::Discrete { n, start: 0 }
    }

    /// Choices `0 .. n[i]`, one of each.
    pub fn multi_discrete(n: &[i64]) -> Self {
        Space::MultiDiscrete { shape: vec![n.len()], n: n.into(), start: vec![0; n.len()] }
    }

    /// Switches in an array of `shape`.
    pub fn multi_binary(shape: &[usize]) -> Self {
        Space::MultiBinary { shape: shape.into() }
    }

    /// Named spaces side by side; see [`Fields::new`].
    pub fn fields<N: Into<String>>(leaves: impl IntoIterator<Item = (N, Space)>) -> Result<Self> {
        Ok(Space::Fields(Fields::new(leaves)?))
    }

    /// Dimensions of one element as stored: none for a discrete choice, the number of bytes for fields.
    pub fn shape(&self) -> &[usize] {
        match self {
            Space::Box { shape, .. } | Space::MultiDiscrete { shape, .. } | Space::MultiBinary { shape } => {
                shape
            }
            Space::Discrete { .. } => &[],
            Space::Fields(fields) => fields.shape(),
        }
    }

    /// Number of stored values of one element.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Numbers that a network reads of one element: the values of a box, one for each choice or switch.
    pub fn features(&self) -> usize {
        match self {
            Space::Box { .. } | Space::MultiBinary { .. } => self.len(),
            Space::Discrete { n, .. } => *n as usize,
            Space::MultiDiscrete { n, .. } => n.iter().map(|&n| n as usize).sum(),
            Space::Fields(fields) => fields.iter().map(|field| field.space.features()).sum(),
        }
    }

    /// Entries of an action mask: one for each choice; a switch has two, off and on; a box none.
    pub fn choices(&self) -> usize {
        match self {
            Space::Box { .. } => 0,
            Space::MultiBinary { .. } => 2 * self.len(),
            Space::Discrete { .. } | Space::MultiDiscrete { .. } => self.features(),
            Space::Fields(fields) => fields.iter().map(|field| field.space.choices()).sum(),
        }
    }

    /// Whether an action can be made of what `mask` allows: of each choice and switch something.
    pub fn allows_an_action(&self, mask: &[bool]) -> bool {
        let any = |mask: &[bool]| mask.contains(&true);
        match self {
            Space::Box { .. } => true,
            Space::Discrete { .. } => any(mask),
            Space::MultiBinary { .. } => mask.chunks(2).all(any),
            Space::MultiDiscrete { n, .. } => {
                let mut rest = mask;
                n.iter().all(|&n| {
                    let (own, others) = rest.split_at((n as usize).min(rest.len()));
                    rest = others;
                    any(own)
                })
            }
            Space::Fields(fields) => {
                let mut rest = mask;
                fields.iter().all(|field| {
                    let (own, others) = rest.split_at(field.space.choices().min(rest.len()));
                    rest = others;
                    field.space.allows_an_action(own)
                })
            }
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
            Space::Discrete { .. } | Space::MultiDiscrete { .. } => Dtype::I64,
            Space::MultiBinary { .. } | Space::Fields(_) => Dtype::U8,
        }
    }

    /// The field `name`; panics where there is none, for those who made the space themselves.
    fn field(&self, name: &str) -> &crate::fields::Field {
        let found = match self {
            Space::Fields(fields) => fields.iter().find(|field| field.name == name),
            _ => None,
        };
        found.unwrap_or_else(|| panic!("{self} has no field `{name}`"))
    }

    /// Refuses a space that no environment has: what a file says must be checked before it is believed.
    pub fn check(&self) -> Result<()> {
        match self.contradiction() {
            Some(message) => Err(Error::DamagedSpace { space: self.to_string(), message }),
            None => Ok(()),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let count = |shape: &[usize]| shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n));
        let choices_fit =
            |n: i64, start: i64| (1..=bounds::MOST as i64).contains(&n) && start.checked_add(n).is_some();
        match self {
            Space::Box { shape, dtype, low, high } => {
                if count(shape) != Some(low.len()) || count(shape) != Some(high.len()) {
                    return Some("not one lower and one upper bound for each value");
                }
                if *dtype == Dtype::I64 {
                    return Some("a box holds floats or bytes");
                }
                let ordered = low.iter().zip(high).all(|(low, high)| low <= high);
                (!ordered).then_some("a lower bound above the upper one")
            }
            Space::Discrete { n, start } => {
                (!choices_fit(*n, *start)).then_some("an impossible number of choices")
            }
            Space::MultiDiscrete { shape, n, start } => {
                if count(shape) != Some(n.len()) || count(shape) != Some(start.len()) {
                    return Some("not one number of choices and one start for each value");
                }
                let fit = n.iter().zip(start).all(|(&n, &start)| choices_fit(n, start));
                let total = n.iter().try_fold(0i64, |total, &n| total.checked_add(n));
                let few = total.is_some_and(|total| total <= bounds::MOST as i64);
                (!(fit && few)).then_some("an impossible number of choices")
            }
            Space::MultiBinary { shape } => {
                let fits = count(shape).is_some_and(|count| count <= bounds::MOST);
                (!fits).then_some("more switches than any space has")
            }
            Space::Fields(fields) => fields.iter().find_map(|field| field.space.contradiction()),
        }
    }

    /// Refuses another space than this one, naming both. Bounds and element type are part of the comparison
    /// only where they change what the numbers mean: the number of choices, the shape, bytes or floats. Fields
    /// must have the same names in the same order.
    pub fn check_fits(&self, what: &str, other: &Space) -> Result<()> {
        if self.fits(other) {
            Ok(())
        } else {
            Err(Error::SpaceMismatch { what: what.into(), ours: self.to_string(), theirs: other.to_string() })
        }
    }

    fn fits(&self, other: &Space) -> bool {
        match (self, other) {
            (Space::Box { shape: a, dtype: x, .. }, Space::Box { shape: b, dtype: y, .. }) => {
                a == b && x == y
            }
            (Space::Discrete { n: a, .. }, Space::Discrete { n: b, .. }) => a == b,
            (Space::MultiDiscrete { shape: a, n: x, .. }, Space::MultiDiscrete { shape: b, n: y, .. }) => {
                a == b && x == y
            }
            (Space::MultiBinary { shape: a }, Space::MultiBinary { shape: b }) => a == b,
            (Space::Fields(a), Space::Fields(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b.iter()).all(|(a, b)| a.name == b.name && a.space.fits(&b.space))
            }
            _ => false,
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
            Space::MultiDiscrete { n, start, .. } => {
                write!(f, "MultiDiscrete({n:?}")?;
                match start.iter().all(|&start| start == 0) {
                    true => write!(f, ")"),
                    false => write!(f, ", start {start:?})"),
                }
            }
            Space::MultiBinary { shape } => write!(f, "MultiBinary({shape:?})"),
            Space::Fields(fields) => {
                write!(f, "{{")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", field.name, field.space)?;
                }
                write!(f, "}}")
            }
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

    /// The field `name` of an element of `space`, where this leaf is that one element.
    ///
    /// # Panics
    /// If the space has no such field, or this is no element of it.
    pub fn field(&self, space: &Space, name: &str) -> Leaf<'a> {
        space.field(name).read(self.u8())
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

    /// The field `name` of an element of `space`, to write to, where this leaf is that one element.
    ///
    /// # Panics
    /// If the space has no such field, or this is no element of it.
    pub fn field(&mut self, space: &Space, name: &str) -> LeafMut<'_> {
        space.field(name).write(self.u8())
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
    /// Records of [`Space::Fields`]: bytes, in words so that every field lies where its type may lie.
    Records(Vec<u64>),
}

impl LeafBuf {
    /// `count` elements of `space`, all zero.
    pub fn zeros(space: &Space, count: usize) -> Self {
        let len = space.len() * count;
        match space.dtype() {
            _ if matches!(space, Space::Fields(_)) => LeafBuf::Records(vec![0; len / 8]),
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
            LeafBuf::Records(words) => Leaf::U8(bytemuck::cast_slice(words)),
        }
    }

    /// A view to write to.
    pub fn leaf_mut(&mut self) -> LeafMut<'_> {
        match self {
            LeafBuf::F32(values) => LeafMut::F32(values),
            LeafBuf::U8(values) => LeafMut::U8(values),
            LeafBuf::I64(values) => LeafMut::I64(values),
            LeafBuf::Records(words) => LeafMut::U8(bytemuck::cast_slice_mut(words)),
        }
    }

    /// All values as bytes, in this machine's order: for saved states.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            LeafBuf::F32(values) => bytemuck::cast_slice(values),
            LeafBuf::U8(values) => values,
            LeafBuf::I64(values) => bytemuck::cast_slice(values),
            LeafBuf::Records(words) => bytemuck::cast_slice(words),
        }
    }

    /// As [`LeafBuf::bytes`], to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            LeafBuf::F32(values) => bytemuck::cast_slice_mut(values),
            LeafBuf::U8(values) => values,
            LeafBuf::I64(values) => bytemuck::cast_slice_mut(values),
            LeafBuf::Records(words) => bytemuck::cast_slice_mut(words),
        }
    }

    /// Appends the values of `leaf`.
    ///
    /// # Panics
    /// If it is of another type, or half a record.
    pub fn extend(&mut self, leaf: Leaf) {
        match self {
            LeafBuf::F32(values) => values.extend_from_slice(leaf.f32()),
            LeafBuf::U8(values) => values.extend_from_slice(leaf.u8()),
            LeafBuf::I64(values) => values.extend_from_slice(leaf.i64()),
            LeafBuf::Records(words) => words.extend_from_slice(bytemuck::cast_slice(leaf.u8())),
        }
    }
}
