//! The network between an expert's (observation, action) pairs and a policy's: what GAIL and discriminator-actor-critic
//! have in common. One convention: **expert = 1**.

use crate::fused::{DiscriminatorBatch, DiscriminatorLosses, discriminator_gradient};
use imago::generative::adversarial::{
    accuracy, bernoulli_entropy, gradient_penalty, power_iteration, spectrally_normalised,
    weighted_discriminator_loss,
};
use imago::generative::augment::diff_augment;
use imago::memory::{field_of, slice, slice_mut};
use imago::nn::{
    Activation, Adam, Dense, Flat, Init, Layout, Linear, Mlp, PenaltyScratch, Precision, RunningNorm, Torso,
    TorsoKind, TorsoSpec, Trace, features_of, standardised_features,
};
use imago::rollout::leaf_tensor;
use imago::run::{Log, State};
use imago::{Error, Result, Stream};
use imago_envs::{LeafBuf, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// From logit x of a pair to its reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardForm {
    /// softplus(x) = −log(1 − D) > 0: rewards long episodes; for tasks that end on failure.
    Positive,
    /// −softplus(−x) = log D < 0: rewards short episodes; for tasks that end on success.
    Negative,
    /// x = log D − log(1 − D): either sign.
    Logit,
}

impl RewardForm {
    /// The reward, elementwise; from the logit, so that it neither overflows nor saturates.
    pub fn reward(self, logit: &Tensor) -> Tensor {
        match self {
            RewardForm::Positive => logit.softplus(),
            RewardForm::Negative => -(-logit).softplus(),
            RewardForm::Logit => logit.shallow_clone(),
        }
    }
}

/// How the discriminator sees actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionInput {
    /// As input beside the observation: choices one-hot, switches 0 and 1, numbers as they are.
    OneHot,
    /// One logit for each action, the taken one's counts (the paper's code). For a single choice only.
    PerActionLogit,
    /// Not at all: the expert's observations are imitated, its actions may be unknown.
    None,
    /// As what came of them, the next observation in place of the action: the expert's transitions are imitated, its
    /// actions may be unknown (Torabi et al. 2018). Demonstrations need pairs that follow each other.
    NextObservation,
}

/// What a discriminator is made of.
#[derive(Clone, Debug)]
pub(crate) struct DiscriminatorSpec {
    /// What reads images before the hidden layers.
    pub torso: TorsoKind,
    /// Widths of the hidden layers.
    pub hidden: Vec<i64>,
    /// After each of them.
    pub activation: Activation,
    /// How it sees actions.
    pub action_input: ActionInput,
    /// Divide every weight matrix by its largest singular value.
    pub spectral_norm: bool,
    /// Standardise its inputs by their own running statistics.
    pub normalise: bool,
    /// See whether an observation is the absorbing state.
    pub indicator: bool,
    /// Learn from images changed by DiffAugment.
    pub augment: bool,
    /// How hidden layers start, and how the last one does.
    pub init: Init,
    /// See `init`.
    pub head: Init,
}

/// What a step moves towards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Objective {
    /// Labels are 1 − ε and ε.
    pub label_smoothing: f64,
    /// Factor of the entropy bonus.
    pub entropy_bonus: f64,
    /// Factor of the gradient penalty; 0 is off.
    pub gradient_penalty: f64,
    /// The gradient norm it pulls towards.
    pub gradient_penalty_target: f64,
}

/// The network: features of a pair → logit.
pub(crate) struct Discriminator {
    pub flat: Flat,
    adam: Adam,
    torso: Option<Convolved>,
    mlp: Mlp,
    out: Linear,
    /// The same layers in plain memory, unless their weights are normalised.
    dense: Option<Dense>,
    /// Left singular vectors of every weight matrix, if they are normalised.
    singular: Vec<Tensor>,
    pub normaliser: Option<RunningNorm>,
    /// One mean and one deviation for all pixels of a single image that convolutions read.
    pub pixels: Option<RunningNorm>,
    pub observation: Space,
    /// Of actions, or of the next observations in their place.
    pub action: Space,
    action_input: ActionInput,
    /// Whether it sees which observations are the absorbing state.
    indicator: bool,
    /// Whether it learns from images changed by DiffAugment.
    augment: bool,
    trace: Trace,
    penalty: PenaltyScratch,
}

