//! Losses and regularisers of a discriminator and of a generator, as pure functions of logits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What discriminator and generator minimise, from logits x. Real is 1 everywhere: a higher logit means "real".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Adversarial {
    /// Binary cross-entropy; the generator maximises log D, and does not minimise log (1 − D) (Goodfellow et al. 2014).
    #[default]
    NonSaturating,
    /// softplus(−x) of real and softplus(x) of generated images: another way to write "non-saturating", under which
    /// papers with R1 know it (Mescheder et al. 2018).
    Logistic,
    /// (x − 1)² and x² (LSGAN, Mao et al. 2017).
    LeastSquares,
    /// max(0, 1 − x) and max(0, 1 + x); the generator's is −x (Lim & Ye 2017).
    Hinge,
    /// Cross-entropy of two logits, of which the second one means real (Vondrick et al. 2016).
    TwoClass,
    /// −x and x, for a critic that a gradient penalty keeps Lipschitz (WGAN, Arjovsky et al. 2017).
    Wasserstein,
}

impl Adversarial {
    /// How many numbers the discriminator gives for an image.
    pub fn outputs(self) -> i64 {
        if self == Adversarial::TwoClass { 2 } else { 1 }
    }

    /// What the discriminator minimises: the mean over real images plus that over generated ones. Logits are `[B]`, or
    /// `[B, …]` of patches; `[B, 2]` of two classes.
    pub fn discriminator_loss(self, real: &Tensor, generated: &Tensor) -> Tensor {
        let mean = |x: Tensor| x.mean(Kind::Float);
        match self {
            Adversarial::NonSaturating => discriminator_loss(real, generated, 0.0),
            Adversarial::Logistic => mean((-real).softplus()) + mean(generated.softplus()),
            Adversarial::LeastSquares => mean((real - 1.0).square()) + mean(generated.square()),
            Adversarial::Hinge => mean((-real + 1.0).relu()) + mean((generated + 1.0).relu()),
            Adversarial::TwoClass => mean(-class(real, 1)) + mean(-class(generated, 0)),
            Adversarial::Wasserstein => mean(generated.shallow_clone()) - mean(real.shallow_clone()),
        }
    }

    /// What the generator minimises.
    pub fn generator_loss(self, generated: &Tensor) -> Tensor {
        match self {
            Adversarial::NonSaturating => cross_entropy(generated, 1.0),
            Adversarial::Logistic => (-generated).softplus().mean(Kind::Float),
            Adversarial::LeastSquares => (generated - 1.0).square().mean(Kind::Float),
            Adversarial::Hinge | Adversarial::Wasserstein => -generated.mean(Kind::Float),
            Adversarial::TwoClass => -class(generated, 1).mean(Kind::Float),
        }
    }

    /// How far a logit lies on the real side: above 0 the discriminator says "real". `[B]`.
    pub fn margin(self, logits: &Tensor) -> Tensor {
        match self {
            Adversarial::LeastSquares => logits - 0.5,
            Adversarial::TwoClass => logits.select(-1, 1) - logits.select(-1, 0),
            _ => logits.shallow_clone(),
        }
    }
}

/// log softmax of the logits `[…, 2]`, the part of `class`.
fn class(logits: &Tensor, class: i64) -> Tensor {
    logits.log_softmax(-1, Kind::Float).select(-1, class)
}

/// Binary cross-entropy of logits x against labels y, averaged: mean of softplus(x) − y·x.
fn cross_entropy(logits: &Tensor, label: f64) -> Tensor {
    (logits.softplus() - logits * label).mean(Kind::Float)
}

/// Class-balanced discriminator loss: each class is averaged by itself, so that neither outweighs the other
/// whatever their numbers. 2·log 2 where D = ½ everywhere.
///
/// L = mean over real of −log σ(x) + mean over generated of −log(1 − σ(x)). `smoothing` ε trains towards the
/// labels 1 − ε and 0 + ε, not 1 and 0 (Salimans et al. 2016, both sides).
pub fn discriminator_loss(real: &Tensor, generated: &Tensor, smoothing: f64) -> Tensor {
    cross_entropy(real, 1.0 - smoothing) + cross_entropy(generated, smoothing)
}

