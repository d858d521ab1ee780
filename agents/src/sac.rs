//! Soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"): a squashed Gaussian
//! policy, twin critics with targets, and a temperature that keeps the policy's entropy where it is wanted.

use crate::critics::{CriticLosses, Critics};
use crate::experience::{Experience, Minibatch, ReplayConfig};
use crate::learner::Learner;
use imago::memory::{slice, slice_mut};
use imago::nn::{
    ActorCritic, Adam, BoxHead, Dense, Flat, Init, LOG_STD_RANGE, Layout, Trace, gaussian_log_prob, log_slope,
};
use imago::rollout::Batch;
use imago::run::profile::{Phase, timed};
use imago::run::{Log, State};
use imago::signal::{Moment, Signals};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Settings of [`Sac`], besides those of the replay. Defaults are Stable-Baselines3's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SacConfig {
    /// Adam's step size, of policy, critics and temperature.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Temperature α at the beginning: what a nat of entropy is worth in units of reward.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// Let α follow the target entropy; else it stays.
    pub learn_temperature: bool,
    /// Entropy that α keeps the policy at, in nats, actions being measured in units of half their bounds.
    #[schemars(extend("x-default" = "minus the number of numbers in an action"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_entropy: Option<f64>,
}

impl Default for SacConfig {
    fn default() -> Self {
        Self { learning_rate: 3e-4, temperature: 1.0, learn_temperature: true, target_entropy: None }
    }
}

/// Actions drawn from squashed normals by u = tanh x, x = μ + σ z; `[B, A]` each but `log_prob`.
#[derive(Debug, Default)]
struct Drawn {
    u: Vec<f32>,
    /// σ z
    noise: Vec<f32>,
    /// Whether log σ was within its range, so that it moves with the network's output.
    free: Vec<bool>,
    /// log π(u), `[B]`, in units of the bounds.
    log_prob: Vec<f32>,
}

impl Drawn {
    /// From the network's output, `[B, 2 A]`: means, then log standard deviations.
    fn draw(&mut self, out: &[f32], count: usize, rng: &mut Stream) {
        let Self { u, noise, free, log_prob } = self;
        u.clear();
        noise.clear();
        free.clear();
        log_prob.clear();
        for out in out.chunks_exact(2 * count) {
            let (means, log_stds) = out.split_at(count);
            let mut sum = 0.0;
            for (mean, &log_std) in means.iter().zip(log_stds) {
                let z = rng.normal();
                let kept = log_std.clamp(LOG_STD_RANGE[0], LOG_STD_RANGE[1]);
                let moved = z * kept.exp();
                let x = mean + moved;
                u.push(x.tanh());
                noise.push(moved);
                free.push(kept == log_std);
                sum += gaussian_log_prob(z, kept) - log_slope(x);
            }
            log_prob.push(sum);
        }
    }
}

/// d/d out of Σ weight · (α log π − Q) into `d_out`, `[B, 2 A]`, given −Σ weight · dQ/du as `d_u` with `stride` numbers
/// a row, the actions last.
///
/// With x = μ + σ z and u = tanh x, d log π/dx = 2 u and du/dx = 1 − u², so dμ is that of x, and d log σ is that of x
/// times σ z, less α for the density that widens.
fn policy_gradient(
    drawn: &Drawn,
    weight: &[f32],
    alpha: f32,
    d_input: &[f32],
    count: usize,
    d_out: &mut [f32],
) {
    let stride = d_input.len() / weight.len();
    for (row, (d_out, weight)) in d_out.chunks_exact_mut(2 * count).zip(weight).enumerate() {
        let d_u = &d_input[(row + 1) * stride - count..(row + 1) * stride];
        for i in 0..count {
            let at = row * count + i;
            let u = drawn.u[at];
            let d_x = alpha * weight * 2.0 * u + d_u[i] * (1.0 - u * u);
            d_out[i] = d_x;
            d_out[count + i] = if drawn.free[at] { d_x * drawn.noise[at] - alpha * weight } else { 0.0 };
        }
    }
}

/// The learner.
pub struct Sac {
    config: SacConfig,
    policy: ActorCritic,
    adam: Adam,
    network: Dense,
    critics: Critics,
    /// log α, a network of one parameter.
    temperature: Flat,
    temperature_adam: Adam,
    experience: Experience,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    minibatch: Minibatch,
    trace: Trace,
    next_trace: Trace,
    drawn: Drawn,
    next_drawn: Drawn,
    target: Vec<f32>,
    weight: Vec<f32>,
    values: Vec<f32>,
    d_input: Vec<f32>,
    d_second: Vec<f32>,
}

