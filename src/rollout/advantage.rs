//! Generalised advantage estimation (Schulman et al. 2016, equations 11–16).

/// One value head's view of a rollout; every slice is `[T, N]` row-major.
#[derive(Clone, Copy, Debug)]
pub struct AdvantageInput<'a> {
    /// Number of environments, N.
    pub envs: usize,
    /// Reward of each step.
    pub reward: &'a [f32],
    /// V(s_t)
    pub value: &'a [f32],
    /// V of what truly followed: s_{t+1} within an episode, the final observation at its end.
    pub next_value: &'a [f32],
    /// The task ended here: nothing follows, so V(s_{t+1}) counts as 0.
    pub terminated: &'a [bool],
    /// Cut off here: V(s_{t+1}) of the final observation counts.
    pub truncated: &'a [bool],
    /// Rows of no episode; their advantage is 0 and they pass nothing on.
    pub valid: &'a [bool],
    /// γ
    pub discount: f32,
    /// λ
    pub lambda: f32,
}

/// Â_t = δ_t + γλ Â_{t+1} within an episode, δ_t = r_t + γ V(s_{t+1}) − V(s_t). `[T, N]`.
///
/// The three ways in which a sum can stop are kept apart: `terminated` (no value follows), `truncated` (the
/// final observation's value follows, no advantage is passed over the reset), and the end of the rollout (the
/// episode goes on: its value is in `next_value`'s last row).
pub fn generalised_advantage(input: &AdvantageInput) -> Vec<f32> {
    let mut advantage = vec![0.0; input.reward.len()];
    for i in (0..advantage.len()).rev() {
        if !input.valid[i] {
            continue;
        }
        let next_value = if input.terminated[i] { 0.0 } else { input.next_value[i] };
        let delta = input.reward[i] + input.discount * next_value - input.value[i];
        let ended = input.terminated[i] || input.truncated[i];
        let following = if ended { 0.0 } else { advantage.get(i + input.envs).copied().unwrap_or(0.0) };
        advantage[i] = delta + input.discount * input.lambda * following;
    }
    advantage
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f32], wanted: &[f32]) {
        assert_eq!(got.len(), wanted.len());
        for (a, b) in got.iter().zip(wanted) {
            assert!((a - b).abs() < 1e-6, "{got:?} is not {wanted:?}");
        }
    }

    const BASE: AdvantageInput = AdvantageInput {
        envs: 1,
        reward: &[1.0, 2.0, 3.0],
        value: &[0.5, 1.0, 1.5],
        next_value: &[1.0, 1.5, 4.0],
        terminated: &[false; 3],
        truncated: &[false; 3],
        valid: &[true; 3],
        discount: 0.5,
        lambda: 0.5,
    };

    // By hand, γ = λ = ½: δ = (1 + ½·1 − ½, 2 + ½·1½ − 1, 3 + ½·4 − 1½) = (1, 1.75, 3.5).
    #[test]
    fn cut_by_the_rollout_bootstraps_from_the_next_row() {
        close(&generalised_advantage(&BASE), &[1.0 + 0.25 * (1.75 + 0.25 * 3.5), 1.75 + 0.25 * 3.5, 3.5]);
    }

    #[test]
    fn terminated_has_no_next_value_and_passes_nothing_back() {
        let input = AdvantageInput { terminated: &[false, true, false], ..BASE };
        close(&generalised_advantage(&input), &[1.0 + 0.25 * 1.0, 2.0 - 1.0, 3.5]);
    }

    #[test]
    fn truncated_keeps_the_final_value_and_passes_nothing_back() {
        let input = AdvantageInput { truncated: &[false, true, false], next_value: &[1.0, 7.0, 4.0], ..BASE };
        close(&generalised_advantage(&input), &[1.0 + 0.25 * 4.5, 2.0 + 0.5 * 7.0 - 1.0, 3.5]);
    }

    #[test]
    fn invalid_rows_count_nothing() {
        let input = AdvantageInput { truncated: &[true, false, false], valid: &[true, false, true], ..BASE };
        close(&generalised_advantage(&input), &[1.0, 0.0, 3.5]);
    }

    #[test]
    fn environments_do_not_mix() {
        let input = AdvantageInput {
            envs: 2,
            reward: &[1.0, 0.0, 1.0, 0.0],
            value: &[0.0; 4],
            next_value: &[0.0; 4],
            terminated: &[false; 4],
            truncated: &[false; 4],
            valid: &[true; 4],
            discount: 1.0,
            lambda: 1.0,
        };
        close(&generalised_advantage(&input), &[2.0, 0.0, 1.0, 0.0]);
    }

    /// λ = 1 is the discounted return minus the value, λ = 0 the one-step error: the two ends of the paper.
    #[test]
    fn ends_of_lambda() {
        let monte_carlo = generalised_advantage(&AdvantageInput { lambda: 1.0, ..BASE });
        close(&monte_carlo[..1], &[1.0 + 0.5 * 2.0 + 0.25 * 3.0 + 0.125 * 4.0 - 0.5]);
        close(&generalised_advantage(&AdvantageInput { lambda: 0.0, ..BASE }), &[1.0, 1.75, 3.5]);
    }

    proptest::proptest! {
        /// The recursion equals the definition, Â_t = Σ_l (γλ)^l δ_{t+l} up to the episode's end, whatever the
        /// ends, cuts and invalid rows.
        #[test]
        fn equals_the_sum_it_stands_for(
            steps in 1usize..12, envs in 1usize..4, seed in 0u64..1000, discount in 0f32..1.0, lambda in 0f32..1.0,
        ) {
            let mut rng = crate::Stream::new(seed, "rollout", 0, 0);
            let count = steps * envs;
            let mut floats = || (0..count).map(|_| rng.normal()).collect::<Vec<f32>>();
            let (reward, value, next_value) = (floats(), floats(), floats());
            let mut flags = |share| (0..count).map(|_| rng.uniform() < share).collect::<Vec<bool>>();
            let (terminated, truncated, invalid) = (flags(0.2), flags(0.2), flags(0.1));
            let valid: Vec<bool> = invalid.iter().map(|x| !x).collect();
            let got = generalised_advantage(&AdvantageInput {
                envs, reward: &reward, value: &value, next_value: &next_value, terminated: &terminated,
                truncated: &truncated, valid: &valid, discount, lambda,
            });
            for (start, &got) in got.iter().enumerate() {
                let (mut wanted, mut factor) = (0.0f64, 1.0f64);
                for i in (start..count).step_by(envs) {
                    if !valid[i] {
                        break;
                    }
                    let follows = if terminated[i] { 0.0 } else { f64::from(next_value[i]) };
                    let delta = f64::from(reward[i]) + f64::from(discount) * follows - f64::from(value[i]);
                    wanted += factor * delta;
                    factor *= f64::from(discount) * f64::from(lambda);
                    if terminated[i] || truncated[i] {
                        break;
                    }
                }
                proptest::prop_assert!((f64::from(got) - wanted).abs() < 1e-4);
            }
        }
    }
}
