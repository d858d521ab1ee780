//! φ(s): what a curiosity module sees of an observation.

use imago::memory::{leaf_of, slice, slice_mut};
use imago::nn::{
    Activation, Convolutions, Flat, ImageTrace, Init, Layout, Precision, RunningNorm, Torso, TorsoKind,
    TorsoSpec, downsampled, downsampled_space, features_of, standardised_features,
};
use imago::rollout::leaf_tensor;
use imago::run::State;
use imago::{Error, Result};
use imago_envs::{Dtype, LeafBuf, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Where the standardised numbers of vectors end.
const CLIP: f64 = 5.0;

/// Whether observations of `space` are pictures.
pub(crate) fn is_image(space: &Space) -> bool {
    match space {
        Space::Box { shape, dtype, .. } => *dtype == Dtype::U8 && matches!(shape.len(), 2 | 3),
        Space::Fields(fields) => fields.iter().any(|field| is_image(&field.space)),
        _ => false,
    }
}

/// What reads observations of `space`: the torso that was asked for, or the four convolutions of Pathak et al. 2017
/// for images and a perceptron for everything else. ELU throughout.
pub(crate) fn torso_for(space: &Space, torso: Option<TorsoKind>, hidden: Option<&[i64]>) -> TorsoSpec {
    let kind = torso.unwrap_or(if is_image(space) { TorsoKind::Icm } else { TorsoKind::Mlp });
    let hidden = match (hidden, kind) {
        (Some(hidden), _) => hidden.to_vec(),
        (None, TorsoKind::Icm) => Vec::new(),
        (None, TorsoKind::Nature) => vec![512],
        (None, TorsoKind::Mlp) => vec![64, 64],
    };
    TorsoSpec { kind, hidden, activation: Activation::Elu, precision: Precision::F32 }
}

/// How sharply observations are seen: images can be averaged over squares of pixels.
pub(crate) struct Sight {
    whole: Space,
    /// Of a square, in pixels.
    side: i64,
    /// What is left to see: floats `[C, H, W]` of downsampled images, everything else as it is.
    pub space: Space,
}

impl Sight {
    /// # Errors
    /// `downsample` above 1 over something that is no image, or too small a one.
    pub fn new(whole: &Space, downsample: usize) -> Result<Self> {
        let side = downsample as i64;
        let space = match downsample {
            1 => whole.clone(),
            _ => downsampled_space(whole, side).ok_or_else(|| {
                Error::Invalid(format!(
                    "downsample = {side} is for images of at least {side} × {side} pixels; observations here are {whole}: \
                     remove it, or make it smaller"
                ))
            })?,
        };
        Ok(Self { whole: whole.clone(), side, space })
    }

    /// Observations `[B, …]` as elements of [`Sight::space`].
    pub fn see(&self, observation: &Tensor) -> Tensor {
        match self.side {
            1 => observation.shallow_clone(),
            side => downsampled(&self.whole, observation, side),
        }
    }

    /// Whether it shows pictures.
    pub fn is_image(&self) -> bool {
        is_image(&self.whole)
    }
}

/// Which observations are standardised before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standardise {
    /// None; images as `[0, 1]`.
    Nothing,
    /// Those that are no images: by running mean and deviation of each number, clipped to ±5.
    Vectors,
    /// Images, too: by the running mean of each pixel and one deviation for all of them (Burda et al. 2018).
    Everything,
}

/// Running statistics of what an encoder reads. They begin with the first rollout, before its first bonus, and grow
/// after each one's bonuses.
struct Statistics {
    norm: RunningNorm,
    /// One deviation for all numbers.
    picture: bool,
    /// The latest rollout is in them already.
    begun: bool,
}

impl Statistics {
    /// `standardised` as in [`RunningNorm::only`].
    fn new(sight: &Sight, wanted: Standardise, standardised: Vec<bool>) -> Option<Self> {
        let space = &sight.space;
        let picture = matches!(space, Space::Box { .. }) && sight.is_image();
        let norm = || RunningNorm::new(space.features(), 1e-8, Some(CLIP)).only(standardised);
        match wanted {
            Standardise::Nothing => None,
            Standardise::Vectors if picture => None,
            Standardise::Vectors | Standardise::Everything => {
                Some(Self { norm: norm(), picture, begun: false })
            }
        }
    }

