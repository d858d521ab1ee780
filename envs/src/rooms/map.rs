//! The maze: nine rooms and the corridors between them, where VizDoom's MyWayHome has them.
//!
//! Lengths are Doom's map units, x grows to the east, y to the north. Every corner of MyWayHome lies on a
//! multiple of 16, and so a grid of cells that wide holds the map exactly.

/// Side of a cell in map units.
pub(super) const CELL: f64 = 16.0;
/// South-west corner of cell `(0, 0)`.
pub(super) const ORIGIN: [f64; 2] = [128.0, -736.0];
/// Cells in a row and rows: a power of two, so that a masked index needs no check.
pub(super) const SIDE: usize = 64;
/// Material of the corridors; the rooms have 1 to 9, walls 0.
pub(super) const CORRIDOR: u8 = 10;

/// Where the armour lies.
pub(super) const GOAL: [f64; 2] = [1040.0, -352.0];
/// The spots a dense start chooses from; the first is the sparse start's, [`VERY_SPARSE`] the farthest.
pub(super) const SPOTS: [[f64; 2]; 17] = [
    [240.0, -176.0],
    [464.0, -176.0],
    [470.331, -321.672],
    [466.983, -466.749],
    [460.326, -596.12],
    [543.986, -672.089],
    [575.372, -171.77],
    [686.83, -173.247],
    [686.646, -62.382],
    [464.098, -60.496],
    [460.326, 56.436],
    [571.6, 54.55],
    [694.19, 58.322],
    [871.474, 54.55],
    [1043.1, 60.208],
    [1039.737, -61.676],
    [1039.328, -169.884],
];
/// Index of the sparse start's spot.
pub(super) const SPARSE: usize = 0;
/// Index of the very sparse start's spot, the end of the southern corridor.
pub(super) const VERY_SPARSE: usize = 5;

/// West, south, east, north, material.
type Rectangle = (i32, i32, i32, i32, u8);

const RECTANGLES: [Rectangle; 18] = [
    (160, -256, 320, -96, 1), // the sparse start's
    (384, -256, 544, -96, 2),
    (384, -32, 544, 128, 3),
    (608, -256, 768, -96, 4),
    (608, -32, 768, 128, 5),
    (384, -544, 544, -384, 6),
    (960, -32, 1120, 128, 7),
    (960, -256, 1120, -96, 8),
    (992, -416, 1088, -256, 9), // the goal's
    (320, -208, 384, -144, CORRIDOR),
    (544, -208, 608, -144, CORRIDOR),
    (432, -96, 496, -32, CORRIDOR),
    (432, -384, 496, -256, CORRIDOR),
    (544, 16, 608, 80, CORRIDOR),
    (656, -96, 720, -32, CORRIDOR),
    (768, 16, 960, 80, CORRIDOR),
    (1008, -96, 1072, -32, CORRIDOR),
    (432, -704, 496, -544, CORRIDOR), // with the next, a dead end: the very sparse start's
];
const DEAD_END: Rectangle = (496, -704, 576, -640, CORRIDOR);

/// One byte for each cell, row by row from the south-west: 0 a wall, else the material of the room.
pub(super) static CELLS: [u8; SIDE * SIDE] = cells();
/// Cells in which the player's centre can be: his half width is one cell, so all neighbours are free.
pub(super) static WALKABLE: [bool; SIDE * SIDE] = walkable();

const fn cells() -> [u8; SIDE * SIDE] {
    let mut cells = [0; SIDE * SIDE];
    let mut i = 0;
    while i <= RECTANGLES.len() {
        let (west, south, east, north, material) =
            if i < RECTANGLES.len() { RECTANGLES[i] } else { DEAD_END };
        let mut y = (south - ORIGIN[1] as i32) / CELL as i32;
        while y < (north - ORIGIN[1] as i32) / CELL as i32 {
            let mut x = (west - ORIGIN[0] as i32) / CELL as i32;
            while x < (east - ORIGIN[0] as i32) / CELL as i32 {
                cells[y as usize * SIDE + x as usize] = material;
                x += 1;
            }
            y += 1;
        }
        i += 1;
    }
    cells
}

