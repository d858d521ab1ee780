//! What off-policy learners have in common: when they learn, from what, and how it lies in memory.

use crate::replay::{Replay, Sample};
use imago::memory::slice;
use imago::nn::{ActorCritic, Bounds, unit_rows};
use imago::rollout::Batch;
use imago::run::profile::{Phase, timed};
use imago::run::{Log, State};
use imago::signal::{Moment, Signals, When};
use imago::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Settings that off-policy learners share. Defaults are Stable-Baselines3's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// Transitions that the replay holds.
    #[schemars(range(min = 1))]
    pub replay_size: usize,
    /// Transitions in a gradient step, drawn with replacement.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Steps of actions drawn at random, uniformly within their bounds, before the first update. A rollout is whole.
    pub learning_starts: u64,
    /// Gradient steps for each step of an environment.
    #[schemars(range(min = 0))]
    pub updates_per_step: f64,
    /// γ
    #[schemars(range(min = 0, max = 1))]
    pub discount: f64,
    /// τ: the share of the way that targets move towards their networks in an update.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub target_rate: f64,
    /// Ends of the task lead to a state of its own that leads to itself, whose value is learnt (Kostrikov et al. 2019):
    /// for rewards that are learnt. Without it nothing follows an end.
    pub absorbing: bool,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            replay_size: 1_000_000,
            batch_size: 256,
            learning_starts: 100,
            updates_per_step: 1.0,
            discount: 0.99,
            target_rate: 0.005,
            absorbing: false,
        }
    }
}

/// The replay, and which updates are due.
pub(crate) struct Experience {
    pub config: ReplayConfig,
    replay: Replay,
    bounds: Bounds,
    /// Steps taken in.
    pub steps: u64,
    /// Updates that are due, and a part of one.
    owed: f64,
    /// Updates begun.
    pub updates: u64,
}

/// B transitions as the networks read them.
#[derive(Debug, Default)]
pub(crate) struct Minibatch {
    /// What the policy reads, `[B, F]`.
    pub features: Vec<f32>,
    pub next_features: Vec<f32>,
    /// What the critics read, `[B, F + A]`, or with absorbing states `[B, F + 1 + A]`: the state, whether it is the
    /// absorbing one, and the action in units of its bounds.
    pub input: Vec<f32>,
    /// The same of what followed, the actions being 0.
    pub next_input: Vec<f32>,
    /// `[B]`
    pub reward: Vec<f32>,
    /// γ, or 0 where nothing follows, `[B]`.
    pub discount: Vec<f32>,
    /// 1, or 0 in the absorbing state, where the policy does not act, `[B]`.
    pub acts: Vec<f32>,
    /// The same of what followed.
    pub next_acts: Vec<f32>,
    actions: Vec<f32>,
}

impl Minibatch {
    /// Numbers of an action, at the end of each row of `input`.
    pub fn with_actions(input: &mut [f32], actions: &[f32], count: usize) {
        let width = input.len() / (actions.len() / count);
        for (row, action) in input.chunks_exact_mut(width).zip(actions.chunks_exact(count)) {
            row[width - count..].copy_from_slice(action);
        }
    }
}

/// Lays features `[B, F]` and actions out for the critics; `acts` is 0 in the absorbing state.
fn lay_out(
    features: &[f32],
    acts: &[f32],
    actions: Option<&[f32]>,
    count: usize,
    absorbing: bool,
    to: &mut Vec<f32>,
) {
    let width = features.len() / acts.len();
    to.clear();
    for (row, &acts) in acts.iter().enumerate() {
        // What normalisation makes of the zeros is not zero.
        to.extend(features[row * width..(row + 1) * width].iter().map(|x| x * acts));
        if absorbing {
            to.push(1.0 - acts);
        }
        match actions {
            Some(actions) => to.extend(&actions[row * count..(row + 1) * count]),
            None => to.resize(to.len() + count, 0.0),
        }
    }
}

