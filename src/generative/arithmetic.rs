//! Arithmetic on latent vectors (Radford et al. 2016, figure 7): a concept is the mean of the latent vectors of a few
//! images that show it, and y = mean(smiling glasses) − mean(neutral glasses) + mean(neutral) is the latent vector of a
//! smile. Means of three are stable where single vectors are not. What is added to faces is the difference of two such means
//! without its part along what tells other attributes apart.

use super::attributes::{Attribute, Classifier, Concept};
use super::gan::Maker;
use crate::random::Stream;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;
use tch::{Kind, Tensor};

/// How probable it must be that an exemplar shows what it stands for, and that a changed face does.
pub const CONFIDENT: f64 = 0.8;
/// How far the eight vectors around a result lie from it at most, in each number.
const AROUND: f64 = 0.25;
/// Share of the other attributes that must stay as they were for a change to be a success.
pub const UNCHANGED: f64 = 0.7;

/// Images that the sum is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Of those that show all of this at once.
    Words(Vec<String>),
    /// Of these seeds.
    Seeds(Vec<u64>),
}

/// What is added, or taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Taken away.
    pub minus: bool,
    /// What.
    pub operand: Operand,
}

/// A sum, as it is written: `smiling glasses - neutral glasses + #12,#40,#77`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(pub Vec<Term>);

impl FromStr for Expression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            let form =
                "write terms between + and -, each of words or of seeds, such as `smiling glasses - #12,#40`";
            Error::Invalid(format!("expression `{text}`: {what}; {form}"))
        };
        let (mut terms, mut minus, mut words) = (Vec::new(), false, Vec::new());
        let mut end = |words: &mut Vec<String>, minus: bool| -> Result<()> {
            let operand = match &words[..] {
                [] => return Err(wrong("a sign has nothing behind it, or there is nothing at all")),
                [seeds] if seeds.starts_with('#') => {
                    let seed = |seed: &str| seed.strip_prefix('#')?.parse().ok();
                    let read: Option<Vec<u64>> = seeds.split(',').map(seed).collect();
                    Operand::Seeds(read.ok_or_else(|| wrong(&format!("`{seeds}` are no seeds")))?)
                }
                several if several.iter().any(|word| word.contains('#')) => {
                    return Err(wrong("seeds and words are in one term, or there is a blank between seeds"));
                }
                _ => Operand::Words(std::mem::take(words)),
            };
            words.clear();
            terms.push(Term { minus, operand });
            Ok(())
        };
        for (i, part) in text.split_whitespace().enumerate() {
            match part {
                // A sign before the first term.
                "+" | "-" if i == 0 => minus = part == "-",
                "+" | "-" => {
                    end(&mut words, minus)?;
                    minus = part == "-";
                }
                word => words.push(word.into()),
            }
        }
        end(&mut words, minus)?;
        Ok(Self(terms))
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Operand::Words(words) => f.write_str(&words.join(" ")),
            Operand::Seeds(seeds) => {
                f.write_str(&seeds.iter().map(|seed| format!("#{seed}")).collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, Term { minus, operand }) in self.0.iter().enumerate() {
            let sign = match (i, minus) {
                (0, false) => "",
                (0, true) => "- ",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            write!(f, "{sign}{operand}")?;
        }
        Ok(())
    }
}

/// Mean of the rows of `[N, latent]`: `[latent]`.
pub fn mean(z: &Tensor) -> Tensor {
    z.mean_dim([0i64].as_slice(), false, Kind::Float)
}

/// Σ ± mean of the concepts' latent vectors, `[latent]`, from the sign and the exemplars `[N, latent]` of each.
pub fn sum<'a>(terms: impl Iterator<Item = (bool, &'a Tensor)>) -> Tensor {
    terms.map(|(minus, z)| if minus { -mean(z) } else { mean(z) }).sum()
}

/// y and eight others around it, y + U(−0.25, 0.25), `[9, latent]`: y is in the middle of 3 × 3.
pub fn around(y: &Tensor, rng: &mut Stream) -> Tensor {
    let width = y.size()[0];
    let noise = (rng.uniforms(&[9, width]) * 2.0 - 1.0) * AROUND;
    let _ = noise.get(4).zero_();
    noise + y
}

