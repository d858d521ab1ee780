//! What images show: a classifier of labelled images, the words by which its attributes are called, and concepts, which
//! are several of them at once.

use super::data::ImageSet;
use super::network::Mode;
use super::reader::{Reader, Schedule, train};
use crate::random::Stream;
use crate::{Error, Result};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// The attribute that mirroring makes.
pub const TURN: &str = "turn";
/// Its values: images as they are, and mirrored.
const SIDES: [&str; 2] = ["right", "left"];
/// The value that means that there is no such thing.
const NONE: &str = "none";
/// More different values than this are names, not an attribute.
const MOST_VALUES: usize = 32;
/// Filters in the classifier's first layer.
const WIDTH: i64 = 16;
/// Images that are looked at together.
const TOGETHER: i64 = 64;

/// One thing that an image is exactly one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The key of `captions.jsonl`.
    pub name: String,
    /// Its values, sorted.
    pub values: Vec<String>,
}

/// The attributes of a set of images.
#[derive(Debug)]
pub struct Labels {
    /// Those with two to 32 values, in order of name; then "turn" if images are shown mirrored.
    pub attributes: Vec<Attribute>,
    /// `[image][attribute]`, the value's place; of "turn" there is none here.
    rows: Vec<Vec<i64>>,
}

impl Labels {
    /// Those that the set's items have.
    ///
    /// # Errors
    /// No labels; an image that lacks one of them.
    pub fn of(data: &ImageSet) -> Result<Self> {
        let items: Vec<_> = data.kept.iter().map(|&i| &data.found.items[i as usize]).collect();
        let keys: Vec<&String> = items.first().map(|item| item.labels.keys().collect()).unwrap_or_default();
        let mut attributes = Vec::new();
        let mut rows = vec![Vec::new(); items.len()];
        for key in keys {
            let mut values = BTreeSet::new();
            for item in &items {
                let Some(value) = item.labels.get(key) else {
                    let what = format!("{} has no label \"{key}\", others have", item.name.display());
                    return Err(Error::bad_file(&data.found.path, what));
                };
                values.insert(value);
            }
            if !(2..=MOST_VALUES).contains(&values.len()) {
                continue;
            }
            let values: Vec<String> = values.into_iter().cloned().collect();
            for (row, item) in rows.iter_mut().zip(&items) {
                row.push(values.binary_search(&item.labels[key]).unwrap_or_default() as i64);
            }
            attributes.push(Attribute { name: key.clone(), values });
        }
        if attributes.is_empty() {
            return Err(Error::bad_file(
                &data.found.path,
                "its images have no labels by which attributes could be learnt: expected a captions.jsonl with lines such \
                 as {\"file\": \"1.png\", \"caption\": \"…\", \"glasses\": \"none\"}, or a folder for each of several \
                 classes",
            ));
        }
        if data.flip {
            attributes.push(Attribute { name: TURN.into(), values: SIDES.map(String::from).to_vec() });
        }
        Ok(Self { attributes, rows })
    }

    /// The values of images `indices`, an attribute after the other, each `[B]` int64.
    fn targets(&self, indices: &[i64], mirrored: &[bool]) -> Vec<Tensor> {
        let column = |attribute: usize| -> Vec<i64> {
            let of = |(i, &index): (usize, &i64)| {
                let own = self.rows[index as usize].get(attribute).copied();
                own.unwrap_or_else(|| i64::from(mirrored.get(i) == Some(&true)))
            };
            indices.iter().enumerate().map(of).collect()
        };
        (0..self.attributes.len()).map(|attribute| Tensor::from_slice(&column(attribute))).collect()
    }
}

/// Which half of the images a classifier learns from: one chooses exemplars, the other one judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// For choosing.
    First,
    /// For judging.
    Second,
}

impl Half {
    /// Its part of the images that may be learnt from.
    pub fn of(self, data: &ImageSet) -> Vec<i64> {
        let order = Stream::new(0, "halves", 0, 0).permutation(data.training.len());
        let middle = order.len().div_ceil(2);
        let part = if self == Half::First { &order[..middle] } else { &order[middle..] };
        part.iter().map(|&i| data.training[i as usize]).collect()
    }
}

/// Images → how probable each value of each attribute is.
#[derive(Debug)]
pub struct Classifier {
    /// What it tells apart.
    pub attributes: Vec<Attribute>,
    /// Its network.
    pub reader: Reader,
}

impl Classifier {
    /// One that knows nothing.
    pub fn new(attributes: &[Attribute], [channels, size]: [i64; 2], seed: u64) -> Self {
        let outputs = attributes.iter().map(|attribute| attribute.values.len() as i64).sum();
        let mut rng = Stream::new(seed, "classifier weights", 0, 0);
        let reader = Reader::new(channels, size, WIDTH, outputs, &mut rng);
        Self { attributes: attributes.to_vec(), reader }
    }

