//! The adversarial core that image GANs and GAIL's discriminator share. One label convention everywhere:
//! **real = expert = 1**, generated = policy = 0; scores are logits x, and D = σ(x).

pub mod adversarial;
pub mod augment;
pub mod dcgan;
pub mod ema;
pub mod network;
pub mod pool;
pub mod schedule;