/// Convolutions that read an observation, and the shape `[…]` in which they read it.
struct Convolved {
    torso: Torso,
    shape: Vec<i64>,
}

impl Convolved {
    /// The convolutions that `spec` asks for, if it does.
    fn new(layout: &mut Layout, spec: &DiscriminatorSpec, observation: &Space) -> Result<Option<Self>> {
        if spec.torso == TorsoKind::Mlp {
            return match spec.augment {
                true => Err(Error::Invalid(
                    "augment is for images: choose convolutions with torso, or leave augment out".into(),
                )),
                false => Ok(None),
            };
        }
        if spec.action_input == ActionInput::NextObservation {
            return Err(Error::Invalid(
                "action_input = \"next_observation\" is for perceptrons: with convolutions use \"none\""
                    .into(),
            ));
        }
        if spec.spectral_norm {
            return Err(Error::Invalid(
                "spectral_norm is for perceptrons: with convolutions use gradient_penalty".into(),
            ));
        }
        let shape = TorsoSpec {
            kind: spec.torso,
            hidden: Vec::new(),
            activation: spec.activation,
            precision: Precision::F32,
        };
        let torso = Torso::new(layout, "discriminator", &shape, observation)?;
        let nothing = leaf_tensor(&LeafBuf::zeros(observation, 1), observation);
        let shape = torso.prepare(observation, &nothing).size()[1..].to_vec();
        Ok(Some(Self { torso, shape }))
    }

