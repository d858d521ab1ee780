//! Floors that are known, for maps of where somebody has been.

use crate::env::EnvSpec;
use crate::rooms;

/// Which squares of a floor can be stood on.
#[derive(Clone, Copy, Debug)]
pub struct FloorPlan {
    /// South-west corner, in the units of the environment's `x` (to the east) and `y` (to the north).
    pub origin: [f64; 2],
    /// Side of a square.
    pub cell: f64,
    /// Squares in a row.
    pub columns: usize,
    /// Row by row from the south-west: whether it is floor.
    pub floor: &'static [bool],
}

impl FloorPlan {
    /// The floor of an environment that says where its player is (`x` and `y` of its info), if it is one of those that are
    /// known: Rooms, and VizDoom's MyWayHome, after which that is built.
    pub fn of(spec: &EnvSpec) -> Option<Self> {
        let known = spec.id == rooms::Rooms::ID || spec.id.starts_with("DoomMyWayHome");
        known.then(rooms::floor_plan)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.floor.len() / self.columns
    }

    /// Index of the square that a place lies in; none beyond the plan.
    pub fn square(&self, place: [f64; 2]) -> Option<usize> {
        let [column, row] = [0, 1].map(|axis| ((place[axis] - self.origin[axis]) / self.cell).floor());
        let inside = |x: f64, count: usize| (0.0..count as f64).contains(&x);
        (inside(column, self.columns) && inside(row, self.rows()))
            .then(|| row as usize * self.columns + column as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_lies_in_its_square() {
        let plan = FloorPlan { origin: [10.0, -20.0], cell: 5.0, columns: 3, floor: &[true; 6] };
        assert_eq!(plan.rows(), 2);
        assert_eq!(plan.square([10.0, -20.0]), Some(0));
        assert_eq!(plan.square([24.9, -10.1]), Some(5));
        for outside in [[9.9, -20.0], [25.0, -20.0], [10.0, -10.0], [f64::NAN, -20.0]] {
            assert_eq!(plan.square(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn rooms_and_doom_are_known() {
        for id in ["Rooms-v0", "DoomMyWayHome-sparse"] {
            let plan = FloorPlan::of(&EnvSpec::new(id))
                .map(|plan| plan.floor.iter().filter(|floor| **floor).count());
            assert!(plan.is_some_and(|count| count > 500), "{id}");
        }
        assert!(FloorPlan::of(&EnvSpec::new("CartPole-v1")).is_none());
    }
}
