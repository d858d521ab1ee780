//! Extras: sets of pinned Python packages that games and simulators need beyond what `make setup` installs.

use crate::error::{Error, Result};
use crate::python;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A set of Python packages that are installed together.
#[derive(Debug)]
pub struct Extra {
    /// What `imago envs install` calls it.
    pub name: &'static str,
    /// What it brings, in a line.
    pub about: &'static str,
    /// Megabytes on disk.
    pub megabytes: u32,
    /// `NAME==VERSION`, a line each, with comments.
    requirements: &'static str,
    /// Modules that it brings.
    modules: &'static [&'static str],
}

/// Every extra there is. Each is installed with `--no-deps`: all that they need is named in them or is part of
/// .venv, so that no package of .venv ever changes.
pub const EXTRAS: &[Extra] = &[
    Extra {
        name: "doom",
        about: "VizDoom: DoomMyWayHome-…, Doom, gym:Vizdoom…",
        megabytes: 185,
        requirements: include_str!("../extras/doom.txt"),
        modules: &["vizdoom"],
    },
    Extra {
        name: "mario",
        about: "Super Mario Bros: SuperMarioBros-1-1 to 8-4 (compiles an emulator: needs a C++ compiler)",
        megabytes: 20,
        requirements: include_str!("../extras/mario.txt"),
        modules: &["gym_super_mario_bros", "nes_py", "gym", "gym_notices", "pyglet", "tqdm"],
    },
    Extra {
        name: "atari",
        about: "Atari games: gym:ALE/…, vec:ALE/…",
        megabytes: 10,
        requirements: include_str!("../extras/atari.txt"),
        modules: &["ale_py"],
    },
    Extra {
        name: "mujoco",
        about: "MuJoCo's robots: Hopper-v5, HalfCheetah-v5, gym:Humanoid-v5 …",
        megabytes: 105,
        requirements: include_str!("../extras/mujoco.txt"),
        modules: &["mujoco", "glfw", "imageio", "OpenGL"],
    },
    Extra {
        name: "minigrid",
        about: "grid worlds: gym:MiniGrid-…, gym:BabyAI-…",
        megabytes: 15,
        requirements: include_str!("../extras/minigrid.txt"),
        modules: &["minigrid"],
    },
    Extra {
        name: "box2d",
        about: "gym:LunarLander-v3, gym:BipedalWalker-v3, gym:CarRacing-v3",
        megabytes: 25,
        requirements: include_str!("../extras/box2d.txt"),
        modules: &["Box2D", "pygame"],
    },
];

/// The packages that `make setup` installs: nothing may change them.
const BASE: &str = include_str!("../requirements.txt");

/// The lines of a requirements file, without comments.
fn lines(requirements: &str) -> impl Iterator<Item = &str> {
    requirements
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

impl Extra {
    /// The extra of this name.
    pub fn named(name: &str) -> Option<&'static Extra> {
        EXTRAS.iter().find(|extra| extra.name == name)
    }

    /// The extra that brings a Python module.
    pub(crate) fn of_module(module: &str) -> Option<&'static Extra> {
        let top = module.split('.').next().unwrap_or_default();
        EXTRAS.iter().find(|extra| extra.modules.contains(&top))
    }

    /// The command that installs it.
    pub fn command(&self) -> String {
        format!("imago envs install {}", self.name)
    }

    /// Its packages, as `NAME==VERSION`.
    pub fn packages(&self) -> impl Iterator<Item = &'static str> {
        lines(self.requirements)
    }

    /// Those of its packages that are not installed in the version it asks for. Looks at files alone: Python is
    /// not started.
    pub fn missing(&self) -> Vec<&'static str> {
        let there = python::site_packages().map(|folder| installed(&folder)).unwrap_or_default();
        self.packages().filter(|package| !there.contains(&plain(&package.replacen("==", "-", 1)))).collect()
    }
}

/// Names and versions of the packages in a directory, as `name-version`.
fn installed(site_packages: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(site_packages) else { return BTreeSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(".dist-info").map(plain)).collect()
}