/// Whether a change is a success: the concept is more probable than not, and of the attributes that it is not about at
/// least 70 % have the same most probable value as before. `before` and `after` are probabilities `[N, values]` of each
/// attribute, as another classifier sees them than the one that chose exemplars; the answer is for each of N.
pub fn succeeded(concept: &Concept, before: &[Tensor], after: &[Tensor]) -> Vec<bool> {
    let there = concept.probability(after);
    let others: Vec<usize> = (0..before.len()).filter(|&place| !concept.is_about(place)).collect();
    let most = |seen: &Tensor, i: i64| seen.get(i).argmax(0, false).int64_value(&[]);
    let one = |i: i64| {
        let same = others.iter().filter(|&&place| most(&before[place], i) == most(&after[place], i)).count();
        // A whole number on both sides: 7 of 10 are 70 %.
        there.double_value(&[i]) > 0.5 && same as f64 >= UNCHANGED * others.len() as f64 - 1e-9
    };
    (0..there.size()[0]).map(one).collect()
}

/// Generated images of which exemplars are taken, with what a classifier sees in them.
#[derive(Debug)]
pub struct Pool {
    /// `[N, latent]`.
    pub z: Tensor,
    /// Probabilities `[N, values]` of each attribute.
    pub seen: Vec<Tensor>,
    attributes: Vec<Attribute>,
}

impl Pool {
    /// Of `count` images from seeds `seed` and following, nearer to the mean face by `truncation`. Those of a model with
    /// classes are of the first class.
    ///
    /// # Errors
    /// The generator's.
    pub fn new(
        maker: &Maker,
        classifier: &Classifier,
        seed: u64,
        count: usize,
        truncation: f64,
    ) -> Result<Self> {
        let z = maker.latents(seed, count, truncation);
        let seen = classifier.probabilities(&maker.images(&z, &vec![0; count])?);
        Ok(Self { z, seen, attributes: classifier.attributes.clone() })
    }

    /// The places of all images that surely show `concept`, `[N]`; fewer than `count` are refused.
    fn sure(&self, concept: &Concept, count: usize) -> Result<Tensor> {
        let places = concept.probability(&self.seen).ge(CONFIDENT).nonzero().squeeze_dim(1);
        let sure = places.size()[0] as usize;
        if sure < count {
            return Err(Error::Invalid(format!(
                "of {} generated images only {sure} surely show {}, {count} are needed: take a later checkpoint, fewer \
                 --exemplars, or a more common attribute",
                self.z.size()[0],
                self.name(concept),
            )));
        }
        Ok(places)
    }

    /// The places of `count` images that surely show `concept`, the most typical ones: nearest to the mean of all that do.
    /// Those that show it most clearly would lie at the edge, where what is added to them makes no difference.
    ///
    /// # Errors
    /// Fewer than that which show it with a probability of 0.8.
    pub fn exemplars(&self, concept: &Concept, count: usize) -> Result<Vec<i64>> {
        let places = self.sure(concept, count)?;
        let z = self.z.index_select(0, &places);
        let order = (&z - mean(&z)).square().sum_dim_intlist(1, false, Kind::Float).argsort(0, false);
        Ok((0..count as i64).map(|i| places.int64_value(&[order.int64_value(&[i])])).collect())
    }

