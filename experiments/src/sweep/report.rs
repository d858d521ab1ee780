//! What came out of a sweep: a table, every number behind it, learning curves.

use super::{Planned, State, Tally};
use crate::plot::{self, Curve, Labels};
use crate::recipe::{LearnerConfig, Recipe};
use crate::runs::scaled;
use crate::statistics::{
    self, CONFIDENCE, RESAMPLES, interquartile_mean, interval, optimality_gap, probability_of_improvement,
};
use anyhow::Result;
use imago::run::write_whole;
use imago_agents::mean_std;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Resamples behind each point of a learning curve, as in `rliable`'s examples.
const CURVE_RESAMPLES: usize = 2_000;

/// Points of a learning curve: more than a picture shows.
const CURVE_POINTS: usize = 100;

/// More lines than this cannot be told apart; the table has them all.
const CURVES: usize = 14;

/// Each pair of rows is compared, up to so many rows.
const COMPARED: usize = 20;

/// What a run is judged by: the first of these that every finished run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Mean return of the last evaluation, deterministic.
    Evaluation,
    /// Mean return of the last hundred episodes of training.
    Episodes,
    /// What chooses the best checkpoint: minus the validation loss, for cloning without an environment.
    Score,
}

impl Metric {
    const ALL: [Self; 3] = [Self::Evaluation, Self::Episodes, Self::Score];

    /// Its name in `metrics.jsonl`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation/return_deterministic",
            Self::Episodes => "rollout/return",
            Self::Score => "evaluation/score",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Evaluation => "return of the last evaluation (deterministic, mean over its episodes)",
            Self::Episodes => "mean return of the last 100 episodes of training",
            Self::Score => "score of the last evaluation",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::Evaluation => "return of evaluation",
            Self::Episodes => "return of training episodes",
            Self::Score => "score of evaluation",
        }
    }

    fn of(self, summary: &Map<String, Value>) -> Option<f64> {
        let at = |keys: &[&str]| {
            keys.iter().skip(1).try_fold(summary.get(keys[0])?, |value, key| value.get(*key))?.as_f64()
        };
        match self {
            Self::Evaluation => at(&["returns", "deterministic_mean"]),
            Self::Episodes => at(&["return_mean"]),
            Self::Score => at(&["evaluation", "score"]),
        }
    }
}

/// The best known return of a finished run.
pub fn return_of(summary: &Map<String, Value>) -> Option<f64> {
    Metric::ALL[..2].iter().find_map(|metric| metric.of(summary))
}

/// A point of a learning curve over several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Steps of each run.
    pub step: f64,
    /// Interquartile mean over the runs.
    pub iqm: f64,
    /// Its interval; `None` of a single run.
    pub interval: Option<(f64, f64)>,
}

/// One finished run.
struct Finished {
    seed: u64,
    name: String,
    path: String,
    score: Option<f64>,
    step: u64,
    seconds: f64,
}

/// What some scores come to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Statistics {
    mean: f64,
    std: f64,
    median: f64,
    min: f64,
    max: f64,
    iqm: f64,
    /// `None` of a single run.
    iqm_interval: Option<(f64, f64)>,
    mean_interval: Option<(f64, f64)>,
}

impl Statistics {
    /// `None` without scores.
    fn of(scores: &[f64]) -> Option<Self> {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = sorted.first().zip(sorted.last())?;
        let (mean, std) = mean_std(scores);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        let tasks = [sorted];
        Some(Self {
            mean,
            std,
            median,
            min,
            max,
            iqm: interquartile_mean(&tasks),
            iqm_interval: interval(&tasks, RESAMPLES, interquartile_mean),
            mean_interval: interval(&tasks, RESAMPLES, statistics::mean),
        })
    }

