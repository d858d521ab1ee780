//! Several named spaces in one record: how `Dict` and `Tuple` observations are stored.

use crate::error::{Error, Result};
use crate::space::{Dtype, Leaf, LeafMut, Space};
use serde::{Deserialize, Serialize};

/// Where fields begin in a record, and what its size is a multiple of: as strict as the strictest type.
const ALIGNMENT: usize = 8;

/// One field of [`Fields`].
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name; levels of nesting are separated by `/`, elements of a tuple are numbered: `inner/position`,
    /// `0/1`.
    pub name: String,
    /// What it holds; never itself [`Space::Fields`].
    pub space: Space,
    /// Its first byte within the record, a multiple of 8.
    pub offset: usize,
}

impl Field {
    fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.space.len() * self.space.dtype().size()
    }

    /// Bytes that it takes in a record, the gap behind it included.
    pub fn bytes(&self) -> usize {
        self.range().len().next_multiple_of(ALIGNMENT)
    }

    /// Its values in one `record`.
    ///
    /// # Panics
    /// If the record is too short or does not begin at a multiple of 8 bytes, which all buffers here do.
    pub fn read<'a>(&self, record: &'a [u8]) -> Leaf<'a> {
        let bytes = &record[self.range()];
        match self.space.dtype() {
            Dtype::F32 => Leaf::F32(bytemuck::cast_slice(bytes)),
            Dtype::U8 => Leaf::U8(bytes),
            Dtype::I64 => Leaf::I64(bytemuck::cast_slice(bytes)),
        }
    }

    /// As [`Field::read`], to write to.
    pub fn write<'a>(&self, record: &'a mut [u8]) -> LeafMut<'a> {
        let bytes = &mut record[self.range()];
        match self.space.dtype() {
            Dtype::F32 => LeafMut::F32(bytemuck::cast_slice_mut(bytes)),
            Dtype::U8 => LeafMut::U8(bytes),
            Dtype::I64 => LeafMut::I64(bytemuck::cast_slice_mut(bytes)),
        }
    }
}

/// Named spaces side by side, in a fixed order, none of them nested: names carry the path.
///
/// An element is stored as one record of bytes, each field in its own type (native byte order) at an offset that
/// is a multiple of 8, the whole a multiple of 8 long, gaps zero. So whatever moves whole observations (rollouts,
/// demonstrations, replays, checkpoints) moves one array of bytes and knows nothing of fields, and a field of
/// many records can be viewed as numbers without a copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, Space)>", into = "Vec<(String, Space)>")]
pub struct Fields {
    fields: Vec<Field>,
    /// Bytes of a record.
    size: [usize; 1],
}

impl Fields {
    /// Fields in the order of `leaves`; those that are fields themselves are taken apart, `outer` and `inner`
    /// becoming `outer/inner`.
    ///
    /// # Errors
    /// No field at all, two of one name, or more bytes than memory has.
    pub fn new<N: Into<String>>(leaves: impl IntoIterator<Item = (N, Space)>) -> Result<Self> {
        let mut fields: Vec<Field> = Vec::new();
        let mut size = 0usize;
        let flat = leaves.into_iter().flat_map(|(name, space)| {
            let name = name.into();
            match space {
                Space::Fields(inner) => {
                    let inner = inner.fields.into_iter();
                    inner.map(|field| (format!("{name}/{}", field.name), field.space)).collect()
                }
                leaf => vec![(name, leaf)],
            }
        });
        for (name, space) in flat {
            if fields.iter().any(|field| field.name == name) {
                return Err(Error::BadFields { message: format!("two fields are called `{name}`") });
            }
            let count = space.shape().iter().try_fold(1usize, |count, &d| count.checked_mul(d));
            let end = count
                .and_then(|count| count.checked_mul(space.dtype().size()))
                .and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT)?.checked_add(size))
                .filter(|&end| isize::try_from(end).is_ok());
            let Some(end) = end else {
                return Err(Error::BadFields { message: format!("field `{name}` is too large: {space}") });
            };
            fields.push(Field { name, space, offset: size });
            size = end;
        }
        if size == 0 {
            return Err(Error::BadFields { message: "there is no field".into() });
        }
        Ok(Self { fields, size: [size] })
    }

    /// `[bytes of a record]`
    pub(crate) fn shape(&self) -> &[usize] {
        &self.size
    }
}

impl std::ops::Deref for Fields {
    type Target = [Field];

