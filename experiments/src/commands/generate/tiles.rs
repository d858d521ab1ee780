//! `imago generate tiles`: game assets. Screens of a model get the colours of a palette and are cut into tiles; what is
//! there twice goes; the rest becomes a sheet and a mock-up level that the editor Tiled opens.

use super::Common;
use crate::assemble;
use crate::compare::{self, Which};
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use crate::runs::{LICENCE, LoadedMaker};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use imago::Stream;
use imago::generative::data::ImageSet;
use imago::generative::features::Features;
use imago::generative::grid;
use imago::generative::metrics::{KernelDistance, kernel_distance, nearest};
use imago::generative::tiles::{Palette, difference, limit_colours, part, sheet, slice, unique};
use imago_envs::Frame;
use serde::Serialize;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Colours of a palette that is made from the training images: as many as the NES's table has entries.
const COLOURS: usize = 64;
/// The file that says that a folder was made here.
const TILESET: &str = "tiles.tsx";
/// Tiles in a row of the sheet.
const COLUMNS: usize = 16;
/// Pairs in a row of nearest.png, and white pixels around each.
const PAIRS: usize = 4;
const MARGIN: usize = 2;
/// Images or tiles that are looked at together.
const TOGETHER: usize = 1024;
/// Tiles that are compared by features; those of a subset; subsets.
const COMPARED: usize = 512;
const SUBSET: usize = 256;
const SUBSETS: usize = 50;
/// Blocks of tiles that look alike, of which a level takes turns.
const VARIANTS: usize = 4;
/// The level: walls and the ground between them, a block of at most 2 × 2 tiles each.
const PLAN: [&str; 11] = [
    "####################",
    "#......##..........#",
    "#......##..........#",
    "#......##....##....#",
    "#............##....#",
    "#......##..........#",
    "####.####..........#",
    "#.......#####..#####",
    "#..................#",
    "#.......####.......#",
    "####################",
];

/// Flags.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Screens to cut.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(super) count: usize,
    /// The NES's colours (nes), 64 of the training images' (data), or a palette of yours.
    #[arg(long, default_value = "nes", value_name = "nes|data|FILE.gpl|FILE.hex")]
    palette: String,
    /// Side of a tile.
    #[arg(long, default_value_t = 16, value_name = "PIXELS")]
    tile: usize,
    /// At most so many colours in each block of 16 × 16 pixels; the NES shows 4.
    #[arg(long, value_name = "N")]
    colours_per_tile: Option<usize>,
    /// Tiles are the same if their bytes differ by no more, as the root of a mean square.
    #[arg(long, default_value_t = 8.0, value_name = "0..255")]
    near: f64,
    /// Compare tiles with held-out ones by these features, too.
    #[arg(long, value_enum)]
    features: Option<Which>,
}

/// What `--json` prints and report.json holds.
#[derive(Serialize)]
struct Report {
    format: u32,
    run: PathBuf,
    checkpoint: u64,
    to: PathBuf,
    seed: u64,
    screens: usize,
    /// Side of a screen and of a tile, in pixels.
    size: usize,
    tile: usize,
    palette: String,
    palette_colours: usize,
    colours_per_tile: Option<usize>,
    /// Pixels of the sheet that are not of a colour of the palette.
    pixels_outside_palette: usize,
    near: f64,
    tiles: usize,
    unique: usize,
    /// What the training tiles say, with the same palette, if they are there.
    training: Option<Novelty>,
    /// What features say, if asked for.
    scores: Option<Scores>,
    licence: Option<String>,
}

/// How new the unique tiles are.
#[derive(Serialize)]
struct Novelty {
    tiles: usize,
    /// Unique tiles that are a training tile to the pixel, and those that differ from one by no more than `near`.
    same: usize,
    alike: usize,
    /// Share of unique tiles that are neither.
    new: f64,
}

/// Kernel distances to held-out tiles, all of them in the palette's colours: a palette that is not the data's is far from it
/// by itself, and no fault of the model.
#[derive(Serialize)]
struct Scores {
    features: &'static str,
    generated_tiles: usize,
    held_out_tiles: usize,
    kernel_distance: KernelDistance,
    /// That of the generated tiles with the pixels of each in random order: right colours in wrong places.
    shuffled_kernel_distance: KernelDistance,
    /// That of training tiles: what cannot be surpassed.
    training_kernel_distance: KernelDistance,
}

