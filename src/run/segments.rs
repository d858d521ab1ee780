//! Rows of a replay on disk: each is written once, whatever number of checkpoints need it.
//!
//! A replay grows by rows and forgets its oldest ones. A checkpoint says which rows it needs; those that no earlier
//! checkpoint has written go into one more file, `checkpoints/replay/NAME-FROM-TO.safetensors`, before the checkpoint
//! itself. Files are removed once no checkpoint needs a row of theirs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tch::Tensor;

use super::error::{Error, Result};
use super::tensor_file;

const FOLDER: &str = "replay";

/// The files of one run.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    folder: PathBuf,
}

/// One file: which rows of which ring it holds.
#[derive(Debug)]
struct Segment {
    ring: String,
    rows: Range<u64>,
    file: String,
}

/// The name of a ring's files: the path of its state with dots.
fn stem(ring: &str) -> String {
    ring.replace('/', ".")
}

impl Segment {
    fn named(file: String) -> Option<Self> {
        let mut parts = file.strip_suffix(".safetensors")?.rsplitn(3, '-');
        let (to, from, ring) =
            (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.to_string());
        Some(Self { ring, rows: from..to, file })
    }
}

impl Segments {
    /// Those beside the checkpoints in `checkpoints`.
    pub fn beside(checkpoints: &Path) -> Self {
        Self { folder: checkpoints.join(FOLDER) }
    }

    /// Whether there have ever been any.
    pub fn exist(&self) -> bool {
        self.folder.is_dir()
    }

