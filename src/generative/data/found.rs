//! Finding images: which layout a folder has, which files are in it, what is known about each.

use super::picture::Picture;
use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that image files end in.
const ENDINGS: [&str; 9] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "pgm", "ppm", "pnm"];
const CAPTIONS: &str = "captions.jsonl";
const CELEBA: &str = "list_attr_celeba.txt";
const EXPECTED: &str = "a folder of images (.png, .jpg, .webp, .bmp, .gif, .ppm), of a folder of images for each class, or \
                        with a captions.jsonl ({\"file\": …, \"caption\": …} a line); or a .npy or .safetensors file of images";

/// How images lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Image files in one folder.
    Folder,
    /// A folder of image files for each class.
    ClassFolders,
    /// `captions.jsonl` names them.
    Captions,
    /// `list_attr_celeba.txt` names them.
    CelebA,
    /// One array of all of them.
    Array,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// Its file, relative to the folder; for arrays its number.
    pub name: PathBuf,
    /// What it shows, if that is known.
    pub caption: Option<String>,
    /// What else is known: "folder", or the keys of `captions.jsonl`.
    pub labels: BTreeMap<String, String>,
}

/// All images that were found.
#[derive(Debug)]
pub struct Found {
    /// The folder, or the file of the array.
    pub path: PathBuf,
    /// How they lie there.
    pub layout: Layout,
    /// The images, in order of name or as the list has them.
    pub items: Vec<Item>,
    array: Option<Array>,
}

impl Found {
    /// What is at `path`.
    ///
    /// # Errors
    /// No images: what was expected, and what is there.
    pub fn at(path: &Path) -> Result<Self> {
        let found = |layout, items| Ok(Self { path: path.into(), layout, items, array: None });
        if path.as_os_str().is_empty() {
            return Err(Error::Invalid(format!("`data.path` is missing: it names {EXPECTED}")));
        }
        if !path.exists() {
            return Err(Error::bad_file(path, format!("it does not exist; data.path names {EXPECTED}")));
        }
        if path.is_file() {
            let array = Array::read(path)?;
            let items = (0..array.count).map(|i| Item { name: i.to_string().into(), ..Item::default() });
            let items = items.collect();
            return Ok(Self { path: path.into(), layout: Layout::Array, items, array: Some(array) });
        }
        if path.join(CAPTIONS).is_file() {
            return found(Layout::Captions, captions(path)?);
        }
        if path.join(CELEBA).is_file() {
            return found(Layout::CelebA, celeba(path)?);
        }
        let (files, folders, others) = entries(path)?;
        if !files.is_empty() {
            let items = files.into_iter().map(|name| Item { name, ..Item::default() });
            return found(Layout::Folder, items.collect());
        }
        let mut items = Vec::new();
        for folder in &folders {
            let label = BTreeMap::from([("folder".to_string(), folder.to_string_lossy().into_owned())]);
            let (files, ..) = entries(&path.join(folder))?;
            items.extend(files.into_iter().map(|name| Item {
                name: folder.join(name),
                labels: label.clone(),
                ..Item::default()
            }));
        }
        if !items.is_empty() {
            return found(Layout::ClassFolders, items);
        }
        let there = match (folders.first(), others.first()) {
            (None, None) => "it is empty".into(),
            (Some(first), _) => {
                format!("found no images, but {} ({}, …)", plural(folders.len(), "folder"), first.display())
            }
            (_, Some(first)) => format!("found {} ({})", plural(others.len(), "other file"), first.display()),
        };
        Err(Error::bad_file(path, format!("expected {EXPECTED}; {there}")))
    }

    /// "30,000 images in class folders".
    pub fn describe(&self) -> String {
        let count = plural(self.items.len(), "image");
        match self.layout {
            Layout::Folder => format!("{count} in one folder"),
            Layout::ClassFolders => {
                let classes: std::collections::BTreeSet<_> =
                    self.items.iter().filter_map(|item| item.name.parent()).collect();
                format!("{count} in {}", plural(classes.len(), "class folder"))
            }
            Layout::Captions => format!("{count} named in {CAPTIONS}"),
            Layout::CelebA => format!("{count} named in {CELEBA}"),
            Layout::Array => format!("{count} in an array"),
        }
    }

