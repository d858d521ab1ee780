//! Features of a variational auto-encoder (Kingma & Welling 2014), as Burda et al. 2018 use them for curiosity.

use imago::Stream;
use imago::nn::{Flat, Init, Layout, Linear};
use tch::{Kind, Tensor};

/// On top of an encoder: q(z | s), a normal with independent parts, and p(s | z), a normal of deviation 1 around what one
/// hidden layer decodes. The means of q are the features.
pub(crate) struct Vae {
    mean: Linear,
    log_variance: Linear,
    hidden: Linear,
    out: Linear,
    /// Numbers in z.
    pub features: i64,
}

impl Vae {
    /// Reserves the parameters: `encoded` numbers come from the encoder, `seen` are to be decoded, z has `width`.
    pub fn new(layout: &mut Layout, encoded: i64, width: i64, seen: i64) -> Self {
        let init = Init::GlorotUniform;
        Self {
            mean: Linear::new(layout, "vae/mean", encoded, width, init),
            // Deviations begin at 1.
            log_variance: Linear::new(layout, "vae/log_variance", encoded, width, Init::Constant(0.0)),
            hidden: Linear::new(layout, "vae/hidden", width, width, init),
            out: Linear::new(layout, "vae/out", width, seen, init),
            features: width,
        }
    }

    /// The features `[B, Z]` of what the encoder gave, `[B, F]`.
    pub fn mean(&self, flat: &Flat, encoded: &Tensor) -> Tensor {
        self.mean.forward(flat, encoded)
    }

    /// −log p(s | z) + KL(q(z | s) ‖ N(0, 1)), but for a constant, averaged over observations; one z each is drawn from
    /// q. `seen`, `[B, S]`, is what the encoder read.
    pub fn loss(&self, flat: &Flat, encoded: &Tensor, seen: &Tensor, rng: &mut Stream) -> Tensor {
        let (mean, log_variance) = (self.mean(flat, encoded), self.log_variance.forward(flat, encoded));
        let z = &mean + (&log_variance * 0.5).exp() * rng.normals(&mean.size());
        let decoded = self.out.forward(flat, &self.hidden.forward(flat, &z).relu());
        loss(&mean, &log_variance, &decoded, seen)
    }
}

/// ½ Σ (decoded − seen)² + ½ Σ (μ² + σ² − 1 − log σ²), averaged over rows.
fn loss(mean: &Tensor, log_variance: &Tensor, decoded: &Tensor, seen: &Tensor) -> Tensor {
    let sum = |x: Tensor| x.sum_dim_intlist([1i64].as_slice(), false, Kind::Float) * 0.5;
    let divergence = mean.square() + log_variance.exp() - 1.0 - log_variance;
    (sum((decoded - seen).square()) + sum(divergence)).mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::nn::Adam;

    #[test]
    fn loss_by_hand() {
        let row = |x: &[f32]| Tensor::from_slice(x).view([1, -1]);
        // ½ (1 + 4), and ½ (9 + 4 − 1 − log 4) + ½ (0 + 1 − 1 − 0).
        let wanted = 2.5 + 0.5 * (12.0 - 4f64.ln());
        let found = loss(&row(&[3.0, 0.0]), &row(&[4f32.ln(), 0.0]), &row(&[1.0, 0.0]), &row(&[0.0, 2.0]));
        assert!((found.double_value(&[]) - wanted).abs() < 1e-5);
    }

    /// What differs most in the data differs in the features.
    #[test]
    fn learns_to_tell_observations_apart() {
        let mut layout = Layout::default();
        let vae = Vae::new(&mut layout, 4, 8, 4);
        let mut rng = Stream::new(0, "vae", 0, 0);
        let mut flat = Flat::new(layout, &mut rng);
        let mut adam = Adam::new(&flat, 1e-8);
        let seen = Tensor::eye(4, (Kind::Float, tch::Device::Cpu)) * 4.0;
        let mut first = None;
        let mut last = 0.0;
        for _ in 0..400 {
            let loss = vae.loss(&flat, &seen, &seen, &mut rng);
            last = loss.double_value(&[]);
            first.get_or_insert(last);
            flat.backward(&loss).unwrap();
            adam.update(&mut flat, 1e-2);
        }
        // Without knowing which of the four it is, ½ · 4² · ¾ is the best: 6.
        assert!(first.unwrap() > 7.0 && last < 5.5, "{first:?} {last}");
    }
}
