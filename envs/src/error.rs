//! What can go wrong with an environment, with the place and the mend in the message.

/// Everything an environment can refuse or fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No environment has this name.
    #[error(
        "unknown environment `{id}`{hint}; `imago envs list` shows those with names of their own, `gym:ID` opens any registered Gymnasium environment"
    )]
    UnknownEnv {
        /// What was asked for.
        id: String,
        /// "; did you mean …?" or nothing.
        hint: String,
    },
    /// The environment does not take this argument, or not with this value.
    #[error("environment `{id}`: argument `{argument}`: {message}")]
    BadArgument {
        /// The environment.
        id: String,
        /// The argument's name.
        argument: String,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// A kind of space that no network here can read or write yet.
    #[error(
        "environment `{id}`: {what} space {space} is not supported{hint}; supported are observations of Box, Discrete, MultiDiscrete, MultiBinary and Dict or Tuple of these, and actions of the same with a Box of floats"
    )]
    UnsupportedSpace {
        /// The environment.
        id: String,
        /// "observation" or "action".
        what: &'static str,
        /// The space as the environment prints it.
        space: String,
        /// What to do about it, after a colon, or nothing.
        hint: &'static str,
    },
    /// Fields that make no record.
    #[error("these fields make no space: {message}")]
    BadFields {
        /// Which one, and why.
        message: String,
    },
    /// Two things that should share a space do not.
    #[error("{what} do not fit: expected {ours}, found {theirs}")]
    SpaceMismatch {
        /// Which spaces, in words.
        what: String,
        /// The expected one.
        ours: String,
        /// The one that was given.
        theirs: String,
    },
    /// A Python package that the environment needs is not installed.
    #[error("environment `{id}` needs {package}, which is not installed; install it with: {install}")]
    MissingPackage {
        /// The environment.
        id: String,
        /// What is missing.
        package: String,
        /// The command that installs it.
        install: String,
    },
    /// Packages that could not be installed.
    #[error("{0}")]
    Install(
        /// Why.
        String,
    ),
    /// A saved space that contradicts itself.
    #[error("the space {space} is damaged: {message}")]
    DamagedSpace {
        /// The space.
        space: String,
        /// The contradiction.
        message: &'static str,
    },
    /// Python raised.
    #[error("environment `{id}`: {doing}: Python raised {message}")]
    Python {
        /// The environment.
        id: String,
        /// What was being done: "make", "reset", "step" …
        doing: &'static str,
        /// Exception type and text, without the traceback.
        message: String,
    },
    /// A reward signal in Python does not do as it should.
    #[error("reward signal `{target}`: {message}")]
    Signal {
        /// `module:Class`
        target: String,
        /// What it did and what it should have done.
        message: String,
    },
    /// The environment broke its own contract: a wrong shape, a NaN.
    #[error("environment `{id}`: {message}")]
    Contract {
        /// The environment.
        id: String,
        /// What it did and what it should have done.
        message: String,
    },
    /// The process that steps the environment is gone, or cannot go on.
    #[error("environment `{id}`: {message}")]
    Process {
        /// The environment.
        id: String,
        /// What happened to it.
        message: String,
    },
    /// A saved state that this environment cannot take.
    #[error("environment `{id}` cannot be restored: {message}")]
    CannotRestore {
        /// The environment.
        id: String,
        /// Why.
        message: String,
    },
}

/// Result of anything an environment does.
pub type Result<T, E = Error> = std::result::Result<T, E>;
