//! What images became, in one mapped file, so that each is decoded once and a set may be larger than memory.

use super::{DataConfig, Found};
use crate::{Error, Result};
use memmap2::Mmap;
use safetensors::SafeTensors;
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Of the way images are prepared: another one makes other files.
const VERSION: u32 = 1;
/// Room for the header: it is known only after the last image.
const HEADER: usize = 4096;
/// Images that are decoded before they are written.
const CHUNK: usize = 1024;

/// Images `[N, size, size, channels]` of bytes.
#[derive(Debug)]
pub struct Pixels {
    map: Mmap,
    start: usize,
    /// Bytes of one image.
    length: usize,
}

impl Pixels {
    /// The bytes of image `index`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.map[self.start + index * self.length..][..self.length]
    }
}

/// Files that cannot be used, and why.
type Unreadable = Vec<(PathBuf, String)>;

/// The images of `found` as `config` wants them; which of its items they are; and which files are none.
pub fn open(
    config: &DataConfig,
    found: &Found,
    folder: Option<&Path>,
) -> Result<(Pixels, Vec<i64>, Unreadable)> {
    let Some(folder) = folder else {
        let file = tempfile::tempfile().map_err(Error::io("create a file in", &std::env::temp_dir()))?;
        return build(config, found, file, Path::new("temporary file"));
    };
    let path = folder.join(format!("{:016x}.safetensors", fingerprint(config, found)));
    let known = File::open(&path).ok().and_then(|file| read(config, found, &file));
    if let Some(known) = known {
        return Ok(known);
    }
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let mut temporary =
        tempfile::NamedTempFile::new_in(folder).map_err(Error::io("create a file in", folder))?;
    let file = temporary.as_file_mut().try_clone().map_err(Error::io("write", &path))?;
    let built = build(config, found, file, &path)?;
    temporary.persist(&path).map_err(|error| Error::io("write", &path)(error.error))?;
    Ok(built)
}

/// A number that changes with whatever changes the images.
fn fingerprint(config: &DataConfig, found: &Found) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut take = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let path = fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone());
    let how = (VERSION, config.size, config.channels, config.crop, config.resize);
    take(format!("{how:?} {}", path.display()).as_bytes());
    let mut stamp = |file: &Path| {
        let about = fs::metadata(file).ok();
        let modified =
            about.as_ref().and_then(|about| about.modified().ok()?.duration_since(UNIX_EPOCH).ok());
        take(format!("{:?} {modified:?}", about.map(|about| about.len())).as_bytes());
    };
    if found.path.is_file() {
        stamp(&found.path);
        return hash;
    }
    (0..found.items.len()).for_each(|i| stamp(&found.file(i)));
    for item in &found.items {
        take(item.name.as_os_str().as_encoded_bytes());
        take(b"\0");
    }
    hash
}

/// Decodes all images with all processors and writes them to `file`.
fn build(
    config: &DataConfig,
    found: &Found,
    file: File,
    path: &Path,
) -> Result<(Pixels, Vec<i64>, Unreadable)> {
    let cannot = || Error::io("write", path);
    let (size, channels) = (config.size as usize, config.channels as usize);
    let one = |index: usize| -> Result<Vec<u8>, String> {
        let picture = found.picture(index).map_err(|error| match error {
            Error::BadFile { message, .. } => message,
            other => other.to_string(),
        })?;
        picture.squared(config.crop, size, channels, config.resize)
    };
    let (mut kept, mut unreadable) = (Vec::new(), Vec::new());
    let mut writer = BufWriter::new(file);
    writer.write_all(&[b' '; HEADER]).map_err(cannot())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = found.items.len();
    for first in (0..count).step_by(CHUNK) {
        let chunk: Vec<usize> = (first..count.min(first + CHUNK)).collect();
        let parts: Vec<Vec<Result<Vec<u8>, String>>> = std::thread::scope(|scope| {
            let parts: Vec<_> = chunk
                .chunks(chunk.len().div_ceil(threads))
                .map(|part| scope.spawn(move || part.iter().map(|&index| one(index)).collect()))
                .collect();
            parts.into_iter().map(|part| part.join().unwrap_or_default()).collect()
        });
        for (index, prepared) in chunk.into_iter().zip(parts.into_iter().flatten()) {
            match prepared {
                Ok(bytes) => {
                    writer.write_all(&bytes).map_err(cannot())?;
                    kept.push(index as i64);
                }
                Err(reason) => unreadable.push((found.file(index), reason)),
            }
        }
    }
    for index in &kept {
        writer.write_all(&index.to_le_bytes()).map_err(cannot())?;
    }
    let bytes = kept.len() * size * size * channels;
    let header = json!({
        "images": { "dtype": "U8", "shape": [kept.len(), size, size, channels], "data_offsets": [0, bytes] },
        "kept": { "dtype": "I64", "shape": [kept.len()], "data_offsets": [bytes, bytes + 8 * kept.len()] },
        "__metadata__": { "source": found.path.to_string_lossy().chars().take(1000).collect::<String>() },
    });
    let mut file = writer.into_inner().map_err(|error| cannot()(error.into_error()))?;
    let length = (HEADER - 8) as u64;
    file.seek(SeekFrom::Start(0)).map_err(cannot())?;
    file.write_all(&length.to_le_bytes()).map_err(cannot())?;
    file.write_all(header.to_string().as_bytes()).map_err(cannot())?;
    file.sync_all().map_err(cannot())?;
    let (pixels, _) = map(config, &file).ok_or_else(|| Error::bad_file(path, "it cannot be mapped"))?;
    Ok((pixels, kept, unreadable))
}

/// The file of an earlier time, if it is whole.
fn read(config: &DataConfig, found: &Found, file: &File) -> Option<(Pixels, Vec<i64>, Unreadable)> {
    let (pixels, kept) = map(config, file)?;
    let known: std::collections::BTreeSet<i64> = kept.iter().copied().collect();
    let missing = (0..found.items.len()).filter(|&i| !known.contains(&(i as i64)));
    // Why is found out again: they are few.
    let unreadable = missing.map(|i| {
        let reason = match found.picture(i) {
            Ok(_) => "it is too small for data.crop".into(),
            Err(Error::BadFile { message, .. }) => message,
            Err(other) => other.to_string(),
        };
        (found.file(i), reason)
    });
    let unreadable = unreadable.collect();
    Some((pixels, kept, unreadable))
}

fn map(config: &DataConfig, file: &File) -> Option<(Pixels, Vec<i64>)> {
    // SAFETY: nobody writes to these files after they have got their name; one that is cut off by hand meanwhile would
    // end the program.
    let map = unsafe { Mmap::map(file) }.ok()?;
    let (start, kept) = {
        let tensors = SafeTensors::deserialize(&map).ok()?;
        let (images, kept) = (tensors.tensor("images").ok()?, tensors.tensor("kept").ok()?);
        let kept: Vec<i64> =
            kept.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
        let (size, channels) = (config.size as usize, config.channels as usize);
        if images.shape() != [kept.len(), size, size, channels] {
            return None;
        }
        (images.data().as_ptr() as usize - map.as_ptr() as usize, kept)
    };
    let length = (config.size * config.size * config.channels) as usize;
    Some((Pixels { map, start, length }, kept))
}
