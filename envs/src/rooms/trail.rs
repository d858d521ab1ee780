//! Where an episode has been.

use super::map::ORIGIN;

/// Side of a cell in map units: a corridor's width.
const CELL: f64 = 64.0;
/// Cells in a row, and rows.
const SIDE: usize = 16;

/// The cells of 64 × 64 map units in which the player has been since the episode began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail(pub [u64; SIDE * SIDE / 64]);

impl Trail {
    /// Marks the cell at a position, in map units.
    pub fn mark(&mut self, [x, y]: [f64; 2]) {
        let [column, row] =
            [(x, ORIGIN[0]), (y, ORIGIN[1])].map(|(x, origin)| ((x - origin) / CELL) as usize);
        let cell = row % SIDE * SIDE + column % SIDE;
        self.0[cell / 64] |= 1 << (cell % 64);
    }

    /// How many there are.
    pub fn cells(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_counts_once() {
        let mut trail = Trail::default();
        trail.mark([240.0, -176.0]);
        trail.mark([241.0, -177.0]);
        assert_eq!(trail.cells(), 1);
        // Its eastern and its northern neighbour, and the corners of the grid.
        for position in [[256.0, -176.0], [240.0, -160.0], [128.0, -736.0], [1151.9, 287.9]] {
            trail.mark(position);
        }
        assert_eq!(trail.cells(), 5);
    }
}
