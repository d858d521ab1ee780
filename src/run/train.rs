//! The one training loop, for everything that can be trained.

use std::time::Instant;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::checkpoint::{Best, Checkpoints, Which};
use super::directory::Directory;
use super::error::{Error, Result};
use super::log::Log;
use super::profile::{self, Phase, timed};
use super::progress::Progress;
use super::state::State;
use super::stop::Stop;
use super::tensor_file;

/// Format of `summary.json`.
const FORMAT: u32 = 1;

/// Anything that can be trained.
pub trait Train {
    /// Steps done: decisions of one environment for agents, optimiser steps for image models.
    fn step(&self) -> u64;

    /// One round of work: a rollout and an update, or a few optimiser steps.
    ///
    /// A loss or gradient that is not finite is returned as [`Error::non_finite`] with the batch
    /// it came from; the run then stops with that batch on disk.
    fn iterate(&mut self, log: &mut Log) -> Result<()>;

    /// The score by which the best checkpoint is chosen; higher is better. It must leave no
    /// trace in training: own environments, own random streams, no statistics updated.
    fn evaluate(&mut self, log: &mut Log) -> Result<Option<f64>>;

    /// Everything that training goes on from. A NaN in a saved floating tensor is taken as the
    /// sign of a failed run, so nothing may use it as a placeholder.
    fn state(&mut self, s: &mut State) -> Result<()>;

    /// Whether it is done before the schedule says so: early stopping. Must follow from what `state` saves.
    fn finished(&self) -> bool {
        false
    }

    /// Called once at the end: further fields for `summary.json`, as a JSON object.
    fn conclude(&mut self, _log: &mut Log) -> Result<Value> {
        Ok(json!({}))
    }
}

/// When things happen.
///
/// A thing with a period happens after the iteration that reaches or passes a multiple of it, so
/// that it depends on the step alone and not on where the run was interrupted. A period of 0 is
/// never.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// The run is over at this step.
    pub total_steps: u64,
    /// Stop here, with a checkpoint, as if asked by a signal.
    pub stop_at: Option<u64>,
    /// Steps between evaluations; there is always one at the end.
    pub eval_every: u64,
    /// Steps between checkpoints; there is always one at the beginning and at the end.
    pub checkpoint_every: u64,
    /// Steps between entries in the log.
    pub log_every: u64,
    /// How many of the last checkpoints to keep; the best one is kept besides.
    pub keep: usize,
}

/// Where and how to train.
pub struct Session<'a> {
    /// The directory of the run.
    pub directory: &'a Directory,
    /// When things happen.
    pub schedule: &'a Timetable,
    /// Set from outside to stop the run.
    pub stop: &'a Stop,
    /// Go on from this checkpoint; what came after it is discarded. The latest one of a run that
    /// has none yet is its beginning.
    pub resume: Option<Which>,
    /// Show no progress.
    pub quiet: bool,
    /// What TensorBoard lists as the run's hyperparameters: numbers, texts and flags.
    pub hyperparameters: &'a [(String, Value)],
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done; this is what `summary.json` says.
    Finished(Map<String, Value>),
    /// It was stopped and has a checkpoint to go on from.
    Stopped {
        /// The step it got to.
        step: u64,
    },
}

impl Outcome {
    /// Whether there is more to do.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Outcome::Stopped { .. })
    }
}

/// Trains until the schedule or a signal ends it.
pub fn drive(train: &mut dyn Train, session: &Session) -> Result<Outcome> {
    let mut run = Run::begin(train, session)?;
    match run.train(train) {
        Err(Error::NonFinite { what, batch }) => Err(run.fail(train.step(), what, batch.into_inner())),
        Err(error) if error.spares_the_learner() => Err(run.interrupt(train, error)),
        Err(error) => {
            run.progress.finish();
            Err(error)
        }
        outcome => outcome,
    }
}