    /// Learns from images `from`: the sum over attributes of cross-entropies, with half of the images mirrored if the set
    /// is.
    ///
    /// # Errors
    /// No images; a training that diverges.
    pub fn train(
        &mut self,
        data: &ImageSet,
        labels: &Labels,
        from: &[i64],
        seed: u64,
        schedule: &mut Schedule,
    ) -> Result<()> {
        if from.is_empty() {
            return Err(Error::bad_file(&data.found.path, "too few images to learn attributes from"));
        }
        let Self { attributes, reader } = self;
        let batch = schedule.batch as usize;
        train(reader, schedule, |reader, step| {
            let mut rng = Stream::new(seed, "images of a classifier", 0, step);
            let indices: Vec<i64> = (0..batch).map(|_| from[rng.below(from.len())]).collect();
            let mirrored: Vec<bool> =
                if data.flip { indices.iter().map(|_| rng.below(2) == 1).collect() } else { Vec::new() };
            let logits = split(attributes, &reader.forward(&data.gather(&indices, &mirrored), Mode::Train));
            let targets = labels.targets(&indices, &mirrored);
            Ok(logits.iter().zip(&targets).map(|(x, target)| x.cross_entropy_for_logits(target)).sum())
        })
    }

    /// Probabilities of images `[N, C, H, W]`: for each attribute `[N, values]`.
    pub fn probabilities(&self, images: &Tensor) -> Vec<Tensor> {
        let count = images.size()[0];
        let part = |first: i64| {
            let images = images.narrow(0, first, TOGETHER.min(count - first));
            self.reader.forward(&images, Mode::Running)
        };
        tch::no_grad(|| {
            let parts: Vec<Tensor> = (0..count).step_by(TOGETHER as usize).map(part).collect();
            let logits = Tensor::cat(&parts, 0);
            split(&self.attributes, &logits).iter().map(|x| x.softmax(-1, Kind::Float)).collect()
        })
    }

    /// Share of images `indices` for which the most probable value is the label, for each attribute; every other image is
    /// mirrored if the set is.
    pub fn accuracy(&self, data: &ImageSet, labels: &Labels, indices: &[i64]) -> Vec<f64> {
        let mirrored: Vec<bool> =
            if data.flip { (0..indices.len()).map(|i| i % 2 == 1).collect() } else { Vec::new() };
        let seen = self.probabilities(&data.gather(indices, &mirrored));
        let right = |(p, target): (&Tensor, &Tensor)| {
            p.argmax(1, false).eq_tensor(target).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
        };
        seen.iter().zip(&labels.targets(indices, &mirrored)).map(right).collect()
    }
}

/// One tensor for each attribute.
fn split(attributes: &[Attribute], logits: &Tensor) -> Vec<Tensor> {
    let sizes: Vec<i64> = attributes.iter().map(|attribute| attribute.values.len() as i64).collect();
    logits.split_with_sizes(&sizes, 1)
}

/// Several attributes at once: which values each of them may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concept(pub Vec<(usize, Vec<bool>)>);

impl Concept {
    /// What `words` mean together:
    ///
    /// - `VALUE` of an attribute, such as `smile`, if it is the value of one attribute only, and `ATTRIBUTE=VALUE`;
    /// - `ATTRIBUTE`, such as `glasses`, if one of its values is "none": any other;
    /// - `no-WORD`: everything but that;
    /// - `smiling` is `smile`; `neutral` is `no-smile`, and `no-glasses` unless another word is about glasses.
    ///
    /// # Errors
    /// An unknown word, with the known ones; words that exclude each other.
    pub fn of(attributes: &[Attribute], words: &[String]) -> Result<Self> {
        let mut allowed: Vec<Option<Vec<bool>>> = vec![None; attributes.len()];
        let mut narrow = |(place, values): (usize, Vec<bool>)| {
            let before = allowed[place].get_or_insert_with(|| vec![true; values.len()]);
            before.iter_mut().zip(values).for_each(|(before, value)| *before &= value);
        };
        for word in words.iter().filter(|word| *word != "neutral") {
            narrow(meaning(attributes, word)?);
        }
        if words.iter().any(|word| word == "neutral") {
            narrow(meaning(attributes, "no-smile")?);
            if let Ok((place, values)) = meaning(attributes, "no-glasses")
                && allowed[place].is_none()
            {
                allowed[place] = Some(values);
            }
        }
        let concept: Vec<(usize, Vec<bool>)> =
            allowed.into_iter().enumerate().filter_map(|(place, values)| Some((place, values?))).collect();
        match concept.iter().any(|(_, values)| values.iter().all(|value| !value)) {
            true => Err(Error::Invalid(format!(
                "nothing is `{}`: these words exclude each other",
                words.join(" ")
            ))),
            false => Ok(Self(concept)),
        }
    }

