//! Generative adversarial imitation learning (Ho & Ermon 2016): a discriminator between the expert's and the
//! policy's (observation, action) pairs, and its verdict as the policy's reward.
//!
//! The paper writes D → 1 for the policy; here, as in its authors' code and in all of Imago, **expert = 1**.

use crate::fused::{DiscriminatorBatch, DiscriminatorLosses, discriminator_gradient};
use imago::generative::adversarial::{
    accuracy, bernoulli_entropy, discriminator_loss, gradient_penalty, power_iteration, spectrally_normalised,
};
use imago::memory::{field_of, slice, slice_mut};
use imago::nn::{
    Activation, Adam, Dense, Flat, Init, Layout, Linear, Mlp, RunningNorm, Trace, features_of,
    standardised_features,
};
use imago::rollout::{Batch, first_row_outside};
use imago::run::{Log, State};
use imago::signal::{Evidence, RewardSignal, Verdict};
use imago::{Error, Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Demonstrations;

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
}

/// Settings of [`Gail`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GailConfig {
    /// The reward's form: decides which way episode endings bias the policy.
    pub reward: RewardForm,
    /// Widths of the discriminator's hidden layers.
    #[schemars(inner(range(min = 1, max = 65_536)))]
    pub hidden: Vec<i64>,
    /// Their non-linearity.
    pub activation: Activation,
    /// How it sees actions.
    pub action_input: ActionInput,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Discriminator steps after each rollout.
    pub updates_per_round: usize,
    /// Expert pairs, and as many of the policy, in a step; 0 takes the whole replay.
    pub batch_size: usize,
    /// Policy pairs are drawn from this many latest rollouts.
    pub replay_rollouts: usize,
    /// Factor of the entropy bonus −H(σ(x)), each class weighing the same.
    pub entropy_bonus: f64,
    /// Factor of the gradient penalty; 0 is off.
    #[schemars(range(min = 0))]
    pub gradient_penalty: f64,
    /// The gradient norm it pulls towards.
    pub gradient_penalty_target: f64,
    /// Divide every weight matrix by its largest singular value.
    pub spectral_norm: bool,
    /// Train towards 1 − ε and ε.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 0.5))]
    pub label_smoothing: f64,
    /// Standardise its inputs by their own running statistics.
    pub normalise: bool,
}

impl Default for GailConfig {
    fn default() -> Self {
        Self {
            reward: RewardForm::Positive,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            action_input: ActionInput::OneHot,
            learning_rate: 1e-3,
            updates_per_round: 8,
            batch_size: 256,
            replay_rollouts: 1,
            entropy_bonus: 1e-3,
            gradient_penalty: 0.0,
            gradient_penalty_target: 1.0,
            spectral_norm: false,
            label_smoothing: 0.0,
            normalise: true,
        }
    }
}

/// The network: features of a pair → logit.
struct Discriminator {
    flat: Flat,
    adam: Adam,
    mlp: Mlp,
    out: Linear,
    /// The same layers in plain memory, unless their weights are normalised.
    dense: Option<Dense>,
    /// Left singular vectors of every weight matrix, if they are normalised.
    singular: Vec<Tensor>,
    normaliser: Option<RunningNorm>,
    observation: Space,
    action: Space,
    per_action: bool,
}

/// Pairs as the network reads them: input features `[B, F]` and, for per-action logits, which one counts, `[B, 1]`.
struct Pairs {
    features: Tensor,
    choice: Option<Tensor>,
}

impl Pairs {
    fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// `count` of them, drawn with replacement.
    fn draw(&self, count: usize, rng: &mut Stream) -> Self {
        let index = rng.indices(self.len(), count);
        Self {
            features: self.features.index_select(0, &index),
            choice: self.choice.as_ref().map(|choice| choice.index_select(0, &index)),
        }
    }

    fn shallow_clone(&self) -> Self {
        Self {
            features: self.features.shallow_clone(),
            choice: self.choice.as_ref().map(Tensor::shallow_clone),
        }
    }
}