/// The palette, if it is not the data's.
fn palette(name: &str) -> Result<Option<Palette>> {
    Ok(match name {
        "nes" => Some(Palette::nes()?),
        "data" => None,
        file => Some(Palette::read(Path::new(file)).context("--palette is nes, data, or a file")?),
    })
}

/// Refuses what cannot be meant.
pub(super) fn check(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.colours_per_tile != Some(0), "--colours-per-tile begins at 1");
    ensure!((0.0..=255.0).contains(&arguments.near), "--near lies between 0 and 255");
    let to = &arguments.common.to;
    ensure!(
        !to.exists() || to.join(TILESET).is_file(),
        "{} holds something else than tiles, which --force would remove: give another folder",
        to.display()
    );
    palette(&arguments.palette).map(drop)
}

/// Runs the command with a screen for each of `labels`.
pub(super) fn run(loaded: &LoadedMaker, arguments: &Arguments, labels: &[i64], shared: &Shared) -> Outcome {
    let (palette, maker) = (palette(&arguments.palette)?, &loaded.maker);
    let (size, side, to) = (maker.generator.spec.size as usize, arguments.tile, &arguments.common.to);
    if !(4..=size).contains(&side) {
        let model = loaded.path.display();
        return Err(anyhow!("--tile {side}: images of {model} have {size} pixels, tiles 4 to {size}").into());
    }
    let config = loaded.recipe.data.as_ref().context("the run has no [data]")?;
    let features = arguments.features.map(compare::features).transpose()?;
    let data = match assemble::images(config) {
        Ok(data) => Some(data),
        Err(error) if palette.is_none() || features.is_some() => {
            return Err(error.context("--palette data and --features need the training images").into());
        }
        Err(error) => {
            tracing::warn!("no comparison with the training images: {error:#}");
            None
        }
    };
    let palette = match (palette, &data) {
        (Some(palette), _) => palette,
        (None, Some(data)) => of_data(data)?,
        (None, None) => return Err(anyhow!("no palette").into()),
    };
    let seed = shared.seed.unwrap_or(0);
    let images = maker.images(&maker.latents(seed, labels.len(), arguments.common.truncation), labels)?;
    let coloured = |image: &Tensor| {
        let mut frame = grid::frame(image);
        palette.apply(&mut frame);
        arguments.colours_per_tile.into_iter().for_each(|count| limit_colours(&mut frame, count));
        frame
    };
    let each =
        |images: &Tensor| -> Vec<Frame> { (0..images.size()[0]).map(|i| coloured(&images.get(i))).collect() };
    let screens = each(&images);
    let cut: Vec<Frame> = screens.iter().flat_map(|screen| slice(screen, side)).collect();
    let (becomes, assets) = unique(&cut, arguments.near);

    let mut novelty = None;
    let mut beside = None;
    if let Some(data) = &data {
        let originals = || data.training.chunks(TOGETHER).map(|part| data.gather(part, &[]));
        let (places, _) = nearest(&images.flatten(1, -1), originals().map(|part| part.flatten(1, -1)))?;
        let pairs = screens.iter().zip(&places).map(|(screen, &place)| {
            let original = data.gather(&[data.training[place as usize]], &[]).get(0);
            framed(&sheet(&[screen.clone(), grid::frame(&original)], 2))
        });
        beside = Some(sheet(&pairs.collect::<Vec<_>>(), PAIRS.min(screens.len())));
        let screens = originals().flat_map(|part| each(&part));
        let known: Vec<Frame> = screens.flat_map(|screen| slice(&screen, side)).collect();
        novelty = Some(compare_tiles(&assets, &known, arguments.near)?);
    }
    let scores = match (&features, &data) {
        (Some(features), Some(data)) => Some(score(features, data, &cut, &coloured, side, seed)?),
        _ => None,
    };

    let level = Level::lay_out(&screens, labels, &becomes, side, seed);
    let assets_sheet = sheet(&assets, COLUMNS.min(assets.len()));
    let known: HashSet<&[u8; 3]> = palette.colours().iter().collect();
    let outside = assets.iter().flat_map(|tile| &tile.pixels).filter(|pixel| !known.contains(pixel)).count();
    let report = Report {
        format: 1,
        run: loaded.path.clone(),
        checkpoint: loaded.step,
        to: to.clone(),
        seed,
        screens: screens.len(),
        size,
        tile: side,
        palette: arguments.palette.clone(),
        palette_colours: palette.colours().len(),
        colours_per_tile: arguments.colours_per_tile,
        pixels_outside_palette: outside,
        near: arguments.near,
        tiles: cut.len(),
        unique: assets.len(),
        training: novelty,
        scores,
        licence: loaded.licence.clone(),
    };
    let mut files: Vec<(&str, Vec<u8>)> = vec![
        ("sheet.png", grid::png(&assets_sheet)?),
        (TILESET, tileset(&assets_sheet, assets.len(), side).into()),
        ("level.tmx", level.map(side).into()),
        ("level.png", grid::png(&level.picture(&assets))?),
        ("palette.hex", palette.hex().into()),
        ("report.json", serde_json::to_vec_pretty(&report)?),
    ];
    if let Some(beside) = &beside {
        files.push(("nearest.png", grid::png(beside)?));
    }
    if let Some(licence) = &loaded.licence {
        files.push((LICENCE, licence.clone().into()));
    }
    write(to, &files).map_err(failed)?;
    report.print(shared)?;
    Ok(Done::Finished)
}

