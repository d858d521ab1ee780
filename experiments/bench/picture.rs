//! How many pictures of Super Mario Bros. a second become what a network reads: cropped, grey, 42×42 by the mean of
//! areas (Pathak et al. 2017).
//!
//! `cargo run --release --example bench_picture -- --help`

use anyhow::Result;
use clap::Parser;
use imago_envs::wrappers::{Picture, PictureConfig, ResizeMethod};
use std::hint::black_box;
use std::time::Instant;

/// Pictures that take turns, so that none is in the nearest cache already.
const POOL: usize = 16;
/// Height, width and colours of what nes-py shows.
const SHAPE: [usize; 3] = [240, 256, 3];

/// Measure pictures; prints one line of JSON.
#[derive(Parser)]
struct Arguments {
    /// Pictures to time.
    #[arg(long, default_value_t = 50_000)]
    steps: usize,
    /// Pictures before the clock starts.
    #[arg(long, default_value_t = 2_000)]
    warm: usize,
}

/// As in peers.py.
fn pool() -> Vec<Vec<u8>> {
    let [_, width, colours] = SHAPE;
    let len: usize = SHAPE.iter().product();
    let byte = |picture: usize, i: usize| {
        let (x, y, colour) = (i / colours % width, i / colours / width, i % colours);
        (x * y / 7 + 3 * x + 31 * picture + 85 * colour) as u8
    };
    (0..POOL).map(|picture| (0..len).map(|i| byte(picture, i)).collect()).collect()
}

fn main() -> Result<()> {
    let Arguments { steps, warm } = Arguments::parse();
    let config = PictureConfig {
        crop: Some([24, 12, 8, 8]),
        grayscale: true,
        resize: Some([42, 42]),
        method: ResizeMethod::Area,
    };
    let mut picture = Picture::new("bench", &config, SHAPE)?;
    let pool = pool();
    let mut shown = vec![0; 42 * 42];
    let mut work = |count: usize| {
        for from in pool.iter().cycle().take(count) {
            picture.make(black_box(from), &mut shown);
            black_box(&mut shown);
        }
    };
    work(warm);
    let begun = Instant::now();
    work(steps);
    let seconds = begun.elapsed().as_secs_f64();
    let mut brightness = 0;
    for from in &pool {
        picture.make(from, &mut shown);
        brightness += shown.iter().map(|&x| usize::from(x)).sum::<usize>();
    }
    println!(
        "{}",
        serde_json::json!({
            "steps": steps,
            "seconds": seconds,
            "rate": steps as f64 / seconds,
            "checks": {
                "pixels": shown.len(),
                // To a tenth: a few pixels are halves, which float arithmetic rounds either way.
                "brightness": (brightness as f64 / (POOL * shown.len()) as f64 * 10.0).round() / 10.0,
            },
        })
    );
    Ok(())
}
