//! How good generated images are, from features of them and of real ones. Which features says the caller, and every
//! report names them: the same formula over other features gives other numbers.

use crate::random::Stream;
use crate::{Error, Result};
use serde::Serialize;
use tch::{Kind, Tensor};

/// Mean Euclidean distance of two different rows of `[N, D]`; 0 if there are fewer than two.
pub fn diversity(rows: &Tensor) -> f64 {
    let count = rows.size()[0];
    if count < 2 {
        return 0.0;
    }
    let distances = tch::no_grad(|| rows.to_kind(Kind::Float).contiguous().pdist(2.0));
    distances.mean(Kind::Double).double_value(&[])
}

/// For each row of `[N, D]` the nearest one of the `parts`, each `[M, D]`, by Euclidean distance: its number, counted
/// through all parts, and how far it is. Distances are computed through products and are rounded: about 0 is 0.
///
/// # Errors
/// No row to be near to; libtorch's.
pub fn nearest(rows: &Tensor, parts: impl IntoIterator<Item = Tensor>) -> Result<(Vec<i64>, Vec<f64>)> {
    let rows = rows.to_kind(Kind::Float);
    let mut places = vec![0; rows.size()[0] as usize];
    let mut distances = vec![f64::INFINITY; places.len()];
    let mut first = 0;
    for part in parts {
        let part = part.to_kind(Kind::Float);
        let (near, at) =
            tch::no_grad(|| Tensor::f_cdist(&rows, &part, 2.0, None::<i64>)?.f_min_dim(1, false))?;
        let (near, at) = (Vec::<f32>::try_from(near)?, Vec::<i64>::try_from(at)?);
        for (i, (near, at)) in near.into_iter().zip(at).enumerate() {
            if f64::from(near) < distances[i] {
                (distances[i], places[i]) = (f64::from(near), first + at);
            }
        }
        first += part.size()[0];
    }
    match first {
        0 => Err(Error::Invalid("nothing is near: there are no other images".into())),
        _ => Ok((places, distances)),
    }
}

/// Fréchet distance of two sets of features, `[N, D]` and `[M, D]`, each taken for a normal distribution (Heusel et al.
/// 2017): ‖μ − ν‖² + tr(Σ + Ω − 2 (Σ Ω)^½), with unbiased covariances and in 64 bits.
///
/// tr (Σ Ω)^½ is the sum of the roots of the eigenvalues of Σ^½ Ω Σ^½, which is symmetric: no root of a matrix that is
/// not, and nothing imaginary. Biased upwards for few images, and for fewer than D a covariance has no full rank.
///
/// # Errors
/// Fewer than two rows; libtorch's.
pub fn frechet_distance(real: &Tensor, generated: &Tensor) -> Result<f64> {
    tch::no_grad(|| {
        let (mean, covariance) = moments(real)?;
        let (other_mean, other) = moments(generated)?;
        let (values, vectors) = covariance.f_linalg_eigh("L")?;
        let root =
            vectors.f_matmul(&values.clamp_min(0.0).sqrt().diag_embed(0, -2, -1))?.f_matmul(&vectors.tr())?;
        let product = root.f_matmul(&other)?.f_matmul(&root)?;
        let eigenvalues = ((&product + product.tr()) * 0.5).f_linalg_eigvalsh("L")?;
        let root_trace = eigenvalues.clamp_min(0.0).sqrt().sum(Kind::Double);
        let shift = (mean - other_mean).square().sum(Kind::Double);
        Ok((shift + covariance.trace() + other.trace() - root_trace * 2.0).double_value(&[]))
    })
}

/// Mean and unbiased covariance of rows, in 64 bits.
fn moments(rows: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = rows.to_kind(Kind::Double);
    let count = rows.size()[0];
    if count < 2 {
        return Err(Error::Invalid(format!("a covariance needs at least 2 images, here are {count}")));
    }
    let mean = rows.mean_dim([0i64].as_slice(), false, Kind::Double);
    let centred = rows - &mean;
    Ok((mean, centred.tr().f_matmul(&centred)? / (count - 1) as f64))
}

/// Kernel distance of two sets of features (KID, Bińkowski et al. 2018).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KernelDistance {
    /// Mean over subsets. May be below 0, as an unbiased estimate of 0 must be half of the time.
    pub mean: f64,
    /// Standard deviation over subsets.
    pub std: f64,
}

