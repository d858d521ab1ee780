//! A small convolutional network that reads something off an image: attributes, or the latent vector it was made from.

use super::network::{BatchNorm, Connected, Convolution, Layouts, Mode, Network, Weights};
use crate::Stream;
use crate::nn::{Init, Precision};
use crate::run::State;
use crate::{Error, Result};
use tch::Tensor;

/// Side of the filters, stride and padding: halves, and rounds up.
const FILTER: [i64; 3] = [3, 2, 1];
/// Filters of a layer, in widths.
const WIDTHS: [i64; 4] = [1, 2, 4, 8];

/// Four convolutions that halve, each with batch normalisation and a rectifier, and one connected layer.
#[derive(Debug)]
pub struct Reader {
    /// Parameters and running statistics.
    pub network: Network,
    downs: Vec<(Convolution, BatchNorm)>,
    out: Connected,
}

impl Reader {
    /// Reads `outputs` numbers off images of `channels` × `size` × `size`; `width` filters in the first layer.
    pub fn new(channels: i64, size: i64, width: i64, outputs: i64, rng: &mut Stream) -> Self {
        let mut layouts = Layouts::default();
        let (mut downs, mut input, mut side) = (Vec::new(), channels, size);
        for (i, factor) in WIDTHS.into_iter().enumerate() {
            let (name, output) = (format!("reader/down{i}"), factor * width);
            // He et al. 2015: √(2 / inputs of a filter).
            let std = (2.0 / (input * FILTER[0] * FILTER[0]) as f64).sqrt();
            let weights = Weights { init: Init::Normal { mean: 0.0, std }, bias: false, spectral: false };
            let down = Convolution::new(&mut layouts, &name, [input, output], FILTER, weights);
            let norm = BatchNorm::new(
                &mut layouts,
                &format!("{name}/norm"),
                output,
                Some(Init::Constant(1.0)),
                1e-5,
            );
            downs.push((down, norm));
            (input, side) = (output, (side - 1) / 2 + 1);
        }
        let features = input * side * side;
        let init = Init::Normal { mean: 0.0, std: (1.0 / features as f64).sqrt() };
        let weights = Weights { init, bias: true, spectral: false };
        let out = Connected::new(&mut layouts, "reader/out", [features, outputs], weights);
        Self { network: Network::new(layouts, rng), downs, out }
    }

    /// The maps behind each convolution for images `[B, C, H, W]`, the first one the largest.
    pub fn maps(&self, images: &Tensor, mode: Mode) -> Vec<Tensor> {
        let mut maps: Vec<Tensor> = Vec::new();
        for (down, norm) in &self.downs {
            let x = down.forward(&self.network, maps.last().unwrap_or(images), mode, Precision::F32);
            maps.push(norm.forward(&self.network, &x, mode).relu());
        }
        maps
    }

    /// Images `[B, C, H, W]` in `[−1, 1]` → `[B, outputs]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let maps = self.maps(images, mode);
        let x = maps.last().unwrap_or(images).flatten(1, -1);
        self.out.forward(&self.network, &x, mode, Precision::F32)
    }

    /// Saves or restores it.
    ///
    /// # Errors
    /// Another network's content.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        self.network.state(state)
    }
}

/// Steps of a training, and what to tell of each: its number, from 1.
pub struct Schedule<'a> {
    /// How many.
    pub steps: u64,
    /// Images in one.
    pub batch: i64,
    /// Called after each.
    pub tell: &'a mut dyn FnMut(u64),
}

/// Trains `reader` with Adam, whose step size falls linearly from 2·10⁻³ to 0; `loss` gives that of a step.
///
/// # Errors
/// A loss that is not finite; what `loss` says.
pub fn train(
    reader: &mut Reader,
    schedule: &mut Schedule,
    mut loss: impl FnMut(&Reader, u64) -> Result<Tensor>,
) -> Result<()> {
    const RATE: f64 = 2e-3;
    let mut adam = crate::nn::Adam::new(&reader.network.parameters, 1e-8);
    for step in 0..schedule.steps {
        let loss = loss(reader, step)?;
        reader.network.parameters.backward(&loss)?;
        if !reader.network.parameters.gradient_norm().is_finite() {
            return Err(Error::Invalid("a network that reads images diverged".into()));
        }
        let left = 1.0 - step as f64 / schedule.steps as f64;
        adam.update(&mut reader.network.parameters, RATE * left);
        (schedule.tell)(step + 1);
    }
    Ok(())
}
