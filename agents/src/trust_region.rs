//! A step of natural gradient ascent within a trust region (Schulman et al. 2015, appendix C), as Ho & Ermon 2016
//! take it: conjugate gradients for the direction, products with the curvature by differentiating twice, and a line
//! search with a hard wall.

use imago::nn::Flat;
use imago::{Error, Result};
use tch::{Kind, Tensor};

/// How far a step may go, and how it is found.
#[derive(Clone, Copy, Debug)]
pub struct TrustRegion {
    /// Divergence that the step aims at, δ.
    pub max_divergence: f64,
    /// Added to the diagonal of the curvature.
    pub damping: f64,
    /// Iterations of conjugate gradients.
    pub iterations: usize,
    /// How often the step is halved until it is accepted.
    pub backtracks: usize,
    /// A step is accepted if it improves the objective by at least this share of what the gradient promises.
    pub accept: f64,
    /// A step of more than this many times `max_divergence` is not accepted, however good it looks.
    pub wall: f64,
    /// Take no step if none is accepted. Ho & Ermon's code takes the shortest one it has tried.
    pub restore: bool,
}

impl Default for TrustRegion {
    fn default() -> Self {
        Self {
            max_divergence: 0.01,
            damping: 0.1,
            iterations: 10,
            backtracks: 10,
            accept: 0.1,
            wall: 2.0,
            restore: false,
        }
    }
}

/// What is improved.
pub struct Problem<'a, N> {
    /// To be maximised: a scalar of the network as it is before the step, with gradients.
    pub objective: Tensor,
    /// The same of the network as it is when this is called, and its mean divergence from what it was before; scalars.
    /// One pass through the network gives both.
    pub measure: &'a dyn Fn(&N) -> (Tensor, Tensor),
    /// The divergence over the sample that is enough for its curvature; with gradients.
    pub curvature: &'a dyn Fn(&N) -> Tensor,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// Whether the line search accepted it.
    pub accepted: bool,
    /// How often it was halved.
    pub backtracks: usize,
    /// Change of the objective.
    pub improvement: f64,
    /// Divergence from the network before.
    pub divergence: f64,
    /// Euclidean norm of the gradient.
    pub gradient_norm: f64,
}

fn number(scalar: &Tensor) -> f64 {
    scalar.double_value(&[])
}

/// x with A x ≈ b, where `product(v)` is A v and A is symmetric and positive definite: `iterations` of conjugate
/// gradients from 0 (Hestenes & Stiefel 1952). Fewer if the residual vanishes.
///
/// # Errors
/// Those of `product`.
pub fn conjugate_gradient(
    mut product: impl FnMut(&Tensor) -> Result<Tensor>,
    b: &Tensor,
    iterations: usize,
) -> Result<Tensor> {
    let dot = |a: &Tensor, b: &Tensor| number(&(a * b).sum(Kind::Double));
    let (mut x, mut residual, mut direction) = (b.zeros_like(), b.copy(), b.copy());
    let mut squared = dot(&residual, &residual);
    for _ in 0..iterations {
        if squared < 1e-10 {
            break;
        }
        let curved = product(&direction)?;
        let length = squared / dot(&direction, &curved);
        x += &direction * length;
        residual -= curved * length;
        let next = dot(&residual, &residual);
        direction = &residual + direction * (next / squared);
        squared = next;
    }
    Ok(x)
}

