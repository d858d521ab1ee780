//! The directory of a run: made once, locked while it is trained into, found by name later.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::atomic;
use super::checkpoint::Which;
use super::error::{Error, Result};

const RECIPE: &str = "recipe.toml";
const SUMMARY: &str = "summary.json";
const LOCK: &str = ".lock";

/// The directory of a run that this process trains into.
///
/// Holding it holds the run's lock. To only look at a run no `Directory` is needed.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as it is open; the operating system lets go when the process ends, however
    /// it ends. `None` where the file system knows no locks.
    _lock: Option<File>,
}

impl Directory {
    /// A directory for a new run. It must be empty or not exist yet.
    pub fn create(path: &Path) -> Result<Self> {
        Directory::check_vacant(path)?;
        fs::create_dir_all(path).map_err(|e| not_writable(path, &e))?;
        let this = Directory { path: path.to_path_buf(), _lock: lock(path)? };
        // Another process may have come and gone between the look and the lock.
        Directory::check_vacant(path).map(|()| this)
    }

    /// Refuses a place that [`Directory::create`] would refuse, as far as that can be known without writing.
    pub fn check_vacant(path: &Path) -> Result<()> {
        if path.exists() && (!path.is_dir() || !is_vacant(path)?) {
            return Err(Error::bad_file(
                path,
                "it exists and is not empty; choose another --run-dir, or --resume to go on with it",
            ));
        }
        Ok(())
    }

    /// A directory for a new run in `runs`, called `NAME-SEED-YYYYMMDD-HHMMSS` (UTC).
    pub fn create_named(runs: &Path, name: &str, seed: u64) -> Result<Self> {
        let name: String =
            name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let stem = format!("{name}-{seed}-{}", timestamp(seconds));
        fs::create_dir_all(runs).map_err(|e| not_writable(runs, &e))?;
        let mut path = runs.join(&stem);
        for number in 2.. {
            match fs::create_dir(&path) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    path = runs.join(format!("{stem}-{number}"))
                }
                Err(e) => return Err(not_writable(&path, &e)),
            }
        }
        Directory::create(&path)
    }

    /// The directory of an existing run, to go on with it.
    pub fn open(path: &Path) -> Result<Self> {
        if !Directory::holds_run(path) {
            return Err(Error::bad_file(path, format!("there is no run in it (no {RECIPE})")));
        }
        Ok(Directory { path: path.to_path_buf(), _lock: lock(path)? })
    }

    /// Whether there is a run in the directory `path`: not just any folder with a file of that name in it.
    pub fn holds_run(path: &Path) -> bool {
        path.join(RECIPE).is_file() && (path.join(LOCK).is_file() || path.join("checkpoints").is_dir())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores the recipe that repeats this run; from now on the directory holds a run.
    pub fn write_recipe(&self, text: &str) -> Result<()> {
        atomic::replace_with(&self.path.join(RECIPE), text.as_bytes())
    }

    /// The run's recipe.
    pub fn recipe(&self) -> Result<String> {
        let path = self.path.join(RECIPE);
        fs::read_to_string(&path).map_err(Error::io("read", &path))
    }

    /// Stores what came out of the run.
    pub fn write_summary(&self, summary: &Map<String, Value>) -> Result<()> {
        let path = self.path.join(SUMMARY);
        let text = serde_json::to_string_pretty(summary)
            .map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))?;
        atomic::replace_with(&path, text.as_bytes())
    }

    /// What the user calls `name`: a path, a name in the directory `runs`, or `latest`, with
    /// `@best`, `@latest` or `@STEP` after it or not.
    pub fn resolve(runs: &Path, name: &str) -> Result<(PathBuf, Option<Which>)> {
        // A directory may have an @ in its name.
        if let Some(path) = find(runs, name)? {
            return Ok((path, None));
        }
        if let Some((name, which)) = name.rsplit_once('@')
            && let Some(path) = find(runs, name)?
        {
            return Ok((path, Some(which.parse()?)));
        }
        let known = run_names(runs)?;
        let last: Vec<&str> = known.iter().rev().take(5).map(|(_, name)| name.as_str()).collect();
        let there = match last.is_empty() {
            true => format!("there is no run in `{}`", runs.display()),
            false => format!("the last ones in `{}` are: {}", runs.display(), last.join(", ")),
        };
        Err(Error::Invalid(format!("no run is called `{name}`; {there}")))
    }
}

fn find(runs: &Path, name: &str) -> Result<Option<PathBuf>> {
    if name == "latest" {
        return Ok(run_names(runs)?.pop().map(|(_, name)| runs.join(name)));
    }
    let candidates = [PathBuf::from(name), runs.join(name)];
    Ok(candidates.into_iter().find(|path| !name.is_empty() && Directory::holds_run(path)))
}

