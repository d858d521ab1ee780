//! Ways through the space of latent vectors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How a path leads from one latent vector to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Straight: (1 − t) a + t b.
    Linear,
    /// Along a great circle, so that lengths in between are like those at the ends (Shoemake 1985):
    /// a sin((1 − t) ω) / sin ω + b sin(t ω) / sin ω, where ω is the angle between a and b.
    #[default]
    Spherical,
}

impl Path {
    /// The vector at `t` in `[0, 1]` of the way from `a` to `b`, both `[latent]`.
    pub fn at(self, a: &Tensor, b: &Tensor, t: f64) -> Tensor {
        let straight = || a * (1.0 - t) + b * t;
        match self {
            Path::Linear => straight(),
            Path::Spherical => {
                let length = |x: &Tensor| x.square().sum(Kind::Double).double_value(&[]).sqrt();
                let cosine = (a * b).sum(Kind::Double).double_value(&[]) / (length(a) * length(b));
                let angle = cosine.clamp(-1.0, 1.0).acos();
                // Vectors in one line, and those of length 0, have no circle of their own.
                if !angle.is_finite() || angle.sin().abs() < 1e-6 {
                    return straight();
                }
                a * (((1.0 - t) * angle).sin() / angle.sin()) + b * ((t * angle).sin() / angle.sin())
            }
        }
    }

    /// `steps` vectors from each of the `stops`, `[N, latent]`, to the next one, and the last stop: `[(N − 1) steps + 1,
    /// latent]`.
    pub fn through(self, stops: &Tensor, steps: usize) -> Tensor {
        let count = stops.size()[0];
        let mut path = Vec::new();
        for i in 0..count - 1 {
            let (a, b) = (stops.get(i), stops.get(i + 1));
            path.extend((0..steps).map(|step| self.at(&a, &b, step as f64 / steps as f64)));
        }
        path.push(stops.get(count - 1));
        Tensor::stack(&path, 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbers(x: &Tensor) -> Vec<f64> {
        Vec::try_from(x.to_kind(Kind::Double).view(-1)).unwrap()
    }

    #[test]
    fn half_way_by_hand() {
        let (a, b) = (Tensor::from_slice(&[2.0f32, 0.0]), Tensor::from_slice(&[0.0f32, 2.0]));
        assert_eq!(numbers(&Path::Linear.at(&a, &b, 0.5)), [1.0, 1.0]);
        let half = numbers(&Path::Spherical.at(&a, &b, 0.5));
        assert!(half.iter().all(|x| (x - 2f64.sqrt()).abs() < 1e-6), "{half:?}");
        let third = numbers(&Path::Spherical.at(&a, &b, 1.0 / 3.0));
        assert!((third[0] - 3f64.sqrt()).abs() < 1e-6 && (third[1] - 1.0).abs() < 1e-6, "{third:?}");
        // No circle through a and −a, or through nothing.
        assert_eq!(numbers(&Path::Spherical.at(&a, &-&a, 0.25)), [1.0, 0.0]);
        assert_eq!(numbers(&Path::Spherical.at(&(&a * 0.0), &b, 0.5)), [0.0, 1.0]);
    }

    #[test]
    fn a_path_goes_through_its_stops() {
        let stops = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, 0.0, 3.0]).view([3, 2]);
        let path = Path::Spherical.through(&stops, 4);
        assert_eq!(path.size(), [9, 2]);
        for (stop, place) in [(0, 0), (1, 4), (2, 8)] {
            assert!((path.get(place) - stops.get(stop)).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
