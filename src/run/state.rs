//! The one visitor that both saves and loads, so that nothing can be saved and not restored.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Tensor, kind::Element};

use super::error::{Error, Result};
use super::segments::Segments;
use super::tensor_file::Values;

/// Named tensors and values on their way out of an object or into it.
///
/// Each part of a run has one `state` function that names what it consists of. While saving, the
/// names collect what the object holds; while loading, the same calls in the same order put it
/// back.
#[derive(Debug)]
pub struct State {
    loading: bool,
    prefix: String,
    tensors: BTreeMap<String, Tensor>,
    values: Values,
    /// Where the content came from, for messages.
    origin: Option<PathBuf>,
    /// While saving: rows of each ring that are on disk already.
    written: BTreeMap<String, u64>,
    /// While saving: the rings that were visited.
    rings: BTreeMap<String, SavedRing>,
    /// While loading: where rows of rings are.
    segments: Option<Segments>,
}

/// What of a ring was collected.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SavedRing {
    /// Rows that it holds.
    pub held: Range<u64>,
    /// Those of them that were not on disk before.
    pub new: Range<u64>,
    /// Names of the tensors that hold these.
    pub tensors: Vec<String>,
}

impl State {
    /// Collects what it visits.
    pub fn saving() -> Self {
        State {
            loading: false,
            prefix: String::new(),
            tensors: BTreeMap::new(),
            values: Values::new(),
            origin: None,
            written: BTreeMap::new(),
            rings: BTreeMap::new(),
            segments: None,
        }
    }

    /// As [`State::saving`], where so many rows of each ring are on disk already.
    pub(super) fn saving_after(written: BTreeMap<String, u64>) -> Self {
        State { written, ..State::saving() }
    }

    /// Puts `tensors` and `values` into what it visits.
    pub fn loading(tensors: BTreeMap<String, Tensor>, values: Values) -> Self {
        State { loading: true, tensors, values, ..State::saving() }
    }

    /// Where to find the rows of rings that are not among the tensors.
    pub(super) fn with_segments(mut self, segments: Segments) -> Self {
        self.segments = Some(segments);
        self
    }

    /// Names the file that the content came from in every later message.
    pub fn from_file(mut self, path: PathBuf) -> Self {
        self.origin = Some(path);
        self
    }

    /// Whether the visited objects are being restored. Needed only to rebuild what is derived
    /// from restored parts.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    /// A tensor of fixed shape and kind, restored in place so that views of it stay views.
    pub fn tensor(&mut self, name: &str, t: &mut Tensor) -> Result<()> {
        if !self.loading {
            return self.put(name, t);
        }
        let saved = self.take(name)?;
        if saved.size() != t.size() || saved.f_kind()? != t.f_kind()? {
            return Err(self.misfit(
                name,
                format!(
                    "saved as {:?} {:?}, needed as {:?} {:?}",
                    saved.f_kind()?,
                    saved.size(),
                    t.f_kind()?,
                    t.size()
                ),
            ));
        }
        tch::no_grad(|| t.f_copy_(&saved))?;
        Ok(())
    }

    /// A tensor whose shape is part of what is saved, such as a pool that fills up. It is
    /// replaced when restored; its kind and number of dimensions must fit.
    pub fn resizable(&mut self, name: &str, t: &mut Tensor) -> Result<()> {
        if !self.loading {
            return self.put(name, t);
        }
        let saved = self.take(name)?;
        if saved.dim() != t.dim() || saved.f_kind()? != t.f_kind()? {
            return Err(self.misfit(
                name,
                format!(
                    "saved as {:?} with {} dimensions, needed as {:?} with {}",
                    saved.f_kind()?,
                    saved.dim(),
                    t.f_kind()?,
                    t.dim()
                ),
            ));
        }
        *t = saved.f_to_device(t.device())?;
        Ok(())
    }

