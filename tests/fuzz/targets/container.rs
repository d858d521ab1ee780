//! A tensor file from a fuzzer's input.
//!
//! An input that begins with `{` describes a file: JSON `{"tensors": {NAME: [KIND, SHAPE]}, "metadata": {NAME: VALUE}}`,
//! then the tensors' bytes. It is written as Imago writes files, so that its checksum holds and what lies behind the
//! check is reached. Any other input is the file itself.

use imago::run::tensor_file;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

const KINDS: [(&str, Kind); 6] = [
    ("f32", Kind::Float),
    ("f64", Kind::Double),
    ("i64", Kind::Int64),
    ("i32", Kind::Int),
    ("u8", Kind::Uint8),
    ("bool", Kind::Bool),
];

/// Elements of the largest described file: small enough for thousands of files a second.
const MOST: i64 = 1 << 15;

#[derive(serde::Serialize, serde::Deserialize)]
struct Described {
    tensors: BTreeMap<String, (String, Vec<i64>)>,
    metadata: Map<String, Value>,
}

/// Writes the file; `None` if the input describes none.
pub fn write(data: &[u8], path: &Path) -> Option<()> {
    if data.first() != Some(&b'{') {
        return std::fs::write(path, data).ok();
    }
    let mut texts = serde_json::Deserializer::from_slice(data).into_iter::<Described>();
    let Described { tensors, metadata } = texts.next()?.ok()?;
    let mut rest = data[texts.byte_offset()..].iter().copied();
    let mut made = Vec::new();
    for (name, (kind, shape)) in tensors {
        let kind = KINDS.iter().find(|(known, _)| *known == kind)?.1;
        let count =
            shape.iter().try_fold(1i64, |count, &n| count.checked_mul(n).filter(|n| (0..=MOST).contains(n)));
        let mut bytes = vec![0; count? as usize * kind.elt_size_in_bytes()];
        bytes
            .iter_mut()
            .zip(&mut rest)
            .for_each(|(to, from)| *to = from & if kind == Kind::Bool { 1 } else { 255 });
        made.push((name, Tensor::f_from_data_size(&bytes, &shape, kind).ok()?));
    }
    tensor_file::write(path, &made, &metadata).ok()
}

/// The input that describes the file at `path`.
#[allow(dead_code)]
pub fn describe(path: &Path) -> Vec<u8> {
    let (tensors, metadata) = tensor_file::read(path).expect("a whole file");
    let mut described = Described { tensors: BTreeMap::new(), metadata };
    let mut bytes = Vec::new();
    for (name, tensor) in tensors {
        let kind = KINDS.iter().find(|(_, kind)| *kind == tensor.kind()).expect("a kind that is written").0;
        described.tensors.insert(name, (kind.into(), tensor.size()));
        let mut own = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut own, tensor.numel());
        bytes.extend(own);
    }
    let mut input = serde_json::to_vec(&described).expect("names and numbers");
    input.extend(bytes);
    input
}