    /// Pairs of an image that surely shows `concept` and one that surely shows `other`, the paper's smiling woman and neutral
    /// woman: one after the other those most alike in everything that both say the same of, with which the sum of all
    /// differences points most nearly the way from all that show `other` to all that show `concept`. What such pairs differ
    /// in is what the concepts differ in, and little else.
    ///
    /// # Errors
    /// Too few of either; concepts that say the same.
    pub fn pairs(&self, concept: &Concept, other: &Concept, count: usize) -> Result<Vec<[i64; 2]>> {
        let (mut with, mut without) = (self.sure(concept, count)?, self.sure(other, count)?);
        // Images that show both, as in smiling glasses less glasses, stay on the side of the narrower concept.
        let wider_first = with.size()[0] > without.size()[0];
        let (wider, narrower) = if wider_first { (&mut with, &without) } else { (&mut without, &with) };
        *wider = wider.masked_select(&Tensor::isin(wider, narrower, false, true));
        if with.size()[0].min(without.size()[0]) < count as i64 {
            return Err(Error::Invalid(format!(
                "among {} generated images there are no {count} pairs that differ in what {} and {} differ in",
                self.z.size()[0],
                self.name(concept),
                self.name(other),
            )));
        }
        // Each row one of those with, each column one of those without: how many of the other attributes are expected to
        // be the same.
        let same = self.same(concept, other);
        let expected =
            |seen: &&Tensor| seen.index_select(0, &with).matmul(&seen.index_select(0, &without).tr());
        let alike: Tensor = same.iter().map(expected).sum::<Tensor>() + 1.0;
        let z = self.apart_from(&same, &self.z);
        let [a, b] = [&with, &without].map(|places| z.index_select(0, places));
        let towards = mean(&a) - mean(&b);
        let distance = Tensor::cdist(&a, &b, 2.0, None::<i64>).square();
        // v · (a_i − b_j)
        let between = |v: &Tensor| a.matmul(v).unsqueeze(1) - b.matmul(v).unsqueeze(0);
        let mut total = towards.zeros_like();
        let taken = distance.zeros_like().to_kind(Kind::Bool);
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            // cos of the angle between towards and total + a_i − b_j
            let length =
                (total.square().sum(Kind::Float) + between(&total) * 2.0 + &distance).clamp_min(1e-9).sqrt();
            let direct = (between(&towards) + total.dot(&towards)) / length / towards.norm();
            let worth = (direct * &alike).masked_fill(&taken, f64::NEG_INFINITY);
            let place = worth.argmax(None::<i64>, false).int64_value(&[]);
            let [i, j] = [place / worth.size()[1], place % worth.size()[1]];
            total += a.get(i) - b.get(j);
            // Each image once.
            let _ = (taken.get(i).fill_(1), taken.select(1, j).fill_(1));
            pairs.push([with.int64_value(&[i]), without.int64_value(&[j])]);
        }
        Ok(pairs)
    }

    /// Mean of those that show `concept` minus mean of their counterparts, `[latent]`, without its part along what tells the
    /// other attributes apart.
    ///
    /// # Errors
    /// As [`Pool::pairs`].
    pub fn direction(&self, concept: &Concept, opposite: &Concept, count: usize) -> Result<Tensor> {
        let pairs = self.pairs(concept, opposite, count)?;
        let side = |i: usize| self.rows(&pairs.iter().map(|pair| pair[i]).collect::<Vec<_>>());
        let whole = sum([(false, &side(0)), (true, &side(1))].into_iter());
        Ok(self.apart_from(&self.same(concept, opposite), &whole.unsqueeze(0)).squeeze_dim(0))
    }

    /// Probabilities of the attributes that two concepts say the same of.
    fn same(&self, concept: &Concept, other: &Concept) -> Vec<&Tensor> {
        self.seen
            .iter()
            .enumerate()
            .filter(|(i, _)| !concept.differs(other, *i))
            .map(|(_, seen)| seen)
            .collect()
    }

    /// Rows `[N, latent]` without their part in the space along which attributes `seen` change, as far as that is linear
    /// (conditional manipulation, Shen et al. 2020): the columns of the covariance of latent vectors and probabilities.
    fn apart_from(&self, seen: &[&Tensor], rows: &Tensor) -> Tensor {
        if seen.is_empty() {
            return rows.copy();
        }
        let centred = |x: &Tensor| x - mean(x);
        let covariance = centred(&self.z).tr().matmul(&centred(&Tensor::cat(seen, 1)));
        let (axes, strengths, _) = covariance.svd(true, true);
        // Probabilities that add up to 1 have one direction less than there are of them. Half of the space stays in any case.
        let there = strengths.gt_tensor(&(strengths.max() * 1e-3)).sum(Kind::Int64).int64_value(&[]);
        let axes = axes.narrow(1, 0, there.min(rows.size()[1] / 2));
        rows - rows.matmul(&axes).matmul(&axes.tr())
    }

    /// Latent vectors of the images at `places`, `[N, latent]`.
    pub fn rows(&self, places: &[i64]) -> Tensor {
        self.z.index_select(0, &Tensor::from_slice(places))
    }

    fn name(&self, concept: &Concept) -> String {
        let one = |(place, values): &(usize, Vec<bool>)| {
            let attribute = &self.attributes[*place];
            let values = attribute.values.iter().zip(values).filter(|(_, allowed)| **allowed);
            let values: Vec<&str> = values.map(|(value, _)| value.as_str()).collect();
            format!("{} ({})", attribute.name, values.join(" or "))
        };
        concept.0.iter().map(one).collect::<Vec<_>>().join(" and ")
    }
}

/// How far faces go along a direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    /// This many times its length.
    Fixed(f64),
    /// Each as little as makes the concept sure, up to eight times; where nothing does, as far as makes it most probable.
    Least,
}

