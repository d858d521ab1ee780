//! The one record type of the system.

use super::frames::Stacking;
use crate::memory::field_of;
use crate::{Error, Result};
use imago_envs::Space;
use tch::{Device, Kind, Tensor};

/// Leading dimensions of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// `[T, N]`: `steps` consecutive steps of `envs` environments.
    Time {
        /// T
        steps: i64,
        /// N
        envs: i64,
    },
    /// `[B]`: transitions in no particular order.
    Flat(i64),
}

/// The ends of episodes within a rollout.
#[derive(Debug)]
pub struct Ends {
    /// `t · N + n` of each step that ended an episode, int64 `[F]`.
    pub index: Tensor,
    /// The true final observations, `[F, …]`.
    pub observation: Tensor,
    /// Their values under the policy that acted, `[F, H]`.
    pub value: Tensor,
}

/// Transitions: a rollout, a minibatch of it, demonstrations.
///
/// Discriminators and curiosity modules need only `observation` and `action`; what a source cannot know is
/// `None`.
#[derive(Debug)]
pub struct Batch {
    /// `[T, N]` or `[B]`.
    pub lead: Lead,
    /// `[T + 1, N, …]`: row `t + 1` is what the policy saw next (after an end, the new episode). `[B, …]`
    /// without time. If there is a stacking, single frames `[T + K, N, …]`: see [`Batch::gather_observation`].
    pub observations: Tensor,
    /// How observations are put together of frames, of which each is stored once; rollouts only.
    pub stacking: Option<Stacking>,
    /// As the policy chose it, before clipping to the action space: int64 `[lead]` or `[lead, A]`, float32
    /// `[lead, A]`, bytes `[lead, A]` of switches or of records.
    pub action: Tensor,
    /// What was allowed when the actions were chosen, bool `[lead, choices]` (see [`Space::choices`]), of
    /// environments that say so.
    pub action_mask: Option<Tensor>,
    /// log π(action) when it was chosen, `[lead]`; 0 where actions were drawn at random.
    pub log_prob: Option<Tensor>,
    /// Values when the actions were chosen, `[T + 1, N, H]`, the last row of what follows the rollout.
    pub values: Option<Tensor>,
    /// What the policy remembered before row 0, float32 `[N, S]`, if it has a memory: nothing counts of environments that
    /// begin an episode there. Rollouts only.
    pub memory: Option<Tensor>,
    /// The environment's reward, float32 `[lead]`.
    pub reward: Tensor,
    /// Episode ended by the task, bool `[lead]`.
    pub terminated: Tensor,
    /// Episode cut off, bool `[lead]`.
    pub truncated: Tensor,
    /// Transitions from the absorbing state to itself, bool `[lead]`, where a replay has such (see Kostrikov et al.
    /// 2019): what was seen there is all zeros.
    pub absorbing: Option<Tensor>,
    /// First step of an episode, bool `[lead]`.
    pub start: Tensor,
    /// Steps of the episode before this row, int64 `[T + 1, N]`; rollouts only.
    pub elapsed: Option<Tensor>,
    /// `false` marks rows that belong to no episode; they count nowhere. Bool `[lead]`.
    pub valid: Tensor,
    /// True final observations of a rollout.
    pub ends: Option<Ends>,
}

