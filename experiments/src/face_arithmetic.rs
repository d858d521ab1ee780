//! What arithmetic on a model's faces is worth, judged by a classifier that had no part in it.

use crate::assemble;
use crate::commands::generate::{POOL, TRUNCATION, both, without};
use crate::program::Shared;
use crate::readers::Readers;
use crate::runs::LoadedMaker;
use anyhow::{Result, ensure};
use imago::generative::arithmetic::{Pool, Strength, moved, succeeded};
use imago::generative::attributes::{Classifier, Concept, Half};
use imago::generative::data::{DataConfig, ImageSet};
use imago::generative::gan::Maker;
use imago::generative::inversion::{Inverter, Method, pixel_errors};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// What is added to faces.
const WORDS: [&str; 2] = ["glasses", "smile"];
/// Exemplars of a concept: the paper's three beside single ones.
const EXEMPLARS: [usize; 2] = [3, 1];
/// Draws of exemplars, and faces that each is tried on.
const DRAWS: u64 = 4;
const FACES: usize = 48;
/// Held-out pictures that are inverted, and people of whom a counterfactual is made.
const PICTURES: usize = 32;
/// Where the counterfactuals lie in the data's folder.
const COUNTERFACTUALS: &str = "counterfactuals";

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    format: u32,
    run: PathBuf,
    checkpoint: u64,
    seed: u64,
    /// Accuracy of the judge on held-out pictures, for each attribute.
    judge_accuracy: BTreeMap<String, f64>,
    changes: Vec<Change>,
    counterfactuals: Vec<Counterfactual>,
    inversion: Option<Inversion>,
}

/// How often a change succeeds.
#[derive(Debug, Serialize)]
struct Change {
    word: &'static str,
    exemplars: usize,
    /// "least" strength, or the vector as it is ("once").
    strength: &'static str,
    /// Draws of exemplars times faces.
    tried: usize,
    /// Share in which the judge sees the attribute and at least 70 % of the others unchanged.
    success: f64,
    /// Share in which it sees the attribute.
    there: f64,
    /// Mean share of the other attributes that are unchanged.
    unchanged: f64,
    /// The share for each of them.
    unchanged_each: BTreeMap<String, f64>,
}

/// How near a changed picture is to the true one of the same person: mean squared errors of pixels in [−1, 1].
#[derive(Debug, Serialize)]
struct Counterfactual {
    word: &'static str,
    people: usize,
    /// The neutral picture inverted, changed and made again, beside the true one.
    changed: f64,
    /// The neutral picture inverted and made again: doing nothing, as well as the model can do it.
    inverted: f64,
    /// The neutral picture itself beside the true one.
    nothing: f64,
    /// Of the true one, inverted and made again: what cannot be surpassed.
    floor: f64,
}

/// Mean squared error of pixels in [−1, 1] of pictures that were not learnt from, by method.
#[derive(Debug, Serialize)]
struct Inversion {
    pictures: usize,
    optimisation: f64,
    encoder: f64,
    both: f64,
}

