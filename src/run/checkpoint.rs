//! The checkpoints of a run: `checkpoints/STEP.safetensors` and an index of them.
//!
//! The order of writes makes a kill at any moment harmless: first the file, then the index that
//! names it, and only then are files removed that the index no longer names. A file checks
//! itself, so the index holds names only.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::atomic;
use super::error::{Error, Result};
use super::segments::Segments;
use super::state::State;
use super::tensor_file;

const FORMAT: u32 = 1;
const FOLDER: &str = "checkpoints";
const INDEX: &str = "index.json";
const STEP_KEY: &str = "step";
/// Which rows of which rings a checkpoint needs, if it needs any.
const RINGS_KEY: &str = "rings";

/// One of a run's checkpoints, as in `RUN@best`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The last one.
    Latest,
    /// The one with the highest evaluation score.
    Best,
    /// The one of this step.
    Step(u64),
}

impl FromStr for Which {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "latest" => Ok(Which::Latest),
            "best" => Ok(Which::Best),
            step => step.parse().map(Which::Step).map_err(|_| {
                Error::Invalid(format!("no checkpoint can be called `@{text}`: use @best, @latest or @STEP"))
            }),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Latest => f.write_str("latest"),
            Which::Best => f.write_str("best"),
            Which::Step(step) => step.fmt(f),
        }
    }
}

/// The step with the highest evaluation score so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Its score; finite.
    pub score: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    entries: Vec<Entry>,
    latest: Option<u64>,
    best: Option<Best>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    step: u64,
    file: String,
}

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    run: PathBuf,
    keep: usize,
    index: Index,
    /// Rows of each ring that are on disk, from the last checkpoint on.
    written: BTreeMap<String, u64>,
}

impl Checkpoints {
    /// The checkpoints of the run in the directory `run`, to be read. The run may be going on.
    pub fn open(run: &Path) -> Result<Self> {
        let written = BTreeMap::new();
        Ok(Checkpoints { run: run.to_path_buf(), keep: usize::MAX, index: read_index(run)?, written })
    }