    fn all(&self) -> Result<Vec<Segment>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("list", &self.folder)(e)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<io::Result<_>>().map_err(Error::io("list", &self.folder))?;
        let mut all: Vec<Segment> = names.into_iter().filter_map(Segment::named).collect();
        all.sort_by_key(|segment| (segment.rows.start, segment.rows.end));
        Ok(all)
    }

    /// Writes `rows` of a ring, its columns by name.
    pub fn write(&self, ring: &str, rows: &Range<u64>, columns: &[(String, Tensor)]) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        // Twelve digits hold any run, and names then sort as their rows do.
        let file = format!("{}-{:012}-{:012}.safetensors", stem(ring), rows.start, rows.end);
        let mut values = Map::new();
        values.insert("ring".into(), ring.into());
        values.insert("rows".into(), Value::from(vec![rows.start, rows.end]));
        tensor_file::write(&self.folder.join(file), columns, &values)
    }

    /// Gives `rows` of a ring to `take`, piece by piece in order: the first row of each, and its columns, which hold
    /// all of it and nothing else.
    ///
    /// # Errors
    /// Rows that no file holds; damaged files; whatever `take` finds wrong.
    pub fn read(
        &self,
        ring: &str,
        rows: Range<u64>,
        mut take: impl FnMut(&Path, u64, BTreeMap<String, Tensor>) -> Result<()>,
    ) -> Result<()> {
        let mut next = rows.start;
        for segment in self.covering(ring, &rows)? {
            let path = self.folder.join(&segment.file);
            let (columns, values) = tensor_file::read(&path)?;
            let said = Value::from(vec![segment.rows.start, segment.rows.end]);
            let length = (segment.rows.end - segment.rows.start) as i64;
            let whole = columns.values().all(|column| column.size().first() == Some(&length));
            if values.get("ring").and_then(Value::as_str) != Some(ring)
                || values.get("rows") != Some(&said)
                || !whole
            {
                return Err(Error::bad_file(&path, "it holds other rows than its name says; copy it again"));
            }
            let end = segment.rows.end.min(rows.end);
            let (skip, count) = ((next - segment.rows.start) as i64, (end - next) as i64);
            let piece = columns.into_iter().map(|(name, column)| (name, column.narrow(0, skip, count)));
            take(&path, next, piece.collect())?;
            next = end;
        }
        Ok(())
    }

    /// Whether all of `rows` are there, in files that are whole as far as that shows without reading them.
    ///
    /// # Errors
    /// As for [`Segments::read`].
    pub fn check(&self, ring: &str, rows: &Range<u64>) -> Result<()> {
        self.covering(ring, rows)?
            .iter()
            .try_for_each(|segment| tensor_file::read_metadata(&self.folder.join(&segment.file)).map(drop))
    }

    /// The files that hold `rows`, in order.
    fn covering(&self, ring: &str, rows: &Range<u64>) -> Result<Vec<Segment>> {
        let mut all = self.all()?;
        let (mut covering, mut next) = (Vec::new(), rows.start);
        while next < rows.end {
            let holds = |segment: &Segment| segment.ring == stem(ring) && segment.rows.contains(&next);
            let Some(found) = all.iter().rposition(holds) else {
                return Err(Error::bad_file(
                    &self.folder,
                    format!(
                        "row {next} of `{ring}` is in no file; a checkpoint needs the files of this folder: copy them \
                         with it, or go on from another checkpoint"
                    ),
                ));
            };
            let segment = all.remove(found);
            next = segment.rows.end;
            covering.push(segment);
        }
        Ok(covering)
    }

    /// Removes the files that hold none of the rows `needed`, or rows beyond the last of them: those of a future that
    /// the run has gone back from.
    pub fn keep(&self, needed: &[(String, Range<u64>)]) -> Result<()> {
        for segment in self.all()? {
            let of_ring =
                || needed.iter().filter(|(ring, _)| stem(ring) == segment.ring).map(|(_, rows)| rows);
            let end = of_ring().map(|rows| rows.end).max().unwrap_or(0);
            let overlaps = |rows: &Range<u64>| segment.rows.start < rows.end && rows.start < segment.rows.end;
            if segment.rows.end > end || !of_ring().any(overlaps) {
                let path = self.folder.join(&segment.file);
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(range: Range<u64>) -> Vec<(String, Tensor)> {
        let numbers: Vec<i64> = range.map(|row| row as i64 * 10).collect();
        vec![("x".into(), Tensor::from_slice(&numbers))]
    }

    fn read(segments: &Segments, range: Range<u64>) -> Result<Vec<i64>> {
        let mut found = Vec::new();
        segments.read("train/replay", range, |_, first, columns| {
            let piece = Vec::<i64>::try_from(columns["x"].contiguous()).unwrap();
            assert_eq!(piece[0], first as i64 * 10);
            found.extend(piece);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn rows_are_found_across_files_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments::beside(folder.path());
        for range in [0..3, 3..7, 7..8] {
            segments.write("train/replay", &range, &rows(range.clone())).unwrap();
        }
        segments.write("train/other", &(0..99), &rows(0..99)).unwrap();
        assert_eq!(read(&segments, 1..8).unwrap(), [10, 20, 30, 40, 50, 60, 70]);
        assert_eq!(read(&segments, 4..6).unwrap(), [40, 50]);
        assert!(read(&segments, 4..9).unwrap_err().to_string().contains("row 8 of `train/replay`"));
        segments.keep(&[("train/replay".into(), 5..7), ("train/other".into(), 0..99)]).unwrap();
        assert_eq!(read(&segments, 5..7).unwrap(), [50, 60]);
        assert!(read(&segments, 2..7).is_err() && read(&segments, 7..8).is_err());
        // A cut file is found out.
        let path = segments.folder.join("train.replay-000000000003-000000000007.safetensors");
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() - 1]).unwrap();
        assert!(read(&segments, 5..7).unwrap_err().to_string().contains("damaged"));
        // And one that lies under another's name.
        fs::write(&path, content).unwrap();
        fs::rename(&path, segments.folder.join("train.replay-000000000004-000000000008.safetensors"))
            .unwrap();
        assert!(read(&segments, 5..7).unwrap_err().to_string().contains("other rows than its name"));
    }
}