    /// Of the same scores on the scale from `random` to `expert`. Exact: all of these follow a change of scale.
    fn scaled(&self, random: f64, expert: f64) -> Option<Self> {
        let of = |x: f64| scaled(x, random, expert);
        // Where less is better, ends change places.
        let ordered = |(a, b): (f64, f64)| if a <= b { (a, b) } else { (b, a) };
        let both = |(low, high): (f64, f64)| of(low).zip(of(high)).map(ordered);
        let (min, max) = both((self.min, self.max))?;
        Some(Self {
            mean: of(self.mean)?,
            std: self.std / (expert - random).abs(),
            median: of(self.median)?,
            min,
            max,
            iqm: of(self.iqm)?,
            iqm_interval: self.iqm_interval.and_then(both),
            mean_interval: self.mean_interval.and_then(both),
        })
    }

    fn json(&self) -> Value {
        json!({
            "mean": self.mean, "std": self.std, "median": self.median, "min": self.min, "max": self.max,
            "iqm": self.iqm, "iqm_interval": self.iqm_interval, "mean_interval": self.mean_interval,
        })
    }

    /// The IQM and its interval.
    fn words(&self, digits: usize, bold: &str) -> String {
        let iqm = format!("{bold}{:.digits$}{bold}", self.iqm);
        match self.iqm_interval {
            Some((low, high)) => format!("{iqm} [{low:.digits$}, {high:.digits$}]"),
            None => iqm,
        }
    }
}

/// The runs that differ only in their seeds.
struct Row {
    label: String,
    finished: Vec<Finished>,
    /// Name and how it failed.
    failed: Vec<(String, String)>,
    left: usize,
    /// Returns of a random policy and of the expert, if the recipe names them.
    ends: Option<(f64, f64)>,
    /// Of the finished runs; and of their scaled scores.
    statistics: Option<Statistics>,
    scaled: Option<Statistics>,
    curve: Vec<Point>,
}

impl Row {
    fn scores(&self) -> Vec<f64> {
        self.finished.iter().filter_map(|run| run.score).collect()
    }

    /// How far the scaled scores fall short of the expert's.
    fn optimality_gap(&self) -> Option<f64> {
        let (random, expert) = self.ends?;
        let scores: Option<Vec<f64>> =
            self.scores().into_iter().map(|score| scaled(score, random, expert)).collect();
        scores.filter(|scores| !scores.is_empty()).map(|scores| optimality_gap(&[scores], 1.0))
    }
}

/// Another score of finished runs than that of their last evaluation.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// What it is, in words.
    pub words: &'a str,
    /// That of a run; `None` leaves the run out.
    pub score: &'a dyn Fn(&Planned) -> Option<f64>,
}

/// What came out of some runs.
pub struct Report {
    title: String,
    metric: Metric,
    /// What the scores are.
    words: String,
    tally: Tally,
    rows: Vec<Row>,
    x_label: &'static str,
}

impl Report {
    /// Reads what `runs` have left behind. Only finished ones count; the others are counted.
    ///
    /// # Errors
    /// A finished run without a readable `metrics.jsonl`.
    pub fn of(title: &str, runs: &[Planned]) -> Result<Self> {
        Self::judged(title, runs, None)
    }

    /// The same with finished runs judged by another score than their last evaluation: what it is in words, and the
    /// score of a run. The curves are those of the evaluations still.
    ///
    /// # Errors
    /// As [`Report::of`].
    pub fn judged(title: &str, runs: &[Planned], judge: Option<Judge>) -> Result<Self> {
        let summaries = || {
            runs.iter().filter_map(|run| match &run.state {
                State::Finished(summary) => Some(summary),
                _ => None,
            })
        };
        let everyone_has = |metric: &&Metric| summaries().all(|summary| metric.of(summary).is_some());
        let metric = *Metric::ALL.iter().find(everyone_has).unwrap_or(&Metric::Score);
        let mut labels: Vec<&str> = Vec::new();
        for run in runs {
            if !labels.contains(&run.row.as_str()) {
                labels.push(&run.row);
            }
        }
        let row = |label: &&str| row(label, runs, metric, judge);
        let clones = |run: &Planned| matches!(run.recipe.learner, LearnerConfig::Bc(..));
        let x_label = match (runs.iter().all(clones), runs.iter().any(clones)) {
            (true, _) => "optimiser steps",
            (false, true) => "steps",
            (false, false) => "environment steps",
        };
        Ok(Self {
            title: title.into(),
            metric,
            words: judge.map_or_else(|| metric.words().to_string(), |judge| judge.words.to_string()),
            tally: Tally::of(runs),
            rows: labels.iter().map(row).collect::<Result<_>>()?,
            x_label,
        })
    }