/// The runs in a directory with the time of their beginning, in its order.
fn run_names(runs: &Path) -> Result<Vec<(SystemTime, String)>> {
    let entries = match fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", runs)(e)),
    };
    let mut found: Vec<(SystemTime, String)> = entries
        .flatten()
        .filter_map(|entry| {
            // A run that vanishes meanwhile is no longer one.
            let begun = fs::metadata(entry.path().join(RECIPE)).and_then(|status| status.modified()).ok()?;
            Some((begun, entry.file_name().to_string_lossy().into_owned()))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Whether nothing is in it but what a process leaves that was killed before its run began.
fn is_vacant(path: &Path) -> Result<bool> {
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let name = entry.map_err(Error::io("list", path))?.file_name();
        if name != LOCK && !name.to_str().is_some_and(atomic::is_temporary) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| not_writable(folder, &e))?;
    match file.try_lock() {
        Ok(()) => {
            // Only for the message below.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let who = if pid.is_empty() { "another process".into() } else { format!("process {pid}") };
            Err(Error::bad_file(
                folder,
                format!("{who} is training into it; wait for it, or choose another --run-dir"),
            ))
        }
        Err(TryLockError::Error(e)) => {
            tracing::warn!(
                "{}: cannot be locked ({e}); make sure that one process at a time trains into it",
                folder.display()
            );
            Ok(None)
        }
    }
}

fn not_writable(path: &Path, error: &io::Error) -> Error {
    Error::bad_file(path, format!("cannot be written: {error}; choose another --run-dir"))
}

/// `YYYYMMDD-HHMMSS` in UTC.
fn timestamp(seconds: u64) -> String {
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let day = days + 1;
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_needs_an_empty_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let run = Directory::create(&path).unwrap();
        assert!(!Directory::holds_run(&path));
        run.write_recipe("format = 1\n").unwrap();
        assert_eq!(run.recipe().unwrap(), "format = 1\n");
        drop(run);
        let error = Directory::create(&path).unwrap_err();
        assert!(error.to_string().contains("--resume") && error.bad_input(), "{error}");
        Directory::open(&path).unwrap();
        assert!(Directory::open(folder.path()).unwrap_err().to_string().contains("no run in it"));
        let file = path.join(RECIPE);
        assert!(Directory::create(&file).unwrap_err().to_string().contains("--run-dir"));
        let error = Directory::create(&file.join("x")).unwrap_err();
        assert!(error.to_string().contains("cannot be written: Not a directory"), "{error}");
    }

    #[test]
    fn a_run_killed_before_it_began_leaves_the_place_free() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "1").unwrap();
        fs::write(folder.path().join(".recipe.toml.tmp-1"), "form").unwrap();
        Directory::create(folder.path()).unwrap();
    }

    #[test]
    fn two_processes_do_not_train_into_one_directory() {
        let folder = tempfile::tempdir().unwrap();
        let run = Directory::create(folder.path()).unwrap();
        run.write_recipe("").unwrap();
        let message = Directory::open(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("process {} is training into it", std::process::id())),
            "{message}"
        );
        drop(run);
        Directory::open(folder.path()).unwrap();
    }

    #[test]
    fn names_do_not_collide() {
        let runs = tempfile::tempdir().unwrap();
        let made: Vec<Directory> =
            (0..4).map(|_| Directory::create_named(runs.path(), "gail/cartpole", 7).unwrap()).collect();
        let mut names: Vec<&Path> = made.iter().map(Directory::path).collect();
        names.dedup();
        assert_eq!(names.len(), 4);
        let name = names[0].file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("gail-cartpole-7-20") && name.len() == "gail-cartpole-7-20260102-030405".len()
        );
    }

    #[test]
    fn dates() {
        assert_eq!(timestamp(0), "19700101-000000");
        assert_eq!(timestamp(951_782_399), "20000228-235959");
        assert_eq!(timestamp(951_782_400), "20000229-000000");
        assert_eq!(timestamp(1_767_225_599), "20251231-235959");
        assert_eq!(timestamp(4_107_542_400), "21000301-000000");
    }

    #[test]
    fn runs_are_found_by_name() {
        let runs = tempfile::tempdir().unwrap();
        let make = |name: &str, begun: u64| {
            let run = Directory::create(&runs.path().join(name)).unwrap();
            run.write_recipe("").unwrap();
            let file = File::options().write(true).open(run.path().join(RECIPE)).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(begun)).unwrap();
        };
        make("b", 10);
        make("a", 20);
        make("odd@7", 5);
        let resolve = |name: &str| Directory::resolve(runs.path(), name);
        assert_eq!(resolve("b").unwrap(), (runs.path().join("b"), None));
        assert_eq!(resolve("latest").unwrap(), (runs.path().join("a"), None));
        assert_eq!(resolve("latest@best").unwrap(), (runs.path().join("a"), Some(Which::Best)));
        assert_eq!(resolve("b@12").unwrap().1, Some(Which::Step(12)));
        assert_eq!(resolve("odd@7").unwrap(), (runs.path().join("odd@7"), None));
        assert_eq!(resolve("odd@7@latest").unwrap().1, Some(Which::Latest));
        let path = runs.path().join("b");
        assert_eq!(resolve(path.to_str().unwrap()).unwrap().0, path);
        assert!(resolve("b@newest").unwrap_err().to_string().contains("@newest"));
        assert!(resolve("c").unwrap_err().to_string().contains("a, b"));
        assert!(resolve("").is_err());
        let nowhere = runs.path().join("nowhere");
        assert!(Directory::resolve(&nowhere, "latest").unwrap_err().to_string().contains("no run in"));
    }
}