    /// What it is not, if it is about one attribute.
    pub fn opposite(&self) -> Option<Self> {
        match &self.0[..] {
            [(place, values)] => Some(Self(vec![(*place, values.iter().map(|value| !value).collect())])),
            _ => None,
        }
    }

    /// Whether it says something about attribute `place`.
    pub fn is_about(&self, place: usize) -> bool {
        self.allowed(place).is_some()
    }

    /// The values of attribute `place` that it allows, if it says something about it.
    fn allowed(&self, place: usize) -> Option<&[bool]> {
        self.0.iter().find(|(own, _)| *own == place).map(|(_, values)| values.as_slice())
    }

    /// Whether it says something else about attribute `place` than `other` does.
    pub fn differs(&self, other: &Self, place: usize) -> bool {
        self.allowed(place) != other.allowed(place)
    }

    /// How probable it is, `[N]`, if attributes are independent: the product over attributes of the sum over allowed
    /// values.
    pub fn probability(&self, seen: &[Tensor]) -> Tensor {
        let one = |(place, values): &(usize, Vec<bool>)| {
            let mask: Vec<f32> = values.iter().map(|&value| f32::from(u8::from(value))).collect();
            seen[*place].matmul(&Tensor::from_slice(&mask))
        };
        let mut factors = self.0.iter().map(one);
        let first =
            factors.next().unwrap_or_else(|| seen[0].sum_dim_intlist([1i64].as_slice(), false, Kind::Float));
        factors.fold(first, |product, factor| product * factor)
    }
}

/// Every word, for messages.
pub fn words(attributes: &[Attribute]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for attribute in attributes {
        if attribute.values.iter().any(|value| value == NONE) {
            words.push(attribute.name.clone());
        }
        for value in attribute.values.iter().filter(|value| *value != NONE) {
            match owners(attributes, value).len() {
                1 if !value.contains(' ') => words.push(value.clone()),
                _ => words.push(format!("{}={}", attribute.name, value.replace(' ', "_"))),
            }
        }
    }
    if meaning(attributes, "smile").is_ok() {
        words.extend(["smiling", "neutral"].map(String::from));
    }
    words
}

fn owners(attributes: &[Attribute], value: &str) -> Vec<usize> {
    let has = |&place: &usize| attributes[place].values.iter().any(|own| own == value);
    (0..attributes.len()).filter(has).collect()
}

