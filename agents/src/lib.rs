//! Learners, reward signals and demonstrations: each file one idea, read top to bottom like its paper.

mod agent;
mod bc;
mod demonstrations;
mod fused;
mod gail;
mod ppo;

pub use agent::{Agent, Evaluation, Returns, mean_std};
pub use bc::{Bc, BcConfig};
pub use demonstrations::{DemoEpisode, DemoSelection, Demonstrations};
pub use gail::{ActionInput, Gail, GailConfig, RewardForm};
pub use ppo::{Ppo, PpoConfig};
