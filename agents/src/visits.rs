//! Where episodes have been: a map of the floor, the darker the oftener.

use imago::rollout::Episode;
use imago_envs::{FloorPlan, Frame};

/// Side of a square in pixels.
const SCALE: usize = 6;
const WALL: [u8; 3] = [70, 75, 85];
const NEVER: [f64; 3] = [255.0, 255.0, 255.0];
const OFTEN: [f64; 3] = [150.0, 0.0, 60.0];

/// How often each square of a floor was stood on.
#[derive(Clone, Debug)]
pub struct Visits {
    plan: FloorPlan,
    counts: Vec<u32>,
}

impl Visits {
    /// Those of episodes in the floor's environment. What lies beyond the plan counts nowhere.
    pub fn of(plan: FloorPlan, episodes: &[Episode]) -> Self {
        let mut counts = vec![0; plan.floor.len()];
        for &position in episodes.iter().flat_map(|episode| &episode.path) {
            if let Some(square) = plan.square(position) {
                counts[square] += 1;
            }
        }
        Self { plan, counts }
    }

    /// The floor from above, north up: walls dark, squares from white (never) to red, by the logarithm of how often. What
    /// has no floor around it is left away.
    pub fn picture(&self) -> Frame {
        let (columns, rows) = (self.plan.columns, self.plan.rows());
        let floor = |column: usize, row: usize| self.plan.floor[row * columns + column];
        let within = |range: std::ops::Range<usize>, any: &dyn Fn(usize) -> bool| {
            let found: Vec<usize> = range.clone().filter(|&i| any(i)).collect();
            let (first, last) = (found.first().copied().unwrap_or(0), found.last().copied().unwrap_or(0));
            first.saturating_sub(1)..(last + 2).min(range.end)
        };
        let wide = within(0..columns, &|column| (0..rows).any(|row| floor(column, row)));
        let high = within(0..rows, &|row| (0..columns).any(|column| floor(column, row)));
        let most = f64::from(self.counts.iter().copied().max().unwrap_or(0)).ln_1p().max(1e-9);
        let mut frame = Frame::filled(wide.len() * SCALE, high.len() * SCALE, WALL);
        for row in high.clone() {
            for column in wide.clone().filter(|&column| floor(column, row)) {
                let share = f64::from(self.counts[row * columns + column]).ln_1p() / most;
                let colour = [0, 1, 2].map(|i| (NEVER[i] + (OFTEN[i] - NEVER[i]) * share).round() as u8);
                let (left, top) = ((column - wide.start) * SCALE, (high.end - 1 - row) * SCALE);
                for pixel in 0..SCALE * SCALE {
                    frame.set(left + pixel % SCALE, top + pixel / SCALE, colour);
                }
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn north_is_up_and_often_is_dark() {
        // A floor of two by two squares within walls, five columns and four rows.
        static FLOOR: [bool; 20] = {
            let mut floor = [false; 20];
            (floor[6], floor[7], floor[11], floor[12]) = (true, true, true, true);
            floor
        };
        let plan = FloorPlan { origin: [0.0, 0.0], cell: 10.0, columns: 5, floor: &FLOOR };
        let often = Episode { path: vec![[15.0, 15.0]; 9], ..Default::default() };
        let once = Episode { path: vec![[25.0, 25.0], [-1.0, 25.0]], ..Default::default() };
        let frame = Visits::of(plan, &[often, once]).picture();
        // One wall on each side.
        assert_eq!((frame.width, frame.height), (4 * SCALE, 4 * SCALE));
        let at = |column: usize, row: usize| frame.pixels[row * SCALE * frame.width + column * SCALE];
        assert_eq!(at(0, 0), WALL);
        assert_eq!(at(1, 2), OFTEN.map(|x| x as u8), "the south-western one, often");
        assert_eq!(at(1, 1), [255; 3], "the north-western one, never");
        let once = at(2, 1);
        assert!(once[1] > 0 && once[1] < 255, "{once:?}");
    }
}
