//! `imago generate arithmetic`: sums of faces, and faces with something added or removed.

use super::{film, write};
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use crate::readers::Readers;
use crate::runs::LoadedMaker;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use imago::Stream;
use imago::generative::arithmetic::{Expression, Operand, Pool, Strength, around, mean, moved, sum};
use imago::generative::attributes::{Attribute, Classifier, Concept, Half, TURN};
use imago::generative::data::Picture;
use imago::generative::gan::Maker;
use imago::generative::{grid, inversion};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Generated images of which exemplars are chosen.
pub const POOL: usize = 4096;
/// Their truncation: nearer to the mean face, exemplars differ less in what they do not stand for.
pub const TRUNCATION: f64 = 0.7;
/// Images for each new face, of which those are taken that lack something.
const OFFERED: usize = 6;

/// What is asked.
#[derive(Args)]
#[command(
    after_help = "Words are values of the data's labels (smile), labels that can be \"none\" (glasses), LABEL=VALUE \
                        (hair=mrT), no-WORD for anything but that; smiling is smile; neutral is neither smile nor, unless \
                        another word of the term is about them, glasses; right and left if the data is mirrored. Seeds are \
                        those of `imago generate samples`. On first use classifiers and, for --input, an encoder are \
                        trained (minutes) and kept in the run's folder."
)]
pub struct Sum {
    /// Terms between + and -: "smiling glasses - neutral glasses + neutral", or seeds: "#12,#40,#77 - #3".
    #[arg(required_unless_present_any = ["add", "remove"], allow_hyphen_values = true)]
    expression: Option<String>,
    /// Images whose mean is a concept.
    #[arg(long, default_value_t = 3, value_name = "N")]
    exemplars: usize,
    /// Give faces this: glasses, smile, hair=mrT, … (repeatable).
    #[arg(long, value_name = "WORD", conflicts_with = "expression")]
    add: Vec<String>,
    /// Take this from faces (repeatable).
    #[arg(long, value_name = "WORD", conflicts_with = "expression")]
    remove: Vec<String>,
    /// The face to change; otherwise --count new ones are, from --seed on.
    #[arg(long, value_name = "IMAGE", conflicts_with = "expression")]
    input: Option<PathBuf>,
    /// How many new faces to change.
    #[arg(long, default_value_t = 8, value_name = "N", conflicts_with = "input")]
    count: usize,
    /// How its latent vector is found.
    #[arg(long, value_enum, default_value_t = Method::Both, requires = "input")]
    method: Method,
    /// Factor of what is added; otherwise as little as makes it sure. In an expression: of the difference between words and
    /// those taken from them; otherwise 1.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    strength: Option<f64>,
}

/// How an image's latent vector is found.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    /// Gradient descent on the latent vector.
    Optimisation,
    /// A network trained on the generator's own images.
    Encoder,
    /// Descent from where the encoder says, and from the best of some random vectors: what came nearer.
    Both,
}

impl Sum {
    /// Refuses what can be seen without the run.
    pub fn check(&self) -> Result<()> {
        ensure!(self.exemplars > 0 && self.count > 0, "--exemplars and --count begin at 1");
        ensure!(self.strength.is_none_or(f64::is_finite), "--strength must be a number");
        if let Some(expression) = &self.expression {
            expression.parse::<Expression>()?;
        }
        Ok(())
    }
}