    /// A plain vector of numbers, of any length.
    pub fn vector<T: Element + Copy + Default>(&mut self, name: &str, v: &mut Vec<T>) -> Result<()> {
        if !self.loading {
            return self.put(name, &Tensor::f_from_slice(v)?);
        }
        let saved = self.take(name)?;
        if saved.dim() != 1 || saved.f_kind()? != T::KIND {
            let found = format!(
                "saved as {:?} {:?}, needed as a vector of {:?}",
                saved.kind(),
                saved.size(),
                T::KIND
            );
            return Err(self.misfit(name, found));
        }
        let mut restored = vec![T::default(); saved.numel()];
        saved.f_copy_data(&mut restored, saved.numel())?;
        *v = restored;
        Ok(())
    }

    /// Anything small that serde knows; a finite number comes back as exactly itself.
    ///
    /// An `f64`, `f32` or `Option<f64>` may also be infinite or not a number. Inside other types
    /// JSON has no word for such numbers: there they are refused when saving (and an `Option`
    /// of one becomes `None`). Vectors of numbers belong into [`State::vector`].
    pub fn value<T: Serialize + DeserializeOwned + 'static>(&mut self, name: &str, v: &mut T) -> Result<()> {
        let key = self.key(name);
        if self.loading {
            let saved = self.values.remove(&key).ok_or_else(|| {
                self.misfit(name, "missing: it was saved by another version or recipe".into())
            })?;
            return match decode(saved) {
                Ok(restored) => {
                    *v = restored;
                    Ok(())
                }
                Err(error) => Err(self.misfit(name, error.to_string())),
            };
        }
        let encoded = encode(v).map_err(|e| Error::Invalid(format!("state `{key}` cannot be saved: {e}")))?;
        // What would come back differently must not be saved in the first place.
        let back = decode::<T>(encoded.clone()).and_then(|back| encode(&back));
        if back.ok().as_ref() != Some(&encoded) {
            return Err(Error::Invalid(format!(
                "state `{key}` would not come back as it is: does it hold a number that is not finite?"
            )));
        }
        match self.values.insert(key.clone(), encoded) {
            None => Ok(()),
            Some(_) => Err(Error::Invalid(format!("state `{key}` was saved twice"))),
        }
    }

    /// As [`State::value`], for a list whose length follows from the recipe: another length is refused.
    pub fn list<T: Serialize + DeserializeOwned + 'static>(
        &mut self,
        name: &str,
        v: &mut Vec<T>,
    ) -> Result<()> {
        let length = v.len();
        self.value(name, v)?;
        match v.len() {
            restored if restored == length => Ok(()),
            restored => {
                Err(self.misfit(name, format!("saved with {restored} elements, needed with {length}")))
            }
        }
    }

    /// A ring of rows, such as a replay: row `i` of all that were ever written, `rows` of them, lies at `i` modulo the
    /// capacity of the columns, `[capacity, …]` each. A checkpoint writes only the rows that none before it has.
    ///
    /// # Errors
    /// While loading: rows that are missing, damaged, or of another shape.
    pub fn ring(&mut self, name: &str, rows: &mut u64, columns: &mut [(&str, &mut Tensor)]) -> Result<()> {
        let key = self.key(name);
        let capacity = columns.first().map_or(0, |(_, column)| column.size()[0]) as u64;
        self.scope(name, |state| state.value("rows", rows))?;
        let held = rows.saturating_sub(capacity)..*rows;
        if !self.loading {
            let from = self.written.get(&key).copied().unwrap_or(0).clamp(held.start, held.end);
            let (new, mut tensors) = (from..held.end, Vec::new());
            for (column, tensor) in columns {
                self.put(&format!("{name}/{column}"), &part_of_ring(tensor, &new))?;
                tensors.push(format!("{key}/{column}"));
            }
            self.rings.insert(key, SavedRing { held, new, tensors });
            return Ok(());
        }
        let mut fill =
            |misfit: &dyn Fn(String) -> Error, first: u64, found: &mut BTreeMap<String, Tensor>| {
                for (column, tensor) in columns.iter_mut() {
                    let Some(saved) = found.remove(*column) else {
                        return Err(misfit(format!("`{column}` is missing")));
                    };
                    if saved.size()[1..] != tensor.size()[1..] || saved.f_kind()? != tensor.f_kind()? {
                        return Err(misfit(format!(
                            "`{column}` was saved as {:?} {:?}, needed as {:?} {:?}",
                            saved.f_kind()?,
                            saved.size(),
                            tensor.f_kind()?,
                            tensor.size()
                        )));
                    }
                    write_to_ring(tensor, first, &saved)?;
                }
                Ok(())
            };
        // Collected and restored within one process, or by a checkpoint that had no other before it.
        let prefix = format!("{key}/");
        let names: Vec<String> =
            self.tensors.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        if !names.is_empty() {
            let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
            for name in names {
                if let Some(tensor) = self.tensors.remove(&name) {
                    found.insert(name[prefix.len()..].into(), tensor);
                }
            }
            let length = found.values().next().map_or(0, |tensor| tensor.size()[0]) as u64;
            let all = found.values().all(|tensor| tensor.size()[0] as u64 == length);
            let misfit = |message| self.misfit(name, message);
            if length != held.end - held.start || !all {
                return Err(misfit(format!("{length} rows were saved of {}", held.end - held.start)));
            }
            return fill(&misfit, held.start, &mut found);
        }
        match &self.segments {
            Some(segments) => segments.read(&key, held, |path, first, mut found| {
                fill(&|message| Error::bad_file(path, message), first, &mut found)
            }),
            None if held.is_empty() => Ok(()),
            None => Err(self.misfit(name, "its rows are missing".into())),
        }
    }

    /// What was collected of rings.
    pub(super) fn take_rings(&mut self) -> BTreeMap<String, SavedRing> {
        std::mem::take(&mut self.rings)
    }

    /// Runs `f` with `name/` before every name.
    pub fn scope<R>(&mut self, name: &str, f: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let length = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('/');
        let result = f(self);
        self.prefix.truncate(length);
        result
    }

    /// After saving: all that was collected. After loading: nothing, or an error if something
    /// that was saved has not been asked for.
    pub fn finish(self) -> Result<(Vec<(String, Tensor)>, Values)> {
        if self.loading {
            let left: Vec<&str> = self
                .tensors
                .keys()
                .map(String::as_str)
                .chain(self.values.keys().map(String::as_str))
                .collect();
            if !left.is_empty() {
                return Err(self.misfit_at(format!(
                    "it holds what this run has no place for: {}; it was saved by another version or recipe",
                    left.join(", ")
                )));
            }
        }
        Ok((self.tensors.into_iter().collect(), self.values))
    }

    /// A collected floating tensor with a NaN whose name begins with `prefix`, if there is one.
    pub(super) fn first_nan(&self, prefix: &str) -> Result<Option<(&str, &Tensor)>> {
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| name.starts_with(prefix)) {
            let float = matches!(tensor.f_kind()?, tch::Kind::Float | tch::Kind::Double);
            if float && tensor.f_isnan()?.f_any()?.f_int64_value(&[])? != 0 {
                return Ok(Some((name, tensor)));
            }
        }
        Ok(None)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A deep copy: the object may go on changing before the file is written.
    fn put(&mut self, name: &str, t: &Tensor) -> Result<()> {
        let key = self.key(name);
        let mut copy = Tensor::f_empty(t.size(), (t.f_kind()?, tch::Device::Cpu))?;
        copy.f_copy_(&t.detach())?;
        match self.tensors.insert(key.clone(), copy) {
            None => Ok(()),
            Some(_) => Err(Error::Invalid(format!("state `{key}` was saved twice"))),
        }
    }

    fn take(&mut self, name: &str) -> Result<Tensor> {
        let key = self.key(name);
        self.tensors
            .remove(&key)
            .ok_or_else(|| self.misfit(name, "missing: it was saved by another version or recipe".into()))
    }

    fn misfit(&self, name: &str, message: String) -> Error {
        self.misfit_at(format!("`{}`: {message}", self.key(name)))
    }

    fn misfit_at(&self, message: String) -> Error {
        match &self.origin {
            Some(path) => Error::bad_file(path, message),
            None => Error::Invalid(format!("saved state: {message}")),
        }
    }
}