/// A palette of all training images.
fn of_data(data: &ImageSet) -> Result<Palette> {
    // Some hundred thousand pixels say as much as all.
    const PIXELS: usize = 400_000;
    let every = (data.training.len() * (data.size * data.size) as usize).div_ceil(PIXELS);
    let mut pixels = Vec::new();
    for part in data.training.chunks(TOGETHER) {
        let images = data.gather(part, &[]);
        pixels.extend((0..images.size()[0]).flat_map(|i| grid::frame(&images.get(i)).pixels).step_by(every));
    }
    Ok(Palette::of_pixels(&pixels, COLOURS)?)
}

fn framed(frame: &Frame) -> Frame {
    let mut whole = Frame::filled(frame.width + 2 * MARGIN, frame.height + 2 * MARGIN, [255; 3]);
    for (y, row) in frame.pixels.chunks_exact(frame.width).enumerate() {
        let at = (y + MARGIN) * whole.width + MARGIN;
        whole.pixels[at..at + frame.width].copy_from_slice(row);
    }
    whole
}

/// Tiles as rows `[N, 3 · side²]` of bytes in floats.
fn rows(tiles: &[Frame]) -> Tensor {
    let bytes: Vec<u8> = tiles.iter().flat_map(|tile| tile.pixels.as_flattened()).copied().collect();
    Tensor::from_slice(&bytes).view([tiles.len() as i64, -1]).to_kind(tch::Kind::Float)
}

fn compare_tiles(assets: &[Frame], known: &[Frame], near: f64) -> Result<Novelty> {
    let pixels: HashSet<&[[u8; 3]]> = known.iter().map(|tile| tile.pixels.as_slice()).collect();
    let same: Vec<bool> = assets.iter().map(|tile| pixels.contains(tile.pixels.as_slice())).collect();
    let (_, distances) = nearest(&rows(assets), known.chunks(TOGETHER).map(rows))?;
    let bytes = (3 * assets.first().map_or(0, |tile| tile.pixels.len())) as f64;
    let alike =
        same.iter().zip(&distances).filter(|(same, distance)| !**same && **distance / bytes.sqrt() <= near);
    let (same, alike) = (same.iter().filter(|same| **same).count(), alike.count());
    let new = (assets.len() - same - alike) as f64 / assets.len() as f64;
    Ok(Novelty { tiles: known.len(), same, alike, new })
}

