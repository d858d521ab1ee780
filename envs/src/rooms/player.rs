//! How the player moves: Doom's own arithmetic for walking, turning and sliding along walls.

use super::map::{CELL, GOAL, ORIGIN, WALKABLE, cell};
use std::f64::consts::TAU;

/// Units per tick² while walking forward: Doom's 25 of its 1/32 units.
const THRUST: f64 = 25.0 / 32.0;
/// What is left of the velocity after a tick.
const FRICTION: f64 = 0.906_25;
/// Slower than this in both directions, a player who does not walk stands.
const STOP: f64 = 1.0 / 16.0;
/// Turning, in 65,536ths of a full turn per tick: 1.76° in the first ticks, then 3.52°.
const SLOW_TURN: u16 = 320;
const TURN: u16 = 640;
/// Ticks from which on a turn that goes on is no longer slow.
pub(super) const SLOW_TICKS: u8 = 6;
/// Units per tick that walking comes near to.
pub(super) const TOP_SPEED: f64 = THRUST / (1.0 - FRICTION);
/// Centres nearer than this in both directions touch: half the player's width and half the armour's.
const TOUCH: f64 = 16.0 + 20.0;
/// Share of a tick's movement that is left when he stops before a wall.
const GAP: f64 = 1.0 / 32.0;

/// What the player does in a tick; the numbers are those of the environment's actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Forward,
    TurnRight,
    TurnLeft,
}

/// The player's body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Player {
    /// Centre, map units.
    pub position: [f64; 2],
    /// Units per tick.
    pub velocity: [f64; 2],
    /// Facing in 65,536ths of a full turn, from the east to the north.
    pub angle: u16,
    /// Ticks for which he has been turning, at most [`SLOW_TICKS`].
    pub turning: u8,
}

impl Player {
    /// Standing still.
    pub fn at(position: [f64; 2], angle: u16) -> Self {
        Self { position, velocity: [0.0; 2], angle, turning: 0 }
    }

    /// Cosine and sine of where he looks.
    pub fn facing(&self) -> [f64; 2] {
        let (sin, cos) = (f64::from(self.angle) / 65_536.0 * TAU).sin_cos();
        [cos, sin]
    }

    /// Whether he touches the armour.
    pub fn at_goal(&self) -> bool {
        self.position.iter().zip(GOAL).all(|(own, goal)| (own - goal).abs() < TOUCH)
    }

    /// One tick, 1/35 s.
    pub fn tick(&mut self, action: Action) {
        self.turning = match action {
            Action::TurnLeft | Action::TurnRight => (self.turning + 1).min(SLOW_TICKS),
            _ => 0,
        };
        let turn = if self.turning < SLOW_TICKS { SLOW_TURN } else { TURN };
        match action {
            Action::TurnLeft => self.angle = self.angle.wrapping_add(turn),
            Action::TurnRight => self.angle = self.angle.wrapping_sub(turn),
            Action::Forward => {
                let [cos, sin] = self.facing();
                self.velocity[0] += THRUST * cos;
                self.velocity[1] += THRUST * sin;
            }
            Action::Nothing => {}
        }
        self.walk();
        if action != Action::Forward && self.velocity.iter().all(|v| v.abs() < STOP) {
            self.velocity = [0.0; 2];
        }
        self.velocity = self.velocity.map(|v| v * FRICTION);
    }

    /// Moves by the velocity. At a wall he goes almost up to it, then slides along it with what is left of the
    /// movement, which becomes his velocity.
    fn walk(&mut self) {
        // A corner has two walls; in a third attempt he stays where he is.
        for _ in 0..3 {
            let Some((fraction, axis)) = self.wall_ahead() else {
                self.position = self.after(1.0);
                return;
            };
            self.position = self.after((fraction - GAP).max(0.0));
            self.velocity = self.velocity.map(|v| v * (1.0 - fraction));
            self.velocity[axis] = 0.0;
        }
    }

    /// Where `fraction` of his velocity takes him.
    fn after(&self, fraction: f64) -> [f64; 2] {
        std::array::from_fn(|i| self.position[i] + self.velocity[i] * fraction)
    }

