//! Saved states: of native environments a fixed number of 64-bit floats, little-endian, and nothing else; of wrappers
//! something of their own before the state of what they wrap.

use crate::error::{Error, Result};

/// The bytes of `values`.
pub(crate) fn encode<const N: usize>(values: [f64; N]) -> Vec<u8> {
    encode_all(&values)
}

/// The same of as many as there are.
pub(crate) fn encode_all(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The `N` values of `bytes`; refuses another length, and values that no episode can reach.
pub(crate) fn decode<const N: usize>(id: &str, bytes: &[u8]) -> Result<[f64; N]> {
    let mut values = [0.0; N];
    values.copy_from_slice(&decode_all(id, bytes, N)?);
    Ok(values)
}

/// The same of `count` values.
pub(crate) fn decode_all(id: &str, bytes: &[u8], count: usize) -> Result<Vec<f64>> {
    let refuse = |message| Err(Error::CannotRestore { id: id.into(), message });
    if bytes.len() != 8 * count {
        return refuse(format!("its state has {} bytes, the saved one {}", 8 * count, bytes.len()));
    }
    let values: Vec<f64> = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    match values.iter().find(|x| !x.is_finite()) {
        Some(x) => refuse(format!("the saved state holds {x}")),
        None => Ok(values),
    }
}

/// The first `count` bytes of a wrapper's state, and the rest. `what` says in an error what they hold.
pub(crate) fn split<'a>(id: &str, bytes: &'a [u8], count: usize, what: &str) -> Result<(&'a [u8], &'a [u8])> {
    bytes.split_at_checked(count).ok_or_else(|| Error::CannotRestore {
        id: id.into(),
        message: format!("the saved state has {} bytes and lacks {what}", bytes.len()),
    })
}