fn score(
    features: &Features,
    data: &ImageSet,
    generated: &[Frame],
    coloured: &dyn Fn(&Tensor) -> Frame,
    side: usize,
    seed: u64,
) -> Result<Scores> {
    ensure!(data.held_out.len() >= 8, "--features: data.held_out leaves too few images to compare with");
    let of_images = |indices: &[i64]| -> Vec<Frame> {
        let images = data.gather(indices, &[]);
        (0..images.size()[0]).flat_map(|i| slice(&coloured(&images.get(i)), side)).collect()
    };
    let some = |tiles: Vec<Frame>, name: &str| -> Vec<Frame> {
        let order = Stream::new(seed, name, 0, 0).permutation(tiles.len());
        order.iter().take(COMPARED).map(|&i| tiles[i as usize].clone()).collect()
    };
    let held_out = some(of_images(&data.held_out), "held-out tiles");
    let training: Vec<i64> =
        data.training.iter().step_by((data.training.len() / COMPARED).max(1)).copied().collect();
    let training = some(of_images(&training), "training tiles");
    let generated = some(generated.to_vec(), "generated tiles");
    let mut rng = Stream::new(seed, "shuffled pixels", 0, 0);
    let shuffled: Vec<Frame> = generated
        .iter()
        .map(|tile| {
            let order = rng.permutation(tile.pixels.len());
            Frame { pixels: order.iter().map(|&i| tile.pixels[i as usize]).collect(), ..tile.clone() }
        })
        .collect();
    let of = |tiles: &[Frame]| {
        let side = side as i64;
        let images = rows(tiles).view([-1, side, side, 3]).permute([0, 3, 1, 2]) / 127.5 - 1.0;
        features.of(&images.contiguous())
    };
    let real = of(&held_out);
    let distance = |tiles: &[Frame], name: &str| {
        kernel_distance(&real, &of(tiles), SUBSETS, SUBSET, &mut Stream::new(seed, name, 0, 0))
    };
    Ok(Scores {
        features: features.name(),
        generated_tiles: generated.len(),
        held_out_tiles: held_out.len(),
        kernel_distance: distance(&generated, "kernel distance")?,
        shuffled_kernel_distance: distance(&shuffled, "kernel distance of shuffled tiles")?,
        training_kernel_distance: distance(&training, "kernel distance of training tiles")?,
    })
}

/// Numbers of tiles, row after row.
struct Level {
    width: usize,
    height: usize,
    tiles: Vec<usize>,
}

impl Level {
    /// Lays [`PLAN`] out with blocks of neighbouring tiles. Ground is what looks like one block of it, walls what looks
    /// like another: the first and the last class, or
    /// with one class the darker and the brighter half.
    fn lay_out(screens: &[Frame], labels: &[i64], becomes: &[usize], side: usize, seed: u64) -> Self {
        let across = screens.first().map_or(1, |screen| screen.width / side);
        let block = across.min(2);
        // Blocks: where in which screen, and what they look like.
        let mut blocks = Vec::new();
        for (number, screen) in screens.iter().enumerate() {
            for corner in 0..(across / block).pow(2) {
                let [x, y] = [corner % (across / block) * block, corner / (across / block) * block];
                let look = part(screen, [x * side, y * side], [block * side; 2]);
                blocks.push((number, [x, y], look));
            }
        }
        let brightness =
            |frame: &Frame| frame.pixels.as_flattened().iter().map(|&x| u64::from(x)).sum::<u64>();
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&i| (brightness(&blocks[i].2), i));
        let half = order.len() / 2;
        let of_class = |class: Option<&i64>| -> Vec<usize> {
            (0..blocks.len()).filter(|&i| labels.get(blocks[i].0) == class).collect()
        };
        let (ground, walls) = match (labels.iter().min(), labels.iter().max()) {
            (first, last) if first != last => (of_class(first), of_class(last)),
            _ => (order[..half.max(1)].to_vec(), order[half..].to_vec()),
        };
        let mut rng = Stream::new(seed, "level", 0, 0);
        let alike = |kind: &[usize], rng: &mut Stream| -> Vec<usize> {
            let model = &blocks[kind[rng.below(kind.len())]].2;
            let mut sorted: Vec<(f64, usize)> =
                kind.iter().map(|&i| (difference(model, &blocks[i].2), i)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            sorted.into_iter().take(VARIANTS).map(|(_, i)| i).collect()
        };
        let (ground, walls) = (alike(&ground, &mut rng), alike(&walls, &mut rng));
        let [width, height] = [PLAN[0].len() * block, PLAN.len() * block];
        let mut tiles = vec![0; width * height];
        for (row, line) in PLAN.iter().enumerate() {
            for (column, kind) in line.chars().enumerate() {
                let kind = if kind == '#' { &walls } else { &ground };
                let (screen, [x, y], _) = &blocks[kind[rng.below(kind.len())]];
                for i in 0..block * block {
                    let [dx, dy] = [i % block, i / block];
                    let tile = becomes[screen * across * across + (y + dy) * across + x + dx];
                    tiles[(row * block + dy) * width + column * block + dx] = tile;
                }
            }
        }
        Self { width, height, tiles }
    }

