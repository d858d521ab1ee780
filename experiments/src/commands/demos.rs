//! `imago demos`: look into demonstration files and take parts of them.

use super::check_output;
use crate::assemble;
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use crate::recipe::DemosConfig;
use anyhow::Result;
use clap::{Args, Subcommand};
use imago_agents::{DemoSelection, Demonstrations};
use std::path::PathBuf;

/// Demonstration files.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a file holds.
    Info {
        /// The file, or `builtin:NAME`.
        file: String,
    },
    /// Some episodes of a file, every k-th pair of each, by the GAIL paper's rule.
    Subsample {
        /// The file, or `builtin:NAME`.
        file: String,
        /// Leave out this many episodes first.
        #[arg(long, default_value_t = 0, value_name = "N")]
        skip: usize,
        /// Take this many; all if absent.
        #[arg(long, value_name = "N")]
        episodes: Option<usize>,
        /// Keep every k-th pair, from a random but fixed offset.
        #[arg(long, default_value_t = 1, value_name = "K")]
        stride: usize,
        /// Leave out what an episode shows before this step.
        #[arg(long, default_value_t = 0, value_name = "STEP")]
        from_step: i64,
        /// Where to put them.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

/// The demonstrations that the command is about.
pub fn chosen(arguments: &Arguments, shared: &Shared) -> Result<Demonstrations> {
    let load = |file: &String| {
        assemble::demonstrations(&mut DemosConfig { demos: file.clone(), ..DemosConfig::default() })
    };
    Ok(match &arguments.command {
        Command::Info { file } => load(file)?,
        Command::Subsample { file, skip, episodes, stride, from_step, to } => {
            check_output(to, shared.force)?;
            let selection =
                DemoSelection { skip: *skip, episodes: *episodes, stride: *stride, from_step: *from_step };
            load(file)?.select(&selection)?
        }
    })
}

/// Runs the command.
pub fn run(arguments: &Arguments, shared: &Shared) -> Outcome {
    let chosen = chosen(arguments, shared)?;
    if let Command::Subsample { to, .. } = &arguments.command {
        chosen.save(to).map_err(failed)?;
    }
    info(&chosen, shared)
}

fn info(demonstrations: &Demonstrations, shared: &Shared) -> Outcome {
    let (mean, std) = demonstrations.return_mean_std();
    if shared.json {
        let report = serde_json::json!({
            "format": 1,
            "env": demonstrations.env,
            "observation": demonstrations.observation_space.to_string(),
            "action": demonstrations.action_space.to_string(),
            "stride": demonstrations.stride,
            "pairs": demonstrations.pairs(),
            "return_mean": mean,
            "return_std": std,
            "episodes": demonstrations.episodes,
        });
        println!("{report}");
        return Ok(Done::Finished);
    }
    println!("environment   {}", demonstrations.env.id);
    println!("observations  {}", demonstrations.observation_space);
    println!("actions       {}", demonstrations.action_space);
    println!("episodes      {}", demonstrations.episodes.len());
    println!("pairs         {} (every {} steps)", demonstrations.pairs(), demonstrations.stride);
    println!("return        {mean:.1} ± {std:.1}");
    println!("\nepisode      return  length  pairs  end         seed");
    for (i, episode) in demonstrations.episodes.iter().enumerate() {
        let end = if episode.terminated { "terminated" } else { "truncated" };
        println!(
            "{i:>7}  {:>10.1}  {:>6}  {:>5}  {end:<10}  {}",
            episode.episode_return, episode.length, episode.pairs, episode.seed
        );
    }
    Ok(Done::Finished)
}
