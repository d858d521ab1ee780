//! What image networks are made of: convolutions, the transposed ones that undo their shrinking, fully connected layers
//! and batch normalisation, with all parameters in one buffer and all that is not trained in another.

use super::adversarial::{power_iteration, spectrally_normalised};
use crate::nn::{Flat, Init, Layout, Precision};
use crate::random::Stream;
use crate::run::State;
use crate::{Error, Result};
use tch::{Kind, Tensor};

/// What a network consists of, while it is being described.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    /// What is trained.
    pub parameters: Layout,
    /// What is not: running statistics, singular vectors.
    pub buffers: Layout,
}

/// Parameters and buffers of one network.
#[derive(Debug)]
pub struct Network {
    /// What is trained.
    pub parameters: Flat,
    /// What is not; its `gradient` stays 0.
    pub buffers: Flat,
}

/// For what a network is asked, which matters to batch normalisation and spectral normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Training: statistics of the batch, which also move the running ones; singular vectors are refined.
    Train,
    /// Statistics of the batch, and nothing is changed.
    Batch,
    /// Running statistics, and nothing is changed: an image does not depend on the others of its batch.
    Running,
    /// As [`Mode::Train`], but the running statistics become the mean over all batches since number 0, of which this is
    /// the one with this number.
    Recalibrate(u64),
}

impl Network {
    /// Allocates it and draws the initial values.
    pub fn new(layouts: Layouts, rng: &mut Stream) -> Self {
        let parameters = Flat::new(layouts.parameters, rng);
        Self { parameters, buffers: Flat::new(layouts.buffers, rng) }
    }

    /// Takes over parameters and buffers of a network of the same layout.
    ///
    /// # Errors
    /// Another layout.
    pub fn copy_from(&mut self, other: &Network) -> Result<()> {
        use crate::memory::slice;
        self.parameters.copy_from(slice(&other.parameters.weights))?;
        self.buffers.copy_from(slice(&other.buffers.weights))
    }

    /// A buffer, whose memory this is.
    fn buffer(&self, index: usize) -> Tensor {
        self.buffers.get(index).detach()
    }

    /// Saves or restores parameters and buffers.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.tensor("weights", &mut self.parameters.weights)?;
        state.tensor("buffers", &mut self.buffers.weights)
    }
}

/// A matrix or a stack of filters, and what is added to its product.
#[derive(Clone, Debug)]
struct Weight {
    weight: usize,
    bias: Option<usize>,
    /// Index of the left singular vector, if the weight is divided by its largest singular value.
    singular: Option<usize>,
}

/// How the weights of a layer begin and what they have besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// How they are drawn.
    pub init: Init,
    /// Whether there is a bias; it begins at 0.
    pub bias: bool,
    /// Whether they are divided by their largest singular value (Miyato et al. 2018).
    pub spectral: bool,
}

impl Weight {
    fn new(layouts: &mut Layouts, name: &str, shape: &[i64], outputs: i64, weights: Weights) -> Self {
        let weight = layouts.parameters.add(&format!("{name}/weight"), shape, weights.init);
        let zero = Init::Constant(0.0);
        let bias = weights.bias.then(|| layouts.parameters.add(&format!("{name}/bias"), &[outputs], zero));
        let normal = Init::Normal { mean: 0.0, std: 1.0 };
        let singular =
            weights.spectral.then(|| layouts.buffers.add(&format!("{name}/singular"), &shape[..1], normal));
        Self { weight, bias, singular }
    }

    /// Weight and bias in the kind that `precision` computes with.
    fn of(&self, network: &Network, mode: Mode, precision: Precision) -> (Tensor, Option<Tensor>) {
        let parameters = &network.parameters;
        let weight = match self.singular {
            None => parameters.get(self.weight).shallow_clone(),
            Some(singular) => {
                let weight = parameters.get(self.weight);
                let mut u = network.buffer(singular);
                if mode == Mode::Train {
                    power_iteration(weight, &mut u);
                }
                // A copy: the next forward pass changes it before this one is differentiated.
                spectrally_normalised(weight, &u.copy())
            }
        };
        // Casts to the kind that a tensor already has cost nothing.
        let kind = precision.kind();
        (weight.to_kind(kind), self.bias.map(|bias| parameters.get(bias).to_kind(kind)))
    }
}

/// A convolution that makes images `stride` times smaller.
#[derive(Clone, Debug)]
pub struct Convolution {
    weight: Weight,
    stride: i64,
    padding: i64,
}

impl Convolution {
    /// Filters `[output, input, kernel, kernel]`.
    pub fn new(
        layouts: &mut Layouts,
        name: &str,
        [input, output]: [i64; 2],
        [kernel, stride, padding]: [i64; 3],
        weights: Weights,
    ) -> Self {
        let shape = [output, input, kernel, kernel];
        Self { weight: Weight::new(layouts, name, &shape, output, weights), stride, padding }
    }

