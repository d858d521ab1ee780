//! Pictures on walls, floors and ceilings, computed: each room has its own, so that rooms can be told apart.

use super::map::CORRIDOR;

/// Texels along a side of the full picture, which covers 128 map units.
pub(super) const TEXELS: usize = 64;
/// The full picture and three smaller ones, each half as wide: what is far away is read from those, or it
/// would flicker.
pub(super) const LEVELS: usize = 4;
/// Where each of them begins in a [`Texture`].
pub(super) const OFFSETS: [usize; LEVELS] = [0, 4096, 5120, 5376];
/// Room for all levels: a power of two, so that a masked index needs no check.
pub(super) const TEXTURE_SIZE: usize = 8192;
/// Materials a surface can have: another power of two.
pub(super) const MATERIALS: usize = 16;

/// Something an image is made of.
pub(super) trait Pixel: Copy + Default + Send + Sync + 'static {
    /// From red, green and blue in `0 ..= 255`.
    fn from_rgb(rgb: [f32; 3]) -> Self;
    /// Under light from 0 (none) to 256 (full).
    fn lit(self, light: u32) -> Self;
}

impl Pixel for u8 {
    /// The luminance that Doom's pictures are turned to grey with.
    fn from_rgb([r, g, b]: [f32; 3]) -> Self {
        (0.299 * r + 0.587 * g + 0.114 * b).round() as u8
    }

    fn lit(self, light: u32) -> Self {
        ((u32::from(self) * light) >> 8) as u8
    }
}

impl Pixel for [u8; 3] {
    fn from_rgb(rgb: [f32; 3]) -> Self {
        rgb.map(|x| x.round() as u8)
    }

    fn lit(self, light: u32) -> Self {
        self.map(|x| x.lit(light))
    }
}

/// All levels of one picture, row by row from the top.
pub(super) type Texture<P> = [P; TEXTURE_SIZE];

/// Side of the armour's picture.
pub(super) const SPRITE: usize = 32;

/// Every picture there is.
pub(super) struct Pictures<P> {
    /// By material.
    pub walls: Box<[Texture<P>; MATERIALS]>,
    /// By material.
    pub floors: Box<[Texture<P>; MATERIALS]>,
    /// By material.
    pub ceilings: Box<[Texture<P>; MATERIALS]>,
    /// The armour, row by row from the top; `None` where one sees what is behind it.
    pub armour: Vec<Option<P>>,
}

type Rgb = [f32; 3];

/// What a surface looks like: a pattern between two colours.
struct Paint {
    pattern: fn(usize, usize) -> f32,
    dark: Rgb,
    light: Rgb,
}

const fn paint(pattern: fn(usize, usize) -> f32, dark: Rgb, light: Rgb) -> Paint {
    Paint { pattern, dark, light }
}