impl Discriminator {
    fn new(config: &GailConfig, observation: &Space, action: &Space, rng: &mut Stream) -> Self {
        let per_action =
            matches!(action, Space::Discrete { .. }) && config.action_input == ActionInput::PerActionLogit;
        let width = |space: &Space| space.features() as i64;
        let input = width(observation) + if per_action { 0 } else { width(action) };
        let mut layout = Layout::default();
        let mlp = Mlp::new(
            &mut layout,
            "discriminator",
            input,
            &config.hidden,
            config.activation,
            Init::GlorotUniform,
        );
        let last = *config.hidden.last().unwrap_or(&input);
        let outputs = if per_action { width(action) } else { 1 };
        // A zero last layer: D = ½ and one reward for everything, until the first update. A spectrally
        // normalised one would be divided by 0.
        let init = if config.spectral_norm { Init::GlorotUniform } else { Init::Constant(0.0) };
        let out = Linear::new(&mut layout, "discriminator/out", last, outputs, init);
        let flat = Flat::new(layout, rng);
        let mut singular = Vec::new();
        if config.spectral_norm {
            for layer in mlp.layers.iter().chain([&out]) {
                let u = rng.normals(&[flat.get(layer.weight).size()[0]]);
                singular.push(&u / u.norm());
            }
        }
        Self {
            adam: Adam::new(&flat, 1e-8),
            dense: (!config.spectral_norm).then(|| Dense::new(&flat.layout, &mlp, Some(&out))),
            normaliser: config.normalise.then(|| {
                let mut standardised = standardised_features(observation);
                standardised.resize(input as usize, true);
                RunningNorm::new(input as usize, 1e-5, None).only(standardised)
            }),
            flat,
            mlp,
            out,
            singular,
            observation: observation.clone(),
            action: action.clone(),
            per_action,
        }
    }

    /// Observations `[B, …]` and actions `[B, …]` as input. Actions count as executed: clipped to their space.
    fn pairs(&self, observation: &Tensor, action: &Tensor) -> Pairs {
        let observed = features_of(&self.observation, observation);
        match self.per_action {
            true => Pairs { features: observed, choice: Some(action.view([-1, 1])) },
            false => {
                Pairs { features: Tensor::cat(&[observed, executed(&self.action, action)], 1), choice: None }
            }
        }
    }

    /// Pairs with standardised features, statistics frozen.
    fn normalised(&self, pairs: &Pairs) -> Pairs {
        let pairs = pairs.shallow_clone();
        match &self.normaliser {
            Some(normaliser) => Pairs { features: normaliser.normalise(&pairs.features), ..pairs },
            None => pairs,
        }
    }