    /// The checkpoints of the run in the directory `run`, to be added to: the last `keep` (at
    /// least one) and the best are kept. What a killed write left behind is removed, so only the
    /// process that holds the run's lock may call this.
    pub fn open_for_writing(run: &Path, keep: usize) -> Result<Self> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let (index, written) = (read_index(run)?, BTreeMap::new());
        let mut this = Checkpoints { run: run.to_path_buf(), keep: keep.max(1), index, written };
        this.remove_unnamed()?;
        this.count_written()?;
        Ok(this)
    }

    /// The steps that have a checkpoint, in order.
    pub fn steps(&self) -> Vec<u64> {
        self.index.entries.iter().map(|entry| entry.step).collect()
    }

    /// The last step with a checkpoint.
    pub fn latest(&self) -> Option<u64> {
        self.index.latest
    }

    /// The best evaluated step.
    pub fn best(&self) -> Option<Best> {
        self.index.best
    }

    /// What a command that only looks at a run opens when nobody said: the best one if
    /// something was evaluated, else the latest.
    pub fn preferred(&self) -> Which {
        if self.index.best.is_some() { Which::Best } else { Which::Latest }
    }

    /// A state to be collected for the next checkpoint: rows of rings that are on disk already are left out.
    pub fn saving(&self) -> State {
        State::saving_after(self.written.clone())
    }

    /// Writes a checkpoint and removes those that need not be kept.
    pub fn save(&mut self, step: u64, mut state: State) -> Result<PathBuf> {
        let rings = state.take_rings();
        let (mut tensors, mut values) = state.finish()?;
        let mut needed = serde_json::Map::new();
        for (ring, saved) in &rings {
            let start = ring.len() + 1;
            let (rows, rest) = tensors.into_iter().partition(|(name, _)| saved.tensors.contains(name));
            tensors = rest;
            let rows: Vec<_> = rows;
            let columns: Vec<_> =
                rows.into_iter().map(|(name, tensor)| (name[start..].to_string(), tensor)).collect();
            if !saved.new.is_empty() {
                self.segments().write(ring, &saved.new, &columns)?;
            }
            needed.insert(ring.clone(), Value::from(vec![saved.held.start, saved.held.end]));
        }
        if !rings.is_empty() && values.insert(RINGS_KEY.into(), needed.into()).is_some() {
            return Err(Error::Invalid(format!(
                "state `{RINGS_KEY}` is the checkpoint's own; use another name"
            )));
        }
        if values.insert(STEP_KEY.into(), Value::from(step)).is_some() {
            return Err(Error::Invalid(format!(
                "state `{STEP_KEY}` is the checkpoint's own; use another name"
            )));
        }
        // Twelve digits hold any run, and names then sort as their steps do.
        let file = format!("{step:012}.safetensors");
        let path = self.run.join(FOLDER).join(&file);
        tensor_file::write(&path, &tensors, &values)?;

        self.index.entries.retain(|entry| entry.step != step);
        self.index.entries.push(Entry { step, file });
        self.index.entries.sort_by_key(|entry| entry.step);
        self.commit()?;
        self.written.extend(rings.into_iter().map(|(ring, saved)| (ring, saved.held.end)));
        Ok(path)
    }

    /// Names the checkpoint of `step` as the best one.
    pub fn mark_best(&mut self, step: u64, score: f64) -> Result<()> {
        self.entry(step)?;
        if !score.is_finite() {
            return Err(Error::Invalid(format!("a score of {score} cannot be the best")));
        }
        let best = Some(Best { step, score });
        if self.index.best == best {
            return Ok(());
        }
        self.index.best = best;
        self.commit()
    }

    /// Forgets every checkpoint after `step`: the run goes on from there.
    pub fn rewind(&mut self, step: u64) -> Result<()> {
        if self.index.entries.iter().all(|entry| entry.step <= step) {
            return Ok(());
        }
        self.index.entries.retain(|entry| entry.step <= step);
        self.commit()?;
        self.count_written()
    }

    fn segments(&self) -> Segments {
        Segments::beside(&self.run.join(FOLDER))
    }

    /// Takes from the last checkpoint which rows are on disk.
    fn count_written(&mut self) -> Result<()> {
        self.written.clear();
        if let Some(entry) = self.index.entries.last() {
            let rings = rings_of(&self.run.join(FOLDER).join(&entry.file))?;
            self.written.extend(rings.into_iter().map(|(ring, rows)| (ring, rows.end)));
        }
        Ok(())
    }

    /// The file of a checkpoint.
    pub fn resolve(&self, which: Which) -> Result<PathBuf> {
        let entry = self.entry(self.step_of(which)?)?;
        Ok(self.run.join(FOLDER).join(&entry.file))
    }

    /// The step of a checkpoint and its content.
    pub fn load(&self, which: Which) -> Result<(u64, State)> {
        let path = self.resolve(which)?;
        if !path.exists() {
            // A run that is going on may have replaced its checkpoints since the index was read.
            let now = Checkpoints::open(&self.run)?;
            if now.steps() != self.steps() {
                return now.load(which);
            }
        }
        let step = self.step_of(which)?;
        self.read(step).map(|state| (step, state)).map_err(|error| match error {
            Error::BadFile { path, message } => {
                let mend = match self.last_whole_before(step) {
                    Some(whole) => format!(
                        "the checkpoint before it is whole: go on from `{}@{whole}`",
                        self.run.display()
                    ),
                    None => "no earlier checkpoint of this run is whole".into(),
                };
                Error::BadFile { path, message: format!("{message}; {mend}") }
            }
            other => other,
        })
    }

    /// As [`Checkpoints::load`], for who goes on with the run: what the checkpoint needs beside itself must be there, too.
    ///
    /// # Errors
    /// Rows of a replay that are missing or cut.
    pub fn load_to_go_on(&self, which: Which) -> Result<(u64, State)> {
        let (step, state) = self.load(which)?;
        for (ring, rows) in rings_of(&self.resolve(Which::Step(step))?)? {
            self.segments().check(&ring, &rows)?;
        }
        Ok((step, state))
    }

    fn read(&self, step: u64) -> Result<State> {
        let path = self.resolve(Which::Step(step))?;
        let (tensors, mut values) = tensor_file::read(&path)?;
        let found = values.remove(STEP_KEY).and_then(|value| value.as_u64());
        if found != Some(step) {
            return Err(Error::bad_file(&path, format!("this is not the checkpoint of step {step}")));
        }
        values.remove(RINGS_KEY);
        Ok(State::loading(tensors, values).from_file(path).with_segments(self.segments()))
    }

    fn last_whole_before(&self, step: u64) -> Option<u64> {
        let earlier = self.index.entries.iter().rev().map(|entry| entry.step).filter(|&other| other < step);
        earlier.into_iter().find(|&other| self.read(other).is_ok())
    }

    fn step_of(&self, which: Which) -> Result<u64> {
        let run = self.run.display();
        match which {
            Which::Step(step) => Ok(step),
            Which::Latest => {
                self.index.latest.ok_or_else(|| Error::bad_file(&self.run, "it has no checkpoint yet"))
            }
            Which::Best => match self.index.best {
                Some(best) => Ok(best.step),
                None => Err(Error::bad_file(
                    &self.run,
                    format!("nothing was evaluated yet, so no checkpoint is the best; use `{run}@latest`"),
                )),
            },
        }
    }

    fn entry(&self, step: u64) -> Result<&Entry> {
        self.index.entries.iter().find(|entry| entry.step == step).ok_or_else(|| {
            let steps: Vec<String> = self.steps().iter().map(u64::to_string).collect();
            let there = if steps.is_empty() { "none".into() } else { steps.join(", ") };
            Error::bad_file(&self.run, format!("it has no checkpoint of step {step}; there are: {there}"))
        })
    }

    /// Writes the index without what need not be kept, then removes those files.
    fn commit(&mut self) -> Result<()> {
        let index = &mut self.index;
        index.best = index.best.filter(|best| index.entries.iter().any(|entry| entry.step == best.step));
        let first_kept = index.entries.len().saturating_sub(self.keep);
        let mut place = 0;
        index.entries.retain(|entry| {
            place += 1;
            place > first_kept || index.best.is_some_and(|best| best.step == entry.step)
        });
        index.latest = index.entries.last().map(|entry| entry.step);
        let path = self.run.join(FOLDER).join(INDEX);
        let text = serde_json::to_string_pretty(index)
            .map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))?;
        atomic::replace_with(&path, text.as_bytes())?;
        self.remove_unnamed()
    }

    fn remove_unnamed(&self) -> Result<()> {
        let folder = self.run.join(FOLDER);
        for name in names_in(&folder)? {
            let ours = step_in(&name).is_some();
            let named = self.index.entries.iter().any(|entry| entry.file == name);
            if atomic::is_temporary(&name) || (ours && !named) {
                let path = folder.join(name);
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        if !self.segments().exist() {
            return Ok(());
        }
        let mut needed = Vec::new();
        for entry in &self.index.entries {
            needed.extend(rings_of(&folder.join(&entry.file))?);
        }
        self.segments().keep(&needed)
    }
}

/// The rows that the checkpoint in a file needs of each ring. A file that cannot be read needs none: it is refused when
/// somebody asks for it.
fn rings_of(path: &Path) -> Result<Vec<(String, Range<u64>)>> {
    let Ok(values) = tensor_file::read_metadata(path) else { return Ok(Vec::new()) };
    let Some(Value::Object(rings)) = values.get(RINGS_KEY) else { return Ok(Vec::new()) };
    let ring = |(ring, rows): (&String, &Value)| match rows.as_array().map(Vec::as_slice) {
        Some([from, to]) => Ok((ring.clone(), from.as_u64().unwrap_or(0)..to.as_u64().unwrap_or(0))),
        _ => Err(Error::bad_file(path, format!("damaged: which rows of `{ring}` it needs cannot be read"))),
    };
    rings.iter().map(ring).collect()
}

fn read_index(run: &Path) -> Result<Index> {
    let path = run.join(FOLDER).join(INDEX);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return rebuild_index(run),
        Err(e) => return Err(Error::io("read", &path)(e)),
    };
    let damaged = |what: String| {
        let mend = "move it away, and the files beside it will be listed anew";
        Error::bad_file(&path, format!("damaged: {what}; {mend}"))
    };
    let index: Index = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if index.format != FORMAT {
        return Err(Error::bad_file(
            &path,
            format!("it has format {} and this version reads format {FORMAT}", index.format),
        ));
    }
    index.check().map_err(|what| damaged(what.into()))?;
    Ok(index)
}

