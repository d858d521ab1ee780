//! temporary
use tch::Tensor;
/// x
pub struct State;
impl State {
    /// x
    pub fn tensor(&mut self, _n: &str, _t: &mut Tensor) -> crate::Result<()> { Ok(()) }
    /// x
    pub fn value<T: serde::Serialize + serde::de::DeserializeOwned>(&mut self, _n: &str, _v: &mut T) -> crate::Result<()> { Ok(()) }
    /// x
    pub fn is_loading(&self) -> bool { false }
    /// x
    pub fn scope<R>(&mut self, _n: &str, f: impl FnOnce(&mut State) -> crate::Result<R>) -> crate::Result<R> { f(self) }
}
/// x
#[derive(Default)]
pub struct Log;
impl Log {
    /// x
    pub fn scalar(&mut self, _n: &str, _v: f64) {}
    /// x
    pub fn episode(&mut self, _r: f64, _l: f64) {}
}
/// x
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// x
    #[error("{0}")]
    Invalid(String),
    /// x
    #[error(transparent)]
    Env(#[from] imago_envs::Error),
    /// x
    #[error(transparent)]
    Tensor(#[from] tch::TchError),
    /// x
    #[error("{what}")]
    NonFinite{ /// x
        what: String, /// x
        batch: Vec<(String, Tensor)> },
}
/// x
pub trait Train { /// x
 fn step(&self) -> u64; /// x
 fn iterate(&mut self, log: &mut Log) -> crate::Result<()>; /// x
 fn evaluate(&mut self, _log: &mut Log) -> crate::Result<Option<f64>> { Ok(None) } /// x
 fn state(&mut self, s: &mut State) -> crate::Result<()>; /// x
 fn finished(&self) -> bool { false } /// x
 fn conclude(&mut self, log: &mut Log) -> crate::Result<serde_json::Value>; }
/// x
pub mod tensor_file {
 use tch::Tensor; use std::path::Path;
 /// x
 pub fn write(_p:&Path,_t:&[(String,Tensor)],_m:&serde_json::Map<String,serde_json::Value>)->crate::Result<()> {Ok(())}
 /// x
 pub fn read(_p:&Path)->crate::Result<(std::collections::BTreeMap<String,Tensor>,serde_json::Map<String,serde_json::Value>)> {Err(crate::Error::Invalid("stub".into()))}
}
