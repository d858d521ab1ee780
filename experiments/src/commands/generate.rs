//! `imago generate`: images from an image model.

mod arithmetic;
mod tiles;

pub use arithmetic::{POOL, TRUNCATION, both, without};

use super::check_output;
use crate::gif_file::GifFile;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::runs::{self, LICENCE, LoadedMaker};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use imago::generative::grid;
use imago::generative::latent;
use imago_envs::Frame;
use std::path::{Path, PathBuf};

/// Seconds for which each picture of a film is shown.
const PACE: f64 = 0.05;

/// Make images.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Single images into a folder, each called after its seed.
    Samples {
        #[command(flatten)]
        common: Common,
        /// How many; the seeds are --seed and those that follow.
        #[arg(long, default_value_t = 16, value_name = "N")]
        count: usize,
    },
    /// Many images side by side in one PNG.
    Grid {
        #[command(flatten)]
        common: Common,
        /// How many.
        #[arg(long, default_value_t = 64, value_name = "N")]
        count: usize,
        /// In a row.
        #[arg(long, default_value_t = 8, value_name = "N")]
        columns: usize,
    },
    /// From one image to the next: a film (.gif) or a strip (.png, a row from stop to stop).
    Interpolation {
        #[command(flatten)]
        common: Common,
        /// Images that it goes through.
        #[arg(long, default_value_t = 5, value_name = "N")]
        stops: usize,
        /// Images from one to the next.
        #[arg(long, default_value_t = 20, value_name = "N")]
        steps: usize,
        /// Straight, or along a great circle.
        #[arg(long, value_enum, default_value_t = Way::Spherical)]
        path: Way,
        /// Take --stops new faces and move all of them along what makes this attribute: turn, smile, glasses, …
        #[arg(long, value_name = "WORD", conflicts_with = "path")]
        vector: Option<String>,
    },
    /// Sums of faces, and faces with something added or removed (.png).
    Arithmetic {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        sum: arithmetic::Sum,
    },
    /// Game assets into a folder: tiles in a palette's colours, a sheet of them, a level for Tiled, what is new about them.
    Tiles(tiles::Arguments),
}

#[derive(Args)]
struct Common {
    /// The run or the model, e.g. `latest`, `runs/mine@5000` or `model:tiles-crawl`.
    run: String,
    /// Where to put it.
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Factor of the latent vectors: below 1 images are more alike, and more like the average.
    #[arg(long, default_value_t = 1.0, value_name = "PSI")]
    truncation: f64,
    /// Only images of this class; otherwise classes take turns.
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Linear,
    Spherical,
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Command::Samples { common, .. }
            | Command::Grid { common, .. }
            | Command::Interpolation { common, .. }
            | Command::Arithmetic { common, .. }
            | Command::Tiles(tiles::Arguments { common, .. }) => common,
        }
    }
}