impl Index {
    /// What every index that was written here holds to.
    fn check(&self) -> Result<(), &'static str> {
        let entries = &self.entries;
        if !entries.is_sorted_by(|a, b| a.step < b.step) {
            return Err("its steps are not in order");
        }
        if entries.iter().any(|entry| step_in(&entry.file) != Some(entry.step)) {
            return Err("it names a file that is not its step's");
        }
        if self.latest != entries.last().map(|entry| entry.step) {
            return Err("its latest step is not its last one");
        }
        if self.best.is_some_and(|best| entries.iter().all(|entry| entry.step != best.step)) {
            return Err("its best step is none of its steps");
        }
        Ok(())
    }
}

/// Without an index (the first write was killed, or someone removed it) every file that can be
/// read counts, so that nothing is deleted as unnamed that may still be wanted.
fn rebuild_index(run: &Path) -> Result<Index> {
    let folder = run.join(FOLDER);
    let mut entries = Vec::new();
    for file in names_in(&folder)? {
        let named = step_in(&file);
        let inside = || tensor_file::read_metadata(&folder.join(&file)).ok()?.get(STEP_KEY)?.as_u64();
        if let Some(step) = named.filter(|&step| inside() == Some(step)) {
            entries.push(Entry { step, file });
        }
    }
    entries.sort_by_key(|entry| entry.step);
    let latest = entries.last().map(|entry| entry.step);
    Ok(Index { format: FORMAT, entries, latest, best: None })
}