/// The unbiased squared maximum mean discrepancy with the kernel (xᵀy / D + 1)³, over `subsets` random subsets of at most
/// `size` rows of each set, in 64 bits.
///
/// # Errors
/// Fewer than two rows; libtorch's.
pub fn kernel_distance(
    real: &Tensor,
    generated: &Tensor,
    subsets: usize,
    size: usize,
    rng: &mut Stream,
) -> Result<KernelDistance> {
    let rows = real.size()[0].min(generated.size()[0]) as usize;
    let size = size.min(rows);
    if size < 2 {
        return Err(Error::Invalid(format!("a kernel distance needs at least 2 images, here are {rows}")));
    }
    let mut draw = |set: &Tensor| -> Result<Tensor> {
        let mut order = rng.permutation(set.size()[0] as usize);
        order.truncate(size);
        Ok(set.f_index_select(0, &Tensor::from_slice(&order))?.to_kind(Kind::Double))
    };
    let mut distances = Vec::with_capacity(subsets);
    for _ in 0..subsets {
        let (x, y) = (draw(real)?, draw(generated)?);
        distances.push(squared_discrepancy(&x, &y)?);
    }
    let mean = distances.iter().sum::<f64>() / subsets as f64;
    let variance = distances.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / subsets as f64;
    Ok(KernelDistance { mean, std: variance.sqrt() })
}

/// Σ_{i≠j} k(xᵢ, xⱼ) / m(m − 1) + the same of y − 2 Σ k(xᵢ, yⱼ) / m², for as many rows of both.
fn squared_discrepancy(x: &Tensor, y: &Tensor) -> Result<f64> {
    let (count, width) = (x.size()[0] as f64, x.size()[1] as f64);
    let kernel = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        Ok((a.f_matmul(&b.tr())? / width + 1.0).pow_tensor_scalar(3))
    };
    let (xx, yy, xy) = (kernel(x, x)?, kernel(y, y)?, kernel(x, y)?);
    let within = |k: &Tensor| (k.sum(Kind::Double) - k.trace()) / (count * (count - 1.0));
    Ok((within(&xx) + within(&yy) - xy.sum(Kind::Double) * (2.0 / (count * count))).double_value(&[]))
}

/// How much of one set of images lies among another's (Kynkäänniemi et al. 2019).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// Share of generated images that are as near to a real one as its third neighbour is.
    pub precision: f64,
    /// Share of real images that are as near to a generated one as its third neighbour is.
    pub recall: f64,
}

