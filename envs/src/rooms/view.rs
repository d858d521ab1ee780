//! What the player sees: a ray for each column of the image, walked from cell to cell until it meets a wall.
//!
//! The projection is that of the original at 4:3: 90° from left to right, 64° from top to bottom, eyes at 41
//! of 128 units. Images of another shape show the same part of the world.

use super::map::{CELL, CELLS, CORRIDOR, GOAL, ORIGIN, SIDE};
use super::player::Player;
use super::texture::{LEVELS, MATERIALS, OFFSETS, Pictures, Pixel, SPRITE, TEXELS, TEXTURE_SIZE};

/// Tangent of half the vertical angle of view; that of the horizontal one is 1.
const TANGENT: f32 = 0.625;
/// From the eyes to the floor and to the ceiling, in cells.
const TO_FLOOR: f32 = (41.0 / CELL) as f32;
const TO_CEILING: f32 = (87.0 / CELL) as f32;
/// Texels in the width of a cell: a picture covers 128 map units.
const TEXELS_PER_CELL: f32 = (TEXELS as f64 / (128.0 / CELL)) as f32;
/// Half the armour's width and its height, in cells.
const ARMOUR_HALF: f32 = (15.0 / CELL) as f32;
const ARMOUR_HEIGHT: f32 = (22.0 / CELL) as f32;
/// Where fixed-point numbers have their point.
const POINT: u32 = 16;
/// From a fixed-point number of cells to texels.
const TEXEL_SHIFT: u32 = POINT - (TEXELS_PER_CELL as u32).ilog2();

/// What is the same for all pixels of a row that shows floor or ceiling.
#[derive(Clone, Copy)]
struct Row {
    /// Distance in cells along the direction of view, fixed-point.
    distance: i64,
    light: u32,
    level: u32,
}

/// A camera for images of one size.
pub(super) struct View {
    width: usize,
    height: usize,
    /// Tangent of each column's angle to the right of the direction of view.
    columns: Vec<f32>,
    rows: Vec<Row>,
    /// Distance to the wall in each column of the last image, in cells along the direction of view.
    pub depth: Vec<f32>,
}

fn fixed(x: f32) -> i32 {
    (x * (1 << POINT) as f32) as i32
}

/// Light at a distance in cells.
fn light(distance: f32) -> f32 {
    (1.08 - distance / 60.0).clamp(0.4, 1.0)
}

/// The picture's level in which a texel is about as large as a pixel that covers `texels` of the full one.
fn level(texels: f32) -> u32 {
    (texels.max(1.0).log2().round() as u32).min(LEVELS as u32 - 1)
}

/// Index into a texture of the texel `(u, v)` of the full picture at `level`.
fn texel(u: u32, v: u32, level: u32) -> usize {
    let mask = TEXELS as u32 - 1;
    let (u, v) = ((u & mask) >> level, (v & mask) >> level);
    (OFFSETS[level as usize % LEVELS] + ((v << (TEXELS.ilog2() - level)) | u) as usize) % TEXTURE_SIZE
}

impl View {
    /// Of at least one pixel; it has an even number of rows, so that none lies on the horizon.
    pub fn new(width: usize, height: usize) -> Self {
        let across = |i: usize, count: usize| (i as f32 + 0.5) / count as f32 * 2.0 - 1.0;
        let columns: Vec<f32> = (0..width).map(|c| across(c, width)).collect();
        let rows = (0..height).map(|r| {
            let down = across(r, height) * TANGENT;
            let reach = if down > 0.0 { TO_FLOOR } else { TO_CEILING };
            let distance = reach / down.abs();
            // A pixel's width, and its length along the floor.
            let width = distance * 2.0 / width as f32;
            let length = distance * distance / reach * (2.0 * TANGENT / height as f32);
            Row {
                distance: i64::from(fixed(distance.min(1000.0))),
                light: (light(distance) * 256.0) as u32,
                level: level((width * length).sqrt() * TEXELS_PER_CELL),
            }
        });
        Self { width, height, rows: rows.collect(), depth: vec![0.0; width], columns }
    }

