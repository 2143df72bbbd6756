//! A chart of costs against the number of backends, as an SVG file. Both axes are logarithmic.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;

/// Figures of one question.
pub(crate) struct Chart {
    title: String,
    unit: &'static str,
    series: BTreeMap<String, Vec<(f64, f64)>>,
}

/// Colours that people with any sight tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

impl Chart {
    pub(crate) fn new(title: &str, unit: &'static str) -> Self {
        Self { title: title.to_owned(), unit, series: BTreeMap::new() }
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of backends")]
    pub(crate) fn add(&mut self, name: &str, backends: usize, cost: f64) {
        self.series.entry(name.to_owned()).or_default().push((backends as f64, cost));
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::new();
        self.draw(SVGBackend::with_string(&mut text, (640, 360))).map_err(anyhow::Error::msg)?;
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    fn draw(&self, backend: SVGBackend<'_>) -> Result<(), String> {
        let points = || self.series.values().flatten().copied();
        let most = |of: fn((f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
        let least = |of: fn((f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
        let lowest = (least(|p| p.1) / 2.0).max(0.05);
        let area = backend.into_drawing_area();
        let words = |error: DrawingAreaErrorKind<_>| error.to_string();
        area.fill(&WHITE).map_err(words)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (least(|p| p.0)..most(|p| p.0) * 1.1).log_scale(),
                (lowest..most(|p| p.1) * 2.0).log_scale(),
            )
            .map_err(words)?;
        let mut mesh = chart.configure_mesh();
        mesh.max_light_lines(0).x_desc("backends").y_desc(self.unit).draw().map_err(words)?;
        for ((name, points), colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let line =
                LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
            let drawn = chart.draw_series(line).map_err(words)?;
            let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], *colour);
            drawn.label(name).legend(key);
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw().map_err(words)
    }
}
