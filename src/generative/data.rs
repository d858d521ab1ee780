//! Images to learn from: found, checked, cut to one size, and kept in one mapped file.

mod cache;
mod found;
mod picture;

pub use found::{Found, Item, Layout};
pub use picture::{Picture, Resize};

use crate::random::Stream;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Images and what is made of them before anything is learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A folder of images, of a folder for each class, or with a `captions.jsonl`; or a `.npy` or `.safetensors` file of
    /// images. Relative to the recipe.
    pub path: String,
    /// Side of the square images that are learnt from, in pixels.
    #[schemars(range(min = 8, max = 1024))]
    pub size: i64,
    /// 3 for colour, 1 for grey.
    #[schemars(range(min = 1, max = 3))]
    pub channels: i64,
    /// Side of the square that is cut out of the middle before it is resized.
    #[schemars(range(min = 1), extend("x-default" = "as large as fits"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// How it is resized.
    pub resize: Resize,
    /// Show half of the images mirrored, drawn anew each time.
    pub flip: bool,
    /// What the classes are: a key of `captions.jsonl`, or "folder".
    #[schemars(extend("x-default" = "no classes"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Use at most so many, a random but fixed part.
    #[schemars(range(min = 1), extend("x-default" = "all"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Leave out so many, never learnt from, for scores.
    pub held_out: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            size: 64,
            channels: 3,
            crop: None,
            resize: Resize::Area,
            flip: false,
            label: None,
            limit: None,
            held_out: 0,
        }
    }
}

/// Images of one size.
#[derive(Debug)]
pub struct ImageSet {
    pixels: cache::Pixels,
    /// Side, in pixels.
    pub size: i64,
    /// 1 or 3.
    pub channels: i64,
    /// Whether half of them are to be shown mirrored.
    pub flip: bool,
    /// Which images are learnt from.
    pub training: Vec<i64>,
    /// Which are not.
    pub held_out: Vec<i64>,
    /// Names of the classes, sorted; empty without.
    pub classes: Vec<String>,
    labels: Vec<i64>,
    /// Which item of `found` each image is.
    pub kept: Vec<i64>,
    /// What was found where, and which files could not be read, with the reasons.
    pub found: Found,
    /// See `found`.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl ImageSet {
    /// Finds the images, reads each of them once, and keeps what they became in `cache` for the next time.
    ///
    /// # Errors
    /// Nothing there that could be learnt from: what was expected and what was found; no image that can be read; a label
    /// that images do not have.
    pub fn open(config: &DataConfig, cache: Option<&Path>) -> Result<Self> {
        if ![1, 3].contains(&config.channels) {
            return Err(Error::Invalid("`data.channels`: 1 for grey or 3 for colour".into()));
        }
        let found = Found::at(Path::new(&config.path))?;
        let (pixels, kept, unreadable) = cache::open(config, &found, cache)?;
        if kept.is_empty() {
            let (file, reason) = unreadable.first().cloned().unwrap_or_default();
            return Err(Error::bad_file(
                Path::new(&config.path),
                format!(
                    "{}, but none of them can be read; the first one, {}: {reason}",
                    found.describe(),
                    file.display()
                ),
            ));
        }
        if let Some((file, reason)) = unreadable.first() {
            let (count, of) = (unreadable.len(), found.items.len());
            tracing::warn!(
                "{count} of {of} images cannot be read and are left out: {}: {reason}",
                file.display()
            );
        }
        let (classes, labels) = match &config.label {
            None => (Vec::new(), Vec::new()),
            Some(key) => labels(key, kept.iter().map(|&i| &found.items[i as usize]), &config.path)?,
        };
        let mut order = Stream::new(0, "held-out images", 0, 0).permutation(kept.len());
        order.truncate(config.limit.unwrap_or(usize::MAX));
        if config.held_out >= order.len() {
            return Err(Error::Invalid(format!(
                "data.held_out = {} leaves nothing of {} images to learn from",
                config.held_out,
                order.len()
            )));
        }
        let held_out = order.split_off(order.len() - config.held_out);
        order.sort_unstable();
        Ok(Self {
            pixels,
            size: config.size,
            channels: config.channels,
            flip: config.flip,
            training: order,
            held_out,
            classes,
            labels,
            kept,
            found,
            unreadable,
        })
    }