/// The step in a checkpoint's file name.
fn step_in(name: &str) -> Option<u64> {
    name.strip_suffix(".safetensors")?.parse().ok()
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", folder)(e)),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(Error::io("list", folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Tensor;

    fn state(x: i64) -> State {
        let mut state = State::saving();
        state.tensor("x", &mut Tensor::from(x)).unwrap();
        state
    }

    fn x_of(mut state: State) -> i64 {
        let mut x = Tensor::from(0i64);
        state.tensor("x", &mut x).unwrap();
        state.finish().unwrap();
        x.int64_value(&[])
    }

    #[test]
    fn the_last_and_the_best_are_kept() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 2).unwrap();
        assert_eq!(checkpoints.preferred(), Which::Latest);
        for step in [0, 5, 10, 15, 20] {
            checkpoints.save(step, state(step as i64)).unwrap();
            if step == 5 {
                checkpoints.mark_best(5, 1.0).unwrap();
            }
        }
        assert_eq!(checkpoints.steps(), [5, 15, 20]);
        checkpoints.mark_best(20, 2.0).unwrap();
        let read = Checkpoints::open(run.path()).unwrap();
        assert_eq!((read.steps(), read.latest()), (vec![15, 20], Some(20)));
        assert_eq!(read.best(), Some(Best { step: 20, score: 2.0 }));
        assert_eq!(names_in(&run.path().join(FOLDER)).unwrap().len(), 3);
        let (step, loaded) = read.load(Which::Step(15)).unwrap();
        assert_eq!((step, x_of(loaded)), (15, 15));
        assert_eq!(read.load(Which::Best).unwrap().0, 20);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 3).unwrap();
        assert!(checkpoints.resolve(Which::Latest).unwrap_err().to_string().contains("no checkpoint yet"));
        checkpoints.save(7, state(7)).unwrap();
        checkpoints.save(9, state(9)).unwrap();
        assert!(checkpoints.resolve(Which::Step(8)).unwrap_err().to_string().contains("there are: 7, 9"));
        assert!(checkpoints.resolve(Which::Best).unwrap_err().to_string().contains("@latest"));
        assert!(checkpoints.mark_best(9, f64::NAN).is_err());
        assert!(checkpoints.mark_best(8, 1.0).is_err());
    }

    #[test]
    fn a_damaged_file_leads_to_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 3).unwrap();
        for step in [1, 2, 3] {
            checkpoints.save(step, state(0)).unwrap();
        }
        for step in [2, 3] {
            let path = checkpoints.resolve(Which::Step(step)).unwrap();
            let content = fs::read(&path).unwrap();
            fs::write(&path, &content[..content.len() - 1]).unwrap();
        }
        let message = checkpoints.load(Which::Latest).unwrap_err().to_string();
        assert!(message.contains("000000000003.safetensors"), "{message}");
        assert!(message.contains(&format!("{}@1`", run.path().display())), "{message}");
        // A file under another's name is not taken for it.
        let one = checkpoints.resolve(Which::Step(1)).unwrap();
        fs::copy(one, checkpoints.resolve(Which::Step(2)).unwrap()).unwrap();
        assert!(checkpoints.load(Which::Step(2)).is_err());
    }

    #[test]
    fn leftovers_are_removed_by_the_writer_only() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 3).unwrap();
        checkpoints.save(1, state(1)).unwrap();
        let folder = run.path().join(FOLDER);
        for name in ["000000000002.safetensors", ".index.json.tmp-99", "notes.txt"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        Checkpoints::open(run.path()).unwrap();
        assert_eq!(names_in(&folder).unwrap().len(), 5);
        Checkpoints::open_for_writing(run.path(), 3).unwrap();
        let mut left = names_in(&folder).unwrap();
        left.sort();
        assert_eq!(left, ["000000000001.safetensors", "index.json", "notes.txt"]);
    }

    #[test]
    fn a_lost_index_is_rebuilt() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 3).unwrap();
        checkpoints.save(1, state(1)).unwrap();
        checkpoints.save(2, state(2)).unwrap();
        let index = run.path().join(FOLDER).join(INDEX);
        fs::write(&index, "{").unwrap();
        assert!(Checkpoints::open(run.path()).unwrap_err().to_string().contains("move it away"));
        fs::remove_file(index).unwrap();
        let again = Checkpoints::open_for_writing(run.path(), 3).unwrap();
        assert_eq!((again.steps(), again.latest()), (vec![1, 2], Some(2)));
    }

    #[test]
    fn an_index_that_no_run_writes_is_damaged() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 3).unwrap();
        checkpoints.save(1, state(1)).unwrap();
        checkpoints.save(2, state(2)).unwrap();
        let index = run.path().join(FOLDER).join(INDEX);
        let good = fs::read_to_string(&index).unwrap();
        for (from, to, what) in [
            ("\"step\": 1,", "\"step\": 3,", "not in order"),
            ("\"step\": 1,", "\"step\": 2,", "not in order"),
            ("000000000001", "000000000002", "not its step's"),
            ("000000000001", "../000000000001", "not its step's"),
            ("\"latest\": 2", "\"latest\": 1", "latest"),
            ("\"latest\": 2", "\"latest\": null", "latest"),
            ("\"best\": null", "\"best\": {\"step\": 7, \"score\": 1}", "best"),
        ] {
            assert!(good.contains(from), "{good}");
            fs::write(&index, good.replacen(from, to, 1)).unwrap();
            let error = Checkpoints::open(run.path()).unwrap_err();
            assert!(error.bad_input() && error.to_string().contains(what), "{to}: {error}");
        }
        fs::write(&index, b"{\"format\": 1, \xff}").unwrap();
        let error = Checkpoints::open(run.path()).unwrap_err();
        assert!(error.bad_input() && error.to_string().contains("move it away"), "{error}");
    }

    #[test]
    fn rewinding_forgets_what_came_after() {
        let run = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open_for_writing(run.path(), 5).unwrap();
        for step in [1, 2, 3] {
            checkpoints.save(step, state(0)).unwrap();
        }
        checkpoints.mark_best(3, 1.0).unwrap();
        checkpoints.rewind(2).unwrap();
        assert_eq!((checkpoints.steps(), checkpoints.best()), (vec![1, 2], None));
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Save(u64),
        Mark(f64),
        Rewind(u64),
    }

    fn any_deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            3 => (1u64..4).prop_map(Deed::Save),
            1 => proptest::num::f64::NORMAL.prop_map(Deed::Mark),
            1 => (0u64..20).prop_map(Deed::Rewind),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_index_gives_back_what_was_done(
            keep in 1usize..4,
            deeds in proptest::collection::vec(any_deed(), 0..12),
        ) {
            let run = tempfile::tempdir().unwrap();
            let mut checkpoints = Checkpoints::open_for_writing(run.path(), keep).unwrap();
            // What a run would say of itself: its steps, the best one.
            let (mut steps, mut best): (Vec<u64>, Option<Best>) = (vec![], None);
            for deed in deeds {
                match deed {
                    Deed::Save(further) => {
                        let step = steps.last().unwrap_or(&0) + further;
                        checkpoints.save(step, state(step as i64)).unwrap();
                        steps.push(step);
                        let first_kept = steps.len().saturating_sub(keep);
                        let late = steps.split_off(first_kept);
                        steps.retain(|&step| best.is_some_and(|best| best.step == step));
                        steps.extend(late);
                    }
                    Deed::Mark(score) => {
                        let Some(&step) = steps.last() else { continue };
                        checkpoints.mark_best(step, score).unwrap();
                        best = Some(Best { step, score });
                        // The one that was best before need not be kept any more.
                        let first_kept = steps.len().saturating_sub(keep);
                        steps.drain(..first_kept);
                    }
                    Deed::Rewind(step) => {
                        checkpoints.rewind(step).unwrap();
                        if steps.iter().any(|&saved| saved > step) {
                            steps.retain(|&saved| saved <= step);
                            best = best.filter(|best| best.step <= step);
                        }
                    }
                }
                let read = Checkpoints::open(run.path()).unwrap();
                prop_assert_eq!(read.steps(), steps.clone());
                prop_assert_eq!((read.latest(), read.best()), (steps.last().copied(), best));
                for &step in &steps {
                    let (loaded, content) = read.load(Which::Step(step)).unwrap();
                    prop_assert_eq!((loaded, x_of(content)), (step, step as i64));
                }
                let files = names_in(&run.path().join(FOLDER)).unwrap();
                let files = files.iter().filter(|name| step_in(name).is_some()).count();
                prop_assert_eq!(files, steps.len());
            }
        }
    }

    #[test]
    fn names_of_checkpoints() {
        for which in [Which::Latest, Which::Best, Which::Step(12)] {
            assert_eq!(which.to_string().parse::<Which>().unwrap(), which);
        }
        assert!("newest".parse::<Which>().is_err());
    }
}
