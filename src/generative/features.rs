//! What images are compared by: features of a network, which every report names.

use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Images that go through a network at a time: few, so that what lies between two layers stays in cache.
const ROWS: i64 = 8;

/// From images to features.
#[derive(Debug)]
pub enum Features {
    /// The 1,280 pooled features of EfficientNet-Lite0, trained on ImageNet.
    EfficientNetLite0(Box<EfficientNetLite0>),
    /// Means of 8 × 8 areas of each colour: nothing but where which colour is.
    Pixels,
}

impl Features {
    /// How reports call it.
    pub fn name(&self) -> &'static str {
        match self {
            Features::EfficientNetLite0(_) => "EfficientNet-Lite0 at 224 pixels",
            Features::Pixels => "8 × 8 pixels",
        }
    }

    /// Features `[N, D]` of images `[N, C, H, W]` in `[−1, 1]`.
    pub fn of(&self, images: &Tensor) -> Tensor {
        let rows = images.size()[0];
        let part = |first: i64| {
            let images = images.narrow(0, first, ROWS.min(rows - first));
            match self {
                Features::EfficientNetLite0(network) => network.features(&images),
                Features::Pixels => images.contiguous().adaptive_avg_pool2d([8, 8]).flatten(1, -1),
            }
        };
        tch::no_grad(|| Tensor::cat(&(0..rows).step_by(ROWS as usize).map(part).collect::<Vec<_>>(), 0))
    }
}

/// EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation and with ReLU6), up to its last pooling.
#[derive(Debug)]
pub struct EfficientNetLite0 {
    tensors: HashMap<String, Tensor>,
}

/// Blocks: how often, stride of the first one, whether wider inside. The rest follows from the shapes of the weights.
const BLOCKS: [(usize, i64, bool); 7] =
    [(1, 1, false), (2, 2, true), (2, 2, true), (3, 2, true), (3, 1, true), (4, 2, true), (1, 1, true)];
/// Side of the images it was trained on.
const SIDE: i64 = 224;
const EPSILON: f64 = 1e-3;

impl EfficientNetLite0 {
    /// Reads converted weights.
    ///
    /// # Errors
    /// A file that cannot be read or holds another network.
    pub fn load(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |what: String| Error::bad_file(path, format!("it is not EfficientNet-Lite0: {what}"));
        let found = SafeTensors::deserialize(&content).map_err(|error| wrong(error.to_string()))?;
        let mut tensors = HashMap::new();
        for (name, tensor) in found.tensors() {
            if tensor.dtype() == Dtype::F32 {
                let shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
                tensors.insert(name, Tensor::f_from_data_size(tensor.data(), &shape, Kind::Float)?);
            }
        }
        let network = Self { tensors };
        // Every tensor is asked for once, by name and shape.
        let black = Tensor::f_zeros([1, 3, 32, 32], (Kind::Float, tch::Device::Cpu))?;
        let tried = tch::no_grad(|| network.through(&black)).map_err(|error| wrong(error.to_string()))?;
        match tried.size()[..] {
            [1, 1280] => Ok(network),
            ref other => Err(wrong(format!("its features are {other:?}"))),
        }
    }

    /// `[N, C, H, W]` in `[−1, 1]`, grey or colour → `[N, 1280]`.
    fn features(&self, images: &Tensor) -> Tensor {
        let images = images.expand([-1, 3, -1, -1], false).contiguous();
        let images = images.upsample_bilinear2d([SIDE, SIDE], false, None, None);
        // (x − 127) / 128 of bytes x.
        let images = (images + 1.0) * (127.5 / 128.0) - 127.0 / 128.0;
        self.through(&images).unwrap_or_else(|_| Tensor::zeros([0, 1280], (Kind::Float, tch::Device::Cpu)))
    }

