//! Behaviour cloning: maximum likelihood of the expert's actions (Pomerleau 1991; the settings of GAIL's
//! baseline, Ho & Ermon 2016, are the defaults). Needs no environment. Demonstrations hold no action masks: cloning
//! spreads probability over all choices, and acting keeps to what the environment then allows.

use crate::Demonstrations;
use crate::agent::{Evaluation, Returns};
use imago::nn::{ActorCritic, Adam};
use imago::run::{Log, State, Train};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of [`Bc`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BcConfig {
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Pairs in a gradient step.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Factor of the entropy bonus.
    pub entropy_coefficient: f64,
    /// λ of the penalty ½ λ Σ θ².
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Share of the pairs held out to choose the best checkpoint and to stop early.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub validation_split: f64,
    /// Stop after this many evaluations without a better validation loss; 0 never stops early.
    pub patience: u64,
    /// Adam's ε.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_epsilon: f64,
}

impl Default for BcConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            batch_size: 128,
            entropy_coefficient: 0.0,
            weight_decay: 0.0,
            validation_split: 0.3,
            patience: 0,
            adam_epsilon: 1e-8,
        }
    }
}

/// Trains a policy on demonstrations. A step is one optimiser step.
pub struct Bc {
    config: BcConfig,
    policy: ActorCritic,
    adam: Adam,
    training: [Tensor; 2],
    validation: [Tensor; 2],
    evaluation: Option<Evaluation>,
    seed: u64,
    step: u64,
    best: Option<f64>,
    evaluations_since_best: u64,
    returns: Option<Returns>,
    /// This epoch's order; derived, kept only to save time.
    order: Option<(u64, Tensor)>,
}

impl Bc {
    /// Splits the pairs, takes the training part into the policy's statistics.
    ///
    /// # Errors
    /// Spaces that do not fit the policy; a policy with a memory; no pair left to train on.
    pub fn new(
        config: BcConfig,
        mut policy: ActorCritic,
        demonstrations: &Demonstrations,
        evaluation: Option<Evaluation>,
        seed: u64,
    ) -> Result<Self> {
        policy.spec.observation.check_fits("observations", &demonstrations.observation_space)?;
        policy.spec.action.check_fits("actions", &demonstrations.action_space)?;
        if policy.spec.memory.is_some() {
            return Err(Error::Invalid(
                "pairs are cloned one by one, without what came before: no memory".into(),
            ));
        }
        let count = demonstrations.pairs();
        let held_out = (count as f64 * config.validation_split).round() as i64;
        let training = count as i64 - held_out;
        if training < 1 || config.batch_size == 0 {
            return Err(Error::Invalid(format!(
                "{count} pairs with validation_split = {} and batch_size = {} leave nothing to train on",
                config.validation_split, config.batch_size
            )));
        }
        let order = Tensor::from_slice(&Stream::new(seed, "validation split", 0, 0).permutation(count));
        let split = |start, len| {
            let index = order.narrow(0, start, len);
            [&demonstrations.observations, &demonstrations.actions].map(|x| x.index_select(0, &index))
        };
        let (training, validation) = (split(0, training), split(training, held_out));
        policy.update_normaliser(&training[0]);
        let adam = Adam::new(&policy.parameters, config.adam_epsilon);
        Ok(Self {
            config,
            adam,
            policy,
            training,
            validation,
            evaluation,
            seed,
            step: 0,
            best: None,
            evaluations_since_best: 0,
            returns: None,
            order: None,
        })
    }

    /// `policy` after `steps` steps on all pairs of `demonstrations`, from which it learns on by other means.
    ///
    /// # Errors
    /// As for [`Bc::new`]; numbers that are not finite.
    pub fn warm_start(
        policy: ActorCritic,
        demonstrations: &Demonstrations,
        steps: u64,
        seed: u64,
    ) -> Result<ActorCritic> {
        let config = BcConfig { validation_split: 0.0, ..BcConfig::default() };
        let mut cloning = Self::new(config, policy, demonstrations, None, seed)?;
        let mut log = Log::in_memory();
        while cloning.step < steps {
            cloning.iterate(&mut log)?;
        }
        Ok(cloning.policy)
    }

