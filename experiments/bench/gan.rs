//! Our side of the row `gan`: images a second of a DCGAN's training, one update of each network a step, on made-up
//! images. One line of JSON.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use imago::Stream;
use imago::generative::data::{DataConfig, ImageSet};
use imago::generative::dcgan::{DcganSpec, Discriminator, Generator, Preset};
use imago::generative::gan::{DcganConfig, Gan};
use imago::nn::Precision;
use imago::run::{Log, Train, tensor_file};
use serde_json::json;
use std::time::Instant;

const SIDE: i64 = 64;
const BATCH: u64 = 64;

#[derive(Clone, Copy, ValueEnum)]
enum Arithmetic {
    F32,
    Bf16,
}

#[derive(Parser)]
struct Arguments {
    #[arg(long, value_enum, default_value = "f32")]
    precision: Arithmetic,
    /// Steps before the clock starts.
    #[arg(long, default_value_t = 2)]
    warm: u64,
    #[arg(long, default_value_t = 8)]
    steps: u64,
}

fn main() -> Result<()> {
    tch::set_num_threads(1);
    let Arguments { precision, warm, steps } = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("images.safetensors");
    let images = Stream::new(0, "images", 0, 0).uniforms(&[256, 3, SIDE, SIDE]);
    tensor_file::write(&path, &[("images".into(), images)], &Default::default())?;
    let data = DataConfig { path: path.to_string_lossy().into_owned(), ..DataConfig::default() };
    let precision = match precision {
        Arithmetic::F32 => Precision::F32,
        Arithmetic::Bf16 => Precision::Bf16,
    };
    let config = DcganConfig {
        precision,
        batch_size: Some(BATCH),
        generator_steps: Some(1),
        discriminator_steps: 1,
        ..DcganConfig::default()
    };
    let mut gan = Gan::new(config, ImageSet::open(&data, None)?, 0, u64::MAX)?;
    let mut log = Log::in_memory();
    for _ in 0..warm {
        gan.iterate(&mut log)?;
    }
    let begun = Instant::now();
    for _ in 0..steps {
        gan.iterate(&mut log)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let spec = DcganSpec::new(Preset::DcganTensorflow, SIDE, 3);
    let mut rng = Stream::new(0, "counted", 0, 0);
    let generator = Generator::new(spec.clone(), &mut rng)?.network.parameters.count();
    let discriminator = Discriminator::new(spec, &mut rng)?.network.parameters.count();
    let images = steps * BATCH;
    let result = json!({
        "steps": images, "seconds": seconds, "rate": images as f64 / seconds,
        "checks": { "generator_parameters": generator, "discriminator_parameters": discriminator },
    });
    println!("{result}");
    Ok(())
}
