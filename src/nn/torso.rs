//! From an observation to features: multi-layer perceptrons and convolutional torsos.

use super::flat::{Flat, Init, Layout};
use crate::memory::field_of;
use crate::{Error, Result};
use imago_envs::{Dtype, Field, Fields, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Elementwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Arithmetic of the convolutions. Absent in files of before there was a choice.
    #[serde(default)]
    pub precision: Precision,
}

impl TorsoSpec {
    /// Whether everything is one vector to it.
    pub fn reads_vectors(&self) -> bool {
        self.kind == TorsoKind::Mlp
    }

    /// Fully connected layers of these widths with tanh.
    pub fn perceptron(hidden: &[i64]) -> Self {
        Self {
            kind: TorsoKind::Mlp,
            hidden: hidden.into(),
            activation: Activation::Tanh,
            precision: Precision::F32,
        }
    }
}

/// Arithmetic of convolutions. Weights, their gradients and Adam are 32-bit floats either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Weights, images and what lies between two convolutions are rounded to bfloat16; sums are libtorch's. Pays on
    /// processors with AMX.
    Bf16,
}

impl Precision {
    /// The kind of tensor convolutions compute with.
    pub fn kind(self) -> Kind {
        match self {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Convolution {
    pub weight: usize,
    pub bias: usize,
    pub stride: i64,
    pub padding: i64,
}

/// Convolutions (for images), then fully connected layers.
///
/// Of several fields, those of bytes in two or three dimensions are images; each has convolutions of its own,
/// and whatever else there is joins their results before the fully connected layers (as in Stable-Baselines3's
/// `CombinedExtractor`). Without convolutions everything is one vector.
#[derive(Clone, Debug)]
pub struct Torso {
    images: Vec<Image>,
    mlp: Mlp,
    /// Features it gives.
    pub features: i64,
}

/// An image with its convolutions.
#[derive(Clone, Debug)]
struct Image {
    /// Name of its field; `None` where the observation is the image.
    field: Option<String>,
    /// Channels, height, width.
    shape: [i64; 3],
    convolutions: Vec<Convolution>,
    precision: Precision,
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

impl Image {
    /// Reserves the convolutions of a kind over images of `space`; second, how many features they give.
    fn new(
        layout: &mut Layout,
        name: &str,
        spec: &TorsoSpec,
        space: &Space,
        field: Option<String>,
        init: Init,
    ) -> Result<(Self, i64)> {
        let filters: &[(i64, i64, i64, i64)] = match spec.kind {
            TorsoKind::Mlp => &[],
            TorsoKind::Nature => &[(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)],
            TorsoKind::Icm => &[(32, 3, 2, 1); 4],
        };
        let Some((shape, _)) = image_shape(space) else {
            return Err(Error::Invalid(format!(
                "a convolutional torso needs images, these observations are {space}: use torso = \"mlp\""
            )));
        };
        let mut convolutions = Vec::new();
        let [mut channels, mut height, mut width] = shape;
        for (i, &(output, kernel, stride, padding)) in filters.iter().enumerate() {
            let shape = [output, channels, kernel, kernel];
            convolutions.push(Convolution {
                weight: layout.add(&format!("{name}/convolution{i}/weight"), &shape, init),
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
        Ok((Self { field, shape, convolutions, precision: spec.precision }, channels * height * width))
    }

    /// `[B, C, H, W]` → `[B, features]`.
    fn forward(&self, flat: &Flat, x: &Tensor, activation: Activation) -> Tensor {
        // Casts to the kind that a tensor already has cost nothing.
        let cast = |x: &Tensor| x.to_kind(self.precision.kind());
        let x = self.convolutions.iter().fold(cast(x), |x, layer| {
            let (weight, bias) = (cast(flat.get(layer.weight)), cast(flat.get(layer.bias)));
            let (stride, padding) = ([layer.stride; 2], [layer.padding; 2]);
            activation.apply(x.conv2d(&weight, Some(&bias), stride, padding, [1, 1], 1))
        });
        x.flatten(1, -1).to_kind(Kind::Float)
    }

    fn features(&self) -> i64 {
        self.shape.iter().product()
    }
}

impl Torso {
    /// Reserves the parameters of `spec` over observations of `space`; orthogonal, gain √2.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(layout: &mut Layout, name: &str, spec: &TorsoSpec, space: &Space) -> Result<Self> {
        Self::with_init(layout, name, spec, space, Init::Orthogonal(2f64.sqrt()))
    }

    /// As [`Torso::new`] with another start of the weights.
    ///
    /// # Errors
    /// As for [`Torso::new`].
    pub fn with_init(
        layout: &mut Layout,
        name: &str,
        spec: &TorsoSpec,
        space: &Space,
        init: Init,
    ) -> Result<Self> {
        let mut images = Vec::new();
        let mut input = space.features() as i64;
        match space {
            _ if spec.kind == TorsoKind::Mlp => {}
            Space::Fields(fields) => {
                for field in fields.iter().filter(|field| is_image(&field.space)) {
                    let (name, called) = (format!("{name}/{}", field.name), Some(field.name.clone()));
                    let (image, features) = Image::new(layout, &name, spec, &field.space, called, init)?;
                    input += features - image.features();
                    images.push(image);
                }
                if images.is_empty() {
                    return Err(Error::Invalid(format!(
                        "a convolutional torso needs images, none of these fields is one: {space}: use torso = \
                         \"mlp\""
                    )));
                }
            }
            _ => {
                let (image, features) = Image::new(layout, name, spec, space, None, init)?;
                (images, input) = (vec![image], features);
            }
        }
        let mlp = Mlp::new(layout, name, input, &spec.hidden, spec.activation, init);
        Ok(Self { images, mlp, features: *spec.hidden.last().unwrap_or(&input) })
    }

    /// The convolutions over an observation that is one image; none for anything else.
    pub(super) fn convolutions(&self) -> &[Convolution] {
        match self.images.as_slice() {
            [Image { field: None, convolutions, .. }] => convolutions,
            _ => &[],
        }
    }

    /// Whether there are no convolutions.
    pub fn is_perceptron(&self) -> bool {
        self.images.is_empty()
    }

    /// The fully connected layers.
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }

    /// Features `[B, features]` of observations prepared by [`Torso::prepare`].
    pub fn forward(&self, flat: &Flat, x: &Tensor) -> Tensor {
        let activation = self.mlp.activation;
        match self.images.as_slice() {
            [] => self.mlp.forward(flat, x),
            [image] if image.field.is_none() => self.mlp.forward(flat, &image.forward(flat, x, activation)),
            images => {
                let (mut parts, mut next) = (Vec::new(), 0);
                for image in images {
                    let [c, h, w] = image.shape;
                    let pixels = x.narrow(1, next, image.features()).reshape([-1, c, h, w]);
                    parts.push(image.forward(flat, &pixels, activation));
                    next += image.features();
                }
                parts.push(x.narrow(1, next, x.size()[1] - next));
                self.mlp.forward(flat, &Tensor::cat(&parts, 1))
            }
        }
    }

    /// What the first layer reads: `[B, features]`, or `[B, C, H, W]` before the convolutions of a single image.
    /// Bytes become `[0, 1]`, choices one-hot rows, switches 0 and 1. Of several fields the images come first,
    /// channels first.
    pub fn prepare(&self, space: &Space, observation: &Tensor) -> Tensor {
        match space {
            Space::Fields(fields) => {
                let parts = self.in_order(fields).map(|(field, is_image)| {
                    let values = field_of(observation, field);
                    match is_image {
                        true => channels_first(&field.space, &values).flatten(1, -1),
                        false => features_of(&field.space, &values),
                    }
                });
                Tensor::cat(&parts.collect::<Vec<_>>(), 1)
            }
            _ if self.images.is_empty() => features_of(space, observation),
            _ => channels_first(space, observation),
        }
    }

    /// Which of the prepared features running statistics standardise: as [`standardised_features`].
    pub fn standardised(&self, space: &Space) -> Vec<bool> {
        match space {
            Space::Fields(fields) => {
                self.in_order(fields).flat_map(|(field, _)| field_standardised(field)).collect()
            }
            single => standardised_features(single),
        }
    }

    /// The fields in the order in which they are prepared, and whether each is an image.
    fn in_order<'a>(&'a self, fields: &'a Fields) -> impl Iterator<Item = (&'a Field, bool)> {
        let is_image =
            |field: &Field| self.images.iter().any(|image| image.field.as_ref() == Some(&field.name));
        let images = fields.iter().filter(move |field| is_image(field)).map(|field| (field, true));
        images.chain(fields.iter().filter(move |field| !is_image(field)).map(|field| (field, false)))
    }
}

fn is_image(space: &Space) -> bool {
    matches!(space, Space::Box { dtype: Dtype::U8, shape, .. } if matches!(shape.len(), 2 | 3))
}

/// Images `[B, …]` as `[B, C, H, W]`.
fn channels_first(space: &Space, images: &Tensor) -> Tensor {
    let x = scaled(space, images);
    match image_shape(space) {
        Some(([c, h, w], true)) => x.reshape([-1, h, w, c]).permute([0, 3, 1, 2]),
        Some(([c, h, w], false)) => x.reshape([-1, c, h, w]),
        None => x,
    }
}

/// Images `[B, …]` of `space` as `[B, C, H / side, W / side]`: bytes as `[0, 1]`, averaged over squares of `side` × `side`
/// pixels. What is left over at the bottom and on the right falls away.
pub fn downsampled(space: &Space, images: &Tensor, side: i64) -> Tensor {
    let x = channels_first(space, images);
    if side == 1 { x } else { x.avg_pool2d([side, side], [side, side], [0, 0], false, true, None) }
}

/// The space of what [`downsampled`] gives; `None` if those of `space` are no images of at least `side` × `side` pixels.
pub fn downsampled_space(space: &Space, side: i64) -> Option<Space> {
    let ([c, h, w], _) = image_shape(space).filter(|_| is_image(space))?;
    let shape = [c, h / side, w / side].map(|d| d as usize);
    shape.iter().all(|&d| d > 0).then(|| Space::floats(&shape, f64::NEG_INFINITY, f64::INFINITY))
}

fn field_standardised(field: &Field) -> Vec<bool> {
    let is_float = matches!(field.space, Space::Box { dtype: Dtype::F32, .. });
    vec![is_float; field.space.features()]
}

/// Which of [`features_of`] a space running statistics standardise: of several fields the floats, for a rare
/// switch or a pixel divided by its deviation would outweigh all else; of a single space everything.
pub fn standardised_features(space: &Space) -> Vec<bool> {
    match space {
        Space::Fields(fields) => fields.iter().flat_map(field_standardised).collect(),
        single => vec![true; single.features()],
    }
}

/// Elements of a box as floats, bytes as `[0, 1]`.
pub(super) fn scaled(space: &Space, x: &Tensor) -> Tensor {
    match space.dtype() {
        Dtype::U8 => x.to_kind(Kind::Float) / 255.0,
        _ => x.to_kind(Kind::Float),
    }
}

/// Elements `[B, …]` of a space as float rows `[B, F]`: boxes flattened (bytes to `[0, 1]`), choices one-hot,
/// switches 0 and 1; several fields side by side.
pub fn features_of(space: &Space, x: &Tensor) -> Tensor {
    match space {
        Space::Box { .. } => scaled(space, x).reshape([-1, space.features() as i64]),
        Space::Discrete { n, .. } => x.reshape(-1).one_hot(*n).to_kind(Kind::Float),
        Space::MultiDiscrete { n, .. } => {
            let x = x.reshape([-1, n.len() as i64]);
            let columns = n.iter().enumerate();
            let parts: Vec<Tensor> = columns.map(|(i, &n)| x.select(1, i as i64).one_hot(n)).collect();
            Tensor::cat(&parts, 1).to_kind(Kind::Float)
        }
        Space::MultiBinary { .. } => x.reshape([-1, space.features() as i64]).to_kind(Kind::Float),
        Space::Fields(fields) => {
            let parts = fields.iter().map(|field| features_of(&field.space, &field_of(x, field)));
            Tensor::cat(&parts.collect::<Vec<_>>(), 1)
        }
    }
}
