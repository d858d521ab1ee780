//! Exploration by elliptical episodic bonuses (Henaff et al. 2022): pays for features that are far from all that the
//! episode has shown.
//!
//! Reward of step t: bₜ = φ(s′)ᵀ C⁻¹ φ(s′) with C = λ I + Σ φ φᵀ over what the episode has shown before; in one dimension
//! of one-hot features that is about one over the count. The features are those of an inverse model, so that what an
//! agent cannot influence is not news. C⁻¹ is kept by the formula of Sherman and Morrison and begins anew with every episode.

use crate::encoder::Standardise;
use crate::features::{FeatureKind, FeatureSpec, Features, clipped_step};
use crate::transitions::Transitions;
use imago::memory::{slice, slice_mut};
use imago::nn::{Adam, Flat, Layout, TorsoKind, vectorised};
use imago::rollout::{Batch, Lead};
use imago::run::{Log, State};
use imago::signal::RewardSignal;
use imago::{Error, Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// 16 MiB an environment.
const MOST_FEATURES: i64 = 2_048;

/// Settings of [`E3b`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct E3bConfig {
    /// The space in which news is measured.
    pub features: FeatureKind,
    /// Images are averaged over squares of so many pixels a side before they are read: fine textures are slow to learn, and
    /// what stays unlearnt where the agent has long been is no news.
    #[schemars(range(min = 1, max = 64))]
    pub downsample: usize,
    /// What reads the observations.
    #[schemars(extend("x-default" = "\"icm\" for images, \"mlp\" for everything else"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torso: Option<TorsoKind>,
    /// Widths of its fully connected layers, after the convolutions if there are any.
    #[schemars(inner(range(min = 1, max = 65_536)), extend("x-default" = "[] for icm, [512] for nature, [64, 64] for mlp"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Vec<i64>>,
    /// Which observations are standardised before they are read.
    pub standardise: Standardise,
    /// Width of the inverse model's layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub width: i64,
    /// λ: what C begins with, times the identity.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub ridge: f64,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Passes over each rollout.
    pub epochs: usize,
    /// Transitions in a gradient step.
    #[schemars(range(min = 1))]
    pub minibatch_size: usize,
    /// Consecutive steps of one environment that stay together in a minibatch, in which s′ of one is s of the next and is
    /// encoded once.
    #[schemars(range(min = 1))]
    pub run_length: usize,
    /// The global gradient norm is clipped to this.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: f64,
    /// Steps that end an episode count, with its final observation as s′. Off for VizDoom, which shows black there.
    pub final_pairs: bool,
}

impl Default for E3bConfig {
    fn default() -> Self {
        Self {
            features: FeatureKind::Inverse,
            downsample: 1,
            torso: None,
            hidden: None,
            standardise: Standardise::Vectors,
            width: 256,
            ridge: 0.1,
            learning_rate: 1e-4,
            epochs: 1,
            minibatch_size: 256,
            run_length: 16,
            max_gradient_norm: 0.5,
            final_pairs: true,
        }
    }
}

/// C⁻¹ of every environment's episode.
struct Ellipses {
    /// `[N, F, F]`; empty before the first rollout.
    inverse: Tensor,
    features: usize,
    ridge: f32,
}

impl Ellipses {
    /// C = λ I for environment `n`.
    fn begin(&mut self, n: usize) {
        let (count, scale) = (self.features, 1.0 / self.ridge);
        let matrix = &mut slice_mut::<f32>(&mut self.inverse)[n * count * count..(n + 1) * count * count];
        matrix.fill(0.0);
        matrix.iter_mut().step_by(count + 1).for_each(|x| *x = scale);
    }

    /// φᵀ C⁻¹ φ of environment `n`; then φ φᵀ is added to C.
    fn visit(&mut self, n: usize, phi: &[f32], scratch: &mut Vec<f32>) -> f32 {
        let count = self.features;
        let matrix = &mut slice_mut::<f32>(&mut self.inverse)[n * count * count..(n + 1) * count * count];
        vectorised(
            #[inline(always)]
            || {
                // u = C⁻¹ φ, which is symmetric; (C + φ φᵀ)⁻¹ = C⁻¹ − u uᵀ / (1 + φᵀ u).
                scratch.clear();
                scratch.resize(count, 0.0);
                for (row, &x) in matrix.chunks_exact(count).zip(phi) {
                    scratch.iter_mut().zip(row).for_each(|(u, m)| *u += x * m);
                }
                let bonus: f32 = scratch.iter().zip(phi).map(|(u, x)| u * x).sum();
                let scale = 1.0 / (1.0 + bonus);
                for (row, &u) in matrix.chunks_exact_mut(count).zip(scratch.iter()) {
                    let step = scale * u;
                    row.iter_mut().zip(scratch.iter()).for_each(|(m, u)| *m -= step * u);
                }
                bonus
            },
        )
    }
}