impl Batch {
    /// Number of transitions.
    pub fn len(&self) -> i64 {
        match self.lead {
            Lead::Time { steps, envs } => steps * envs,
            Lead::Flat(count) => count,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The observations in which the actions were taken, `[T · N, …]` or `[B, …]`: without a copy, unless they are
    /// stacks of frames.
    pub fn flat_observation(&self) -> Tensor {
        match (self.lead, &self.stacking) {
            (_, Some(_)) => self.gather_observation(&Tensor::arange(self.len(), (Kind::Int64, Device::Cpu))),
            (Lead::Time { steps, .. }, None) => self.observations.narrow(0, 0, steps).flatten(0, 1),
            (Lead::Flat(_), None) => self.observations.shallow_clone(),
        }
    }

    /// The observations in which the actions `index`, int64 `[B]` in flat order, were taken, `[B, …]`. In a rollout
    /// `T · N + n` are those that the policy saw last.
    pub fn gather_observation(&self, index: &Tensor) -> Tensor {
        match (self.lead, &self.stacking) {
            (_, Some(stacking)) => stacking.gather(&self.observations, index),
            (Lead::Time { .. }, None) => self.observations.flatten(0, 1).index_select(0, index),
            (Lead::Flat(_), None) => self.observations.index_select(0, index),
        }
    }

    /// The actions, `[T · N, …]` or `[B, …]`.
    pub fn flat_action(&self) -> Tensor {
        match self.lead {
            Lead::Time { .. } => self.action.flatten(0, 1),
            Lead::Flat(_) => self.action.shallow_clone(),
        }
    }

    /// The action masks, `[T · N, choices]` or `[B, choices]`.
    pub fn flat_action_mask(&self) -> Option<Tensor> {
        let mask = self.action_mask.as_ref()?;
        Some(match self.lead {
            Lead::Time { .. } => mask.flatten(0, 1),
            Lead::Flat(_) => mask.shallow_clone(),
        })
    }

    /// A tensor `[T · N]` or `[B]` in the shape of the lead, `[T, N]` or `[B]`.
    pub fn in_lead(&self, flat: &Tensor) -> Tensor {
        match self.lead {
            Lead::Time { steps, envs } => flat.view([steps, envs]),
            Lead::Flat(count) => flat.view([count]),
        }
    }

    /// Indices of the valid transitions in flat order, int64 `[V]`.
    pub fn valid_index(&self) -> Tensor {
        self.valid.flatten(0, -1).nonzero().squeeze_dim(1)
    }

    /// Value of what truly followed each step, `[T, N, H]`: the next row's, or the final observation's where
    /// the episode ended. `None` without values.
    pub fn next_values(&self) -> Option<Tensor> {
        let (values, Lead::Time { steps, .. }) = (self.values.as_ref()?, self.lead) else { return None };
        let next = values.narrow(0, 1, steps);
        match &self.ends {
            Some(ends) if ends.index.size()[0] > 0 => {
                let heads = values.size()[2];
                let flat = next.contiguous().view([-1, heads]);
                Some(flat.index_copy(0, &ends.index, &ends.value).view_as(&next))
            }
            _ => Some(next),
        }
    }

    /// Refuses a rollout with a NaN or an infinity in it; `observation` and `action` are the spaces, so that records are
    /// looked into.
    ///
    /// # Errors
    /// Which field it is in, with the whole batch.
    pub fn check_finite(&self, observation: &Space, action: &Space) -> Result<()> {
        match self.first_non_finite(observation, action) {
            Some(field) => Err(Error::non_finite(format!("the rollout's {field}"), self.tensors())),
            None => Ok(()),
        }
    }

    /// The first field that holds a NaN or an infinity.
    fn first_non_finite(&self, observation: &Space, action: &Space) -> Option<String> {
        let number = Space::floats(&[], f64::NEG_INFINITY, f64::INFINITY);
        let fields = [
            ("observation", observation, Some(&self.observations)),
            ("action", action, Some(&self.action)),
            ("reward", &number, Some(&self.reward)),
            ("log_prob", &number, self.log_prob.as_ref()),
            ("value", &number, self.values.as_ref()),
            ("final observation", observation, self.ends.as_ref().map(|ends| &ends.observation)),
            ("final value", &number, self.ends.as_ref().map(|ends| &ends.value)),
        ];
        fields.into_iter().find_map(|(name, space, tensor)| match non_finite(space, tensor?)? {
            "" => Some(name.into()),
            field => Some(format!("{name} `{field}`")),
        })
    }

    /// Every tensor with its name, to dump a batch that went wrong.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let named = [
            ("observation", Some(&self.observations)),
            ("earlier_frames", self.stacking.as_ref().map(|stacking| &stacking.earlier)),
            ("action", Some(&self.action)),
            ("action_mask", self.action_mask.as_ref()),
            ("reward", Some(&self.reward)),
            ("log_prob", self.log_prob.as_ref()),
            ("value", self.values.as_ref()),
            ("memory", self.memory.as_ref()),
            ("terminated", Some(&self.terminated)),
            ("truncated", Some(&self.truncated)),
            ("absorbing", self.absorbing.as_ref()),
            ("start", Some(&self.start)),
            ("elapsed", self.elapsed.as_ref()),
            ("valid", Some(&self.valid)),
            ("final_observation", self.ends.as_ref().map(|ends| &ends.observation)),
            ("final_index", self.ends.as_ref().map(|ends| &ends.index)),
        ];
        named.into_iter().filter_map(|(name, tensor)| Some((name.into(), tensor?.detach().copy()))).collect()
    }
}

/// The name of the first field of `elements` that holds a NaN or an infinity, "" where they are no records.
fn non_finite<'a>(space: &'a Space, elements: &Tensor) -> Option<&'a str> {
    let bad = |tensor: &Tensor| {
        tensor.kind() == Kind::Float && !bool::try_from(tensor.isfinite().all()).unwrap_or(false)
    };
    match space {
        Space::Fields(fields) => {
            fields.iter().find(|field| bad(&field_of(elements, field))).map(|field| field.name.as_str())
        }
        _ => bad(elements).then_some(""),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_nan_within_records_is_found_and_named() {
        let space =
            Space::fields([("a", Space::discrete(9)), ("b/c", Space::floats(&[2], -1.0, 2.0))]).unwrap();
        let Space::Fields(fields) = &space else { unreachable!() };
        // −1 as bytes would be a NaN if it were read as floats: a choice is not.
        let records = Tensor::zeros([3, 16], (Kind::Uint8, Device::Cpu));
        let _ = field_of(&records, &fields[0]).fill_(-1);
        assert_eq!(non_finite(&space, &records), None);
        let _ = field_of(&records, &fields[1]).get(2).get(1).fill_(f64::NAN);
        assert_eq!(non_finite(&space, &records), Some("b/c"));
    }
}
