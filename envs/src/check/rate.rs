//! How fast environments are that are stepped side by side.

use super::{draw, measure};
use crate::env::{Env, EnvSpec};
use crate::error::{Error, Result};
use crate::registry::Registry;
use crate::space::LeafBuf;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Barrier;
use std::time::Duration;

/// Steps per second of all together of `threads` environments with random actions, resets included, each in a
/// thread of its own.
///
/// # Errors
/// Whatever the environments report.
pub fn rate(registry: &Registry, spec: &EnvSpec, threads: usize, time: Duration) -> Result<f64> {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let one = |index: usize| {
            let start = &start;
            scope.spawn(move || {
                let env = registry.make(spec);
                // Before any error is passed on: the others must not wait for ever.
                start.wait();
                alone(env?, index as u64, time)
            })
        };
        let workers: Vec<_> = (0..threads).map(one).collect();
        let rates = workers.into_iter().map(|worker| {
            let panicked = |_| Error::Contract { id: spec.id.clone(), message: "it panicked".into() };
            worker.join().map_err(panicked)?
        });
        rates.sum()
    })
}

fn alone(mut env: Box<dyn Env>, index: u64, time: Duration) -> Result<f64> {
    let (space, action_space) = (env.observation_space().clone(), env.action_space().clone());
    let (mut observation, mut action) = (LeafBuf::zeros(&space, 1), LeafBuf::zeros(&action_space, 1));
    let mut mask = vec![true; action_space.choices()];
    let mut rng = ChaCha8Rng::seed_from_u64(index);
    let mut seed = index << 32;
    env.reset(seed, observation.leaf_mut())?;
    let rate = measure(time, || {
        env.action_mask(&mut mask);
        draw(&action_space, &mask, &mut rng, action.leaf_mut());
        let step = env.step(action.leaf(), observation.leaf_mut())?;
        if step.terminated || step.truncated {
            seed += 1;
            env.reset(seed, observation.leaf_mut())?;
        }
        Ok(())
    })?;
    Ok(rate.per_second)
}