/// What a run remembers besides the trainee.
struct Run<'a> {
    session: &'a Session<'a>,
    checkpoints: Checkpoints,
    log: Log,
    progress: Progress,
    /// Seconds of earlier sessions.
    seconds_before: f64,
    begun: Instant,
    best: Option<Best>,
    /// The last evaluation: its step and score.
    evaluation: Option<(u64, Option<f64>)>,
    /// When and at which step the log was last written.
    logged: (Instant, u64),
}

impl<'a> Run<'a> {
    fn begin(train: &mut dyn Train, session: &'a Session<'a>) -> Result<Self> {
        let path = session.directory.path();
        let schedule = session.schedule;
        let checkpoints = Checkpoints::open_for_writing(path, schedule.keep)?;
        // A run that was killed before its first checkpoint goes on from the beginning.
        let nothing_yet = checkpoints.latest().is_none() && session.resume == Some(Which::Latest);
        let resume = session.resume.filter(|_| !nothing_yet);
        let found = resume.map(|which| checkpoints.load(which)).transpose()?;
        let log = match &found {
            // Its files are cut back only once the checkpoint has proved to fit.
            Some(_) => Log::in_memory(),
            None => Log::create(path)?,
        };
        let mut run = Run {
            session,
            checkpoints,
            log,
            progress: Progress::new(train.step(), schedule.total_steps, true),
            seconds_before: 0.0,
            begun: Instant::now(),
            best: None,
            evaluation: None,
            logged: (Instant::now(), train.step()),
        };
        match found {
            Some((step, state)) => run.restore(train, step, state)?,
            None => {
                let recipe = session.directory.recipe().unwrap_or_default();
                run.log.record(|events| {
                    if !recipe.is_empty() {
                        events.text("recipe", &format!("```toml\n{recipe}\n```"), 0)?;
                    }
                    events.hyperparameters(session.hyperparameters)?;
                    events.flush()
                });
                run.guarded_save(train)?;
            }
        }
        run.progress = Progress::new(train.step(), schedule.total_steps, session.quiet);
        run.logged = (Instant::now(), train.step());
        Ok(run)
    }

    fn restore(&mut self, train: &mut dyn Train, step: u64, mut state: State) -> Result<()> {
        self.visit(train, &mut state)?;
        state.finish()?;
        if train.step() != step {
            return Err(Error::Invalid(format!(
                "the checkpoint of step {step} was restored to step {}: its state is incomplete",
                train.step()
            )));
        }
        let path = self.session.directory.path();
        self.log.resume(path, step)?;

        self.checkpoints.rewind(step)?;
        // A kill between a checkpoint and its mark leaves the mark to be made now.
        if let Some(best) = self.best.filter(|best| self.checkpoints.steps().contains(&best.step)) {
            self.checkpoints.mark_best(best.step, best.score)?;
        }
        Ok(())
    }

    fn train(&mut self, train: &mut dyn Train) -> Result<Outcome> {
        let schedule = self.session.schedule;
        while train.step() < schedule.total_steps && !train.finished() {
            if self.is_over(train.step()) {
                return self.stop(train);
            }
            let before = train.step();
            train.iterate(&mut self.log)?;
            let step = train.step();
            let mut last = step >= schedule.total_steps;
            let due = |period| crossed(before, step, period);

            let mut improved = false;
            if last || due(schedule.eval_every) {
                improved = timed(Phase::Evaluation, || self.evaluate(train))?;
            }
            last |= train.finished();
            // An evaluation is written at its own step, not averaged into a later one.
            if last || due(schedule.eval_every) || due(schedule.log_every) {
                timed(Phase::Writing, || self.write_log(step));
            }
            if last || improved || due(schedule.checkpoint_every) {
                timed(Phase::Writing, || self.save(train))?;
            }
            self.progress.update(step, self.log.return_mean());
        }
        self.finish(train)
    }

    fn is_over(&self, step: u64) -> bool {
        let schedule = self.session.schedule;
        self.session.stop.requested() || schedule.stop_at.is_some_and(|stop| step >= stop)
    }

