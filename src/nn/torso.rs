//! From an observation to features: multi-layer perceptrons and convolutional torsos.

use super::flat::{Flat, Init, Layout};
use crate::{Error, Result};
use imago_envs::{Dtype, Space};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Elementwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// tanh
    Tanh,
    /// max(0, x)
    Relu,
    /// x for x > 0, else eˣ − 1
    Elu,
}

impl Activation {
    /// The function, elementwise.
    pub fn apply(self, x: Tensor) -> Tensor {
        match self {
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.relu(),
            Activation::Elu => x.elu(),
        }
    }
}

/// y = x Wᵀ + b.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Index of W, `[out, in]`.
    pub weight: usize,
    /// Index of b, `[out]`.
    pub bias: usize,
}

impl Linear {
    /// Reserves W and b; b starts at 0.
    pub fn new(layout: &mut Layout, name: &str, input: i64, output: i64, init: Init) -> Self {
        Self {
            weight: layout.add(&format!("{name}/weight"), &[output, input], init),
            bias: layout.add(&format!("{name}/bias"), &[output], Init::Constant(0.0)),
        }
    }

    /// `[B, in]` → `[B, out]`.
    pub fn forward(&self, flat: &Flat, x: &Tensor) -> Tensor {
        x.linear(flat.get(self.weight), Some(flat.get(self.bias)))
    }
}

/// Linear layers, each followed by the activation.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// The layers, first to last.
    pub layers: Vec<Linear>,
    /// Applied after every layer.
    pub activation: Activation,
}

impl Mlp {
    /// Layers of the widths `hidden` on `input` features.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        input: i64,
        hidden: &[i64],
        activation: Activation,
        init: Init,
    ) -> Self {
        let inputs = std::iter::once(&input).chain(hidden);
        let layers = inputs
            .zip(hidden)
            .enumerate()
            .map(|(i, (&input, &output))| {
                Linear::new(layout, &format!("{name}/hidden{i}"), input, output, init)
            })
            .collect();
        Self { layers, activation }
    }

    /// `[B, input]` → `[B, last width]`.
    pub fn forward(&self, flat: &Flat, x: &Tensor) -> Tensor {
        self.layers.iter().fold(x.shallow_clone(), |x, layer| self.activation.apply(layer.forward(flat, &x)))
    }
}

/// Which torso, as recipes name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TorsoKind {
    /// Fully connected layers over the flattened observation.
    Mlp,
    /// Mnih et al. 2015: convolutions 32 of 8×8 stride 4, 64 of 4×4 stride 2, 64 of 3×3, for 84×84 images.
    Nature,
    /// Pathak et al. 2017: four convolutions, 32 of 3×3 stride 2 padding 1, for 42×42 images.
    Icm,
}

/// A torso's description; workers and checkpoints rebuild the same network from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TorsoSpec {
    /// Which one.
    pub kind: TorsoKind,
    /// Widths of the fully connected layers (after the convolutions, if there are any).
    pub hidden: Vec<i64>,
    /// After every layer.
    pub activation: Activation,
}

#[derive(Clone, Debug)]
pub(super) struct Convolution {
    pub weight: usize,
    pub bias: usize,
    pub stride: i64,
    pub padding: i64,
}

/// Convolutions (for images), then fully connected layers.
#[derive(Clone, Debug)]
pub struct Torso {
    pub(super) convolutions: Vec<Convolution>,
    mlp: Mlp,
    /// Features it gives.
    pub features: i64,
}

/// Channels, height and width of an image space, and whether channels come last: the shortest of first and
/// last dimension counts as channels.
pub(super) fn image_shape(space: &Space) -> Option<([i64; 3], bool)> {
    match *space.shape() {
        [h, w] => Some(([1, h as i64, w as i64], false)),
        [h, w, c] if c <= h => Some(([c as i64, h as i64, w as i64], true)),
        [c, h, w] => Some(([c as i64, h as i64, w as i64], false)),
        _ => None,
    }
}

