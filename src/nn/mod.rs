//! Networks: parameters in one flat buffer, torsos, heads, normalisers, the actor-critic.

mod adam;
mod distribution;
mod flat;
mod normaliser;
mod policy;
mod torso;

pub use adam::Adam;
pub use distribution::Distribution;
pub use flat::{Flat, Init, Layout, Slot};
pub use normaliser::RunningNorm;
pub use policy::{Acted, ActorCritic, Evaluated, Head, PolicySpec, Snapshot};
pub use torso::{Activation, Linear, Mlp, Torso, TorsoKind, TorsoSpec, features_of};