impl Experience {
    /// An empty replay for a policy whose actions have bounds.
    ///
    /// # Errors
    /// A policy that reads images, or whose head has no bounds.
    pub fn new(config: ReplayConfig, policy: &ActorCritic) -> Result<Self> {
        let Some(bounds) = policy.bounds().cloned() else {
            return Err(Error::Invalid("the policy of an off-policy learner acts within bounds".into()));
        };
        if policy.spec.memory.is_some() {
            return Err(Error::Invalid("off-policy learners learn from single steps: no memory".into()));
        }
        if policy.perceptron().is_none() || policy.spec.value_heads > 0 {
            return Err(Error::Invalid(
                "off-policy learners read vectors: use policy.torso = \"mlp\", or learner.kind = \"ppo\" for images"
                    .into(),
            ));
        }
        let replay = Replay::new(config.replay_size, &policy.spec.observation, &bounds, config.absorbing);
        Ok(Self { config, replay, bounds, steps: 0, owed: 0.0, updates: 0 })
    }

    /// Numbers that the critics read of a state and an action.
    pub fn inputs(&self, policy: &ActorCritic) -> usize {
        policy.spec.observation.features() + usize::from(self.config.absorbing) + self.bounds.width()
    }

    /// Numbers of an action, A.
    pub fn actions(&self) -> usize {
        self.bounds.width()
    }

    /// Takes a rollout in and lets the signals learn; how many updates are due now.
    ///
    /// # Errors
    /// A NaN in the rollout; a signal's own.
    pub fn take_in(
        &mut self,
        policy: &ActorCritic,
        rollout: &Batch,
        signals: &mut Signals,
        now: Moment,
        log: &mut Log,
    ) -> Result<u64> {
        let spec = &policy.spec;
        rollout.check_finite(&spec.observation, &spec.action)?;
        timed(Phase::Update, || self.replay.push(rollout))?;
        let steps = rollout.len() as u64;
        self.steps += steps;
        if self.steps > self.config.learning_starts && !self.replay.is_empty() {
            self.owed += steps as f64 * self.config.updates_per_step;
        }
        let due = self.owed.floor();
        self.owed -= due;
        let due = due as u64;
        let (replay, begun) = (&self.replay, self.updates);
        timed(Phase::Signals, || {
            signals.update(When::BeforeReward, rollout, now, log)?;
            let draw = |count: usize, rng: &mut Stream| replay.sample(count, rng).batch;
            signals.update_on_samples((begun, due), &draw, now, log)
        })?;
        Ok(due)
    }

    /// Draws the transitions of the next update and scores them; second, the update's own stream.
    ///
    /// # Errors
    /// A signal's own.
    pub fn draw(
        &mut self,
        policy: &ActorCritic,
        signals: &mut Signals,
        now: Moment,
        to: &mut Minibatch,
    ) -> Result<Stream> {
        let mut rng = Stream::new(now.seed, "off-policy update", 0, self.updates);
        self.updates += 1;
        let sample = timed(Phase::Update, || self.replay.sample(self.config.batch_size, &mut rng));
        let reward = timed(Phase::Signals, || signals.score(&sample.batch, now.progress))?;
        timed(Phase::Update, || self.fill(policy, &sample, &reward, to));
        Ok(rng)
    }

    /// After the updates: statistics of the observations, and the signals whose moment that is.
    ///
    /// # Errors
    /// A signal's own.
    pub fn conclude(
        &self,
        policy: &mut ActorCritic,
        rollout: &Batch,
        signals: &mut Signals,
        now: Moment,
        log: &mut Log,
    ) -> Result<()> {
        if policy.normaliser.is_some() {
            policy.update_normaliser(&rollout.gather_observation(&rollout.valid_index()));
        }
        timed(Phase::Signals, || signals.update(When::AfterPolicy, rollout, now, log))
    }