    /// The interval that was begun is not written but saved, so that the log of a run that was
    /// stopped is that of one that was not.
    fn stop(&mut self, train: &mut dyn Train) -> Result<Outcome> {
        let step = train.step();
        if self.checkpoints.latest() != Some(step) {
            self.save(train)?;
        }
        self.session.directory.write_summary(&self.summary(step, false))?;
        self.progress.finish();
        Ok(Outcome::Stopped { step })
    }

    /// Saves what was learnt before the environments failed.
    fn interrupt(&mut self, train: &mut dyn Train, cause: Error) -> Error {
        let step = train.step();
        // Also over an earlier checkpoint of this step: its environments' states would lead into the same failure.
        let saved = self.save(train);
        self.progress.finish();
        self.log.record(|events| events.ended(false, step));
        match saved {
            Ok(()) => {
                let run = self.session.directory.path().to_path_buf();
                Error::Interrupted { cause: Box::new(cause), step, run }
            }
            Err(error) => {
                // This must not hide why.
                tracing::warn!("step {step} could not be saved: {error}");
                cause
            }
        }
    }

    fn finish(&mut self, train: &mut dyn Train) -> Result<Outcome> {
        let step = train.step();
        // Only a run whose total was lowered below where it stood gets here without these.
        if self.evaluation.is_none_or(|(evaluated, _)| evaluated != step) {
            self.evaluate(train)?;
            self.write_log(step);
            self.save(train)?;
        }
        let mut summary = self.summary(step, true);
        match train.conclude(&mut self.log)? {
            Value::Object(fields) => fields.into_iter().for_each(|(key, value)| {
                summary.entry(key).or_insert(value);
            }),
            other => {
                return Err(Error::Invalid(format!("the conclusion of a run is a JSON object, not {other}")));
            }
        }
        if !self.log.is_empty() {
            self.log.flush(step, self.seconds());
        }
        self.session.directory.write_summary(&summary)?;
        self.log.record(|events| events.ended(true, step));
        self.progress.finish();
        Ok(Outcome::Finished(summary))
    }

    /// Whether none was better before. Of equal ones the latest counts: it has learnt longest.
    fn evaluate(&mut self, train: &mut dyn Train) -> Result<bool> {
        let step = train.step();
        let begun = Instant::now();
        let score = train.evaluate(&mut self.log)?;
        self.log.scalar("time/evaluation", begun.elapsed().as_secs_f64());
        self.evaluation = Some((step, score));
        let Some(score) = score else { return Ok(false) };
        self.log.scalar("evaluation/score", score);
        let improved = score.is_finite() && self.best.is_none_or(|best| score >= best.score);
        if improved {
            self.best = Some(Best { step, score });
        }
        Ok(improved)
    }

    fn write_log(&mut self, step: u64) {
        let (when, from) = self.logged;
        let rate = (step - from) as f64 / when.elapsed().as_secs_f64().max(1e-9);
        self.log.scalar("time/steps_per_second", rate);
        self.log.scalar("time/seconds", self.seconds());
        self.log.flush(step, self.seconds());
        self.logged = (Instant::now(), step);
    }

