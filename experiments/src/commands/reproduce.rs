//! `imago reproduce`: a published table, from its experts to its last cell.

use crate::assemble;
use crate::plot::metric;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::runs::{self, Score};
use crate::study::gail::STUDIES;
use crate::study::report::{Cell, Ends, Judged, Report};
use crate::study::{Choice, Imitated, Method, Study, Task};
use crate::sweep::report::Metric;
use crate::sweep::{Paced, Planned, State, Sweep, Tally, grid, plan};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use imago::rollout::{Actor, Episode};
use imago::run::{Stop, write_whole};
use imago_agents::Demonstrations;
use imago_envs::EnvSpec;
use std::path::{Path, PathBuf};

/// Episodes by which random policies and experts are measured.
const END_EPISODES: usize = 200;

/// Make a published table again: experts, demonstrations, imitators, scores beside the paper's.
#[derive(Args)]
#[command(after_help = "\
Examples:
  What there is:
    imago reproduce
  Table 3 of the GAIL paper on classic control, an hour on 2 cores:
    imago reproduce gail-classic --to out
  A part of it, more seeds of a part, and only what would be trained:
    imago reproduce gail-mujoco --task Hopper --demos 4 --method dac --seeds 0..5 --to out
    imago reproduce gail-classic --to out --dry-run

The folder gets STUDY.md, STUDY.json and STUDY.svg, which grow with every run that ends, and all runs (in runs/: \
ordinary ones for every other command). Stop it with Ctrl-C or kill it: the same command goes on.")]
pub struct Arguments {
    /// Which table. Without it: what there is.
    study: Option<String>,
    /// Its folder. Default: runs/STUDY.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Only this environment (repeatable).
    #[arg(long = "task", value_name = "NAME")]
    tasks: Vec<String>,
    /// Only this method (repeatable).
    #[arg(long = "method", value_name = "KEY")]
    methods: Vec<String>,
    /// Only these numbers of demonstrations.
    #[arg(long, value_name = "1,4,…", value_delimiter = ',')]
    demos: Vec<usize>,
    /// Seeds of each cell: 0..7 are 0 to 6, or a list. Default: as many as the study says.
    #[arg(long, value_name = "0..7|1,3,7")]
    seeds: Option<String>,
    /// Runs at a time. Default: as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Check everything, list what would be trained, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Train everything for a moment only: shows that it works, not what is learnt.
    #[arg(long)]
    smoke: bool,
}

impl Arguments {
    fn study(&self) -> Result<Option<&'static Study>> {
        let Some(name) = &self.study else { return Ok(None) };
        let names: Vec<&str> = STUDIES.iter().map(|study| study.name).collect();
        match STUDIES.iter().find(|study| study.name == name) {
            Some(study) => Ok(Some(study)),
            None => bail!("no study `{name}` (there are: {})", names.join(", ")),
        }
    }

    fn choice(&self, study: &Study) -> Result<Choice> {
        ensure!(self.jobs != Some(0), "--jobs must be at least 1");
        let chosen = |flag: &str, wanted: &[String], there: Vec<&str>| -> Result<Vec<String>> {
            if wanted.is_empty() {
                return Ok(there.into_iter().map(String::from).collect());
            }
            let find = |name: &String| there.iter().find(|known| known.eq_ignore_ascii_case(name));
            let found = wanted.iter().map(|name| {
                let known = find(name).map(ToString::to_string);
                known.with_context(|| format!("{flag} {name}: {} has {}", study.name, there.join(", ")))
            });
            found.collect()
        };
        let tasks = chosen("--task", &self.tasks, study.tasks.iter().map(|task| task.name).collect())?;
        let methods =
            chosen("--method", &self.methods, study.methods.iter().map(|method| method.key).collect())?;
        let known = |number: &usize| study.tasks.iter().any(|task| task.demonstrations.contains(number));
        if let Some(number) = self.demos.iter().find(|number| !known(number)) {
            let all: Vec<String> = study.tasks[0].demonstrations.iter().map(ToString::to_string).collect();
            bail!("--demos {number}: {} has {}", study.name, all.join(", "));
        }
        let seeds = match &self.seeds {
            Some(text) => grid::seeds(text)?,
            None if self.smoke => vec![0],
            None => (0..study.seeds).collect(),
        };
        let demonstrations = (!self.demos.is_empty()).then(|| self.demos.clone());
        Ok(Choice { tasks, methods, demonstrations, seeds, smoke: self.smoke })
    }
}

/// One study in one folder.
struct Reproduction<'a> {
    program: &'a Program,
    study: &'a Study,
    choice: Choice,
    folder: PathBuf,
}

