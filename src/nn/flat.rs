//! All parameters of a network in one buffer, all gradients in another.
//!
//! Clipping, Adam, snapshots for workers and (later) all-reduce are then one pass over one slice each. Every
//! slot starts on a 64-byte boundary, so that vectorised kernels see the same alignment in every copy of the
//! parameters: the same bits in every worker.

use super::dense::vectorised;
use crate::memory::{slice, slice_mut};
use crate::random::Stream;
use crate::run::State;
use crate::{Error, Result};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Floats in 64 bytes.
const ALIGNMENT: usize = 16;

/// One parameter's place in the buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Path-like name, unique in the network: `policy/hidden0/weight`.
    pub name: String,
    /// Shape of the tensor view.
    pub shape: Vec<i64>,
    /// First float in the buffer, a multiple of 16.
    pub offset: usize,
    init: Init,
}

impl Slot {
    /// Number of floats.
    pub fn len(&self) -> usize {
        // Saturating: a damaged description must not look like a small one.
        self.shape.iter().fold(1usize, |len, &n| len.saturating_mul(usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// Whether the slot holds no floats.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a parameter starts. Drawn from Rust generators in slot order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f64),
    /// Orthogonal rows or columns times a gain (Saxe et al. 2013), for `[out, in, …]`.
    Orthogonal(f64),
    /// Uniform with variance 2 / (fan in + fan out) (Glorot & Bengio 2010).
    GlorotUniform,
    /// Normal, then the weights of each output, `[out, in, …]`, scaled to this Euclidean norm ("normalised columns" in
    /// the code of A3C agents since 2016).
    OutputNorm(f64),
    /// Normal around `mean`.
    Normal {
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        std: f64,
    },
    /// 1 in the second of so many blocks of equal length, 0 in the others: the bias of a gate.
    SecondOf(usize),
    /// Normal around 0 with this standard deviation; what lies more than two of them away is drawn again.
    TruncatedNormal(f64),
}

/// The list of parameters while networks are being described.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    slots: Vec<Slot>,
    end: usize,
}

impl Layout {
    /// Reserves a parameter and returns its index.
    pub fn add(&mut self, name: &str, shape: &[i64], init: Init) -> usize {
        let slot = Slot { name: name.into(), shape: shape.into(), offset: self.end, init };
        let padded = slot.len().checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX);
        self.end = self.end.saturating_add(padded);
        self.slots.push(slot);
        self.slots.len() - 1
    }
}

/// Parameters and gradients of one network.
#[derive(Debug)]
pub struct Flat {
    /// Every parameter, `[P]` float32, with zero padding between slots.
    pub weights: Tensor,
    /// Gradient of the last [`Flat::backward`], laid out like `weights`.
    pub gradient: Tensor,
    /// Where each parameter lies.
    pub layout: Vec<Slot>,
    parameters: Vec<Tensor>,
    gradients: Vec<Tensor>,
    /// Floats of parameters that are not to change.
    frozen: Vec<Range<usize>>,
}

impl Flat {
    /// Allocates the buffers and draws the initial values.
    pub fn new(layout: Layout, rng: &mut Stream) -> Self {
        let mut weights = Tensor::zeros([layout.end as i64], (Kind::Float, tch::Device::Cpu));
        for slot in &layout.slots {
            let values = initial(slot, rng);
            slice_mut::<f32>(&mut weights)[slot.offset..slot.offset + slot.len()].copy_from_slice(&values);
        }
        Self::over(weights, layout.slots)
    }

    /// The saved parameters of a network of this layout; another one's are refused before memory is taken.
    pub fn from_state(layout: Layout, state: &mut State) -> Result<Self> {
        let mut weights = Tensor::zeros([0], (Kind::Float, tch::Device::Cpu));
        state.resizable("weights", &mut weights)?;
        if weights.numel() != layout.end {
            return Err(Error::Invalid(format!(
                "the checkpoint holds {} parameters, the network it describes has {}",
                weights.numel(),
                layout.end
            )));
        }
        Ok(Self::over(weights, layout.slots))
    }

