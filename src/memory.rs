//! A tensor's memory as a Rust slice, without a copy.

use imago_envs::Leaf;
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

/// The values of a contiguous tensor of observations or actions, whatever their kind.
///
/// # Panics
/// As [`slice()`], and for kinds that no space stores.
pub fn leaf(tensor: &Tensor) -> Leaf<'_> {
    match tensor.kind() {
        Kind::Float => Leaf::F32(slice(tensor)),
        Kind::Uint8 => Leaf::U8(slice(tensor)),
        _ => Leaf::I64(slice(tensor)),
    }
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
        let mut tensor = Tensor::zeros(shape, (T::KIND, tch::Device::Cpu));
        let values = slice_mut::<T>(&mut tensor);
        let (start, len) = (values.as_mut_ptr(), values.len());
        Self { tensor, start, len }
    }

    /// The whole of it as a tensor. Nobody keeps a view of it while the column is written.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
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
