//! Statistics of a few runs, as Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical
//! precipice") ask for them. The values are those of their library, `rliable`.
//!
//! Scores are given by task: one slice of runs for each task. In `rliable` that is a matrix of runs × tasks; here a
//! task may also lack a run that failed.

use imago::Stream;

/// Resamples behind an interval of a table; `rliable`'s default.
pub const RESAMPLES: usize = 50_000;

/// Share of the resamples that lies within an interval.
pub const CONFIDENCE: f64 = 0.95;

/// Interquartile mean over all runs and tasks: without the lowest and the highest quarter of the scores, each
/// rounded down to whole scores (`scipy.stats.trim_mean(scores, 0.25, axis=None)`). NaN without scores.
pub fn interquartile_mean(tasks: &[Vec<f64>]) -> f64 {
    let mut all: Vec<f64> = tasks.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let cut = all.len() / 4;
    average(&all[cut..all.len() - cut])
}

/// Mean over tasks of the mean over runs.
pub fn mean(tasks: &[Vec<f64>]) -> f64 {
    average(&task_means(tasks))
}

/// Median over tasks of the mean over runs.
pub fn median(tasks: &[Vec<f64>]) -> f64 {
    let mut means = task_means(tasks);
    means.sort_by(f64::total_cmp);
    percentile(&means, 0.5)
}

/// How far runs fall short of `target` on the average; what exceeds it does not count. For scaled scores the target
/// is 1.
pub fn optimality_gap(tasks: &[Vec<f64>], target: f64) -> f64 {
    let capped: Vec<f64> = tasks.iter().flatten().map(|score| score.min(target)).collect();
    target - average(&capped)
}

/// Probability that a run of `ours` has a higher score than one of `theirs` on the same task (equal ones count
/// half), averaged over tasks: the Mann–Whitney statistic. NaN where a task has no runs.
pub fn probability_of_improvement(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> f64 {
    let of_task = |(ours, theirs): (&Vec<f64>, &Vec<f64>)| {
        let wins = |x: f64| -> f64 {
            theirs.iter().map(|&y| if x > y { 1.0 } else { 0.5 * f64::from(u8::from(x == y)) }).sum()
        };
        ours.iter().map(|&x| wins(x)).sum::<f64>() / (ours.len() * theirs.len()) as f64
    };
    average(&ours.iter().zip(theirs).map(of_task).collect::<Vec<f64>>())
}

/// Percentile interval of `statistic` over `resamples` stratified resamples: of every task as many runs as it has,
/// drawn with replacement. Always the same for the same scores. `None` unless some task has two runs: one run says
/// nothing about the next.
pub fn interval(
    tasks: &[Vec<f64>],
    resamples: usize,
    statistic: impl Fn(&[Vec<f64>]) -> f64,
) -> Option<(f64, f64)> {
    interval_of_two(tasks, &[], resamples, |tasks, _| statistic(tasks))
}

/// The same for a statistic of two sets of runs, which are resampled independently.
pub fn interval_of_two(
    ours: &[Vec<f64>],
    theirs: &[Vec<f64>],
    resamples: usize,
    statistic: impl Fn(&[Vec<f64>], &[Vec<f64>]) -> f64,
) -> Option<(f64, f64)> {
    if ours.iter().chain(theirs).all(|runs| runs.len() < 2) || resamples == 0 {
        return None;
    }
    let mut stream = Stream::new(0, "bootstrap", 0, 0);
    let mut resample = |from: &[Vec<f64>], into: &mut [Vec<f64>]| {
        for (from, into) in from.iter().zip(into) {
            into.iter_mut().for_each(|score| *score = from[stream.below(from.len())]);
        }
    };
    let (mut our_sample, mut their_sample) = (ours.to_vec(), theirs.to_vec());
    let mut values: Vec<f64> = (0..resamples)
        .map(|_| {
            resample(ours, &mut our_sample);
            resample(theirs, &mut their_sample);
            statistic(&our_sample, &their_sample)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some((percentile(&values, tail), percentile(&values, 1.0 - tail)))
}

/// The value below which the share `fraction` of `sorted` lies, linear between neighbours (numpy's default).
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = fraction * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

fn task_means(tasks: &[Vec<f64>]) -> Vec<f64> {
    tasks.iter().map(|runs| average(runs)).collect()
}

/// NaN without values.
fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