    /// Draws what `player` sees; `image` has `height · width` pixels.
    pub fn draw<P: Pixel>(&mut self, player: &Player, pictures: &Pictures<P>, image: &mut [P]) {
        let [cos, sin] = player.facing().map(|x| x as f32);
        let eye: [f32; 2] = std::array::from_fn(|i| ((player.position[i] - ORIGIN[i]) / CELL) as f32);
        let half = self.height / 2;
        let rows_per_tangent = half as f32 / TANGENT;
        let (above, below) = self.rows.split_at(half);
        for (c, (&right, depth)) in self.columns.iter().zip(&mut self.depth).enumerate() {
            let ray = [cos + right * sin, sin - right * cos];
            let hit = cast(eye, ray);
            *depth = hit.distance;

            // The first row of the wall and the first below it.
            let scale = rows_per_tangent / hit.distance;
            let top = (half as f32 - (TO_CEILING * scale + 0.5)).ceil().max(0.0) as usize;
            let bottom = ((half as f32 + TO_FLOOR * scale - 0.5).ceil() as usize).min(self.height);
            let mut pixels = image[c..].iter_mut().step_by(self.width);

            let fixed_eye = eye.map(fixed);
            let fixed_ray = ray.map(|x| i64::from(fixed(x)));
            let flat = |row: &Row, kind: &[[P; TEXTURE_SIZE]; MATERIALS]| {
                let [x, y]: [i32; 2] = std::array::from_fn(|i| {
                    fixed_eye[i].wrapping_add(((fixed_ray[i] * row.distance) >> POINT) as i32)
                });
                let cell = ((y >> POINT) as usize * SIDE + (x >> POINT) as usize) % (SIDE * SIDE);
                let (u, v) = ((x >> TEXEL_SHIFT) as u32, (y >> TEXEL_SHIFT) as u32);
                kind[usize::from(CELLS[cell]) % MATERIALS][texel(u, v, row.level)].lit(row.light)
            };
            for (row, pixel) in above[..top].iter().zip(&mut pixels) {
                *pixel = flat(row, &pictures.ceilings);
            }

            let texture = &pictures.walls[usize::from(hit.material) % MATERIALS];
            let u = (hit.along * TEXELS_PER_CELL) as u32;
            let step = TEXELS_PER_CELL / scale;
            let first = TO_CEILING * TEXELS_PER_CELL + (top as f32 + 0.5 - half as f32) * step;
            let shade = if hit.faces_east_or_west { 0.8 } else { 1.0 };
            let (wall_light, level) = ((light(hit.distance) * shade * 256.0) as u32, level(step));
            let (mut v, step) = (fixed(first), fixed(step));
            for pixel in (&mut pixels).take(bottom - top) {
                *pixel = texture[texel(u, (v >> POINT) as u32, level)].lit(wall_light);
                v = v.wrapping_add(step);
            }

            for (row, pixel) in below[bottom - half..].iter().zip(&mut pixels) {
                *pixel = flat(row, &pictures.floors);
            }
        }
        self.draw_armour(eye, [cos, sin], pictures, image);
    }

    /// The armour, where no wall hides it.
    fn draw_armour<P: Pixel>(
        &self,
        eye: [f32; 2],
        [cos, sin]: [f32; 2],
        pictures: &Pictures<P>,
        image: &mut [P],
    ) {
        let [x, y]: [f32; 2] = std::array::from_fn(|i| ((GOAL[i] - ORIGIN[i]) / CELL) as f32 - eye[i]);
        let (distance, right) = (x * cos + y * sin, x * sin - y * cos);
        if distance < 0.25 || right.abs() > distance + ARMOUR_HALF {
            return;
        }
        let half = self.height as f32 / 2.0;
        let scale = half / TANGENT / distance;
        let bottom = half + TO_FLOOR * scale;
        let top = bottom - ARMOUR_HEIGHT * scale;
        let rows = (top.round() as usize)..(bottom.round() as usize).min(self.height);
        for (c, &tangent) in self.columns.iter().enumerate() {
            let across = (tangent * distance - right) / ARMOUR_HALF / 2.0 + 0.5;
            if !(0.0..1.0).contains(&across) || self.depth[c] < distance {
                continue;
            }
            let u = (across * SPRITE as f32) as usize;
            for r in rows.clone() {
                let v = ((r as f32 + 0.5 - top) / (bottom - top) * SPRITE as f32) as usize;
                if let Some(texel) = pictures.armour[v.min(SPRITE - 1) * SPRITE + u.min(SPRITE - 1)] {
                    image[r * self.width + c] = texel;
                }
            }
        }
    }
}

/// Where a ray meets a wall.
struct Hit {
    /// In lengths of the ray: cells along the direction of view.
    distance: f32,
    /// Of the room it comes from.
    material: u8,
    /// Place along the wall, in cells.
    along: f32,
    faces_east_or_west: bool,
}

/// Follows `ray` from `eye`, which is in a room, through the grid (Amanatides & Woo 1987).
fn cast(eye: [f32; 2], ray: [f32; 2]) -> Hit {
    // Of each axis: ray lengths between two cells, ray lengths to the next one, cells to step over.
    let per_cell = ray.map(|x| 1.0 / x.abs().max(1e-9));
    let mut next: [f32; 2] = std::array::from_fn(|i| {
        let within = eye[i] - eye[i].floor();
        per_cell[i] * if ray[i] > 0.0 { 1.0 - within } else { within }
    });
    let stride = [ray[0], ray[1]].map(|x| if x > 0.0 { 1usize } else { usize::MAX });
    let stride = [stride[0], stride[1].wrapping_mul(SIDE)];
    let mut cell = eye[1] as usize * SIDE + eye[0] as usize;
    let mut material = CORRIDOR;
    loop {
        let axis = usize::from(next[1] < next[0]);
        let distance = next[axis];
        cell = cell.wrapping_add(stride[axis]) % (SIDE * SIDE);
        let beyond = CELLS[cell];
        if beyond == 0 {
            let along = eye[1 - axis] + ray[1 - axis] * distance;
            return Hit { distance: distance.max(1e-3), material, along, faces_east_or_west: axis == 0 };
        }
        material = beyond;
        next[axis] += per_cell[axis];
    }
}
