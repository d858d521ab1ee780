//! The adversarial core that image GANs and GAIL's discriminator share. One label convention everywhere:
//! **real = expert = 1**, generated = policy = 0; scores are logits x, and D = σ(x).

pub mod adversarial;
pub mod arithmetic;
pub mod attributes;
pub mod augment;
pub mod data;
pub mod dcgan;
pub mod ema;
pub mod features;
pub mod gan;
pub mod grid;
pub mod inversion;
pub mod latent;
pub mod metrics;
pub mod network;
pub mod pool;
pub mod reader;
pub mod schedule;
pub mod tiles;