    /// Table, failures and what the numbers are, as Markdown.
    pub fn markdown(&self) -> String {
        let Tally { finished, failed, left } = self.tally;
        let mut text = format!("# {}\n\n{finished} runs finished", self.title);
        if failed > 0 {
            text += &format!(", {failed} failed");
        }
        if left > 0 {
            text += &format!(", {left} still to be done");
        }
        text += &format!(".\n\n{}\n", self.table());
        text += &format!(
            "Of each run: {}. In each row, over its finished seeds: mean and (population) standard deviation; \
             interquartile mean (IQM) with its {:.0} % interval from {RESAMPLES} stratified bootstrap resamples, as in \
             Agarwal et al. 2021 (of fewer than four scores it is their mean). The best IQM is bold.\n",
            self.words,
            100.0 * CONFIDENCE
        );
        if self.rows.iter().any(|row| !row.curve.is_empty()) {
            text += "\n![Learning curves](curves.svg)\n";
        }
        let failures: Vec<&(String, String)> = self.rows.iter().flat_map(|row| &row.failed).collect();
        if !failures.is_empty() {
            text += "\n## Failed\n";
            for (name, how) in failures {
                text += &format!("\n`{name}`:\n\n```\n{how}\n```\n");
            }
        }
        text
    }

    /// One row a combination, as Markdown.
    pub fn table(&self) -> String {
        let has_scaled = self.rows.iter().any(|row| row.ends.is_some());
        let has_failed = self.tally.failed > 0;
        let has_left = self.tally.left > 0;
        let mut header = vec!["setting", "seeds", "mean ± std", "IQM [95 % interval]"];
        header.extend(has_scaled.then_some("scaled IQM [95 % interval]"));
        header.extend(has_failed.then_some("failed"));
        header.extend(has_left.then_some("to be done"));
        header.push("time a run");
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&header.iter().map(ToString::to_string).collect::<Vec<_>>());
        text += &format!("|{}\n", " --- |".repeat(header.len()));
        let size = self.rows.iter().flat_map(Row::scores).fold(0.0, |size: f64, x| size.max(x.abs()));
        let digits = match size {
            x if x >= 100.0 => 1,
            x if x >= 10.0 => 2,
            _ => 3,
        };
        let iqms = || self.rows.iter().filter_map(|row| Some(row.statistics?.iqm));
        let best = iqms().fold(f64::NEG_INFINITY, f64::max);
        for row in &self.rows {
            let is_best = self.rows.len() > 1 && row.statistics.is_some_and(|own| own.iqm == best);
            let bold = if is_best { "**" } else { "" };
            let nothing = || "–".to_string();
            // A pipe would end the cell.
            let mut cells = vec![row.label.replace('|', "\\|"), row.finished.len().to_string()];
            cells.push(
                row.statistics
                    .map_or_else(nothing, |own| format!("{:.digits$} ± {:.digits$}", own.mean, own.std)),
            );
            cells.push(row.statistics.map_or_else(nothing, |own| own.words(digits, bold)));
            if has_scaled {
                cells.push(row.scaled.map_or_else(nothing, |own| own.words(3, bold)));
            }
            if has_failed {
                cells.push(row.failed.len().to_string());
            }
            if has_left {
                cells.push(row.left.to_string());
            }
            let seconds: Vec<f64> = row.finished.iter().map(|run| run.seconds).collect();
            cells.push(if seconds.is_empty() { nothing() } else { time(mean_std(&seconds).0) });
            text += &line(&cells);
        }
        text
    }

    /// Every number behind it.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        let mut report = json!({
            "format": 1,
            "title": self.title,
            "score": self.words,
            "curves": self.metric.tag(),
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "finished": self.tally.finished,
            "failed": self.tally.failed,
            "left": self.tally.left,
            "rows": rows,
        });
        if (2..=COMPARED).contains(&self.rows.len()) {
            let scores: Vec<Vec<f64>> = self.rows.iter().map(Row::scores).collect();
            // NaN, where one of the two has no runs, becomes null.
            let against = |ours: &Vec<f64>, theirs: &Vec<f64>| {
                json!(probability_of_improvement(std::slice::from_ref(ours), std::slice::from_ref(theirs)))
            };
            let matrix: Vec<Vec<Value>> = scores
                .iter()
                .map(|ours| scores.iter().map(|theirs| against(ours, theirs)).collect())
                .collect();
            // Row i, column j: the probability that a run of row i has a higher score than one of row j.
            report["probability_of_improvement"] = json!(matrix);
        }
        report
    }

    fn row_json(&self, row: &Row) -> Value {
        let runs = row.finished.iter().map(|run| {
            json!({
                "seed": run.seed, "run": run.path, "name": run.name, "score": run.score,
                "scaled_score": run.score.zip(row.ends).and_then(|(x, (random, expert))| scaled(x, random, expert)),
                "step": run.step, "seconds": run.seconds,
            })
        });
        let failed = row.failed.iter().map(|(name, how)| json!({"name": name, "how": how}));
        let curve = row.curve.iter().map(|point| {
            let (low, high) = point.interval.unzip();
            json!({"step": point.step, "iqm": point.iqm, "low": low, "high": high})
        });
        json!({
            "row": row.label,
            "runs": runs.collect::<Vec<_>>(),
            "failed": failed.collect::<Vec<_>>(),
            "left": row.left,
            "random_return": row.ends.map(|ends| ends.0),
            "expert_return": row.ends.map(|ends| ends.1),
            "score": row.statistics.map(|own| own.json()),
            "scaled_score": row.scaled.map(|own| own.json()),
            "optimality_gap": row.optimality_gap(),
            "curve": curve.collect::<Vec<_>>(),
        })
    }

    /// Writes `report.md`, `report.json`, `curves.svg` and `curves.png` into `folder`, over earlier ones.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join("report.md"), self.markdown().as_bytes())?;
        write_whole(&folder.join("report.json"), format!("{:#}\n", self.json()).as_bytes())?;
        let drawn: Vec<&Row> = self.rows.iter().filter(|row| !row.curve.is_empty()).collect();
        let curves: Vec<Curve> = drawn.iter().take(CURVES).map(|row| curve(row)).collect();
        if curves.is_empty() {
            return Ok(());
        }
        let more = match drawn.len() > CURVES {
            true => format!(", first {CURVES} of {} rows", drawn.len()),
            false => String::new(),
        };
        let banded = curves.iter().any(|curve| !curve.band.is_empty());
        let what = if banded { "IQM over seeds and its 95 % interval" } else { "single runs" };
        let title = format!("{}: {what}{more}", self.title);
        let labels = Labels { title: &title, x: self.x_label, y: self.metric.axis() };
        plot::draw(&folder.join("curves.svg"), &labels, &curves)?;
        plot::draw(&folder.join("curves.png"), &labels, &curves)
    }
}