    fn deref(&self) -> &[Field] {
        &self.fields
    }
}

impl TryFrom<Vec<(String, Space)>> for Fields {
    type Error = Error;

    fn try_from(leaves: Vec<(String, Space)>) -> Result<Self> {
        Self::new(leaves)
    }
}

impl From<Fields> for Vec<(String, Space)> {
    fn from(fields: Fields) -> Self {
        fields.fields.into_iter().map(|field| (field.name, field.space)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::space::LeafBuf;

    fn space() -> Space {
        let inner =
            Space::fields([("position", Space::floats(&[3], -1.0, 1.0)), ("on", Space::multi_binary(&[5]))]);
        Space::fields([("inner", inner.unwrap()), ("choice", Space::Discrete { n: 4, start: 2 })]).unwrap()
    }

    #[test]
    fn records_are_laid_out_by_hand() {
        let Space::Fields(fields) = &space() else { unreachable!() };
        let layout: Vec<_> = fields.iter().map(|field| (field.name.as_str(), field.offset)).collect();
        // 12 bytes and a gap of 4, 5 and a gap of 3, 8.
        assert_eq!(layout, [("inner/position", 0), ("inner/on", 16), ("choice", 24)]);
        assert_eq!((space().len(), space().shape(), space().dtype()), (32, [32].as_slice(), Dtype::U8));
        assert_eq!((space().features(), space().choices()), (3 + 5 + 4, 10 + 4));
        let text = "{inner/position: Box([3], float32, -1 to 1), inner/on: MultiBinary([5]), choice: Discrete(4, start 2)}";
        assert_eq!(space().to_string(), text);
    }

    #[test]
    fn fields_are_read_where_they_were_written() {
        let space = space();
        let mut two = LeafBuf::zeros(&space, 2);
        let mut group = two.leaf_mut();
        let mut second = group.part(1, space.len());
        second.field(&space, "inner/position").f32().copy_from_slice(&[0.5, -0.5, 1.0]);
        second.field(&space, "inner/on").u8()[4] = 1;
        second.field(&space, "choice").i64()[0] = 3;
        let (first, second) = (two.leaf().part(0, 32), two.leaf().part(1, 32));
        assert_eq!(first, Leaf::U8(&[0; 32]));
        assert_eq!(second.field(&space, "inner/position"), Leaf::F32(&[0.5, -0.5, 1.0]));
        assert_eq!(second.field(&space, "inner/on"), Leaf::U8(&[0, 0, 0, 0, 1]));
        assert_eq!(second.field(&space, "choice"), Leaf::I64(&[3]));
        let mut grown = LeafBuf::zeros(&space, 0);
        grown.extend(first);
        grown.extend(second);
        assert_eq!(grown, two);
    }

    #[test]
    fn what_cannot_be_fields_is_refused() {
        let message = |leaves: Vec<(&str, Space)>| Space::fields(leaves).unwrap_err().to_string();
        assert!(message(vec![]).contains("no field"));
        let (one, other) = (Space::discrete(2), Space::fields([("b", Space::discrete(2))]).unwrap());
        assert!(message(vec![("a/b", one), ("a", other)]).contains("`a/b`"));
        let huge = Space::MultiBinary { shape: vec![usize::MAX, 2] };
        assert!(message(vec![("x", huge)]).contains("too large"));
    }

    #[test]
    fn fits_only_the_same_names_in_the_same_order() {
        let pair = |names: [&str; 2]| Space::fields(names.map(|name| (name, Space::discrete(2)))).unwrap();
        assert!(pair(["a", "b"]).check_fits("x", &pair(["a", "b"])).is_ok());
        assert!(pair(["a", "b"]).check_fits("x", &pair(["b", "a"])).is_err());
        assert!(pair(["a", "b"]).check_fits("x", &Space::discrete(2)).is_err());
    }

    #[test]
    fn a_mask_must_leave_something_of_each_choice() {
        let both = Space::multi_discrete(&[2, 3]);
        assert!(both.allows_an_action(&[false, true, true, false, false]));
        assert!(!both.allows_an_action(&[true, true, false, false, false]));
        let switches = Space::multi_binary(&[2]);
        assert!(switches.allows_an_action(&[true, false, false, true]));
        assert!(!switches.allows_an_action(&[true, true, false, false]));
        assert!(!Space::discrete(2).allows_an_action(&[false, false]));
    }
}