impl Sac {
    /// A learner of `policy`, whose head is a squashed Gaussian and which has no value heads; the critics are
    /// perceptrons of the same widths.
    ///
    /// # Errors
    /// Another policy.
    pub fn new(
        replay: ReplayConfig,
        config: SacConfig,
        policy: ActorCritic,
        rng: &mut Stream,
    ) -> Result<Self> {
        let experience = Experience::new(replay, &policy)?;
        let network = policy.perceptron().filter(|_| policy.spec.box_head == BoxHead::SquashedGaussian);
        let network = network.ok_or_else(|| Error::Invalid("SAC's policy is a squashed Gaussian".into()))?;
        let torso = &policy.spec.torso;
        let critics = Critics::new(experience.inputs(&policy), &torso.hidden, torso.activation, rng);
        let mut layout = Layout::default();
        layout.add("log_temperature", &[1], Init::Constant(config.temperature.ln()));
        let temperature = Flat::new(layout, rng);
        Ok(Self {
            adam: Adam::new(&policy.parameters, 1e-8),
            temperature_adam: Adam::new(&temperature, 1e-8),
            config,
            policy,
            network,
            critics,
            temperature,
            experience,
            scratch: Scratch::default(),
        })
    }

    /// α
    pub fn temperature(&self) -> f64 {
        f64::from(slice::<f32>(&self.temperature.weights)[0]).exp()
    }

    /// One update on the minibatch in the scratch: temperature, critics, policy, targets.
    fn update(&mut self, rng: &mut Stream, log: &mut Log) -> Result<()> {
        let count = self.experience.actions();
        let Scratch {
            minibatch,
            trace,
            next_trace,
            drawn,
            next_drawn,
            target,
            weight,
            values,
            d_input,
            d_second,
        } = &mut self.scratch;
        let rows = minibatch.reward.len();
        let alpha = f64::from(slice::<f32>(&self.temperature.weights)[0]).exp() as f32;
        let rate = self.config.learning_rate;

        let weights = slice::<f32>(&self.policy.parameters.weights);
        self.network.forward(weights, &minibatch.features, rows, trace);
        drawn.draw(trace.output(), count, rng);
        self.network.forward(weights, &minibatch.next_features, rows, next_trace);
        next_drawn.draw(next_trace.output(), count, rng);

        // Rows in which the policy acts, in equal parts; all of them without absorbing states.
        let acting: f32 = minibatch.acts.iter().sum();
        weight.clear();
        weight.extend(minibatch.acts.iter().map(|acts| acts / acting.max(1.0)));
        let log_prob: f64 =
            weight.iter().zip(&drawn.log_prob).map(|(w, p)| f64::from(*w) * f64::from(*p)).sum();
        if self.config.learn_temperature && acting > 0.0 {
            let wanted = self.config.target_entropy.unwrap_or(-(count as f64));
            // d/d log α of −log α · (mean log π + wanted entropy).
            slice_mut::<f32>(&mut self.temperature.gradient)[0] = -(log_prob + wanted) as f32;
            self.temperature_adam.update(&mut self.temperature, rate);
        }

        // r + γ (min Q′(s′, a′) − α log π(a′|s′)); in the absorbing state nothing is done and nothing chosen.
        next_drawn.u.iter_mut().enumerate().for_each(|(i, u)| *u *= minibatch.next_acts[i / count]);
        Minibatch::with_actions(&mut minibatch.next_input, &next_drawn.u, count);
        self.critics.target_minimum(&minibatch.next_input, rows, values);
        target.clear();
        target.extend((0..rows).map(|i| {
            let soft = values[i] - alpha * next_drawn.log_prob[i] * minibatch.next_acts[i];
            minibatch.reward[i] + minibatch.discount[i] * soft
        }));
        let CriticLosses { loss, value, gradient_norm } =
            self.critics.improve(&minibatch.input, target, rate)?;

        if acting > 0.0 {
            // The recorded actions have done their part: the policy's take their place.
            Minibatch::with_actions(&mut minibatch.input, &drawn.u, count);
            self.critics.minimum_and_slope(&minibatch.input, weight, values, d_input, d_second);
            let (_, d_out) = trace.output_and_gradient();
            policy_gradient(drawn, weight, alpha, d_input, count, d_out);
            let Flat { weights, gradient, .. } = &mut self.policy.parameters;
            self.network.backward(slice(weights), slice_mut(gradient), &minibatch.features, None, trace);
            let norm = self.policy.parameters.gradient_norm();
            if !norm.is_finite() {
                let batch = vec![("features".into(), Tensor::from_slice(&minibatch.features))];
                return Err(self.policy.parameters.diverged("policy", batch));
            }
            self.adam.update(&mut self.policy.parameters, rate);
            let reached: f64 = weight.iter().zip(values.iter()).map(|(w, q)| f64::from(w * q)).sum();
            log.scalar("policy/loss", f64::from(alpha) * log_prob - reached);
            log.scalar("policy/entropy", -log_prob);
            log.scalar("policy/gradient_norm", norm);
        }
        self.critics.follow(self.experience.config.target_rate);
        log.scalar("policy/temperature", f64::from(alpha));
        log.scalar("critic/loss", loss);
        log.scalar("critic/value", value);
        log.scalar("critic/gradient_norm", gradient_norm);
        log.scalar("critic/reward", mean(&minibatch.reward));
        Ok(())
    }
}