    /// The fraction of his velocity after which a wall stops him, and the axis that it stops: 0 if it faces east
    /// or west. He is never fast enough to cross a whole cell.
    fn wall_ahead(&self) -> Option<(f64, usize)> {
        // When he leaves his column and his row of cells.
        let leaves: [f64; 2] = std::array::from_fn(|i| {
            let along = (self.position[i] - ORIGIN[i]) / CELL;
            let edge = if self.velocity[i] > 0.0 { along.floor() + 1.0 } else { along.floor() };
            let to = self.after(1.0)[i];
            let crossed = ((to - ORIGIN[i]) / CELL).floor() != along.floor();
            if crossed { (edge - along) * CELL / self.velocity[i] } else { f64::INFINITY }
        });
        let first = usize::from(leaves[1] < leaves[0]);
        let mut reached = self.position;
        [first, 1 - first].into_iter().filter(|&axis| leaves[axis].is_finite()).find_map(|axis| {
            reached[axis] = self.after(1.0)[axis];
            (!WALKABLE[cell(reached[0], reached[1])]).then_some((leaves[axis], axis))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degrees(angle: u16) -> f64 {
        f64::from(angle) / 65_536.0 * 360.0
    }

    /// Positions and velocities of VizDoom 1.3.2 in my_way_home after each decision of 4 ticks.
    fn beside_vizdoom(start: [f64; 2], facing: f64, decisions: &[(Action, [f64; 4])]) {
        let mut player = Player::at(start, (facing / 360.0 * 65_536.0).round() as u16);
        for (i, (action, [x, y, vx, vy])) in decisions.iter().enumerate() {
            for _ in 0..4 {
                player.tick(*action);
            }
            let differences = [player.position[0] - x, player.position[1] - y];
            assert!(differences.iter().all(|d| d.abs() < 0.1), "after decision {i}: {player:?}");
            let differences = [player.velocity[0] - vx, player.velocity[1] - vy];
            assert!(differences.iter().all(|d| d.abs() < 0.02), "after decision {i}: {player:?}");
        }
    }

    #[test]
    fn walks_and_slides_as_in_vizdoom() {
        use Action::{Forward, Nothing};
        beside_vizdoom(
            [240.0, -176.0],
            86.7151,
            &[
                (Forward, [240.4033, -168.8982, 0.1393, 2.4539]),
                (Forward, [241.2904, -153.2768, 0.2333, 4.1091]),
                (Nothing, [242.1004, -139.0105, 0.1574, 2.7717]),
                (Forward, [243.0501, -122.286, 0.2455, 4.3235]),
            ],
        );
        // Along the western wall of a corridor.
        beside_vizdoom(
            [470.331, -321.672],
            122.0032,
            &[
                (Forward, [466.5621, -315.6417, -1.3023, 2.0837]),
                (Forward, [458.2717, -302.3773, -2.1808, 3.4892]),
                (Forward, [448.0956, -284.3863, 0.0, 1.5494]),
                (Forward, [448.0129, -274.7432, 0.0, 2.583]),
                (Forward, [448.0129, -260.742, 0.0, 3.4682]),
                (Forward, [448.0129, -243.8891, 0.0, 3.9942]),
            ],
        );
        // Against an eastern wall, then northwards.
        beside_vizdoom(
            [240.0, -176.0],
            27.0264,
            &[
                (Forward, [246.3342, -172.7677, 2.1887, 1.1169]),
                (Forward, [260.2674, -165.6578, 3.6651, 1.8702]),
                (Forward, [279.3261, -155.9325, 4.6609, 2.3784]),
                (Forward, [301.842, -144.4429, 5.3325, 2.7211]),
                (Forward, [303.9783, -135.8174, 0.0, 1.6775]),
                (Forward, [303.9783, -127.3693, 0.0, 2.0329]),
            ],
        );
    }

    #[test]
    fn turns_as_in_vizdoom() {
        let mut player = Player::at([1039.328, -169.884], 0);
        player.angle = (285.8917f64 / 360.0 * 65_536.0).round() as u16;
        let right = [284.1339, 282.3761, 280.6183, 278.8605, 277.1027, 273.587, 270.0714, 266.5558];
        for wanted in right {
            player.tick(Action::TurnRight);
            assert!((degrees(player.angle) - wanted).abs() < 0.01, "{player:?} is not at {wanted}");
        }
        player.tick(Action::Nothing);
        let before = degrees(player.angle);
        player.tick(Action::TurnLeft);
        assert!((degrees(player.angle) - before - 1.757_812_5).abs() < 1e-9, "a new turn begins slowly");
    }

    #[test]
    fn the_armour_is_touched_where_vizdoom_says() {
        // The last tick before the level ended, and the one that ended it.
        assert!(!Player::at([1061.1811, -310.5231], 0).at_goal());
        assert!(Player::at([1062.3708, -318.1796], 0).at_goal());
    }
}
