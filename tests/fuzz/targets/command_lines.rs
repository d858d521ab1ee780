//! Any words after `imago`: a command or one clean error, before environments are made or anything is written.
//!
//! An input is a word a line. They are read where there is a run, its demonstrations and a recipe.

use super::small_run;
use imago_experiments::Program;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::OnceLock;

/// Whether the words are a command that can be begun.
pub fn check(data: &[u8]) -> bool {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a temporary directory");
        std::env::set_current_dir(place.path()).expect("a directory");
        small_run::begin(Path::new("runs/a"));
        std::fs::copy("runs/a/recipe.toml", "a.toml").expect("a file");
        std::fs::write("a.demos", include_bytes!("../../../experiments/recipes/demos/seals-cartpole.demos"))
            .expect("a file");
        place
    });
    let words = data.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.into()));
    let line = std::iter::once("imago".into()).chain(words);
    match Program::default().check(line) {
        Ok(()) => true,
        Err(error) => {
            assert!(!format!("{error:#}").trim().is_empty());
            false
        }
    }
}