    /// The pairs of this step: epoch after epoch, each in its own order, no pair twice in an epoch.
    fn minibatch(&mut self) -> [Tensor; 2] {
        let count = self.training[0].size()[0] as u64;
        let size = (self.config.batch_size as u64).min(count);
        let steps = count.div_ceil(size);
        let (epoch, position) = (self.step / steps, (self.step % steps) * size);
        let order = match self.order.take() {
            Some((known, order)) if known == epoch => order,
            _ => {
                let mut rng = Stream::new(self.seed, "cloning order", 0, epoch);
                Tensor::from_slice(&rng.permutation(count as usize))
            }
        };
        let index = order.narrow(0, position as i64, size.min(count - position) as i64);
        self.order = Some((epoch, order));
        [0, 1].map(|i| self.training[i].index_select(0, &index))
    }
}

impl Train for Bc {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self, log: &mut Log) -> Result<()> {
        let [observation, action] = self.minibatch();
        let evaluated = self.policy.evaluate(&observation, &action);
        let negative_log_likelihood = -evaluated.log_prob.mean(Kind::Float);
        let entropy = evaluated.entropy.mean(Kind::Float);
        let mut loss = &negative_log_likelihood - &entropy * self.config.entropy_coefficient;
        if self.config.weight_decay > 0.0 {
            let parameters = 0..self.policy.parameters.layout.len();
            let squares = parameters.map(|i| self.policy.parameters.get(i).square().sum(Kind::Float));
            loss += squares.sum::<Tensor>() * (0.5 * self.config.weight_decay);
        }
        self.policy.parameters.backward(&loss)?;
        let norm = self.policy.parameters.gradient_norm();
        if !norm.is_finite() {
            let batch = vec![("observation".into(), observation), ("action".into(), action)];
            return Err(self.policy.parameters.diverged("cloned policy", batch));
        }
        self.adam.update(&mut self.policy.parameters, self.config.learning_rate);
        self.step += 1;
        log.scalar("cloning/negative_log_likelihood", negative_log_likelihood.double_value(&[]));
        log.scalar("cloning/entropy", entropy.double_value(&[]));
        log.scalar("cloning/gradient_norm", norm);
        Ok(())
    }

    /// Minus the validation loss (the training loss where nothing is held out); the return in the environment,
    /// where there is one, is only reported.
    fn evaluate(&mut self, log: &mut Log) -> Result<Option<f64>> {
        let held_out = self.validation[0].size()[0] > 0;
        let [observation, action] = if held_out { &self.validation } else { &self.training };
        let score = tch::no_grad(|| {
            self.policy.evaluate(observation, action).log_prob.mean(Kind::Float).double_value(&[])
        });
        log.scalar("cloning/validation_loss", -score);
        if self.best.is_none_or(|best| score > best) {
            (self.best, self.evaluations_since_best) = (Some(score), 0);
        } else {
            self.evaluations_since_best += 1;
        }
        if let Some(evaluation) = &mut self.evaluation {
            self.returns = Some(evaluation.run(&self.policy, log)?);
        }
        Ok(Some(score))
    }

    fn finished(&self) -> bool {
        self.config.patience > 0 && self.evaluations_since_best >= self.config.patience
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("step", &mut self.step)?;
        state.value("best", &mut self.best)?;
        state.value("evaluations_since_best", &mut self.evaluations_since_best)?;
        state.value("returns", &mut self.returns)?;
        state.scope("policy", |state| self.policy.state(state))?;
        state.scope("adam", |state| self.adam.state(state))
    }

    fn conclude(&mut self, _log: &mut Log) -> Result<serde_json::Value> {
        Ok(serde_json::json!({
            "validation_loss": self.best.map(|score| -score),
            "stopped_early": self.finished(),
            "returns": self.returns,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::nn::{BoxHead, Choice, Decision, PolicySpec, TorsoSpec};
    use imago_envs::{Leaf, Space};

    fn cloned(config: BcConfig) -> Bc {
        let observations = Stream::new(0, "x", 0, 0).uniforms(&[40, 1]) * 2.0 - 1.0;
        let actions = observations.gt(0.0).view(-1).to_kind(Kind::Int64);
        let (observation, action) = (Space::floats(&[1], -1.0, 1.0), Space::discrete(2));
        let demonstrations =
            Demonstrations::from_pairs(observation.clone(), action.clone(), observations, actions);
        let torso = TorsoSpec::perceptron(&[16]);
        let spec = PolicySpec {
            observation,
            action,
            torso,
            shared: false,
            value_heads: 1,
            normalise: true,
            log_std: 0.0,
            masked: false,
            box_head: BoxHead::Gaussian,
            memory: None,
        };
        let policy = ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap();
        Bc::new(config, policy, &demonstrations, None, 0).unwrap()
    }

    #[test]
    fn starts_at_log_2_and_learns_the_rule() {
        let mut bc = cloned(BcConfig { batch_size: 8, learning_rate: 1e-2, ..Default::default() });
        let mut log = Log::in_memory();
        assert!((bc.evaluate(&mut log).unwrap().unwrap() + 2f64.ln()).abs() < 0.02);
        for _ in 0..300 {
            bc.iterate(&mut log).unwrap();
        }
        assert!(bc.evaluate(&mut log).unwrap().unwrap() > -0.1);
        let asked = Tensor::from_slice(&[-0.5f32, 0.5]).view([2, 1]);
        let mut decision = Decision::default();
        bc.policy.decide(&asked, Choice::Mode, &mut decision);
        assert_eq!(decision.action.leaf(), Leaf::I64(&[0, 1]));
    }

    #[test]
    fn a_warm_start_knows_the_rule_and_the_observations_scale() {
        let observations = Stream::new(0, "x", 0, 0).uniforms(&[40, 1]) * 20.0;
        let actions = observations.gt(10.0).view(-1).to_kind(Kind::Int64);
        let (observation, action) = (Space::floats(&[1], 0.0, 20.0), Space::discrete(2));
        let demonstrations =
            Demonstrations::from_pairs(observation.clone(), action.clone(), observations, actions);
        let spec = PolicySpec { observation, ..cloned(BcConfig::default()).policy.spec };
        let policy = ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap();
        let warm = Bc::warm_start(policy, &demonstrations, 300, 0).unwrap();
        let mean = warm.normaliser.as_ref().unwrap().mean[0];
        assert!((mean - 10.0).abs() < 2.0, "{mean}");
        let mut decision = Decision::default();
        let asked = Tensor::from_slice(&[2.0f32, 18.0]).view([2, 1]);
        warm.decide(&asked, Choice::Mode, &mut decision);
        assert_eq!(decision.action.leaf(), Leaf::I64(&[0, 1]));
    }

    #[test]
    fn an_epoch_visits_every_training_pair_once() {
        let mut bc = cloned(BcConfig { batch_size: 8, ..Default::default() });
        let mut seen = Vec::new();
        for step in 0..4 {
            bc.step = step;
            seen.extend(Vec::<f32>::try_from(bc.minibatch()[0].view(-1)).unwrap());
        }
        let mut all = Vec::<f32>::try_from(bc.training[0].view(-1)).unwrap();
        seen.sort_by(f32::total_cmp);
        all.sort_by(f32::total_cmp);
        assert_eq!((seen, bc.validation[0].size()[0]), (all, 12));
    }

    #[test]
    fn stops_when_validation_stops_improving() {
        let mut bc = cloned(BcConfig { patience: 3, ..Default::default() });
        for evaluations in 0..4 {
            assert!(!bc.finished(), "after {evaluations}");
            bc.evaluate(&mut Log::in_memory()).unwrap();
        }
        assert!(bc.finished());
    }

    #[test]
    fn weight_decay_pulls_to_zero() {
        let mut bc = cloned(BcConfig { weight_decay: 100.0, learning_rate: 1e-2, ..Default::default() });
        for _ in 0..300 {
            bc.iterate(&mut Log::in_memory()).unwrap();
        }
        assert!(bc.policy.parameters.weights.abs().max().double_value(&[]) < 0.1);
    }
}
