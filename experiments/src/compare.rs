//! What an image model's images are worth beside real ones that it never saw.

use crate::assemble;
use crate::commands::models;
use crate::program::Shared;
use crate::runs::LoadedMaker;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use imago::Stream;
use imago::generative::data::ImageSet;
use imago::generative::features::Features;
use imago::generative::grid;
use imago::generative::metrics::{
    KernelDistance, PrecisionRecall, diversity, frechet_distance, kernel_distance, nearest, precision_recall,
};
use imago::run::write_whole;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// By what images are compared.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Which {
    /// EfficientNet-Lite0 (`imago models fetch efficientnet-lite0`).
    #[default]
    Lite0,
    /// Means of 8 × 8 areas.
    Pixels,
}

/// Images of a subset in a kernel distance, and subsets.
const SUBSET: usize = 1000;
const SUBSETS: usize = 100;
/// Images that are read and looked at together.
const TOGETHER: usize = 256;
/// Images whose differences are the diversity.
const DIVERSE: usize = 256;

/// Pairs of a generated image and the nearest training image, and images in a row of their picture.
const PAIRS: i64 = 32;
const COLUMNS: usize = 8;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Comparison {
    format: u32,
    run: PathBuf,
    checkpoint: u64,
    samples: usize,
    seed: u64,
    /// The network whose features these numbers are of: others give others.
    features: &'static str,
    /// "held-out" images, or "training" images where none are held out.
    reference: &'static str,
    reference_images: usize,
    kernel_distance: KernelDistance,
    frechet_distance: f64,
    precision_recall: PrecisionRecall,
    /// Mean distance of two generated images in pixels, as a share of that of two real ones.
    diversity: f64,
    /// The same of as many training images in place of generated ones: what cannot be surpassed.
    real_kernel_distance: KernelDistance,
    real_frechet_distance: f64,
}

/// What computes them.
///
/// # Errors
/// The network is not fetched.
pub fn features(which: Which) -> Result<Features> {
    Ok(match which {
        Which::Lite0 => Features::EfficientNetLite0(Box::new(models::efficientnet_lite0()?)),
        Which::Pixels => Features::Pixels,
    })
}

/// Compares `count` images of a model with real ones; some of them go into a picture `beside` the training images that are
/// nearest to them in pixels, if there is to be one.
///
/// # Errors
/// The model's images are not where they were; the network is not fetched; too few images.
pub fn compare(
    loaded: &LoadedMaker,
    count: usize,
    which: Which,
    seed: u64,
    beside: Option<&Path>,
) -> Result<Comparison> {
    ensure!(count >= 8, "--samples {count}: it takes at least 8 to compare");
    let features = features(which)?;
    let config = loaded.recipe.data.as_ref().context("the run has no [data]")?;
    let data = assemble::images(config)?;
    let reference = if data.held_out.len() >= 8 { "held-out" } else { "training" };
    let all = if data.held_out.len() >= 8 { &data.held_out } else { &data.training };
    let real = of_data(&features, &data, &all[..all.len().min(count)]);
    // Spread over the training images, not the first ones in order of name.
    let stride = (data.training.len() / count).max(1);
    let seen: Vec<i64> = data.training.iter().step_by(stride).take(count).copied().collect();
    let training = of_data(&features, &data, &seen);

    let maker = &loaded.maker;
    let classes = maker.classes.len().max(1);
    let mut parts = Vec::new();
    let mut some = None;
    for first in (0..count).step_by(TOGETHER) {
        let rows = TOGETHER.min(count - first);
        let labels: Vec<i64> = (first..first + rows).map(|i| (i % classes) as i64).collect();
        let images = maker.images(&maker.latents(seed.wrapping_add(first as u64), rows, 1.0), &labels)?;
        parts.push(features.of(&images));
        some.get_or_insert(images);
    }
    let generated = Tensor::cat(&parts, 0);
    let some = some.context("no images")?;
    if let Some(path) = beside {
        let shown = some.narrow(0, 0, some.size()[0].min(PAIRS));
        let originals = data.training.chunks(TOGETHER).map(|part| data.gather(part, &[]).flatten(1, -1));
        let (places, _) = nearest(&shown.flatten(1, -1), originals)?;
        let places: Vec<i64> = places.iter().map(|&place| data.training[place as usize]).collect();
        let pairs = Tensor::stack(&[shown, data.gather(&places, &[])], 1).flatten(0, 1);
        write_whole(path, &grid::png(&grid::tiles(&pairs, COLUMNS))?)?;
    }
    let few = &data.training[..data.training.len().min(DIVERSE)];
    let diversity =
        diversity(&some.flatten(1, -1)) / diversity(&data.gather(few, &[]).flatten(1, -1)).max(1e-12);
    let distance = |name: &str, other: &Tensor| {
        kernel_distance(&real, other, SUBSETS, SUBSET, &mut Stream::new(seed, name, 0, 0))
    };
    Ok(Comparison {
        format: 1,
        run: loaded.path.clone(),
        checkpoint: loaded.step,
        samples: count,
        seed,
        features: features.name(),
        reference,
        reference_images: real.size()[0] as usize,
        kernel_distance: distance("kernel distance", &generated)?,
        frechet_distance: frechet_distance(&real, &generated)?,
        precision_recall: precision_recall(&real, &generated)?,
        diversity,
        real_kernel_distance: distance("kernel distance of real images", &training)?,
        real_frechet_distance: frechet_distance(&real, &training)?,
    })
}

fn of_data(features: &Features, data: &ImageSet, indices: &[i64]) -> Tensor {
    let parts = indices.chunks(TOGETHER).map(|part| features.of(&data.gather(part, &[])));
    Tensor::cat(&parts.collect::<Vec<_>>(), 0)
}

impl Comparison {
    /// Prints it.
    pub fn print(&self, shared: &Shared) -> Result<()> {
        if shared.json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { kernel_distance: kernel, real_kernel_distance: floor, precision_recall: near, .. } = self;
        println!(
            "{} at step {}: {} images beside {} {} ones, features: {}",
            self.run.display(),
            self.checkpoint,
            self.samples,
            self.reference_images,
            self.reference,
            self.features
        );
        println!(
            "kernel distance    {:.5} ± {:.5} (real images: {:.5})",
            kernel.mean, kernel.std, floor.mean
        );
        println!(
            "Fréchet distance   {:.3} (real images: {:.3})",
            self.frechet_distance, self.real_frechet_distance
        );
        println!("precision, recall  {:.3}, {:.3}", near.precision, near.recall);
        println!("diversity          {:.3} of real images'", self.diversity);
        Ok(())
    }
}