    /// Where image `index` lies, if it has a file of its own.
    pub fn file(&self, index: usize) -> PathBuf {
        match self.layout {
            Layout::Array => self.path.clone(),
            Layout::CelebA => self.path.join("img_align_celeba").join(&self.items[index].name),
            Layout::Folder | Layout::ClassFolders | Layout::Captions => {
                self.path.join(&self.items[index].name)
            }
        }
    }

    /// Image `index`.
    ///
    /// # Errors
    /// A file that cannot be read or is no image.
    pub fn picture(&self, index: usize) -> Result<Picture> {
        match &self.array {
            Some(array) => array.picture(index),
            None => Picture::read(&self.file(index)),
        }
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Names of image files, of folders and of other files in `folder`, sorted; hidden ones are left out.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = PathBuf::from(entry.file_name());
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let ending = name.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        // Through links, unlike the entry's own file type.
        match entry.path().is_dir() {
            true => folders.push(name),
            false if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) => files.push(name),
            false => others.push(name),
        }
    }
    files.sort();
    folders.sort();
    others.sort();
    Ok((files, folders, others))
}

/// The lines of `captions.jsonl`: "file", "caption", and labels under names of the user's choice.
fn captions(folder: &Path) -> Result<Vec<Item>> {
    let path = folder.join(CAPTIONS);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let items: Vec<Item> = lines
        .map(|(i, line)| {
            let wrong = |what: String| Error::bad_file(&path, format!("line {}: {what}", i + 1));
            let mut fields: Map<String, Value> =
                serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            let mut text = |key: &str| match fields.remove(key) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let name =
                text("file").ok_or_else(|| wrong("no \"file\": the image's name is missing".into()))?;
            let caption = text("caption");
            let labels = fields.into_iter().filter_map(|(key, value)| match value {
                Value::String(text) => Some((key, text)),
                Value::Number(_) | Value::Bool(_) => Some((key, value.to_string())),
                _ => None,
            });
            Ok(Item { name: name.into(), caption, labels: labels.collect() })
        })
        .collect::<Result<_>>()?;
    if items.is_empty() {
        return Err(Error::bad_file(&path, "it names no images"));
    }
    Ok(items)
}

/// CelebA's list: a number, the names of 40 attributes, then a file and 40 times 1 or −1 a line.
fn celeba(folder: &Path) -> Result<Vec<Item>> {
    let path = folder.join(CELEBA);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let mut lines = text.lines().skip(1);
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let items: Vec<Item> = lines
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default().into();
            let values: Vec<&str> = words.collect();
            if values.len() != names.len() {
                let message =
                    format!("line {}: {} attributes, the head names {}", i + 3, values.len(), names.len());
                return Err(Error::bad_file(&path, message));
            }
            let labels = names.iter().zip(values);
            let labels = labels.map(|(name, value)| ((*name).to_string(), (value == "1").to_string()));
            Ok(Item { name, caption: None, labels: labels.collect() })
        })
        .collect::<Result<_>>()?;
    if items.is_empty() {
        return Err(Error::bad_file(&path, "it names no images"));
    }
    Ok(items)
}

/// Images `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` of bytes, or of floats in `[0, 1]`, `[−1, 1]` or `[0, 255]`.
#[derive(Debug)]
struct Array {
    count: usize,
    /// Channels, height, width.
    shape: [usize; 3],
    channels_last: bool,
    bytes: Vec<u8>,
}