pub(crate) fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len().max(1) as f64
}

impl Learner for Sac {
    fn policy(&self) -> &ActorCritic {
        &self.policy
    }

    fn learn(&mut self, rollout: Batch, signals: &mut Signals, now: Moment, log: &mut Log) -> Result<()> {
        let due = self.experience.take_in(&self.policy, &rollout, signals, now, log)?;
        for _ in 0..due {
            let mut rng = self.experience.draw(&self.policy, signals, now, &mut self.scratch.minibatch)?;
            timed(Phase::Update, || self.update(&mut rng, log))?;
        }
        self.experience.conclude(&mut self.policy, &rollout, signals, now, log)
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.scope("policy", |state| self.policy.state(state))?;
        state.scope("adam", |state| self.adam.state(state))?;
        state.scope("critics", |state| self.critics.state(state))?;
        state.scope("temperature", |state| {
            self.temperature.state(state)?;
            state.scope("adam", |state| self.temperature_adam.state(state))
        })?;
        self.experience.state(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::experience::assert_gradients_agree;
    use imago::nn::{Activation, PolicySpec, TorsoSpec, log_slope_of};
    use imago_envs::Space;
    use proptest::prelude::*;
    use std::f64::consts::PI;
    use tch::Kind;

    fn sac(features: usize, actions: usize, absorbing: bool, config: SacConfig, rng: &mut Stream) -> Sac {
        let spec = PolicySpec {
            observation: Space::floats(&[features], -9.0, 9.0),
            action: Space::floats(&[actions], -2.0, 2.0),
            torso: TorsoSpec { activation: Activation::Relu, ..TorsoSpec::perceptron(&[24, 16]) },
            shared: false,
            value_heads: 0,
            normalise: false,
            log_std: 0.0,
            masked: false,
            box_head: BoxHead::SquashedGaussian,
            memory: None,
        };
        let policy = ActorCritic::new(spec, rng).unwrap();
        let replay = ReplayConfig { absorbing, replay_size: 10, ..Default::default() };
        let mut sac = Sac::new(replay, config, policy, rng).unwrap();
        // Not the small initial head, and targets of their own.
        let weights = slice_mut::<f32>(&mut sac.policy.parameters.weights);
        weights.iter_mut().for_each(|w| *w += 0.2 * rng.normal());
        sac.critics.shake(rng);
        sac
    }

    /// u and log π(u), `[B, A]` and `[B]`, of the network's output by libtorch, noise from `rng`.
    fn drawn(out: &Tensor, rng: &mut Stream) -> (Tensor, Tensor) {
        let halves = out.chunk(2, 1);
        let (mean, log_std) = (&halves[0], halves[1].clamp(-20.0, 2.0));
        let z = rng.normals(&mean.size());
        let x = mean + &z * log_std.exp();
        let density: Tensor = z.square() * -0.5 - log_std - 0.5 * (2.0 * PI).ln() - log_slope_of(&x);
        (x.tanh(), density.sum_dim_intlist([1i64].as_slice(), false, Kind::Float))
    }

    fn out(sac: &Sac, features: &[f32], rows: usize) -> Tensor {
        let mut x = Tensor::from_slice(features).view([rows as i64, -1]);
        let flat = &sac.policy.parameters;
        let count = flat.layout.len();
        for at in (0..count).step_by(2) {
            x = x.linear(flat.get(at), Some(flat.get(at + 1)));
            x = if at + 2 < count { x.relu() } else { x };
        }
        x
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        /// One update's gradients, of critics, policy and temperature, are those of the losses as the paper has them.
        #[test]
        fn the_gradients_are_autograds(
            seed in 0u64..10_000, rows in 1usize..40, features in 1usize..6, actions in 1usize..4, absorbing: bool,
        ) {
            let mut rng = Stream::new(seed, "sac", 0, 0);
            let config = SacConfig { learning_rate: 1e-12, temperature: 0.3, ..Default::default() };
            let mut sac = sac(features, actions, absorbing, config, &mut rng);
            let minibatch = Minibatch::made_up(rows, features, actions, absorbing, &mut rng);
            let column = |x: &[f32]| Tensor::from_slice(x);
            let (acts, next_acts) = (column(&minibatch.acts), column(&minibatch.next_acts));
            let mut noise = rng.clone();
            let (u, log_prob) = drawn(&out(&sac, &minibatch.features, rows), &mut noise);
            let (next_u, next_log_prob) = drawn(&out(&sac, &minibatch.next_features, rows), &mut noise);
            let relu = Activation::Relu;

            let next = Minibatch::input_with(&minibatch.next_input, &(next_u * next_acts.unsqueeze(1)));
            let [first, second] = sac.critics.by_libtorch(&next, relu, true);
            let soft = first.minimum(&second) - next_log_prob * &next_acts * 0.3;
            let target = (column(&minibatch.reward) + column(&minibatch.discount) * soft).detach();
            let input = column(&minibatch.input).view([rows as i64, -1]);
            let critics: Tensor = sac
                .critics
                .by_libtorch(&input, relu, false)
                .iter()
                .map(|q| (q - &target).square().mean(Kind::Float))
                .sum();
            sac.critics.flat().backward(&critics).unwrap();
            let critics = slice::<f32>(&sac.critics.flat().gradient).to_vec();

            let [first, second] =
                sac.critics.by_libtorch(&Minibatch::input_with(&minibatch.input, &u), relu, false);
            let each = (&log_prob * 0.3 - first.minimum(&second)) * &acts;
            let acting = acts.sum(Kind::Float);
            let loss = each.sum(Kind::Float) / acting.clamp_min(1.0);
            sac.policy.parameters.backward(&loss).unwrap();
            let policy = slice::<f32>(&sac.policy.parameters.gradient).to_vec();
            let mean = ((log_prob * &acts).sum(Kind::Float) / acting.clamp_min(1.0)).double_value(&[]);

            sac.scratch.minibatch = minibatch;
            sac.update(&mut rng, &mut Log::in_memory()).unwrap();
            assert_gradients_agree(slice(&sac.critics.flat().gradient), &critics, "critics");
            if acting.double_value(&[]) > 0.0 {
                assert_gradients_agree(slice(&sac.policy.parameters.gradient), &policy, "policy");
                // α grows where the entropy, −mean log π, is below −A.
                let wanted = -(mean - actions as f64);
                let ours = f64::from(slice::<f32>(&sac.temperature.gradient)[0]);
                prop_assert!((ours - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{ours} is not {wanted}");
            }
        }
    }

    #[test]
    fn temperature_follows_the_entropy() {
        let after = |target_entropy| {
            let mut rng = Stream::new(3, "sac", 0, 0);
            let config = SacConfig {
                learning_rate: 1e-2,
                temperature: 0.5,
                target_entropy: Some(target_entropy),
                ..Default::default()
            };
            let mut sac = sac(2, 1, false, config, &mut rng);
            assert!((sac.temperature() - 0.5).abs() < 1e-6);
            sac.scratch.minibatch = Minibatch::made_up(16, 2, 1, false, &mut rng);
            sac.update(&mut rng, &mut Log::in_memory()).unwrap();
            sac.temperature()
        };
        // Adam's first step is of the learning rate's size, whatever the gradient's.
        assert!((after(100.0) - 0.5 * 0.01f64.exp()).abs() < 1e-5, "too little entropy makes it dearer");
        assert!((after(-100.0) - 0.5 * (-0.01f64).exp()).abs() < 1e-5, "too much, cheaper");
    }
}
