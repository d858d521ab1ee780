//! What came out of a study: tables beside the paper's, every number behind them, learning curves.

use super::{Imitated, Method, Study, Task};
use crate::plot::{self, Curve, Labels, Panel};
use crate::runs::{Score, scaled};
use crate::sweep::report::learning_curve;
use anyhow::Result;
use imago::run::write_whole;
use imago_agents::mean_std;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Returns of the episodes by which a policy is judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// Seed of its run.
    pub seed: u64,
    /// Steps of the checkpoint.
    pub step: u64,
    /// One for each episode.
    pub returns: Vec<f64>,
}

/// One cell of a table: the runs that differ in their seeds only.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The task's place in the study.
    pub task: usize,
    /// The method's.
    pub method: usize,
    /// Number of demonstrations; `None` where it does not matter.
    pub demonstrations: Option<usize>,
    /// Its finished runs.
    pub runs: Vec<Judged>,
    /// Runs that failed or are not done yet.
    pub missing: usize,
    /// (step, return) of the evaluations during training, of each run.
    pub curves: Vec<Vec<(f64, f64)>>,
}

/// What a task is measured by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ends {
    /// Of a random policy.
    pub random: Score,
    /// Of the expert with sampled actions.
    pub expert_sampled: Score,
    /// Of the expert with its most probable actions.
    pub expert_deterministic: Score,
}

impl Ends {
    /// The expert as its demonstrations show it: what imitators are scaled by.
    pub fn expert(&self, study: &Study) -> &Score {
        if study.experts_sample { &self.expert_sampled } else { &self.expert_deterministic }
    }
}

/// Everything that a study has come to.
pub struct Report<'a> {
    /// Which one.
    pub study: &'a Study,
    /// For each task of the study; `None` if it was not chosen.
    pub ends: Vec<Option<Ends>>,
    /// All cells.
    pub cells: Vec<Cell>,
    /// Whether everything was trained for a moment only.
    pub smoke: bool,
}

impl Cell {
    /// Mean and standard deviation over all episodes of all runs, as in the paper.
    fn over_episodes(&self) -> (f64, f64) {
        mean_std(&self.runs.iter().flat_map(|run| run.returns.iter().copied()).collect::<Vec<_>>())
    }

    /// Mean return of each run.
    fn means(&self) -> Vec<f64> {
        self.runs.iter().map(|run| mean_std(&run.returns).0).collect()
    }

    /// Standard error of the mean over runs; `None` of a single one.
    fn standard_error(&self) -> Option<f64> {
        let means = self.means();
        let count = means.len() as f64;
        // Of a sample: n − 1.
        (count > 1.0).then(|| mean_std(&means).1 * (count / (count - 1.0)).sqrt() / count.sqrt())
    }
}