fn row(label: &str, runs: &[Planned], metric: Metric, judge: Option<Judge>) -> Result<Row> {
    let mut row = Row {
        label: label.into(),
        finished: Vec::new(),
        failed: Vec::new(),
        left: 0,
        ends: None,
        statistics: None,
        scaled: None,
        curve: Vec::new(),
    };
    let mut curves = Vec::new();
    for run in runs.iter().filter(|run| run.row == label) {
        row.ends = ends(&run.recipe).filter(|_| judge.is_some() || metric != Metric::Score);
        match &run.state {
            State::Finished(summary) => {
                row.finished.push(Finished {
                    seed: run.recipe.run.seed,
                    name: run.name.clone(),
                    path: run.path.display().to_string(),
                    score: judge.map_or_else(|| metric.of(summary), |judge| (judge.score)(run)),
                    step: summary.get("step").and_then(Value::as_u64).unwrap_or(0),
                    seconds: summary.get("seconds").and_then(Value::as_f64).unwrap_or(0.0),
                });
                curves.push(plot::metric(&run.path, metric.tag())?);
            }
            State::Failed(how) => row.failed.push((run.name.clone(), how.clone())),
            State::New | State::Begun(_) => row.left += 1,
        }
    }
    row.statistics = Statistics::of(&row.scores());
    row.scaled = row.statistics.zip(row.ends).and_then(|(own, (random, expert))| own.scaled(random, expert));
    row.curve = learning_curve(&curves);
    Ok(row)
}

