//! Deep convolutional GANs (Radford et al. 2016): a generator that doubles a small map of features until it is an image,
//! and a discriminator that halves images.
//!
//! Two presets have the sizes of two well-known programs. Where those differ from each other in ways that matter only to
//! imported weights (which side is padded, sigmoid or tanh at the end of digits), this one has one way: padding on both
//! sides, tanh, pixels in `[−1, 1]`.

use super::network::{
    BatchNorm, Connected, Convolution, Layouts, Mode, Network, Transposed, Weights, with_labels,
};
use crate::nn::{Init, Precision};
use crate::random::Stream;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Slope of the leaky rectifier below 0.
const SLOPE: f64 = 0.2;
/// Side of the filters, stride and padding: halves and doubles even sizes exactly.
const FILTER: [i64; 3] = [5, 2, 2];
/// Width of the fully connected layers for 28 pixels.
const HIDDEN: i64 = 1024;
/// Side of images that have two more fully connected layers and two convolutions fewer: digits.
const SMALL: i64 = 28;

/// Whose sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Those of carpedm20's program: 64 filters in the last layer before the image, biases.
    #[default]
    DcganTensorflow,
    /// Those of the paper's own program: 128 filters (64 for 28 pixels), no biases.
    DcganCode,
}

/// What keeps the discriminator's features, or its slope, in bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorNorm {
    /// Batch normalisation, as the paper has it. An image's logit then depends on the batch that it is in.
    #[default]
    Batch,
    /// Weights divided by their largest singular value (Miyato et al. 2018).
    Spectral,
    /// Nothing: for penalties.
    None,
}

/// How latent vectors are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LatentLaw {
    /// Uniform in `[−1, 1)`.
    #[default]
    Uniform,
    /// Standard normal.
    Normal,
}

impl LatentLaw {
    /// `[rows, width]` of them.
    pub fn draw(self, rows: i64, width: i64, rng: &mut Stream) -> Tensor {
        match self {
            LatentLaw::Uniform => rng.uniforms(&[rows, width]) * 2.0 - 1.0,
            LatentLaw::Normal => rng.normals(&[rows, width]),
        }
    }
}

/// A pair of networks as checkpoints and recipes describe it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DcganSpec {
    /// Biases, initial values, ε of batch normalisation.
    pub preset: Preset,
    /// Side of the images, in pixels: 28, or a multiple of 16.
    pub size: i64,
    /// 1 for grey, 3 for colour.
    pub channels: i64,
    /// Numbers in a latent vector.
    pub latent: i64,
    /// How they are drawn.
    pub law: LatentLaw,
    /// Classes that both networks see; 0 without.
    pub classes: i64,
    /// Filters in the generator's last layer before the image.
    pub generator_width: i64,
    /// Filters in the discriminator's first layer.
    pub discriminator_width: i64,
    /// What keeps the discriminator in bounds.
    pub norm: DiscriminatorNorm,
    /// Numbers that the discriminator gives for an image.
    pub outputs: i64,
    /// Arithmetic of convolutions and products.
    pub precision: Precision,
}

impl DcganSpec {
    /// The preset's networks for images of this kind.
    pub fn new(preset: Preset, size: i64, channels: i64) -> Self {
        let width = Self::width(preset, size);
        Self {
            preset,
            size,
            channels,
            latent: 100,
            law: LatentLaw::Uniform,
            classes: 0,
            generator_width: width,
            discriminator_width: width,
            norm: DiscriminatorNorm::Batch,
            outputs: 1,
            precision: Precision::F32,
        }
    }

    /// The preset's number of filters.
    pub fn width(preset: Preset, size: i64) -> i64 {
        if preset == Preset::DcganCode && size != SMALL { 128 } else { 64 }
    }

    /// # Errors
    /// A size that cannot be halved often enough, with the ones that can.
    pub fn check_size(size: i64) -> Result<()> {
        if size == SMALL || (size >= 16 && size % 16 == 0 && size <= 1024) {
            return Ok(());
        }
        let near = (size + 8).clamp(16, 1024) / 16 * 16;
        Err(Error::Invalid(format!(
            "a DCGAN makes images of 28 pixels or of a multiple of 16 up to 1024, not of {size}: take {near}"
        )))
    }