    /// `[B, input, H, W]` → `[B, output, (H + 2 padding − kernel) / stride + 1, …]`.
    pub fn forward(&self, network: &Network, x: &Tensor, mode: Mode, precision: Precision) -> Tensor {
        let (weight, bias) = self.weight.of(network, mode, precision);
        let x = x.to_kind(precision.kind());
        x.conv2d(&weight, bias.as_ref(), [self.stride; 2], [self.padding; 2], [1, 1], 1)
    }
}

/// A transposed convolution, which makes images `stride` times larger.
#[derive(Clone, Debug)]
pub struct Transposed {
    weight: Weight,
    stride: i64,
    padding: i64,
    output_padding: i64,
}

impl Transposed {
    /// Filters `[input, output, kernel, kernel]`.
    pub fn new(
        layouts: &mut Layouts,
        name: &str,
        [input, output]: [i64; 2],
        [kernel, stride, padding, output_padding]: [i64; 4],
        weights: Weights,
    ) -> Self {
        let shape = [input, output, kernel, kernel];
        Self { weight: Weight::new(layouts, name, &shape, output, weights), stride, padding, output_padding }
    }

    /// `[B, input, H, W]` → `[B, output, (H − 1) stride − 2 padding + kernel + output padding, …]`.
    pub fn forward(&self, network: &Network, x: &Tensor, mode: Mode, precision: Precision) -> Tensor {
        let (weight, bias) = self.weight.of(network, mode, precision);
        let x = x.to_kind(precision.kind());
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.conv_transpose2d(&weight, bias.as_ref(), stride, padding, [self.output_padding; 2], 1, [1, 1])
    }
}

/// A fully connected layer.
#[derive(Clone, Debug)]
pub struct Connected(Weight);

impl Connected {
    /// W is `[output, input]`.
    pub fn new(layouts: &mut Layouts, name: &str, [input, output]: [i64; 2], weights: Weights) -> Self {
        Self(Weight::new(layouts, name, &[output, input], output, weights))
    }

    /// `[B, input]` → `[B, output]`.
    pub fn forward(&self, network: &Network, x: &Tensor, mode: Mode, precision: Precision) -> Tensor {
        let (weight, bias) = self.0.of(network, mode, precision);
        x.to_kind(precision.kind()).linear(&weight, bias.as_ref())
    }
}

/// Batch normalisation (Ioffe & Szegedy 2015): y = gain · (x − mean) / √(variance + ε) + bias, each channel by itself.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    affine: Option<[usize; 2]>,
    mean: usize,
    variance: usize,
    epsilon: f64,
}

impl BatchNorm {
    /// Share of a batch in the running statistics.
    const MOMENTUM: f64 = 0.1;

    /// With gain and bias if `gain` says how it begins.
    pub fn new(layouts: &mut Layouts, name: &str, channels: i64, gain: Option<Init>, epsilon: f64) -> Self {
        let Layouts { parameters, buffers } = layouts;
        let affine = gain.map(|gain| {
            [("gain", gain), ("bias", Init::Constant(0.0))]
                .map(|(part, init)| parameters.add(&format!("{name}/{part}"), &[channels], init))
        });
        Self {
            affine,
            mean: buffers.add(&format!("{name}/mean"), &[channels], Init::Constant(0.0)),
            variance: buffers.add(&format!("{name}/variance"), &[channels], Init::Constant(1.0)),
            epsilon,
        }
    }

    /// `[B, channels, …]` of any precision; sums and statistics are 32-bit floats.
    pub fn forward(&self, network: &Network, x: &Tensor, mode: Mode) -> Tensor {
        let [gain, bias] = match self.affine {
            Some(affine) => affine.map(|index| Some(network.parameters.get(index))),
            None => [None, None],
        };
        let statistics =
            (mode != Mode::Batch).then(|| [self.mean, self.variance].map(|index| network.buffer(index)));
        let [mean, variance] = match &statistics {
            Some([mean, variance]) => [Some(mean), Some(variance)],
            None => [None, None],
        };
        let momentum = match mode {
            Mode::Recalibrate(number) => 1.0 / (number + 1) as f64,
            Mode::Train | Mode::Batch | Mode::Running => Self::MOMENTUM,
        };
        x.batch_norm(gain, bias, mean, variance, mode != Mode::Running, momentum, self.epsilon, false)
    }
}

/// One-hot labels `[B, classes]` as maps on top of the channels of `x`, `[B, C, H, W]`, or behind the features of `[B, F]`.
pub fn with_labels(x: &Tensor, labels: Option<&Tensor>) -> Tensor {
    let Some(labels) = labels else { return x.shallow_clone() };
    let labels = labels.to_kind(x.kind());
    match x.size()[..] {
        [rows, _, height, width] => {
            let maps = labels.unsqueeze(-1).unsqueeze(-1).expand([rows, -1, height, width], false);
            Tensor::cat(&[x, &maps], 1)
        }
        _ => Tensor::cat(&[x, &labels], 1),
    }
}

