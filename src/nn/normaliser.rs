//! Running mean and variance, per feature.

use crate::Result;
use crate::run::State;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Statistics of every feature over all batches seen, merged by Chan et al.'s parallel update.
///
/// One owner calls [`RunningNorm::update`] at one stated moment; everybody else only reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningNorm {
    /// Mean of each feature, 64-bit.
    pub mean: Vec<f64>,
    /// Population variance of each feature.
    pub variance: Vec<f64>,
    /// Rows seen.
    pub count: f64,
    /// Added to the variance under the root.
    pub epsilon: f64,
    /// Normalised values are clipped to ± this.
    pub clip: Option<f64>,
    /// Which features have statistics, the others keeping mean 0 and variance 1; all if absent.
    pub standardised: Option<Vec<bool>>,
}

impl RunningNorm {
    /// No rows seen: passes values through unchanged (mean 0, variance 1).
    pub fn new(features: usize, epsilon: f64, clip: Option<f64>) -> Self {
        let (mean, variance) = (vec![0.0; features], vec![1.0; features]);
        Self { mean, variance, count: 0.0, epsilon, clip, standardised: None }
    }

    /// Leaves features alone that are not `standardised`: one-hot choices, switches, pixels.
    pub fn only(mut self, standardised: Vec<bool>) -> Self {
        self.standardised = Some(standardised).filter(|standardised| standardised.contains(&false));
        self
    }

    /// Takes in `rows`, `[B, features]`.
    pub fn update(&mut self, rows: &Tensor) {
        let count = rows.size()[0] as f64;
        if count == 0.0 {
            return;
        }
        let rows = rows.to_kind(Kind::Double);
        let (variance, mean) = rows.var_mean_correction([0i64].as_slice(), 0.0, false);
        self.merge(&doubles(&mean), &doubles(&variance), count);
    }

    /// Takes in the pixels of `images`, of any shape, all of them of the one feature there is: floats, or bytes x as x / 255.
    pub fn update_pixels(&mut self, images: &Tensor) {
        if images.kind() != Kind::Uint8 {
            return self.update(&images.reshape([-1, 1]));
        }
        let counts = doubles(&images.reshape(-1).bincount::<Tensor>(None, 256).to_kind(Kind::Double));
        let count: f64 = counts.iter().sum();
        if count == 0.0 {
            return;
        }
        let shades = || (0..=255u8).map(|byte| f64::from(byte) / 255.0).zip(&counts);
        let mean = shades().map(|(x, count)| x * count).sum::<f64>() / count;
        let variance = shades().map(|(x, count)| (x - mean).powi(2) * count).sum::<f64>() / count;
        self.merge(&[mean], &[variance], count);
    }

    /// Takes in what has these statistics.
    fn merge(&mut self, mean: &[f64], variance: &[f64], count: f64) {
        let total = self.count + count;
        for i in 0..self.mean.len() {
            if self.standardised.as_ref().is_some_and(|standardised| !standardised[i]) {
                continue;
            }
            let delta = mean[i] - self.mean[i];
            let squares = if self.count == 0.0 { 0.0 } else { self.variance[i] * self.count }
                + variance[i] * count
                + delta * delta * if self.count == 0.0 { 0.0 } else { self.count * count / total };
            self.mean[i] += delta * count / total;
            self.variance[i] = squares / total;
        }
        self.count = total;
    }

    /// (x − mean) / √(variance + ε), clipped. `[…, features]` float32 in and out; any shape if there is one feature.
    pub fn normalise(&self, x: &Tensor) -> Tensor {
        let shift: Vec<f32> = self.mean.iter().map(|&m| m as f32).collect();
        let scale: Vec<f32> =
            self.variance.iter().map(|&v| (1.0 / (v + self.epsilon).sqrt()) as f32).collect();
        let y = (x - Tensor::from_slice(&shift)) * Tensor::from_slice(&scale);
        match self.clip {
            Some(clip) => y.clamp(-clip, clip),
            None => y,
        }
    }