    fn through(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.normalised("_bn0", &self.convolved("_conv_stem", x, 2, 1)?)?.clamp(0.0, 6.0);
        let mut number = 0;
        for (count, stride, wider) in BLOCKS {
            for i in 0..count {
                let name = format!("_blocks.{number}");
                let (stride, before) = (if i == 0 { stride } else { 1 }, x.shallow_clone());
                if wider {
                    x = self.convolved(&format!("{name}._expand_conv"), &x, 1, 1)?;
                    x = self.normalised(&format!("{name}._bn0"), &x)?.clamp(0.0, 6.0);
                }
                let groups = x.size()[1];
                x = self.convolved(&format!("{name}._depthwise_conv"), &x, stride, groups)?;
                x = self.normalised(&format!("{name}._bn1"), &x)?.clamp(0.0, 6.0);
                x = self.convolved(&format!("{name}._project_conv"), &x, 1, 1)?;
                x = self.normalised(&format!("{name}._bn2"), &x)?;
                if i > 0 {
                    x = x.f_add(&before)?;
                }
                number += 1;
            }
        }
        let x = self.normalised("_bn1", &self.convolved("_conv_head", &x, 1, 1)?)?.clamp(0.0, 6.0);
        Ok(x.mean_dim([2i64, 3].as_slice(), false, Kind::Float))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::Invalid(format!("`{name}` is missing")))
    }

    /// With TensorFlow's padding: as many rows as make the size ⌈input / stride⌉, the odd one at the end.
    fn convolved(&self, name: &str, x: &Tensor, stride: i64, groups: i64) -> Result<Tensor> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        let pads = |length: i64, kernel: i64| {
            let total = (((length + stride - 1) / stride - 1) * stride + kernel - length).max(0);
            [total / 2, total - total / 2]
        };
        let (size, filter) = (x.size(), weight.size());
        let [top, bottom] = pads(size[2], filter[2]);
        let [left, right] = pads(size[3], filter[3]);
        let x = match [top, bottom, left, right].iter().any(|&pad| pad > 0) {
            true => x.f_constant_pad_nd([left, right, top, bottom])?,
            false => x.shallow_clone(),
        };
        Ok(x.f_conv2d(weight, None::<&Tensor>, [stride; 2], [0, 0], [1, 1], groups)?)
    }

    fn normalised(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let part = |part: &str| self.tensor(&format!("{name}.{part}"));
        let (gain, bias) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        Ok(x.f_batch_norm(Some(gain), Some(bias), Some(mean), Some(variance), false, 0.0, EPSILON, false)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pixels_are_means_of_areas() {
        let image = Tensor::arange(256, (Kind::Float, tch::Device::Cpu)).view([1, 1, 16, 16]);
        let features = Features::Pixels.of(&Tensor::cat(&[&image, &image, &image], 1));
        assert_eq!(features.size(), [1, 192]);
        // The mean of 0, 1, 16 and 17.
        assert_eq!(features.double_value(&[0, 0]), 8.5);
    }

    #[test]
    fn another_file_is_refused_with_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensors = vec![("x".to_string(), Tensor::from_slice(&[1.0f32]))];
        crate::run::tensor_file::write(&path, &tensors, &Default::default()).unwrap();
        let message = EfficientNetLite0::load(&path).unwrap_err().to_string();
        assert!(message.contains("`_conv_stem.weight` is missing"), "{message}");
    }

    /// With the converted weights, if `IMAGO_TEST_LITE0` says where they are: the numbers of an implementation in NumPy.
    #[test]
    fn features_are_those_of_numpy() {
        let Some(path) = std::env::var_os("IMAGO_TEST_LITE0") else { return };
        let network = EfficientNetLite0::load(Path::new(&path)).unwrap();
        let bytes: Vec<f32> = (0..3 * SIDE * SIDE)
            .map(|i| (3 * (i / (SIDE * SIDE)) + 5 * (i / SIDE % SIDE) + 7 * (i % SIDE)) % 256)
            .map(|byte| byte as f32)
            .collect();
        let images = Tensor::from_slice(&bytes).view([1, 3, SIDE, SIDE]) / 127.5 - 1.0;
        let features = Features::EfficientNetLite0(Box::new(network)).of(&images);
        let sum = features.sum(Kind::Double).double_value(&[]);
        assert!((sum - 179.75809).abs() < 1e-2, "{sum}");
        assert!((features.double_value(&[0, 2]) - 0.0063112).abs() < 1e-5);
    }
}