    /// Logits `[B]` of normalised features.
    fn logits(&self, features: &Tensor, choice: Option<&Tensor>) -> Tensor {
        let layers = self.mlp.layers.iter().chain([&self.out]).enumerate();
        let count = self.mlp.layers.len();
        let x = layers.fold(features.shallow_clone(), |x, (i, layer)| {
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
    fn score(&self, pairs: &Pairs) -> Tensor {
        let pairs = self.normalised(pairs);
        let Some(dense) = &self.dense else {
            return tch::no_grad(|| self.logits(&pairs.features, pairs.choice.as_ref()));
        };
        let mut trace = Trace::default();
        dense.forward(slice(&self.flat.weights), slice(&pairs.features), pairs.len(), &mut trace);
        let logits = Tensor::from_slice(trace.output()).view([-1, dense.outputs() as i64]);
        match &pairs.choice {
            Some(choice) => logits.gather(1, choice, false).squeeze_dim(1),
            None => logits.squeeze_dim(1),
        }
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        self.flat.state(state)?;
        state.scope("adam", |state| self.adam.state(state))?;
        for (i, u) in self.singular.iter_mut().enumerate() {
            state.tensor(&format!("singular{i}"), u)?;
        }
        match &mut self.normaliser {
            Some(normaliser) => state.scope("normaliser", |state| normaliser.state(state)),
            None => Ok(()),
        }
    }
}

/// Actions `[B, …]` as input: choices one-hot, floats clipped to their bounds.
fn executed(space: &Space, action: &Tensor) -> Tensor {
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

/// The policy's latest pairs, a ring.
struct Replay {
    observation: Tensor,
    action: Tensor,
    filled: i64,
    next: i64,
}

impl Replay {
    fn clear(&mut self) {
        (self.filled, self.next) = (0, 0);
    }

    /// Refuses a restored ring whose marks lie outside it, or its content outside the spaces.
    fn check(&self, observation: &Space, action: &Space) -> Result<()> {
        let capacity = self.observation.size()[0];
        if !(0..=capacity).contains(&self.filled) || !(0..capacity).contains(&self.next) {
            return Err(Error::Invalid(format!(
                "the saved replay of {capacity} transitions holds {} of them and goes on at {}",
                self.filled, self.next
            )));
        }
        for (space, tensor) in [(observation, &self.observation), (action, &self.action)] {
            if let Some(row) = first_row_outside(space, tensor) {
                return Err(Error::Invalid(format!("row {row} of the saved replay lies outside {space}")));
            }
        }
        Ok(())
    }

    fn push(&mut self, observation: &Tensor, action: &Tensor) {
        let capacity = self.observation.size()[0];
        let count = observation.size()[0];
        let first = count.min(capacity - self.next);
        for (start, len, to) in [(0, first, self.next), (first, count - first, 0)] {
            self.observation.narrow(0, to, len).copy_(&observation.narrow(0, start, len));
            self.action.narrow(0, to, len).copy_(&action.narrow(0, start, len));
        }
        self.next = (self.next + count) % capacity;
        self.filled = (self.filled + count).min(capacity);
    }
}

/// Smoothed figures of the discriminator, for the verdict.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Health {
    accuracy_expert: f64,
    accuracy_policy: f64,
    logit_expert: f64,
    logit_policy: f64,
    rounds: u64,
}

impl Health {
    fn observe(&mut self, now: [f64; 4]) {
        self.rounds += 1;
        let rate = (1.0 / self.rounds as f64).max(0.1);
        let smoothed = [
            &mut self.accuracy_expert,
            &mut self.accuracy_policy,
            &mut self.logit_expert,
            &mut self.logit_policy,
        ];
        for (old, new) in smoothed.into_iter().zip(now) {
            *old += rate * (new - *old);
        }
    }

    /// One word and what it means.
    fn diagnosis(&self) -> (&'static str, &'static str) {
        let (expert, policy) = (self.logit_expert, self.logit_policy);
        if self.rounds == 0 {
            ("untrained", "the discriminator was never updated")
        } else if expert * policy > 0.0 && expert.abs().min(policy.abs()) > 2.0 {
            (
                "collapsed",
                "it calls everything the same, so its reward carries no information; lower its learning rate or give it more policy pairs",
            )
        } else if self.accuracy_expert > 0.95 && self.accuracy_policy > 0.95 {
            (
                "saturated",
                "it tells expert and policy apart almost perfectly: the policy has not caught up, or the discriminator is too strong (try gradient_penalty, spectral_norm or fewer updates_per_round)",
            )
        } else {
            ("balanced", "it neither fails nor wins outright, as it should")
        }
    }
}

/// GAIL as a reward signal.
pub struct Gail {
    config: GailConfig,
    discriminator: Discriminator,
    expert: Pairs,
    expert_return: f64,
    expert_return_std: f64,
    replay: Replay,
    health: Health,
    trace: Trace,
}

impl Gail {
    /// A discriminator for `demonstrations`; `rollout` is the number of transitions in a rollout.
    ///
    /// # Errors
    /// Demonstrations without a single pair; a logit for each action where actions are no single choice.
    pub fn new(
        config: GailConfig,
        demonstrations: &Demonstrations,
        rollout: usize,
        rng: &mut Stream,
    ) -> Result<Self> {
        if demonstrations.pairs() == 0 {
            return Err(Error::Invalid("the demonstrations hold no pair to imitate".into()));
        }
        let action = &demonstrations.action_space;
        if config.action_input == ActionInput::PerActionLogit && !matches!(action, Space::Discrete { .. }) {
            return Err(Error::Invalid(format!(
                "action_input = \"per_action_logit\" needs Discrete actions, these are {action}: use \"one_hot\", \
                 which takes all kinds of actions as input"
            )));
        }
        let discriminator =
            Discriminator::new(&config, &demonstrations.observation_space, &demonstrations.action_space, rng);
        let capacity = (rollout * config.replay_rollouts.max(1)) as i64;
        let ring = |like: &Tensor| {
            let mut shape = like.size();
            shape[0] = capacity;
            Tensor::zeros(&shape[..], (like.kind(), like.device()))
        };
        let (expert_return, expert_return_std) = demonstrations.return_mean_std();
        Ok(Self {
            config,
            expert: discriminator.pairs(&demonstrations.observations, &demonstrations.actions),
            expert_return,
            expert_return_std,
            replay: Replay {
                observation: ring(&demonstrations.observations),
                action: ring(&demonstrations.actions),
                filled: 0,
                next: 0,
            },
            health: Health::default(),
            trace: Trace::default(),
            discriminator,
        })
    }

    /// One step of the discriminator on pairs drawn from both sides, standardised already; returns accuracies and
    /// mean logits on expert and policy.
    fn step(&mut self, expert: &Pairs, policy: &Pairs, rng: &mut Stream, log: &mut Log) -> Result<[f64; 4]> {
        let generated = match self.config.batch_size {
            0 => policy.shallow_clone(),
            size => policy.draw(size, rng),
        };
        let real = expert.draw(generated.len(), rng);
        let losses = match self.fused_gradient(&real, &generated) {
            Some(losses) => losses,
            None => self.gradient(&real, &generated, rng, log)?,
        };
        let discriminator = &mut self.discriminator;
        let norm = discriminator.flat.gradient_norm();
        if !norm.is_finite() {
            let batch = vec![("expert".into(), real.features), ("policy".into(), generated.features)];
            return Err(discriminator.flat.diverged("GAIL", batch));
        }
        discriminator.adam.update(&mut discriminator.flat, self.config.learning_rate);
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

    /// The loss's gradient without autograd, where there are neither penalties nor normalised weights.
    fn fused_gradient(&mut self, real: &Pairs, generated: &Pairs) -> Option<DiscriminatorLosses> {
        let dense = self.discriminator.dense.as_ref().filter(|_| self.config.gradient_penalty <= 0.0)?;
        let features = Tensor::cat(&[&real.features, &generated.features], 0);
        let choice = real.choice.as_ref().zip(generated.choice.as_ref());
        let choice = choice.map(|(real, generated)| Tensor::cat(&[real, generated], 0));
        let batch = DiscriminatorBatch {
            features: slice(&features),
            choice: choice.as_ref().map(slice),
            rows: 2 * real.len(),
        };
        let Flat { weights, gradient, .. } = &mut self.discriminator.flat;
        Some(discriminator_gradient(
            dense,
            slice(weights),
            slice_mut(gradient),
            &batch,
            self.config.label_smoothing,
            self.config.entropy_bonus,
            &mut self.trace,
        ))
    }

    /// The loss's gradient by autograd, for penalties and normalised weights.
    fn gradient(
        &mut self,
        real: &Pairs,
        generated: &Pairs,
        rng: &mut Stream,
        log: &mut Log,
    ) -> Result<DiscriminatorLosses> {
        let discriminator = &mut self.discriminator;
        let matrices = discriminator.mlp.layers.iter().chain([&discriminator.out]);
        for (layer, u) in matrices.zip(&mut discriminator.singular) {
            power_iteration(discriminator.flat.get(layer.weight), u);
        }
        let expert_logits = discriminator.logits(&real.features, real.choice.as_ref());
        let policy_logits = discriminator.logits(&generated.features, generated.choice.as_ref());
        let loss = discriminator_loss(&expert_logits, &policy_logits, self.config.label_smoothing);
        let entropy = bernoulli_entropy(&expert_logits) + bernoulli_entropy(&policy_logits);
        let mut total = &loss - &entropy * self.config.entropy_bonus;
        if self.config.gradient_penalty > 0.0 {
            let mix = rng.uniforms(&[real.len() as i64, 1]);
            // Between two per-action pairs the expert's action counts: half an action has no logit.
            let f = |x: &Tensor| discriminator.logits(x, real.choice.as_ref());
            let target = self.config.gradient_penalty_target;
            let penalty = gradient_penalty(f, &real.features, &generated.features, &mix, target)?;
            log.scalar("gradient_penalty", penalty.double_value(&[]));
            total += penalty * self.config.gradient_penalty;
        }
        discriminator.flat.backward(&total)?;
        let mean = |x: &Tensor| x.mean(Kind::Float).double_value(&[]);
        Ok(DiscriminatorLosses {
            loss: loss.double_value(&[]),
            entropy: entropy.double_value(&[]) / 2.0,
            accuracy: [accuracy(&expert_logits, true), accuracy(&policy_logits, false)],
            logit: [mean(&expert_logits), mean(&policy_logits)],
        })
    }
}

impl RewardSignal for Gail {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let pairs = self.discriminator.pairs(&batch.flat_observation(), &batch.flat_action());
        Ok(batch.in_lead(&self.config.reward.reward(&self.discriminator.score(&pairs))))
    }

    fn update(&mut self, recent: &Batch, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let valid = recent.valid_index();
        let count = valid.size()[0];
        if count == 0 {
            return Ok(());
        }
        let observation = recent.gather_observation(&valid);
        let action = recent.flat_action().index_select(0, &valid);
        if self.config.replay_rollouts <= 1 {
            self.replay.clear();
        }
        self.replay.push(&observation, &action);
        // Statistics of both classes in equal parts, once a rollout.
        let expert = self.expert.draw(count as usize, rng);
        let policy = self.discriminator.pairs(&observation, &action);
        if let Some(normaliser) = &mut self.discriminator.normaliser {
            normaliser.update(&Tensor::cat(&[expert.features, policy.features], 0));
        }
        let policy = self.discriminator.pairs(
            &self.replay.observation.narrow(0, 0, self.replay.filled),
            &self.replay.action.narrow(0, 0, self.replay.filled),
        );
        // The statistics stand still until the next rollout.
        let (expert, policy) =
            (self.discriminator.normalised(&self.expert), self.discriminator.normalised(&policy));
        let mut sums = [0.0; 4];
        for _ in 0..self.config.updates_per_round {
            let figures = self.step(&expert, &policy, rng, log)?;
            sums.iter_mut()
                .zip(figures)
                .for_each(|(sum, x)| *sum += x / self.config.updates_per_round as f64);
        }
        if self.config.updates_per_round > 0 {
            self.health.observe(sums);
        }
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("discriminator", |state| self.discriminator.state(state))?;
        state.value("health", &mut self.health)?;
        // With one rollout the ring is emptied before it is read.
        if self.config.replay_rollouts > 1 {
            state.tensor("replay_observation", &mut self.replay.observation)?;
            state.tensor("replay_action", &mut self.replay.action)?;
            state.value("replay_filled", &mut self.replay.filled)?;
            state.value("replay_next", &mut self.replay.next)?;
            self.replay.check(&self.discriminator.observation, &self.discriminator.action)?;
        }
        Ok(())
    }

    fn verdict(&self, evidence: &Evidence) -> Option<Verdict> {
        let (word, meaning) = self.health.diagnosis();
        let matched = evidence.return_mean.map(|reached| {
            reached >= self.expert_return - self.expert_return_std.max(0.05 * self.expert_return.abs())
        });
        let returns = match (matched, evidence.return_mean) {
            (Some(true), Some(reached)) => format!(
                "The policy matched the demonstrations: return {reached:.1}, theirs {:.1}.",
                self.expert_return
            ),
            (_, Some(reached)) => format!(
                "The policy did not match the demonstrations: return {reached:.1}, theirs {:.1}.",
                self.expert_return
            ),
            (_, None) => "The policy was not evaluated, so whether it matched is unknown.".into(),
        };
        let (bias, why) = termination_bias(self.config.reward, evidence);
        Some(Verdict {
            text: format!("{returns} The discriminator is {word}: {meaning}. Termination bias: {why}."),
            fields: serde_json::json!({
                "matched": matched,
                "demonstrations_return": self.expert_return,
                "discriminator": word,
                "accuracy_expert": self.health.accuracy_expert,
                "accuracy_policy": self.health.accuracy_policy,
                "termination_bias": bias,
            }),
        })
    }
}

/// Which way the ends of episodes push a policy under this reward, whatever the demonstrations say.
fn termination_bias(form: RewardForm, evidence: &Evidence) -> (&'static str, String) {
    let Evidence { episodes, terminated, .. } = *evidence;
    if episodes == 0 {
        return ("unknown", "unknown, since no episode ended during training".into());
    }
    if terminated == 0 {
        return ("none", format!("none, since all {episodes} training episodes ran to their time limit"));
    }
    let ended = format!("{terminated} of {episodes} training episodes were ended by the task");
    match form {
        RewardForm::Positive => (
            "survival",
            format!(
                "{ended} and every step pays a positive reward, so long episodes pay whatever they look like: \
                 part of the score may be survival, not imitation"
            ),
        ),
        RewardForm::Negative => (
            "early_end",
            format!("{ended} and every step costs, so ending early pays whatever it looks like"),
        ),
        RewardForm::Logit => (
            "either",
            format!(
                "{ended}; the reward has either sign, so ends attract a policy that looks worse than the expert \
                 and repel one that looks better"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::rollout::Lead;
    use proptest::prelude::*;
    use tch::Device;

    fn config() -> GailConfig {
        GailConfig { batch_size: 64, ..Default::default() }
    }

    fn demonstrations(observation: &[f32], action: &[i64]) -> Demonstrations {
        Demonstrations::from_pairs(
            Space::floats(&[1], -10.0, 10.0),
            Space::discrete(2),
            Tensor::from_slice(observation).view([-1, 1]),
            Tensor::from_slice(action),
        )
    }

    fn flat(observation: &[f32], action: &[i64]) -> Batch {
        let count = action.len() as i64;
        let bools = |value: f64| Tensor::full([count], value, (Kind::Bool, Device::Cpu));
        Batch {
            lead: Lead::Flat(count),
            observations: Tensor::from_slice(observation).view([-1, 1]),
            stacking: None,
            action: Tensor::from_slice(action),
            action_mask: None,
            log_prob: None,
            values: None,
            reward: Tensor::zeros([count], (Kind::Float, Device::Cpu)),
            terminated: bools(0.0),
            truncated: bools(0.0),
            start: bools(0.0),
            valid: bools(1.0),
            ends: None,
        }
    }

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

    #[test]
    fn a_replay_that_cannot_be_is_refused() {
        let config = GailConfig { replay_rollouts: 2, ..config() };
        let made = || {
            let demonstrations = demonstrations(&[0.0, 1.0], &[0, 1]);
            Gail::new(config.clone(), &demonstrations, 4, &mut Stream::new(0, "gail", 0, 0)).unwrap()
        };
        let refused = |name: &str, value: i64, tensor: bool| {
            let mut state = State::saving();
            made().state(&mut state).unwrap();
            let (tensors, mut values) = state.finish().unwrap();
            let tensors: std::collections::BTreeMap<_, _> = tensors.into_iter().collect();
            match tensor {
                true => drop(tensors[name].get(3).fill_(value)),
                false => drop(values.insert(name.into(), value.into()).unwrap()),
            }
            made().state(&mut State::loading(tensors, values)).map_err(|error| error.to_string())
        };
        refused("replay_filled", 8, false).unwrap();
        assert!(refused("replay_filled", 9, false).unwrap_err().contains("holds 9"));
        assert!(refused("replay_next", 8, false).unwrap_err().contains("goes on at 8"));
        assert!(refused("replay_next", -1, false).unwrap_err().contains("goes on at -1"));
        refused("replay_action", 1, true).unwrap();
        assert!(refused("replay_action", 2, true).unwrap_err().contains("row 3 of the saved replay"));
    }

    #[test]
    fn starts_undecided_and_with_the_papers_parameter_count() {
        let mut rng = Stream::new(0, "gail", 0, 0);
        let demonstrations = demonstrations(&[0.0, 1.0], &[0, 1]);
        let mut gail = Gail::new(config(), &demonstrations, 4, &mut rng).unwrap();
        let reward = gail.reward(&flat(&[5.0, -3.0], &[0, 1])).unwrap();
        assert!((reward - 2f64.ln()).abs().max().double_value(&[]) < 1e-6);
        let paper = GailConfig {
            hidden: vec![100, 100],
            action_input: ActionInput::PerActionLogit,
            ..Default::default()
        };
        let (observation, action) = (Space::floats(&[4], -1.0, 1.0), Space::discrete(2));
        assert_eq!(Discriminator::new(&paper, &observation, &action, &mut rng).flat.count(), 10_802);
        let (observation, action) = (Space::floats(&[11], -1.0, 1.0), Space::floats(&[3], -1.0, 1.0));
        assert_eq!(Discriminator::new(&paper, &observation, &action, &mut rng).flat.count(), 11_701);
    }

    /// Every option learns to pay what the expert does more than what the policy did.
    #[test]
    fn learns_to_pay_the_experts_pairs() {
        let variants = [
            config(),
            GailConfig { action_input: ActionInput::PerActionLogit, ..config() },
            GailConfig { gradient_penalty: 1.0, ..config() },
            GailConfig { gradient_penalty: 1.0, action_input: ActionInput::PerActionLogit, ..config() },
            GailConfig { spectral_norm: true, learning_rate: 1e-2, ..config() },
            GailConfig { label_smoothing: 0.1, normalise: false, ..config() },
            GailConfig { batch_size: 0, replay_rollouts: 3, ..config() },
        ];
        for config in variants {
            let mut rng = Stream::new(1, "gail", 0, 0);
            let demonstrations = demonstrations(&[1.0, 1.2, -0.8, -1.0], &[1, 1, 0, 0]);
            let mut gail = Gail::new(config.clone(), &demonstrations, 6, &mut rng).unwrap();
            let recent = flat(&[1.0, 1.2, 0.8, -1.0, -1.1, -0.9], &[0, 0, 0, 1, 1, 1]);
            for _ in 0..60 {
                gail.update(&recent, &mut rng, &mut Log::in_memory()).unwrap();
            }
            let expert = gail.reward(&flat(&[1.0, -1.0], &[1, 0])).unwrap().min().double_value(&[]);
            let policy = gail.reward(&flat(&[1.0, -1.0], &[0, 1])).unwrap().max().double_value(&[]);
            assert!(expert > policy + 0.1, "{config:?}: {expert} {policy}");
        }
    }

    /// Records of an observed number, and actions of a kind.
    fn pairs_of(action: &Space, numbers: &[f32], actions: &Tensor) -> Demonstrations {
        let observation =
            Space::fields([("number", Space::floats(&[1], -9.0, 9.0)), ("pad", Space::discrete(2))]).unwrap();
        let Space::Fields(fields) = &observation else { unreachable!() };
        let records = Tensor::zeros([numbers.len() as i64, 16], (Kind::Uint8, Device::Cpu));
        field_of(&records, &fields[0]).copy_(&Tensor::from_slice(numbers).view([-1, 1]));
        Demonstrations::from_pairs(observation, action.clone(), records, actions.shallow_clone())
    }

    #[test]
    fn all_kinds_of_actions_are_told_apart() {
        let two = |rows: &[[i64; 2]]| Tensor::from_slice2(rows);
        let bytes = |rows: &[[i64; 2]]| two(rows).to_kind(Kind::Uint8);
        let records = |rows: &[[i64; 2]]| {
            let space = joint();
            let Space::Fields(fields) = &space else { unreachable!() };
            let records = Tensor::zeros([rows.len() as i64, 16], (Kind::Uint8, Device::Cpu));
            field_of(&records, &fields[0]).copy_(&two(rows).select(1, 0));
            field_of(&records, &fields[1]).copy_(&two(rows).narrow(1, 1, 1));
            records
        };
        fn joint() -> Space {
            Space::fields([("a", Space::discrete(2)), ("b", Space::floats(&[1], -1.0, 1.0))]).unwrap()
        }
        type Actions<'a> = &'a dyn Fn(&[[i64; 2]]) -> Tensor;
        let kinds: [(Space, Actions); 3] = [
            (Space::multi_discrete(&[2, 3]), &two),
            (Space::multi_binary(&[2]), &bytes),
            (joint(), &records),
        ];
        for (space, actions) in kinds {
            let mut rng = Stream::new(3, "gail", 0, 0);
            // The expert does (1, 0) where the number is positive and (0, 1) where it is not.
            let right = [[1, 0], [0, 1], [1, 0], [0, 1]];
            let wrong = [[0, 1], [1, 0], [0, 1], [1, 0]];
            let numbers = [1.0, -1.0, 2.0, -2.0];
            let expert = pairs_of(&space, &numbers, &actions(&right));
            let batch = |rows: &[[i64; 2]]| {
                let seen = pairs_of(&space, &numbers, &actions(rows));
                let mut batch = flat(&numbers, &[0; 4]);
                (batch.observations, batch.action) = (seen.observations, seen.actions);
                batch
            };
            let mut gail = Gail::new(config(), &expert, 4, &mut rng).unwrap();
            for _ in 0..60 {
                gail.update(&batch(&wrong), &mut rng, &mut Log::in_memory()).unwrap();
            }
            let lowest = gail.reward(&batch(&right)).unwrap().min().double_value(&[]);
            let highest = gail.reward(&batch(&wrong)).unwrap().max().double_value(&[]);
            assert!(lowest > highest + 0.1, "{space}: {lowest} {highest}");
            let config = GailConfig { action_input: ActionInput::PerActionLogit, ..config() };
            let message = Gail::new(config, &expert, 4, &mut rng).err().unwrap().to_string();
            assert!(message.contains("per_action_logit") && message.contains("one_hot"), "{message}");
        }
    }

    #[test]
    fn statistics_are_frozen_while_scoring() {
        let mut rng = Stream::new(2, "gail", 0, 0);
        let mut gail = Gail::new(config(), &demonstrations(&[0.0, 1.0], &[0, 1]), 2, &mut rng).unwrap();
        gail.update(&flat(&[3.0, 4.0], &[1, 0]), &mut rng, &mut Log::in_memory()).unwrap();
        let before = gail.discriminator.normaliser.clone();
        let _ = gail.reward(&flat(&[100.0, -100.0], &[0, 1])).unwrap();
        assert_eq!(before, gail.discriminator.normaliser);
    }

    #[test]
    fn the_ring_keeps_the_latest_rollouts() {
        let zeros = |kind| Tensor::zeros([4, 1], (kind, Device::Cpu));
        let mut replay =
            Replay { observation: zeros(Kind::Float), action: zeros(Kind::Int64), filled: 0, next: 0 };
        for start in [0.0f32, 3.0, 6.0] {
            let rows = Tensor::from_slice(&[start, start + 1.0, start + 2.0]).view([3, 1]);
            replay.push(&rows, &rows.to_kind(Kind::Int64));
        }
        let mut kept = Vec::<f32>::try_from(replay.observation.view(-1)).unwrap();
        kept.sort_by(f32::total_cmp);
        assert_eq!((kept, replay.filled), (vec![5.0, 6.0, 7.0, 8.0], 4));
    }

    #[test]
    fn verdict_names_the_bias_of_the_reward_form() {
        let evidence = Evidence { return_mean: Some(1.0), episodes: 10, terminated: 4 };
        assert_eq!(termination_bias(RewardForm::Positive, &evidence).0, "survival");
        assert_eq!(termination_bias(RewardForm::Negative, &evidence).0, "early_end");
        let fixed = Evidence { terminated: 0, ..evidence };
        assert_eq!(termination_bias(RewardForm::Positive, &fixed).0, "none");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn the_fused_gradient_is_autograds(
            seed in 0u64..10_000,
            count in 1usize..80,
            hidden in prop::collection::vec(1i64..60, 0..3),
            (per_action, relu) in any::<(bool, bool)>(),
            (entropy_bonus, label_smoothing) in (0.0f64..0.1, 0.0f64..0.3),
        ) {
            let mut rng = Stream::new(seed, "fused", 0, 0);
            let observation = Space::floats(&[3], -1.0, 1.0);
            let demonstrations = Demonstrations::from_pairs(
                observation, Space::discrete(4), rng.normals(&[50, 3]), rng.indices(4, 50),
            );
            let config = GailConfig {
                hidden,
                activation: if relu { Activation::Relu } else { Activation::Tanh },
                action_input: if per_action { ActionInput::PerActionLogit } else { ActionInput::OneHot },
                entropy_bonus,
                label_smoothing,
                ..Default::default()
            };
            let mut gail = Gail::new(config, &demonstrations, 64, &mut rng).unwrap();
            slice_mut::<f32>(&mut gail.discriminator.flat.weights)
                .iter_mut()
                .for_each(|w| *w += 0.2 * rng.normal());
            let real = gail.expert.draw(count, &mut rng);
            let (seen, done) = (rng.normals(&[count as i64, 3]) * 2.0, rng.indices(4, count));
            let generated = gail.discriminator.pairs(&seen, &done);
            let theirs = gail.gradient(&real, &generated, &mut rng, &mut Log::in_memory()).unwrap();
            let wanted = slice::<f32>(&gail.discriminator.flat.gradient).to_vec();
            let ours = gail.fused_gradient(&real, &generated).unwrap();
            let scale = wanted.iter().fold(1f32, |scale, g| scale.max(g.abs()));
            for (a, b) in slice::<f32>(&gail.discriminator.flat.gradient).iter().zip(&wanted) {
                prop_assert!((a - b).abs() < 1e-5 * scale, "{a} is not {b} of at most {scale}");
            }
            let figures = |x: &DiscriminatorLosses| {
                [x.loss, x.entropy, x.accuracy[0], x.accuracy[1], x.logit[0], x.logit[1]]
            };
            for (a, b) in figures(&ours).into_iter().zip(figures(&theirs)) {
                prop_assert!((a - b).abs() < 1e-4, "{ours:?} is not {theirs:?}");
            }
            // What the policy is paid comes from the same logits.
            let slow = tch::no_grad(|| gail.discriminator.logits(&generated.features, generated.choice.as_ref()));
            gail.discriminator.normaliser = None;
            let fast = gail.discriminator.score(&generated);
            prop_assert!((fast - slow).abs().max().double_value(&[]) < 1e-5);
        }
    }
}
