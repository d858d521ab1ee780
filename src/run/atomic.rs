//! Files that appear whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Writes `path` so that a reader finds the earlier content or the new one, whatever happens
/// meanwhile: temporary name, fsync, rename, fsync of the directory. On an error the temporary
/// file is removed and an earlier file of that name is untouched.
pub(super) fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::Invalid(format!("`{}` does not name a file", path.display())))?;
    let mut temporary = OsStr::new(".").to_os_string();
    temporary.push(name);
    temporary.push(format!(".tmp-{}", std::process::id()));
    let temporary = path.with_file_name(temporary);

    let written = write_synced(&temporary, fill).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // It may never have existed.
        let _ = fs::remove_file(&temporary);
        return Err(Error::io("write", path)(source));
    }
    // Until the directory is on disk, a power cut may still bring back the earlier file.
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", path))
}

/// Writes `content` to `path` so that a reader finds the earlier file or the whole new one, whatever happens
/// meanwhile.
///
/// # Errors
/// A file or a directory that cannot be written; an earlier file is untouched then.
pub fn replace_with(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(content))
}

/// Whether a file name is one that [`replace`] leaves behind when it is killed.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with('.')
        && name.rsplit_once(".tmp-").is_some_and(|(_, pid)| pid.bytes().all(|b| b.is_ascii_digit()))
}

fn write_synced(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    fill(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_earlier_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        replace_with(&path, b"one").unwrap();
        let failed = replace(&path, |file| {
            file.write_all(b"two")?;
            Err(io::Error::other("broken"))
        });
        assert!(failed.unwrap_err().to_string().contains("cannot write: broken"));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_names_are_known() {
        assert!(is_temporary(".index.json.tmp-17"));
        assert!(!is_temporary("index.json.tmp-17"));
        assert!(!is_temporary(".hidden"));
    }
}