impl Array {
    fn read(path: &Path) -> Result<Self> {
        let content = fs::read(path).map_err(Error::io("read", path))?;
        let (shape, bytes) = match path.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => npy(path, &content)?,
            Some("safetensors") => safetensors(path, &content)?,
            _ => return Err(Error::bad_file(path, format!("it is no array of images; expected {EXPECTED}"))),
        };
        let (count, shape, channels_last) = match shape[..] {
            [n, h, w] => (n, [1, h, w], false),
            [n, h, w, c] if c == 1 || c == 3 => (n, [c, h, w], true),
            [n, c, h, w] if c == 1 || c == 3 => (n, [c, h, w], false),
            _ => {
                return Err(Error::bad_file(
                    path,
                    format!(
                        "its array has shape {shape:?}; images are [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
                    ),
                ));
            }
        };
        if count == 0 || bytes.len() != count * shape.iter().product::<usize>() {
            return Err(Error::bad_file(
                path,
                format!("{} bytes do not make {count} images of {shape:?}", bytes.len()),
            ));
        }
        Ok(Self { count, shape, channels_last, bytes })
    }

    fn picture(&self, index: usize) -> Result<Picture> {
        let [channels, height, width] = self.shape;
        let (area, size) = (height * width, height * width * channels);
        let image = &self.bytes[index * size..(index + 1) * size];
        let at = |pixel: usize, channel: usize| {
            let channel = channel.min(channels - 1);
            image[if self.channels_last { pixel * channels + channel } else { channel * area + pixel }]
        };
        let rgb = (0..area).flat_map(|pixel| [0, 1, 2].map(|channel| at(pixel, channel))).collect();
        Picture::from_rgb(width, height, rgb)
            .ok_or_else(|| Error::Invalid(format!("image {index} of an array has no pixels")))
    }
}

/// Floats as bytes; their range says what white is.
fn from_floats(values: &[f32]) -> Vec<u8> {
    let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let (offset, scale) = match (low, high) {
        (low, _) if low < 0.0 => (1.0, 127.5),
        (_, high) if high <= 1.0 => (0.0, 255.0),
        _ => (0.0, 1.0),
    };
    values.iter().map(|x| ((x + offset) * scale).round() as u8).collect()
}

/// Shape and bytes of a NumPy file of version 1 to 3.
fn npy(path: &Path, content: &[u8]) -> Result<(Vec<usize>, Vec<u8>)> {
    let wrong = |what: &str| Error::bad_file(path, format!("it is no NumPy array of images: {what}"));
    let rest = content.strip_prefix(b"\x93NUMPY").ok_or_else(|| wrong("its beginning is another one"))?;
    let (start, length) = match *rest {
        [1, _, a, b, ..] => (4, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => (6, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(wrong("it is cut off or of a later version")),
    };
    let header = rest.get(start..start + length).ok_or_else(|| wrong("it is cut off"))?;
    let (header, data) = (String::from_utf8_lossy(header), &rest[start + length..]);
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([' ', ':', '\'']));
    if after("'fortran_order'").is_some_and(|order| order.starts_with("True")) {
        return Err(wrong("it is in Fortran order; save np.ascontiguousarray(images)"));
    }
    let shape =
        after("'shape'").and_then(|rest| rest.split_once('(')?.1.split_once(')')).map(|(inside, _)| inside);
    let shape = shape.ok_or_else(|| wrong("no shape"))?.split(',').map(str::trim).filter(|n| !n.is_empty());
    let shape: Vec<usize> =
        shape.map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong("a strange shape"))?;
    let kind = after("'descr'").unwrap_or_default();
    let bytes = match kind.get(..3) {
        Some("|u1") => data.to_vec(),
        Some("<f4") => from_floats(&floats(data)),
        Some("<f8") => {
            let values = data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32);
            from_floats(&values.collect::<Vec<f32>>())
        }
        _ => return Err(wrong("its numbers are neither uint8 nor float32 nor float64")),
    };
    Ok((shape, bytes))
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Shape and bytes of the tensor "images", or of the only one there is.
fn safetensors(path: &Path, content: &[u8]) -> Result<(Vec<usize>, Vec<u8>)> {
    let tensors =
        SafeTensors::deserialize(content).map_err(|error| Error::bad_file(path, error.to_string()))?;
    let names = tensors.names();
    let tensor = tensors.tensor("images").or_else(|error| match names[..] {
        [only] => tensors.tensor(only),
        _ => Err(error),
    });
    let tensor = tensor.map_err(|_| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Error::bad_file(path, format!("no tensor \"images\" (there are: {})", names.join(", ")))
    })?;
    let bytes = match tensor.dtype() {
        Dtype::U8 => tensor.data().to_vec(),
        Dtype::F32 => from_floats(&floats(tensor.data())),
        other => return Err(Error::bad_file(path, format!("its images are {other:?}, not U8 or F32"))),
    };
    Ok((tensor.shape().to_vec(), bytes))
}
