//! Learning rates that stay and then go to zero.

/// The factor of the learning rate in step `step`, counted from 0: 1 for `constant` steps, then linearly towards 0 over
/// `decay` more, the last of which still moves: 1 − max(0, step + 1 − constant) / (decay + 1) (Zhu et al. 2017).
pub fn linear_decay(step: u64, constant: u64, decay: u64) -> f64 {
    let into = (step + 1).saturating_sub(constant);
    (1.0 - into as f64 / (decay + 1) as f64).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_epochs_and_a_hundred_more() {
        assert_eq!(linear_decay(0, 100, 100), 1.0);
        assert_eq!(linear_decay(99, 100, 100), 1.0);
        assert_eq!(linear_decay(100, 100, 100), 1.0 - 1.0 / 101.0);
        assert_eq!(linear_decay(199, 100, 100), 1.0 - 100.0 / 101.0);
        assert_eq!(linear_decay(500, 100, 100), 0.0);
        assert_eq!(linear_decay(1_000_000, u64::MAX, 0), 1.0);
    }
}
