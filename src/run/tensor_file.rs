//! Named tensors and JSON metadata in one safetensors file, written atomically and read with
//! full checking.
//!
//! Any safetensors reader opens these files. Beyond the format itself, the header's string map
//! holds one key per metadata entry (its value as JSON text), `format`, and `crc32` over
//! everything else the file says: names, kinds, shapes, data and metadata.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use super::atomic;
use super::error::{Error, Result};

/// Metadata: JSON values by name.
pub type Values = Map<String, Value>;

const FORMAT: &str = "1";
const FORMAT_KEY: &str = "format";
const CHECKSUM_KEY: &str = "crc32";
const HEADER_KEY: &str = "__metadata__";
/// What the safetensors library itself takes; a longer header is a damaged length.
const MAX_HEADER: u64 = 100_000_000;

/// Writes `tensors` (f32, f16, f64, i64, i32, u8 or bool) and `metadata` to `path`.
///
/// The file appears whole or not at all. The metadata keys `format` and `crc32` are taken.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &Values) -> Result<()> {
    let mut plain = BTreeMap::new();
    for (name, tensor) in tensors {
        if name == HEADER_KEY || plain.insert(name.as_str(), Plain::new(name, tensor)?).is_some() {
            return Err(Error::Invalid(format!(
                "{}: tensor name `{name}` is taken; give another",
                path.display()
            )));
        }
    }
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in metadata {
        if key == FORMAT_KEY || key == CHECKSUM_KEY {
            return Err(Error::Invalid(format!(
                "{}: metadata name `{key}` is taken; give another",
                path.display()
            )));
        }
        texts.insert(key.clone(), value.to_string());
    }
    let checksum = checksum(plain.iter().map(|(name, p)| (*name, p.dtype, &p.shape[..], p.bytes())), &texts);
    texts.insert(FORMAT_KEY.into(), FORMAT.into());
    texts.insert(CHECKSUM_KEY.into(), format!("{checksum:08x}"));

    // Widest elements first keeps every tensor aligned for readers that map the file.
    let mut order: Vec<(&str, &Plain)> = plain.iter().map(|(name, p)| (*name, p)).collect();
    order.sort_by(|(a, p), (b, q)| q.dtype.cmp(&p.dtype).then(a.cmp(b)));
    let json = |what: serde_json::Result<Value>| {
        what.map_err(|e| Error::Invalid(format!("{}: header: {e}", path.display())))
    };
    let mut header = Map::new();
    header.insert(HEADER_KEY.into(), json(serde_json::to_value(&texts))?);
    let mut end = 0;
    for (name, p) in &order {
        let start = end;
        end += p.bytes().len();
        let info = TensorInfo { dtype: p.dtype, shape: p.shape.clone(), data_offsets: (start, end) };
        header.insert((*name).into(), json(serde_json::to_value(info))?);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER {
        return Err(Error::Invalid(format!("{}: more than 100 MB of metadata", path.display())));
    }

    atomic::replace(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        order.iter().try_for_each(|(_, p)| file.write_all(p.bytes()))
    })
}

/// Everything in the file at `path`, checked against its checksum.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, Values)> {
    let (mut file, header) = open(path)?;
    let texts = texts(path, &header)?;

    let mut tensors = BTreeMap::new();
    let mut infos = BTreeMap::new();
    for name in header.offset_keys() {
        let info = header.info(&name).ok_or_else(|| damaged(path, "its header contradicts itself"))?;
        let kind = kind_of(info.dtype).ok_or_else(|| {
            Error::bad_file(path, format!("tensor `{name}` is {}, which is not read here", info.dtype))
        })?;
        let shape: Vec<i64> = info
            .shape
            .iter()
            .map(|&n| i64::try_from(n))
            .collect::<Result<_, _>>()
            .map_err(|_| damaged(path, format!("tensor `{name}` has an impossible shape")))?;
        let mut tensor = Tensor::f_empty(&shape, (kind, Device::Cpu))?;
        let length = info.data_offsets.1 - info.data_offsets.0;
        let bytes = bytes_mut(&mut tensor, length);
        file.read_exact(bytes).map_err(|e| damaged(path, format!("tensor `{name}`: {e}")))?;
        if kind == Kind::Bool && bytes.iter().any(|&b| b > 1) {
            return Err(damaged(path, format!("tensor `{name}` holds something else than true and false")));
        }
        infos.insert(name.clone(), info.clone());
        tensors.insert(name, tensor);
    }

    let mut plain: BTreeMap<String, String> = texts.clone();
    let stored = plain.remove(CHECKSUM_KEY);
    plain.remove(FORMAT_KEY);
    let actual = checksum(
        tensors.iter().zip(infos.values()).map(|((name, tensor), info)| {
            (&name[..], info.dtype, &info.shape[..], bytes(tensor, info.data_offsets.1 - info.data_offsets.0))
        }),
        &plain,
    );
    if stored.as_deref() != Some(&format!("{actual:08x}")) {
        return Err(damaged(path, "its checksum does not match its content"));
    }
    Ok((tensors, values(path, texts)?))
}