/// The check of a command line, as far as it goes without training.
pub fn check(arguments: &Arguments) -> Result<()> {
    match arguments.study()? {
        Some(study) => arguments.choice(study).map(drop),
        None => Ok(()),
    }
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    tch::set_num_threads(1);
    let Some(study) = arguments.study()? else {
        list_studies();
        return Ok(Done::Finished);
    };
    let choice = arguments.choice(study)?;
    let folder = arguments.to.clone().unwrap_or_else(|| Path::new(runs::RUNS).join(study.name));
    if folder.exists() && !folder.is_dir() {
        return Err(anyhow!("{} is a file; choose a folder with --to DIR", folder.display()).into());
    }
    let reproduction = Reproduction { program, study, choice, folder };
    let experts = reproduction.experts()?;
    if arguments.dry_run {
        reproduction.list(&experts);
        return Ok(Done::Finished);
    }
    let stop = Stop::on_signals()?;
    let mut sweep = Sweep::begin(&reproduction.folder, stop.clone())?;
    (sweep.jobs, sweep.threads, sweep.quiet) = (arguments.jobs, shared.threads, shared.quiet);
    let say = |text: &str| {
        if !shared.quiet {
            eprintln!("{text}");
        }
    };
    reproduction.follow(experts, &sweep, &stop, &say, shared).map_err(failed)
}

fn list_studies() {
    for study in STUDIES {
        println!("{:14} {}", study.name, study.title);
    }
    println!("\nimago reproduce STUDY --to DIR trains it and writes tables and curves into DIR");
}