/// As [`discriminator_loss`], where each real row counts as much as its `weight`, `[B]`, says: Σ w · loss / B (Kostrikov
/// et al. 2019, for rows of a state that was sampled more densely than others).
pub fn weighted_discriminator_loss(
    real: &Tensor,
    weight: Option<&Tensor>,
    generated: &Tensor,
    smoothing: f64,
) -> Tensor {
    match weight {
        None => discriminator_loss(real, generated, smoothing),
        Some(weight) => {
            let each = (real.softplus() - real * (1.0 - smoothing)) * weight;
            each.mean(Kind::Float) + cross_entropy(generated, smoothing)
        }
    }
}

/// Mean entropy of the Bernoulli distributions σ(x), in nats: (1 − σ(x))·x + softplus(−x).
pub fn bernoulli_entropy(logits: &Tensor) -> Tensor {
    let generated_probability: Tensor = 1.0 - logits.sigmoid();
    (generated_probability * logits + (-logits).softplus()).mean(Kind::Float)
}

/// Share of logits on the real side, or with `real = false` on the generated side, in `[0, 1]`.
pub fn accuracy(logits: &Tensor, real: bool) -> f64 {
    let right = if real { logits.gt(0.0) } else { logits.le(0.0) };
    right.to_kind(Kind::Float).mean(Kind::Float).double_value(&[])
}

/// (‖∇ₓ f(x̂)‖ − target)², averaged over points x̂ = u·real + (1 − u)·generated (Gulrajani et al. 2017).
///
/// `real` and `generated` are `[B, …]`, vectors or images, `mix` is u, `[B, 1, …]` in `[0, 1]`; `f` gives logits `[B]`.
/// The result can be differentiated by the discriminator's parameters.
pub fn gradient_penalty(
    f: impl Fn(&Tensor) -> Tensor,
    real: &Tensor,
    generated: &Tensor,
    mix: &Tensor,
    target: f64,
) -> crate::Result<Tensor> {
    let between = generated.lerp_tensor(real, mix).detach().set_requires_grad(true);
    let logits = f(&between).sum(Kind::Float);
    let gradient = Tensor::f_run_backward(&[&logits], &[&between], true, true)?.remove(0);
    // The 1e-12 keeps the root differentiable where the gradient is 0.
    let norm = (squared_norms(&gradient) + 1e-12).sqrt();
    Ok((norm - target).square().mean(Kind::Float))
}

/// ‖∇ₓ f(x)‖² averaged over the real images x (R1, Mescheder et al. 2018; the factor γ / 2 is the caller's).
///
/// `real` is `[B, …]`, `f` gives logits `[B]`. The result can be differentiated by the discriminator's parameters. Used
/// lazily, every r-th step with r times the factor, it costs little (Karras et al. 2020).
pub fn r1_penalty(f: impl Fn(&Tensor) -> Tensor, real: &Tensor) -> crate::Result<Tensor> {
    let real = real.detach().set_requires_grad(true);
    let logits = f(&real).sum(Kind::Float);
    let gradient = Tensor::f_run_backward(&[&logits], &[&real], true, true)?.remove(0);
    Ok(squared_norms(&gradient).mean(Kind::Float))
}

/// ‖x‖² of each row, `[B, …]` → `[B]`.
fn squared_norms(x: &Tensor) -> Tensor {
    x.flatten(1, -1).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
}

/// One step of power iteration on W, `[out, …]`: v ← Wᵀu/‖·‖, u ← Wv/‖·‖ (Miyato et al. 2018, algorithm 1).
/// `u`, `[out]`, is updated in place and is part of the discriminator's state.
pub fn power_iteration(weight: &Tensor, u: &mut Tensor) {
    tch::no_grad(|| {
        let matrix = weight.flatten(1, -1);
        let unit = |x: Tensor| &x / (x.norm() + 1e-12);
        let v = unit(matrix.tr().mv(u));
        u.copy_(&unit(matrix.mv(&v)));
    });
}