/// Labels `[B]` as rows `[B, classes]` with one 1 each, float32.
///
/// # Errors
/// A label that is not below `classes`.
pub fn one_hot(labels: &[i64], classes: i64) -> Result<Tensor> {
    if let Some(label) = labels.iter().find(|label| !(0..classes).contains(label)) {
        return Err(Error::Invalid(format!("class {label} is not one of 0 to {}", classes - 1)));
    }
    let rows = Tensor::f_zeros([labels.len() as i64, classes], (Kind::Float, tch::Device::Cpu))?;
    Ok(rows.f_scatter_value(1, &Tensor::from_slice(labels).unsqueeze(1), 1.0)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::slice;

    const PLAIN: Weights = Weights { init: Init::Constant(1.0), bias: true, spectral: false };

    fn numbers(x: &Tensor) -> Vec<f64> {
        Vec::try_from(x.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
    }

    fn near(got: &[f64], wanted: &[f64]) {
        assert_eq!(got.len(), wanted.len());
        assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-4), "{got:?} is not {wanted:?}");
    }

    #[test]
    fn convolutions_halve_and_transposed_ones_double() {
        let mut layouts = Layouts::default();
        let down = Convolution::new(&mut layouts, "down", [1, 1], [5, 2, 2], PLAIN);
        let up = Transposed::new(&mut layouts, "up", [1, 1], [5, 2, 2, 1], PLAIN);
        let network = Network::new(layouts, &mut Stream::new(0, "init", 0, 0));
        let ones = Tensor::ones([1, 1, 8, 8], (Kind::Float, tch::Device::Cpu));
        let small = down.forward(&network, &ones, Mode::Train, Precision::F32);
        assert_eq!(small.size(), [1, 1, 4, 4]);
        // The first filter lies on rows and columns 0 to 2 of the image, the second one on 0 to 4.
        near(&numbers(&small)[..2], &[9.0, 15.0]);
        assert_eq!(up.forward(&network, &small, Mode::Train, Precision::Bf16).size(), [1, 1, 8, 8]);
    }

    #[test]
    fn batch_norm_keeps_running_statistics_and_recalibrates_them() {
        let mut layouts = Layouts::default();
        let norm = BatchNorm::new(&mut layouts, "norm", 1, Some(Init::Constant(2.0)), 0.0);
        let network = Network::new(layouts, &mut Stream::new(0, "init", 0, 0));
        let batch = |x: &[f32]| Tensor::from_slice(x).view([-1, 1]);
        let statistics =
            || [norm.mean, norm.variance].map(|index| network.buffers.get(index).double_value(&[0]));
        let x = batch(&[1.0, 3.0]);
        // Mean 2, variance 1 of the batch; 2 if divided by n − 1, as running variances are.
        near(&numbers(&norm.forward(&network, &x, Mode::Batch)), &[-2.0, 2.0]);
        near(&statistics(), &[0.0, 1.0]);
        near(&numbers(&norm.forward(&network, &x, Mode::Train)), &[-2.0, 2.0]);
        near(&statistics(), &[0.2, 1.1]);
        near(&numbers(&norm.forward(&network, &x, Mode::Running))[..1], &[2.0 * 0.8 / 1.1f64.sqrt()]);
        near(&statistics(), &[0.2, 1.1]);
        for (number, x) in [[1.0f32, 3.0], [4.0, 4.0], [0.0, 4.0]].iter().enumerate() {
            let _ = norm.forward(&network, &batch(x), Mode::Recalibrate(number as u64));
        }
        // Means 2, 4, 2 and variances 2, 0, 8.
        near(&statistics(), &[8.0 / 3.0, 10.0 / 3.0]);
        // It is in the buffers, which the state visitor saves.
        assert!((f64::from(slice::<f32>(&network.buffers.weights)[0]) - 8.0 / 3.0).abs() < 1e-5);
    }

    #[test]
    fn spectral_weights_have_a_largest_singular_value_of_one() {
        let mut layouts = Layouts::default();
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        let weights = Weights { init, bias: false, spectral: true };
        let layer = Convolution::new(&mut layouts, "layer", [3, 8], [3, 1, 1], weights);
        let network = Network::new(layouts, &mut Stream::new(0, "init", 0, 0));
        let x = Tensor::zeros([1, 3, 4, 4], (Kind::Float, tch::Device::Cpu));
        for _ in 0..100 {
            let _ = layer.forward(&network, &x, Mode::Train, Precision::F32);
        }
        let before = network.buffers.weights.copy();
        let (weight, _) = layer.weight.of(&network, Mode::Running, Precision::F32);
        let (_, values, _) = weight.detach().view([8, 27]).svd(true, false);
        near(&[values.max().double_value(&[])], &[1.0]);
        assert_eq!(before, network.buffers.weights, "only training refines the singular vectors");
    }

    #[test]
    fn labels_become_maps() {
        let labels = one_hot(&[2, 0], 3).unwrap();
        assert_eq!(numbers(&labels), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        let x = Tensor::ones([2, 1, 1, 2], (Kind::Float, tch::Device::Cpu)) * 5.0;
        let with = with_labels(&x, Some(&labels));
        assert_eq!(numbers(&with.get(0)), [5.0, 5.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!(with_labels(&x, None).size(), [2, 1, 1, 2]);
        assert!(one_hot(&[3], 3).unwrap_err().to_string().contains("class 3 is not one of 0 to 2"));
    }
}