    fn fill(&self, policy: &ActorCritic, sample: &Sample, reward: &Tensor, to: &mut Minibatch) {
        let batch = &sample.batch;
        let (gamma, absorbing) = (self.config.discount as f32, self.replay.has_absorbing_states());
        let terminated = slice::<bool>(&batch.terminated);
        to.reward.clear();
        to.reward.extend_from_slice(slice(reward));
        for list in [&mut to.discount, &mut to.acts, &mut to.next_acts] {
            list.clear();
        }
        let acts = |idle: &bool| if *idle { 0.0 } else { 1.0 };
        match &batch.absorbing {
            Some(idle) => {
                let idle = slice::<bool>(idle);
                to.acts.extend(idle.iter().map(acts));
                // Whatever follows an end of the task or the absorbing state is the absorbing state.
                to.next_acts
                    .extend(idle.iter().zip(terminated).map(|(idle, ended)| acts(&(*idle || *ended))));
                to.discount.resize(terminated.len(), gamma);
            }
            None => {
                to.acts.resize(terminated.len(), 1.0);
                to.next_acts.resize(terminated.len(), 1.0);
                to.discount.extend(terminated.iter().map(|ended| gamma * acts(ended)));
            }
        }
        let read = |observation: &Tensor, to: &mut Vec<f32>| {
            let features = policy.features(observation).contiguous();
            to.clear();
            to.extend_from_slice(slice(&features));
        };
        read(&batch.observations, &mut to.features);
        read(&sample.next_observation, &mut to.next_features);
        unit_rows(&self.bounds, &batch.action, &mut to.actions);
        let count = self.bounds.width();
        lay_out(&to.features, &to.acts, Some(&to.actions), count, absorbing, &mut to.input);
        lay_out(&to.next_features, &to.next_acts, None, count, absorbing, &mut to.next_input);
    }

    /// Saves or restores the replay and what is due.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("steps", &mut self.steps)?;
        state.value("owed", &mut self.owed)?;
        state.value("updates", &mut self.updates)?;
        self.replay.state(state)
    }
}

#[cfg(test)]
impl Minibatch {
    /// `rows` made-up transitions of `features` and `count` numbers of an action, some absorbing if asked for.
    pub(crate) fn made_up(
        rows: usize,
        features: usize,
        count: usize,
        absorbing: bool,
        rng: &mut Stream,
    ) -> Self {
        let mut normals = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f32>>();
        let (features, next_features) = (normals(rows * features), normals(rows * features));
        let (actions, reward) = (normals(rows * count), normals(rows));
        let acts = |odd: usize| (0..rows).map(move |i| if absorbing && i % 5 == odd { 0.0 } else { 1.0 });
        let (acts, next_acts): (Vec<f32>, Vec<f32>) = (acts(0).collect(), acts(1).collect());
        let discount = (0..rows).map(|i| if !absorbing && i % 3 == 0 { 0.0 } else { 0.9 }).collect();
        let (mut input, mut next_input) = (Vec::new(), Vec::new());
        lay_out(&features, &acts, Some(&actions), count, absorbing, &mut input);
        lay_out(&next_features, &next_acts, None, count, absorbing, &mut next_input);
        Self { features, next_features, input, next_input, reward, discount, acts, next_acts, actions }
    }

    /// What the critics read with other actions `[B, A]`, as a tensor through which gradients go.
    pub(crate) fn input_with(input: &[f32], actions: &Tensor) -> Tensor {
        let (rows, count) = (actions.size()[0], actions.size()[1]);
        let input = Tensor::from_slice(input).view([rows, -1]);
        Tensor::cat(&[input.narrow(1, 0, input.size()[1] - count), actions.shallow_clone()], 1)
    }
}