    /// Of `[B, …]`.
    fn normalise(&self, x: &Tensor) -> Tensor {
        if !self.picture {
            return self.norm.normalise(x);
        }
        let mean: Vec<f32> = self.norm.mean.iter().map(|&m| m as f32).collect();
        let variance = self.norm.variance.iter().sum::<f64>() / self.norm.variance.len() as f64;
        let flat = (x.flatten(1, -1) - Tensor::from_slice(&mean)) / (variance + self.norm.epsilon).sqrt();
        flat.view_as(x)
    }
}

/// An encoder whose parameters lie in a [`Flat`] with those of whatever stands on it.
pub(crate) struct Encoder {
    sight: Sight,
    /// `None` passes the observation itself on.
    torso: Option<Torso>,
    /// Numbers in φ.
    pub features: i64,
    statistics: Option<Statistics>,
    /// The same convolutions in plain memory, if they are all there is.
    plain: Option<(Convolutions, ImageTrace)>,
}

impl Encoder {
    /// Reserves the parameters.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        spec: &TorsoSpec,
        sight: Sight,
        standardise: Standardise,
        init: Init,
    ) -> Result<Self> {
        let torso = Torso::with_init(layout, name, spec, &sight.space, init)?;
        let standardised = torso.standardised(&sight.space);
        let statistics = Statistics::new(&sight, standardise, standardised);
        let features = torso.features;
        Ok(Self { sight, features, torso: Some(torso), statistics, plain: None })
    }

    /// φ(s) = s, without parameters.
    pub fn identity(sight: Sight, standardise: Standardise) -> Self {
        let statistics = Statistics::new(&sight, standardise, standardised_features(&sight.space));
        let features = sight.space.features() as i64;
        Self { sight, features, torso: None, statistics, plain: None }
    }

    /// Numbers that its first layer reads.
    pub fn inputs(&self) -> i64 {
        self.sight.space.features() as i64
    }

    /// Finds the fast path, once the parameters are there.
    pub fn settle(&mut self, flat: &Flat) {
        let torso = self.torso.as_ref().filter(|torso| torso.mlp().layers.is_empty());
        let convolutions = torso.and_then(|torso| match self.pixels() {
            Some(floats) => Convolutions::new(&flat.layout, torso, &floats),
            None => Convolutions::new(&flat.layout, torso, &self.sight.space),
        });
        self.plain = convolutions.map(|convolutions| (convolutions, ImageTrace::default()));
    }

    /// The space of standardised pictures, channels first.
    fn pixels(&self) -> Option<Space> {
        self.statistics.as_ref().filter(|statistics| statistics.picture)?;
        let blank = leaf_tensor(&LeafBuf::zeros(&self.sight.whole, 1), &self.sight.whole);
        let shape: Vec<usize> = self.read(&blank).size()[1..].iter().map(|&d| d as usize).collect();
        Some(Space::floats(&shape, f64::NEG_INFINITY, f64::INFINITY))
    }

    /// φ `[B, F]` of observations `[B, …]`, with a graph that leads to the parameters.
    fn forward(&self, flat: &Flat, observation: &Tensor) -> Tensor {
        let x = self.prepared(observation);
        match &self.torso {
            Some(torso) => torso.forward(flat, &x),
            None => x,
        }
    }

    /// What the first layer reads of observations `[B, …]`: bytes as `[0, 1]`, standardised if that is asked for.
    pub fn prepared(&self, observation: &Tensor) -> Tensor {
        let x = self.read(observation);
        match &self.statistics {
            Some(statistics) => statistics.normalise(&x),
            None => x,
        }
    }

    /// Observations as floats.
    fn read(&self, observation: &Tensor) -> Tensor {
        let (space, seen) = (&self.sight.space, self.sight.see(observation));
        match &self.torso {
            Some(torso) => torso.prepare(space, &seen),
            None => features_of(space, &seen),
        }
    }

    /// φ `[B, F]` of observations `[B, …]`, without gradients.
    pub fn encode(&mut self, flat: &Flat, observation: &Tensor) -> Tensor {
        let pixels = match &self.statistics {
            Some(_) if self.plain.is_some() => self.prepared(observation).contiguous(),
            _ => self.sight.see(observation).contiguous(),
        };
        let Some((convolutions, trace)) = &mut self.plain else {
            return tch::no_grad(|| self.forward(flat, observation));
        };
        let rows = observation.size()[0];
        convolutions.forward(slice(&flat.weights), leaf_of(&pixels), rows as usize, trace);
        Tensor::from_slice(trace.features()).view([rows, self.features])
    }

    /// Computes `loss` of φ of `observation` and writes its gradient by every parameter into `flat`. Returns the loss.
    ///
    /// # Errors
    /// libtorch's.
    pub fn descend(
        &mut self,
        flat: &mut Flat,
        observation: &Tensor,
        loss: impl FnOnce(&Flat, &Tensor) -> Tensor,
    ) -> Result<f64> {
        if self.plain.is_none() {
            let loss = loss(flat, &self.forward(flat, observation));
            flat.backward(&loss)?;
            return Ok(loss.double_value(&[]));
        }
        // The convolutions do without autograd: its graph begins with their features.
        let features = self.encode(flat, observation).set_requires_grad(true);
        let loss = loss(flat, &features);
        let by_features = flat.backward_to(&loss, &features)?;
        if let Some((convolutions, trace)) = self.plain.as_mut().filter(|_| by_features.defined()) {
            let by_features = by_features.contiguous();
            let Flat { weights, gradient, .. } = flat;
            convolutions.backward(slice(weights), slice_mut(gradient), slice(&by_features), trace);
        }
        Ok(loss.double_value(&[]))
    }

    /// Begins the statistics, if there are any and nothing is in them, with `observations()`, `[B, …]`.
    pub fn begin(&mut self, observations: impl FnOnce() -> Tensor) {
        if self.statistics.as_ref().is_some_and(|statistics| statistics.norm.count == 0.0) {
            self.take_in(&observations());
            self.statistics.iter_mut().for_each(|statistics| statistics.begun = true);
        }
    }

    /// Takes `observations()`, `[B, …]`, into the statistics, if there are any and they did not begin with these.
    pub fn observe(&mut self, observations: impl FnOnce() -> Tensor) {
        if self.statistics.as_mut().is_some_and(|statistics| !std::mem::take(&mut statistics.begun)) {
            self.take_in(&observations());
        }
    }

    fn take_in(&mut self, observations: &Tensor) {
        let rows = self.read(observations).flatten(1, -1);
        self.statistics.iter_mut().for_each(|statistics| statistics.norm.update(&rows));
    }

    /// Saves or restores the statistics; the parameters are the network's.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        match &mut self.statistics {
            Some(statistics) => state.scope("normaliser", |state| statistics.norm.state(state)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::Stream;
    use tch::Kind;

    fn pictures() -> Space {
        Space::bytes(&[2, 22, 22])
    }

    /// Squares of 2 × 2 pixels, the last row and column left over; channels that come last are the same.
    #[test]
    fn downsampled_images_are_means_of_squares() {
        let rows: [[u8; 5]; 3] = [[0, 255, 51, 51, 9], [255, 0, 51, 51, 9], [9; 5]];
        let image = Tensor::from_slice(&rows.concat()).view([1, 1, 3, 5]);
        let first = Sight::new(&Space::bytes(&[1, 3, 5]), 2).unwrap();
        assert_eq!(first.space.shape(), [1, 1, 2]);
        let seen = first.see(&image);
        assert_eq!(seen.size(), [1, 1, 1, 2]);
        assert_eq!(slice::<f32>(&seen.contiguous()), [0.5, 0.2]);
        let last = Sight::new(&Space::bytes(&[3, 5, 1]), 2).unwrap();
        assert_eq!(last.see(&image.permute([0, 2, 3, 1])), seen);
        // At full sharpness nothing is touched, and what cannot be averaged is refused.
        assert_eq!(Sight::new(&Space::bytes(&[1, 3, 5]), 1).unwrap().see(&image), image);
        for (space, side) in [(Space::bytes(&[1, 3, 5]), 4), (Space::floats(&[4], -1.0, 1.0), 2)] {
            assert!(Sight::new(&space, side).err().unwrap().to_string().contains("downsample"));
        }
    }

    /// An encoder of downsampled bytes is one of the smaller images, by either path.
    #[test]
    fn an_encoder_sees_no_more_than_its_sight() {
        let (space, mut rng) = (pictures(), Stream::new(3, "sight", 0, 0));
        let bytes = (rng.uniforms(&[5, 2, 22, 22]) * 255.0).to_kind(Kind::Uint8);
        for torso in [TorsoKind::Icm, TorsoKind::Mlp] {
            let spec = torso_for(&space, Some(torso), None);
            let sight = Sight::new(&space, 2).unwrap();
            let (smaller, space_of_smaller) = (sight.see(&bytes), sight.space.clone());
            let mut phi = Vec::new();
            for (sight, seen) in [(sight, &bytes), (Sight::new(&space_of_smaller, 1).unwrap(), &smaller)] {
                let mut layout = Layout::default();
                let nothing = Standardise::Nothing;
                let mut encoder =
                    Encoder::new(&mut layout, "encoder", &spec, sight, nothing, Init::GlorotUniform).unwrap();
                let flat = Flat::new(layout, &mut Stream::new(0, "weights", 0, 0));
                encoder.settle(&flat);
                phi.push(encoder.encode(&flat, seen));
            }
            assert!((&phi[0] - &phi[1]).abs().max().double_value(&[]) < 1e-5);
        }
    }

    /// The convolutions in plain memory and those of libtorch give one gradient.
    #[test]
    fn both_paths_agree() {
        let space = pictures();
        for standardise in [Standardise::Vectors, Standardise::Everything] {
            let mut rng = Stream::new(0, "encoder", 0, 0);
            let mut layout = Layout::default();
            let spec = torso_for(&space, None, None);
            let init = Init::GlorotUniform;
            let mut encoder = Encoder::new(
                &mut layout,
                "encoder",
                &spec,
                Sight::new(&space, 1).unwrap(),
                standardise,
                init,
            )
            .unwrap();
            let mut flat = Flat::new(layout, &mut rng);
            let images = (rng.uniforms(&[5, 2, 22, 22]) * 255.0).to_kind(Kind::Uint8);
            encoder.begin(|| images.shallow_clone());
            let target = rng.normals(&[5, encoder.features]);
            let loss = |_: &Flat, features: &Tensor| (features - &target).square().sum(Kind::Float);
            let slow = encoder.descend(&mut flat, &images, loss).unwrap();
            let wanted = slice::<f32>(&flat.gradient).to_vec();
            encoder.settle(&flat);
            assert!(encoder.plain.is_some());
            let fast = encoder.descend(&mut flat, &images, loss).unwrap();
            assert!((slow - fast).abs() < 1e-4 * slow, "{slow} {fast}");
            let scale = wanted.iter().fold(0f32, |scale, g| scale.max(g.abs()));
            for (a, b) in slice::<f32>(&flat.gradient).iter().zip(&wanted) {
                assert!((a - b).abs() < 1e-5 * scale, "{a} is not {b} of at most {scale}");
            }
        }
    }

    #[test]
    fn pictures_have_one_deviation_and_statistics_one_moment() {
        let space = pictures();
        let mut encoder = Encoder::identity(Sight::new(&space, 1).unwrap(), Standardise::Everything);
        let shown = Tensor::zeros([2, 2, 22, 22], (Kind::Uint8, tch::Device::Cpu));
        // One pixel of 968 is black, then white: mean ½, variance ¼, that of all of them ¼ / 968.
        let _ = shown.get(1).get(0).get(0).get(0).fill_(255);
        encoder.begin(|| shown.shallow_clone());
        let x = encoder.prepared(&shown).view([2, -1]);
        let wanted = 0.5 / (0.25f64 / 968.0 + 1e-8).sqrt();
        assert!((x.double_value(&[1, 0]) - wanted).abs() < 1e-3, "{}", x.double_value(&[1, 0]));
        assert!((x.double_value(&[0, 0]) + wanted).abs() < 1e-3);
        assert_eq!(x.double_value(&[1, 1]), 0.0);
        // What they began with is taken in once; nothing begins twice.
        let count = |encoder: &Encoder| encoder.statistics.as_ref().unwrap().norm.count;
        encoder.observe(|| shown.shallow_clone());
        assert_eq!(count(&encoder), 2.0);
        encoder.begin(|| shown.shallow_clone());
        encoder.observe(|| shown.shallow_clone());
        assert_eq!(count(&encoder), 4.0);
    }
}
