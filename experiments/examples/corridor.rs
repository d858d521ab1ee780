//! Your own environment and your own reward signal, with the whole program around them:
//!
//! `cargo run --release --example corridor -- train experiments/examples/corridor.toml`

use imago::rollout::Batch;
use imago::signal::RewardSignal;
use imago_envs::{Env, Leaf, LeafMut, Space, Step};
use tch::{Kind, Tensor};

/// Walk from 0 to 1; going left or right moves by 0.1. No reward of its own.
struct Corridor(Space, Space, f32);

impl Env for Corridor {
    fn observation_space(&self) -> &Space {
        &self.0
    }
    fn action_space(&self) -> &Space {
        &self.1
    }
    fn reset(&mut self, _seed: u64, mut observation: LeafMut) -> imago_envs::Result<()> {
        self.2 = 0.0;
        observation.f32()[0] = self.2;
        Ok(())
    }
    fn step(&mut self, action: Leaf, mut observation: LeafMut) -> imago_envs::Result<Step> {
        self.2 = (self.2 + if action.i64()[0] == 1 { 0.1 } else { -0.1 }).clamp(0.0, 1.0);
        observation.f32()[0] = self.2;
        Ok(Step { reward: f64::from(self.2), terminated: false, truncated: false })
    }
}

/// Pays for being far to the right, times a key of the recipe.
struct Rightness(f64);

impl RewardSignal for Rightness {
    fn reward(&mut self, batch: &Batch) -> imago::Result<Tensor> {
        Ok(batch.in_lead(&(batch.flat_observation().view(-1) * self.0)).to_kind(Kind::Float))
    }
}

fn main() -> std::process::ExitCode {
    imago_experiments::Program::default()
        .env("Corridor-v0", "walk to the right", Some(20), |_| {
            Ok(Corridor(Space::floats(&[1], 0.0, 1.0), Space::discrete(2), 0.0))
        })
        .signal_kind("rightness", |keys, _| {
            Ok(Box::new(Rightness(keys.get("scale").and_then(toml::Value::as_float).unwrap_or(1.0))))
        })
        .main()
}