impl Report<'_> {
    fn scaled(&self, task: usize, value: f64) -> Option<f64> {
        let ends = self.ends[task].as_ref()?;
        scaled(value, ends.random.return_mean, ends.expert(self.study).return_mean)
    }

    fn cell(&self, task: usize, method: usize, demonstrations: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            (cell.task, cell.method) == (task, method)
                && cell.demonstrations.is_none_or(|number| number == demonstrations)
                && !cell.runs.is_empty()
        })
    }

    /// The tasks of which there is something.
    fn tasks(&self) -> impl Iterator<Item = (usize, &Task, &Ends)> {
        let all = self.study.tasks.iter().enumerate();
        all.filter_map(|(i, task)| Some((i, task, self.ends[i].as_ref()?)))
    }

    /// The columns of which there is something.
    fn methods(&self) -> Vec<(usize, &Method)> {
        let there =
            |method: usize| self.cells.iter().any(|cell| cell.method == method && !cell.runs.is_empty());
        self.study.methods.iter().enumerate().filter(|(i, _)| there(*i)).collect()
    }

    /// Headline, tables, and what the numbers are.
    pub fn markdown(&self) -> String {
        let study = self.study;
        let mut text = format!("# {}\n\n", study.title);
        if self.smoke {
            text +=
                "**A smoke run: everything was trained for a moment only; the numbers mean nothing.**\n\n";
        }
        text += &format!("Made by `imago reproduce {}`. {}\n\n", study.name, study.about);
        text += &self.experts();
        text += &self.table();
        text += &format!(
            "\nReturn, mean ± standard deviation over all of the {} episodes of each seed (most probable actions, fresh \
             starts), as in the paper; in brackets the scaled score, 0 for a random policy and 1 for the expert with \
             {} actions, which its demonstrations show.{} Cells without all of their seeds say how many.\n",
            study.episodes,
            if study.experts_sample { "sampled" } else { "its most probable" },
            if study.tasks.iter().any(|task| task.published.is_some()) {
                " The paper's scores are scaled by the paper's own ends."
            } else {
                ""
            }
        );
        text += &self.verdicts();
        if self.cells.iter().any(|cell| !cell.curves.is_empty()) {
            text += &format!("\n![Learning curves]({}.svg)\n", study.name);
        }
        text
    }

    fn experts(&self) -> String {
        let mut text = String::from(
            "| task | random | expert, sampled actions | expert, most probable actions | asked | paper's random | paper's expert |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (_, task, ends) in self.tasks() {
            let score = |score: &Score| format!("{:.1} ± {:.1}", score.return_mean, score.return_std);
            let (random, expert) = task.published.as_ref().map_or(("–".into(), "–".into()), |published| {
                (format!("{:.1}", published.random), format!("{:.1}", published.expert))
            });
            let reached =
                if ends.expert(self.study).return_mean >= task.expert_needs { "" } else { " (not reached)" };
            text += &format!(
                "| {} | {} | {} (`{}`) | {} | {:.0}{reached} | {random} | {expert} |\n",
                task.name,
                score(&ends.random),
                score(&ends.expert_sampled),
                task.expert,
                score(&ends.expert_deterministic),
                task.expert_needs,
            );
        }
        text + "\n"
    }

    /// A row for each task and number of demonstrations.
    pub fn table(&self) -> String {
        let methods = self.methods();
        let published = self.tasks().any(|(_, task, _)| task.published.is_some());
        let mut header = vec!["task".to_string(), "demonstrations".into()];
        header.extend(methods.iter().map(|(_, method)| method.name.to_string()));
        if published {
            header.extend(["paper: BC".to_string(), "paper: GAIL".into()]);
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&header) + &format!("|{}\n", " --- |".repeat(header.len()));
        for (t, task, _) in self.tasks() {
            for &demonstrations in task.demonstrations {
                let found: Vec<Option<&Cell>> =
                    methods.iter().map(|&(m, _)| self.cell(t, m, demonstrations)).collect();
                let own = |cell: &&Cell| cell.demonstrations.is_some();
                if !found.iter().flatten().any(own) {
                    continue;
                }
                let mut cells = vec![task.name.to_string(), demonstrations.to_string()];
                cells.extend(found.iter().map(|cell| cell.map_or("–".into(), |cell| self.words(cell))));
                if published {
                    let row = task.published.as_ref().and_then(|published| {
                        let row = published.rows.iter().find(|row| row.0 == demonstrations)?;
                        Some((published, row))
                    });
                    let score = |(mean, std): (f64, f64), published: &super::Published| {
                        let share = scaled(mean, published.random, published.expert).unwrap_or(f64::NAN);
                        format!("{mean:.1} ± {std:.1} ({share:.2})")
                    };
                    match row {
                        Some((published, &(_, cloning, gail))) => {
                            cells.extend([score(cloning, published), score(gail, published)]);
                        }
                        None => cells.extend(["–".to_string(), "–".into()]),
                    }
                }
                text += &line(&cells);
            }
        }
        text
    }

    fn words(&self, cell: &Cell) -> String {
        let (mean, std) = cell.over_episodes();
        let score = self.scaled(cell.task, mean).map_or(String::new(), |score| format!(" ({score:.2})"));
        let few = match cell.missing {
            0 => String::new(),
            missing => format!(", {} of {} seeds", cell.runs.len(), cell.runs.len() + missing),
        };
        format!("{mean:.1} ± {std:.1}{score}{few}")
    }

    /// GAIL's cells held against the paper's.
    fn verdicts(&self) -> String {
        let mut text = String::new();
        let cells = self.cells.iter().filter(|cell| self.study.methods[cell.method].key == "gail");
        for cell in cells.filter(|cell| !cell.runs.is_empty()) {
            let task = &self.study.tasks[cell.task];
            let (Some(published), Some(error), Some(ends)) =
                (&task.published, cell.standard_error(), &self.ends[cell.task])
            else {
                continue;
            };
            let Some(&(number, _, (mean, _))) =
                published.rows.iter().find(|row| Some(row.0) == cell.demonstrations)
            else {
                continue;
            };
            let range = (ends.expert(self.study).return_mean - ends.random.return_mean).abs();
            let Some((paper, ours)) = scaled(mean, published.random, published.expert)
                .zip(self.scaled(cell.task, cell.over_episodes().0))
            else {
                continue;
            };
            let error = error / range;
            let how = match (ours - paper) / error.max(1e-12) {
                _ if ours >= paper => "not below the paper's".to_string(),
                errors if errors >= -2.0 => format!("below the paper's by {:.1} standard errors", -errors),
                errors => format!("**below the paper's by {:.1} standard errors**", -errors),
            };
            let lowest = cell
                .means()
                .iter()
                .filter_map(|&mean| self.scaled(cell.task, mean))
                .fold(f64::INFINITY, f64::min);
            text += &format!(
                "| {} | {number} | {ours:.3} ± {error:.3} | {lowest:.3} | {paper:.3} | {how} |\n",
                task.name
            );
        }
        match text.is_empty() {
            true => text,
            false => format!(
                "\n## GAIL beside the paper\n\nScaled score: mean over seeds ± its standard error, and the lowest seed's.\n\n\
                 | task | demonstrations | ours | lowest seed | paper | |\n| --- | --- | --- | --- | --- | --- |\n{text}"
            ),
        }
    }

    /// Every number behind it.
    pub fn json(&self) -> Value {
        let tasks = self.tasks().map(|(_, task, ends)| {
            json!({ "task": task.name, "env": task.env, "expert_recipe": task.expert, "expert_needs": task.expert_needs,
                    "random": ends.random, "expert_sampled": ends.expert_sampled, "expert_deterministic": ends.expert_deterministic })
        });
        let cells = self.cells.iter().map(|cell| {
            let (mean, std) = cell.over_episodes();
            let means = cell.means();
            let scores: Vec<Option<f64>> = means.iter().map(|&mean| self.scaled(cell.task, mean)).collect();
            json!({
                "task": self.study.tasks[cell.task].name,
                "method": self.study.methods[cell.method].key,
                "demonstrations": cell.demonstrations,
                "return_mean": mean,
                "return_std": std,
                "scaled_score": self.scaled(cell.task, mean),
                "standard_error": cell.standard_error(),
                "seeds": cell.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
                "steps": cell.runs.iter().map(|run| run.step).collect::<Vec<_>>(),
                "return_means": means,
                "return_stds": cell.runs.iter().map(|run| mean_std(&run.returns).1).collect::<Vec<_>>(),
                "scaled_scores": scores,
                "missing": cell.missing,
            })
        });
        json!({
            "format": 1,
            "study": self.study.name,
            "title": self.study.title,
            "episodes": self.study.episodes,
            "smoke": self.smoke,
            "tasks": tasks.collect::<Vec<_>>(),
            "cells": cells.collect::<Vec<_>>(),
        })
    }

    /// Learning curves, a panel for each task: of methods that learn in the environment, with as many demonstrations as
    /// there are, and GAIL's with every number.
    fn panels(&self) -> Vec<(String, Vec<Curve>)> {
        let panel = |(t, task, ends): (usize, &Task, &Ends)| {
            let curve = |cell: &Cell, name: String| {
                let points = learning_curve(&cell.curves);
                let band = points.iter().filter_map(|p| p.interval.map(|(low, high)| (p.step, low, high)));
                Curve {
                    name,
                    points: points.iter().map(|p| (p.step, p.iqm)).collect(),
                    band: band.collect(),
                    level: false,
                }
            };
            let mut curves = Vec::new();
            for (m, method) in self.methods().into_iter().filter(|(_, method)| method.section != "learner") {
                for &number in task.demonstrations {
                    let name = match method.imitated {
                        Imitated::Nobody => method.name.to_string(),
                        _ => format!("{}, {number}", method.name),
                    };
                    let last = task.demonstrations.last() == Some(&number);
                    let shown = last || method.imitated == Imitated::Expert;
                    if let Some(cell) = self.cell(t, m, number).filter(|_| shown) {
                        curves.push(curve(cell, name));
                    }
                }
            }
            let level = |name: &str, value: f64| Curve {
                name: name.into(),
                points: vec![(0.0, value)],
                level: true,
                ..Curve::default()
            };
            curves.push(level("expert", ends.expert(self.study).return_mean));
            curves.push(level("random", ends.random.return_mean));
            (task.name.to_string(), curves)
        };
        self.tasks().map(panel).collect()
    }

    /// Writes `NAME.md`, `NAME.json` and `NAME.svg` into `folder`, over earlier ones.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = |suffix: &str| folder.join(format!("{}.{suffix}", self.study.name));
        write_whole(&file("md"), self.markdown().as_bytes())?;
        write_whole(&file("json"), format!("{:#}\n", self.json()).as_bytes())?;
        let drawn = self.panels();
        let panels: Vec<Panel> = drawn
            .iter()
            .map(|(title, curves)| Panel {
                labels: Labels { title, x: "environment steps", y: "return, IQM over seeds" },
                curves,
            })
            .collect();
        plot::draw_panels(&file("svg"), &panels)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::study::gail::CLASSIC;

    fn score(mean: f64) -> Score {
        Score { episodes: 1, return_mean: mean, return_std: 0.0, length_mean: 1.0 }
    }

    /// CartPole with 4 demonstrations: three seeds of two episodes by GAIL, one by a constant reward.
    fn report(smoke: bool) -> Report<'static> {
        let key = |key: &str| CLASSIC.methods.iter().position(|method| method.key == key).unwrap();
        let judged = |seed: u64, returns: [f64; 2]| Judged { seed, step: 10, returns: returns.into() };
        let cell = |method, demonstrations, runs: Vec<Judged>| Cell {
            task: 0,
            method: key(method),
            demonstrations,
            missing: 3 - runs.len(),
            curves: runs.iter().map(|_| vec![(0.0, 20.0), (10.0, 120.0)]).collect(),
            runs,
        };
        Report {
            study: &CLASSIC,
            ends: vec![
                Some(Ends {
                    random: score(20.0),
                    expert_sampled: score(120.0),
                    expert_deterministic: score(121.0),
                }),
                None,
                None,
            ],
            cells: vec![
                cell(
                    "gail",
                    Some(4),
                    vec![judged(0, [90.0, 110.0]), judged(1, [80.0, 100.0]), judged(2, [110.0, 110.0])],
                ),
                cell("constant", None, vec![judged(0, [45.0, 45.0])]),
            ],
            smoke,
        }
    }

    #[test]
    fn cells_are_means_over_all_episodes_and_say_how_many_seeds() {
        let text = report(false).markdown();
        // Mean of 90, 110, 80, 100, 110, 110 is 100, their variance 800/6; (100 − 20)/100. 45 is a quarter of the way.
        let row = "| CartPole | 4 | 100.0 ± 11.5 (0.80) | 45.0 ± 0.0 (0.25), 1 of 3 seeds | 169.2 ± 59.8 (0.83) | 200.0 ± 0.0 (1.00) |";
        assert!(text.contains(row), "{text}");
        // The expert was asked for 200.
        assert!(text.contains("| 200 (not reached) |"), "{text}");
        assert!(!text.contains("Acrobot |") && !text.contains("smoke"), "{text}");
        assert!(report(true).markdown().contains("smoke run"));
    }

    #[test]
    fn gail_is_held_against_the_paper_in_standard_errors() {
        // Seeds' means 100, 90, 110: deviation 10, standard error 10/√3 of a range of 100; the paper has 1.
        let text = report(false).markdown();
        let wanted =
            "| CartPole | 4 | 0.800 ± 0.058 | 0.700 | 1.000 | **below the paper's by 3.5 standard errors** |";
        assert!(text.contains(wanted), "{text}");
        let mut better = report(false);
        better.cells[0].runs.iter_mut().for_each(|run| run.returns = vec![125.0, 125.0]);
        assert!(better.markdown().contains("| not below the paper's |"));
    }

    #[test]
    fn files_hold_every_number() {
        let folder = tempfile::tempdir().unwrap();
        report(false).write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("gail-classic.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["cells"][0]["return_means"], json!([100.0, 90.0, 110.0]));
        assert_eq!(json["cells"][1]["missing"], 2);
        let svg = std::fs::read_to_string(folder.path().join("gail-classic.svg")).unwrap();
        for words in ["CartPole", "GAIL, 4", "constant reward", "expert", "random"] {
            assert!(svg.contains(words), "{words} is missing");
        }
    }
}
