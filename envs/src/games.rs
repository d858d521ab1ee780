//! Games whose Python half comes with this program, and their names in the registry.

use crate::env::EnvSpec;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::{CStr, CString};

/// A game as Gymnasium is told of it.
struct Game {
    /// Its id there, which its file registers.
    id: &'static str,
    source: &'static str,
    file: &'static CStr,
    module: &'static CStr,
    loaded: PyOnceLock<()>,
}

/// VizDoom's.
pub(crate) const DOOM: &str = "imago/Doom-v0";

static GAMES: [Game; 2] = [
    Game {
        id: DOOM,
        source: include_str!("games/doom.py"),
        file: c"games/doom.py",
        module: c"imago_doom",
        loaded: PyOnceLock::new(),
    },
    Game {
        id: "imago/SuperMarioBros-v0",
        source: include_str!("games/mario.py"),
        file: c"games/mario.py",
        module: c"imago_mario",
        loaded: PyOnceLock::new(),
    },
];

/// Has Python read the file of the game that Gymnasium calls `id`, if there is one.
pub(crate) fn load(py: Python, id: &str) -> PyResult<()> {
    let Some(game) = GAMES.iter().find(|game| game.id == id) else { return Ok(()) };
    let read = || -> PyResult<()> {
        PyModule::from_code(py, &CString::new(game.source)?, game.file, game.module).map(drop)
    };
    game.loaded.get_or_try_init(py, read).map(drop)
}

/// Whether the game looks for files of its user's (argument `folder`).
pub(crate) fn reads_files(id: &str) -> bool {
    id == DOOM
}

/// A name in the registry that stands for a spec.
pub(crate) struct Preset {
    pub id: String,
    pub description: String,
    /// The extra that it needs.
    pub extra: &'static str,
    pub spec: EnvSpec,
}

/// The games' names. Keys that a preset gives are those of a recipe's `[env]`; the user's own win.
pub(crate) fn presets() -> Vec<Preset> {
    let game = |game: &Game, arguments: &[(&str, toml::Value)]| {
        let mut spec = EnvSpec::new(&format!("gym:{}", game.id));
        spec.args = arguments.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        spec
    };
    let [doom, mario] = &GAMES;
    let mut presets = Vec::new();
    let mut add = |id: String, description: String, extra, spec| {
        presets.push(Preset { id, description, extra, spec });
    };
    add(
        "Doom".into(),
        "any scenario of VizDoom: 'Doom?cfg=basic.cfg', or files of your own (cfg, wad, actions)".into(),
        "doom",
        game(doom, &[]),
    );
    // What Pathak et al. 2017 played.
    for (name, start, where_from) in [
        ("dense", "random", "any of 17 places"),
        ("sparse", "sparse", "270 tics away"),
        ("very-sparse", "very-sparse", "350 tics away"),
    ] {
        add(
            format!("DoomMyWayHome-{name}"),
            format!(
                "find the armour in nine rooms, from {where_from}; 4 grey pictures; at most 525 decisions"
            ),
            "doom",
            EnvSpec {
                grayscale: true,
                resize: Some([42, 42]),
                frame_stack: Some(4),
                metrics: ["x", "y", "cells"].map(String::from).into(),
                ..game(doom, &[("start", start.into()), ("colour", true.into()), ("max_of_two", true.into())])
            },
        );
    }
    for world in 1..=8 {
        for stage in 1..=4 {
            add(
                format!("SuperMarioBros-{world}-{stage}"),
                "one life in this level: 14 joypad combinations, held for 6 frames; 4 grey pictures".into(),
                "mario",
                EnvSpec {
                    action_repeat: Some(6),
                    // The paper cuts 24 and 12 rows off the 224 that its emulator shows, which are the middle ones.
                    crop: Some([32, 20, 8, 8]),
                    grayscale: true,
                    resize: Some([42, 42]),
                    frame_stack: Some(4),
                    metrics: ["x_pos", "flag_get"].map(String::from).into(),
                    ..game(mario, &[("world", world.into()), ("stage", stage.into())])
                },
            );
        }
    }
    presets
}