impl Torso {
    /// Reserves the parameters of `spec` over observations of `space`.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(layout: &mut Layout, name: &str, spec: &TorsoSpec, space: &Space) -> Result<Self> {
        let gain = Init::Orthogonal(2f64.sqrt());
        let filters: &[(i64, i64, i64, i64)] = match spec.kind {
            TorsoKind::Mlp => &[],
            TorsoKind::Nature => &[(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)],
            TorsoKind::Icm => &[(32, 3, 2, 1); 4],
        };
        let mut convolutions = Vec::new();
        let mut input = space.features() as i64;
        if !filters.is_empty() {
            let Some(([mut channels, mut height, mut width], _)) = image_shape(space) else {
                return Err(Error::Invalid(format!(
                    "a convolutional torso needs images, these observations are {space}: use torso = \"mlp\""
                )));
            };
            for (i, &(output, kernel, stride, padding)) in filters.iter().enumerate() {
                let shape = [output, channels, kernel, kernel];
                convolutions.push(Convolution {
                    weight: layout.add(&format!("{name}/convolution{i}/weight"), &shape, gain),
                    bias: layout.add(&format!("{name}/convolution{i}/bias"), &[output], Init::Constant(0.0)),
                    stride,
                    padding,
                });
                let shrink = |x: i64| (x + 2 * padding - kernel).div_euclid(stride) + 1;
                (channels, height, width) = (output, shrink(height), shrink(width));
                if height < 1 || width < 1 {
                    return Err(Error::Invalid(format!(
                        "images of {space} are too small for this convolutional torso: use torso = \"mlp\""
                    )));
                }
            }
            input = channels * height * width;
        }
        let mlp = Mlp::new(layout, name, input, &spec.hidden, spec.activation, gain);
        Ok(Self { convolutions, mlp, features: *spec.hidden.last().unwrap_or(&input) })
    }

    /// The fully connected layers.
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }

    /// Features `[B, features]` of observations prepared by [`Torso::prepare`].
    pub fn forward(&self, flat: &Flat, x: &Tensor) -> Tensor {
        if self.convolutions.is_empty() {
            return self.mlp.forward(flat, x);
        }
        let x = self.convolutions.iter().fold(x.shallow_clone(), |x, layer| {
            let (weight, bias) = (flat.get(layer.weight), flat.get(layer.bias));
            let (stride, padding) = ([layer.stride; 2], [layer.padding; 2]);
            self.mlp.activation.apply(x.conv2d(weight, Some(bias), stride, padding, [1, 1], 1))
        });
        self.mlp.forward(flat, &x.flatten(1, -1))
    }

    /// What the first layer reads: `[B, features]`, or `[B, C, H, W]` before convolutions. Bytes become
    /// `[0, 1]`, discrete observations one-hot rows.
    pub fn prepare(&self, space: &Space, observation: &Tensor) -> Tensor {
        match image_shape(space) {
            Some((shape, channels_last)) if !self.convolutions.is_empty() => {
                let [c, h, w] = shape;
                let x = scaled(space, observation);
                if channels_last {
                    x.view([-1, h, w, c]).permute([0, 3, 1, 2])
                } else {
                    x.view([-1, c, h, w])
                }
            }
            _ => features_of(space, observation),
        }
    }
}

fn scaled(space: &Space, x: &Tensor) -> Tensor {
    match space.dtype() {
        Dtype::U8 => x.to_kind(Kind::Float) / 255.0,
        _ => x.to_kind(Kind::Float),
    }
}

/// Elements `[B, …]` of a space as float rows `[B, F]`: boxes flattened (bytes to `[0, 1]`), choices one-hot.
pub fn features_of(space: &Space, x: &Tensor) -> Tensor {
    match space {
        Space::Box { .. } => scaled(space, x).view([-1, space.features() as i64]),
        Space::Discrete { n, .. } => x.view(-1).one_hot(*n).to_kind(Kind::Float),
    }
}