/// z + s · direction for each row of `z`, `[N, latent]`, and each s.
///
/// # Errors
/// The generator's.
pub fn moved(
    maker: &Maker,
    classifier: &Classifier,
    concept: &Concept,
    z: &Tensor,
    direction: &Tensor,
    strength: Strength,
) -> Result<(Tensor, Vec<f64>)> {
    const TRIED: usize = 64;
    const STEP: f64 = 0.125;
    let count = z.size()[0];
    if let Strength::Fixed(s) = strength {
        return Ok((z + direction * s, vec![s; count as usize]));
    }
    let tried: Vec<f64> = (1..=TRIED).map(|i| i as f64 * STEP).collect();
    let mut probabilities = Vec::new();
    let mut sure = Tensor::zeros([count], (Kind::Bool, tch::Device::Cpu));
    for s in &tried {
        let images = maker.images(&(z + direction * *s), &vec![0; count as usize])?;
        let p = concept.probability(&classifier.probabilities(&images));
        sure = sure.logical_or(&p.ge(CONFIDENT));
        probabilities.push(p);
        if bool::try_from(sure.all()).unwrap_or(false) {
            break;
        }
    }
    let chosen = |i: i64| {
        let p: Vec<f64> = probabilities.iter().map(|p| p.double_value(&[i])).collect();
        tried[least(&p)]
    };
    let strengths: Vec<f64> = (0..count).map(chosen).collect();
    let factors: Vec<f32> = strengths.iter().map(|&s| s as f32).collect();
    Ok((z + Tensor::from_slice(&factors).unsqueeze(1) * direction, strengths))
}

