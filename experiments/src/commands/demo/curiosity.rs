//! The demo's second chapter: where an agent gets to that finds no reward, with curiosity and without.
//!
//! Rooms-v0 from pixels, begun far from the only reward: in so few decisions nobody finds it. What counts is how many
//! squares of 64 × 64 map units an episode sees.

use super::{job_of_training, set};
use crate::plot::{Curve, Labels, draw, metric};
use crate::processes::Job;
use anyhow::{Result, ensure};
use imago_agents::mean_std;
use serde_json::{Value, json};
use std::path::Path;

/// Decisions of each of the two.
pub(super) const STEPS: u64 = 60_000;
/// Of a chapter that only shows that it works: an episode of each environment.
const SMOKE_STEPS: u64 = 8_192;
/// Names of the runs, their recipes, and what the tables call them.
const RUNS: [(&str, &str, &str); 2] = [
    ("rooms-alone", "ppo/rooms-sparse", "PPO"),
    ("rooms-curious", "icm/rooms-sparse", "PPO + curiosity (ICM)"),
];
const CELLS: &str = "env/cells";

/// The two runs.
pub(super) fn jobs(folder: &Path, smoke: bool) -> Vec<Job> {
    let steps = if smoke { SMOKE_STEPS } else { STEPS };
    let rest = [
        set("run.total_steps", &steps.to_string()),
        set("run.eval_every", "0"),
        // The reward is nobody's affair here.
        set("run.eval_episodes", "1"),
        vec!["--threads".into(), "1".into()],
    ];
    RUNS.map(|(name, recipe, _)| job_of_training(name, recipe, folder, 0, &rest.concat())).into()
}

/// Squares seen in an episode, by who has seen them.
pub(super) struct Explored(Vec<(String, f64)>);

impl Explored {
    /// What the two runs have logged: how they began, as good as at random, and the last quarter of each.
    pub fn of(folder: &Path) -> Result<Self> {
        let mut rows = Vec::new();
        for (name, _, title) in RUNS {
            let cells: Vec<f64> =
                metric(&folder.join(name), CELLS)?.into_iter().map(|(_, cells)| cells).collect();
            ensure!(!cells.is_empty(), "{}: no episode has ended", folder.join(name).display());
            let part = |cells: &[f64]| mean_std(cells).0;
            if rows.is_empty() {
                rows.push(("PPO, its first tenth".to_string(), part(&cells[..cells.len().div_ceil(10)])));
            }
            rows.push((
                format!("{title}, last quarter"),
                part(&cells[cells.len() - cells.len().div_ceil(4)..]),
            ));
        }
        Ok(Self(rows))
    }

    /// A row for each.
    pub fn table(&self) -> String {
        let head = "| Rooms-v0, no reward found | squares of 64 × 64 an episode sees |\n| --- | --- |\n";
        self.0
            .iter()
            .fold(head.to_string(), |text, (name, cells)| text + &format!("| {name} | {cells:.1} |\n"))
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        self.0.iter().map(|(name, cells)| json!({ "policy": name, "cells": cells })).collect()
    }
}

/// Draws what both have seen over time.
pub(super) fn picture(folder: &Path) -> Result<()> {
    let curve = |(name, _, title): (&str, &str, &str)| -> Result<Curve> {
        let points = metric(&folder.join(name), CELLS)?;
        Ok(Curve { name: title.into(), points, ..Curve::default() })
    };
    let labels =
        Labels { title: "Rooms without a reward in reach", x: "decisions", y: "squares an episode sees" };
    draw(&folder.join("rooms.svg"), &labels, &RUNS.map(curve).into_iter().collect::<Result<Vec<_>>>()?)
}
