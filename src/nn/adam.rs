//! Adam (Kingma & Ba 2015, algorithm 1) over one flat buffer, in one pass and with its state in reach.

use super::dense::vectorised;
use super::flat::Flat;
use crate::Result;
use crate::memory::{slice, slice_mut};
use crate::run::State;
use tch::Tensor;

/// Optimiser state of one [`Flat`].
#[derive(Debug)]
pub struct Adam {
    /// Running means of the gradient and of its square, laid out like the weights.
    pub moments: [Tensor; 2],
    /// Updates so far.
    pub step: i64,
    /// Decay of the two running means.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Adam {
    /// Adam with β = (0.9, 0.999).
    pub fn new(flat: &Flat, epsilon: f64) -> Self {
        let zeros = || flat.weights.zeros_like();
        Self { moments: [zeros(), zeros()], step: 0, betas: [0.9, 0.999], epsilon }
    }

    /// θ ← θ − α · m̂ / (√v̂ + ε) with the gradient in `flat`; in libtorch's order of operations.
    pub fn update(&mut self, flat: &mut Flat, learning_rate: f64) {
        self.step += 1;
        let [beta1, beta2] = self.betas;
        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = (1.0 - beta2.powi(self.step as i32)).sqrt();
        let step_size = (learning_rate / correction1) as f32;
        let (keep1, new1) = (beta1 as f32, (1.0 - beta1) as f32);
        let (keep2, new2) = (beta2 as f32, (1.0 - beta2) as f32);
        let (root_scale, epsilon) = ((1.0 / correction2) as f32, self.epsilon as f32);
        let [first, second] = &mut self.moments;
        let moments = slice_mut::<f32>(first).iter_mut().zip(slice_mut::<f32>(second));
        let weights = slice_mut::<f32>(&mut flat.weights).iter_mut().zip(slice::<f32>(&flat.gradient));
        vectorised(
            #[inline(always)]
            || {
                for ((weight, &gradient), (m, v)) in weights.zip(moments) {
                    *m = keep1 * *m + new1 * gradient;
                    *v = keep2 * *v + new2 * gradient * gradient;
                    *weight -= step_size * *m / (v.sqrt() * root_scale + epsilon);
                }
            },
        );
    }

    /// Saves or restores moments and step count.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.tensor("first_moment", &mut self.moments[0])?;
        state.tensor("second_moment", &mut self.moments[1])?;
        state.value("step", &mut self.step)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nn::{Init, Layout};
    use crate::random::Stream;
    use tch::nn::OptimizerConfig;

    #[test]
    fn equals_libtorch_over_a_thousand_steps() {
        let mut layout = Layout::default();
        let w = layout.add("w", &[5, 3], Init::Orthogonal(1.0));
        let mut flat = Flat::new(layout, &mut Stream::new(3, "init", 0, 0));
        let mut adam = Adam::new(&flat, 1e-5);
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let theirs = store.root().var_copy("w", flat.get(w));
        let mut optimiser = tch::nn::Adam { eps: 1e-5, ..Default::default() }.build(&store, 1e-3).unwrap();
        let mut rng = Stream::new(3, "data", 0, 0);
        for _ in 0..1000 {
            let (x, y) = (rng.normals(&[8, 3]), rng.normals(&[8, 5]));
            let loss = |w: &Tensor| (x.matmul(&w.tr()).tanh() - &y).square().mean(tch::Kind::Float);
            let ours = loss(flat.get(w));
            flat.backward(&ours).unwrap();
            adam.update(&mut flat, 1e-3);
            optimiser.backward_step(&loss(&theirs));
        }
        let difference = (flat.get(w) - &theirs).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{difference}");
    }
}