/// The attribute that `word` is about, and the values that it allows.
fn meaning(attributes: &[Attribute], word: &str) -> Result<(usize, Vec<bool>)> {
    if let Some(word) = word.strip_prefix("no-") {
        let (place, values) = meaning(attributes, word)?;
        return Ok((place, values.iter().map(|value| !value).collect()));
    }
    let which = |place: usize, allows: &dyn Fn(&str) -> bool| {
        (place, attributes[place].values.iter().map(|value| allows(value)).collect())
    };
    let named = |name: &str| attributes.iter().position(|attribute| attribute.name == name);
    if let Some((name, value)) = word.split_once('=') {
        let is = |own: &str| own.replace(' ', "_") == value.replace(' ', "_");
        if let Some(place) = named(name).filter(|&place| attributes[place].values.iter().any(|own| is(own))) {
            return Ok(which(place, &is));
        }
    }
    let value = if word == "smiling" { "smile" } else { word };
    if let [place] = owners(attributes, value)[..]
        && value != NONE
    {
        return Ok(which(place, &|own| own == value));
    }
    if let Some(place) = named(word).filter(|&place| attributes[place].values.iter().any(|own| own == NONE)) {
        return Ok(which(place, &|own| own != NONE));
    }
    let known = words(attributes).join(", ");
    Err(Error::Invalid(format!("no attribute is called `{word}` (there are: {known}; and no-WORD for each)")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::generative::data::DataConfig;

    fn attributes() -> Vec<Attribute> {
        let attribute = |name: &str, values: &[&str]| Attribute {
            name: name.into(),
            values: values.iter().map(ToString::to_string).collect(),
        };
        vec![
            attribute("beard", &["full", "none"]),
            attribute("glasses", &["none", "round", "square"]),
            attribute("hair", &["full", "pale blue"]),
            attribute("mouth", &["frown", "smile"]),
        ]
    }

    fn concept(text: &str) -> Result<Concept> {
        Concept::of(&attributes(), &text.split(' ').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn words_mean_what_they_say() {
        let is = |text: &str, wanted: &[(usize, &[bool])]| {
            let wanted = wanted.iter().map(|(place, values)| (*place, values.to_vec())).collect();
            assert_eq!(concept(text).unwrap(), Concept(wanted), "{text}");
        };
        is("glasses", &[(1, &[false, true, true])]);
        is("no-glasses", &[(1, &[true, false, false])]);
        is("round smiling", &[(1, &[false, true, false]), (3, &[false, true])]);
        is("hair=pale_blue", &[(2, &[false, true])]);
        is("hair=full", &[(2, &[true, false])]);
        is("neutral", &[(1, &[true, false, false]), (3, &[true, false])]);
        is("neutral glasses", &[(1, &[false, true, true]), (3, &[true, false])]);
        let unknown = concept("hat").unwrap_err().to_string();
        assert!(unknown.contains("`hat`") && unknown.contains("glasses, round, square"), "{unknown}");
        assert!(unknown.contains("hair=full") && unknown.contains("neutral"), "{unknown}");
        // Two attributes have this value.
        assert!(concept("full").is_err());
        assert!(concept("smile neutral").unwrap_err().to_string().contains("exclude each other"));
    }

    #[test]
    fn a_concept_is_as_probable_as_its_parts_together() {
        let row = |p: &[f32]| Tensor::from_slice(p).view([1, -1]);
        let seen = [row(&[0.5, 0.5]), row(&[0.25, 0.5, 0.25]), row(&[0.1, 0.9]), row(&[0.2, 0.8])];
        let p = |text: &str| concept(text).unwrap().probability(&seen).double_value(&[0]);
        assert!((p("glasses") - 0.75).abs() < 1e-6);
        assert!((p("glasses smile") - 0.75 * 0.8).abs() < 1e-6);
        let opposite = concept("glasses").unwrap().opposite().unwrap();
        assert_eq!(opposite, concept("no-glasses").unwrap());
        assert!(concept("glasses smile").unwrap().opposite().is_none());
        let both =
            |place| concept("smile glasses").unwrap().differs(&concept("neutral glasses").unwrap(), place);
        assert_eq!((0..attributes().len()).filter(|&place| both(place)).collect::<Vec<_>>(), [3]);
    }

    /// 40 images of 32 × 32 of two colours with and without a bar, by folder.
    fn bars(flip: bool) -> (tempfile::TempDir, ImageSet) {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..40u32 {
            let bar = i % 2 == 1;
            let image = image::RgbImage::from_fn(32, 32, |x, y| {
                let on = bar && (12..20).contains(&y) || x < 4;
                image::Rgb(if on { [250, 250, 250] } else { [20, 30, 5 * i as u8] })
            });
            let class = folder.path().join(if bar { "bar" } else { "none" });
            std::fs::create_dir_all(&class).unwrap();
            image.save(class.join(format!("{i:02}.png"))).unwrap();
        }
        let path = folder.path().to_string_lossy().into_owned();
        let set =
            ImageSet::open(&DataConfig { path, size: 32, flip, held_out: 10, ..Default::default() }, None);
        (folder, set.unwrap())
    }

    #[test]
    fn a_classifier_learns_labels_and_which_way_images_turn() {
        let (_folder, data) = bars(true);
        let labels = Labels::of(&data).unwrap();
        assert_eq!(labels.attributes[0].values, ["bar", "none"]);
        assert_eq!(labels.attributes[1].name, TURN);
        let (first, second) = (Half::First.of(&data), Half::Second.of(&data));
        assert_eq!((first.len(), second.len()), (15, 15));
        assert!(first.iter().all(|i| !second.contains(i) && !data.held_out.contains(i)));
        let trained = || {
            let mut classifier = Classifier::new(&labels.attributes, [3, 32], 1);
            let mut told = 0;
            let mut schedule = Schedule { steps: 40, batch: 16, tell: &mut |step| told = step };
            classifier.train(&data, &labels, &first, 1, &mut schedule).unwrap();
            assert_eq!(told, 40);
            classifier
        };
        let classifier = trained();
        let accuracy = classifier.accuracy(&data, &labels, &data.held_out);
        assert!(accuracy.iter().all(|&share| share > 0.95), "{accuracy:?}");
        let weights = |classifier: &Classifier| classifier.reader.network.parameters.weights.copy();
        assert_eq!(weights(&classifier), weights(&trained()), "deterministic");
        // What an image is taken for does not depend on the others of its batch.
        let images = data.gather(&data.held_out, &[]);
        let (all, one) =
            (classifier.probabilities(&images), classifier.probabilities(&images.narrow(0, 3, 1)));
        assert!((all[0].narrow(0, 3, 1) - &one[0]).abs().max().double_value(&[]) < 1e-5);
    }
}