/// What scaled scores are measured against, if the recipe says so.
fn ends(recipe: &Recipe) -> Option<(f64, f64)> {
    recipe.eval.random_return.zip(recipe.eval.expert_return)
}

/// Interquartile mean and interval at each step at which one of the `runs` was measured. Between its own steps a run
/// is on a straight line, after its last one (it stopped early) it stays where it was; before the first step of all
/// there is nothing.
pub fn learning_curve(runs: &[Vec<(f64, f64)>]) -> Vec<Point> {
    let runs: Vec<&Vec<(f64, f64)>> = runs.iter().filter(|points| !points.is_empty()).collect();
    let begin = runs.iter().map(|points| points[0].0).fold(f64::NEG_INFINITY, f64::max);
    let mut steps: Vec<f64> =
        runs.iter().flat_map(|points| points.iter().map(|p| p.0)).filter(|&step| step >= begin).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    if steps.len() > CURVE_POINTS {
        let last = steps.len() - 1;
        steps = (0..CURVE_POINTS).map(|i| steps[i * last / (CURVE_POINTS - 1)]).collect();
    }
    let point = |&step: &f64| {
        let values: Vec<f64> = runs.iter().map(|points| at(points, step)).collect();
        let tasks = [values];
        Point {
            step,
            iqm: interquartile_mean(&tasks),
            interval: interval(&tasks, CURVE_RESAMPLES, interquartile_mean),
        }
    };
    steps.iter().map(point).collect()
}

/// The value at `step` on the lines between `points`, which begin there or before.
fn at(points: &[(f64, f64)], step: f64) -> f64 {
    let after = points.partition_point(|p| p.0 <= step);
    match (points.get(after.wrapping_sub(1)), points.get(after)) {
        (Some(&(x, y)), Some(&(next_x, next_y))) => y + (next_y - y) * (step - x) / (next_x - x),
        (Some(&(_, y)), None) | (None, Some(&(_, y))) => y,
        (None, None) => f64::NAN,
    }
}

fn curve(row: &Row) -> Curve {
    let band = row.curve.iter().filter_map(|point| point.interval.map(|(low, high)| (point.step, low, high)));
    Curve {
        name: row.label.clone(),
        points: row.curve.iter().map(|point| (point.step, point.iqm)).collect(),
        band: band.collect(),
        level: false,
    }
}

