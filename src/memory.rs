//! A tensor's memory as a Rust slice, without a copy.

use tch::{Tensor, kind::Element};

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

/// As [`slice`], to write to.
pub fn slice_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    check::<T>(tensor);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as above. Other tensors may be views of the same memory (that is the point of `nn::Flat`); they
    // are only touched through libtorch, by the same thread, never while this slice is alive.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut T, tensor.numel()) }
}

fn check<T: Element>(tensor: &Tensor) {
    let fits = tensor.kind() == T::KIND && tensor.is_contiguous() && tensor.device() == tch::Device::Cpu;
    assert!(fits, "{tensor:?} is no contiguous {:?} in main memory", T::KIND);
}
