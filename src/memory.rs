//! A tensor's memory as a Rust slice or as numbers of another type, without a copy.

use imago_envs::{Dtype, Field, Leaf};
use std::sync::atomic::AtomicI64;
use tch::{Kind, Tensor, kind::Element};

/// The values of a contiguous tensor in main memory.
///
/// # Panics
/// If the tensor is of another kind or not contiguous: a mistake in this library, not of its user.
pub fn slice<T: Element>(tensor: &Tensor) -> &[T] {
    check::<T>(tensor);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: contiguous memory of `numel` elements of this kind that lives as long as the tensor.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const T, tensor.numel()) }
}

/// As [`slice()`], to write to.
pub fn slice_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    check::<T>(tensor);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as above. Other tensors may be views of the same memory (that is the point of `nn::Flat`); they
    // are only touched through libtorch, by the same thread, never while this slice is alive.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut T, tensor.numel()) }
}

/// The kind of tensor in which values of `dtype` are stored.
pub fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        Dtype::I64 => Kind::Int64,
    }
}

/// The values of a contiguous tensor of floats, bytes or 64-bit integers.
///
/// # Panics
/// As [`slice()`] does.
pub fn leaf_of(values: &Tensor) -> Leaf<'_> {
    match values.kind() {
        Kind::Float => Leaf::F32(slice(values)),
        Kind::Uint8 => Leaf::U8(slice(values)),
        _ => Leaf::I64(slice(values)),
    }
}

/// One field of records `[…, bytes]`, `[…, shape of the field]` in its own type: a view of the same memory.
///
/// # Panics
/// If the records are not of the space whose field it is.
pub fn field_of(records: &Tensor, field: &Field) -> Tensor {
    let dtype = field.space.dtype();
    let bytes = field.space.len() * dtype.size();
    let values = records.narrow(-1, field.offset as i64, bytes as i64).view_dtype(kind_of(dtype));
    let mut shape = records.size();
    shape.pop();
    shape.extend(field.space.shape().iter().map(|&d| d as i64));
    values.view(&shape[..])
}

fn check<T: Element>(tensor: &Tensor) {
    let fits = tensor.kind() == T::KIND && tensor.is_contiguous() && tensor.device() == tch::Device::Cpu;
    assert!(fits, "{tensor:?} is no contiguous {:?} in main memory", T::KIND);
}

/// A tensor that Rust writes and libtorch reads: allocated once, its memory found once.
pub(crate) struct Column<T> {
    tensor: Tensor,
    start: *mut T,
    len: usize,
}

// SAFETY: it owns its tensor, which is `Send`; the pointer leads into that tensor's memory.
unsafe impl<T: Send> Send for Column<T> {}

impl<T: Element> Column<T> {
    /// Zeros of `shape`.
    pub fn zeros(shape: &[i64]) -> Self {
        Self::of(Tensor::zeros(shape, (T::KIND, tch::Device::Cpu)))
    }

    /// The memory of a contiguous tensor of this kind, which nobody else writes to meanwhile.
    pub fn of(mut tensor: Tensor) -> Self {
        let values = slice_mut::<T>(&mut tensor);
        let (start, len) = (values.as_mut_ptr(), values.len());
        Self { tensor, start, len }
    }

    /// The whole of it as a tensor. Nobody keeps a view of it while the column is written.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

impl Column<i64> {
    /// One number of it, for somebody who looks while it is written.
    pub fn atomic(&self, index: usize) -> &AtomicI64 {
        assert!(index < self.len, "{index} is not below {}", self.len);
        // SAFETY: aligned memory that lives as long as `self`. Numbers that are read from outside meanwhile are
        // written through here only.
        unsafe { AtomicI64::from_ptr(self.start.add(index)) }
    }
}

impl<T> std::ops::Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: found with `slice_mut` in the tensor that lives and stays where it is as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> std::ops::DerefMut for Column<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago_envs::{LeafBuf, Space};
    use proptest::prelude::*;

    fn leaf() -> impl Strategy<Value = Space> {
        let shape = || proptest::collection::vec(1..4usize, 0..4);
        prop_oneof![
            shape().prop_map(|shape| Space::floats(&shape, -1.0, 1.0)),
            shape().prop_map(|shape| Space::MultiBinary { shape }),
            proptest::collection::vec(1..9i64, 1..5).prop_map(|n| Space::multi_discrete(&n)),
            Just(Space::discrete(9)),
        ]
    }

    proptest! {
        /// What Rust wrote into records, libtorch reads, whatever part of a batch it looks at.
        #[test]
        fn fields_are_views_of_what_was_written(leaves in proptest::collection::vec(leaf(), 1..6)) {
            let space = Space::fields((0..).map(|i: u32| i.to_string()).zip(leaves)).unwrap();
            let Space::Fields(fields) = &space else { unreachable!() };
            let mut written = LeafBuf::zeros(&space, 6);
            for row in 0..6 {
                for field in fields.iter() {
                    let mut group = written.leaf_mut();
                    let mut record = group.part(row, space.len());
                    let mut leaf = record.field(&space, &field.name);
                    match field.space.dtype() {
                        Dtype::F32 => (1..).zip(leaf.f32()).for_each(|(i, x)| *x = (row * 100 + i) as f32),
                        Dtype::U8 => (1..).zip(leaf.u8()).for_each(|(i, x)| *x = (row * 40 + i) as u8),
                        Dtype::I64 => (1..).zip(leaf.i64()).for_each(|(i, x)| *x = (row * 100 + i) as i64),
                    }
                }
            }
            let batch = Tensor::from_slice(written.leaf().u8()).view([3, 2, space.len() as i64]);
            for field in fields.iter() {
                let factor = if field.space.dtype() == Dtype::U8 { 40 } else { 100 };
                let seen = field_of(&batch.narrow(0, 1, 2).select(1, 1), field);
                let shape: Vec<i64> = field.space.shape().iter().map(|&d| d as i64).collect();
                prop_assert_eq!(&seen.size()[1..], &shape[..]);
                for (i, row) in [3, 5].into_iter().enumerate() {
                    let values = Vec::<f64>::try_from(seen.get(i as i64).to_kind(Kind::Double).reshape(-1)).unwrap();
                    let wanted = (1..=field.space.len()).map(|k| (row * factor + k) as f64);
                    let wanted: Vec<f64> = match field.space.dtype() {
                        Dtype::U8 => wanted.map(|x| x % 256.0).collect(),
                        _ => wanted.collect(),
                    };
                    prop_assert_eq!(values, wanted);
                }
            }
        }
    }
}