    /// As Tiled's map, which calls tile 0 1.
    fn map(&self, side: usize) -> String {
        let Self { width, height, tiles } = self;
        let rows: Vec<String> = tiles
            .chunks(*width)
            .map(|row| row.iter().map(|tile| (tile + 1).to_string()).collect::<Vec<_>>().join(","))
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<map version=\"1.10\" orientation=\"orthogonal\" \
             renderorder=\"right-down\" width=\"{width}\" height=\"{height}\" tilewidth=\"{side}\" \
             tileheight=\"{side}\" infinite=\"0\" nextlayerid=\"2\" nextobjectid=\"1\">\n <tileset firstgid=\"1\" \
             source=\"{TILESET}\"/>\n <layer id=\"1\" name=\"level\" width=\"{width}\" height=\"{height}\">\n  \
             <data encoding=\"csv\">\n{}\n</data>\n </layer>\n</map>\n",
            rows.join(",\n")
        )
    }

    fn picture(&self, assets: &[Frame]) -> Frame {
        let tiles: Vec<Frame> = self.tiles.iter().map(|&tile| assets[tile].clone()).collect();
        sheet(&tiles, self.width)
    }
}

/// As Tiled's tile set.
fn tileset(sheet: &Frame, count: usize, side: usize) -> String {
    let Frame { width, height, .. } = sheet;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<tileset version=\"1.10\" name=\"tiles\" tilewidth=\"{side}\" \
         tileheight=\"{side}\" tilecount=\"{count}\" columns=\"{}\">\n <image source=\"sheet.png\" width=\"{width}\" \
         height=\"{height}\"/>\n</tileset>\n",
        width / side
    )
}

/// A folder that appears whole or not at all, in place of the one that is there.
fn write(to: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", to.display());
    fs::create_dir_all(parent).with_context(cannot)?;
    let making = tempfile::Builder::new().prefix(".tiles-").tempdir_in(parent).with_context(cannot)?;
    for (name, content) in files {
        fs::write(making.path().join(name), content).with_context(cannot)?;
    }
    fs::set_permissions(making.path(), fs::Permissions::from_mode(0o755)).with_context(cannot)?;
    let old = tempfile::Builder::new().prefix(".tiles-").tempdir_in(parent).with_context(cannot)?;
    if to.exists() {
        fs::rename(to, old.path().join("old")).with_context(cannot)?;
    }
    fs::rename(making.path(), to).with_context(cannot)?;
    Ok(())
}

impl Report {
    fn print(&self, shared: &Shared) -> Result<()> {
        if shared.json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!(
            "{}: {} different tiles of {} in {} screens of {} at step {}",
            self.to.display(),
            self.unique,
            self.tiles,
            self.screens,
            self.run.display(),
            self.checkpoint
        );
        println!(
            "palette            {} ({} colours), {} pixels outside it",
            self.palette, self.palette_colours, self.pixels_outside_palette
        );
        if let Some(Novelty { tiles, same, alike, new }) = &self.training {
            println!(
                "new                {:.1} % ({same} are, {alike} nearly are one of {tiles} training tiles)",
                100.0 * new
            );
        }
        if let Some(scores) = &self.scores {
            println!(
                "kernel distance    {:.5} to held-out tiles in the same colours (with shuffled pixels {:.5}, training tiles \
                 {:.5}), features: {}",
                scores.kernel_distance.mean,
                scores.shuffled_kernel_distance.mean,
                scores.training_kernel_distance.mean,
                scores.features
            );
        }
        Ok(())
    }
}