/// Precision and recall with k = 3 neighbours, from features `[N, D]` and `[M, D]`.
///
/// # Errors
/// Fewer than five rows; libtorch's.
pub fn precision_recall(real: &Tensor, generated: &Tensor) -> Result<PrecisionRecall> {
    const NEIGHBOURS: i64 = 3;
    let rows = real.size()[0].min(generated.size()[0]);
    if rows < NEIGHBOURS + 2 {
        return Err(Error::Invalid(format!("precision and recall need at least 5 images, here are {rows}")));
    }
    // Each row is its own nearest one.
    let radii = |set: &Tensor| -> Result<Tensor> {
        Ok(Tensor::f_cdist(set, set, 2.0, 2)?.f_kthvalue(NEIGHBOURS + 1, 1, false)?.0)
    };
    let within = |set: &Tensor, others: &Tensor| -> Result<f64> {
        let near = Tensor::f_cdist(others, set, 2.0, 2)?.f_le_tensor(&radii(set)?)?.f_any_dim(1, false)?;
        Ok(near.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
    };
    tch::no_grad(|| {
        let (real, generated) = (real.to_kind(Kind::Double), generated.to_kind(Kind::Double));
        Ok(PrecisionRecall { precision: within(&real, &generated)?, recall: within(&generated, &real)? })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(width: i64, values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, width])
    }

    fn near(got: f64, wanted: f64) {
        assert!((got - wanted).abs() < 1e-6 * wanted.abs().max(1.0), "{got} is not {wanted}");
    }

    #[test]
    fn diversity_by_hand() {
        // Distances 5, 5 and 6 of a triangle.
        near(diversity(&rows(2, &[0.0, 0.0, 3.0, 4.0, 6.0, 0.0])), 16.0 / 3.0);
        near(diversity(&rows(2, &[1.0, 1.0])), 0.0);
    }

    #[test]
    fn nearest_by_hand() {
        let parts = [rows(2, &[0.0, 0.0, 3.0, 4.0]), rows(2, &[6.0, 0.0])];
        let (places, distances) = nearest(&rows(2, &[6.0, 1.0, 0.0, 0.0]), parts).unwrap();
        assert_eq!(places, [2, 0]);
        near(distances[0], 1.0);
        near(distances[1], 0.0);
        assert!(nearest(&rows(2, &[0.0, 0.0]), []).is_err());
    }

    #[test]
    fn frechet_distance_has_its_closed_forms() {
        let x = Stream::new(0, "x", 0, 0).normals(&[500, 4]);
        near(frechet_distance(&x, &x).unwrap(), 0.0);
        // Another mean, the same covariance: ‖δ‖².
        let shifted = &x + Tensor::from_slice(&[1.0f32, -2.0, 0.0, 0.5]);
        let distance = frechet_distance(&x, &shifted).unwrap();
        assert!((distance - 5.25).abs() < 1e-5, "{distance}");
        // Covariances diag(2, 32) and diag(8, 2) of the corners of a square: Σ (√a − √b)².
        let corners = |a: f32, b: f32| rows(2, &[a, b, a, -b, -a, b, -a, -b]);
        let variance = |x: f64| 4.0 * x * x / 3.0;
        let wanted = (variance(1.0).sqrt() - variance(2.0).sqrt()).powi(2)
            + (variance(4.0).sqrt() - variance(1.0).sqrt()).powi(2);
        near(frechet_distance(&corners(1.0, 4.0), &corners(2.0, 1.0)).unwrap(), wanted);
        // More features than images: a covariance without full rank.
        let (few, others) =
            (Stream::new(0, "a", 0, 0).normals(&[5, 20]), Stream::new(0, "b", 0, 0).normals(&[5, 20]));
        assert!(frechet_distance(&few, &others).unwrap() > 0.0);
        assert!(frechet_distance(&few.narrow(0, 0, 1), &others).is_err());
    }

    #[test]
    fn kernel_distance_by_hand_and_without_bias() {
        // One feature: k(x, y) = (x y + 1)³. Within {0, 1}: 1; within {1, 2}: 27; between: 1, 1, 8, 27.
        let distance = squared_discrepancy(
            &rows(1, &[0.0, 1.0]).to_kind(Kind::Double),
            &rows(1, &[1.0, 2.0]).to_kind(Kind::Double),
        );
        near(distance.unwrap(), 1.0 + 27.0 - 2.0 * 37.0 / 4.0);
        let mut rng = Stream::new(0, "subsets", 0, 0);
        let normals = |name: &str| Stream::new(0, name, 0, 0).normals(&[2000, 8]);
        let same = kernel_distance(&normals("x"), &normals("y"), 50, 200, &mut rng).unwrap();
        assert!(same.mean.abs() < 3.0 * same.std, "{same:?}");
        let other = kernel_distance(&normals("x"), &(normals("y") + 1.0), 50, 200, &mut rng).unwrap();
        assert!(other.mean > 10.0 * other.std, "{other:?}");
    }

    #[test]
    fn precision_and_recall_by_hand() {
        // Third neighbours: of 0 to 4 at 3, 2, 2, 2 and 3; of those at 100 a lone one is far from everything.
        let real = rows(1, &[0.0, 1.0, 2.0, 3.0, 4.0]);
        let near_and_far = rows(1, &[2.0, 2.5, 3.0, 3.5, 100.0]);
        let found = precision_recall(&real, &near_and_far).unwrap();
        assert_eq!(found.precision, 0.8);
        // Third neighbours of these: 1.5, 1, 1, 1.5 and 97.5 away. 0 is 2 away from the nearest and 100 from the far one.
        assert_eq!(found.recall, 0.8);
        let apart = precision_recall(&real, &(&real + 50.0)).unwrap();
        assert_eq!((apart.precision, apart.recall), (0.0, 0.0));
    }

    /// Values of other libraries on the same features: SciPy 1.17's `sqrtm` in the Fréchet distance, scikit-learn 1.9's
    /// `polynomial_kernel` in the unbiased estimate as torch-fidelity has it, and its `euclidean_distances`.
    #[test]
    fn figures_are_those_of_scipy_and_scikit_learn() {
        let features = |of: fn(i64, i64) -> i64| {
            let values: Vec<f64> = (0..40 * 6).map(|n| of(n / 6, n % 6) as f64 / 8.0).collect();
            Tensor::from_slice(&values).view([40, 6])
        };
        let x = features(|i, j| (7 * i * (j + 1) + 3 * j + i * i) % 11);
        let y = features(|i, j| (5 * i * (j + 2) + j + i * i * j) % 13);
        near(frechet_distance(&x, &y).unwrap(), 0.40497453206693423);
        near(squared_discrepancy(&x, &y).unwrap(), 0.27537476596555965);
        assert_eq!(precision_recall(&x, &y).unwrap(), PrecisionRecall { precision: 0.175, recall: 0.85 });
    }
}