/// The bonus as a reward signal.
pub struct E3b {
    config: E3bConfig,
    flat: Flat,
    adam: Adam,
    features: Features,
    /// As they are at the beginning of the next rollout.
    ellipses: Ellipses,
    /// As they were at the end of the rollout that was scored last.
    scored: Option<Tensor>,
}

impl E3b {
    /// A bonus for these spaces.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it; more features than a matrix of
    /// them should have.
    pub fn new(config: E3bConfig, observation: &Space, action: &Space, rng: &mut Stream) -> Result<Self> {
        let mut layout = Layout::default();
        let spec = FeatureSpec {
            kind: config.features,
            downsample: config.downsample,
            torso: config.torso,
            hidden: config.hidden.as_deref(),
            standardise: config.standardise,
            layer_norm: false,
            width: config.width,
        };
        let mut features = Features::new(&mut layout, spec, observation, action)?;
        if features.count > MOST_FEATURES {
            return Err(Error::Invalid(format!(
                "signal e3b keeps a matrix of its features for every environment, and {} features are too many (at most \
                 {MOST_FEATURES}): use features = \"inverse\" or \"random\", and narrower layers in `hidden`",
                features.count
            )));
        }
        let flat = Flat::new(layout, rng);
        features.settle(&flat);
        let ellipses = Ellipses {
            inverse: Tensor::zeros([0, features.count, features.count], (Kind::Float, Device::Cpu)),
            features: features.count as usize,
            ridge: config.ridge as f32,
        };
        Ok(Self { adam: Adam::new(&flat, 1e-8), config, flat, features, ellipses, scored: None })
    }
}

