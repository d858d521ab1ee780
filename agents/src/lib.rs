//! Learners, reward signals and demonstrations: each file one idea, read top to bottom like its paper.

mod agent;
mod bc;
mod demonstrations;
mod fused;
mod gail;
mod learner;
mod ppo;
mod trpo;
mod trust_region;
mod value;

pub use agent::{Agent, Evaluation, Returns, mean_std};
pub use bc::{Bc, BcConfig};
pub use demonstrations::{DemoEpisode, DemoSelection, Demonstrations};
pub use gail::{ActionInput, Gail, GailConfig, RewardForm};
pub use learner::Learner;
pub use ppo::{Ppo, PpoConfig};
pub use trpo::{Trpo, TrpoConfig, surrogate};
pub use trust_region::{Problem, Step, TrustRegion, conjugate_gradient};
pub use value::ValueFunction;