    fn weights(&self, init: Init, spectral: bool) -> Weights {
        Weights { init, bias: self.preset == Preset::DcganTensorflow, spectral }
    }

    fn normal() -> Init {
        Init::Normal { mean: 0.0, std: 0.02 }
    }

    fn batch_norm(&self, layouts: &mut Layouts, name: &str, channels: i64) -> BatchNorm {
        let (gain, epsilon) = match self.preset {
            Preset::DcganTensorflow => (Some(Init::Constant(1.0)), 1e-5),
            // Without gain and bias digits were better there.
            Preset::DcganCode if self.size == SMALL => (None, 1e-8),
            Preset::DcganCode => (Some(Init::Normal { mean: 1.0, std: 0.02 }), 1e-8),
        };
        BatchNorm::new(layouts, name, channels, gain, epsilon)
    }
}

/// x above 0 and 0.2 x below: x + 0.8 (max(0, x) − x). libtorch's own with any slope, prelu, has a backward pass that is
/// not vectorised: a tenth of a step in bf16.
fn leaky(x: &Tensor) -> Tensor {
    x.lerp(&x.relu(), 1.0 - SLOPE)
}

/// A fully connected layer of the generator and what follows it.
#[derive(Debug)]
struct Stem {
    layer: Connected,
    norm: BatchNorm,
    /// `[C, H, W]` that its output is from here on; already for the normalisation if `first`.
    map: Option<[i64; 3]>,
    first: bool,
}

/// Latent vectors → images.
#[derive(Debug)]
pub struct Generator {
    /// What it is.
    pub spec: DcganSpec,
    /// Parameters and running statistics.
    pub network: Network,
    stems: Vec<Stem>,
    ups: Vec<(Transposed, Option<BatchNorm>)>,
}

impl Generator {
    /// With initial values from `rng`.
    ///
    /// # Errors
    /// A size that does not work.
    pub fn new(spec: DcganSpec, rng: &mut Stream) -> Result<Self> {
        DcganSpec::check_size(spec.size)?;
        let (width, labels) = (spec.generator_width, spec.classes);
        let mut layouts = Layouts::default();
        let weights = spec.weights(DcganSpec::normal(), false);
        let mut stems = Vec::new();
        let mut stem =
            |layouts: &mut Layouts, input: i64, output: i64, map: Option<[i64; 3]>, first: bool| {
                let name = format!("generator/connected{}", stems.len());
                let layer = Connected::new(layouts, &name, [input + labels, output], weights);
                let channels = map.filter(|_| first).map_or(output, |[channels, ..]| channels);
                let norm = spec.batch_norm(layouts, &format!("{name}/norm"), channels);
                stems.push(Stem { layer, norm, map, first });
            };
        let filters = if spec.size == SMALL {
            let map = [2 * width, SMALL / 4, SMALL / 4];
            stem(&mut layouts, spec.latent, HIDDEN, None, false);
            stem(&mut layouts, HIDDEN, map.iter().product(), Some(map), false);
            // carpedm20's has as many filters here as before.
            let between = if spec.preset == Preset::DcganTensorflow { 2 * width } else { width };
            vec![2 * width, between, spec.channels]
        } else {
            let map = [8 * width, spec.size / 16, spec.size / 16];
            // The paper's program normalises every feature by itself, the other one every channel.
            let first = spec.preset == Preset::DcganTensorflow;
            stem(&mut layouts, spec.latent, map.iter().product(), Some(map), first);
            vec![8 * width, 4 * width, 2 * width, width, spec.channels]
        };
        let [kernel, stride, padding] = FILTER;
        let mut ups = Vec::new();
        for (i, pair) in filters.windows(2).enumerate() {
            let (name, last) = (format!("generator/up{i}"), i + 2 == filters.len());
            let shape = [pair[0] + labels, pair[1]];
            let up = Transposed::new(&mut layouts, &name, shape, [kernel, stride, padding, 1], weights);
            let norm = (!last).then(|| spec.batch_norm(&mut layouts, &format!("{name}/norm"), pair[1]));
            ups.push((up, norm));
        }
        let network = Network::new(layouts, rng);
        Ok(Self { spec, network, stems, ups })
    }