/// W / σ(W), where σ(W) = uᵀ W v is the largest singular value as `u` from [`power_iteration`] knows it.
/// Differentiable in W.
pub fn spectrally_normalised(weight: &Tensor, u: &Tensor) -> Tensor {
    let matrix = weight.flatten(1, -1);
    let v = tch::no_grad(|| {
        let v = matrix.tr().mv(u);
        &v / (v.norm() + 1e-12)
    });
    let sigma = u.dot(&matrix.mv(&v));
    weight / sigma
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Stream;

    fn near(tensor: Tensor, wanted: f64) {
        let got = tensor.double_value(&[]);
        assert!((got - wanted).abs() < 1e-5, "{got} is not {wanted}");
    }

    fn logits(values: &[f32]) -> Tensor {
        Tensor::from_slice(values)
    }

    #[test]
    fn loss_by_hand() {
        let ln2 = 2f64.ln();
        near(discriminator_loss(&logits(&[0.0]), &logits(&[0.0, 0.0]), 0.0), 2.0 * ln2);
        // D(real) = ¾, D(generated) = ¼: −2 log ¾, whatever the numbers of rows.
        let x = 3f32.ln();
        near(discriminator_loss(&logits(&[x, x, x]), &logits(&[-x]), 0.0), -2.0 * 0.75f64.ln());
        // Smoothed by 0.1: −0.9 log ¾ − 0.1 log ¼, twice.
        let smoothed = -1.8 * 0.75f64.ln() - 0.2 * 0.25f64.ln();
        near(discriminator_loss(&logits(&[x]), &logits(&[-x]), 0.1), smoothed);
        // Far on the wrong side: no overflow.
        near(discriminator_loss(&logits(&[-1000.0]), &logits(&[1000.0]), 0.0), 2000.0);
    }

    #[test]
    fn rows_count_by_their_weights() {
        // D = ¾ and ¼ of two real rows, the second one counting a twentieth: −(log ¾ + log ¼ / 20) / 2; ½ beside them.
        let x = 3f32.ln();
        let weight = logits(&[1.0, 0.05]);
        let loss = weighted_discriminator_loss(&logits(&[x, -x]), Some(&weight), &logits(&[0.0]), 0.0);
        near(loss, -(0.75f64.ln() + 0.25f64.ln() / 20.0) / 2.0 + 2f64.ln());
        let plain = weighted_discriminator_loss(&logits(&[x]), None, &logits(&[-x]), 0.1);
        near(plain, discriminator_loss(&logits(&[x]), &logits(&[-x]), 0.1).double_value(&[]));
    }

    #[test]
    fn real_is_one() {
        let (x, labels) = (Tensor::from_slice(&[0.0f32]).set_requires_grad(true), 0.0);
        let loss = discriminator_loss(&x, &logits(&[0.0]), labels);
        assert!(Tensor::run_backward(&[loss], &[&x], false, false)[0].double_value(&[0]) < 0.0);
        assert_eq!(accuracy(&logits(&[1.0, 2.0, -1.0, 3.0]), true), 0.75);
        assert_eq!(accuracy(&logits(&[1.0, 2.0, -1.0, 3.0]), false), 0.25);
    }

    #[test]
    fn entropy_by_hand() {
        near(bernoulli_entropy(&logits(&[0.0])), 2f64.ln());
        let p = 0.75f64;
        near(bernoulli_entropy(&logits(&[3f32.ln()])), -p * p.ln() - (1.0 - p) * (1.0 - p).ln());
        near(bernoulli_entropy(&logits(&[500.0, -500.0])), 0.0);
    }

    #[test]
    fn penalty_of_a_linear_critic_is_known_and_differentiable() {
        // f(x) = w·x has gradient w everywhere: ‖(3, 4)‖ = 5, (5 − 1)² = 16, d/dw = 2·(5 − 1)·w/5.
        let w = Tensor::from_slice(&[3.0f32, 4.0]).set_requires_grad(true);
        let (real, fake) =
            (Tensor::zeros([7, 2], (Kind::Float, w.device())), Stream::new(0, "x", 0, 0).normals(&[7, 2]));
        let mix = Stream::new(0, "mix", 0, 0).uniforms(&[7, 1]);
        let penalty = gradient_penalty(|x| x.mv(&w), &real, &fake, &mix, 1.0).unwrap();
        near(penalty.shallow_clone(), 16.0);
        let gradient = Tensor::run_backward(&[penalty], &[&w], false, false).remove(0);
        near(gradient.get(0), 2.0 * 4.0 * 0.6);
        near(gradient.get(1), 2.0 * 4.0 * 0.8);
    }

    #[test]
    fn losses_of_every_kind_by_hand() {
        use Adversarial::*;
        let (real, generated) = (logits(&[2.0, -1.0]), logits(&[0.5]));
        let softplus = |x: f64| x.exp().ln_1p();
        let cross = (softplus(-2.0) + softplus(1.0)) / 2.0 + softplus(0.5);
        for (kind, discriminator, generator) in [
            (NonSaturating, cross, softplus(-0.5)),
            (Logistic, cross, softplus(-0.5)),
            (LeastSquares, (1.0 + 4.0) / 2.0 + 0.25, 0.25),
            // max(0, 1 − 2) = 0 and max(0, 1 + 1) = 2; 1 + ½.
            (Hinge, 1.0 + 1.5, -0.5),
            (Wasserstein, 0.5 - 0.5, -0.5),
        ] {
            near(kind.discriminator_loss(&real, &generated), discriminator);
            near(kind.generator_loss(&generated), generator);
            assert_eq!(kind.outputs(), 1);
        }
        // Two logits (a, b) count as one of b − a.
        let pair = |x: &[f32]| Tensor::from_slice(x).view([-1, 2]);
        let (real, generated) = (pair(&[1.0, 3.0, 0.5, -0.5]), pair(&[0.0, 0.5]));
        near(TwoClass.discriminator_loss(&real, &generated), cross);
        near(TwoClass.generator_loss(&generated), softplus(-0.5));
        assert_eq!(Vec::<f32>::try_from(TwoClass.margin(&real)).unwrap(), [2.0, -1.0]);
        assert_eq!(Vec::<f32>::try_from(LeastSquares.margin(&logits(&[0.75]))).unwrap(), [0.25]);
    }

    #[test]
    fn every_loss_moves_real_up_and_generated_down_and_the_generator_up() {
        use Adversarial::*;
        for kind in [NonSaturating, Logistic, LeastSquares, Hinge, TwoClass, Wasserstein] {
            let shape = [4, kind.outputs()];
            let zeros = || Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
            let (real, generated) = (zeros(), zeros());
            let of = |loss: Tensor, x: &Tensor| -> f64 {
                let gradient = Tensor::run_backward(&[loss], &[x], true, false).remove(0);
                gradient.select(1, kind.outputs() - 1).sum(Kind::Float).double_value(&[])
            };
            assert!(of(kind.discriminator_loss(&real, &generated), &real) < 0.0, "{kind:?}");
            // At x = 0 the square has no slope.
            let up = of(kind.discriminator_loss(&real, &(&generated + 0.1)), &generated);
            assert!(up > 0.0, "{kind:?}");
            assert!(of(kind.generator_loss(&generated), &generated) < 0.0, "{kind:?}");
        }
    }

    #[test]
    fn penalties_of_images_are_those_of_their_pixels() {
        // f(x) = Σ w · x² over 3 × 1 × 2 pixels: ∇ = 2 w x. With x = 1 and Σ w² = 30: R1 = 4 · 30 = 120, d/dw = 8 w.
        let w =
            Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 0.0, 0.0]).view([3, 1, 2]).set_requires_grad(true);
        let f = |x: &Tensor| {
            (x.square() * &w).flatten(1, -1).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
        };
        let images = Tensor::ones([5, 3, 1, 2], (Kind::Float, tch::Device::Cpu));
        let penalty = r1_penalty(f, &images).unwrap();
        near(penalty.shallow_clone(), 120.0);
        let gradient = Tensor::run_backward(&[penalty], &[&w], false, false).remove(0);
        near(gradient.get(1).get(0).get(1), 8.0 * 4.0);
        // Real and generated images are the same here, so every point between them is, too.
        let mix = Stream::new(0, "mix", 0, 0).uniforms(&[5, 1, 1, 1]);
        let penalty = gradient_penalty(f, &images, &images, &mix, 1.0).unwrap();
        near(penalty, (120f64.sqrt() - 1.0).powi(2));
    }

    #[test]
    fn spectral_norm_is_the_largest_singular_value() {
        let w = Tensor::from_slice2(&[[3.0f32, 0.0, 0.0], [0.0, 1.0, 0.5]]);
        let mut u = Tensor::from_slice(&[0.6f32, 0.8]);
        for _ in 0..50 {
            power_iteration(&w, &mut u);
        }
        near(spectrally_normalised(&w, &u).get(0).get(0), 1.0);
    }
}