/// The places of `rows` in a ring of this capacity: one or two stretches (first place, how many).
fn stretches(capacity: i64, rows: &Range<u64>) -> [(i64, i64); 2] {
    let count = (rows.end - rows.start) as i64;
    let first = if capacity > 0 { (rows.start % capacity as u64) as i64 } else { 0 };
    let before = count.min(capacity - first);
    [(first, before), (0, count - before)]
}

fn part_of_ring(ring: &Tensor, rows: &Range<u64>) -> Tensor {
    let parts = stretches(ring.size()[0], rows).map(|(first, count)| ring.narrow(0, first, count));
    Tensor::cat(&parts, 0)
}

fn write_to_ring(ring: &Tensor, first: u64, rows: &Tensor) -> Result<()> {
    let mut done = 0;
    for (place, count) in stretches(ring.size()[0], &(first..first + rows.size()[0] as u64)) {
        ring.narrow(0, place, count).f_copy_(&rows.narrow(0, done, count))?;
        done += count;
    }
    Ok(())
}

/// JSON turns numbers that are not finite into null; the types that hold one number get words.
fn encode<T: Serialize + 'static>(v: &T) -> serde_json::Result<Value> {
    let any = v as &dyn Any;
    let number = any
        .downcast_ref::<f64>()
        .copied()
        .or_else(|| any.downcast_ref::<f32>().map(|&x| f64::from(x)))
        .or_else(|| any.downcast_ref::<Option<f64>>().copied().flatten());
    match number {
        Some(x) if !x.is_finite() => Ok(Value::String(word(x).into())),
        _ => serde_json::to_value(v),
    }
}

