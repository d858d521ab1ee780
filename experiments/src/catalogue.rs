//! What ships inside the program: recipes, the demonstrations they use, and image models.

use crate::nearest::nearest;
use anyhow::{Context, Result, bail};
use std::io::Write;
use tempfile::NamedTempFile;

/// Built-in recipes: name and text.
pub const RECIPES: [(&str, &str); 46] = [
    ("a2c/cartpole", include_str!("../recipes/a2c/cartpole.toml")),
    ("bc/cartpole", include_str!("../recipes/bc/cartpole.toml")),
    ("compose/gail-icm-rooms", include_str!("../recipes/compose/gail-icm-rooms.toml")),
    ("dac/hopper", include_str!("../recipes/dac/hopper.toml")),
    ("dcgan/faces", include_str!("../recipes/dcgan/faces.toml")),
    ("dcgan/faces-modern", include_str!("../recipes/dcgan/faces-modern.toml")),
    ("dcgan/frames", include_str!("../recipes/dcgan/frames.toml")),
    ("dcgan/photos", include_str!("../recipes/dcgan/photos.toml")),
    ("dcgan/pixel-art", include_str!("../recipes/dcgan/pixel-art.toml")),
    ("dcgan/tiles", include_str!("../recipes/dcgan/tiles.toml")),
    ("gail/cartpole", include_str!("../recipes/gail/cartpole.toml")),
    ("gail/hopper", include_str!("../recipes/gail/hopper.toml")),
    ("gail/original-cartpole", include_str!("../recipes/gail/original-cartpole.toml")),
    ("gail/pixels-rooms", include_str!("../recipes/gail/pixels-rooms.toml")),
    ("icm/doom-dense", include_str!("../recipes/icm/doom-dense.toml")),
    ("icm/doom-no-reward", include_str!("../recipes/icm/doom-no-reward.toml")),
    ("icm/doom-noise", include_str!("../recipes/icm/doom-noise.toml")),
    ("icm/doom-sparse", include_str!("../recipes/icm/doom-sparse.toml")),
    ("icm/doom-very-sparse", include_str!("../recipes/icm/doom-very-sparse.toml")),
    ("icm/mario-finetune", include_str!("../recipes/icm/mario-finetune.toml")),
    ("icm/mario-no-reward", include_str!("../recipes/icm/mario-no-reward.toml")),
    ("icm/original-doom", include_str!("../recipes/icm/original-doom.toml")),
    ("icm/rooms-noise", include_str!("../recipes/icm/rooms-noise.toml")),
    ("icm/rooms-sparse", include_str!("../recipes/icm/rooms-sparse.toml")),
    ("ppo/cartpole", include_str!("../recipes/ppo/cartpole.toml")),
    ("ppo/doom-basic", include_str!("../recipes/ppo/doom-basic.toml")),
    ("ppo/doom-dense", include_str!("../recipes/ppo/doom-dense.toml")),
    ("ppo/doom-sparse", include_str!("../recipes/ppo/doom-sparse.toml")),
    ("ppo/halfcheetah-seals", include_str!("../recipes/ppo/halfcheetah-seals.toml")),
    ("ppo/hopper", include_str!("../recipes/ppo/hopper.toml")),
    ("ppo/lunarlander", include_str!("../recipes/ppo/lunarlander.toml")),
    ("ppo/mario", include_str!("../recipes/ppo/mario.toml")),
    ("ppo/minigrid-empty", include_str!("../recipes/ppo/minigrid-empty.toml")),
    ("ppo/mountaincar", include_str!("../recipes/ppo/mountaincar.toml")),
    ("ppo/orchard", include_str!("../recipes/ppo/orchard.toml")),
    ("ppo/pendulum", include_str!("../recipes/ppo/pendulum.toml")),
    ("ppo/pong", include_str!("../recipes/ppo/pong.toml")),
    ("ppo/rooms-dense", include_str!("../recipes/ppo/rooms-dense.toml")),
    ("ppo/rooms-sparse", include_str!("../recipes/ppo/rooms-sparse.toml")),
    ("ppo/tmaze", include_str!("../recipes/ppo/tmaze.toml")),
    ("rnd/rooms-sparse", include_str!("../recipes/rnd/rooms-sparse.toml")),
    ("sac/halfcheetah", include_str!("../recipes/sac/halfcheetah.toml")),
    ("sac/hopper", include_str!("../recipes/sac/hopper.toml")),
    ("sac/pendulum", include_str!("../recipes/sac/pendulum.toml")),
    ("trpo/acrobot", include_str!("../recipes/trpo/acrobot.toml")),
    ("trpo/cartpole", include_str!("../recipes/trpo/cartpole.toml")),
];