/// Wall, floor and ceiling of the material; 0 is what shows through where a rounding error meets a wall.
fn paints(material: u8) -> [Paint; 3] {
    match material {
        1 => [
            paint(planks, [52.0, 62.0, 78.0], [150.0, 168.0, 190.0]),
            paint(tiles, [44.0, 46.0, 52.0], [104.0, 110.0, 122.0]),
            paint(speckles, [58.0, 62.0, 70.0], [86.0, 92.0, 104.0]),
        ],
        2 => [
            paint(windows, [14.0, 16.0, 34.0], [70.0, 110.0, 250.0]),
            paint(checks, [30.0, 34.0, 66.0], [66.0, 76.0, 140.0]),
            paint(tiles, [16.0, 18.0, 40.0], [44.0, 50.0, 96.0]),
        ],
        3 => [
            paint(crates, [70.0, 46.0, 20.0], [206.0, 154.0, 84.0]),
            paint(boards, [72.0, 50.0, 28.0], [140.0, 102.0, 60.0]),
            paint(boards, [44.0, 32.0, 20.0], [92.0, 68.0, 42.0]),
        ],
        4 => [
            paint(panels, [24.0, 40.0, 40.0], [130.0, 220.0, 200.0]),
            paint(tiles, [22.0, 40.0, 38.0], [60.0, 104.0, 98.0]),
            paint(lamps, [20.0, 34.0, 34.0], [150.0, 214.0, 206.0]),
        ],
        5 => [
            paint(lamps, [34.0, 30.0, 32.0], [255.0, 216.0, 140.0]),
            paint(speckles, [40.0, 36.0, 38.0], [96.0, 88.0, 88.0]),
            paint(checks, [34.0, 30.0, 32.0], [70.0, 62.0, 60.0]),
        ],
        6 => [
            paint(checks, [92.0, 16.0, 18.0], [198.0, 62.0, 52.0]),
            paint(speckles, [60.0, 18.0, 18.0], [128.0, 48.0, 42.0]),
            paint(tiles, [40.0, 14.0, 14.0], [90.0, 38.0, 34.0]),
        ],
        7 => [
            paint(frames, [120.0, 122.0, 126.0], [238.0, 240.0, 244.0]),
            paint(checks, [112.0, 112.0, 116.0], [176.0, 176.0, 180.0]),
            paint(panels, [120.0, 122.0, 128.0], [214.0, 216.0, 222.0]),
        ],
        8 => [
            paint(streaks, [14.0, 44.0, 16.0], [96.0, 176.0, 70.0]),
            paint(streaks, [18.0, 40.0, 18.0], [64.0, 108.0, 52.0]),
            paint(speckles, [16.0, 32.0, 16.0], [46.0, 78.0, 40.0]),
        ],
        9 => [
            paint(slants, [126.0, 70.0, 8.0], [250.0, 196.0, 62.0]),
            paint(tiles, [92.0, 62.0, 24.0], [188.0, 142.0, 66.0]),
            paint(slants, [70.0, 44.0, 12.0], [140.0, 100.0, 36.0]),
        ],
        _ => [
            paint(bricks, [44.0, 28.0, 18.0], [126.0, 82.0, 52.0]),
            paint(speckles, [52.0, 40.0, 30.0], [98.0, 76.0, 56.0]),
            paint(speckles, [36.0, 28.0, 22.0], [66.0, 52.0, 40.0]),
        ],
    }
}

/// Uniform in `[0, 1)`, the same for the same place.
fn grain(u: usize, v: usize) -> f32 {
    let mut x = (u * 0x9e37 + v * 0x85eb + 0x1234_5678) as u32;
    x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
    x = (x ^ (x >> 12)).wrapping_mul(0x297a_2d39);
    (x >> 8) as f32 / (1 << 24) as f32
}

/// 1 in a cell of `side` texels, 0 on its joint of `joint` texels at the left and the top.
fn inside(u: usize, v: usize, side: [usize; 2], joint: usize) -> f32 {
    f32::from(u8::from(u % side[0] >= joint && v % side[1] >= joint))
}

fn planks(u: usize, v: usize) -> f32 {
    let rivet = (u % 16).abs_diff(8) < 2 && v % 32 < 4;
    inside(u, 32, [16, 64], 2) * if rivet { 1.0 } else { 0.35 + 0.3 * grain(u / 16, 7) + 0.15 * grain(u, v) }
}

fn windows(u: usize, v: usize) -> f32 {
    inside(u, v, [16, 32], 6) * (0.75 + 0.25 * grain(u / 16, v / 32)) + 0.1 * grain(u, v)
}

fn crates(u: usize, v: usize) -> f32 {
    let (u, v) = (u % 32, v % 32);
    let border = !(4..=27).contains(&u) || !(4..=27).contains(&v);
    let brace = u.abs_diff(v) < 3;
    let board = 0.25 + 0.15 * f32::from(u8::from(v % 8 > 1));
    (if border || brace { 0.85 } else { board }) + 0.15 * grain(u, v)
}

fn panels(u: usize, v: usize) -> f32 {
    let light = v % 16 > 9 && v % 16 < 14 && grain(u / 4, v / 16) > 0.55;
    if light { 1.0 } else { 0.12 + 0.25 * inside(32, v, [64, 16], 2) + 0.1 * grain(u, v) }
}

fn lamps(u: usize, v: usize) -> f32 {
    let (dx, dy) = ((u % 32) as f32 - 15.5, (v % 32) as f32 - 15.5);
    let glow = 1.0 - (dx * dx + dy * dy).sqrt() / 13.0;
    (1.6 * glow).clamp(0.0, 0.9) + 0.1 * grain(u, v)
}

fn checks(u: usize, v: usize) -> f32 {
    let odd = (u / 16 + v / 16) % 2;
    0.15 + 0.65 * odd as f32 + 0.15 * grain(u, v)
}

