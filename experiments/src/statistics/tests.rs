//! Beside `rliable` 1.2.0; `beside_rliable.py` made the constants.

use super::*;

/// The same numbers as in `beside_rliable.py`.
fn numbers(count: usize, first: u64) -> Vec<f64> {
    let mut x = first;
    let next = |_| {
        x = (1_103_515_245 * x + 12_345) % (1 << 31);
        x as f64 / f64::from(1u32 << 31)
    };
    (0..count).map(next).collect()
}

/// By task; `beside_rliable.py` has a matrix of runs × tasks.
fn scores(runs: usize, tasks: usize, first: u64) -> Vec<Vec<f64>> {
    let all = numbers(runs * tasks, first);
    (0..tasks).map(|task| (0..runs).map(|run| all[run * tasks + task] * 1.4).collect()).collect()
}

fn rounded(runs: usize, tasks: usize, first: u64) -> Vec<Vec<f64>> {
    let round = |runs: Vec<f64>| runs.into_iter().map(|x| (10.0 * x).round() / 10.0).collect();
    scores(runs, tasks, first).into_iter().map(round).collect()
}

#[test]
fn by_hand() {
    // Of 5 scores the lowest and the highest go, of 3 none: 5/4 and 3/4, rounded down.
    assert_eq!(interquartile_mean(&[vec![9.0, 1.0, 2.0, 100.0, 4.0]]), 5.0);
    assert_eq!(interquartile_mean(&[vec![0.0, 3.0, 30.0]]), 11.0);
    assert_eq!(interquartile_mean(&[vec![1.0, 2.0], vec![3.0, 100.0]]), 2.5);
    // Tasks may have lost runs: (1 + 2)/2 and 5.
    assert_eq!(mean(&[vec![1.0, 2.0], vec![5.0]]), 3.25);
    assert_eq!(median(&[vec![1.0, 3.0], vec![5.0], vec![100.0]]), 5.0);
    assert_eq!(optimality_gap(&[vec![0.5, 7.0]], 1.0), 0.25);
    // 2 beats 1 and ties with 2, 3 beats both: 3.5 of 4.
    assert_eq!(probability_of_improvement(&[vec![2.0, 3.0]], &[vec![1.0, 2.0]]), 0.875);
    assert!(interquartile_mean(&[]).is_nan() && mean(&[]).is_nan() && median(&[]).is_nan());
    assert!(probability_of_improvement(&[vec![]], &[vec![1.0]]).is_nan());
    assert_eq!(percentile(&[1.0, 2.0, 4.0], 0.75), 3.0);
}

#[test]
fn intervals_repeat_and_need_two_runs() {
    let scores = scores(5, 1, 1);
    let once = interval(&scores, 1000, interquartile_mean);
    assert!(once.is_some() && once == interval(&scores, 1000, interquartile_mean));
    assert_eq!(interval(&[vec![1.0], vec![2.0]], 1000, mean), None);
    assert_eq!(interval(&[vec![3.0, 3.0]], 1000, mean), Some((3.0, 3.0)));
    assert_eq!(interval(&[], 1000, mean), None);
}