const fn walkable() -> [bool; SIDE * SIDE] {
    let cells = cells();
    let mut walkable = [false; SIDE * SIDE];
    let mut i = SIDE + 1;
    while i < SIDE * SIDE - SIDE - 1 {
        let mut free = true;
        let mut neighbour = 0;
        while neighbour < 9 {
            free &= cells[i + neighbour / 3 * SIDE + neighbour % 3 - SIDE - 1] > 0;
            neighbour += 1;
        }
        walkable[i] = free;
        i += 1;
    }
    walkable
}

/// Index of the cell that `(x, y)` lies in; of one at the border, all of which are walls, for what lies beyond.
pub(super) fn cell(x: f64, y: f64) -> usize {
    let [x, y] = [(x - ORIGIN[0]) / CELL, (y - ORIGIN[1]) / CELL].map(|v| (v as usize).min(SIDE - 1));
    y * SIDE + x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells reached from `start` by single steps through those that `free` allows.
    fn reached(start: usize, free: impl Fn(usize) -> bool) -> Vec<bool> {
        let (mut seen, mut next) = (vec![false; SIDE * SIDE], vec![start]);
        while let Some(i) = next.pop() {
            if free(i) && !std::mem::replace(&mut seen[i], true) {
                next.extend([i - 1, i + 1, i - SIDE, i + SIDE]);
            }
        }
        seen
    }

    #[test]
    fn every_room_and_spot_can_be_walked_to() {
        let seen = reached(cell(GOAL[0], GOAL[1]), |i| WALKABLE[i]);
        assert!(SPOTS.iter().all(|&[x, y]| seen[cell(x, y)]));
        assert!((0..SIDE * SIDE).all(|i| WALKABLE[i] <= seen[i]), "a part that cannot be reached");
        let rooms: std::collections::BTreeSet<u8> =
            seen.iter().zip(CELLS).filter(|(seen, _)| **seen).map(|(_, material)| material).collect();
        assert_eq!(Vec::from_iter(rooms), Vec::from_iter(1..=CORRIDOR));
    }

    #[test]
    fn the_map_has_the_originals_area() {
        // Eight rooms of 160 × 160, the goal's of 96 × 160; corridors: six of 64 × 64, 64 × 128, 192 × 64, and
        // the dead end of 64 × 160 and 80 × 64.
        let area = 8 * 160 * 160 + 96 * 160 + 6 * 64 * 64 + 64 * 128 + 192 * 64 + 64 * 160 + 80 * 64;
        assert_eq!(CELLS.iter().filter(|&&material| material > 0).count() * 256, area);
    }

    #[test]
    fn the_rooms_are_joined_as_in_the_original() {
        // The rooms that each corridor touches; the goal's room opens without one.
        let room_of = |i: usize| CELLS[i];
        let mut joined = std::collections::BTreeSet::new();
        let corridor = |i: usize| room_of(i) == CORRIDOR;
        for i in (0..SIDE * SIDE).filter(|&i| corridor(i)) {
            let part = reached(i, corridor);
            let mut ends: Vec<u8> = (SIDE..SIDE * SIDE - SIDE)
                .filter(|&j| part[j])
                .flat_map(|j| [j - 1, j + 1, j - SIDE, j + SIDE].map(room_of))
                .filter(|&material| material > 0 && material != CORRIDOR)
                .collect();
            ends.sort();
            ends.dedup();
            joined.insert(ends);
        }
        let expected: [&[u8]; 9] =
            [&[1, 2], &[2, 3], &[2, 4], &[2, 6], &[3, 5], &[4, 5], &[5, 7], &[6], &[7, 8]];
        assert!(joined.iter().eq(expected.iter()), "{joined:?}");
    }
}