    /// [`RunningNorm::normalise`] in plain memory: rows of `from`, `[…, features]`, into `to`, bit for bit the same.
    pub fn normalise_rows(&self, from: &[f32], to: &mut [f32]) {
        let features = self.mean.len();
        let clip = self.clip.map_or(f32::INFINITY, |clip| clip as f32);
        for (i, (&mean, &variance)) in self.mean.iter().zip(&self.variance).enumerate() {
            let (shift, scale) = (mean as f32, (1.0 / (variance + self.epsilon).sqrt()) as f32);
            let column = to.iter_mut().zip(from).skip(i).step_by(features);
            column.for_each(|(to, from)| *to = ((from - shift) * scale).clamp(-clip, clip));
        }
    }

    /// What [`RunningNorm::normalise`] makes of each byte x, read as x / 255, bit for bit; of the one feature there is.
    pub fn normalised_bytes(&self) -> [f32; 256] {
        let shades: [f32; 256] = std::array::from_fn(|byte| byte as f32 / 255.0);
        let mut normalised = [0.0; 256];
        self.normalise_rows(&shades, &mut normalised);
        normalised
    }

    /// Saves or restores the statistics.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.list("mean", &mut self.mean)?;
        state.list("variance", &mut self.variance)?;
        state.value("count", &mut self.count)
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.iter::<f64>().map(Iterator::collect).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn batches_merge_to_the_statistics_of_all_rows() {
        let rows = Stream::new(0, "rows", 0, 0).normals(&[100, 3]) * 4.0 + 7.0;
        let mut norm = RunningNorm::new(3, 0.0, None);
        for (start, len) in [(0, 1), (1, 60), (61, 39)] {
            norm.update(&rows.narrow(0, start, len));
        }
        let (variance, mean) = rows.var_mean_correction([0i64].as_slice(), 0.0, false);
        for i in 0..3 {
            assert!((norm.mean[i] - mean.double_value(&[i as i64])).abs() < 1e-5);
            assert!((norm.variance[i] - variance.double_value(&[i as i64])).abs() < 1e-4);
        }
        let normalised = norm.normalise(&rows);
        assert!(normalised.mean(Kind::Float).abs().double_value(&[]) < 1e-5);
        assert!((normalised.std(false).double_value(&[]) - 1.0).abs() < 1e-5);
        let mut plain = vec![0.0; 300];
        norm.normalise_rows(crate::memory::slice(&rows.contiguous()), &mut plain);
        assert_eq!(plain, crate::memory::slice::<f32>(&normalised));
    }

    #[test]
    fn bytes_count_as_parts_of_255() {
        let bytes = (Stream::new(0, "bytes", 0, 0).uniforms(&[7, 3, 5]) * 255.0).to_kind(Kind::Uint8);
        let (mut norm, mut rows) =
            (RunningNorm::new(1, 1e-8, Some(1.5)), RunningNorm::new(1, 1e-8, Some(1.5)));
        let scaled = bytes.to_kind(Kind::Float) / 255.0;
        for (start, len) in [(0, 1), (1, 6)] {
            norm.update_pixels(&bytes.narrow(0, start, len));
            rows.update_pixels(&scaled.narrow(0, start, len));
        }
        assert!(
            (norm.mean[0] - rows.mean[0]).abs() < 1e-7 && (norm.variance[0] - rows.variance[0]).abs() < 1e-7
        );
        assert_eq!(norm.count, 105.0);
        let normalised = norm.normalise(&scaled);
        let shades = norm.normalised_bytes();
        let found: Vec<f32> =
            crate::memory::slice::<u8>(&bytes).iter().map(|&b| shades[usize::from(b)]).collect();
        assert_eq!(found, crate::memory::slice::<f32>(&normalised));
        assert!(normalised.max().double_value(&[]) == 1.5, "the clip was not reached");
    }

    #[test]
    fn untouched_statistics_change_nothing_but_clip() {
        let norm = RunningNorm::new(2, 0.0, Some(10.0));
        let x = Tensor::from_slice(&[3.0f32, -50.0]);
        assert_eq!(norm.normalise(&x), Tensor::from_slice(&[3.0f32, -10.0]));
    }
}