/// Package names are the same in upper and lower case, with hyphens and underscores.
fn plain(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// Installs packages, given as `NAME==VERSION`, and nothing that they depend on.
///
/// # Errors
/// As for [`install_requirements`].
pub fn install(packages: &[&str], quiet: bool) -> Result<()> {
    let mut arguments = vec!["--no-deps"];
    arguments.extend(packages);
    pip(&arguments, quiet)
}

/// Installs `requirements`, `NAME==VERSION` a line with comments, and nothing that they depend on, into `folder` and not
/// into .venv: who wants to use them names the folder in PYTHONPATH.
///
/// # Errors
/// As for [`install_requirements`].
pub fn install_beside(requirements: &str, folder: &Path, quiet: bool) -> Result<()> {
    let folder = folder.to_string_lossy();
    let options = ["--no-deps", "--upgrade", "--target", folder.as_ref()];
    pip(&options.into_iter().chain(lines(requirements)).collect::<Vec<&str>>(), quiet)
}

/// Installs what a file of the user's names, and what that depends on; the packages of .venv stay as they are.
///
/// # Errors
/// There is no .venv to install into; pip fails, whose own words are on standard error by then: no network, no
/// such package, one that wants another version of a package of .venv.
pub fn install_requirements(file: &Path, quiet: bool) -> Result<()> {
    let failed = |error: io::Error| refuse(format!("cannot write a temporary file: {error}"));
    let base = std::env::temp_dir().join(format!("imago-base-{}.txt", std::process::id()));
    let mut constraints = std::fs::File::create_new(&base).map_err(failed)?;
    let result = constraints.write_all(BASE.as_bytes()).map_err(failed).and_then(|()| {
        let (file, base) = (file.to_string_lossy(), base.to_string_lossy());
        pip(&["--requirement", &file, "--constraint", &base], quiet)
    });
    // A file of a few lines that is left over harms nobody.
    drop(std::fs::remove_file(&base));
    result
}

/// Runs `pip install` of the project's .venv. What it says goes to standard error.
fn pip(arguments: &[&str], quiet: bool) -> Result<()> {
    let python = interpreter()?;
    let mut command = Command::new(&python);
    command.args(["-m", "pip", "install", "--no-input"]).args(quiet.then_some("--quiet")).args(arguments);
    // It must see its own packages only, and install into its own environment.
    for name in ["PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"] {
        command.env_remove(name);
    }
    command.env("PIP_USER", "0").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
    command.stdin(Stdio::null()).stdout(stderr.unwrap_or_else(|_| Stdio::null()));
    let status =
        command.status().map_err(|error| refuse(format!("cannot run {}: {error}", python.display())))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Install(
            "pip failed; its own words are above, and what was there before is still there".into(),
        )),
    }
}

/// The Python of .venv.
fn interpreter() -> Result<PathBuf> {
    python::interpreter()
        .ok_or_else(|| refuse("this program's .venv is not there any more: run `make setup`".into()))
}

fn refuse(message: String) -> Error {
    Error::Install(message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Name and version of every line.
    fn pins(requirements: &'static str) -> Vec<(String, &'static str)> {
        let pin =
            |line: &'static str| line.split_once("==").unwrap_or_else(|| panic!("{line} is not pinned"));
        lines(requirements).map(pin).map(|(name, version)| (plain(name), version)).collect()
    }

    #[test]
    fn extras_are_pinned_and_touch_nothing_that_is_there() {
        let libtorch = pins(include_str!("../requirements-libtorch.txt"));
        let base: BTreeSet<String> = pins(BASE).into_iter().chain(libtorch).map(|(name, _)| name).collect();
        assert!(base.contains("numpy") && base.contains("torch"));
        let mut all = std::collections::BTreeMap::new();
        for extra in EXTRAS {
            assert!(extra.packages().count() > 0);
            for (name, version) in pins(extra.requirements) {
                assert!(!base.contains(&name), "{name} of {} is a package of .venv", extra.name);
                // What two extras share, they share in one version.
                assert_eq!(*all.entry(name).or_insert(version), version, "{}", extra.name);
            }
        }
    }

    #[test]
    fn packages_are_recognised_by_what_pip_leaves() {
        let folder = std::env::temp_dir().join(format!("imago-extras-{}", std::process::id()));
        for name in
            ["Box2D-2.3.10.dist-info", "pygame_ce-2.5.8.dist-info", "ale_py", "nes_py-8.2.0.dist-info"]
        {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let there = installed(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        let lacks = |name: &str| -> Vec<String> {
            let packages = Extra::named(name).unwrap().packages().map(|p| plain(&p.replacen("==", "-", 1)));
            packages.filter(|package| !there.contains(package)).collect()
        };
        assert!(lacks("box2d").is_empty());
        assert_eq!(lacks("atari"), ["ale-py-0.12.1"]);
        // Another version is not the right one.
        assert!(lacks("mario").contains(&"nes-py-8.2.1".into()));
    }

    #[test]
    fn modules_lead_to_their_extra() {
        assert_eq!(Extra::of_module("vizdoom.gymnasium_wrapper").unwrap().name, "doom");
        assert!(Extra::of_module("vizdoomed").is_none());
    }
}