/// Runs the command, which writes `to`.
pub fn run(sum: &Sum, loaded: &LoadedMaker, to: &Path, truncation: f64, shared: &Shared) -> Outcome {
    tch::set_num_threads(1);
    let (maker, seed) = (&loaded.maker, shared.seed.unwrap_or(0));
    let readers = Readers::new(loaded, shared)?;
    let attributes = &readers.labels.attributes;
    let (picture, columns, report) = match &sum.expression {
        Some(expression) => {
            let expression: Expression = expression.parse()?;
            let concepts = concepts(&expression, attributes)?;
            if sum.strength.is_some() && taken(&expression, &concepts).is_empty() {
                let what = "--strength is the factor of a difference of words, such as smiling - neutral";
                return Err(anyhow::anyhow!("{what}: there is none in `{expression}`").into());
            }
            let chooser = readers.classifier(Half::First).map_err(failed)?;
            show(maker, &chooser, &expression, &concepts, sum, seed)?
        }
        None => {
            let changes = changes(sum, attributes)?;
            let input = sum.input.as_ref().map(|path| read(path, loaded, shared)).transpose()?;
            let chooser = readers.classifier(Half::First).map_err(failed)?;
            change(sum, &readers, &chooser, &changes, input.as_ref(), truncation, seed)?
        }
    };
    write(to, &grid::png(&grid::tiles(&picture, columns))?).map_err(failed)?;
    if shared.json {
        let report = serde_json::json!({
            "format": 1, "run": loaded.path, "checkpoint": loaded.step, "to": to, "seed": seed, "made": report,
        });
        println!("{report}");
    } else {
        println!("{}: {report}", to.display());
    }
    Ok(Done::Finished)
}

/// What the words of each term mean; none for seeds.
fn concepts(expression: &Expression, attributes: &[Attribute]) -> Result<Vec<Option<Concept>>> {
    let one = |operand: &Operand| match operand {
        Operand::Words(words) => Ok(Some(Concept::of(attributes, words)?)),
        Operand::Seeds(_) => Ok(None),
    };
    expression.0.iter().map(|term| one(&term.operand)).collect()
}

