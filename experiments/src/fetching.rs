//! Data and weights that Python packages bring or make: a script and the packages it needs, installed apart from .venv.

use crate::first_look::cache_folder;
use anyhow::{Context, Result, ensure};
use imago_envs::{extras, python};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A script of ours and what it needs.
pub struct Script {
    /// What users call what it makes.
    pub name: &'static str,
    /// `NAME==VERSION` a line.
    pub requirements: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Script {
    /// Where its packages lie.
    fn packages(&self) -> Result<PathBuf> {
        Ok(cache_folder()?.join("packages").join(self.name))
    }

    /// Runs it with `arguments`, its packages installed before if they are not there.
    ///
    /// # Errors
    /// No .venv; pip or the script failed, whose own words are on standard error by then.
    pub fn run(&self, arguments: &[&OsStr], quiet: bool) -> Result<()> {
        let packages = self.packages()?;
        // Written last; another list of packages is another text.
        let complete = packages.join("complete");
        if std::fs::read_to_string(&complete).ok().as_deref() != Some(self.requirements) {
            if !quiet {
                eprintln!("installing what makes {} into {}", self.name, packages.display());
            }
            std::fs::create_dir_all(&packages)
                .with_context(|| format!("cannot create {}", packages.display()))?;
            extras::install_beside(self.requirements, &packages, quiet)?;
            std::fs::write(&complete, self.requirements)
                .with_context(|| format!("cannot write {}", complete.display()))?;
        }
        let python = python::interpreter().context("this program's .venv is not there: run `make setup`")?;
        let status = Command::new(&python)
            .arg("-c")
            .arg(self.text)
            .args(arguments)
            .env("PYTHONPATH", &packages)
            .env_remove("PYTHONHOME")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(if quiet { Stdio::null() } else { Stdio::inherit() })
            .status()
            .with_context(|| format!("cannot run {}", python.display()))?;
        ensure!(status.success(), "{}: its script failed ({status}); nothing was written", self.name);
        Ok(())
    }
}
