//! What improves a policy on rollouts.

use imago::Result;
use imago::nn::ActorCritic;
use imago::rollout::Batch;
use imago::run::{Log, State};
use imago::signal::{Moment, Signals};

/// A policy and how it improves: it scores a rollout through the signals and learns from it.
pub trait Learner: Send {
    /// The policy being trained; it acts in the next rollout.
    fn policy(&self) -> &ActorCritic;
    /// One iteration: score the rollout, improve the policy, update statistics and signals.
    ///
    /// # Errors
    /// A NaN anywhere, with the batch in which it appeared; a signal's own errors.
    fn learn(&mut self, rollout: Batch, signals: &mut Signals, now: Moment, log: &mut Log) -> Result<()>;
    /// Saves or restores everything that [`Learner::learn`] changes; the policy under the name `policy`.
    fn state(&mut self, state: &mut State) -> Result<()>;
}
