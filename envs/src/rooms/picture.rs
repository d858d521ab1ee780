//! The maze for people: the view in colour, and beside it the map from above.

use super::map::{CELL, CELLS, GOAL, ORIGIN, SIDE};
use super::player::Player;
use super::texture::{MATERIALS, Pictures, TEXELS};
use super::view::View;
use crate::frame::Frame;

/// The view's size: the original's.
const WIDTH: usize = 160;
const HEIGHT: usize = 120;
/// Pixels that a cell of the map is wide.
const SCALE: usize = 2;
/// Pixels between view and map, and around the map.
const MARGIN: usize = 6;
const MAP_SIDE: usize = 62 * SCALE;
const BACKGROUND: [u8; 3] = [18, 18, 22];
const GOAL_COLOUR: [u8; 3] = [90, 240, 110];
const PLAYER: [u8; 3] = [255, 255, 255];

/// Draws frames for people.
pub(super) struct Camera {
    view: View,
    pictures: Pictures<[u8; 3]>,
    image: Vec<[u8; 3]>,
    /// The map without the player.
    map: Frame,
}

impl Default for Camera {
    fn default() -> Self {
        let pictures = Pictures::new();
        Self {
            view: View::new(WIDTH, HEIGHT),
            image: vec![[0; 3]; WIDTH * HEIGHT],
            map: empty_map(&pictures),
            pictures,
        }
    }
}

/// Pixel of the map at a place in map units.
fn on_map([x, y]: [f64; 2]) -> (usize, usize) {
    let per_unit = SCALE as f64 / CELL;
    // Cells 0 to 61 are shown; the last rows and columns of the grid are walls.
    let column = (x - ORIGIN[0]) * per_unit;
    let row = HEIGHT as f64 - ((y - ORIGIN[1]) * per_unit - 2.0);
    (column.max(0.0) as usize, row.max(0.0) as usize)
}

fn empty_map(pictures: &Pictures<[u8; 3]>) -> Frame {
    let mut map = Frame::filled(MAP_SIDE + MARGIN, HEIGHT, BACKGROUND);
    // A room's colour: the mean of its walls, which are what one sees of it.
    let colours: [[u8; 3]; MATERIALS] = std::array::from_fn(|material| {
        let texels = &pictures.walls[material][..TEXELS * TEXELS];
        let mean = |c: usize| texels.iter().map(|t| usize::from(t[c])).sum::<usize>() / texels.len();
        [0, 1, 2].map(|c| mean(c) as u8)
    });
    for (i, &material) in CELLS.iter().enumerate().filter(|(_, material)| **material > 0) {
        let corner = [i % SIDE, i / SIDE].map(|k| k as f64 * CELL);
        let (x, y) = on_map([corner[0] + ORIGIN[0], corner[1] + ORIGIN[1] + CELL]);
        for pixel in 0..SCALE * SCALE {
            map.set(x + pixel % SCALE, y + pixel / SCALE, colours[usize::from(material) % MATERIALS]);
        }
    }
    let (x, y) = on_map(GOAL);
    square(&mut map, x, y, 2, GOAL_COLOUR);
    map
}

/// A square of `2 half + 1` pixels.
fn square(frame: &mut Frame, x: usize, y: usize, half: usize, colour: [u8; 3]) {
    for row in y.saturating_sub(half)..=y + half {
        for column in x.saturating_sub(half)..=x + half {
            frame.set(column, row, colour);
        }
    }
}

impl Camera {
    /// What `player` sees, and where he is: 160 × 120 pixels of view, the map to the right of them.
    pub fn picture(&mut self, player: &Player) -> Frame {
        self.view.draw(player, &self.pictures, &mut self.image);
        let map = self.map_with(player);
        let gap = [BACKGROUND; MARGIN];
        let rows = self.image.chunks_exact(WIDTH).zip(map.pixels.chunks_exact(map.width));
        let pixels = rows.flat_map(|(view, map)| [view, gap.as_slice(), map].concat()).collect();
        Frame { width: WIDTH + MARGIN + map.width, height: HEIGHT, pixels }
    }

    fn map_with(&self, player: &Player) -> Frame {
        let mut map = self.map.clone();
        let [cos, sin] = player.facing();
        // What he sees is lighter: each pixel once, however many rays cross it.
        let mut seen = vec![false; map.pixels.len()];
        for (c, &depth) in self.view.depth.iter().enumerate() {
            let right = (c as f64 + 0.5) / WIDTH as f64 * 2.0 - 1.0;
            let ray = [cos + right * sin, sin - right * cos];
            let reach = f64::from(depth) * CELL;
            for step in 0..(reach / 4.0) as usize {
                let along = step as f64 * 4.0;
                let (x, y) =
                    on_map([player.position[0] + ray[0] * along, player.position[1] + ray[1] * along]);
                if let Some(seen) = seen.get_mut(y * map.width + x).filter(|_| x < map.width) {
                    *seen = true;
                }
            }
        }
        for (pixel, _) in map.pixels.iter_mut().zip(seen).filter(|(_, seen)| *seen) {
            *pixel = pixel.map(|x| x + (255 - x) / 3);
        }
        let (x, y) = on_map(player.position);
        square(&mut map, x, y, 1, PLAYER);
        map
    }
}
