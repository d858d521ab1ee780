//! Pictures in a terminal: two pixels a character, the upper one as the colour of `▀`, the lower one behind it.

use console::Term;
use imago_envs::Frame;
use std::fmt::Write as _;
use std::io::Write as _;

/// Which colours a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    /// All of 24 bits.
    True,
    /// xterm's 256.
    Palette,
}

/// The terminal on stderr, in its own screen until this is dropped.
pub struct Terminal {
    term: Term,
    colours: Colours,
}

impl Terminal {
    /// Takes over the terminal; `None` where stderr is none that could show pictures.
    pub fn open() -> Option<Self> {
        let term = Term::stderr();
        let name = std::env::var("TERM").unwrap_or_default();
        if !term.is_term() || name.is_empty() || name == "dumb" {
            return None;
        }
        let depth = std::env::var("COLORTERM").unwrap_or_default();
        let colours = match depth.as_str() {
            "truecolor" | "24bit" => Colours::True,
            _ => Colours::Palette,
        };
        let mut terminal = Self { term, colours };
        // Its own screen, no cursor, empty.
        terminal.write("\x1b[?1049h\x1b[?25l\x1b[2J");
        Some(terminal)
    }

    /// Shows `frame` as large as it fits with `caption` below it.
    pub fn show(&mut self, frame: &Frame, caption: &str) {
        let (rows, columns) = self.term.size();
        let text = text(frame, caption, columns.into(), rows.into(), self.colours);
        self.write(&text);
    }

    /// A terminal that has gone away is no reason to stop: the episode's result is still printed.
    fn write(&mut self, text: &str) {
        let _ = self.term.write_all(text.as_bytes());
        let _ = self.term.flush();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.write("\x1b[0m\x1b[?25h\x1b[?1049l");
    }
}

/// The largest size with the frame's proportions that fits, in pixels: an even number of rows, at least 1 × 2.
fn fit(frame: &Frame, columns: usize, rows: usize) -> (usize, usize) {
    let (width, height) = (frame.width as f64, frame.height as f64);
    let scale = (columns as f64 / width).min(2.0 * rows as f64 / height);
    let wide = ((width * scale) as usize).clamp(1, columns.max(1));
    let high = ((height * scale) as usize).clamp(2, 2 * rows.max(1));
    (wide, high - high % 2)
}

/// What to print so that a terminal of this size shows `frame` and `caption`.
fn text(frame: &Frame, caption: &str, columns: usize, rows: usize, colours: Colours) -> String {
    let (width, height) = fit(frame, columns, rows.saturating_sub(1));
    let small = frame.resized(width, height);
    let mut text = String::from("\x1b[H");
    for pair in small.pixels.chunks_exact(2 * width) {
        let (upper, lower) = pair.split_at(width);
        let mut last = None;
        for (&upper, &lower) in upper.iter().zip(lower) {
            if last != Some((upper, lower)) {
                last = Some((upper, lower));
                // Writing to a string cannot fail.
                let _ = match colours {
                    Colours::True => {
                        let ([r, g, b], [s, h, c]) = (upper, lower);
                        write!(text, "\x1b[38;2;{r};{g};{b};48;2;{s};{h};{c}m")
                    }
                    Colours::Palette => {
                        write!(text, "\x1b[38;5;{};48;5;{}m", nearest(upper), nearest(lower))
                    }
                };
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m\x1b[K\r\n");
    }
    text.extend(caption.chars().take(columns.saturating_sub(1)));
    text.push_str("\x1b[J");
    text
}

/// The nearest of xterm's 216 colours and 24 greys.
fn nearest(colour: [u8; 3]) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let distance = |other: [u8; 3]| -> u32 {
        colour.iter().zip(other).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
    };
    let index =
        colour.map(|x| (0..6u8).min_by_key(|&i| LEVELS[usize::from(i)].abs_diff(x)).unwrap_or_default());
    let cube = index.map(|i| LEVELS[usize::from(i)]);
    let mean = colour.iter().map(|&x| u32::from(x)).sum::<u32>() / 3;
    let step = (mean.saturating_sub(3) / 10).min(23) as u8;
    let grey = [8 + 10 * step; 3];
    match distance(grey) < distance(cube) {
        true => 232 + step,
        false => 16 + 36 * index[0] + 6 * index[1] + index[2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_fit_with_their_proportions() {
        let frame = Frame::filled(300, 120, [0; 3]);
        // 100 columns are the limit: 40 rows of pixels.
        assert_eq!(fit(&frame, 100, 50), (100, 40));
        // 10 lines are: 20 rows of pixels.
        assert_eq!(fit(&frame, 100, 10), (50, 20));
        assert_eq!(fit(&frame, 0, 0), (1, 2));
    }

    #[test]
    fn a_character_shows_two_pixels() {
        let frame = Frame { width: 1, height: 2, pixels: vec![[1, 2, 3], [4, 5, 6]] };
        assert_eq!(
            text(&frame, "a caption", 6, 2, Colours::True),
            "\x1b[H\x1b[38;2;1;2;3;48;2;4;5;6m▀\x1b[0m\x1b[K\r\na cap\x1b[J"
        );
        let same = Frame::filled(3, 2, [255, 0, 0]);
        assert_eq!(
            text(&same, "", 3, 2, Colours::Palette),
            "\x1b[H\x1b[38;5;196;48;5;196m▀▀▀\x1b[0m\x1b[K\r\n\x1b[J"
        );
    }

    #[test]
    fn the_palettes_own_colours_are_found() {
        let wanted = [([0, 0, 0], 16), ([255; 3], 231), ([95, 135, 255], 69), ([8; 3], 232), ([238; 3], 255)];
        for (colour, index) in wanted {
            assert_eq!(nearest(colour), index, "{colour:?}");
        }
    }
}
