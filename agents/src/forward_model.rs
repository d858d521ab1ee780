//! φ(s′) from φ(s) and the action: what is predicted badly is new (Pathak et al. 2017, equations 4 to 6).

use imago::nn::{Flat, Init, Layout, Linear};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What predicts the next features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardKind {
    /// One hidden layer with ReLU (Pathak et al. 2017).
    Mlp,
    /// A layer and four residual blocks of two, each of which sees the action, too (Burda et al. 2018).
    Residual,
}

/// How far a prediction is from what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorForm {
    /// ½ Σ (φ̂ − φ)²: over 288 features 144 times the other (Pathak et al. 2017).
    Sum,
    /// The mean of (φ̂ − φ)² over the features (Burda et al. 2018).
    Mean,
}

impl ErrorForm {
    /// Of predictions and what came, `[…, B, F]`: `[…, B]`.
    pub fn error(self, predicted: &Tensor, came: &Tensor) -> Tensor {
        let squares = (predicted - came).square();
        match self {
            ErrorForm::Sum => squares.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float) * 0.5,
            ErrorForm::Mean => squares.mean_dim([-1i64].as_slice(), false, Kind::Float),
        }
    }
}

/// Blocks of a residual model.
const BLOCKS: usize = 4;

/// The model.
pub(crate) enum ForwardModel {
    /// See [`ForwardKind::Mlp`].
    Mlp { hidden: Linear, out: Linear },
    /// See [`ForwardKind::Residual`].
    Residual { first: Linear, blocks: Vec<[Linear; 2]>, out: Linear },
}

impl ForwardModel {
    /// Reserves the parameters for φ of `features` numbers and actions of `actions`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        kind: ForwardKind,
        features: i64,
        actions: i64,
        width: i64,
    ) -> Self {
        let mut layer = |part: &str, input: i64, output: i64, init: Init| {
            Linear::new(layout, &format!("{name}/{part}"), input + actions, output, init)
        };
        match kind {
            ForwardKind::Mlp => {
                let init = Init::OutputNorm(0.01);
                let hidden = layer("hidden", features, width, init);
                Self::Mlp { hidden, out: Linear::new(layout, &format!("{name}/out"), width, features, init) }
            }
            ForwardKind::Residual => {
                let init = Init::GlorotUniform;
                let first = layer("first", features, width, init);
                let blocks = (0..BLOCKS)
                    .map(|i| [0, 1].map(|j| layer(&format!("block{i}/layer{j}"), width, width, init)));
                let blocks = blocks.collect();
                Self::Residual { first, blocks, out: layer("out", width, features, init) }
            }
        }
    }

    /// φ̂(s′), `[B, F]`, from φ(s), `[B, F]`, and actions `[B, A]`.
    pub fn forward(&self, flat: &Flat, from: &Tensor, action: &Tensor) -> Tensor {
        let with_action = |x: &Tensor| Tensor::cat(&[x, action], 1);
        match self {
            Self::Mlp { hidden, out } => out.forward(flat, &hidden.forward(flat, &with_action(from)).relu()),
            Self::Residual { first, blocks, out } => {
                let x = leaky(first.forward(flat, &with_action(from)));
                let x = blocks.iter().fold(x, |x, [one, two]| {
                    let y = leaky(one.forward(flat, &with_action(&x)));
                    x + two.forward(flat, &with_action(&y))
                });
                out.forward(flat, &with_action(&x))
            }
        }
    }
}

/// max(x, 0.2 x), TensorFlow's leaky ReLU.
fn leaky(x: Tensor) -> Tensor {
    x.maximum(&(&x * 0.2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::Stream;
    use imago::memory::{slice, slice_mut};

    #[test]
    fn errors_by_hand() {
        let predicted = Tensor::from_slice2(&[[1.0f32, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]]);
        let came = Tensor::from_slice2(&[[0.0f32, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]);
        // 1 + 4 of the first row, over four features.
        assert_eq!(slice::<f32>(&ErrorForm::Sum.error(&predicted, &came)), [2.5, 0.0]);
        assert_eq!(slice::<f32>(&ErrorForm::Mean.error(&predicted, &came)), [1.25, 0.0]);
    }

    /// Every layer of a residual model, its last one, too, sees the action and learns from it.
    #[test]
    fn the_action_reaches_every_layer_and_every_layer_learns() {
        let mut layout = Layout::default();
        let model = ForwardModel::new(&mut layout, "forward", ForwardKind::Residual, 3, 2, 8);
        let mut rng = Stream::new(0, "forward", 0, 0);
        let mut flat = Flat::new(layout, &mut rng);
        assert_eq!(flat.count(), (3 + 2) * 8 + 8 + 8 * ((8 + 2) * 8 + 8) + (8 + 2) * 3 + 3);
        slice_mut::<f32>(&mut flat.weights).iter_mut().for_each(|w| *w += 0.1 * rng.normal());
        let (from, action) = (rng.normals(&[6, 3]), rng.normals(&[6, 2]));
        let loss = model.forward(&flat, &from, &action).square().sum(Kind::Float);
        flat.backward(&loss).unwrap();
        for slot in &flat.layout {
            let gradient = &slice::<f32>(&flat.gradient)[slot.offset..slot.offset + slot.len()];
            assert!(gradient.iter().any(|&g| g != 0.0), "{} does not learn", slot.name);
        }
    }

    #[test]
    fn the_perceptron_by_hand() {
        let mut layout = Layout::default();
        let model = ForwardModel::new(&mut layout, "forward", ForwardKind::Mlp, 1, 1, 2);
        let mut flat = Flat::new(layout, &mut Stream::new(0, "forward", 0, 0));
        // Hidden: relu(φ + 2 a) and relu(−φ); out: 3 · first + 5 · second + 1.
        let values: [&[f32]; 4] = [&[1.0, 2.0, -1.0, 0.0], &[0.0, 0.0], &[3.0, 5.0], &[1.0]];
        for (slot, values) in flat.layout.clone().iter().zip(values) {
            slice_mut::<f32>(&mut flat.weights)[slot.offset..slot.offset + slot.len()]
                .copy_from_slice(values);
        }
        let column = |x: &[f32]| Tensor::from_slice(x).view([-1, 1]);
        let out = model.forward(&flat, &column(&[1.0, -2.0]), &column(&[0.5, 0.0]));
        assert_eq!(slice::<f32>(&out.detach()), [7.0, 11.0]);
    }
}
