//! Networks: parameters in one flat buffer, torsos, heads, normalisers, the actor-critic.

mod adam;
mod cell;
mod compact;
mod convolution;
mod dense;
mod distribution;
mod flat;
mod normaliser;
mod penalty;
mod policy;
mod squash;
mod torso;

pub use adam::Adam;
pub use cell::{Cell, CellKind};
pub use compact::{Choice, Compact, CompactTrace, Decision, gaussian_log_prob, log_softmax};
pub use convolution::{Convolutions, ImageTrace};
pub use dense::{Dense, Trace, vectorised};
pub use distribution::Distribution;
pub use flat::{Flat, Init, Layout, Slot};
pub use normaliser::RunningNorm;
pub use penalty::PenaltyScratch;
pub use policy::{ActorCritic, Evaluated, Head, MemorySpec, PolicySpec, Snapshot};
pub use squash::{Bounds, BoxHead, LOG_STD_RANGE, log_slope, log_slope_of, unit_rows};
pub use torso::{
    Activation, Linear, Mlp, Precision, Torso, TorsoKind, TorsoSpec, downsampled, downsampled_space,
    features_of, standardised_features,
};