    /// Numbers that it reads.
    fn width(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// Pairs as the network reads them: input features `[B, F]` and, for per-action logits, which one counts, `[B, 1]`.
pub(crate) struct Pairs {
    pub features: Tensor,
    /// What convolutions read, as it was seen, `[B, …]`: bytes stay bytes until a minibatch of them is needed.
    pub image: Option<Tensor>,
    pub choice: Option<Tensor>,
    /// How much each counts, float32 `[B]`; all the same if absent.
    pub weight: Option<Tensor>,
}

impl Pairs {
    /// How many.
    pub fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// `count` of them, drawn with replacement.
    pub fn draw(&self, count: usize, rng: &mut Stream) -> Self {
        let index = rng.indices(self.len(), count);
        Self {
            features: self.features.index_select(0, &index),
            image: self.image.as_ref().map(|image| image.index_select(0, &index)),
            choice: self.choice.as_ref().map(|choice| choice.index_select(0, &index)),
            weight: self.weight.as_ref().map(|weight| weight.index_select(0, &index)),
        }
    }

    /// `count` of them from `first` on, the same memory.
    fn narrow(&self, first: usize, count: usize) -> Self {
        let of = |x: &Tensor| x.narrow(0, first as i64, count as i64);
        Self {
            features: of(&self.features),
            image: self.image.as_ref().map(of),
            choice: self.choice.as_ref().map(of),
            weight: self.weight.as_ref().map(of),
        }
    }

    /// The same memory.
    pub fn shallow_clone(&self) -> Self {
        Self {
            features: self.features.shallow_clone(),
            image: self.image.as_ref().map(Tensor::shallow_clone),
            choice: self.choice.as_ref().map(Tensor::shallow_clone),
            weight: self.weight.as_ref().map(Tensor::shallow_clone),
        }
    }
}

impl Discriminator {
    /// A network for pairs of these spaces; where next observations stand in place of actions, their space is
    /// `observation`, too.
    ///
    /// # Errors
    /// Convolutions over what is no image, or with normalised weights, or over two observations.
    pub fn new(
        spec: DiscriminatorSpec,
        observation: &Space,
        action: &Space,
        rng: &mut Stream,
    ) -> Result<Self> {
        let action = if spec.action_input == ActionInput::NextObservation { observation } else { action };
        let mut layout = Layout::default();
        let torso = Convolved::new(&mut layout, &spec, observation)?;
        let width = |space: &Space| space.features() as i64;
        let sees_action = matches!(spec.action_input, ActionInput::OneHot | ActionInput::NextObservation);
        let beside = i64::from(spec.indicator) + if sees_action { width(action) } else { 0 };
        // What is standardised number by number: everything but images.
        let features = beside + if torso.is_none() { width(observation) } else { 0 };
        let input = beside + torso.as_ref().map_or(width(observation), |convolved| convolved.torso.features);
        let mlp = Mlp::new(&mut layout, "discriminator", input, &spec.hidden, spec.activation, spec.init);
        let last = *spec.hidden.last().unwrap_or(&input);
        let outputs = if spec.action_input == ActionInput::PerActionLogit { width(action) } else { 1 };
        let out = Linear::new(&mut layout, "discriminator/out", last, outputs, spec.head);
        let flat = Flat::new(layout, rng);
        let mut singular = Vec::new();
        if spec.spectral_norm {
            for layer in mlp.layers.iter().chain([&out]) {
                let u = rng.normals(&[flat.get(layer.weight).size()[0]]);
                singular.push(&u / u.norm());
            }
        }
        Ok(Self {
            adam: Adam::new(&flat, 1e-8),
            dense: (!spec.spectral_norm && torso.is_none())
                .then(|| Dense::new(&flat.layout, &mlp, Some(&out))),
            normaliser: (spec.normalise && features > 0).then(|| {
                let mut standardised =
                    if torso.is_none() { standardised_features(observation) } else { Vec::new() };
                if spec.action_input == ActionInput::NextObservation {
                    standardised.extend(standardised_features(action));
                }
                standardised.resize(features as usize, true);
                RunningNorm::new(features as usize, 1e-5, None).only(standardised)
            }),
            pixels: (spec.normalise && torso.is_some() && matches!(observation, Space::Box { .. }))
                .then(|| RunningNorm::new(1, 1e-5, None)),
            torso,
            flat,
            mlp,
            out,
            singular,
            observation: observation.clone(),
            action: action.clone(),
            action_input: spec.action_input,
            indicator: spec.indicator,
            augment: spec.augment,
            trace: Trace::default(),
            penalty: PenaltyScratch::default(),
        })
    }

    /// Observations `[B, …]` and actions `[B, …]`, or next observations, as input. Actions count as executed: clipped to
    /// their space. `absorbing`, bool `[B]`, marks rows of the absorbing state, none if absent.
    pub fn pairs(&self, observation: &Tensor, action: &Tensor, absorbing: Option<&Tensor>) -> Pairs {
        let rows = observation.size()[0];
        let mut parts = Vec::new();
        if self.torso.is_none() {
            parts.push(features_of(&self.observation, observation));
        }
        if self.indicator {
            parts.push(match absorbing {
                Some(absorbing) => absorbing.to_kind(Kind::Float).view([rows, 1]),
                None => Tensor::zeros([rows, 1], (Kind::Float, Device::Cpu)),
            });
        }
        match self.action_input {
            ActionInput::OneHot => parts.push(executed(&self.action, action)),
            ActionInput::NextObservation => parts.push(features_of(&self.action, action)),
            ActionInput::PerActionLogit | ActionInput::None => {}
        }
        let features = match parts.len() {
            0 => Tensor::zeros([rows, 0], (Kind::Float, Device::Cpu)),
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 1),
        };
        let image = self.torso.as_ref().map(|_| observation.shallow_clone());
        let choice = (self.action_input == ActionInput::PerActionLogit).then(|| action.view([-1, 1]));
        Pairs { features, image, choice, weight: None }
    }

    /// Whether there are statistics.
    pub fn standardises(&self) -> bool {
        self.normaliser.is_some() || self.pixels.is_some()
    }

    /// Takes pairs of both classes into the statistics.
    pub fn observe(&mut self, expert: &Pairs, policy: &Pairs) {
        if let Some(normaliser) = &mut self.normaliser {
            normaliser.update(&Tensor::cat(&[&expert.features, &policy.features], 0));
        }
        if let (Some(normaliser), Some(expert), Some(policy)) =
            (&mut self.pixels, &expert.image, &policy.image)
        {
            normaliser.update_pixels(&Tensor::cat(&[expert, policy], 0));
        }
    }

    /// Pairs with standardised features, statistics frozen.
    pub fn normalised(&self, pairs: &Pairs) -> Pairs {
        let pairs = pairs.shallow_clone();
        match &self.normaliser {
            Some(normaliser) => Pairs { features: normaliser.normalise(&pairs.features), ..pairs },
            None => pairs,
        }
    }

    /// What the network reads of normalised pairs: their features, after the pixels where there are convolutions; float32
    /// `[B, pixels + F]`.
    pub fn input(&self, pairs: &Pairs) -> Tensor {
        match self.torso.as_ref().zip(pairs.image.as_ref()) {
            Some((convolved, image)) => {
                let pixels = convolved.torso.prepare(&self.observation, image);
                let pixels = match &self.pixels {
                    Some(normaliser) => normaliser.normalise(&pixels),
                    None => pixels,
                };
                Tensor::cat(&[&pixels.flatten(1, -1), &pairs.features], 1)
            }
            None => pairs.features.shallow_clone(),
        }
    }

    /// What [`Discriminator::input`] gives, its images changed by DiffAugment (Zhao et al. 2020), each with numbers of
    /// its own. The discriminator learns from these, so that it cannot know few demonstrations by heart, and judges
    /// what was truly seen.
    fn augmented(&self, input: Tensor, rng: &mut Stream) -> Tensor {
        let Some(convolved) = self.torso.as_ref().filter(|_| self.augment) else { return input };
        let (rows, width) = (input.size()[0], convolved.width());
        let shape = [&[rows], convolved.shape.as_slice()].concat();
        let images = input.narrow(1, 0, width).reshape(shape);
        // DiffAugment's numbers are for values in [−1, 1].
        let changed = (diff_augment(&(images * 2.0 - 1.0), rng) + 1.0) / 2.0;
        Tensor::cat(&[changed.flatten(1, -1), input.narrow(1, width, input.size()[1] - width)], 1)
    }

    /// Logits `[B]` of what [`Discriminator::input`] gives.
    pub fn logits(&self, input: &Tensor, choice: Option<&Tensor>) -> Tensor {
        let features = match &self.torso {
            Some(convolved) => {
                let (rows, width) = (input.size()[0], convolved.width());
                let shape = [&[rows], convolved.shape.as_slice()].concat();
                let pixels = input.narrow(1, 0, width).reshape(shape);
                let beside = input.narrow(1, width, input.size()[1] - width);
                Tensor::cat(&[convolved.torso.forward(&self.flat, &pixels), beside], 1)
            }
            None => input.shallow_clone(),
        };
        let layers = self.mlp.layers.iter().chain([&self.out]).enumerate();
        let count = self.mlp.layers.len();
        let x = layers.fold(features, |x, (i, layer)| {
            let y = match self.singular.get(i) {
                Some(u) => {
                    let weight = spectrally_normalised(self.flat.get(layer.weight), u);
                    x.linear(&weight, Some(self.flat.get(layer.bias)))
                }
                None => layer.forward(&self.flat, &x),
            };
            if i < count { self.mlp.activation.apply(y) } else { y }
        });
        match choice {
            Some(choice) => x.gather(1, choice, false).squeeze_dim(1),
            None => x.squeeze_dim(1),
        }
    }

    /// Logits `[B]` of pairs, statistics frozen, without gradients.
    pub fn score(&self, pairs: &Pairs) -> Tensor {
        let pairs = self.normalised(pairs);
        let Some(dense) = &self.dense else {
            return tch::no_grad(|| self.logits_in_parts(&pairs));
        };
        let mut trace = Trace::default();
        dense.forward(slice(&self.flat.weights), slice(&pairs.features), pairs.len(), &mut trace);
        let logits = Tensor::from_slice(trace.output()).view([-1, dense.outputs() as i64]);
        match &pairs.choice {
            Some(choice) => logits.gather(1, choice, false).squeeze_dim(1),
            None => logits.squeeze_dim(1),
        }
    }

    /// Logits `[B]`, some rows at a time: images need memory for what lies between their layers.
    fn logits_in_parts(&self, pairs: &Pairs) -> Tensor {
        const TOGETHER: usize = 512;
        let parts: Vec<Tensor> = (0..pairs.len())
            .step_by(TOGETHER)
            .map(|first| {
                let part = pairs.narrow(first, TOGETHER.min(pairs.len() - first));
                self.logits(&self.input(&part), part.choice.as_ref())
            })
            .collect();
        Tensor::cat(&parts, 0)
    }

    /// One step on as many pairs of both sides, standardised already; returns accuracies and mean logits on expert and
    /// policy.
    ///
    /// # Errors
    /// A gradient that is not finite.
    pub fn improve(
        &mut self,
        real: &Pairs,
        generated: &Pairs,
        objective: &Objective,
        learning_rate: f64,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Result<[f64; 4]> {
        let losses = match self.fused_gradient(real, generated, objective, rng, log) {
            Some(losses) => losses,
            None => self.gradient(real, generated, objective, rng, log)?,
        };
        let norm = self.flat.gradient_norm();
        if !norm.is_finite() {
            let batch = [("expert", real), ("policy", generated)];
            let batch = batch.map(|(name, pairs)| (name.into(), self.input(pairs)));
            return Err(self.flat.diverged("the discriminator", batch.into()));
        }
        self.adam.update(&mut self.flat, learning_rate);
        let ([accuracy_expert, accuracy_policy], [logit_expert, logit_policy]) =
            (losses.accuracy, losses.logit);
        log.scalar("loss", losses.loss);
        log.scalar("accuracy_expert", accuracy_expert);
        log.scalar("accuracy_policy", accuracy_policy);
        log.scalar("logit_expert", logit_expert);
        log.scalar("logit_policy", logit_policy);
        log.scalar("entropy", losses.entropy);
        log.scalar("gradient_norm", norm);
        Ok([accuracy_expert, accuracy_policy, logit_expert, logit_policy])
    }

    /// The loss's gradient without autograd, where weights are not normalised and actions do not choose what is
    /// penalised.
    pub fn fused_gradient(
        &mut self,
        real: &Pairs,
        generated: &Pairs,
        objective: &Objective,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Option<DiscriminatorLosses> {
        let penalised = objective.gradient_penalty > 0.0;
        let chosen = self.action_input == ActionInput::PerActionLogit;
        let dense = self.dense.as_ref().filter(|_| !penalised || !chosen)?;
        let features = Tensor::cat(&[&real.features, &generated.features], 0);
        let choice = real.choice.as_ref().zip(generated.choice.as_ref());
        let choice = choice.map(|(real, generated)| Tensor::cat(&[real, generated], 0));
        let batch = DiscriminatorBatch {
            features: slice(&features),
            choice: choice.as_ref().map(slice),
            weight: real.weight.as_ref().map(slice),
            rows: 2 * real.len(),
        };
        let Flat { weights, gradient, .. } = &mut self.flat;
        let (weights, gradient) = (slice(weights), slice_mut(gradient));
        let (smoothing, bonus) = (objective.label_smoothing, objective.entropy_bonus);
        let losses =
            discriminator_gradient(dense, weights, gradient, &batch, smoothing, bonus, &mut self.trace);
        if penalised {
            let mix = rng.uniforms(&[real.len() as i64, 1]);
            let between = generated.features.lerp_tensor(&real.features, &mix).contiguous();
            let pull = (objective.gradient_penalty, objective.gradient_penalty_target);
            let rows = (slice(&between), real.len());
            log.scalar("gradient_penalty", dense.penalty(weights, gradient, rows, pull, &mut self.penalty));
        }
        Some(losses)
    }

    /// The loss's gradient by autograd, for everything else.
    pub fn gradient(
        &mut self,
        real: &Pairs,
        generated: &Pairs,
        objective: &Objective,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Result<DiscriminatorLosses> {
        let matrices = self.mlp.layers.iter().chain([&self.out]);
        for (layer, u) in matrices.zip(&mut self.singular) {
            power_iteration(self.flat.get(layer.weight), u);
        }
        let mut seen = |pairs: &Pairs| self.augmented(self.input(pairs), rng);
        let (real_input, generated_input) = (seen(real), seen(generated));
        let expert_logits = self.logits(&real_input, real.choice.as_ref());
        let policy_logits = self.logits(&generated_input, generated.choice.as_ref());
        let (weight, smoothing) = (real.weight.as_ref(), objective.label_smoothing);
        let loss = weighted_discriminator_loss(&expert_logits, weight, &policy_logits, smoothing);
        let entropy = bernoulli_entropy(&expert_logits) + bernoulli_entropy(&policy_logits);
        let mut total = &loss - &entropy * objective.entropy_bonus;
        if objective.gradient_penalty > 0.0 {
            let mix = rng.uniforms(&[real.len() as i64, 1]);
            // Between two per-action pairs the expert's action counts: half an action has no logit.
            let f = |x: &Tensor| self.logits(x, real.choice.as_ref());
            let target = objective.gradient_penalty_target;
            let penalty = gradient_penalty(f, &real_input, &generated_input, &mix, target)?;
            log.scalar("gradient_penalty", penalty.double_value(&[]));
            total += penalty * objective.gradient_penalty;
        }
        self.flat.backward(&total)?;
        let mean = |x: &Tensor| x.mean(Kind::Float).double_value(&[]);
        Ok(DiscriminatorLosses {
            loss: loss.double_value(&[]),
            entropy: entropy.double_value(&[]) / 2.0,
            accuracy: [accuracy(&expert_logits, true), accuracy(&policy_logits, false)],
            logit: [mean(&expert_logits), mean(&policy_logits)],
        })
    }

    /// Saves or restores everything that changes.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        self.flat.state(state)?;
        state.scope("adam", |state| self.adam.state(state))?;
        for (i, u) in self.singular.iter_mut().enumerate() {
            state.tensor(&format!("singular{i}"), u)?;
        }
        if let Some(normaliser) = &mut self.normaliser {
            state.scope("normaliser", |state| normaliser.state(state))?;
        }
        match &mut self.pixels {
            Some(normaliser) => state.scope("pixels", |state| normaliser.state(state)),
            None => Ok(()),
        }
    }
}

/// Actions `[B, …]` as input: choices one-hot, floats clipped to their bounds.
pub(crate) fn executed(space: &Space, action: &Tensor) -> Tensor {
    match space {
        Space::Box { low, high, .. } => {
            let bound = |b: &[f64]| Tensor::from_slice(&b.iter().map(|&x| x as f32).collect::<Vec<f32>>());
            action.reshape([-1, low.len() as i64]).clamp_tensor(Some(bound(low)), Some(bound(high)))
        }
        Space::Fields(fields) => {
            let parts = fields.iter().map(|field| executed(&field.space, &field_of(action, field)));
            Tensor::cat(&parts.collect::<Vec<_>>(), 1)
        }
        choices => features_of(choices, action),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reward_forms_by_hand() {
        let x = Tensor::from_slice(&[0.0f32, 3f32.ln(), 1000.0, -1000.0]);
        let close = |form: RewardForm, wanted: [f64; 4]| {
            for (i, wanted) in wanted.into_iter().enumerate() {
                assert!((form.reward(&x).double_value(&[i as i64]) - wanted).abs() < 1e-4, "{form:?} {i}");
            }
        };
        // D = ½ and ¾, and logits where log(1 − σ(x)) would be infinite.
        close(RewardForm::Positive, [2f64.ln(), 4f64.ln(), 1000.0, 0.0]);
        close(RewardForm::Negative, [-(2f64.ln()), 0.75f64.ln(), 0.0, -1000.0]);
        close(RewardForm::Logit, [0.0, 3f64.ln(), 1000.0, -1000.0]);
    }
}