/// Built-in demonstrations, as `builtin:NAME` in recipes, recorded with `imago record`: ten episodes of the experts that
/// `imago train ppo/cartpole --set env.id=seals/CartPole-v0` and `imago train trpo/cartpole` give, the latter with
/// `--stochastic` as in the GAIL paper; every 20th pair of four episodes (return 3,657) of that which
/// `imago train ppo/hopper --set run.total_steps=1_000_000 --set rollout.steps=512` has after 500,000 steps; every 5th pair
/// from step 10 on of the fifth to ninth of twenty episodes of an earlier `icm/rooms-sparse`, from the very sparse start, with
/// `--stochastic`; every 5th pair of forty episodes of `imago train ppo/rooms-dense --seed 2`, recorded so, too, in which it
/// goes on after each armour (`endless = true` in the run's recipe).
pub const DEMOS: [(&str, &[u8]); 5] = [
    ("cartpole-v0", include_bytes!("../recipes/demos/cartpole-v0.demos")),
    ("hopper", include_bytes!("../recipes/demos/hopper.demos")),
    ("rooms", include_bytes!("../recipes/demos/rooms.demos")),
    ("rooms-endless", include_bytes!("../recipes/demos/rooms-endless.demos")),
    ("seals-cartpole", include_bytes!("../recipes/demos/seals-cartpole.demos")),
];

/// Built-in image models, as `model:NAME`, files of `imago export`: generators alone.
pub const MODELS: [(&str, &[u8]); 2] = [
    ("faces", include_bytes!("../models/faces.safetensors")),
    ("tiles-crawl", include_bytes!("../models/tiles-crawl.safetensors")),
];

/// A file that holds `bytes` and goes when it is dropped: readers work on files, and so what is built in is checked like
/// anything else.
///
/// # Errors
/// Those of writing.
pub fn unpack(bytes: &[u8]) -> Result<NamedTempFile> {
    let written = NamedTempFile::new().and_then(|mut file| {
        file.write_all(bytes)?;
        file.flush()?;
        Ok(file)
    });
    written.context("cannot unpack what is built in")
}

/// The file of the built-in model `name`.
///
/// # Errors
/// No such model; the known ones are named.
pub fn model(name: &str) -> Result<&'static [u8]> {
    match MODELS.iter().find(|(known, _)| *known == name) {
        Some((_, bytes)) => Ok(bytes),
        None => {
            let names: Vec<&str> = MODELS.iter().map(|(name, _)| *name).collect();
            bail!("no built-in model `{name}` (there are: {})", names.join(", "))
        }
    }
}

/// Text of the built-in recipe `name`.
///
/// # Errors
/// No such recipe; the nearest one is named.
pub fn recipe(name: &str) -> Result<&'static str> {
    match RECIPES.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => Ok(text),
        None => {
            let names: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
            let hint = nearest(name, names.iter().copied())
                .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            bail!("`{name}` is no file, no run and no built-in recipe{hint} (built in: {})", names.join(", "))
        }
    }
}

/// The first comment line of a recipe: what it is.
pub fn headline(text: &str) -> &str {
    text.lines().next().map_or("", |line| line.trim_start_matches('#').trim())
}