/// Whether a gradient is another one to 1e-5 of its largest number.
#[cfg(test)]
pub(crate) fn assert_gradients_agree(ours: &[f32], theirs: &[f32], whose: &str) {
    let scale = theirs.iter().fold(1e-3f32, |scale, g| scale.max(g.abs()));
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < 2e-5 * scale, "{whose} {i}: {a} is not {b} of at most {scale}");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::replay::tests::rollout;
    use imago::nn::{BoxHead, PolicySpec, TorsoSpec};
    use imago::signal::{Extrinsic, Stacked, ValueHead};
    use imago_envs::Space;

    pub(crate) fn policy(box_head: BoxHead) -> ActorCritic {
        let spec = PolicySpec {
            observation: Space::floats(&[1], -100.0, 100.0),
            action: Space::floats(&[1], -2.0, 2.0),
            torso: TorsoSpec::perceptron(&[8]),
            shared: false,
            value_heads: 0,
            normalise: false,
            log_std: 0.0,
            masked: false,
            box_head,
            memory: None,
        };
        ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap()
    }

    fn signals() -> Signals {
        Signals {
            stack: vec![Stacked::new("task", Box::new(Extrinsic), When::AfterPolicy)],
            heads: vec![ValueHead { discount: 0.9, episodic: true }],
        }
    }

    const NOW: Moment = Moment { seed: 0, iteration: 0, progress: 0.0 };

    fn drawn(absorbing: bool, terminated: bool) -> Minibatch {
        let policy = policy(BoxHead::SquashedGaussian);
        let config = ReplayConfig { absorbing, discount: 0.5, batch_size: 64, ..Default::default() };
        let mut experience = Experience::new(config, &policy).unwrap();
        let mut log = Log::in_memory();
        experience.take_in(&policy, &rollout(terminated), &mut signals(), NOW, &mut log).unwrap();
        let mut minibatch = Minibatch::default();
        experience.draw(&policy, &mut signals(), NOW, &mut minibatch).unwrap();
        minibatch
    }

    /// Rows of the minibatch whose reward is `reward`: (critics' input, what follows, discount, acts, next acts).
    fn row(minibatch: &Minibatch, reward: f32) -> (Vec<f32>, Vec<f32>, f32, f32, f32) {
        let i = minibatch.reward.iter().position(|r| *r == reward).unwrap();
        let width = minibatch.input.len() / minibatch.reward.len();
        let part = |x: &[f32]| x[i * width..(i + 1) * width].to_vec();
        let (acts, next) = (minibatch.acts[i], minibatch.next_acts[i]);
        (part(&minibatch.input), part(&minibatch.next_input), minibatch.discount[i], acts, next)
    }

    #[test]
    fn without_absorbing_states_nothing_follows_an_end_of_the_task() {
        let ended = drawn(false, true);
        // Actions in units of their bounds, ±2.
        assert_eq!(row(&ended, 1.0), (vec![1.0, 0.05], vec![2.0, 0.0], 0.5, 1.0, 1.0));
        assert_eq!(row(&ended, 2.0), (vec![10.0, 0.1], vec![19.0, 0.0], 0.0, 1.0, 1.0));
        // A time limit's end goes on.
        assert_eq!(row(&drawn(false, false), 2.0), (vec![10.0, 0.1], vec![19.0, 0.0], 0.5, 1.0, 1.0));
    }

    #[test]
    fn with_absorbing_states_an_end_leads_to_one_that_leads_to_itself() {
        let ended = drawn(true, true);
        assert_eq!(row(&ended, 1.0), (vec![1.0, 0.0, 0.05], vec![2.0, 0.0, 0.0], 0.5, 1.0, 1.0));
        assert_eq!(row(&ended, 2.0), (vec![10.0, 0.0, 0.1], vec![0.0, 1.0, 0.0], 0.5, 1.0, 0.0));
        assert_eq!(row(&ended, 0.0), (vec![0.0, 1.0, 0.0], vec![0.0, 1.0, 0.0], 0.5, 0.0, 0.0));
        let cut = drawn(true, false);
        assert_eq!(row(&cut, 2.0), (vec![10.0, 0.0, 0.1], vec![19.0, 0.0, 0.0], 0.5, 1.0, 1.0));
        assert!(!cut.reward.contains(&0.0), "no absorbing row");
    }

    #[test]
    fn updates_are_due_after_the_beginning_and_in_parts() {
        let policy = policy(BoxHead::SquashedGaussian);
        let config = ReplayConfig { learning_starts: 4, updates_per_step: 0.375, ..Default::default() };
        let mut experience = Experience::new(config, &policy).unwrap();
        let due: Vec<u64> = (0..4)
            .map(|_| {
                let mut log = Log::in_memory();
                experience.take_in(&policy, &rollout(false), &mut signals(), NOW, &mut log).unwrap()
            })
            .collect();
        assert_eq!(due, [0, 1, 2, 1], "of 1.5 for each rollout of four steps");
    }

    #[test]
    fn images_and_unbounded_heads_are_refused() {
        let refused = |policy: &ActorCritic| {
            Experience::new(ReplayConfig::default(), policy).err().unwrap().to_string()
        };
        assert!(refused(&policy(BoxHead::Gaussian)).contains("bounds"));
    }
}