impl RewardSignal for E3b {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let transitions = Transitions::of(batch, self.config.final_pairs)?;
        let Lead::Time { envs, .. } = batch.lead else { return Ok(batch.reward.zeros_like()) };
        self.features.begin(batch);
        let phi = transitions.of_each(|observation| self.features.of(&self.flat, observation));
        let (count, envs) = (self.ellipses.features, envs as usize);
        // The rollout may be scored again: it begins where the last one that was learnt from ended.
        let before = self.ellipses.inverse.copy();
        if before.size()[0] == 0 {
            let shape = [envs as i64, count as i64, count as i64];
            self.ellipses.inverse = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            (0..envs).for_each(|n| self.ellipses.begin(n));
        }
        let (phi, starts) = (phi.contiguous(), slice::<bool>(&batch.start));
        let of = |number: i64| &slice::<f32>(&phi)[number as usize * count..(number as usize + 1) * count];
        let (mut scratch, mut bonuses) = (Vec::new(), Vec::new());
        let rows = transitions.rows();
        let mut remaining = rows.iter().copied().peekable();
        for (row, &start) in (0i64..).zip(starts) {
            let n = row as usize % envs;
            if start {
                // What an episode shows first is no news either.
                self.ellipses.begin(n);
                self.ellipses.visit(n, of(row), &mut scratch);
            }
            if remaining.next_if_eq(&row).is_some() {
                bonuses.push(self.ellipses.visit(n, of(transitions.successor(row)), &mut scratch));
            }
        }
        self.scored = Some(std::mem::replace(&mut self.ellipses.inverse, before));
        Ok(transitions.spread(&Tensor::from_slice(&rows), &Tensor::from_slice(&bonuses)))
    }

    fn update(&mut self, recent: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        if let Some(scored) = self.scored.take() {
            self.ellipses.inverse = scored;
        }
        let transitions = Transitions::of(recent, self.config.final_pairs)?;
        self.features.observe(recent);
        let epochs = if self.features.fixed() { 0 } else { self.config.epochs };
        for _ in 0..epochs {
            let order = transitions.shuffled(self.config.run_length, rng);
            for rows in order.chunks(self.config.minibatch_size) {
                let gathered = transitions.gather(rows);
                let taught = self.features.descend(&mut self.flat, &gathered, rng, |_, _, taught| taught)?;
                let E3bConfig { learning_rate, max_gradient_norm, .. } = self.config;
                let about = ("the encoder", &gathered.observation);
                clipped_step(&mut self.flat, &mut self.adam, learning_rate, max_gradient_norm, about, log)?;
                self.features.log(taught, log);
            }
        }
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        self.flat.state(state)?;
        state.scope("adam", |state| self.adam.state(state))?;
        self.features.state(state)?;
        // How many environments there are shows in the first rollout.
        state.resizable("ellipses", &mut self.ellipses.inverse)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transitions::tests::rollout;
    use std::collections::BTreeMap;

    fn identity() -> E3b {
        let config = E3bConfig {
            features: FeatureKind::Pixels,
            standardise: Standardise::Nothing,
            ..Default::default()
        };
        let space = Space::floats(&[2], -9.0, 9.0);
        E3b::new(config, &space, &Space::discrete(2), &mut Stream::new(0, "e3b", 0, 0)).unwrap()
    }

    /// Features (1, 0) and (0, 1), or nothing, (0, 0): for one-hot features the bonus of something seen k times is
    /// 1 / (λ + k), and C begins anew with an episode.
    #[test]
    fn bonus_by_hand() {
        let (a, b) = ([1f32, 0.0], [0f32, 1.0]);
        // Environment 0: a a b a, environment 1: a b | b b, with a at its first end.
        let seen = [a, a, a, b, b, b, a, b].concat();
        let batch = rollout(
            Tensor::from_slice(&seen).view([4, 2, 2]),
            Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu)),
            Tensor::from_slice(&a).view([1, 2]),
        );
        let mut signal = identity();
        let found = signal.reward(&batch).unwrap();
        // Step 2 of environment 0 is nobody's.
        let wanted = [1.0 / 1.1, 1.0 / 0.1, 1.0 / 0.1, 1.0 / 1.1, 0.0, 1.0 / 1.1];
        for (found, wanted) in slice::<f32>(&found).iter().zip(wanted) {
            assert!((f64::from(*found) - wanted).abs() < 1e-4, "{found} is not {wanted}");
        }
        // Scored again it is the same; after an update the next rollout goes on where this one ended.
        assert_eq!(signal.reward(&batch).unwrap(), found);
        signal.update(&batch, &mut Stream::new(0, "update", 0, 0), &mut Log::in_memory()).unwrap();
        let mut state = State::saving();
        signal.state(&mut state).unwrap();
        let (tensors, values) = state.finish().unwrap();
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().map(|(k, t)| (k, t.copy())).collect();
        let mut other = identity();
        other.state(&mut State::loading(tensors, values)).unwrap();
        let mut going_on = batch;
        going_on.start = Tensor::zeros([3, 2], (Kind::Bool, Device::Cpu));
        let next = signal.reward(&going_on).unwrap();
        // Environment 0 has seen a, a and b, so a for the third time; environment 1 b and b.
        assert!((next.double_value(&[0, 0]) - 1.0 / 2.1).abs() < 1e-4);
        assert!((next.double_value(&[0, 1]) - 1.0 / 2.1).abs() < 1e-4);
        assert_eq!(other.reward(&going_on).unwrap(), next);
    }

    #[test]
    fn more_features_than_a_matrix_should_have_are_refused() {
        let space = Space::floats(&[2_049], -9.0, 9.0);
        let config = E3bConfig { features: FeatureKind::Pixels, ..Default::default() };
        let made = E3b::new(config, &space, &Space::discrete(2), &mut Stream::new(0, "e3b", 0, 0));
        let message = made.err().unwrap().to_string();
        assert!(message.contains("2049") && message.contains("inverse"), "{message}");
    }

    #[test]
    fn the_inverse_stays_the_inverse() {
        let (count, mut rng) = (5, Stream::new(1, "e3b", 0, 0));
        let mut ellipses = Ellipses {
            inverse: Tensor::zeros([1, count, count], (Kind::Float, Device::Cpu)),
            features: count as usize,
            ridge: 0.1,
        };
        ellipses.begin(0);
        let mut covariance = Tensor::eye(count, (Kind::Float, Device::Cpu)) * 0.1;
        for _ in 0..200 {
            let phi = rng.normals(&[count, 1]);
            ellipses.visit(0, slice(&phi.view(-1)), &mut Vec::new());
            covariance += phi.matmul(&phi.tr());
        }
        let identity = covariance.matmul(&ellipses.inverse.get(0));
        let wanted = Tensor::eye(count, (Kind::Float, Device::Cpu));
        assert!((identity - wanted).abs().max().double_value(&[]) < 1e-3);
    }
}