/// The first place where `p` is sure, else the place where it is largest.
fn least(p: &[f64]) -> usize {
    let largest = (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]).then(b.cmp(&a)));
    p.iter().position(|&p| p >= CONFIDENT).or(largest).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn rows(width: i64, values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, width])
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        Vec::try_from(x.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
    }

    #[test]
    fn means_are_added_and_taken_away() {
        let (a, b) = (rows(2, &[1.0, 2.0, 3.0, 6.0]), rows(2, &[0.5, 1.0]));
        assert_eq!(numbers(&mean(&a)), [2.0, 4.0]);
        assert_eq!(numbers(&sum([(false, &a), (true, &b), (false, &b), (true, &b)].into_iter())), [1.5, 3.0]);
        let y = Tensor::from_slice(&[5.0f32, -3.0]);
        let nine = around(&y, &mut Stream::new(0, "x", 0, 0));
        assert_eq!(numbers(&nine.get(4)), [5.0, -3.0]);
        let off = numbers(&(&nine - &y).abs().max_dim(1, false).0);
        assert!(off.iter().enumerate().all(|(i, &x)| x < 0.25 && (x > 0.0) == (i != 4)), "{off:?}");
    }

    #[test]
    fn a_change_succeeds_if_it_is_there_and_seven_of_ten_others_stay() {
        let concept = Concept(vec![(0, vec![false, true])]);
        let faces = |first: [f32; 2], changed: usize| -> Vec<Tensor> {
            let other = |i: usize| if i < changed { [0.4, 0.6] } else { [0.6, 0.4] };
            std::iter::once(first).chain((0..10).map(other)).map(|p| rows(2, &p)).collect()
        };
        let before = faces([0.9, 0.1], 0);
        let success =
            |first: [f32; 2], changed: usize| succeeded(&concept, &before, &faces(first, changed))[0];
        assert!(success([0.4, 0.6], 3));
        assert!(!success([0.4, 0.6], 4));
        assert!(!success([0.6, 0.4], 0));
        // A result of its own for each row.
        let two: Vec<Tensor> =
            faces([0.4, 0.6], 0).iter().zip(&before).map(|(a, b)| Tensor::cat(&[a, b], 0)).collect();
        let twice: Vec<Tensor> = before.iter().map(|x| x.repeat([2, 1])).collect();
        assert_eq!(succeeded(&concept, &twice, &two), [true, false]);
    }

    #[test]
    fn exemplars_are_nearest_to_the_mean_of_all() {
        let concept = Concept(vec![(0, vec![false, true])]);
        // The mean of those three is 3 and a third.
        let pool = Pool {
            z: rows(1, &[1.0, 2.0, 7.0]),
            seen: vec![rows(2, &[0.0, 1.0, 0.1, 0.9, 0.0, 1.0])],
            attributes: Vec::new(),
        };
        assert_eq!(pool.exemplars(&concept, 2).unwrap(), [1, 0]);
    }

    #[test]
    fn pairs_differ_along_what_all_differ_in() {
        let attributes = vec![Attribute { name: "a".into(), values: vec!["no".into(), "yes".into()] }];
        let z = rows(2, &[2.0, 0.0, 2.0, 3.0, -2.0, 0.0, -2.0, -3.0]);
        let seen = vec![rows(2, &[0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0])];
        let concept = Concept(vec![(0, vec![false, true])]);
        let pool = Pool { z, seen, attributes };
        let mut pairs = pool.pairs(&concept, &concept.opposite().unwrap(), 2).unwrap();
        pairs.sort();
        // All that do less all that do not is (4, 3), and so is each of these; 0 less 2 were (4, 0).
        assert_eq!(pairs, [[0, 3], [1, 2]]);
    }

    #[test]
    fn who_shows_both_is_of_the_narrower_concept_and_the_same_twice_is_refused() {
        let attribute = |name: &str| Attribute { name: name.into(), values: vec!["no".into(), "yes".into()] };
        let seen = vec![
            rows(2, &[0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]),
            rows(2, &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
        ];
        let z = rows(1, &[4.0, 3.0, 2.0, 1.0]);
        let pool = Pool { z, seen, attributes: vec![attribute("a"), attribute("b")] };
        let b = Concept(vec![(1, vec![false, true])]);
        let both = Concept(vec![(0, vec![false, true]), (1, vec![false, true])]);
        for (concept, other) in [(&both, &b), (&b, &both)] {
            let mut images = pool.pairs(concept, other, 2).unwrap().into_flattened();
            images.sort_unstable();
            assert_eq!(images, [0, 1, 2, 3]);
        }
        let message = pool.pairs(&b, &b, 1).unwrap_err().to_string();
        assert!(message.contains("no 1 pairs"), "{message}");
    }

    #[test]
    fn pairs_are_alike_in_everything_else() {
        // Attribute 0 is the concept; 1 is another one.
        let seen = vec![
            rows(2, &[0.1, 0.9, 0.95, 0.05, 0.9, 0.1, 0.5, 0.5, 0.15, 0.85]),
            rows(2, &[1.0, 0.0, 0.0, 1.0, 0.9, 0.1, 1.0, 0.0, 0.0, 1.0]),
        ];
        let attribute = |name: &str| Attribute { name: name.into(), values: vec!["no".into(), "yes".into()] };
        let pool = Pool {
            z: rows(1, &[1.0, 2.0, 4.0, 8.0, 16.0]),
            seen,
            attributes: vec![attribute("a"), attribute("b")],
        };
        let concept = Concept(vec![(0, vec![false, true])]);
        let opposite = concept.opposite().unwrap();
        assert_eq!(pool.exemplars(&opposite, 2).unwrap(), [1, 2]);
        assert_eq!(pool.pairs(&concept, &opposite, 2).unwrap(), [[4, 1], [0, 2]]);
        assert_eq!(
            numbers(&pool.direction(&concept, &opposite, 2).unwrap()),
            [(1.0 + 16.0 - 4.0 - 2.0) / 2.0]
        );
        let message = pool.exemplars(&concept, 3).unwrap_err().to_string();
        assert!(message.contains("only 2 surely show a (yes), 3 are needed"), "{message}");
    }

    #[test]
    fn the_least_strength_that_is_sure_or_the_best_one() {
        assert_eq!(least(&[0.1, 0.8, 0.9]), 1);
        assert_eq!(least(&[0.1, 0.7, 0.7, 0.2]), 1);
    }

    #[test]
    fn what_is_no_expression_is_answered_with_what_is() {
        for text in ["", " ", "a -", "a + - b", "#1, #2", "#x", "a #1", "#1 b", "#"] {
            let message = text.parse::<Expression>().unwrap_err().to_string();
            assert!(message.contains("write terms between"), "{text}: {message}");
        }
    }

    fn operand() -> impl Strategy<Value = Operand> {
        prop_oneof![
            prop::collection::vec("[a-z=_][a-z=_-]{0,8}", 1..4).prop_map(Operand::Words),
            prop::collection::vec(any::<u64>(), 1..4).prop_map(Operand::Seeds),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            terms in prop::collection::vec((any::<bool>(), operand()), 1..5),
        ) {
            let terms = terms.into_iter().map(|(minus, operand)| Term { minus, operand }).collect();
            let expression = Expression(terms);
            prop_assert_eq!(expression.to_string().parse::<Expression>().unwrap(), expression);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = text.parse::<Expression>();
        }
    }
}