    fn over(weights: Tensor, layout: Vec<Slot>) -> Self {
        let gradient = weights.zeros_like();
        let view = |buffer: &Tensor, slot: &Slot| {
            buffer.narrow(0, slot.offset as i64, slot.len() as i64).view(&slot.shape[..])
        };
        // Detached views are leaves of the autograd graph that share the buffer's memory.
        let parameters =
            layout.iter().map(|slot| view(&weights, slot).detach().set_requires_grad(true)).collect();
        let gradients = layout.iter().map(|slot| view(&gradient, slot)).collect();
        Self { weights, gradient, layout, parameters, gradients, frozen: Vec::new() }
    }

    /// Parameter `index` as a leaf of the autograd graph.
    pub fn get(&self, index: usize) -> &Tensor {
        &self.parameters[index]
    }

    /// Number of trainable floats, padding not counted.
    pub fn count(&self) -> usize {
        self.layout.iter().map(Slot::len).sum()
    }

    /// Writes d`loss`/d`parameter` of every parameter into `gradient`; zero where `loss` does not depend on it.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        let gradients = Tensor::f_run_backward(&[loss], &self.parameters, false, false)?;
        self.write(&gradients);
        Ok(())
    }

    /// As [`Flat::backward`]; returns d`loss`/d`input`, too, for what goes on without autograd behind `input`; undefined
    /// if `loss` does not depend on it.
    pub fn backward_to(&mut self, loss: &Tensor, input: &Tensor) -> Result<Tensor> {
        let leaves: Vec<&Tensor> = std::iter::once(input).chain(&self.parameters).collect();
        let mut gradients = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
        let by_input = gradients.remove(0);
        self.write(&gradients);
        Ok(by_input)
    }

    fn write(&mut self, gradients: &[Tensor]) {
        tch::no_grad(|| {
            for (to, from) in self.gradients.iter_mut().zip(gradients) {
                if from.defined() {
                    to.copy_(from);
                } else {
                    let _ = to.zero_();
                }
            }
        });
    }

    /// Adds d`loss`/d`parameter` of every parameter to `gradient`: one of several parts of a batch.
    pub fn add_backward(&mut self, loss: &Tensor) -> Result<()> {
        let gradients = Tensor::f_run_backward(&[loss], &self.parameters, false, false)?;
        tch::no_grad(|| {
            for (to, from) in self.gradients.iter_mut().zip(&gradients).filter(|(_, from)| from.defined()) {
                let _ = to.g_add_(from);
            }
        });
        Ok(())
    }

    /// Sets the gradient to zero, to which parts of a batch are then added.
    pub fn clear_gradient(&mut self) {
        slice_mut::<f32>(&mut self.gradient).fill(0.0);
    }

    /// Adds the gradient of ½ λ Σ θ² to `gradient`.
    pub fn add_weight_decay(&mut self, lambda: f64) {
        let gradient = slice_mut::<f32>(&mut self.gradient).iter_mut();
        gradient.zip(slice::<f32>(&self.weights)).for_each(|(g, w)| *g += lambda as f32 * w);
    }

    /// d`of`/d`parameter` of each parameter, undefined where there is none. With `graph` they can be differentiated
    /// again; what `of` was computed from can be in any case.
    ///
    /// # Errors
    /// `of` depends on nothing that has a gradient.
    pub fn derivatives(&self, of: &Tensor, graph: bool) -> Result<Vec<Tensor>> {
        Ok(Tensor::f_run_backward(&[of], &self.parameters, true, graph)?)
    }

    /// Derivatives as one buffer laid out like `weights`, without a graph.
    pub fn flattened(&self, derivatives: &[Tensor]) -> Tensor {
        let flat = self.weights.zeros_like();
        tch::no_grad(|| {
            for (slot, from) in self.layout.iter().zip(derivatives).filter(|(_, from)| from.defined()) {
                self.slot_of(&flat, slot).copy_(from);
            }
        });
        flat
    }

    /// Σ derivative · `v`, a scalar through which the derivatives' graph can be followed; `v` is laid out like
    /// `weights`.
    pub fn dot(&self, derivatives: &[Tensor], v: &Tensor) -> Tensor {
        let slots = self.layout.iter().zip(derivatives).filter(|(_, derivative)| derivative.defined());
        slots.map(|(slot, derivative)| (derivative * self.slot_of(v, slot)).sum(Kind::Float)).sum()
    }