/// Measures it.
///
/// # Errors
/// The model's images are not where they were or have no labels of glasses and smiles.
pub fn measure(loaded: &LoadedMaker, seed: u64, shared: &Shared) -> Result<Report> {
    let readers = Readers::new(loaded, shared)?;
    let attributes = &readers.labels.attributes;
    let concepts: Vec<[Concept; 2]> =
        WORDS.iter().map(|word| both(attributes, word)).collect::<Result<_>>()?;
    let (chooser, judge) = (readers.classifier(Half::First)?, readers.classifier(Half::Second)?);
    let encoder = readers.encoder()?;
    let inverter = readers.inverter(&encoder, &chooser, seed);
    let data = &readers.data;
    let held_out = &data.held_out;
    let judge_accuracy = match held_out.is_empty() {
        true => BTreeMap::new(),
        false => {
            let shares = judge.accuracy(data, &readers.labels, held_out);
            attributes.iter().map(|attribute| attribute.name.clone()).zip(shares).collect()
        }
    };
    let first = |draw: u64| seed.wrapping_add(1_000_000 * (draw + 1));
    let pools: Vec<Pool> = (0..DRAWS)
        .map(|draw| Pool::new(&loaded.maker, &chooser, first(draw), POOL, TRUNCATION))
        .collect::<imago::Result<_>>()?;
    let mut changes = Vec::new();
    for (word, concept) in WORDS.into_iter().zip(&concepts) {
        // Faces are chosen by the chooser: the judge only judges.
        let faces = |draw: u64| {
            without(&loaded.maker, &chooser, std::slice::from_ref(concept), 1.0, first(draw) + 500_000, FACES)
        };
        let faces: Vec<Tensor> = (0..DRAWS).map(faces).collect::<Result<_>>()?;
        for exemplars in EXEMPLARS {
            let direction = |pool: &Pool| pool.direction(&concept[0], &concept[1], exemplars);
            let directions: Vec<Tensor> = pools.iter().map(direction).collect::<imago::Result<_>>()?;
            for (name, strength) in [("least", Strength::Least), ("once", Strength::Fixed(1.0))] {
                let how = (word, exemplars, name, strength);
                changes.push(change(
                    &loaded.maker,
                    [&chooser, &judge],
                    &concept[0],
                    how,
                    &directions,
                    &faces,
                )?);
            }
        }
    }
    let counterfactuals = match loaded.recipe.data.as_ref() {
        Some(config) if Path::new(&config.path).join(COUNTERFACTUALS).is_dir() => {
            counterfactuals(config, &inverter, &chooser, &concepts, seed)?
        }
        _ => Vec::new(),
    };
    let inversion = match &held_out[..held_out.len().min(PICTURES)] {
        [] => None,
        some => {
            let images = data.gather(some, &[]).contiguous();
            let error = |method: Method| -> Result<f64> {
                Ok(average(&inverter.error(&inverter.invert(&images, method)?, &images)?))
            };
            Some(Inversion {
                pictures: some.len(),
                optimisation: error(Method::Optimisation)?,
                encoder: error(Method::Encoder)?,
                both: error(Method::Both)?,
            })
        }
    };
    let (run, checkpoint) = (loaded.path.clone(), loaded.step);
    Ok(Report { format: 1, run, checkpoint, seed, judge_accuracy, changes, counterfactuals, inversion })
}

/// Several draws of exemplars, each tried on faces of its own.
fn change(
    maker: &Maker,
    [chooser, judge]: [&Classifier; 2],
    wanted: &Concept,
    (word, exemplars, name, strength): (&'static str, usize, &'static str, Strength),
    directions: &[Tensor],
    faces: &[Tensor],
) -> Result<Change> {
    let (mut successes, mut there) = (Vec::new(), Vec::new());
    let mut unchanged: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (direction, faces) in directions.iter().zip(faces) {
        let (after, _) = moved(maker, chooser, wanted, faces, direction, strength)?;
        let labels = vec![0; faces.size()[0] as usize];
        let [before, after] = [faces, &after].map(|z| maker.images(z, &labels));
        let (before, after) = (judge.probabilities(&before?), judge.probabilities(&after?));
        successes.extend(succeeded(wanted, &before, &after).into_iter().map(share));
        let p = wanted.probability(&after);
        there.extend((0..p.size()[0]).map(|i| share(p.double_value(&[i]) > 0.5)));
        for place in (0..before.len()).filter(|&place| !wanted.is_about(place)) {
            let same = before[place].argmax(1, false).eq_tensor(&after[place].argmax(1, false));
            let same = same.to_kind(tch::Kind::Double).mean(tch::Kind::Double).double_value(&[]);
            unchanged.entry(judge.attributes[place].name.clone()).or_default().push(same);
        }
    }
    let tried = successes.len();
    let [success, there] = [successes, there].map(|values| average(&values));
    let unchanged_each: BTreeMap<String, f64> =
        unchanged.into_iter().map(|(name, shares)| (name, average(&shares))).collect();
    let unchanged = average(&unchanged_each.values().copied().collect::<Vec<_>>());
    Ok(Change { word, exemplars, strength: name, tried, success, there, unchanged, unchanged_each })
}