/// The places of terms that are taken from the one before them, both of words, and what the two mean: their exemplars are
/// chosen together.
fn taken<'a>(expression: &Expression, concepts: &'a [Option<Concept>]) -> Vec<(usize, [&'a Concept; 2])> {
    let one = |i: usize| match (&concepts[i - 1], &concepts[i]) {
        (Some(concept), Some(taken)) if !expression.0[i - 1].minus && expression.0[i].minus => {
            Some((i, [concept, taken]))
        }
        _ => None,
    };
    (1..concepts.len()).filter_map(one).collect()
}

/// A row for each term, exemplars and their mean; then 3 × 3 images, the result in the middle.
fn show(
    maker: &Maker,
    chooser: &Classifier,
    expression: &Expression,
    concepts: &[Option<Concept>],
    Sum { exemplars, strength, .. }: &Sum,
    seed: u64,
) -> Result<(Tensor, usize, String)> {
    let pool = Pool::new(maker, chooser, seed, POOL, TRUNCATION)?;
    // Alike in all but what they differ in by their words.
    let mut chosen: Vec<Option<Vec<i64>>> = vec![None; concepts.len()];
    for (i, [concept, taken]) in taken(expression, concepts) {
        let pairs = pool.pairs(concept, taken, *exemplars)?;
        chosen[i - 1] = Some(pairs.iter().map(|pair| pair[0]).collect());
        chosen[i] = Some(pairs.iter().map(|pair| pair[1]).collect());
    }
    let factors: Vec<f64> = chosen.iter().map(|pair| pair.as_ref().and(*strength).unwrap_or(1.0)).collect();
    let mut vectors = Vec::new();
    for ((term, concept), chosen) in expression.0.iter().zip(concepts).zip(chosen) {
        vectors.push(match (&term.operand, concept, chosen) {
            (_, _, Some(places)) => pool.rows(&places),
            (_, Some(concept), None) => pool.rows(&pool.exemplars(concept, *exemplars)?),
            (Operand::Seeds(seeds), ..) => {
                Tensor::cat(&seeds.iter().map(|&seed| maker.latents(seed, 1, 1.0)).collect::<Vec<_>>(), 0)
            }
            (Operand::Words(words), ..) => anyhow::bail!("`{}` has no meaning", words.join(" ")),
        });
    }
    let scaled: Vec<Tensor> = vectors.iter().zip(factors).map(|(z, factor)| z * factor).collect();
    let y = sum(expression.0.iter().zip(&scaled).map(|(term, z)| (term.minus, z)));
    let nine = around(&y, &mut Stream::new(seed, "around a sum", 0, 0));
    let longest = vectors.iter().map(|z| z.size()[0]).max().unwrap_or(1);
    let columns = (longest + 1).max(3);
    let spec = &maker.generator.spec;
    let white = |count: i64| {
        Tensor::ones([count, spec.channels, spec.size, spec.size], (Kind::Float, tch::Device::Cpu))
    };
    let mut rows = Vec::new();
    for z in &vectors {
        let count = z.size()[0];
        rows.push(images(maker, z)?);
        rows.push(white(columns - 1 - count));
        rows.push(images(maker, &mean(z).unsqueeze(0))?);
    }
    rows.push(white(columns));
    for row in 0..3 {
        rows.push(images(maker, &nine.narrow(0, 3 * row, 3))?);
        rows.push(white(columns - 3));
    }
    let what =
        format!("{expression}: rows of exemplars with their mean at the end, then the result within 3 × 3");
    Ok((Tensor::cat(&rows, 0), columns as usize, what))
}

/// What faces shall show and what they show now, for each change.
fn changes(sum: &Sum, attributes: &[Attribute]) -> Result<Vec<[Concept; 2]>> {
    let one = |word: &String, removed: bool| {
        let [with, without] = both(attributes, word)?;
        Ok(if removed { [without, with] } else { [with, without] })
    };
    sum.add.iter().map(|word| one(word, false)).chain(sum.remove.iter().map(|word| one(word, true))).collect()
}

/// What a word means, and its opposite.
pub fn both(attributes: &[Attribute], word: &str) -> Result<[Concept; 2]> {
    let concept = Concept::of(attributes, &[word.to_string()])?;
    match concept.opposite() {
        Some(opposite) => Ok([concept, opposite]),
        None => anyhow::bail!("`{word}` is about several attributes: name one, such as smile"),
    }
}

/// Before in the first row and after in the second one; of a picture also itself.
fn change(
    sum: &Sum,
    readers: &Readers,
    chooser: &Classifier,
    changes: &[[Concept; 2]],
    input: Option<&Tensor>,
    truncation: f64,
    seed: u64,
) -> Result<(Tensor, usize, String)> {
    let maker = &readers.loaded.maker;
    let pool = Pool::new(maker, chooser, seed.wrapping_add(1_000_000), POOL, TRUNCATION)?;
    let z = match input {
        Some(image) => {
            let encoder = readers.encoder()?;
            let method = match sum.method {
                Method::Optimisation => inversion::Method::Optimisation,
                Method::Encoder => inversion::Method::Encoder,
                Method::Both => inversion::Method::Both,
            };
            readers.inverter(&encoder, chooser, seed).invert(image, method)?
        }
        None => without(maker, chooser, changes, truncation, seed, sum.count)?,
    };
    let (mut after, mut strengths) = (z.copy(), Vec::new());
    let strength = sum.strength.map_or(Strength::Least, Strength::Fixed);
    for [concept, opposite] in changes {
        let direction = pool.direction(concept, opposite, sum.exemplars)?;
        let (changed, by) = moved(maker, chooser, concept, &after, &direction, strength)?;
        after = changed;
        strengths.extend(by);
    }
    let mut rows = vec![images(maker, &z)?, images(maker, &after)?];
    let mut columns = z.size()[0] as usize;
    if let Some(image) = input {
        rows.insert(0, image.shallow_clone());
        columns = 3;
    }
    let average = strengths.iter().sum::<f64>() / strengths.len() as f64;
    let rest = if input.is_some() {
        "the picture, what the model makes of it, and that changed"
    } else {
        "before and after"
    };
    Ok((Tensor::cat(&rows, 0), columns, format!("{rest}; mean strength {average:.2}")))
}

/// The first `count` faces from `seed` on that do not show any of the changes yet.
pub fn without(
    maker: &Maker,
    chooser: &Classifier,
    changes: &[[Concept; 2]],
    truncation: f64,
    seed: u64,
    count: usize,
) -> Result<Tensor> {
    let pool = Pool::new(maker, chooser, seed, OFFERED * count, truncation)?;
    let lacks =
        |i: &i64| changes.iter().all(|[_, now]| now.probability(&pool.seen).double_value(&[*i]) > 0.5);
    let places: Vec<i64> = (0..(OFFERED * count) as i64).filter(lacks).take(count).collect();
    ensure!(!places.is_empty(), "of {} new faces none lacks that: take another --seed", OFFERED * count);
    Ok(pool.rows(&places))
}

/// A film or a strip of new faces that go from −1 to 1 times the direction of `word`: "turn", smile, glasses, …
pub fn vector(
    word: &str,
    loaded: &LoadedMaker,
    faces: usize,
    steps: usize,
    to: &Path,
    truncation: f64,
    shared: &Shared,
) -> Result<usize> {
    tch::set_num_threads(1);
    let (maker, seed) = (&loaded.maker, shared.seed.unwrap_or(0));
    let readers = Readers::new(loaded, shared)?;
    let [concept, opposite] = both(&readers.labels.attributes, if word == TURN { "left" } else { word })?;
    let chooser = readers.classifier(Half::First)?;
    // Four of each, as in the paper.
    let pool = Pool::new(maker, &chooser, seed.wrapping_add(1_000_000), POOL, TRUNCATION)?;
    let direction = pool.direction(&concept, &opposite, 4)?;
    let z = maker.latents(seed, faces, truncation);
    let mut pictures = Vec::new();
    for step in 0..=steps {
        let t = 2.0 * step as f64 / steps as f64 - 1.0;
        pictures.push(images(maker, &(&z + &direction * t))?);
    }
    match to.extension().is_some_and(|ending| ending == "gif") {
        true => {
            let frames: Vec<_> = pictures.iter().map(|row| grid::tiles(row, faces)).collect();
            film(to, &frames, shared.force)?;
        }
        false => {
            // A row for each face.
            let rows = Tensor::stack(&pictures, 1).flatten(0, 1);
            write(to, &grid::png(&grid::tiles(&rows, steps + 1))?)?;
        }
    }
    Ok(faces * (steps + 1))
}

/// Images `[N, C, H, W]`, of the first class if there are classes.
fn images(maker: &Maker, z: &Tensor) -> Result<Tensor> {
    Ok(maker.images(z, &vec![0; z.size()[0] as usize])?)
}

/// A picture as the generator's own images are, `[1, C, H, W]`; what had to be done to it is said.
fn read(path: &Path, loaded: &LoadedMaker, shared: &Shared) -> Result<Tensor> {
    let spec = &loaded.maker.generator.spec;
    let picture = Picture::read(path)?;
    let [width, height] = picture.size();
    let size = spec.size as usize;
    if [width, height] != [size, size] && !shared.quiet {
        let cut = if width == height { "" } else { "cut to its middle square and " };
        eprintln!("{}: {width} × {height} pixels, {cut}resized to {size} × {size}", path.display());
    }
    let config = loaded.recipe.data.clone().unwrap_or_default();
    let bytes = picture
        .squared(None, size, spec.channels as usize, config.resize)
        .map_err(|what| anyhow::anyhow!("{}: {what}", path.display()))?;
    let image = Tensor::from_slice(&bytes).view([1, spec.size, spec.size, spec.channels]);
    Ok((image.to_kind(Kind::Float) * (1.0 / 127.5) - 1.0).permute([0, 3, 1, 2]).contiguous())
}