    fn slot_of(&self, buffer: &Tensor, slot: &Slot) -> Tensor {
        buffer.narrow(0, slot.offset as i64, slot.len() as i64).view(&slot.shape[..])
    }

    /// Euclidean norm of the whole gradient, summed in a fixed order in 64 bits.
    pub fn gradient_norm(&self) -> f64 {
        let gradient = slice::<f32>(&self.gradient);
        let mut sums = [0f64; ALIGNMENT];
        vectorised(
            #[inline(always)]
            || {
                // Slots are padded with zeros, so the buffer is a whole number of chunks.
                for chunk in gradient.chunks_exact(ALIGNMENT) {
                    sums.iter_mut().zip(chunk).for_each(|(sum, &g)| *sum += f64::from(g) * f64::from(g));
                }
            },
        );
        sums.iter().sum::<f64>().sqrt()
    }

    /// Keeps parameters whose names begin with `name` as they are from now on; how many there are.
    pub fn freeze(&mut self, name: &str) -> usize {
        let found = self.layout.iter().filter(|slot| slot.name.starts_with(name));
        let floats: Vec<_> = found.map(|slot| slot.offset..slot.offset + slot.len()).collect();
        let count = floats.len();
        self.frozen.extend(floats);
        count
    }

    /// Takes over the values of parameters that `other` has, too, by name and shape; returns the names of the rest.
    pub fn take_over(&mut self, other: &Flat) -> Vec<String> {
        let mut left = Vec::new();
        for slot in &self.layout {
            match other.layout.iter().find(|known| (&known.name, &known.shape) == (&slot.name, &slot.shape)) {
                Some(known) => {
                    let from = &slice::<f32>(&other.weights)[known.offset..known.offset + known.len()];
                    let to = &mut slice_mut::<f32>(&mut self.weights)[slot.offset..slot.offset + slot.len()];
                    to.copy_from_slice(from);
                }
                None => left.push(slot.name.clone()),
            }
        }
        left
    }

    /// Scales the gradient so that its norm is at most `max_norm`; returns the norm before. What is frozen has no
    /// gradient.
    pub fn clip_gradient(&mut self, max_norm: f64) -> f64 {
        for floats in &self.frozen {
            slice_mut::<f32>(&mut self.gradient)[floats.clone()].fill(0.0);
        }
        let norm = self.gradient_norm();
        // The 1e-6 is torch.nn.utils.clip_grad_norm_'s.
        let scale = max_norm / (norm + 1e-6);
        if scale < 1.0 {
            slice_mut::<f32>(&mut self.gradient).iter_mut().for_each(|g| *g *= scale as f32);
        }
        norm
    }

    /// The first parameter whose gradient, or else whose value, holds a NaN or an infinity: its name and values.
    fn first_non_finite(&self) -> Option<(String, Tensor)> {
        let bad = |views: &[Tensor]| {
            views.iter().position(|view| slice::<f32>(&view.detach()).iter().any(|x| !x.is_finite()))
        };
        let gradient = bad(&self.gradients)
            .map(|i| (format!("gradient of {}", self.layout[i].name), self.gradients[i].copy()));
        gradient.or_else(|| {
            bad(&self.parameters).map(|i| (self.layout[i].name.clone(), self.parameters[i].detach().copy()))
        })
    }

    /// Whether every parameter and every gradient is a finite number.
    pub fn is_finite(&self) -> bool {
        self.first_non_finite().is_none()
    }

    /// What a learner reports when a gradient or a parameter of `network` is not finite: which one, with
    /// everything needed to see why: the `batch` it came from, the bad tensor itself, and all weights.
    pub fn diverged(&self, network: &str, mut batch: Vec<(String, Tensor)>) -> Error {
        let what = match self.first_non_finite() {
            Some((name, tensor)) => {
                batch.push((name.clone(), tensor));
                name
            }
            None => "the loss".into(),
        };
        batch.push((format!("{network}/weights"), self.weights.copy()));
        Error::non_finite(format!("{network}: {what}"), batch)
    }

