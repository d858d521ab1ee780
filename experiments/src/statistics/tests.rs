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

#[test]
fn points_are_those_of_rliable() {
    // Runs, tasks, and interquartile mean, mean, median, optimality gap.
    let cases = [
        (1, 1, [0.7194181093946099, 0.7194181093946099, 0.7194181093946099, 0.28058189060539007]),
        (3, 1, [0.4658560188797613, 0.4658560188797613, 0.4658560188797613, 0.5341439811202386]),
        (5, 1, [0.6332925578268865, 0.6945189186930657, 0.6945189186930657, 0.37081690039485693]),
        (8, 1, [0.5542201567441225, 0.6266440006438643, 0.6266440006438643, 0.41419088628608736]),
        (7, 3, [0.7046526743183757, 0.7080317604045071, 0.6910236001946031, 0.3440588987875908]),
        (10, 6, [0.749486743854359, 0.7433136097559084, 0.7420694022346287, 0.3244899429862077]),
    ];
    for (runs, tasks, wanted) in cases {
        let scores = scores(runs, tasks, 1);
        let ours =
            [interquartile_mean(&scores), mean(&scores), median(&scores), optimality_gap(&scores, 1.0)];
        for (ours, wanted) in ours.iter().zip(wanted) {
            // They add in another order.
            assert!((ours - wanted).abs() < 1e-14, "{runs} × {tasks}: {ours} is not {wanted}");
        }
    }
    for (ours, theirs, tasks, wanted) in
        [(5, 5, 1, 0.54), (4, 7, 3, 0.4226190476190476), (10, 10, 6, 0.5083333333333334)]
    {
        let probability = probability_of_improvement(&rounded(ours, tasks, 1), &rounded(theirs, tasks, 2));
        assert!(
            (probability - wanted).abs() < 1e-14,
            "{ours} against {theirs}: {probability} is not {wanted}"
        );
    }
}

/// Their generator is another one, so the ends of an interval agree as far as 2,000 resamples determine them: their
/// spread is that of 50 repetitions. Ours are of 50,000 resamples and vary a fifth of that; the mean of theirs varies
/// a seventh. Together a quarter: five times that is the limit.
#[test]
fn intervals_are_those_of_rliable() {
    type Statistic = fn(&[Vec<f64>]) -> f64;
    // Runs, tasks, statistic; mean and spread of the low and the high end.
    type Case = (usize, usize, Statistic, [f64; 2], [f64; 2]);
    let gap: Statistic = |scores| optimality_gap(scores, 1.0);
    let cases: [Case; 12] = [
        (5, 1, interquartile_mean, [0.32292, 1.13295], [0.02644, 0.00286]),
        (5, 1, mean, [0.39779, 1.02974], [0.01454, 0.00953]),
        (5, 1, median, [0.39970, 1.03309], [0.01463, 0.01595]),
        (5, 1, gap, [0.15572, 0.60066], [0.00276, 0.01232]),
        (7, 3, interquartile_mean, [0.48474, 0.91905], [0.00633, 0.00504]),
        (7, 3, mean, [0.54815, 0.86880], [0.00481, 0.00550]),
        (7, 3, median, [0.52470, 0.89248], [0.00614, 0.00540]),
        (7, 3, gap, [0.21413, 0.47671], [0.00381, 0.00351]),
        (10, 6, interquartile_mean, [0.60600, 0.88693], [0.00442, 0.00337]),
        (10, 6, mean, [0.64339, 0.84225], [0.00329, 0.00259]),
        (10, 6, median, [0.62650, 0.86257], [0.00327, 0.00353]),
        (10, 6, gap, [0.24640, 0.40494], [0.00191, 0.00234]),
    ];
    for (runs, tasks, statistic, ends, spread) in cases {
        let (low, high) = interval(&scores(runs, tasks, 1), RESAMPLES, statistic).unwrap();
        for (ours, end, spread) in [(low, ends[0], spread[0]), (high, ends[1], spread[1])] {
            assert!((ours - end).abs() < 1.25 * spread, "{runs} × {tasks}: {ours} is not {end} ± {spread}");
        }
    }
    let (ours, theirs) = (rounded(4, 3, 1), rounded(7, 3, 2));
    let (low, high) = interval_of_two(&ours, &theirs, RESAMPLES, probability_of_improvement).unwrap();
    let (ends, spread) = ([0.21760, 0.63371], [0.00607, 0.00479]);
    for (ours, end, spread) in [(low, ends[0], spread[0]), (high, ends[1], spread[1])] {
        assert!((ours - end).abs() < 1.25 * spread, "{ours} is not {end} ± {spread}");
    }
}
