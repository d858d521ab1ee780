//! A learning agent: collector, learner and reward signals in one loop, and its evaluation apart from them.

use crate::{Learner, Visits};
use imago::Result;
use imago::generative::grid::png;
use imago::nn::ActorCritic;
use imago::rollout::{Actor, Collected, Collector, run_episodes};
use imago::run::{Log, State, Train};
use imago::signal::{Evidence, Moment, Signals};
use imago_envs::{FloorPlan, Space, VecEnv};
use serde::{Deserialize, Serialize};

/// Mean and spread of some episodes' returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Returns {
    /// Mean return when the most probable action is taken.
    pub deterministic_mean: f64,
    /// Its standard deviation over episodes.
    pub deterministic_std: f64,
    /// Mean return when actions are sampled.
    pub stochastic_mean: f64,
    /// Its standard deviation over episodes.
    pub stochastic_std: f64,
    /// Mean length of the deterministic episodes.
    pub length_mean: f64,
}

/// Evaluation during training: environments and seeds of its own, the same episodes every time.
pub struct Evaluation {
    envs: Box<dyn VecEnv>,
    episodes: usize,
    seed: u64,
    plan: Option<FloorPlan>,
}

/// Mean and population standard deviation.
pub fn mean_std(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt())
}

impl Evaluation {
    /// `episodes` episodes in `envs`, seeded by the run's seed.
    pub fn new(envs: Box<dyn VecEnv>, episodes: usize, seed: u64) -> Self {
        Self { envs, episodes, seed, plan: None }
    }

    /// With the floor that its environments' players walk on: where sampled actions lead is logged as a map.
    pub fn with_plan(mut self, plan: Option<FloorPlan>) -> Self {
        self.plan = plan;
        self
    }

    /// Observation and action space.
    pub fn spaces(&self) -> (&Space, &Space) {
        (self.envs.observation_space(), self.envs.action_space())
    }

    /// Of how many frames its environments' observations are stacks.
    pub fn frame_stack(&self) -> usize {
        self.envs.frame_stack()
    }

    /// Runs the episodes deterministically and stochastically and logs both.
    pub fn run(&mut self, policy: &ActorCritic, log: &mut Log) -> Result<Returns> {
        let mut figures = [(0.0, 0.0, 0.0); 2];
        for (figure, deterministic) in figures.iter_mut().zip([true, false]) {
            let actor = Actor::Policy { policy, deterministic };
            let episodes = run_episodes(
                self.envs.as_mut(),
                &actor,
                self.episodes,
                self.seed,
                "choosing the best",
                false,
            )?;
            if let Some(plan) = self.plan.filter(|_| !deterministic) {
                let picture = Visits::of(plan, &episodes).picture();
                let (width, height) = (picture.width as u32, picture.height as u32);
                log.image("evaluation/visits", width, height, png(&picture)?);
            }
            let returns: Vec<f64> = episodes.iter().map(|episode| episode.episode_return).collect();
            let lengths: Vec<f64> = episodes.iter().map(|episode| episode.length as f64).collect();
            let (mean, std) = mean_std(&returns);
            *figure = (mean, std, mean_std(&lengths).0);
        }
        let [(deterministic_mean, deterministic_std, length_mean), (stochastic_mean, stochastic_std, _)] =
            figures;
        log.scalar("evaluation/return_deterministic", deterministic_mean);
        log.scalar("evaluation/return_stochastic", stochastic_mean);
        log.scalar("evaluation/length", length_mean);
        Ok(Returns { deterministic_mean, deterministic_std, stochastic_mean, stochastic_std, length_mean })
    }
}

/// A learning agent.
pub struct Agent {
    /// What the environments' own numbers of an episode are called.
    metrics: Vec<String>,
    collector: Collector,
    learner: Box<dyn Learner>,
    signals: Signals,
    evaluation: Option<Evaluation>,
    seed: u64,
    total_steps: u64,
    true_reward: bool,
    step: u64,
    iteration: u64,
    episodes: u64,
    terminated: u64,
    faults: u64,
    returns: Option<Returns>,
}