    /// Saves or restores the parameters.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.tensor("weights", &mut self.weights)
    }

    /// Takes over the values of another network of the same layout, as a slice.
    pub fn copy_from(&mut self, weights: &[f32]) -> Result<()> {
        let ours = slice_mut::<f32>(&mut self.weights);
        if ours.len() != weights.len() {
            return Err(Error::Invalid(format!("{} parameters do not fit {}", weights.len(), ours.len())));
        }
        ours.copy_from_slice(weights);
        Ok(())
    }
}

fn initial(slot: &Slot, rng: &mut Stream) -> Vec<f32> {
    match slot.init {
        Init::Constant(value) => vec![value as f32; slot.len()],
        Init::SecondOf(blocks) => {
            let length = slot.len() / blocks;
            (0..slot.len()).map(|i| if i / length.max(1) == 1 { 1.0 } else { 0.0 }).collect()
        }
        Init::GlorotUniform => {
            let receptive: i64 = slot.shape[2..].iter().product();
            let fans = ((slot.shape[0] + slot.shape[1]) * receptive) as f32;
            let bound = (6.0 / fans).sqrt();
            (0..slot.len()).map(|_| (2.0 * rng.uniform() - 1.0) * bound).collect()
        }
        Init::OutputNorm(norm) => {
            let mut values: Vec<f32> = (0..slot.len()).map(|_| rng.normal()).collect();
            for row in values.chunks_exact_mut(slot.len() / slot.shape[0] as usize) {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x *= norm as f32 / length);
            }
            values
        }
        Init::Normal { mean, std } => {
            (0..slot.len()).map(|_| mean as f32 + std as f32 * rng.normal()).collect()
        }
        Init::TruncatedNormal(std) => {
            let mut within = || loop {
                let x = rng.normal();
                if x.abs() <= 2.0 {
                    return std as f32 * x;
                }
            };
            (0..slot.len()).map(|_| within()).collect()
        }
        Init::Orthogonal(gain) => {
            let rows = slot.shape[0];
            let columns = slot.len() as i64 / rows;
            let tall = rows.max(columns);
            let gaussian = rng.normals(&[tall, rows.min(columns)]).to_kind(Kind::Double);
            let (q, r) = Tensor::linalg_qr(&gaussian, "reduced");
            // Without the sign of R's diagonal Q would not be uniform over orthogonal matrices.
            let q = q * r.diagonal(0, 0, 1).sign();
            let q = if rows < columns { q.transpose(0, 1) } else { q };
            let values: Vec<f64> =
                Vec::try_from((q * gain).contiguous().view(-1)).unwrap_or_else(|_| vec![0.0; slot.len()]);
            values.into_iter().map(|x| x as f32).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn slots_are_aligned_and_gradients_land_in_them() {
        let mut layout = Layout::default();
        let a = layout.add("a", &[3], Init::Constant(2.0));
        let b = layout.add("b", &[2, 5], Init::Orthogonal(1.0));
        let unused = layout.add("unused", &[1], Init::Constant(1.0));
        let mut flat = Flat::new(layout, &mut Stream::new(0, "init", 0, 0));
        assert_eq!((flat.layout[b].offset, flat.layout[unused].offset, flat.count()), (16, 32, 14));
        assert_eq!(flat.weights.data_ptr() as usize % 64, 0);
        let loss = flat.get(a).square().sum(Kind::Float);
        flat.backward(&loss).unwrap();
        assert_eq!(&slice::<f32>(&flat.gradient)[..4], &[4.0, 4.0, 4.0, 0.0]);
        assert!(slice::<f32>(&flat.gradient)[16..].iter().all(|&g| g == 0.0));
        assert!((flat.gradient_norm() - 48f64.sqrt()).abs() < 1e-6);
        assert!((flat.clip_gradient(0.5) - 48f64.sqrt()).abs() < 1e-6);
        assert!((flat.gradient_norm() - 0.5).abs() < 1e-5);
    }

    #[test]
    fn orthogonal_rows_have_the_gains_length_and_no_overlap() {
        for shape in [[4, 9], [9, 4], [6, 6]] {
            let mut layout = Layout::default();
            let w = layout.add("w", &shape, Init::Orthogonal(2f64.sqrt()));
            let flat = Flat::new(layout, &mut Stream::new(7, "init", 0, 0));
            let w = flat.get(w).detach();
            let gram = if shape[0] <= shape[1] { w.matmul(&w.tr()) } else { w.tr().matmul(&w) };
            let wanted =
                Tensor::eye(4.min(gram.size()[0]).max(gram.size()[0]), (Kind::Float, w.device())) * 2.0;
            assert!((gram - wanted).abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn each_outputs_weights_have_the_norm_that_was_asked_for() {
        let mut layout = Layout::default();
        let w = layout.add("w", &[5, 3, 2], Init::OutputNorm(0.01));
        let flat = Flat::new(layout, &mut Stream::new(7, "init", 0, 0));
        let norms = flat.get(w).detach().flatten(1, 2).square().sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Float,
        );
        assert!((norms.sqrt() - 0.01).abs().max().double_value(&[]) < 1e-8);
    }

    #[test]
    fn a_gradient_is_followed_to_what_went_in() {
        let mut layout = Layout::default();
        let w = layout.add("w", &[2], Init::Constant(3.0));
        let mut flat = Flat::new(layout, &mut Stream::new(0, "init", 0, 0));
        let x = Tensor::from_slice(&[1.0f32, 5.0]).set_requires_grad(true);
        let loss = (flat.get(w) * &x).sum(Kind::Float);
        let by_x = flat.backward_to(&loss, &x).unwrap();
        assert_eq!(slice::<f32>(&by_x), [3.0, 3.0]);
        assert_eq!(&slice::<f32>(&flat.gradient)[..2], &[1.0, 5.0]);
    }

    #[test]
    fn parts_of_a_batch_add_up_to_the_whole() {
        let mut layout = Layout::default();
        let a = layout.add("a", &[2], Init::Constant(3.0));
        let mut flat = Flat::new(layout, &mut Stream::new(0, "init", 0, 0));
        flat.clear_gradient();
        for factor in [1.0, 0.5] {
            let loss = flat.get(a).square().sum(Kind::Float) * factor;
            flat.add_backward(&loss).unwrap();
        }
        // 2 · 3 · (1 + ½), and ½ λ Σ θ² has the gradient λ θ.
        assert_eq!(&slice::<f32>(&flat.gradient)[..3], &[9.0, 9.0, 0.0]);
        flat.add_weight_decay(0.1);
        assert!((slice::<f32>(&flat.gradient)[0] - 9.3).abs() < 1e-6);
    }

    #[test]
    fn normal_weights_have_their_moments_and_truncated_ones_their_bounds() {
        let mut layout = Layout::default();
        let normal = layout.add("normal", &[50_000], Init::Normal { mean: 1.0, std: 0.02 });
        let truncated = layout.add("truncated", &[50_000], Init::TruncatedNormal(0.02));
        let flat = Flat::new(layout, &mut Stream::new(0, "init", 0, 0));
        let moments = |index: usize| {
            let values = flat.get(index).detach().to_kind(Kind::Double);
            (values.mean(Kind::Double).double_value(&[]), values.std(true).double_value(&[]))
        };
        let (mean, std) = moments(normal);
        assert!((mean - 1.0).abs() < 5e-4 && (std - 0.02).abs() < 2e-4, "{mean} {std}");
        // The standard deviation of a normal cut off at ±2 is 0.8796.
        let (mean, std) = moments(truncated);
        assert!(mean.abs() < 5e-4 && (std - 0.02 * 0.8796).abs() < 2e-4, "{mean} {std}");
        assert!(flat.get(truncated).abs().max().double_value(&[]) <= 0.04 + 1e-8);
    }

    #[test]
    fn a_changed_weight_is_seen_through_the_views() {
        let mut layout = Layout::default();
        let a = layout.add("a", &[1], Init::Constant(1.0));
        let mut flat = Flat::new(layout, &mut Stream::new(0, "init", 0, 0));
        slice_mut::<f32>(&mut flat.weights)[0] = 5.0;
        assert_eq!(flat.get(a).double_value(&[0]), 5.0);
    }
}
