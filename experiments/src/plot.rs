//! Learning curves as SVG and PNG.

use anyhow::{Context, Result, anyhow, bail};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;
use std::sync::OnceLock;

/// Okabe and Ito's colours: told apart by everybody, and on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
];

/// Size of a picture without its legend.
const CHART: (u32, u32) = (660, 420);

/// Width of each of several charts.
const PANEL: u32 = 440;

/// A PNG has so many pixels for each unit of the SVG …
const DENSITY: u32 = 2;
/// … and each of them is the mean of so many squared: smooth edges, which the bitmap backend does not draw.
const SMOOTH: u32 = 2;

/// One line of a picture.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// For the legend.
    pub name: String,
    /// (step, value), in order of step.
    pub points: Vec<(f64, f64)>,
    /// (step, low, high), in order of step: an interval around the line, drawn as a band.
    pub band: Vec<(f64, f64, f64)>,
    /// Drawn across the whole picture, dashed: a level to compare with.
    pub level: bool,
}

/// What is written around a picture.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the steps.
    pub x: &'a str,
    /// Beside the values.
    pub y: &'a str,
}

/// One chart of a picture of several.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// What is written around it.
    pub labels: Labels<'a>,
    /// Its lines.
    pub curves: &'a [Curve],
}

/// The values logged under `tag` in a run's `metrics.jsonl`, with their steps.
///
/// # Errors
/// An unreadable file.
pub fn metric(run: &Path, tag: &str) -> Result<Vec<(f64, f64)>> {
    let path = run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let points = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((line.get("step")?.as_f64()?, line.get(tag)?.as_f64()?))
    });
    Ok(points.collect())
}

/// Draws `curves` over steps into a file, SVG or PNG by its suffix. The same picture either way.
///
/// # Errors
/// Another suffix; a file that cannot be written.
pub fn draw(path: &Path, labels: &Labels, curves: &[Curve]) -> Result<()> {
    draw_panels(path, &[Panel { labels: *labels, curves }])
}

/// Draws several charts side by side with one legend: a name has the same colour in all of them.
///
/// # Errors
/// Those of [`draw`].
pub fn draw_panels(path: &Path, panels: &[Panel]) -> Result<()> {
    // Ubuntu Light, under the Ubuntu Font Licence. The widths of letters are known from it also where the viewer of
    // an SVG has another one.
    static FONT: OnceLock<bool> = OnceLock::new();
    let usable = *FONT.get_or_init(|| {
        register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).is_ok()
    });
    let picture = Picture::of(panels);
    let cannot = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    if !usable {
        return Err(cannot(&"the program's own font cannot be read"));
    }
    let bytes = match path.extension().and_then(|suffix| suffix.to_str()) {
        Some("svg") => {
            let mut text = String::new();
            let size = picture.size(1);
            picture
                .paint(&SVGBackend::with_string(&mut text, size).into_drawing_area(), 1)
                .map_err(|e| cannot(&e))?;
            text.into_bytes()
        }
        Some("png") => picture.png().map_err(|e| cannot(&e))?,
        _ => bail!("{}: pictures of curves are .svg or .png", path.display()),
    };
    // Whole or not at all: it may be looked at while it is made anew.
    Ok(imago::run::write_whole(path, &bytes)?)
}

type Painted<T> = Result<T, Box<dyn std::error::Error>>;

struct Picture<'a> {
    panels: &'a [Panel<'a>],
    /// All names, each once, and whether it is a level.
    legend: Vec<(&'a str, bool)>,
}

