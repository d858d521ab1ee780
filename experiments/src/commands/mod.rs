//! One file for each command.

pub mod data;
pub mod demo;
pub mod demos;
pub mod envs;
pub mod eval;
pub mod export;
pub mod generate;
pub mod models;
pub mod new;
pub mod recipes;
pub mod record;
pub mod reproduce;
pub mod sweep;
pub mod train;
pub mod watch;
pub mod worker;

use anyhow::{Result, ensure};
use std::path::Path;

/// Refuses to overwrite `path`.
fn check_output(path: &Path, force: bool) -> Result<()> {
    ensure!(force || !path.exists(), "{} exists; give --force to overwrite it", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    ensure!(parent.is_none_or(Path::is_dir), "{}: its directory does not exist", path.display());
    Ok(())
}
