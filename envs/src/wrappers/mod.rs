//! Wrappers: what lies between an environment and the learner, each asked for by keys of
//! [`EnvSpec`], which says in which order they are applied and why.
//!
//! Each is an [`Env`] over another one, which can be used alone. What is not about it (masks, pictures for people,
//! numbers of `info`) passes through; what it remembers is in front of the inner environment's saved state. Steps that a
//! wrapper takes by itself (no-ops, repetitions, actions that stick) ask for no mask.

mod action_repeat;
mod action_set;
mod frame_stack;
mod life_as_episode;
mod noop_starts;
mod picked_field;
mod picture;
mod pictures;
mod resize;
mod sticky_actions;

pub use action_repeat::ActionRepeat;
pub use action_set::ActionSet;
pub use frame_stack::FrameStack;
pub use life_as_episode::LifeAsEpisode;
pub use noop_starts::NoopStarts;
pub use picked_field::PickedField;
pub use picture::{Picture, PictureConfig};
pub use pictures::Pictures;
pub use resize::ResizeMethod;
pub use sticky_actions::StickyActions;

use crate::env::{Env, EnvSpec};
use crate::error::{Error, Result};
use crate::space::{Dtype, LeafBuf, Space};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// `env` in every wrapper that `spec` asks for, but the time limit.
///
/// # Errors
/// Settings that do not fit `env`, each with its key.
pub(crate) fn wrap(mut env: Box<dyn Env>, spec: &EnvSpec) -> Result<Box<dyn Env>> {
    if let Some(name) = &spec.observation {
        env = Box::new(PickedField::new(env, name)?);
    }
    if let Some(actions) = &spec.actions {
        env = Box::new(ActionSet::new(env, actions)?);
    }
    if let Some(most) = spec.noop_max {
        env = Box::new(NoopStarts::new(env, most)?);
    }
    if let Some(probability) = spec.sticky_actions {
        env = Box::new(StickyActions::new(env, probability)?);
    }
    match spec.action_repeat {
        Some(times) => env = Box::new(ActionRepeat::new(env, times, spec.repeat_max)?),
        None if spec.repeat_max => return refuse(&env, "repeat_max", "it needs `action_repeat`"),
        None => {}
    }
    if spec.life_as_episode {
        env = Box::new(LifeAsEpisode::new(env)?);
    }
    if spec.resize_method.is_some() && spec.resize.is_none() {
        return refuse(&env, "resize_method", "it needs `resize`");
    }
    let config = PictureConfig {
        crop: spec.crop.map(|margins| margins.map(|pixels| pixels as usize)),
        grayscale: spec.grayscale,
        resize: spec.resize.map(|side| side.map(|pixels| pixels as usize)),
        method: spec.resize_method.unwrap_or_default(),
    };
    // Colours lie beside each other in a pixel; only whole planes can be stacked.
    let space = env.observation_space();
    let stacks_pixels = spec.frame_stack.is_some() && space.shape().len() == 3 && colours(space).is_some();
    if config != PictureConfig::default() || stacks_pixels {
        env = Box::new(Pictures::new(env, &config)?);
    }
    if let Some(count) = spec.frame_stack {
        env = Box::new(FrameStack::new(env, count as usize)?);
    }
    Ok(env)
}

/// `argument` cannot be as it is with this environment.
fn refuse<T>(env: &dyn Env, argument: &str, message: impl Into<String>) -> Result<T> {
    Err(Error::BadArgument { id: env.id().into(), argument: argument.into(), message: message.into() })
}

/// Colours of each pixel of a picture space, `[H, W]` or `[H, W, C]` of bytes; `None` if it is none.
fn colours(space: &Space) -> Option<usize> {
    match space {
        Space::Box { shape, dtype: Dtype::U8, .. } => match **shape {
            [_, _] => Some(1),
            [_, _, colours @ 1..=4] => Some(colours),
            _ => None,
        },
        _ => None,
    }
}

/// The action of zeros, which does nothing by the convention of games.
fn noop(env: &dyn Env, argument: &str) -> Result<LeafBuf> {
    let space = env.action_space();
    if let Space::Box { low, high, .. } = space
        && let Some(i) = low.iter().zip(high).position(|(&low, &high)| low > 0.0 || high < 0.0)
    {
        return refuse(env, argument, format!("value {i} of its actions cannot be 0: they are {space}"));
    }
    Ok(LeafBuf::zeros(space, 1))
}

/// Random numbers of an episode for one `purpose`, beside those that the environment itself draws from its seed.
fn stream(seed: u64, purpose: [u8; 8]) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from_le_bytes(purpose));
    rng
}