/// Only the metadata of the file at `path`. The tensors are not read, so the checksum is not
/// checked; that the file is complete is.
pub fn read_metadata(path: &Path) -> Result<Values> {
    let (_, header) = open(path)?;
    values(path, texts(path, &header)?)
}

/// Opens the file, reads its header, and leaves the cursor at the first tensor.
fn open(path: &Path) -> Result<(BufReader<File>, Metadata)> {
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::bad_file(path, "there is no such file"),
        _ => Error::io("open", path)(source),
    })?;
    let status = file.metadata().map_err(Error::io("read", path))?;
    if !status.is_file() {
        return Err(Error::bad_file(path, "this is not a file; name the file itself"));
    }
    let total = status.len();
    let not_ours = || Error::bad_file(path, "this is not a safetensors file; give one that Imago wrote");

    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut length = [0; 8];
    if total < 8 {
        return Err(not_ours());
    }
    file.read_exact(&mut length).map_err(Error::io("read", path))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(not_ours());
    }
    if 8 + length > total {
        // A cut file still shows how its header began; anything else never was one.
        let mut first = [0];
        return match file.read_exact(&mut first) {
            Ok(()) if first == *b"{" => Err(damaged(path, "it ends within its header")),
            _ => Err(not_ours()),
        };
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(Error::io("read", path))?;
    if header.first() != Some(&b'{') {
        return Err(not_ours());
    }
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|e| damaged(path, format!("its header cannot be read: {e}")))?;
    let expected = (8 + length).checked_add(header.data_len() as u64);
    match expected {
        Some(expected) if expected == total => Ok((file, header)),
        Some(expected) if expected > total => {
            Err(damaged(path, format!("it ends after {total} of {expected} bytes")))
        }
        _ => Err(damaged(path, "it is longer than its header says")),
    }
}

/// The header's string map, once it says that the file is of this format.
fn texts(path: &Path, header: &Metadata) -> Result<BTreeMap<String, String>> {
    let texts: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    match texts.get(FORMAT_KEY).map(String::as_str) {
        Some(FORMAT) => Ok(texts),
        Some(other) => Err(Error::bad_file(
            path,
            format!(
                "it has format `{other}` and this version reads format {FORMAT}; use the version that wrote it"
            ),
        )),
        None => Err(Error::bad_file(
            path,
            "this safetensors file names no format, so Imago did not write it; give one that it wrote",
        )),
    }
}

fn values(path: &Path, texts: BTreeMap<String, String>) -> Result<Values> {
    texts
        .into_iter()
        .filter(|(key, _)| key != FORMAT_KEY && key != CHECKSUM_KEY)
        .map(|(key, text)| match serde_json::from_str(&text) {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(damaged(path, format!("metadata `{key}`: {error}"))),
        })
        .collect()
}

fn damaged(path: &Path, message: impl std::fmt::Display) -> Error {
    Error::bad_file(path, format!("damaged: {message}; copy or make it again"))
}

