//! Published tables, and what it takes to make them again: experts on the true reward, what they do, and everything
//! that imitates them. What a study is, is data; `imago reproduce` follows it.
//!
//! In a study's folder, `runs/TASK/expert/` is the expert's run, `runs/TASK/expert.demos` and `runs/TASK/random.demos`
//! are what it and a random policy do, `runs/TASK/METHOD-DEMONSTRATIONS/seed-S/` is an imitator.

pub mod gail;
pub mod report;

use crate::sweep::Run;
use std::path::{Path, PathBuf};

/// A table that can be made again.
#[derive(Debug)]
pub struct Study {
    /// What it is called on the command line, and the name of its files.
    pub name: &'static str,
    /// Its headline.
    pub title: &'static str,
    /// What is measured, and in what it differs from the original: Markdown, above the tables.
    pub about: &'static str,
    /// Its environments.
    pub tasks: &'static [Task],
    /// Its columns.
    pub methods: &'static [Method],
    /// Whether experts show sampled actions, and not their most probable ones.
    pub experts_sample: bool,
    /// Seeds of each cell.
    pub seeds: u64,
    /// Episodes by which each run is judged, with the most probable actions.
    pub episodes: usize,
}

/// One environment of a study.
#[derive(Debug)]
pub struct Task {
    /// What it is called in tables and on the command line.
    pub name: &'static str,
    /// Its id.
    pub env: &'static str,
    /// Recipe of its expert, which learns from the true reward …
    pub expert: &'static str,
    /// … with these changes.
    pub expert_sets: &'static [&'static str],
    /// Return that the expert has to reach.
    pub expert_needs: f64,
    /// Numbers of demonstrations, one row each.
    pub demonstrations: &'static [usize],
    /// Of each demonstration every so many-th pair is imitated.
    pub stride: usize,
    /// GAIL's form of reward here.
    pub reward: &'static str,
    /// What was published.
    pub published: Option<Published>,
}

/// Returns from a paper: mean and standard deviation.
#[derive(Debug)]
pub struct Published {
    /// Of a random policy.
    pub random: f64,
    /// Of the expert.
    pub expert: f64,
    /// One for each number of demonstrations.
    pub rows: &'static [PublishedRow],
}

/// A number of demonstrations; of behaviour cloning and of GAIL, mean and standard deviation.
pub type PublishedRow = (usize, (f64, f64), (f64, f64));

/// Who is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imitated {
    /// The expert.
    Expert,
    /// A random policy: what is learnt from it is not learnt by imitation.
    Random,
    /// Nobody. The number of demonstrations does not matter.
    Nobody,
}

/// One column of a study.
#[derive(Debug)]
pub struct Method {
    /// What it is called on the command line and in file names.
    pub key: &'static str,
    /// What it is called in tables.
    pub name: &'static str,
    /// Its recipe …
    pub recipe: &'static str,
    /// … with these changes.
    pub sets: &'static [&'static str],
    /// Where the recipe's demonstrations stand: `learner` or `signal.gail`.
    pub section: &'static str,
    /// Who is imitated.
    pub imitated: Imitated,
    /// Every pair of the demonstrations, not every `stride`-th.
    pub every_pair: bool,
    /// Which checkpoint is judged.
    pub checkpoint: &'static str,
}

/// What is trained of a study: all of it, or what the command line says.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Names of tasks.
    pub tasks: Vec<String>,
    /// Keys of methods.
    pub methods: Vec<String>,
    /// Numbers of demonstrations; `None`: each task's own.
    pub demonstrations: Option<Vec<usize>>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Train everything for a moment only.
    pub smoke: bool,
}

impl Task {
    /// The part of its name that goes into paths.
    pub fn folder(&self) -> String {
        self.name.to_lowercase()
    }

    /// Its expert's run.
    pub fn expert_run(&self, smoke: bool) -> Run {
        let mut sets: Vec<String> = self.expert_sets.iter().map(ToString::to_string).collect();
        if smoke {
            sets.push("run.total_steps=4096".into());
        }
        Run {
            row: format!("{} expert", self.name),
            name: format!("runs/{}/expert", self.folder()),
            recipe: self.expert.into(),
            sets,
            demos: None,
            seed: None,
        }
    }

    /// Where in `folder` the demonstrations lie of who is imitated. Whoever imitates nobody gets the expert's, which it
    /// does not look at.
    pub fn demos(&self, folder: &Path, imitated: Imitated) -> PathBuf {
        let name = if imitated == Imitated::Random { "random" } else { "expert" };
        folder.join(format!("runs/{}/{name}.demos", self.folder()))
    }

