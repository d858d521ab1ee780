//! Any checkpoint and any index of them: training goes on or is refused with one clean error.
//!
//! An input that begins with a line `index` is an index beside two whole checkpoints; any other is the only
//! checkpoint of a run, as `container` says.

use super::container;
use super::small_run::{self, STEP};
use imago::nn::ActorCritic;
use imago::run::{Checkpoints, Error, State, Which, tensor_file};
use imago_envs::Dtype;
use serde_json::Value;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Whether the input was taken.
pub fn check(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let run = folder.path();
    small_run::directory(run);
    match data.strip_prefix(b"index\n") {
        Some(index) => check_index(index, run),
        None => check_checkpoint(data, run),
    }
}

fn check_checkpoint(data: &[u8], run: &Path) -> bool {
    // Without an index the files count by their names.
    let file = run.join(format!("checkpoints/{STEP:012}.safetensors"));
    if container::write(data, &file).is_none() {
        return false;
    }
    let checkpoints = Checkpoints::open(run).expect("there is no index");
    let Ok((_, state)) = checkpoints.load(Which::Step(STEP)) else { return false };
    if !tensor_file::read_metadata(&file).is_ok_and(|metadata| metadata.values().all(countable)) {
        return false;
    }
    act(state);
    match small_run::go_on(run, Some(Which::Step(STEP)), 2 * STEP) {
        Ok(()) => true,
        Err(error) => {
            assert!(!error.to_string().trim().is_empty());
            false
        }
    }
}

/// Whether counters can go on from there. One near 2⁶⁴ overflows, but no run gets so far, and a file with a valid
/// checksum that says so is forged; that is not worth a check at every counter.
fn countable(value: &Value) -> bool {
    match value {
        Value::Number(x) => {
            x.as_u64().is_none_or(|x| x < 1 << 62) && x.as_i64().is_none_or(|x| x > -(1 << 62))
        }
        Value::Array(values) => values.iter().all(countable),
        Value::Object(values) => values.values().all(countable),
        _ => true,
    }
}

/// As `imago eval` begins.
fn act(mut state: State) {
    let policy = state.scope("train", |state| state.scope("policy", ActorCritic::from_state));
    let Ok(policy) = policy else { return };
    let space = &policy.spec.observation;
    let shape: Vec<i64> = std::iter::once(1).chain(space.shape().iter().map(|&n| n as i64)).collect();
    let kind = match space.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        Dtype::I64 => Kind::Int64,
    };
    let (distribution, _) = policy.forward(&Tensor::zeros(&shape[..], (kind, Device::Cpu)));
    let _ = distribution.mode();
}

fn check_index(index: &[u8], run: &Path) -> bool {
    let tiny = |x: i64| {
        let mut state = State::saving();
        state.tensor("x", &mut Tensor::from(x)).expect("a state");
        state
    };
    let mut written = Checkpoints::open_for_writing(run, 2).expect("an empty directory");
    for step in [5, 6] {
        written.save(step, tiny(step as i64)).expect("a checkpoint");
    }
    std::fs::write(run.join("checkpoints/index.json"), index).expect("a file");
    let read = match Checkpoints::open(run) {
        Ok(read) => read,
        Err(error) => {
            assert!(matches!(error, Error::BadFile { .. }), "{error}");
            return false;
        }
    };
    let mut named = vec![Which::Latest, Which::Best, read.preferred()];
    named.extend(read.steps().into_iter().map(Which::Step));
    for which in named {
        let _ = read.resolve(which);
        if let Ok((step, _)) = read.load(which) {
            assert!([5, 6].contains(&step), "{which} is a checkpoint that was never written");
        }
    }
    let last = read.latest().unwrap_or(0);
    let mut written = Checkpoints::open_for_writing(run, 3).expect("it could be opened");
    assert_eq!((written.steps(), written.best()), (read.steps(), read.best()));
    let Some(next) = last.checked_add(1) else { return true };
    written.save(next, tiny(0)).expect("a checkpoint");
    let again = Checkpoints::open(run).expect("what was written can be read");
    assert_eq!((again.steps(), again.best()), (written.steps(), written.best()));
    assert_eq!(again.load(Which::Latest).expect("it was just written").0, next);
    true
}