/// The model that the command is about, everything else being right.
pub fn subject(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<LoadedMaker> {
    let common = arguments.command.common();
    let (count, ending): (usize, &[&str]) = match &arguments.command {
        Command::Samples { count, .. } => (*count, &[]),
        Command::Grid { count, columns, .. } => ((*count).min(*columns), &["png"]),
        Command::Interpolation { stops, steps, vector, .. } => {
            let ways = if vector.is_some() { *stops } else { stops.saturating_sub(1) };
            (ways.min(*steps), &["gif", "png"])
        }
        Command::Arithmetic { sum, .. } => {
            sum.check()?;
            (1, &["png"])
        }
        Command::Tiles(own) => (own.count, &[]),
    };
    ensure!(count > 0, "that makes no image: --count, --columns and --steps begin at 1, --stops at 2");
    ensure!(common.truncation.is_finite(), "--truncation must be a number");
    let own = common.to.extension().and_then(|own| own.to_str()).unwrap_or_default();
    ensure!(
        ending.is_empty() || ending.contains(&own),
        "--to {}: this makes files that end in .{}",
        common.to.display(),
        ending.join(" or .")
    );
    check_output(&common.to, shared.force)?;
    if let Command::Tiles(own) = &arguments.command {
        tiles::check(own)?;
    }
    runs::load_maker(program, &common.run)
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    let loaded = subject(program, arguments, shared)?;
    let common = arguments.command.common();
    let maker = &loaded.maker;
    let class = match &common.class {
        None => None,
        Some(name) => Some(class(&maker.classes, name)?),
    };
    let classes = maker.classes.len().max(1);
    let labels =
        |count: usize| -> Vec<i64> { (0..count).map(|i| class.unwrap_or(i % classes) as i64).collect() };
    let seed = shared.seed.unwrap_or(0);
    let to = &common.to;
    let made = match &arguments.command {
        Command::Arithmetic { sum, .. } => {
            return arithmetic::run(sum, &loaded, to, common.truncation, shared);
        }
        Command::Tiles(own) => return tiles::run(&loaded, own, &labels(own.count), shared),
        Command::Samples { count, .. } => {
            let images = maker.images(&maker.latents(seed, *count, common.truncation), &labels(*count))?;
            std::fs::create_dir_all(to)
                .with_context(|| format!("cannot create {}", to.display()))
                .map_err(failed)?;
            if let Some(licence) = &loaded.licence {
                write(&to.join(LICENCE), licence.as_bytes()).map_err(failed)?;
            }
            for i in 0..*count {
                let path = to.join(format!("{:06}.png", seed.wrapping_add(i as u64)));
                check_output(&path, shared.force)?;
                write(&path, &grid::png(&grid::frame(&images.get(i as i64)))?).map_err(failed)?;
            }
            *count
        }
        Command::Grid { count, columns, .. } => {
            let images = maker.images(&maker.latents(seed, *count, common.truncation), &labels(*count))?;
            write(to, &grid::png(&grid::tiles(&images, *columns))?).map_err(failed)?;
            *count
        }
        Command::Interpolation { stops, steps, vector: Some(word), .. } => {
            arithmetic::vector(word, &loaded, *stops, *steps, to, common.truncation, shared)?
        }
        Command::Interpolation { stops, steps, path, .. } => {
            let path = match path {
                Way::Linear => latent::Path::Linear,
                Way::Spherical => latent::Path::Spherical,
            };
            let z = path.through(&maker.latents(seed, *stops, common.truncation), *steps);
            let count = z.size()[0] as usize;
            // A face does not change its class on the way.
            let images = maker.images(&z, &vec![class.unwrap_or(0) as i64; count])?;
            match to.extension().is_some_and(|ending| ending == "gif") {
                true => {
                    let frames: Vec<Frame> =
                        (0..images.size()[0]).map(|i| grid::frame(&images.get(i))).collect();
                    film(to, &frames, shared.force).map_err(failed)?;
                }
                false => write(to, &grid::png(&grid::tiles(&images, *steps))?).map_err(failed)?,
            }
            count
        }
    };
    let names = &maker.classes;
    if shared.json {
        let report = serde_json::json!({
            "format": 1,
            "run": loaded.path,
            "checkpoint": loaded.step,
            "to": to,
            "images": made,
            "size": maker.generator.spec.size,
            "seed": seed,
            "truncation": common.truncation,
            "classes": names,
        });
        println!("{report}");
    } else {
        let of = if names.is_empty() { String::new() } else { format!(", classes: {}", names.join(", ")) };
        println!("{}: {made} images of {} at step {}{of}", to.display(), loaded.path.display(), loaded.step);
    }
    Ok(Done::Finished)
}

fn class(classes: &[String], name: &str) -> Result<usize> {
    match classes.iter().position(|class| class == name) {
        Some(class) => Ok(class),
        None if classes.is_empty() => bail!("--class: this model knows no classes (see data.label)"),
        None => bail!("--class {name}: no such class (there are: {})", classes.join(", ")),
    }
}

/// There and back again, so that it can go on for ever.
fn film(to: &Path, frames: &[Frame], force: bool) -> Result<()> {
    let first = frames.first().context("no image")?;
    let mut film = GifFile::create(to, first)?;
    let back = frames.iter().rev().skip(1).take(frames.len().saturating_sub(2));
    for frame in frames.iter().chain(back) {
        film.add(frame, PACE)?;
    }
    film.finish(force).map(drop)
}

/// A file that appears whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(imago::run::write_whole(path, bytes)?)
}
