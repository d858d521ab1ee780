//! The small networks that arithmetic on faces needs beside a generator: classifiers of the data's attributes, and an
//! encoder. They are trained when they are first needed and kept in the run's folder; those of a model that has none, in
//! the user's cache.

use crate::assemble;
use crate::first_look::cache_folder;
use crate::program::Shared;
use crate::runs::LoadedMaker;
use anyhow::{Context, Result, ensure};
use imago::generative::attributes::{Classifier, Half, Labels};
use imago::generative::data::ImageSet;
use imago::generative::inversion::{self, Inverter};
use imago::generative::reader::{Reader, Schedule};
use imago::memory::slice;
use imago::run::{Progress, State, tensor_file};
use std::path::PathBuf;

/// Folder in a run's or in the cache.
const FOLDER: &str = "readers";
/// Of the way they are trained: another one makes other files.
const VERSION: u32 = 1;
/// Images in a step.
const BATCH: i64 = 32;
/// Steps of a classifier's and of an encoder's training.
const STEPS: [u64; 2] = [1_500, 600];
/// Steps of gradient descent to a latent vector.
const DESCENT: u64 = 100;

/// A run's data and generator, and where its readers are kept.
pub struct Readers<'a> {
    /// The run.
    pub loaded: &'a LoadedMaker,
    /// The images that it was trained on.
    pub data: ImageSet,
    /// What they show.
    pub labels: Labels,
    steps: [u64; 2],
    quiet: bool,
}

impl<'a> Readers<'a> {
    /// # Errors
    /// Images that are no longer where they were, or have no labels.
    pub fn new(loaded: &'a LoadedMaker, shared: &Shared) -> Result<Self> {
        let config = loaded.recipe.data.as_ref().context("the run has no [data]")?;
        let data = assemble::images(config)?;
        let labels = Labels::of(&data)?;
        // A set of a few images is known after a few steps.
        let most = 1 + data.training.len() as u64 / 8;
        Ok(Self {
            loaded,
            data,
            labels,
            steps: STEPS.map(|steps| steps.min(most.max(50))),
            quiet: shared.quiet,
        })
    }

    /// The classifier that learnt from one half of the training images.
    ///
    /// # Errors
    /// A file of it that is damaged; a folder that cannot be written.
    pub fn classifier(&self, half: Half) -> Result<Classifier> {
        let seed = half as u64;
        let spec = &self.loaded.maker.generator.spec;
        let mut classifier = Classifier::new(&self.labels.attributes, [spec.channels, spec.size], seed);
        let name = if half == Half::First { "chooser" } else { "judge" };
        let mut hash = self.hash(self.steps[0]);
        hash.take(format!("{:?}", self.labels.attributes).as_bytes());
        for &i in &self.data.kept {
            let item = &self.data.found.items[i as usize];
            hash.take(format!("{:?}", item.labels).as_bytes());
        }
        let path = self.path(name, &hash)?;
        if path.exists() {
            load(&path, &mut classifier.reader)?;
            return Ok(classifier);
        }
        let from = half.of(&self.data);
        self.telling(
            &format!("a classifier ({name}) from {} images", from.len()),
            self.steps[0],
            |schedule| classifier.train(&self.data, &self.labels, &from, seed, schedule),
        )?;
        save(&path, &mut classifier.reader)?;
        Ok(classifier)
    }

    /// The encoder of the run's generator.
    ///
    /// # Errors
    /// As [`Readers::classifier`].
    pub fn encoder(&self) -> Result<Reader> {
        let maker = &self.loaded.maker;
        let mut encoder = inversion::encoder(maker, 0);
        let mut hash = self.hash(self.steps[1]);
        slice::<f32>(&maker.generator.network.parameters.weights)
            .iter()
            .for_each(|weight| hash.take(&weight.to_le_bytes()));
        let path = self.path("encoder", &hash)?;
        if path.exists() {
            load(&path, &mut encoder)?;
            return Ok(encoder);
        }
        self.telling("an encoder of the generator's own images", self.steps[1], |schedule| {
            inversion::train_encoder(maker, &mut encoder, 0, schedule)
        })?;
        save(&path, &mut encoder)?;
        Ok(encoder)
    }

    /// What turns images into latent vectors; images are compared by what `chooser` sees in them, too.
    pub fn inverter<'b>(&'b self, encoder: &'b Reader, chooser: &'b Classifier, seed: u64) -> Inverter<'b> {
        let steps = DESCENT;
        Inverter { maker: &self.loaded.maker, encoder, features: &chooser.reader, steps, seed }
    }

    fn telling(
        &self,
        what: &str,
        steps: u64,
        train: impl FnOnce(&mut Schedule) -> imago::Result<()>,
    ) -> Result<()> {
        if !self.quiet {
            eprintln!("training {what}, once");
        }
        let mut progress = Progress::new(0, steps, self.quiet);
        let mut schedule = Schedule { steps, batch: BATCH, tell: &mut |step| progress.update(step, None) };
        train(&mut schedule)?;
        progress.finish();
        Ok(())
    }

    fn path(&self, name: &str, hash: &Hash) -> Result<PathBuf> {
        let run = &self.loaded.path;
        let folder = if run.is_dir() { run.clone() } else { cache_folder()? };
        Ok(folder.join(FOLDER).join(format!("{name}-{:016x}.safetensors", hash.0)))
    }

    fn hash(&self, steps: u64) -> Hash {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        let config = serde_json::to_string(&self.loaded.recipe.data).unwrap_or_default();
        hash.take(format!("{VERSION} {steps} {} {config}", self.data.training.len()).as_bytes());
        hash
    }
}

/// FNV-1a, the same for ever.
struct Hash(u64);

impl Hash {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn save(path: &std::path::Path, reader: &mut Reader) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut state = State::saving();
    reader.state(&mut state)?;
    let (tensors, values) = state.finish()?;
    Ok(tensor_file::write(path, &tensors, &values)?)
}

fn load(path: &std::path::Path, reader: &mut Reader) -> Result<()> {
    let (tensors, values) = tensor_file::read(path)?;
    let mut state = State::loading(tensors, values).from_file(path.to_path_buf());
    reader.state(&mut state)?;
    let rest = state.finish()?;
    ensure!(rest.0.is_empty(), "{}: it holds more than expected", path.display());
    Ok(())
}