fn frames(u: usize, v: usize) -> f32 {
    let (u, v) = (u % 32, v % 64);
    let line = u < 2 || (4..6).contains(&u) || v < 2 || (58..61).contains(&v);
    if line { 0.1 } else { 0.8 + 0.2 * grain(u, v) }
}

fn streaks(u: usize, v: usize) -> f32 {
    let wave = ((u as f32 * 0.59).sin() + (v as f32 * 0.098 + u as f32 * 0.393).sin()) / 4.0 + 0.5;
    0.75 * wave + 0.25 * grain(u, v / 8)
}

fn slants(u: usize, v: usize) -> f32 {
    let band = (u + v) % 32;
    (if band < 16 { 0.75 } else { 0.1 }) + 0.2 * grain(u, v)
}

fn bricks(u: usize, v: usize) -> f32 {
    let shifted = u + 16 * (v / 16 % 2);
    inside(shifted, v, [32, 16], 2) * (0.4 + 0.35 * grain(shifted / 32, v / 16) + 0.25 * grain(u, v))
}

fn tiles(u: usize, v: usize) -> f32 {
    inside(u, v, [32, 32], 3) * (0.6 + 0.25 * grain(u / 32, v / 32) + 0.15 * grain(u, v))
}

fn boards(u: usize, v: usize) -> f32 {
    inside(u, 32, [16, 64], 1) * (0.35 + 0.4 * grain(u / 16, 3) + 0.25 * grain(u, v / 16))
}

fn speckles(u: usize, v: usize) -> f32 {
    0.3 + 0.4 * grain(u / 4, v / 4) + 0.3 * grain(u, v)
}

fn texture<P: Pixel>(paint: &Paint) -> Texture<P> {
    let mut picture: Vec<Rgb> = (0..TEXELS * TEXELS)
        .map(|i| {
            let t = (paint.pattern)(i % TEXELS, i / TEXELS).clamp(0.0, 1.0);
            std::array::from_fn(|c| paint.dark[c] + (paint.light[c] - paint.dark[c]) * t)
        })
        .collect();
    let mut texture = [P::default(); TEXTURE_SIZE];
    let mut side = TEXELS;
    for offset in OFFSETS {
        for (to, from) in texture[offset..].iter_mut().zip(&picture) {
            *to = P::from_rgb(*from);
        }
        let half = side / 2;
        picture = (0..half * half)
            .map(|i| {
                let first = i / half * 2 * side + i % half * 2;
                let four = [first, first + 1, first + side, first + side + 1];
                std::array::from_fn(|c| four.iter().map(|&j| picture[j][c]).sum::<f32>() / 4.0)
            })
            .collect();
        side = half;
    }
    texture
}

/// The armour's picture: shoulders, a waist, and light from above.
fn armour<P: Pixel>() -> Vec<Option<P>> {
    let texel = |i: usize| {
        let (u, v) = ((i % SPRITE) as f32 - 15.5, (i / SPRITE) as f32);
        let half = match v {
            _ if v < 3.0 => 11.0 + v,
            _ if v < 12.0 => 15.0,
            _ => 11.0 + (v - 12.0) * 0.15,
        };
        let neck = v < 6.0 && u.abs() < 6.0 - v * 0.6;
        let gap = (9.0..10.5).contains(&u.abs()) && v > 9.0;
        (u.abs() <= half && !neck && !gap).then(|| {
            let light = 1.0 - 0.45 * v / SPRITE as f32 - 0.3 * (u / 16.0).abs();
            P::from_rgb([110.0 * light, 255.0 * light, 120.0 * light])
        })
    };
    (0..SPRITE * SPRITE).map(texel).collect()
}

impl<P: Pixel> Pictures<P> {
    pub fn new() -> Self {
        let surface = |kind: usize| -> Box<[Texture<P>; MATERIALS]> {
            let mut textures = Box::new([[P::default(); TEXTURE_SIZE]; MATERIALS]);
            for (material, to) in (0u8..).zip(textures.iter_mut()).take(usize::from(CORRIDOR) + 1) {
                *to = texture(&paints(material)[kind]);
            }
            textures
        };
        Self { walls: surface(0), floors: surface(1), ceilings: surface(2), armour: armour() }
    }
}
