//! Learners, reward signals and demonstrations: each file one idea, read top to bottom like its paper.

mod agent;
mod bc;
mod critics;
mod dac;
mod demonstrations;
mod discriminator;
mod experience;
mod fused;
mod gail;
mod learner;
mod ppo;
mod replay;
mod sac;
mod td3;
mod trpo;
mod trust_region;
mod value;
mod verdict;

pub use agent::{Agent, Evaluation, Returns, mean_std};
pub use bc::{Bc, BcConfig};
pub use critics::{CriticLosses, Critics};
pub use dac::{Dac, DacConfig};
pub use demonstrations::{DemoEpisode, DemoSelection, Demonstrations};
pub use discriminator::{ActionInput, RewardForm};
pub use experience::ReplayConfig;
pub use gail::{Gail, GailConfig};
pub use learner::Learner;
pub use ppo::{Ppo, PpoConfig};
pub use replay::{Replay, Sample};
pub use sac::{Sac, SacConfig};
pub use td3::{Td3, Td3Config};
pub use trpo::{Trpo, TrpoConfig};
