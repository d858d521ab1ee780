//! A short check of environments that were never trained in before, so that a broken one is known before hours are
//! spent in it.

use crate::program::Program;
use anyhow::{Context, Result, bail};
use imago_envs::EnvSpec;
use imago_envs::check::{Effort, Severity, check};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Which environments have passed, by name and arguments, and in which state they were then.
#[derive(Default, Serialize, Deserialize)]
struct Passed {
    format: u32,
    environments: BTreeMap<String, String>,
}

const FORMAT: u32 = 1;

/// Checks `env` for about two seconds, in instances of its own, unless it has passed in the state that it is in now,
/// or is one of ours. That it passed is remembered if `remember`.
///
/// # Errors
/// It breaks its contract.
pub fn first_look(program: &Program, env: &EnvSpec, quiet: bool, remember: bool) -> Result<()> {
    if program.envs.is_builtin(&env.id) {
        return Ok(());
    }
    let file = memory();
    let mut passed = file.as_deref().map(read).unwrap_or_default();
    let key = toml::to_string(env).with_context(|| format!("environment `{}`", env.id))?;
    let state = state(program, env)?;
    if passed.environments.get(&key) == Some(&state) {
        return Ok(());
    }
    if !quiet {
        eprintln!("{} was never trained in as it is now: checking it for 2 s", env.id);
    }
    let report = check(&program.envs, env, &Effort::brief())?;
    if !report.passes() {
        let violations: Vec<&str> =
            report.of(Severity::Violation).map(|finding| finding.message.as_str()).collect();
        bail!(
            "environment `{}` breaks its contract: {} (all about it: imago envs check; to train all the same: --set \
             run.check_env=false)",
            env.id,
            violations.join("; also ")
        );
    }
    for warning in report.of(Severity::Warning) {
        tracing::warn!("{}: {}", env.id, warning.message);
    }
    if let (true, Some(file)) = (remember, file) {
        passed.format = FORMAT;
        passed.environments.insert(key, state);
        // Forgetting costs two seconds.
        if let Err(error) = write(&file, &passed) {
            tracing::debug!("cannot write {}: {error}", file.display());
        }
    }
    Ok(())
}

/// What changes when the environment may have changed: this program, and the environment's own files.
fn state(program: &Program, env: &EnvSpec) -> Result<String> {
    let own = program.envs.version(env)?.unwrap_or_else(|| {
        // Registered by the user's program: a part of this very file.
        let written = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified());
        let age = written.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        format!("program of {}", age.unwrap_or_default().as_nanos())
    });
    Ok(format!("imago {}, {own}", env!("CARGO_PKG_VERSION")))
}

/// Our part of the user's cache directory.
///
/// # Errors
/// There is none.
pub fn cache_folder() -> Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = named.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    Ok(cache.context("there is no cache directory: set XDG_CACHE_HOME")?.join("imago"))
}

/// The file of the environments that have passed.
fn memory() -> Option<PathBuf> {
    Some(cache_folder().ok()?.join("checked_envs.json"))
}

/// A file that is not there, damaged or of another format counts as empty.
fn read(file: &Path) -> Passed {
    let read = || serde_json::from_slice::<Passed>(&std::fs::read(file).ok()?).ok();
    read().filter(|passed| passed.format == FORMAT).unwrap_or_default()
}

/// Whole or not at all: other trainings may read it at the same time.
fn write(file: &Path, passed: &Passed) -> Result<()> {
    let folder = file.parent().context("no directory")?;
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(&serde_json::to_vec_pretty(passed)?)?;
    temporary.persist(file)?;
    Ok(())
}
