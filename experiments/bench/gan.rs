//! Images a second of GAN training: `bench_gan [SECONDS] [f32|bf16] [WIDTH]`, one D and one G update a step, on
//! made-up images; one line of JSON.

use imago::Stream;
use imago::generative::data::{DataConfig, ImageSet};
use imago::generative::gan::{DcganConfig, Gan};
use imago::nn::Precision;
use imago::run::{Log, Train};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::set_num_threads(1);
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().unwrap_or("10".into()).parse()?;
    let precision = match arguments.next().as_deref() {
        Some("bf16") => Precision::Bf16,
        _ => Precision::F32,
    };
    let width: i64 = arguments.next().unwrap_or("64".into()).parse()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("images.safetensors");
    let images = Stream::new(0, "images", 0, 0).uniforms(&[256, 3, 64, 64]);
    imago::run::tensor_file::write(&path, &[("images".into(), images)], &Default::default())?;
    let data = DataConfig { path: path.to_string_lossy().into_owned(), ..DataConfig::default() };
    let config = DcganConfig {
        precision,
        generator_width: Some(width),
        discriminator_width: Some(width),
        generator_steps: Some(1),
        ..DcganConfig::default()
    };
    let mut gan = Gan::new(config, ImageSet::open(&data, None)?, 0, u64::MAX)?;
    let mut log = Log::in_memory();
    gan.iterate(&mut log)?;
    let (begun, mut steps) = (Instant::now(), 0);
    while begun.elapsed().as_secs_f64() < seconds {
        gan.iterate(&mut log)?;
        steps += 1;
    }
    let rate = steps as f64 * 64.0 / begun.elapsed().as_secs_f64();
    println!("{{\"precision\": \"{precision:?}\", \"width\": {width}, \"images_per_second\": {rate:.2}}}");
    Ok(())
}