    /// `z` `[B, latent]`, `labels` one-hot `[B, classes]` if there are classes → images `[B, C, H, W]` in `[−1, 1]`.
    pub fn forward(&self, z: &Tensor, labels: Option<&Tensor>, mode: Mode) -> Tensor {
        let (network, precision) = (&self.network, self.spec.precision);
        let mut x = z.shallow_clone();
        for Stem { layer, norm, map, first } in &self.stems {
            x = layer.forward(network, &with_labels(&x, labels), mode, precision);
            let shape = map.map(|[channels, height, width]| [-1, channels, height, width]);
            if let Some(shape) = shape.filter(|_| *first) {
                x = x.view(shape);
            }
            x = norm.forward(network, &x, mode).relu();
            if let Some(shape) = shape.filter(|_| !*first) {
                x = x.view(shape);
            }
        }
        for (up, norm) in &self.ups {
            x = up.forward(network, &with_labels(&x, labels), mode, precision);
            if let Some(norm) = norm {
                x = norm.forward(network, &x, mode).relu();
            }
        }
        x.to_kind(Kind::Float).tanh()
    }

    /// Makes the running statistics those of `batches` batches of `rows` images each, drawn from `rng`: what they are
    /// after training follows the last batches only.
    ///
    /// `labels` gives the one-hot labels of a batch.
    pub fn recalibrate(
        &self,
        batches: u64,
        rows: i64,
        rng: &mut Stream,
        labels: impl Fn(&mut Stream) -> Option<Tensor>,
    ) {
        tch::no_grad(|| {
            for number in 0..batches {
                let z = self.spec.law.draw(rows, self.spec.latent, rng);
                let labels = labels(rng);
                let _ = self.forward(&z, labels.as_ref(), Mode::Recalibrate(number));
            }
        });
    }
}

/// Images → logits.
#[derive(Debug)]
pub struct Discriminator {
    /// What it is.
    pub spec: DcganSpec,
    /// Parameters, running statistics, singular vectors.
    pub network: Network,
    downs: Vec<(Convolution, Option<BatchNorm>)>,
    hidden: Option<(Connected, Option<BatchNorm>)>,
    out: Connected,
}

impl Discriminator {
    /// With initial values from `rng`.
    ///
    /// # Errors
    /// A size that does not work.
    pub fn new(spec: DcganSpec, rng: &mut Stream) -> Result<Self> {
        DcganSpec::check_size(spec.size)?;
        let (width, labels) = (spec.discriminator_width, spec.classes);
        let mut layouts = Layouts::default();
        let spectral = spec.norm == DiscriminatorNorm::Spectral;
        let filters = match (spec.preset, spec.size == SMALL) {
            (_, false) => vec![width, 2 * width, 4 * width, 8 * width],
            (Preset::DcganTensorflow, true) if labels > 0 => vec![spec.channels + labels, width + labels],
            (_, true) => vec![width, 2 * width],
        };
        let init = |inputs: i64| match (spec.norm, spec.preset) {
            // The presets' 0.02 counts on a normalisation behind every layer: without one, four narrow layers pass a
            // fiftieth on, and the discriminator hardly tells images apart. These keep variance (He et al. 2015).
            (DiscriminatorNorm::None, _) => {
                Init::Normal { mean: 0.0, std: (2.0 / ((1.0 + SLOPE * SLOPE) * inputs as f64)).sqrt() }
            }
            (_, Preset::DcganTensorflow) => Init::TruncatedNormal(0.02),
            (_, Preset::DcganCode) => DcganSpec::normal(),
        };
        let mut downs = Vec::new();
        let (mut input, mut side) = (spec.channels, spec.size);
        for (i, &output) in filters.iter().enumerate() {
            let name = format!("discriminator/down{i}");
            let shape = [input + labels, output];
            let weights = spec.weights(init(shape[0] * FILTER[0] * FILTER[0]), spectral);
            let down = Convolution::new(&mut layouts, &name, shape, FILTER, weights);
            let normed = i > 0 && spec.norm == DiscriminatorNorm::Batch;
            let norm = normed.then(|| spec.batch_norm(&mut layouts, &format!("{name}/norm"), output));
            downs.push((down, norm));
            (input, side) = (output, side / 2);
        }
        let weights = spec.weights(DcganSpec::normal(), spectral);
        let mut features = input * side * side;
        let hidden = (spec.size == SMALL).then(|| {
            let name = "discriminator/hidden";
            let layer = Connected::new(&mut layouts, name, [features + labels, HIDDEN], weights);
            features = HIDDEN;
            let normed = spec.norm == DiscriminatorNorm::Batch;
            (layer, normed.then(|| spec.batch_norm(&mut layouts, &format!("{name}/norm"), HIDDEN)))
        });
        let out =
            Connected::new(&mut layouts, "discriminator/out", [features + labels, spec.outputs], weights);
        let network = Network::new(layouts, rng);
        Ok(Self { spec, network, downs, hidden, out })
    }