/// Every part is preceded by its length, so that no two contents feed the same bytes.
fn checksum<'a>(
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>,
    texts: &BTreeMap<String, String>,
) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let mut part = |bytes: &[u8]| {
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    };
    for (name, dtype, shape, bytes) in tensors {
        part(name.as_bytes());
        part(dtype.to_string().as_bytes());
        part(&shape.iter().flat_map(|&n| (n as u64).to_le_bytes()).collect::<Vec<u8>>());
        part(bytes);
    }
    for (key, text) in texts {
        part(key.as_bytes());
        part(text.as_bytes());
    }
    crc.finalize()
}

/// A tensor in main memory and in order, so that its bytes can be borrowed.
struct Plain {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    length: usize,
}

impl Plain {
    fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let kind = tensor.f_kind()?;
        let dtype = dtype_of(kind).ok_or_else(|| {
            Error::Invalid(format!(
                "tensor `{name}` is {kind:?}; f32, f64, i64, i32, u8 and bool can be written"
            ))
        })?;
        let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        let length = tensor.numel() * kind.elt_size_in_bytes();
        Ok(Plain { tensor, dtype, shape, length })
    }

    fn bytes(&self) -> &[u8] {
        bytes(&self.tensor, self.length)
    }
}

/// The memory of a contiguous CPU tensor of `length` bytes. Replay buffers take gigabytes: they
/// are not copied to be written.
fn bytes(tensor: &Tensor, length: usize) -> &[u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the callers pass contiguous CPU tensors and their own size in bytes, so the memory
    // is one initialised piece; it lives as long as the borrowed tensor, and nobody writes to it
    // within these functions.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const u8, length) }
}