    /// Images `indices`, as float32 `[B, C, H, W]` in `[−1, 1]`, those that `mirrored` says the other way round. In memory
    /// channels come last, as libtorch's convolutions read them fastest.
    pub fn gather(&self, indices: &[i64], mirrored: &[bool]) -> Tensor {
        let (size, channels) = (self.size as usize, self.channels as usize);
        let mut bytes = Vec::with_capacity(indices.len() * size * size * channels);
        let mut mirrored = mirrored.iter();
        for &index in indices {
            let image = self.pixels.image(index as usize);
            if mirrored.next() == Some(&true) {
                for row in image.chunks_exact(size * channels) {
                    row.chunks_exact(channels).rev().for_each(|pixel| bytes.extend_from_slice(pixel));
                }
            } else {
                bytes.extend_from_slice(image);
            }
        }
        let shape = [indices.len() as i64, self.size, self.size, self.channels];
        let images = Tensor::from_slice(&bytes).view(shape).to_kind(Kind::Float) * (1.0 / 127.5) - 1.0;
        images.permute([0, 3, 1, 2])
    }

    /// The classes of images `indices`; none where there are no classes.
    pub fn labels(&self, indices: &[i64]) -> Option<Vec<i64>> {
        (!self.classes.is_empty()).then(|| indices.iter().map(|&i| self.labels[i as usize]).collect())
    }
}

/// The different values of `key`, sorted, and which of them each item has.
fn labels<'a>(
    key: &str,
    items: impl Iterator<Item = &'a Item> + Clone,
    path: &str,
) -> Result<(Vec<String>, Vec<i64>)> {
    let mut classes = BTreeSet::new();
    for item in items.clone() {
        let Some(value) = item.labels.get(key) else {
            let known: Vec<&str> = item.labels.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(Error::bad_file(
                Path::new(path),
                format!("{} has no label \"{key}\" (it has: {known}); see data.label", item.name.display()),
            ));
        };
        classes.insert(value);
    }
    let classes: Vec<&String> = classes.into_iter().collect();
    let place = |item: &Item| classes.binary_search(&&item.labels[key]).unwrap_or_default() as i64;
    let labels = items.map(place).collect();
    Ok((classes.into_iter().cloned().collect(), labels))
}

/// The order in which images are seen: epoch after epoch, each of them in an order of its own, no image twice in one.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    count: u64,
    /// The last epoch's order; derived, kept only to save time.
    epoch: Option<(u64, Vec<i64>)>,
}

impl Order {
    /// Of `count` images.
    pub fn new(seed: u64, count: usize) -> Self {
        Self { seed, count: count as u64, epoch: None }
    }

    /// Which images are the `start`-th and the `length − 1` after it since the run began.
    pub fn batch(&mut self, start: u64, length: u64) -> Vec<i64> {
        (start..start + length).map(|i| self.image(i / self.count, (i % self.count) as usize)).collect()
    }

    fn image(&mut self, epoch: u64, place: usize) -> i64 {
        match &self.epoch {
            Some((known, order)) if *known == epoch => order[place],
            _ => {
                let order = Stream::new(self.seed, "image order", 0, epoch).permutation(self.count as usize);
                let image = order[place];
                self.epoch = Some((epoch, order));
                image
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    /// A folder of `count` images of one colour each, `(16 i, 0, 200)`.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (i, name) in names.iter().enumerate() {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let colour = image::Rgb([16 * i as u8, 0, 200]);
            image::RgbImage::from_pixel(20, 30, colour).save(&path).unwrap();
        }
        folder
    }

    fn config(path: &Path) -> DataConfig {
        DataConfig { path: path.to_string_lossy().into_owned(), size: 8, ..Default::default() }
    }

    #[test]
    fn a_folder_is_read_once_and_then_mapped() {
        let (folder, cache) = (folder(&["b.png", "a.jpg", "c.webp", "d.bmp"]), tempfile::tempdir().unwrap());
        fs::write(folder.path().join("notes.txt"), "no image").unwrap();
        fs::write(folder.path().join("broken.png"), "no image either").unwrap();
        let config = config(folder.path());
        for _ in 0..2 {
            let set = ImageSet::open(&config, Some(cache.path())).unwrap();
            assert_eq!((set.training.len(), set.unreadable.len()), (4, 1));
            assert!(set.unreadable[0].0.ends_with("broken.png"));
            let images = set.gather(&[1], &[]);
            assert_eq!(images.size(), [1, 3, 8, 8]);
            // b.png, in order of name.
            let colour = [0, 1, 2].map(|c| images.double_value(&[0, c, 4, 4]));
            assert!((colour[0] + 1.0).abs() < 1e-6 && (colour[2] - (200.0 / 127.5 - 1.0)).abs() < 1e-6);
            assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "one file, found again");
        }
        // Another size is another file.
        ImageSet::open(&DataConfig { size: 16, ..config }, Some(cache.path())).unwrap();
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
    }

