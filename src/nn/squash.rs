//! Actions within bounds: a box seen as `[-1, 1]` in each of its numbers, and tanh, which leads there.

use crate::memory::slice;
use crate::{Error, Result};
use imago_envs::{Dtype, Space};
use serde::{Deserialize, Serialize};
use std::f32::consts::LN_2;
use tch::Tensor;

/// Log standard deviations of squashed normals are kept within these (Haarnoja et al. 2018, their code).
pub const LOG_STD_RANGE: [f32; 2] = [-20.0, 2.0];

/// How a policy acts on boxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxHead {
    /// Independent normals, unsquashed, with a log standard deviation that is the same in every state.
    #[default]
    Gaussian,
    /// tanh of independent normals, stretched to the bounds; mean and log standard deviation both depend on the state.
    SquashedGaussian,
    /// tanh, stretched to the bounds. Sampling adds normal noise, clipped by whoever executes the action.
    Deterministic {
        /// Standard deviation of that noise in units of half the box.
        noise: f64,
    },
}

/// The bounds of a box: an action is centre + half · u with u in `[-1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// `[A]`
    pub centre: Vec<f32>,
    /// `[A]`, all positive.
    pub half: Vec<f32>,
}

impl Bounds {
    /// Those of a space.
    ///
    /// # Errors
    /// A space that is no box of floats with two finite bounds, the lower one below the upper, for every number.
    pub fn of(space: &Space) -> Result<Self> {
        let refused = |why: &str| {
            Err(Error::Invalid(format!(
                "actions of {space} {why}: this learner acts within bounds; learner.kind = \"ppo\" takes others"
            )))
        };
        let Space::Box { low, high, dtype: Dtype::F32, .. } = space else {
            return refused("are no box of floats");
        };
        let pairs = || low.iter().zip(high);
        if pairs().any(|(low, high)| !(high - low).is_finite() || low >= high) {
            return refused("have no finite bounds on both sides");
        }
        Ok(Self {
            centre: pairs().map(|(low, high)| (0.5 * (low + high)) as f32).collect(),
            half: pairs().map(|(low, high)| (0.5 * (high - low)) as f32).collect(),
        })
    }

    /// Numbers of an action, A.
    pub fn width(&self) -> usize {
        self.half.len()
    }

    /// Actions `[B, A]` as u in `[-1, 1]`, what lies outside being executed at the bound.
    pub fn unit(&self, actions: &Tensor) -> Tensor {
        let (centre, half) = self.tensors();
        ((actions.reshape([-1, self.width() as i64]) - centre) / half).clamp(-1.0, 1.0)
    }

    /// Centre and half as tensors, `[A]` each.
    pub fn tensors(&self) -> (Tensor, Tensor) {
        (Tensor::from_slice(&self.centre), Tensor::from_slice(&self.half))
    }

    /// The action of u = tanh x in the `i`-th number.
    pub fn stretch(&self, i: usize, u: f32) -> f32 {
        self.centre[i] + self.half[i] * u
    }
}

/// log(1 − tanh² x), the logarithm of tanh's slope: 2 (log 2 − |x| − log(1 + e^(−2|x|))), which does not cancel.
pub fn log_slope(x: f32) -> f32 {
    let x = x.abs();
    2.0 * (LN_2 - x - (-2.0 * x).exp().ln_1p())
}

/// As [`log_slope`], elementwise and with gradients.
pub fn log_slope_of(x: &Tensor) -> Tensor {
    (x * -2.0).softplus().neg() * 2.0 - x * 2.0 + 2.0 * f64::from(LN_2)
}

/// The u in `[-1, 1]` of contiguous actions, flat, into `to`.
pub fn unit_rows(bounds: &Bounds, actions: &Tensor, to: &mut Vec<f32>) {
    let width = bounds.width();
    to.clear();
    to.extend(
        slice::<f32>(actions).iter().enumerate().map(|(i, action)| {
            ((action - bounds.centre[i % width]) / bounds.half[i % width]).clamp(-1.0, 1.0)
        }),
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds_are_stretched_to_and_back() {
        let space =
            Space::Box { shape: vec![2], dtype: Dtype::F32, low: vec![-1.0, 0.0], high: vec![3.0, 1.0] };
        let bounds = Bounds::of(&space).unwrap();
        assert_eq!(
            (bounds.stretch(0, 1.0), bounds.stretch(1, -1.0), bounds.stretch(0, 0.0)),
            (3.0, 0.0, 1.0)
        );
        let actions = Tensor::from_slice2(&[[3f32, 0.5], [-9.0, 9.0]]);
        let wanted = [1f32, 0.0, -1.0, 1.0];
        assert_eq!(Vec::<f32>::try_from(bounds.unit(&actions).reshape(-1)).unwrap(), wanted);
        let mut rows = vec![7.0];
        unit_rows(&bounds, &actions, &mut rows);
        assert_eq!(rows, wanted);
    }

    #[test]
    fn what_has_no_bounds_is_refused() {
        for space in
            [Space::floats(&[1], f64::NEG_INFINITY, 1.0), Space::floats(&[1], 1.0, 1.0), Space::discrete(3)]
        {
            let message = Bounds::of(&space).unwrap_err().to_string();
            assert!(message.contains("bounds") && message.contains("ppo"), "{message}");
        }
    }

    #[test]
    fn the_slope_of_tanh_is_exact_far_out() {
        // 1 − tanh² ½ = 0.786448; at 20 it is 4 e^−40 to all digits, where 1 − tanh² is 0 in floats.
        for (x, wanted) in
            [(0.5, 0.786_447_7f64.ln()), (0.0, 0.0), (20.0, 4f64.ln() - 40.0), (-20.0, 4f64.ln() - 40.0)]
        {
            assert!((f64::from(log_slope(x)) - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{x}");
            let tensor = log_slope_of(&Tensor::from_slice(&[x])).double_value(&[0]);
            assert!((tensor - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{x}: {tensor}");
        }
    }
}