fn decode<T: DeserializeOwned + 'static>(saved: Value) -> serde_json::Result<T> {
    let number = match saved.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        _ => None,
    };
    if let Some(x) = number {
        let candidates: [Box<dyn Any>; 3] = [Box::new(x), Box::new(x as f32), Box::new(Some(x))];
        for candidate in candidates {
            if let Ok(found) = candidate.downcast::<T>() {
                return Ok(*found);
            }
        }
    }
    serde_json::from_value(saved)
}

/// The word for a number that JSON cannot write.
pub(super) fn word(x: f64) -> &'static str {
    match x {
        x if x.is_nan() => "NaN",
        x if x > 0.0 => "inf",
        _ => "-inf",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Kind;

    #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Settings {
        name: String,
        best: Option<(u64, f64)>,
    }

    struct Thing {
        weights: Tensor,
        pool: Tensor,
        returns: Vec<f64>,
        bytes: Vec<u8>,
        score: f64,
        settings: Settings,
    }

    impl Thing {
        fn new() -> Self {
            let weights = Tensor::zeros([2, 2], tch::kind::FLOAT_CPU).set_requires_grad(true);
            let pool = Tensor::zeros([0, 3], tch::kind::FLOAT_CPU);
            Thing { weights, pool, returns: vec![], bytes: vec![], score: 0.0, settings: Settings::default() }
        }

        fn state(&mut self, s: &mut State) -> Result<()> {
            s.scope("thing", |s| {
                s.tensor("weights", &mut self.weights)?;
                s.resizable("pool", &mut self.pool)?;
                s.vector("returns", &mut self.returns)?;
                s.vector("bytes", &mut self.bytes)?;
                s.value("score", &mut self.score)
            })?;
            s.value("settings", &mut self.settings)
        }
    }

    fn save(thing: &mut Thing) -> (BTreeMap<String, Tensor>, Values) {
        let mut state = State::saving();
        thing.state(&mut state).unwrap();
        let (tensors, values) = state.finish().unwrap();
        // Through text, as a file does it.
        let text = serde_json::to_string(&values).unwrap();
        (tensors.into_iter().collect(), serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn everything_comes_back() {
        let mut thing = Thing::new();
        let _ = tch::no_grad(|| thing.weights.fill_(0.25));
        thing.pool = Tensor::ones([4, 3], tch::kind::FLOAT_CPU);
        thing.returns = vec![0.1, f64::NAN, 1e300];
        thing.bytes = vec![1, 2];
        thing.score = f64::NEG_INFINITY;
        thing.settings = Settings { name: "a".into(), best: Some((3, 0.1 + 0.2)) };
        let (tensors, values) = save(&mut thing);
        assert_eq!(tensors.keys().next().unwrap(), "thing/bytes");
        // A deep copy: what happens to the object afterwards is not in it.
        let _ = tch::no_grad(|| thing.weights.fill_(7.0));

        let mut other = Thing::new();
        let view = other.weights.detach();
        let mut state = State::loading(tensors, values);
        other.state(&mut state).unwrap();
        state.finish().unwrap();
        assert_eq!(view.double_value(&[1, 1]), 0.25, "restored in place");
        assert!(other.weights.requires_grad());
        assert_eq!(other.pool.size(), [4, 3]);
        assert_eq!((other.returns[0], other.returns[2]), (0.1, 1e300));
        assert!(other.returns[1].is_nan());
        assert_eq!(other.bytes, [1, 2]);
        assert_eq!(other.score, f64::NEG_INFINITY);
        assert_eq!(other.settings, thing.settings);
    }

    /// A ring of four rows that has been written seven times.
    fn ring() -> (u64, Tensor) {
        (7, Tensor::from_slice(&[4i64, 5, 6, 3]))
    }

    #[test]
    fn a_ring_saves_what_is_new_and_comes_back_whole() {
        for (written, new) in [(0, vec![3i64, 4, 5, 6]), (3, vec![3, 4, 5, 6]), (5, vec![5, 6]), (7, vec![])]
        {
            let (mut rows, mut x) = ring();
            let mut state = State::saving_after([("a/ring".to_string(), written)].into());
            state.scope("a", |s| s.ring("ring", &mut rows, &mut [("x", &mut x)])).unwrap();
            let saved = state.take_rings().remove("a/ring").unwrap();
            assert_eq!((saved.held, saved.new), (3..7, written.max(3)..7));
            let (tensors, values) = state.finish().unwrap();
            assert_eq!((tensors[0].0.as_str(), &saved.tensors[0]), ("a/ring/x", &"a/ring/x".to_string()));
            assert_eq!(Vec::<i64>::try_from(&tensors[0].1).unwrap(), new);
            let (mut rows, mut back) = (0u64, Tensor::zeros([4], (Kind::Int64, tch::Device::Cpu)));
            let mut state = State::loading(tensors.into_iter().collect(), values);
            let loaded = state.scope("a", |s| s.ring("ring", &mut rows, &mut [("x", &mut back)]));
            match written {
                0 | 3 => assert_eq!((rows, back), ring()),
                _ => assert!(loaded.unwrap_err().to_string().contains("rows were saved of 4")),
            }
        }
    }

    #[test]
    fn a_misfit_names_both_sides() {
        let (tensors, values) = save(&mut Thing::new());
        let mut wide = Thing::new();
        wide.weights = Tensor::zeros([2, 5], tch::kind::FLOAT_CPU);
        let mut state = State::loading(tensors, values).from_file("runs/x/5.safetensors".into());
        let message = wide.state(&mut state).unwrap_err().to_string();
        assert_eq!(
            message,
            "runs/x/5.safetensors: `thing/weights`: saved as Float [2, 2], needed as Float [2, 5]"
        );
    }

    #[test]
    fn missing_and_left_over_are_errors() {
        let (mut tensors, values) = save(&mut Thing::new());
        tensors.insert("other".into(), Tensor::from(1.0));
        let mut state = State::loading(tensors, values);
        Thing::new().state(&mut state).unwrap();
        assert!(state.finish().unwrap_err().to_string().contains("other"));
        let mut state = State::loading(BTreeMap::new(), Values::new());
        assert!(Thing::new().state(&mut state).unwrap_err().to_string().contains("thing/weights"));
    }

    #[test]
    fn a_list_keeps_its_length() {
        let mut state = State::saving();
        state.list("starts", &mut vec![true, false]).unwrap();
        let (_, values) = state.finish().unwrap();
        let mut state = State::loading(BTreeMap::new(), values.clone());
        let mut restored = vec![false; 2];
        state.list("starts", &mut restored).unwrap();
        assert_eq!(restored, [true, false]);
        let mut state = State::loading(BTreeMap::new(), values);
        let message = state.list("starts", &mut vec![false; 3]).unwrap_err().to_string();
        assert_eq!(message, "saved state: `starts`: saved with 2 elements, needed with 3");
    }

    #[test]
    fn nothing_is_saved_that_would_not_come_back() {
        let mut state = State::saving();
        let mut lost = Settings { name: String::new(), best: Some((1, f64::NAN)) };
        assert!(state.value("lost", &mut lost).is_err());
        state.value("twice", &mut 1u8).unwrap();
        assert!(state.value("twice", &mut 1u8).is_err());
    }

    #[test]
    fn a_nan_is_found() {
        let mut state = State::saving();
        state.tensor("fine", &mut Tensor::from_slice(&[f32::INFINITY])).unwrap();
        assert_eq!(state.first_nan("").unwrap().map(|bad| bad.0), None);
        state.tensor("bad", &mut Tensor::from_slice(&[1.0f32, f32::NAN])).unwrap();
        assert_eq!(state.first_nan("b").unwrap().map(|bad| bad.0), Some("bad"));
        assert!(state.first_nan("fine").unwrap().is_none());
    }

    /// One of each thing that can be visited.
    #[derive(Debug)]
    enum Part {
        Fixed(Tensor),
        Resizable(Tensor),
        Vector(Vec<f64>),
        Bytes(Vec<u8>),
        List(Vec<Option<u64>>),
        Number(f64),
        Text(String),
    }

    fn any_tensor() -> impl Strategy<Value = Tensor> {
        (proptest::collection::vec(0i64..4, 0..4), any::<[u8; 8]>(), 0usize..6).prop_map(
            |(shape, bits, kind)| {
                let kind = [Kind::Float, Kind::Double, Kind::Int64, Kind::Int, Kind::Uint8, Kind::Bool][kind];
                let length = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
                let bytes: Vec<u8> = bits.into_iter().cycle().take(length).collect();
                let bytes = if kind == Kind::Bool { bytes.iter().map(|b| b & 1).collect() } else { bytes };
                Tensor::f_from_data_size(&bytes, &shape, kind).unwrap()
            },
        )
    }

    fn any_part() -> impl Strategy<Value = Part> {
        prop_oneof![
            any_tensor().prop_map(Part::Fixed),
            any_tensor().prop_map(Part::Resizable),
            proptest::collection::vec(proptest::num::f64::ANY, 0..5).prop_map(Part::Vector),
            any::<Vec<u8>>().prop_map(Part::Bytes),
            any::<Vec<Option<u64>>>().prop_map(Part::List),
            proptest::num::f64::ANY.prop_map(Part::Number),
            any::<String>().prop_map(Part::Text),
        ]
    }

    impl Part {
        /// What the same program holds before it loads.
        fn blank(&self) -> Part {
            match self {
                Part::Fixed(t) => Part::Fixed(t.zeros_like()),
                Part::Resizable(t) => {
                    Part::Resizable(Tensor::zeros(vec![0; t.dim()], (t.kind(), t.device())))
                }
                Part::Vector(_) => Part::Vector(vec![1.0]),
                Part::Bytes(_) => Part::Bytes(vec![1]),
                Part::List(list) => Part::List(vec![None; list.len()]),
                Part::Number(_) => Part::Number(0.5),
                Part::Text(_) => Part::Text("x".into()),
            }
        }

        fn visit(&mut self, name: &str, s: &mut State) -> Result<()> {
            match self {
                Part::Fixed(t) => s.tensor(name, t),
                Part::Resizable(t) => s.resizable(name, t),
                Part::Vector(v) => s.vector(name, v),
                Part::Bytes(v) => s.vector(name, v),
                Part::List(v) => s.list(name, v),
                Part::Number(x) => s.value(name, x),
                Part::Text(x) => s.value(name, x),
            }
        }

        /// The content bit for bit; which NaN a number is does not count.
        fn bits(&self) -> (Vec<i64>, Vec<u8>) {
            let of = |t: &Tensor| {
                let mut bytes = vec![0; t.numel() * t.kind().elt_size_in_bytes()];
                t.copy_data_u8(&mut bytes, t.numel());
                (t.size(), bytes)
            };
            match self {
                Part::Fixed(t) | Part::Resizable(t) => of(t),
                Part::Vector(v) => of(&Tensor::from_slice(v)),
                Part::Bytes(v) => (vec![], v.clone()),
                Part::List(v) => (vec![], format!("{v:?}").into_bytes()),
                Part::Number(x) if x.is_nan() => (vec![], b"NaN".to_vec()),
                Part::Number(x) => (vec![], x.to_le_bytes().to_vec()),
                Part::Text(x) => (vec![], x.clone().into_bytes()),
            }
        }
    }

    fn visit(parts: &mut [(String, Part)], s: &mut State) -> Result<()> {
        parts.iter_mut().enumerate().try_for_each(|(i, (name, part))| {
            s.scope(&format!("scope{}", i % 2), |s| part.visit(&format!("{i}{name}"), s))
        })
    }

    proptest! {
        #[test]
        fn a_file_gives_everything_back(
            mut parts in proptest::collection::vec((any::<String>(), any_part()), 0..8),
        ) {
            let mut state = State::saving();
            visit(&mut parts, &mut state).unwrap();
            let (tensors, values) = state.finish().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            crate::run::tensor_file::write(&path, &tensors, &values).unwrap();

            let (tensors, values) = crate::run::tensor_file::read(&path).unwrap();
            let mut loaded: Vec<_> = parts.iter().map(|(name, part)| (name.clone(), part.blank())).collect();
            let mut state = State::loading(tensors, values);
            visit(&mut loaded, &mut state).unwrap();
            state.finish().unwrap();
            for ((name, saved), (_, loaded)) in parts.iter().zip(&loaded) {
                prop_assert_eq!(saved.bits(), loaded.bits(), "{}", name);
            }
        }

        #[test]
        fn numbers_are_exact(x in any::<f64>(), y in any::<f32>(), n in any::<u64>()) {
            let (mut a, mut b, mut c, mut d) = (x, y, n, Some(x));
            let mut state = State::saving();
            let visit = |s: &mut State, a: &mut f64, b: &mut f32, c: &mut u64, d: &mut Option<f64>| {
                s.value("a", a)?; s.value("b", b)?; s.value("c", c)?; s.value("d", d)
            };
            visit(&mut state, &mut a, &mut b, &mut c, &mut d).unwrap();
            let (_, values) = state.finish().unwrap();
            let values = serde_json::from_str(&serde_json::to_string(&values).unwrap()).unwrap();
            (a, b, c, d) = (0.0, 0.0, 0, None);
            let mut state = State::loading(BTreeMap::new(), values);
            visit(&mut state, &mut a, &mut b, &mut c, &mut d).unwrap();
            prop_assert!(a.to_bits() == x.to_bits() || (a.is_nan() && x.is_nan()));
            prop_assert!(b.to_bits() == y.to_bits() || (b.is_nan() && y.is_nan()));
            prop_assert_eq!(c, n);
            prop_assert_eq!(d.map(f64::is_nan), Some(x.is_nan()));
        }
    }
}