    #[test]
    fn folders_are_classes_and_captions_have_labels() {
        let folder = folder(&["cat/1.png", "cat/2.png", "dog/1.png"]);
        let with = |label: &str| DataConfig { label: Some(label.into()), ..config(folder.path()) };
        let set = ImageSet::open(&with("folder"), None).unwrap();
        assert_eq!((set.classes.join(" "), set.labels(&[0, 1, 2])), ("cat dog".into(), Some(vec![0, 0, 1])));
        let line = |file: &str, mood: &str| {
            format!("{{\"file\":\"{file}\",\"caption\":\"a {mood} cat\",\"mood\":\"{mood}\"}}\n")
        };
        let lines = line("cat/1.png", "sad") + &line("dog/1.png", "glad");
        fs::write(folder.path().join("captions.jsonl"), lines).unwrap();
        let set = ImageSet::open(&with("mood"), None).unwrap();
        assert_eq!((set.classes.join(" "), set.labels(&[0, 1])), ("glad sad".into(), Some(vec![1, 0])));
        assert_eq!(set.found.items[1].caption.as_deref(), Some("a glad cat"));
        let message = ImageSet::open(&with("colour"), None).unwrap_err().to_string();
        assert!(message.contains("no label \"colour\" (it has: mood)"), "{message}");
    }

    #[test]
    fn nothing_there_is_answered_with_what_was_expected_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| ImageSet::open(&config(path), None).unwrap_err().to_string();
        let missing = message(&folder.path().join("nowhere"));
        assert!(missing.contains("nowhere") && missing.contains("does not exist"), "{missing}");
        let empty = message(folder.path());
        assert!(empty.contains("captions.jsonl") && empty.contains("it is empty"), "{empty}");
        fs::write(folder.path().join("x.txt"), "").unwrap();
        let other = message(folder.path());
        assert!(other.contains("found 1 other file (x.txt)"), "{other}");
        fs::remove_file(folder.path().join("x.txt")).unwrap();
        fs::write(folder.path().join("x.png"), "").unwrap();
        let broken = message(folder.path());
        assert!(broken.contains("none of them can be read") && broken.contains("x.png"), "{broken}");
    }

    #[test]
    fn mirrored_images_and_parts_that_are_held_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut image = image::RgbImage::new(8, 8);
        image.put_pixel(0, 0, image::Rgb([255; 3]));
        for i in 0..10 {
            image.save(folder.path().join(format!("{i}.png"))).unwrap();
        }
        let config = DataConfig { held_out: 3, limit: Some(8), ..config(folder.path()) };
        let set = ImageSet::open(&config, None).unwrap();
        assert_eq!((set.training.len(), set.held_out.len()), (5, 3));
        assert!(set.training.iter().all(|i| !set.held_out.contains(i)));
        let both = set.gather(&[0, 0], &[false, true]);
        assert_eq!((both.double_value(&[0, 1, 0, 0]), both.double_value(&[0, 1, 0, 7])), (1.0, -1.0));
        assert_eq!((both.double_value(&[1, 1, 0, 0]), both.double_value(&[1, 1, 0, 7])), (-1.0, 1.0));
        let message = ImageSet::open(&DataConfig { held_out: 8, ..config }, None).unwrap_err().to_string();
        assert!(message.contains("leaves nothing of 8 images"), "{message}");
    }

    #[test]
    fn arrays_are_images_too() {
        let folder = tempfile::tempdir().unwrap();
        let npy = folder.path().join("x.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let header = format!("{:<117}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8), }");
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend((0..128).map(|i| i as u8));
        fs::write(&npy, bytes).unwrap();
        let set = ImageSet::open(&DataConfig { channels: 1, ..config(&npy) }, None).unwrap();
        let images = set.gather(&[1], &[]);
        assert_eq!(images.size(), [1, 1, 8, 8]);
        assert!((images.double_value(&[0, 0, 0, 1]) - (65.0 / 127.5 - 1.0)).abs() < 1e-6);

        let path = folder.path().join("x.safetensors");
        let floats = Stream::new(0, "x", 0, 0).uniforms(&[3, 3, 8, 8]);
        let tensors = vec![("images".to_string(), floats.copy())];
        crate::run::tensor_file::write(&path, &tensors, &Default::default()).unwrap();
        let set = ImageSet::open(&config(&path), None).unwrap();
        let off = (set.gather(&[0, 1, 2], &[]) - (floats * 2.0 - 1.0)).abs().max().double_value(&[]);
        assert!(off < 1.0 / 127.0, "{off}");
    }

    #[test]
    fn an_epoch_sees_every_image_once_wherever_batches_end() {
        let mut order = Order::new(3, 10);
        let mut seen: Vec<i64> = [0, 4, 8].into_iter().flat_map(|start| order.batch(start, 4)).collect();
        assert_eq!(order.batch(8, 4), seen[8..]);
        seen.truncate(10);
        seen.sort();
        assert_eq!(seen, (0..10).collect::<Vec<i64>>());
        assert_ne!(order.batch(0, 10), order.batch(10, 10));
    }
}