fn share(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The same people with and without smile and glasses, drawn exactly: each word added to the plain picture.
fn counterfactuals(
    config: &DataConfig,
    inverter: &Inverter,
    chooser: &Classifier,
    concepts: &[[Concept; 2]],
    seed: u64,
) -> Result<Vec<Counterfactual>> {
    let path = Path::new(&config.path).join(COUNTERFACTUALS).to_string_lossy().into_owned();
    let config = DataConfig { path, flip: false, label: None, limit: None, held_out: 0, ..config.clone() };
    let set = assemble::images(&config)?;
    let plain = |word: &str| {
        if word == "glasses" {
            [["frown", "none"], ["frown", "some"]]
        } else {
            [["frown", "none"], ["smile", "none"]]
        }
    };
    let pool = Pool::new(inverter.maker, chooser, seed.wrapping_add(1_000_000), POOL, TRUNCATION)?;
    let mut reports = Vec::new();
    for (word, [wanted, now]) in WORDS.into_iter().zip(concepts) {
        let [from, to] = plain(word).map(|look| people(&set, look));
        let both: Vec<[i64; 2]> =
            from.iter().filter_map(|(person, &from)| Some([from, *to.get(person)?])).take(PICTURES).collect();
        ensure!(!both.is_empty(), "{}: nobody is there with and without {word}", set.found.path.display());
        let side =
            |i: usize| set.gather(&both.iter().map(|pair| pair[i]).collect::<Vec<_>>(), &[]).contiguous();
        let (before, truth) = (side(0), side(1));
        let z = inverter.invert(&before, Method::Both)?;
        let direction = pool.direction(wanted, now, EXEMPLARS[0])?;
        let (after, _) = moved(inverter.maker, chooser, wanted, &z, &direction, Strength::Least)?;
        reports.push(Counterfactual {
            word,
            people: both.len(),
            changed: average(&inverter.error(&after, &truth)?),
            inverted: average(&inverter.error(&z, &truth)?),
            nothing: average(&pixel_errors(&before, &truth)),
            floor: average(&inverter.error(&inverter.invert(&truth, Method::Both)?, &truth)?),
        });
    }
    Ok(reports)
}

/// Each person's image with this mouth, with or without glasses.
fn people(set: &ImageSet, [mouth, glasses]: [&str; 2]) -> BTreeMap<String, i64> {
    let label = |i: i64, key: &str| set.found.items[i as usize].labels.get(key).map(String::as_str);
    let fits = |i: i64| {
        label(i, "mouth") == Some(mouth) && (label(i, "glasses") == Some("none")) == (glasses == "none")
    };
    let images = set.kept.iter().enumerate().filter(|(_, item)| fits(**item));
    images.filter_map(|(image, &item)| Some((label(item, "person")?.to_string(), image as i64))).collect()
}

impl Report {
    /// Prints it.
    pub fn print(&self, shared: &Shared) -> Result<()> {
        if shared.json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!(
            "{} at step {}, judged by a classifier of the other half of the data",
            self.run.display(),
            self.checkpoint
        );
        let accuracy: Vec<String> = self
            .judge_accuracy
            .iter()
            .map(|(name, share)| format!("{name} {:.0} %", 100.0 * share))
            .collect();
        println!("judge, on held-out pictures: {}", accuracy.join(", "));
        println!("added     exemplars  strength  success  there  others unchanged  tried");
        for Change { word, exemplars, strength, tried, success, there, unchanged, .. } in &self.changes {
            let [success, there, unchanged] = [success, there, unchanged].map(|share| 100.0 * share);
            println!(
                "{word:<9} {exemplars:>9}  {strength:<8} {success:>6.1} % {there:>4.0} % {unchanged:>15.0} % {tried:>6}"
            );
        }
        for Counterfactual { word, people, changed, inverted, nothing, floor } in &self.counterfactuals {
            println!(
                "{word} on {people} people beside the true picture, squared error: changed {changed:.4}, only inverted \
                 {inverted:.4}, nothing done {nothing:.4}; the true picture inverted {floor:.4}"
            );
        }
        if let Some(Inversion { pictures, optimisation, encoder, both }) = &self.inversion {
            println!(
                "inversion of {pictures} held-out pictures, squared error: optimisation {optimisation:.4}, encoder \
                 {encoder:.4}, both {both:.4}"
            );
        }
        Ok(())
    }
}
