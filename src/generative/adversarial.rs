//! Losses and regularisers of a discriminator, as pure functions of logits.

use tch::{Kind, Tensor};

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
/// `real` and `generated` are `[B, F]`, `mix` is u, `[B, 1]` in `[0, 1]`; `f` gives logits `[B]`. The result
/// can be differentiated by the discriminator's parameters.
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
    let norm = (gradient.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float) + 1e-12).sqrt();
    Ok((norm - target).square().mean(Kind::Float))
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
    fn spectral_norm_is_the_largest_singular_value() {
        let w = Tensor::from_slice2(&[[3.0f32, 0.0, 0.0], [0.0, 1.0, 0.5]]);
        let mut u = Tensor::from_slice(&[0.6f32, 0.8]);
        for _ in 0..50 {
            power_iteration(&w, &mut u);
        }
        near(spectrally_normalised(&w, &u).get(0).get(0), 1.0);
    }
}
