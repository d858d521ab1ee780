//! Learning curves as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

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

/// One line of a picture: its name and its points (step, value).
pub struct Curve {
    /// For the legend.
    pub name: String,
    /// In order of step.
    pub points: Vec<(f64, f64)>,
    /// Drawn across the whole picture, dashed: a level to compare with.
    pub level: bool,
}

/// The values logged under `tag` in a run's `metrics.jsonl`, with their steps.
///
/// # Errors
/// An unreadable file.
pub fn metric(run: &Path, tag: &str) -> Result<Vec<(f64, f64)>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl"))?;
    let points = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((line.get("step")?.as_f64()?, line.get(tag)?.as_f64()?))
    });
    Ok(points.collect())
}

/// Draws `curves` over steps into an SVG file.
///
/// # Errors
/// A file that cannot be written.
pub fn draw(path: &Path, title: &str, y_label: &str, curves: &[Curve]) -> Result<()> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let right = all().map(|p| p.0).fold(1.0, f64::max);
    let low = all().map(|p| p.1).fold(0.0, f64::min);
    let high = all().map(|p| p.1).fold(1.0, f64::max);
    let drawn =
        || -> Result<(), Box<dyn std::error::Error>> {
            let area = SVGBackend::new(path, (820, 420)).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(title, ("sans-serif", 20))
                .margin(12)
                .x_label_area_size(42)
                .y_label_area_size(56)
                .build_cartesian_2d(0.0..right, low..high + 0.06 * (high - low))?;
            chart
                .configure_mesh()
                .x_desc("environment steps")
                .y_desc(y_label)
                .y_label_formatter(&|y| format!("{y:.0}"))
                .x_label_formatter(&|x| format!("{:.0}k", x / 1000.0))
                .light_line_style(TRANSPARENT)
                .bold_line_style(full_palette::GREY_200)
                .draw()?;
            for (i, curve) in curves.iter().enumerate() {
                let colour = COLOURS[i % COLOURS.len()];
                if curve.level {
                    let y = curve.points.first().map_or(0.0, |p| p.1);
                    let dashes = DashedLineSeries::new([(0.0, y), (right, y)], 6, 4, colour.stroke_width(2));
                    chart.draw_series(dashes)?.label(&curve.name).legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                    });
                } else {
                    let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
                    chart.draw_series(line)?.label(&curve.name).legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
                    });
                }
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::MiddleRight)
                .background_style(WHITE.mix(0.85))
                .border_style(full_palette::GREY_400)
                .draw()?;
            area.present()?;
            Ok(())
        };
    drawn().map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}