    fn save(&mut self, train: &mut dyn Train) -> Result<()> {
        let step = train.step();
        let mut state = self.checkpoints.saving();
        self.visit(train, &mut state)?;
        // Weights are poisoned before losses show it, if the last update of an iteration did it.
        let bad = state.first_nan("train/")?.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()));
        if let Some((name, tensor)) = bad {
            return Err(Error::non_finite(
                format!("`{name}`, which was about to be saved,"),
                vec![(name, tensor)],
            ));
        }
        self.checkpoints.save(step, state)?;
        match self.best {
            Some(best) if best.step == step => self.checkpoints.mark_best(step, best.score),
            _ => Ok(()),
        }
    }

    /// [`Run::save`] before the loop begins, where nobody else turns a NaN into its report.
    fn guarded_save(&mut self, train: &mut dyn Train) -> Result<()> {
        match self.save(train) {
            Err(Error::NonFinite { what, batch }) => Err(self.fail(train.step(), what, batch.into_inner())),
            other => other,
        }
    }

    fn visit(&mut self, train: &mut dyn Train, state: &mut State) -> Result<()> {
        state.scope("train", |s| train.state(s))?;
        state.scope("run", |s| {
            let mut seconds = self.seconds();
            s.value("seconds", &mut seconds)?;
            s.value("best", &mut self.best)?;
            let (mut evaluated, mut score) = self.evaluation.unzip();
            let mut flat = score.take().flatten();
            s.value("evaluated", &mut evaluated)?;
            s.value("score", &mut flat)?;
            s.scope("log", |s| self.log.state(s))?;
            if s.is_loading() {
                self.seconds_before = seconds;
                self.begun = Instant::now();
                self.evaluation = evaluated.map(|step| (step, flat));
            }
            Ok(())
        })
    }

    /// Of all sessions.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.begun.elapsed().as_secs_f64()
    }

    fn summary(&self, step: u64, finished: bool) -> Map<String, Value> {
        let seconds = self.seconds();
        let evaluation = self.evaluation.map(|(step, score)| json!({"step": step, "score": score}));
        let summary = json!({
            "format": FORMAT,
            "finished": finished,
            "step": step,
            "total_steps": self.session.schedule.total_steps,
            "seconds": seconds,
            "steps_per_second": step as f64 / seconds.max(1e-9),
            "episodes": self.log.episodes(),
            "return_mean": self.log.return_mean(),
            "best": self.best,
            "evaluation": evaluation,
        });
        let Value::Object(mut fields) = summary else { return Map::new() };
        if let Some(profile) = profile::seconds(self.begun.elapsed().as_secs_f64()) {
            fields.insert("profile".into(), profile);
        }
        fields
    }

    /// Puts on disk what led to a number that is not finite, and says how to go on.
    fn fail(&mut self, step: u64, what: String, batch: Vec<(String, Tensor)>) -> Error {
        self.progress.finish();
        self.log.record(|events| events.ended(false, step));
        let tensor = first_bad(&batch).unwrap_or_else(|| "none in the batch".into());
        let folder = self.session.directory.path();
        let path = folder.join(format!("non_finite_{step}.safetensors"));
        let mut metadata = Map::new();
        metadata.insert("what".into(), what.clone().into());
        metadata.insert("step".into(), step.into());
        metadata.insert("tensor".into(), tensor.clone().into());
        let written = storable(&batch).and_then(|tensors| tensor_file::write(&path, &tensors, &metadata));
        let dump = match written {
            Ok(()) => Some(path),
            Err(error) => {
                // The run has failed already; this must not hide why.
                tracing::warn!("the batch could not be kept: {error}");
                None
            }
        };
        let last_good = self.checkpoints.latest().map(|good| {
            format!(
                "the last good checkpoint is of step {good}: `imago train {} --resume` goes on from it, \
                 exactly as before and so into the same failure: begin a new run with other settings, a \
                 lower learning rate first",
                folder.display()
            )
        });
        Error::Diverged { step, what, tensor, dump, last_good }
    }
}

fn crossed(before: u64, after: u64, period: u64) -> bool {
    period > 0 && after / period > before / period
}

fn first_bad(batch: &[(String, Tensor)]) -> Option<String> {
    let bad = |tensor: &Tensor| -> Result<bool> {
        Ok(tensor.f_isfinite()?.f_logical_not()?.f_any()?.f_int64_value(&[])? != 0)
    };
    batch.iter().find(|(_, tensor)| bad(tensor).unwrap_or(false)).map(|(name, _)| name.clone())
}

/// Kinds that a file does not take become f32.
fn storable(batch: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    batch
        .iter()
        .map(|(name, tensor)| {
            let tensor = match tensor.f_kind()? {
                Kind::Float | Kind::Double | Kind::Int64 | Kind::Int | Kind::Uint8 | Kind::Bool => {
                    tensor.shallow_clone()
                }
                _ => tensor.f_to_kind(Kind::Float)?,
            };
            Ok((name.clone(), tensor))
        })
        .collect()
}