impl TrustRegion {
    /// Moves the `parameters` of `network` up the objective.
    ///
    /// Along s with (H + damping · I) s = g, H being the curvature of the divergence, by √(2 δ / sᵀ(H + damping · I) s),
    /// halved until the objective improves and the divergence is within the wall.
    ///
    /// # Errors
    /// A gradient or an objective that is not finite.
    pub fn step<N>(
        &self,
        network: &mut N,
        parameters: fn(&mut N) -> &mut Flat,
        problem: &Problem<N>,
    ) -> Result<Step> {
        let before = number(&problem.objective);
        let flat = parameters(network);
        flat.backward(&problem.objective)?;
        let (gradient, start) = (flat.gradient.copy(), flat.weights.copy());
        let gradient_norm = flat.gradient_norm();
        if !before.is_finite() || !gradient_norm.is_finite() {
            return Err(flat.diverged("the step's gradient", Vec::new()));
        }
        let none = Step { accepted: true, gradient_norm, ..Step::default() };
        // The original's threshold: nothing to climb.
        if number(&gradient.abs().max()) < 1e-6 {
            return Ok(none);
        }
        let curvature = (problem.curvature)(network);
        let flat = parameters(network);
        let slopes = flat.derivatives(&curvature, true)?;
        let product = |v: &Tensor| -> Result<Tensor> {
            let curved = flat.derivatives(&flat.dot(&slopes, v), false)?;
            Ok(flat.flattened(&curved) + v * self.damping)
        };
        let direction = conjugate_gradient(product, &gradient, self.iterations)?;
        let squared = number(&(&direction * product(&direction)?).sum(Kind::Double));
        drop((slopes, curvature));
        let full = direction / (0.5 * squared / self.max_divergence + 1e-8).sqrt();
        let promised = number(&(&gradient * &full).sum(Kind::Double));
        if !promised.is_finite() {
            return Err(Error::Invalid(
                "the natural gradient is not a number: raise the learner's `damping`".into(),
            ));
        }
        let mut last = none;
        for backtracks in 0..=self.backtracks {
            let share = 0.5f64.powi(backtracks as i32);
            let moved = &start + &full * share;
            parameters(network).copy_from(imago::memory::slice(&moved))?;
            let (objective, divergence) = tch::no_grad(|| (problem.measure)(network));
            let (objective, divergence) = (number(&objective), number(&divergence));
            let improvement = objective - before;
            let accepted = divergence <= self.wall * self.max_divergence
                && improvement > 0.0
                && improvement >= self.accept * share * promised;
            last = Step { accepted, backtracks, improvement, divergence, gradient_norm };
            if accepted {
                return Ok(last);
            }
        }
        if self.restore {
            parameters(network).copy_from(imago::memory::slice(&start))?;
            return Ok(Step { improvement: 0.0, divergence: 0.0, ..last });
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::Stream;
    use imago::nn::{Init, Layout};

    /// f(x) = b·x − ½ xᵀ A x, with the divergence ½ (x − x₀)ᵀ C (x − x₀).
    struct Quadratic {
        flat: Flat,
        start: Tensor,
    }

    fn matrix(values: [[f64; 2]; 2]) -> Tensor {
        Tensor::from_slice2(&values).to_kind(Kind::Float)
    }

    impl Quadratic {
        fn new() -> Self {
            let mut layout = Layout::default();
            layout.add("x", &[2], Init::Constant(1.0));
            let flat = Flat::new(layout, &mut Stream::new(0, "x", 0, 0));
            Self { start: flat.get(0).detach().copy(), flat }
        }

        fn objective(&self, scale: f64) -> Tensor {
            let x = self.flat.get(0);
            (Tensor::from_slice(&[3f32, -1.0]) * x).sum(Kind::Float) * scale
        }

        fn divergence(&self) -> Tensor {
            let moved = self.flat.get(0) - &self.start;
            moved.dot(&matrix([[2.0, 0.5], [0.5, 1.0]]).mv(&moved)) * 0.5
        }
    }

    fn step(region: TrustRegion, scale: f64) -> (Step, Vec<f64>) {
        let mut quadratic = Quadratic::new();
        let problem = Problem {
            objective: quadratic.objective(scale),
            measure: &|q: &Quadratic| (q.objective(scale), q.divergence()),
            curvature: &Quadratic::divergence,
        };
        let step = region.step(&mut quadratic, |q| &mut q.flat, &problem).unwrap();
        let x: Vec<f32> = Vec::try_from(quadratic.flat.get(0).detach()).unwrap();
        (step, x.into_iter().map(f64::from).collect())
    }

    #[test]
    fn conjugate_gradients_solve_two_equations_in_two_steps() {
        let a = matrix([[4.0, 1.0], [1.0, 3.0]]);
        let x = conjugate_gradient(|v| Ok(a.mv(v)), &Tensor::from_slice(&[1f32, 2.0]), 2).unwrap();
        // 4x + y = 1, x + 3y = 2.
        let x: Vec<f32> = Vec::try_from(x).unwrap();
        assert!((x[0] - 1.0 / 11.0).abs() < 1e-6 && (x[1] - 7.0 / 11.0).abs() < 1e-6, "{x:?}");
    }

    #[test]
    fn the_step_is_the_natural_gradient_of_the_wanted_length() {
        let region = TrustRegion { damping: 0.0, max_divergence: 0.02, ..Default::default() };
        let (step, x) = step(region, 1.0);
        // C s = (3, −1) has s = (2, −2); sᵀ C s = 2·3 + (−2)·(−1) = 8; √(2 · 0.02 / 8) = 0.0707107.
        let length = (2.0 * 0.02 / 8.0f64).sqrt();
        assert!(step.accepted && step.backtracks == 0);
        assert!(
            (x[0] - 1.0 - 2.0 * length).abs() < 1e-5 && (x[1] - 1.0 + 2.0 * length).abs() < 1e-5,
            "{x:?}"
        );
        assert!((step.divergence - 0.02).abs() < 1e-5, "{step:?}");
        assert!((step.improvement - 8.0 * length).abs() < 1e-4, "{step:?}");
        assert!((step.gradient_norm - 10f64.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn damping_shortens_and_turns_it() {
        let region = TrustRegion { damping: 1.0, max_divergence: 0.02, ..Default::default() };
        let (step, x) = step(region, 1.0);
        // [[3, ½], [½, 2]] s = (3, −1): s = (6.5, −4.5) / 5.75.
        let s = [6.5f64 / 5.75, -4.5 / 5.75];
        let length = (2.0 * 0.02 / (3.0 * s[0] - s[1])).sqrt();
        assert!((x[0] - 1.0 - s[0] * length).abs() < 1e-5 && (x[1] - 1.0 - s[1] * length).abs() < 1e-5);
        assert!(step.divergence < 0.02);
    }

    /// An objective that promises more than it keeps, or a divergence that grows faster than its curvature says.
    fn walled(region: TrustRegion) -> (Step, f64) {
        let mut quadratic = Quadratic::new();
        let steep = |q: &Quadratic| {
            q.divergence() + (q.flat.get(0) - &q.start).pow_tensor_scalar(4).sum(Kind::Float) * 1e6
        };
        let problem = Problem {
            objective: quadratic.objective(1.0),
            measure: &|q: &Quadratic| (q.objective(1.0), steep(q)),
            curvature: &Quadratic::divergence,
        };
        let step = region.step(&mut quadratic, |q| &mut q.flat, &problem).unwrap();
        let moved = number(&(quadratic.flat.get(0) - &quadratic.start).abs().max());
        (step, moved)
    }

    #[test]
    fn nothing_goes_through_the_wall() {
        let (step, moved) = walled(TrustRegion { damping: 0.0, ..Default::default() });
        assert!(step.accepted && step.backtracks > 0 && step.divergence <= 0.02 && moved > 0.0, "{step:?}");
    }

    #[test]
    fn what_is_never_accepted_is_taken_back_or_left_as_short_as_it_got() {
        let hopeless = TrustRegion { damping: 0.0, backtracks: 2, ..Default::default() };
        let (step, moved) = walled(hopeless);
        assert!(!step.accepted && moved > 0.0, "{step:?}");
        let (step, moved) = walled(TrustRegion { restore: true, ..hopeless });
        assert!(!step.accepted && moved == 0.0 && step.divergence == 0.0, "{step:?}");
    }

    #[test]
    fn where_nothing_is_to_climb_nothing_moves() {
        let (step, x) = step(TrustRegion::default(), 1e-8);
        assert!(step.accepted && x == [1.0, 1.0]);
    }
}
