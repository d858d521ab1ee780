//! What a run of imitation makes of itself, in words.

use crate::Demonstrations;
use crate::discriminator::RewardForm;
use imago::signal::{Evidence, Verdict};
use serde::{Deserialize, Serialize};

/// Smoothed figures of the discriminator, for the verdict.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Health {
    pub accuracy_expert: f64,
    pub accuracy_policy: f64,
    logit_expert: f64,
    logit_policy: f64,
    rounds: u64,
}

impl Health {
    /// Takes accuracies and mean logits in; of the last 1 / `rate` only traces of older ones are left.
    pub fn observe(&mut self, now: [f64; 4], rate: f64) {
        self.rounds += 1;
        let rate = (1.0 / self.rounds as f64).max(rate);
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

/// What the policy is measured against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standard {
    expert_return: f64,
    expert_return_std: f64,
}

impl Standard {
    /// The returns of the demonstrated episodes.
    pub fn of(demonstrations: &Demonstrations) -> Self {
        let (expert_return, expert_return_std) = demonstrations.return_mean_std();
        Self { expert_return, expert_return_std }
    }

    /// Whether the policy matched, what became of the discriminator, and which way ends of episodes pushed.
    pub fn verdict(&self, health: &Health, (bias, why): (&str, String), evidence: &Evidence) -> Verdict {
        let (word, meaning) = health.diagnosis();
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
        Verdict {
            text: format!("{returns} The discriminator is {word}: {meaning}. Termination bias: {why}."),
            fields: serde_json::json!({
                "matched": matched,
                "demonstrations_return": self.expert_return,
                "discriminator": word,
                "accuracy_expert": health.accuracy_expert,
                "accuracy_policy": health.accuracy_policy,
                "termination_bias": bias,
            }),
        }
    }
}

impl RewardForm {
    /// Which way the ends of episodes push a policy under this reward, whatever the demonstrations say.
    pub(crate) fn termination_bias(self, evidence: &Evidence) -> (&'static str, String) {
        let Evidence { episodes, terminated, .. } = *evidence;
        if episodes == 0 {
            return ("unknown", "unknown, since no episode ended during training".into());
        }
        if terminated == 0 {
            return ("none", format!("none, since all {episodes} training episodes ran to their time limit"));
        }
        let ended = format!("{terminated} of {episodes} training episodes were ended by the task");
        match self {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_names_the_bias_of_the_reward_form() {
        let evidence = Evidence { return_mean: Some(1.0), episodes: 10, terminated: 4 };
        assert_eq!(RewardForm::Positive.termination_bias(&evidence).0, "survival");
        assert_eq!(RewardForm::Negative.termination_bias(&evidence).0, "early_end");
        let fixed = Evidence { terminated: 0, ..evidence };
        assert_eq!(RewardForm::Positive.termination_bias(&fixed).0, "none");
    }
}