impl Reproduction<'_> {
    fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.study.chosen_tasks(&self.choice)
    }

    fn experts(&self) -> Result<Vec<Planned>> {
        let runs: Vec<_> = self.tasks().map(|task| task.expert_run(self.choice.smoke)).collect();
        plan(self.program, &self.folder, &runs)
    }

    fn list(&self, experts: &[Planned]) {
        let imitators = self.study.imitators(&self.choice, &self.folder);
        let path = |name: &str| self.folder.join(name);
        for run in experts {
            println!("{}", run.path.display());
        }
        for run in &imitators {
            println!("{}", path(&run.name).display());
        }
        println!(
            "{} experts and {} imitators, some of which may be finished",
            experts.len(),
            imitators.len()
        );
    }

    fn follow(
        &self,
        mut experts: Vec<Planned>,
        sweep: &Sweep,
        stop: &Stop,
        say: &dyn Fn(&str),
        shared: &Shared,
    ) -> Result<Done> {
        say(&format!("{}: experts learn from the true reward → {}", self.study.name, self.folder.display()));
        sweep.train(&mut experts, |_| {})?;
        if stop.requested() {
            return Ok(self.stopped(say));
        }
        if let Some(run) = experts.iter().find(|run| !matches!(run.state, State::Finished(_))) {
            let how = if let State::Failed(how) = &run.state { how.as_str() } else { "" };
            bail!("{}: the expert did not learn: {how}", run.path.display());
        }
        let mut ends: Vec<Option<Ends>> = Vec::new();
        for task in self.study.tasks {
            let chosen = self.choice.tasks.iter().any(|name| name == task.name);
            ends.push(chosen.then(|| self.measure_ends(task)).transpose()?);
            if let Some(Some(ends)) = ends.last() {
                let expert = ends.expert(self.study);
                let reached =
                    if expert.return_mean >= task.expert_needs { "" } else { ", less than asked for" };
                say(&format!(
                    "{}: expert {:.1} ± {:.1}{reached}, random {:.1} ± {:.1}",
                    task.name,
                    expert.return_mean,
                    expert.return_std,
                    ends.random.return_mean,
                    ends.random.return_std
                ));
            }
        }
        let mut imitators =
            plan(self.program, &self.folder, &self.study.imitators(&self.choice, &self.folder))?;
        say(&format!("{} imitators learn", imitators.len()));
        let mut paced = Paced::default();
        let each = |runs: &[Planned]| {
            paced.report(|| self.report(runs, &ends)?.write(&self.folder));
        };
        sweep.train(&mut imitators, each)?;
        let report = self.report(&imitators, &ends)?;
        report.write(&self.folder)?;
        if shared.json {
            println!("{}", report.json());
        } else {
            println!("\n{}", report.table());
            println!("report  {}", self.folder.join(format!("{}.md", self.study.name)).display());
        }
        let Tally { failed: bad, left, .. } = Tally::of(&imitators);
        if stop.requested() && left > 0 {
            return Ok(self.stopped(say));
        }
        ensure!(
            bad == 0,
            "{bad} of {} runs failed; what they said last lies beside each of them, NAME.log; the same command tries \
             them again",
            imitators.len()
        );
        Ok(Done::Finished)
    }

    fn stopped(&self, say: &dyn Fn(&str)) -> Done {
        say(&format!(
            "stopped; the same command goes on: imago reproduce {} --to {}",
            self.study.name,
            self.folder.display()
        ));
        Done::Stopped
    }

    fn episodes(
        &self,
        env: &EnvSpec,
        actor: &Actor,
        count: usize,
        purpose: &str,
        record: bool,
    ) -> Result<Vec<Episode>> {
        runs::fresh_episodes(self.program, env, actor, count, 0, purpose, record)
    }

    /// Measures the expert and a random policy, and records what both do. Once: later calls find it.
    fn measure_ends(&self, task: &Task) -> Result<Ends> {
        let env = EnvSpec::parse(task.env)?;
        let expert = self.folder.join(format!("runs/{}/expert", task.folder()));
        let known = expert.join("ends.json");
        let demos = [Imitated::Expert, Imitated::Random].map(|who| task.demos(&self.folder, who));
        if let Ok(text) = std::fs::read_to_string(&known)
            && demos.iter().all(|path| path.is_file())
            && let Ok(ends) = serde_json::from_str(&text)
        {
            return Ok(ends);
        }
        let loaded = runs::load(self.program, &format!("{}@latest", expert.display()))?;
        let sampled = Actor::Policy { policy: &loaded.policy, deterministic: false };
        let probable = Actor::Policy { policy: &loaded.policy, deterministic: true };
        let spaces = assemble::evaluation_group(self.program, &env, 1)?;
        let shown = if self.study.experts_sample { &sampled } else { &probable };
        for (actor, path) in [shown, &Actor::Random].into_iter().zip(&demos) {
            let episodes = self.episodes(&env, actor, task.recorded(), "recording", true)?;
            let (observation, action) = (spaces.observation_space(), spaces.action_space());
            Demonstrations::from_episodes(env.clone(), observation, action, &episodes)?.save(path)?;
        }
        let score = |actor: &Actor| -> Result<Score> {
            Ok(Score::of(&self.episodes(&env, actor, END_EPISODES, "reporting", false)?))
        };
        let ends = Ends {
            random: score(&Actor::Random)?,
            expert_sampled: score(&sampled)?,
            expert_deterministic: score(&probable)?,
        };
        write_whole(&known, serde_json::to_string(&ends)?.as_bytes())?;
        Ok(ends)
    }

    /// The returns of a finished run. Measured once: later calls find them.
    fn judge(&self, run: &Planned, task: &Task, method: &Method) -> Result<Judged> {
        let known = run.path.join("judged.json");
        if let Ok(text) = std::fs::read_to_string(&known)
            && let Ok(judged) = serde_json::from_str::<Judged>(&text)
            && judged.returns.len() == self.study.episodes
        {
            return Ok(judged);
        }
        let loaded = runs::load(self.program, &format!("{}@{}", run.path.display(), method.checkpoint))?;
        let actor = Actor::Policy { policy: &loaded.policy, deterministic: true };
        let seed = run.recipe.run.seed;
        let env = EnvSpec::parse(task.env)?;
        let episodes =
            runs::fresh_episodes(self.program, &env, &actor, self.study.episodes, seed, "reporting", false)?;
        let returns = episodes.iter().map(|episode| episode.episode_return).collect();
        let judged = Judged { seed, step: loaded.step, returns };
        write_whole(&known, serde_json::to_string(&judged)?.as_bytes())?;
        Ok(judged)
    }

    /// What there is so far.
    fn report(&self, runs: &[Planned], ends: &[Option<Ends>]) -> Result<Report<'_>> {
        let mut cells = Vec::new();
        for (t, task) in self.study.tasks.iter().enumerate() {
            for (m, method) in self.study.methods.iter().enumerate() {
                for &number in task.demonstrations {
                    let name = method.cell(task, number);
                    let demonstrations = (method.imitated != Imitated::Nobody).then_some(number);
                    let known =
                        |cell: &Cell| (cell.task, cell.method, cell.demonstrations) == (t, m, demonstrations);
                    let mut own = runs.iter().filter(|run| run.row == name).peekable();
                    if own.peek().is_none() || cells.iter().any(known) {
                        continue;
                    }
                    let mut cell = Cell {
                        task: t,
                        method: m,
                        demonstrations,
                        runs: Vec::new(),
                        missing: 0,
                        curves: Vec::new(),
                    };
                    for run in own {
                        match run.state {
                            State::Finished(_) => {
                                cell.runs.push(self.judge(run, task, method)?);
                                cell.curves.push(metric(&run.path, Metric::Evaluation.tag())?);
                            }
                            _ => cell.missing += 1,
                        }
                    }
                    cells.push(cell);
                }
            }
        }
        Ok(Report { study: self.study, ends: ends.to_vec(), cells, smoke: self.choice.smoke })
    }
}