    /// How many episodes of its expert are recorded.
    pub fn recorded(&self) -> usize {
        self.demonstrations.iter().copied().max().unwrap_or(1)
    }
}

impl Method {
    /// The row and the run of one cell and seed; demonstrations are looked for in `folder`.
    pub fn run(&self, task: &Task, demonstrations: usize, seed: u64, folder: &Path, smoke: bool) -> Run {
        let stride = if self.every_pair { 1 } else { task.stride };
        let mut sets = vec![
            format!("env.id={:?}", task.env),
            format!("{}.demos_episodes={demonstrations}", self.section),
            format!("{}.demos_stride={stride}", self.section),
        ];
        if self.section == "signal.gail" {
            sets.push(format!("signal.gail.reward={:?}", task.reward));
        }
        sets.extend(self.sets.iter().map(ToString::to_string));
        if smoke {
            let steps = if self.section == "learner" { 100 } else { 4_096 };
            sets.push(format!("run.total_steps={steps}"));
        }
        let cell = self.cell(task, demonstrations);
        Run {
            name: format!("runs/{cell}/seed-{seed}"),
            row: cell,
            recipe: self.recipe.into(),
            sets,
            demos: Some(task.demos(folder, self.imitated)),
            seed: Some(seed),
        }
    }

    /// The name of the cell that a number of demonstrations belongs to.
    pub fn cell(&self, task: &Task, demonstrations: usize) -> String {
        match self.imitated {
            Imitated::Nobody => format!("{}/{}", task.folder(), self.key),
            _ => format!("{}/{}-{demonstrations}", task.folder(), self.key),
        }
    }
}

impl Study {
    /// All runs of `choice` that imitate, seed by seed: what is there early is a picture of all.
    pub fn imitators(&self, choice: &Choice, folder: &Path) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for &seed in &choice.seeds {
            for task in self.chosen_tasks(choice) {
                for method in
                    self.methods.iter().filter(|method| choice.methods.iter().any(|m| m == method.key))
                {
                    for &demonstrations in task.demonstrations {
                        let wanted =
                            choice.demonstrations.as_ref().is_none_or(|some| some.contains(&demonstrations));
                        let run = method.run(task, demonstrations, seed, folder, choice.smoke);
                        // Who imitates nobody has one cell for all numbers.
                        if wanted && runs.iter().all(|other| other.name != run.name) {
                            runs.push(run);
                        }
                    }
                }
            }
        }
        runs
    }

    /// The tasks that are chosen.
    pub fn chosen_tasks<'a>(&'a self, choice: &'a Choice) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().filter(|task| choice.tasks.iter().any(|name| name == task.name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_study_is_whole() {
        for study in gail::STUDIES {
            for task in study.tasks {
                crate::catalogue::recipe(task.expert).unwrap();
                // `imago reproduce` itself never starts Python.
                assert!(!task.env.contains(':'), "{}", task.env);
                for published in task.published.iter() {
                    for (demonstrations, ..) in published.rows {
                        assert!(
                            task.demonstrations.contains(demonstrations),
                            "{} {demonstrations}",
                            task.name
                        );
                    }
                }
            }
            for method in study.methods {
                let text = crate::catalogue::recipe(method.recipe).unwrap();
                assert!(text.contains(&format!("[{}]", method.section)), "{} {}", method.key, method.section);
            }
        }
    }

    #[test]
    fn who_imitates_nobody_has_one_cell_for_all_numbers() {
        let study = &gail::CLASSIC;
        let choice = Choice {
            tasks: study.tasks.iter().map(|task| task.name.to_string()).collect(),
            methods: study.methods.iter().map(|method| method.key.to_string()).collect(),
            demonstrations: None,
            seeds: (0..study.seeds).collect(),
            smoke: false,
        };
        let runs = study.imitators(&choice, Path::new("x"));
        let of = |part: &str| runs.iter().filter(|run| run.name.contains(part)).count();
        // Three tasks, seven seeds; four numbers of demonstrations where somebody is imitated.
        assert_eq!((of("/constant/"), of("/gail-4/"), of("/mismatched-")), (21, 21, 84));
        assert_eq!(runs.len(), 21 * (4 * 4 + 1));
        let some = Choice { demonstrations: Some(vec![10]), tasks: vec!["Acrobot".into()], ..choice };
        assert_eq!(study.imitators(&some, Path::new("x")).len(), 7 * 5);
    }
}