impl Agent {
    /// An agent at step 0. `total_steps` is what schedules end at; `true_reward` says that the environment's own
    /// reward is among the signals, so that returns may choose the best checkpoint.
    pub fn new(
        collector: Collector,
        learner: Box<dyn Learner>,
        signals: Signals,
        evaluation: Option<Evaluation>,
        seed: u64,
        total_steps: u64,
        true_reward: bool,
    ) -> Self {
        Self {
            metrics: Vec::new(),
            collector,
            learner,
            signals,
            evaluation,
            seed,
            total_steps,
            true_reward,
            step: 0,
            iteration: 0,
            episodes: 0,
            terminated: 0,
            faults: 0,
            returns: None,
        }
    }

    /// With names for the environments' own numbers of each episode (`EnvSpec::metrics`), which are logged.
    pub fn with_metrics(mut self, names: &[String]) -> Self {
        self.metrics = names.to_vec();
        self
    }

    /// The policy as it stands.
    pub fn policy(&self) -> &ActorCritic {
        self.learner.policy()
    }
}

impl Train for Agent {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self, log: &mut Log) -> Result<()> {
        // Schedules count what came before: the first rollout learns at full rate, the last one still learns.
        let progress = self.step as f64 / self.total_steps.max(1) as f64;
        let Collected { batch: rollout, finished, failures } =
            self.collector.collect(self.learner.policy())?;
        self.faults += failures.len() as u64;
        if self.faults > 0 {
            log.scalar("rollout/faults", self.faults as f64);
        }
        self.step += rollout.len() as u64;
        for episode in finished {
            log.episode(episode.episode_return, episode.length);
            self.episodes += 1;
            self.terminated += u64::from(episode.terminated);
            for (name, x) in self.metrics.iter().zip(&episode.metrics) {
                x.iter().for_each(|x| log.scalar(&format!("env/{name}"), *x));
            }
        }
        let now = Moment { seed: self.seed, iteration: self.iteration, progress: progress.min(1.0) };
        self.iteration += 1;
        self.learner.learn(rollout, &mut self.signals, now, log)
    }

    fn evaluate(&mut self, log: &mut Log) -> Result<Option<f64>> {
        let Some(evaluation) = &mut self.evaluation else { return Ok(None) };
        let returns = evaluation.run(self.learner.policy(), log)?;
        self.returns = Some(returns);
        // Whoever imitates does not know the true reward, so it must not choose the checkpoint either.
        Ok(self.true_reward.then_some(returns.deterministic_mean))
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("step", &mut self.step)?;
        state.value("iteration", &mut self.iteration)?;
        state.value("episodes", &mut self.episodes)?;
        state.value("terminated", &mut self.terminated)?;
        state.value("faults", &mut self.faults)?;
        state.value("returns", &mut self.returns)?;
        // The policy lies where behaviour cloning puts it too, so that everything that acts reads one name.
        self.learner.state(state)?;
        state.scope("signals", |state| self.signals.state(state))?;
        state.scope("collector", |state| self.collector.state(state))
    }

    fn conclude(&mut self, _log: &mut Log) -> Result<serde_json::Value> {
        let evidence = Evidence {
            return_mean: self.returns.map(|returns| returns.deterministic_mean),
            episodes: self.episodes,
            terminated: self.terminated,
        };
        let mut fields = serde_json::json!({ "returns": self.returns, "faults": self.faults });
        for stacked in &self.signals.stack {
            if let Some(verdict) = stacked.signal.verdict(&evidence) {
                fields["verdict"][&stacked.name] = verdict.text.into();
                fields["signals"][&stacked.name] = verdict.fields;
            }
        }
        Ok(fields)
    }
}