impl<'a> Picture<'a> {
    fn of(panels: &'a [Panel<'a>]) -> Self {
        let mut legend: Vec<(&str, bool)> = Vec::new();
        for curve in panels.iter().flat_map(|panel| panel.curves) {
            if legend.iter().all(|(name, _)| *name != curve.name) {
                legend.push((&curve.name, curve.level));
            }
        }
        Self { panels, legend }
    }

    /// Width that the legend needs, at `scale` pixels a unit.
    fn legend_width(&self, scale: u32) -> u32 {
        let font = ("sans-serif", (13 * scale) as i32).into_font();
        let width = |&(name, _): &(&str, bool)| font.box_size(name).map_or(0, |(width, _)| width);
        // A viewer's own font may be wider.
        self.legend.iter().map(width).max().unwrap_or(0) * 6 / 5 + 42 * scale
    }

    /// Width of the charts together.
    fn width(&self) -> u32 {
        match self.panels.len() {
            0 | 1 => CHART.0,
            count => PANEL * count as u32,
        }
    }

    fn size(&self, scale: u32) -> (u32, u32) {
        // Whole units, so that both kinds of picture have the same proportions.
        let lines = 18 * self.legend.len() as u32 + 60;
        (self.width() * scale + self.legend_width(1) * scale, CHART.1.max(lines) * scale)
    }

    /// The place of a name in the legend, which decides about its colour.
    fn place(&self, name: &str) -> usize {
        self.legend.iter().position(|(known, _)| *known == name).unwrap_or(0)
    }

    fn png(&self) -> Painted<Vec<u8>> {
        let scale = DENSITY * SMOOTH;
        let (width, height) = self.size(scale);
        let mut large = vec![0; (width * height * 3) as usize];
        self.paint(&BitMapBackend::with_buffer(&mut large, (width, height)).into_drawing_area(), scale)?;
        let (small_width, small_height) = (width / SMOOTH, height / SMOOTH);
        let mut small = Vec::with_capacity((small_width * small_height * 3) as usize);
        for y in 0..small_height {
            for x in 0..small_width {
                for channel in 0..3 {
                    let pixels = (0..SMOOTH * SMOOTH).map(|i| {
                        let (column, row) = (x * SMOOTH + i % SMOOTH, y * SMOOTH + i / SMOOTH);
                        u32::from(large[((row * width + column) * 3 + channel) as usize])
                    });
                    small.push((pixels.sum::<u32>() / (SMOOTH * SMOOTH)) as u8);
                }
            }
        }
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, small_width, small_height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&small)?;
        Ok(file)
    }

    fn paint<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Painted<()>
    where
        B::ErrorType: 'static,
    {
        let unit = |x: u32| x * scale;
        area.fill(&WHITE)?;
        let (left, legend) = area.split_horizontally(unit(self.width()) as i32);
        for (panel, area) in self.panels.iter().zip(left.split_evenly((1, self.panels.len().max(1)))) {
            self.paint_panel(panel, &area, scale)?;
        }
        for (i, &(name, level)) in self.legend.iter().enumerate() {
            let style = COLOURS[i % COLOURS.len()].stroke_width(unit(2));
            let y = unit(48 + 18 * i as u32) as i32;
            let x = |units: u32| unit(units) as i32;
            match level || i >= COLOURS.len() {
                false => legend.draw(&PathElement::new([(x(2), y), (x(24), y)], style))?,
                true => {
                    for dash in [2, 10, 18] {
                        legend.draw(&PathElement::new([(x(dash), y), (x(dash + 5), y)], style))?;
                    }
                }
            }
            let font = ("sans-serif", unit(13) as i32).into_font();
            legend.draw(&Text::new(name, (x(30), y - x(5)), font))?;
        }
        area.present()?;
        Ok(())
    }

    fn paint_panel<B: DrawingBackend>(
        &self,
        panel: &Panel,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Painted<()>
    where
        B::ErrorType: 'static,
    {
        let Panel { labels, curves } = panel;
        let unit = |x: u32| x * scale;
        let text = |size: u32| ("sans-serif", unit(size) as i32).into_font();
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let ends = || curves.iter().flat_map(|curve| &curve.band);
        let values = || points().map(|p| p.1).chain(ends().flat_map(|&(_, low, high)| [low, high]));
        let right = points().map(|p| p.0).fold(1.0, f64::max);
        let low = values().fold(0.0, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        let high = if high > low { high } else { low + 1.0 };
        let room = 0.04 * (high - low);
        let bottom = if low < 0.0 { low - room } else { low };
        let mut chart = ChartBuilder::on(area)
            .caption(labels.title, text(18))
            .margin(unit(12))
            .x_label_area_size(unit(40))
            .y_label_area_size(unit(60))
            .build_cartesian_2d(0.0..right, bottom..high + room)?;
        chart
            .configure_mesh()
            .x_desc(labels.x)
            .y_desc(labels.y)
            .label_style(text(12))
            .axis_desc_style(text(13))
            .axis_style(full_palette::GREY_600.stroke_width(scale))
            .set_all_tick_mark_size(unit(4))
            .x_labels(8)
            .y_label_formatter(&|y| value_label(*y, high - low))
            .x_label_formatter(&|x| step_label(*x))
            .light_line_style(TRANSPARENT)
            .bold_line_style(full_palette::GREY_200.stroke_width(scale))
            .draw()?;
        // Bands first: no line lies below another's band.
        for curve in curves.iter().filter(|curve| !curve.band.is_empty()) {
            let there = curve.band.iter().map(|&(x, low, _)| (x, low));
            let back = curve.band.iter().rev().map(|&(x, _, high)| (x, high));
            let outline: Vec<(f64, f64)> = there.chain(back).collect();
            let colour = COLOURS[self.place(&curve.name) % COLOURS.len()];
            chart.draw_series([Polygon::new(outline, colour.mix(0.18))])?;
        }
        for curve in *curves {
            let place = self.place(&curve.name);
            let style = COLOURS[place % COLOURS.len()].stroke_width(unit(2));
            let dashed =
                |from: Vec<(f64, f64)>| DashedLineSeries::new(from, unit(6) as i32, unit(4) as i32, style);
            match curve.points.first() {
                Some(&(_, y)) if curve.level => {
                    chart.draw_series(dashed(vec![(0.0, y), (right, y)]))?;
                }
                // The colours come again, dashed.
                _ if place >= COLOURS.len() => {
                    chart.draw_series(dashed(curve.points.clone()))?;
                }
                _ => {
                    chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
                }
            }
        }
        Ok(())
    }
}

/// `500`, `20k` or `1.5M`.
fn step_label(steps: f64) -> String {
    let short = |x: f64, unit: &str| {
        let digits = if (x - x.round()).abs() < 0.005 { 0 } else { 1 };
        format!("{x:.digits$}{unit}")
    };
    match steps {
        x if x >= 1e6 => short(x / 1e6, "M"),
        x if x >= 1e3 => short(x / 1e3, "k"),
        x => short(x, ""),
    }
}

/// With as many decimals as tell marks of a range apart.
fn value_label(value: f64, range: f64) -> String {
    let digits = (1.0 - range.log10()).ceil().clamp(0.0, 6.0) as usize;
    // + 0: no minus before a zero.
    format!("{:.digits$}", value + 0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LABELS: Labels = Labels { title: "a title", x: "environment steps", y: "return" };

    #[test]
    fn marks_are_short() {
        let steps = [(0.0, "0"), (400.0, "400"), (20_000.0, "20k"), (2_500.0, "2.5k"), (1.5e6, "1.5M")];
        for (x, wanted) in steps {
            assert_eq!(step_label(x), wanted);
        }
        // Ranges of 500, 20, 1 and 0.1: marks lie about a tenth of it apart.
        let values = [
            (400.0, 500.0, "400"),
            (12.0, 20.0, "12"),
            (0.25, 1.0, "0.2"),
            (0.01, 0.1, "0.01"),
            (-0.0, 1.0, "0.0"),
        ];
        for (x, range, wanted) in values {
            assert_eq!(value_label(x, range), wanted, "{x} of {range}");
        }
    }

    #[test]
    fn both_kinds_of_picture_show_lines_bands_and_levels() {
        let folder = tempfile::tempdir().unwrap();
        let curves = [
            Curve {
                name: "a & b".into(),
                points: vec![(0.0, 0.0), (1000.0, 1.0)],
                band: vec![(0.0, -0.1, 0.1), (1000.0, 0.5, 1.5)],
                level: false,
            },
            Curve { name: "level".into(), points: vec![(0.0, 0.75)], level: true, ..Curve::default() },
            Curve { name: "nothing yet".into(), ..Curve::default() },
        ];
        let svg = folder.path().join("x.svg");
        draw(&svg, &LABELS, &curves).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        for wanted in ["a title", "a &amp; b", "nothing yet", "<polygon", "<polyline", "environment steps"] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
        let png = folder.path().join("x.png");
        draw(&png, &LABELS, &curves).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&png).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.height, 2 * CHART.1);
        // The first curve's colour, and that of its band on white: 255 − 0.18 (255 − 114) = 229.6 in green.
        let has = |wanted: [u8; 3], within: u8| {
            pixels.chunks_exact(3).any(|pixel| pixel.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= within))
        };
        assert!(has([0, 114, 178], 0) && has([209, 230, 241], 1));
        let error = draw(&folder.path().join("x.jpg"), &LABELS, &[]).unwrap_err();
        assert!(error.to_string().contains(".svg or .png"));
    }

    #[test]
    fn a_picture_of_nothing_is_one() {
        let folder = tempfile::tempdir().unwrap();
        draw(&folder.path().join("x.svg"), &LABELS, &[]).unwrap();
    }
}