/// As [`bytes`], to be filled.
fn bytes_mut(tensor: &mut Tensor, length: usize) -> &mut [u8] {
    if length == 0 {
        return &mut [];
    }
    // SAFETY: as in `bytes`; the tensor was just allocated by the caller and has no other owner.
    // Any byte pattern is a valid element of the kinds read here (bool is checked after).
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut u8, length) }
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sample() -> (Vec<(String, Tensor)>, Values) {
        let grid = Tensor::from_slice(&[1.5f32, f32::NAN, -0.0, f32::INFINITY, 5.0, 6.0]).view([2, 3]);
        let tensors = vec![
            // A transposed view: what is written must be its elements, not its memory.
            ("grid".to_string(), grid.transpose(0, 1)),
            ("double".into(), Tensor::from_slice(&[0.1f64, 2.0])),
            ("long".into(), Tensor::from_slice(&[i64::MIN, 7])),
            ("int".into(), Tensor::from_slice(&[-1i32])),
            ("byte".into(), Tensor::from_slice(&[0u8, 255, 3])),
            ("bool".into(), Tensor::from_slice(&[true, false, true])),
            ("empty".into(), Tensor::zeros([0, 4], tch::kind::FLOAT_CPU)),
            ("scalar".into(), Tensor::from(3i64)),
        ];
        let metadata = json!({"step": 100u64, "note": "grün \"x\"", "list": [1, null, 0.1]});
        (tensors, metadata.as_object().unwrap().clone())
    }

    fn valid_file() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let (tensors, metadata) = sample();
        write(&path, &tensors, &metadata).unwrap();
        std::fs::read(path).unwrap()
    }

    fn read_bytes(content: &[u8]) -> Result<(BTreeMap<String, Tensor>, Values)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, content).unwrap();
        let _ = read_metadata(&path);
        read(&path)
    }

    fn same(a: &Tensor, b: &Tensor) -> bool {
        let raw = |t: &Tensor| Plain::new("", t).unwrap().bytes().to_vec();
        a.kind() == b.kind() && a.size() == b.size() && raw(a) == raw(b)
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let (tensors, metadata) = sample();
        write(&path, &tensors, &metadata).unwrap();
        let (read_tensors, read_values) = read(&path).unwrap();
        assert_eq!(read_tensors.len(), tensors.len());
        for (name, tensor) in &tensors {
            assert!(same(&read_tensors[name], tensor), "{name}");
        }
        assert_eq!(read_values, metadata);
        assert_eq!(read_metadata(&path).unwrap(), metadata);
        // Twice the same content, twice the same file.
        let first = std::fs::read(&path).unwrap();
        write(&path, &tensors, &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        // Other readers take it too.
        assert_eq!(Tensor::read_safetensors(&path).unwrap().len(), tensors.len());
    }

    #[test]
    fn no_tensors_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, &[], &Map::new()).unwrap();
        let (tensors, values) = read(&path).unwrap();
        assert!(tensors.is_empty() && values.is_empty());
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let folder = tempfile::tempdir().unwrap();
        let fault = |name: &str, content: Option<&[u8]>| {
            let path = folder.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let message = read(&path).unwrap_err().to_string();
            assert!(message.starts_with(path.to_str().unwrap()), "{message}");
            message
        };
        let good = valid_file();
        assert!(fault("missing", None).contains("no such file"));
        assert!(fault("empty", Some(b"")).contains("not a safetensors file"));
        assert!(fault("text", Some(b"PK\x03\x04 something else")).contains("not a safetensors file"));
        assert!(fault("cut", Some(&good[..good.len() - 1])).contains("it ends after"));
        assert!(fault("cut early", Some(&good[..20])).contains("ends within its header"));
        assert!(fault("long", Some(&[&good[..], b"x"].concat())).contains("longer"));
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(fault("flipped", Some(&flipped)).contains("checksum"));
        let text = good.windows(12).position(|w| w == b"\"format\":\"1\"").unwrap();
        let mut newer = good.clone();
        newer[text + 10] = b'2';
        assert!(fault("newer", Some(&newer)).contains("format `2`"));
        let foreign = safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView)>::new(), None);
        assert!(fault("foreign", Some(&foreign.unwrap())).contains("names no format"));
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let half = Tensor::zeros([1], (Kind::BFloat16, Device::Cpu));
        let named = |name: &str, tensor: &Tensor| (name.to_string(), tensor.shallow_clone());
        let (x, none) = (Tensor::from(1i64), Map::new());
        assert!(write(&path, &[named("h", &half)], &none).unwrap_err().to_string().contains("BFloat16"));
        assert!(write(&path, &[named("a", &x), named("a", &x)], &none).is_err());
        assert!(write(&path, &[named("__metadata__", &x)], &none).is_err());
        let taken = json!({"crc32": 1});
        assert!(write(&path, &[], taken.as_object().unwrap()).is_err());
        let nowhere = folder.path().join("no/x.safetensors");
        assert!(write(&nowhere, &[], &none).unwrap_err().to_string().contains("cannot write"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn arbitrary_bytes_are_refused(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read_bytes(&content).is_err());
        }

        #[test]
        fn an_arbitrary_header_does_not_panic(
            header in "\\{(\"[a-c]\":\\{\"dtype\":\"(F32|BOOL|U16|F4)\",\"shape\":\\[[0-9,]{0,20}\\],\"data_offsets\":\\[0,[0-9]{1,18}\\]\\},?){0,2}\\}",
            rest in 0usize..32,
        ) {
            let mut content = (header.len() as u64).to_le_bytes().to_vec();
            content.extend(header.as_bytes());
            content.resize(content.len() + rest, 0);
            prop_assert!(read_bytes(&content).is_err());
        }

        #[test]
        fn a_flipped_bit_is_found(place in any::<proptest::sample::Index>(), bit in 0u8..8) {
            let mut content = valid_file();
            let place = place.index(content.len());
            content[place] ^= 1 << bit;
            // A few flips change nothing (a space of the header's padding into other white
            // space): then all must read as it was.
            if let Ok((tensors, values)) = read_bytes(&content) {
                let (expected, metadata) = sample();
                prop_assert_eq!(values, metadata);
                prop_assert_eq!(tensors.len(), expected.len());
                for (name, tensor) in expected {
                    prop_assert!(same(&tensors[&name], &tensor));
                }
            }
        }

        #[test]
        fn a_cut_file_is_refused(place in any::<proptest::sample::Index>()) {
            let content = valid_file();
            prop_assert!(read_bytes(&content[..place.index(content.len())]).is_err());
        }
    }
}