    /// Images `[B, C, H, W]` in `[−1, 1]`, `labels` one-hot `[B, classes]` if there are classes → logits `[B]`, or
    /// `[B, outputs]` if there are several.
    pub fn forward(&self, images: &Tensor, labels: Option<&Tensor>, mode: Mode) -> Tensor {
        let (network, precision) = (&self.network, self.spec.precision);
        let normalised = |norm: &Option<BatchNorm>, x: Tensor| match norm {
            Some(norm) => norm.forward(network, &x, mode),
            None => x,
        };
        let mut x = images.shallow_clone();
        for (down, norm) in &self.downs {
            x = down.forward(network, &with_labels(&x, labels), mode, precision);
            x = leaky(&normalised(norm, x));
        }
        x = x.flatten(1, -1);
        if let Some((layer, norm)) = &self.hidden {
            x = layer.forward(network, &with_labels(&x, labels), mode, precision);
            x = leaky(&normalised(norm, x));
        }
        let logits =
            self.out.forward(network, &with_labels(&x, labels), mode, precision).to_kind(Kind::Float);
        if self.spec.outputs == 1 { logits.squeeze_dim(1) } else { logits }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::generative::network::one_hot;

    fn pair(spec: &DcganSpec) -> (Generator, Discriminator) {
        let mut rng = Stream::new(0, "init", 0, 0);
        (Generator::new(spec.clone(), &mut rng).unwrap(), Discriminator::new(spec.clone(), &mut rng).unwrap())
    }

    fn counts(spec: &DcganSpec) -> (usize, usize) {
        let (generator, discriminator) = pair(spec);
        (generator.network.parameters.count(), discriminator.network.parameters.count())
    }

    #[test]
    fn parameters_are_as_many_as_the_originals() {
        assert_eq!(counts(&DcganSpec::new(Preset::DcganTensorflow, 64, 3)), (5_135_363, 4_316_545));
        assert_eq!(counts(&DcganSpec::new(Preset::DcganCode, 64, 3)), (18_885_760, 17_232_768));
        let digits = DcganSpec { classes: 10, ..DcganSpec::new(Preset::DcganCode, 28, 1) };
        assert_eq!(counts(&digits), (6_820_538, 6_688_202));
    }

    #[test]
    fn every_preset_gives_images_and_logits_of_its_size() {
        for (preset, size, channels, classes, norm) in [
            (Preset::DcganTensorflow, 28, 1, 10, DiscriminatorNorm::Batch),
            (Preset::DcganTensorflow, 28, 3, 0, DiscriminatorNorm::None),
            (Preset::DcganCode, 28, 1, 10, DiscriminatorNorm::Spectral),
            (Preset::DcganTensorflow, 64, 3, 4, DiscriminatorNorm::Batch),
            (Preset::DcganTensorflow, 16, 3, 2, DiscriminatorNorm::Batch),
            (Preset::DcganCode, 32, 3, 0, DiscriminatorNorm::None),
            (Preset::DcganCode, 48, 3, 0, DiscriminatorNorm::Spectral),
            (Preset::DcganTensorflow, 128, 3, 0, DiscriminatorNorm::Batch),
        ] {
            let spec = DcganSpec {
                classes,
                norm,
                generator_width: 4,
                discriminator_width: 4,
                ..DcganSpec::new(preset, size, channels)
            };
            let (generator, discriminator) = pair(&spec);
            let labels = (classes > 0).then(|| one_hot(&[0, 1], classes).unwrap());
            let z = spec.law.draw(2, 100, &mut Stream::new(0, "z", 0, 0));
            assert!(z.min().double_value(&[]) >= -1.0 && z.max().double_value(&[]) < 1.0);
            let images = generator.forward(&z, labels.as_ref(), Mode::Train);
            assert_eq!(images.size(), [2, channels, size, size]);
            assert!(images.abs().max().double_value(&[]) <= 1.0);
            assert_eq!(discriminator.forward(&images, labels.as_ref(), Mode::Train).size(), [2]);
        }
        let spec =
            DcganSpec { outputs: 2, discriminator_width: 4, ..DcganSpec::new(Preset::DcganCode, 32, 3) };
        let images = Tensor::zeros([3, 3, 32, 32], (Kind::Float, tch::Device::Cpu));
        assert_eq!(pair(&spec).1.forward(&images, None, Mode::Batch).size(), [3, 2]);
    }

    #[test]
    fn the_leaky_rectifier_by_hand() {
        let x = Tensor::from_slice(&[-10.0f32, 0.0, 3.0]).set_requires_grad(true);
        let y = leaky(&x);
        let values = Vec::<f32>::try_from(y.detach()).unwrap();
        assert!((values[0] + 2.0).abs() < 1e-6 && values[1..] == [0.0, 3.0], "{values:?}");
        let slope = Tensor::run_backward(&[y.sum(Kind::Float)], &[&x], false, false).remove(0);
        let slope = Vec::<f32>::try_from(slope).unwrap();
        assert!((slope[0] - 0.2).abs() < 1e-6 && (slope[2] - 1.0).abs() < 1e-6, "{slope:?}");
    }

    #[test]
    fn running_statistics_make_an_image_its_own() {
        let spec = DcganSpec { generator_width: 4, ..DcganSpec::new(Preset::DcganTensorflow, 32, 3) };
        let (generator, _) = pair(&spec);
        generator.recalibrate(3, 16, &mut Stream::new(0, "recalibration", 0, 0), |_| None);
        let z = spec.law.draw(4, 100, &mut Stream::new(0, "z", 0, 0));
        let of = |z: &Tensor, mode| tch::no_grad(|| generator.forward(z, None, mode));
        let (all, one) = (of(&z, Mode::Running), of(&z.narrow(0, 1, 1), Mode::Running));
        assert!((all.narrow(0, 1, 1) - one).abs().max().double_value(&[]) < 1e-5);
        let half = of(&z.narrow(0, 0, 2), Mode::Batch);
        assert!((of(&z, Mode::Batch).narrow(0, 0, 2) - half).abs().max().double_value(&[]) > 1e-4);
    }

    #[test]
    fn without_a_norm_a_narrow_discriminator_still_tells_images_apart() {
        let spread = |norm| {
            let spec =
                DcganSpec { norm, discriminator_width: 16, ..DcganSpec::new(Preset::DcganTensorflow, 64, 3) };
            let images = Stream::new(0, "images", 0, 0).normals(&[32, 3, 64, 64]);
            tch::no_grad(|| pair(&spec).1.forward(&images, None, Mode::Batch)).std(true).double_value(&[])
        };
        let (none, batch) = (spread(DiscriminatorNorm::None), spread(DiscriminatorNorm::Batch));
        assert!(none > 0.3 * batch && none < 3.0 * batch, "{none} {batch}");
    }

    #[test]
    fn a_size_that_does_not_work_is_answered_with_one_that_does() {
        for (size, near) in [(60, 64), (100, 96), (7, 16), (2000, 1024)] {
            let message = DcganSpec::check_size(size).unwrap_err().to_string();
            assert!(message.ends_with(&format!("not of {size}: take {near}")), "{message}");
        }
    }
}
