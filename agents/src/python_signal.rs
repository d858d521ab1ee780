//! A reward signal that its user has written in Python: NumPy arrays of a rollout go out, a number for each step comes
//! back, once a rollout.

use imago::memory::{leaf_of, slice};
use imago::rollout::{Batch, Lead};
use imago::run::{Log, State};
use imago::signal::RewardSignal;
use imago::{Error, Result, Stream};
use imago_envs::{PythonReward, RolloutView, Space};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Settings of [`PythonSignal`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PythonSignalConfig {
    /// `module:Class`: an object with `reward(rollout)`, and perhaps `update(rollout)`, `get_state()`, `set_state(bytes)`.
    #[schemars(extend("x-default" = "none: it has to be named"))]
    pub target: String,
    /// Directory in which the module lies, relative to the recipe.
    #[schemars(extend("x-default" = "Python's own search path"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Keyword arguments of the class.
    #[schemars(schema_with = "any_table", extend("x-default" = "none"))]
    pub args: toml::Table,
}

/// Arguments are the class's own affair.
fn any_table(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// The signal. `reward(rollout)` and `update(rollout)` get a dictionary of NumPy arrays: `observation`,
/// `next_observation` (what truly followed), `action`, `[T, N, …]`; `reward`, `terminated`, `truncated`, `valid`, `[T, N]`.
pub struct PythonSignal {
    object: PythonReward,
    target: String,
}

impl PythonSignal {
    /// Imports and makes the object.
    ///
    /// # Errors
    /// What the class lacks or raises; observations or actions that are records.
    pub fn new(config: &PythonSignalConfig, observation: &Space, action: &Space) -> Result<Self> {
        for space in [observation, action] {
            if matches!(space, Space::Fields(_)) {
                return Err(Error::Invalid(format!("signals in Python see single arrays, not {space}")));
            }
        }
        Ok(Self {
            // A class that cannot be had is bad input; what it does later is not.
            object: PythonReward::new(config.path.as_deref(), &config.target, &config.args)
                .map_err(|error| Error::Invalid(error.to_string()))?,
            target: config.target.clone(),
        })
    }

    /// Calls `f` with the rollout in plain memory.
    fn seen<R>(&self, batch: &Batch, f: impl FnOnce(&RolloutView) -> imago_envs::Result<R>) -> Result<R> {
        let Lead::Time { steps, envs } = batch.lead else {
            return Err(Error::Invalid("signals in Python need rollouts: use an on-policy learner".into()));
        };
        let observation = batch.flat_observation().contiguous();
        let next = true_successors(batch).contiguous();
        let action = batch.action.contiguous();
        let flags = [&batch.terminated, &batch.truncated, &batch.valid].map(Tensor::contiguous);
        let reward = batch.reward.contiguous();
        let shape =
            |x: &Tensor, lead: usize| x.size()[lead..].iter().map(|&n| n as usize).collect::<Vec<_>>();
        let (observed, acted) = (shape(&observation, 1), shape(&action, 2));
        let view = RolloutView {
            lead: [steps as usize, envs as usize],
            observation_shape: &observed,
            action_shape: &acted,
            observation: leaf_of(&observation),
            next_observation: leaf_of(&next),
            action: leaf_of(&action),
            reward: slice(&reward),
            terminated: slice(&flags[0]),
            truncated: slice(&flags[1]),
            valid: slice(&flags[2]),
        };
        Ok(f(&view)?)
    }
}

/// What truly followed each step of a rollout, `[T · N, …]`: the next row, or the final observation of an episode that
/// ended.
fn true_successors(batch: &Batch) -> Tensor {
    let Lead::Time { envs, .. } = batch.lead else { return batch.flat_observation() };
    let later = Tensor::arange_start(envs, batch.len() + envs, (Kind::Int64, Device::Cpu));
    let next = batch.gather_observation(&later);
    match &batch.ends {
        Some(ends) if ends.index.size()[0] > 0 => next.index_copy(0, &ends.index, &ends.observation),
        _ => next,
    }
}

impl RewardSignal for PythonSignal {
    fn reward(&mut self, batch: &Batch) -> Result<Tensor> {
        let paid = self.seen(batch, |rollout| self.object.reward(rollout))?;
        Ok(batch.in_lead(&Tensor::from_slice(&paid)))
    }

    fn update(&mut self, recent: &Batch, _rng: &mut Stream, log: &mut Log) -> Result<()> {
        for (name, value) in self.seen(recent, |rollout| self.object.update(rollout))? {
            log.scalar(&name, value);
        }
        Ok(())
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        let mut bytes = if state.is_loading() { Vec::new() } else { self.object.save()? };
        state.vector("object", &mut bytes)?;
        if state.is_loading() && !self.object.load(&bytes)? {
            tracing::warn!("{} has no set_state: it begins anew", self.target);
        }
        Ok(())
    }
}