/// `12 s`, `3.5 min` or `2.1 h`.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s if s >= 10.0 => format!("{s:.0} s"),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn curves_meet_where_runs_were_measured() {
        let runs = [
            vec![(0.0, 0.0), (10.0, 10.0), (20.0, 20.0)],
            // Begins later, is measured in between, stops early.
            vec![(5.0, 1.0), (15.0, 3.0)],
        ];
        let curve = learning_curve(&runs);
        let points: Vec<(f64, f64)> = curve.iter().map(|point| (point.step, point.iqm)).collect();
        // Of two runs the IQM is the mean: (5 + 1)/2, (10 + 2)/2, (15 + 3)/2, (20 + 3)/2.
        assert_eq!(points, [(5.0, 3.0), (10.0, 6.0), (15.0, 9.0), (20.0, 11.5)]);
        // Resamples of two runs are both the one, both the other, or one of each.
        assert_eq!(curve[3].interval, Some((3.0, 20.0)));
        assert!(learning_curve(&[]).is_empty() && learning_curve(&[vec![]]).is_empty());
        let one = learning_curve(&runs[..1]);
        assert_eq!((one.len(), one[1].interval), (3, None));
    }

    #[test]
    fn long_curves_are_thinned_and_keep_their_ends() {
        let run: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), 1.0)).collect();
        let curve = learning_curve(&[run]);
        assert_eq!((curve.len(), curve[0].step, curve[99].step), (100, 0.0, 4999.0));
    }

    #[test]
    fn scales_are_followed() {
        let own = Statistics::of(&[10.0, 60.0, 20.0, 30.0]).unwrap();
        // The middle two; population deviation √(350).
        assert_eq!((own.mean, own.median, own.iqm), (30.0, 25.0, 25.0));
        assert!((own.std - 350f64.sqrt()).abs() < 1e-12);
        assert_eq!((own.min, own.max), (10.0, 60.0));
        let scaled = own.scaled(10.0, 60.0).unwrap();
        let of_scaled = Statistics::of(&[0.0, 1.0, 0.2, 0.4]).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(scaled.iqm, of_scaled.iqm);
        near(scaled.std, of_scaled.std);
        near(scaled.iqm_interval.unwrap().0, of_scaled.iqm_interval.unwrap().0);
        near(scaled.mean_interval.unwrap().1, of_scaled.mean_interval.unwrap().1);
        assert!(own.scaled(5.0, 5.0).is_none());
        assert_eq!(own.scaled(60.0, 10.0).unwrap().max, 1.0);
        assert!(Statistics::of(&[]).is_none());
        assert_eq!(Statistics::of(&[7.0]).unwrap().iqm_interval, None);
    }

    /// A run in `folder` that ended with this return, if it ended.
    fn run(folder: &Path, seed: u64, score: Option<f64>, how: &str) -> Planned {
        let name = format!("seed-{seed}");
        let path = folder.join(&name);
        let text = crate::catalogue::recipe("ppo/cartpole").unwrap();
        let sets = [format!("run.seed={seed}"), "eval={random_return=0,expert_return=500}".into()];
        let recipe = Recipe::parse("x", text, &sets, None, &[]).unwrap();
        let state = match score {
            Some(score) => {
                std::fs::create_dir_all(&path).unwrap();
                let lines = format!("{{\"step\":5,\"evaluation/return_deterministic\":{score}}}\n");
                std::fs::write(path.join("metrics.jsonl"), lines).unwrap();
                let summary =
                    json!({"returns": {"deterministic_mean": score}, "return_mean": 3.0, "seconds": 4.0});
                let Value::Object(summary) = summary else { panic!() };
                State::Finished(summary)
            }
            None => State::Failed(how.into()),
        };
        Planned { row: "a | b".into(), name, path, recipe, text: String::new(), state }
    }

    #[test]
    fn a_report_has_a_row_and_says_what_failed() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [
            run(folder.path(), 0, Some(100.0), ""),
            run(folder.path(), 1, Some(200.0), ""),
            run(folder.path(), 2, None, "exit code 1\nno luck"),
        ];
        let report = Report::of("A title", &runs).unwrap();
        let wanted =
            "| a \\| b | 2 | 150.0 ± 50.0 | 150.0 [100.0, 200.0] | 0.300 [0.200, 0.400] | 1 | 4.0 s |";
        assert!(report.table().ends_with(&format!("{wanted}\n")), "{}", report.table());
        let text = report.markdown();
        for words in [
            "# A title",
            "2 runs finished, 1 failed.",
            "return of the last evaluation",
            "exit code 1\nno luck",
        ] {
            assert!(text.contains(words), "`{words}` is missing in {text}");
        }
        // 1 − (0.2 + 0.4)/2.
        let gap = report.json()["rows"][0]["optimality_gap"].as_f64().unwrap();
        assert!((gap - 0.7).abs() < 1e-12, "{gap}");
        // Judged by something else: their seeds.
        let score = |run: &Planned| Some(run.recipe.run.seed as f64);
        let report = Report::judged("A title", &runs, Some(Judge { words: "seed", score: &score })).unwrap();
        assert!(report.table().contains("| 0.500 ± 0.500 |"), "{}", report.table());
        assert!(report.markdown().contains("Of each run: seed."));
        assert_eq!(report.json()["rows"][0]["curve"][0]["iqm"], 150.0);
    }

    #[test]
    fn times_are_short() {
        for (seconds, wanted) in [(1.25, "1.2 s"), (59.6, "60 s"), (150.0, "2.5 min"), (7200.0, "2.0 h")] {
            assert_eq!(time(seconds), wanted);
        }
    }
}
