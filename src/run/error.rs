//! Everything the library can fail with, each message with the place and the mend.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::rollout::Failure;
use tch::{TchError, Tensor};

/// Result of anything the library does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything the library can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// What was attempted, as in "cannot write".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file is missing, damaged, or not what it should be.
    #[error("{}: {message}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// A configuration or request that cannot be met.
    #[error("{0}")]
    Invalid(String),
    /// A number that must be finite is not. [`super::drive`] turns it into [`Error::Diverged`].
    #[error("{what} is not finite")]
    NonFinite {
        /// Which number, in words: "policy loss".
        what: String,
        /// What it was computed from.
        batch: DumpedBatch,
    },
    /// The run stopped over a non-finite number; what led to it is on disk.
    #[error(
        "step {step}: {what} is not finite (first bad tensor: {tensor}){}; {}",
        dump.as_ref().map(|path| format!("; the batch is in {}", path.display())).unwrap_or_default(),
        last_good.as_deref().unwrap_or("there is no earlier checkpoint to go back to")
    )]
    Diverged {
        /// The step at which it was found.
        step: u64,
        /// Which number, in words.
        what: String,
        /// The first tensor of the batch with a bad element.
        tensor: String,
        /// Where the batch was written, if it could be.
        dump: Option<PathBuf>,
        /// The last good checkpoint and the command that goes on from it.
        last_good: Option<String>,
    },
    /// Environments failed more often than a run puts up with.
    #[error("environments failed more often than run.max_faults allows ({count}): {last}")]
    EnvironmentsFailed {
        /// How often in this session.
        count: u64,
        /// The last time.
        last: Failure,
    },
    /// Environments stopped a run, but not without a checkpoint.
    #[error(
        "{cause}; the run is saved at step {step}: `imago train {} --resume` goes on from there, with new episodes",
        run.display()
    )]
    Interrupted {
        /// What the environments did.
        cause: Box<Error>,
        /// The step of the checkpoint.
        step: u64,
        /// The run's directory.
        run: PathBuf,
    },
    /// An environment failed.
    #[error(transparent)]
    Env(#[from] imago_envs::Error),
    /// libtorch failed.
    // Not a `source`: whoever prints the chain would print the C++ stack trace that is cut here.
    #[error("libtorch: {}", first_line(.0))]
    Tensor(TchError),
}

impl Error {
    /// An operating-system error with its place; meant for `map_err`.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { doing, path, source }
    }

    /// A file that is not what it should be.
    pub fn bad_file(path: &Path, message: impl Into<String>) -> Error {
        Error::BadFile { path: path.to_path_buf(), message: message.into() }
    }

    /// A number that must be finite and is not, with the named tensors it was computed from.
    pub fn non_finite(what: impl Into<String>, batch: Vec<(String, Tensor)>) -> Error {
        Error::NonFinite { what: what.into(), batch: DumpedBatch::new(batch) }
    }

    /// Says whose number it was that is not finite.
    pub(crate) fn of_signal(self, name: &str) -> Error {
        match self {
            Error::NonFinite { what, batch } => {
                Error::NonFinite { what: format!("signal `{name}`: {what}"), batch }
            }
            other => other,
        }
    }

    /// Whether the fault lies in what the user gave, so that the program exits with 2 and not 1.
    pub fn bad_input(&self) -> bool {
        match self {
            Error::BadFile { .. } | Error::Invalid(_) => true,
            Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::Env(error) => matches!(
                error,
                imago_envs::Error::UnknownEnv { .. }
                    | imago_envs::Error::BadArgument { .. }
                    | imago_envs::Error::MissingPackage { .. }
                    | imago_envs::Error::UnsupportedSpace { .. }
                    | imago_envs::Error::BadFields { .. }
                    | imago_envs::Error::SpaceMismatch { .. }
            ),
            Error::NonFinite { .. }
            | Error::Diverged { .. }
            | Error::EnvironmentsFailed { .. }
            | Error::Interrupted { .. }
            | Error::Tensor(_) => false,
        }
    }

    /// Whether environments are at fault, so that what was learnt until then is as good as ever.
    pub fn spares_the_learner(&self) -> bool {
        matches!(self, Error::EnvironmentsFailed { .. } | Error::Env(_))
    }
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Error::Tensor(error)
    }
}

/// libtorch appends its C++ stack trace after the first line.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().trim().to_string()
}

/// Named tensors inside an error.
///
/// A tensor may move between threads but not be shared by them, and errors are shared (`anyhow`
/// asks for it): hence the lock.
pub struct DumpedBatch(Mutex<Vec<(String, Tensor)>>);

impl DumpedBatch {
    /// Holds shallow clones or copies, as the caller gives them.
    pub fn new(tensors: Vec<(String, Tensor)>) -> Self {
        DumpedBatch(Mutex::new(tensors))
    }

    /// The tensors back.
    pub fn into_inner(self) -> Vec<(String, Tensor)> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DumpedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(tensors.iter().map(|(name, tensor)| (name, tensor.size()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_threads_and_fits_anyhow() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn a_libtorch_error_is_one_line() {
        let a = Tensor::zeros([2], tch::kind::FLOAT_CPU);
        let b = Tensor::zeros([3], tch::kind::FLOAT_CPU);
        let Err(error) = a.f_add(&b) else { panic!("shapes 2 and 3 were added") };
        let message = Error::from(error).to_string();
        assert!(message.contains("size of tensor"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn the_users_faults_are_told_from_ours() {
        assert!(Error::Invalid(String::new()).bad_input());
        assert!(Error::io("read", Path::new("x"))(io::ErrorKind::NotFound.into()).bad_input());
        assert!(!Error::io("write", Path::new("x"))(io::ErrorKind::StorageFull.into()).bad_input());
        assert!(!Error::non_finite("loss", vec![]).bad_input());
    }
}
