//! The plot: how near each figure comes to what it is held against, and a panel for each group of
//! lines.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Figure, Goal, Report, Series};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 400;
const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 92, 30),
    RGBColor(44, 140, 60),
    RGBColor(120, 80, 160),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the plot into an SVG file.
pub(crate) fn plot(report: &Report, path: &Path) {
    let mut panels: Vec<&str> = Vec::new();
    for series in &report.series {
        if !panels.contains(&series.panel) {
            panels.push(series.panel);
        }
    }
    let compared: Vec<&Figure> = report
        .figures
        .iter()
        .filter(|figure| matches!(figure.goal, Some(Goal::RatioAtLeast(_))))
        .collect();
    let count = panels.len() + usize::from(!compared.is_empty());
    if count == 0 {
        return;
    }
    let rows = count.div_ceil(2);
    let height = HEIGHT * u32::try_from(rows).unwrap();
    let root = SVGBackend::new(path, (2 * WIDTH, height)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut areas = root.split_evenly((rows, 2)).into_iter();
    if !compared.is_empty() {
        ratios(&areas.next().unwrap(), &compared);
    }
    for panel in panels {
        let of_panel = report.series.iter().filter(|series| series.panel == panel);
        lines(&areas.next().unwrap(), panel, &of_panel.collect::<Vec<_>>());
    }
    root.present().unwrap();
}

/// A bar for each figure, and a mark where it is to reach.
fn ratios(area: &Area<'_>, figures: &[&Figure]) {
    let ratio = |figure: &Figure| figure.beside.as_ref().map_or(0.0, |beside| beside.ratio);
    let most = figures
        .iter()
        .map(|figure| ratio(figure))
        .fold(1.0, f64::max);
    let count = figures.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption("share of the ceiling (mark: to reach)", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(34)
        .build_cartesian_2d(0.0..most * 1.05, 0.0..count)
        .unwrap();
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .draw()
        .unwrap();
    for (place, figure) in figures.iter().rev().enumerate() {
        let (bottom, share) = (place as f64, ratio(figure));
        let bar = Rectangle::new(
            [(0.0, bottom + 0.15), (share, bottom + 0.55)],
            COLOURS[0].mix(0.75).filled(),
        );
        let beside = figure
            .beside
            .as_ref()
            .map_or("", |beside| beside.name.as_str());
        let label = format!(
            "{}: {} / {beside}: {share:.2}",
            figure.measurement, figure.name
        );
        let text = Text::new(label, (0.0, bottom + 0.92), ("sans-serif", 13));
        let elements = chart.draw_series([bar]);
        elements.unwrap();
        chart.draw_series([text]).unwrap();
        if let Some(Goal::RatioAtLeast(goal)) = figure.goal {
            let mark = [(goal, bottom + 0.08), (goal, bottom + 0.62)];
            let mark = PathElement::new(mark, COLOURS[1].stroke_width(3));
            chart.draw_series([mark]).unwrap();
        }
    }
}

/// Lines over one another, with the axes that the first of them names.
fn lines(area: &Area<'_>, panel: &str, series: &[&Series]) {
    let points = || {
        series
            .iter()
            .flat_map(|series| series.points.iter().copied())
    };
    let most = |of: fn((f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (x, y) = (most(|(x, _)| x), most(|(_, y)| y));
    let mut chart = ChartBuilder::on(area)
        .caption(panel, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..x.max(1.0) * 1.03, 0.0..y.max(1e-3) * 1.1)
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_desc(series[0].x)
        .y_desc(series[0].y)
        .draw()
        .unwrap();
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(line).unwrap();
        drawn
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let dots = series
            .points
            .iter()
            .map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(dots).unwrap();
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .unwrap();
}
