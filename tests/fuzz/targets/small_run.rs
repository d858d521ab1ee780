//! The smallest run with everything that a checkpoint can hold.

use imago::run::{Directory, Result, Session, Stop, Timetable, Which, drive};
use imago_experiments::{Program, Recipe};
use std::path::Path;

const RECIPE: &str = r#"
[run]
total_steps = 1_000_000
learner_threads = 1
workers = 0
[env]
id = "CartPole-v1"
[rollout]
envs = 2
steps = 4
group_size = 1
[policy]
hidden = [2]
normalise = true
[learner]
epochs = 1
minibatch_size = 8
[signal.extrinsic]
reward_norm = "returns"
[signal.gail]
demos = "builtin:seals-cartpole"
demos_episodes = 1
demos_stride = 100
hidden = [2]
batch_size = 4
updates_per_round = 1
replay_rollouts = 2
spectral_norm = true
"#;

/// Steps of a rollout.
pub const STEP: u64 = 8;

/// Makes its directory, without a checkpoint.
pub fn directory(run: &Path) {
    std::fs::create_dir_all(run.join("checkpoints")).expect("a directory");
    std::fs::write(run.join("recipe.toml"), RECIPE).expect("a file");
}

/// Makes it, with checkpoints of steps 0 and [`STEP`].
#[allow(dead_code)]
pub fn begin(run: &Path) {
    directory(run);
    go_on(run, None, STEP).expect("a run");
}

/// As `imago train --resume --stop-at` does.
pub fn go_on(run: &Path, resume: Option<Which>, stop_at: u64) -> Result<()> {
    let mut recipe = Recipe::parse("recipe", RECIPE, &[], None, &[]).expect("a recipe");
    let mut trainee = Program::default().trainee(&mut recipe).expect("a trainee");
    let schedule = Timetable {
        total_steps: recipe.run.total_steps,
        stop_at: Some(stop_at),
        eval_every: 0,
        checkpoint_every: 0,
        log_every: 1,
        keep: 2,
    };
    let session = Session {
        directory: &Directory::open(run)?,
        schedule: &schedule,
        stop: &Stop::never(),
        resume,
        quiet: true,
        hyperparameters: &[],
    };
    drive(trainee.as_mut(), &session).map(drop)
}
