//! The plot: a panel for each unit of each measurement that makes curves.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Curve, Report};
use crate::table::distinct;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 400;
/// How high a panel is, as a multiple of its curves: their names are above them.
const ROOM: f64 = 1.4;
/// More curves than that in one panel have the same colours.
const COLOURS: f64 = 6.0;

/// Draws the curves of a report into an SVG file.
pub(crate) fn plot(report: &Report, path: &Path) {
    let curves = curves(report);
    let panels = distinct(curves.iter().map(|curve| &curve.panel));
    if panels.is_empty() {
        return;
    }
    let rows = panels.len().div_ceil(2);
    let height = HEIGHT * u32::try_from(rows).unwrap();
    let root = SVGBackend::new(path, (2 * WIDTH, height)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    for (area, panel) in root.split_evenly((rows, 2)).iter().zip(panels) {
        let of_panel = curves.iter().filter(|curve| curve.panel == *panel);
        draw(area, panel, &of_panel.collect::<Vec<_>>());
    }
    root.present().unwrap();
}

/// What was followed over time, and the figures that have a place on a curve.
fn curves(report: &Report) -> Vec<Curve> {
    let mut curves = report.curves.clone();
    for figure in &report.figures {
        let Some((point, x)) = figure
            .point
            .as_ref()
            .and_then(|point| Some((point, point.x?)))
        else {
            continue;
        };
        let panel = format!("{}, {}", figure.measurement, figure.unit);
        let is_same = |curve: &&mut Curve| curve.panel == panel && curve.name == figure.name;
        match curves.iter_mut().find(is_same) {
            Some(curve) => curve.points.push((x, figure.value)),
            None => curves.push(Curve {
                name: figure.name.clone(),
                x: point.axis.clone(),
                points: vec![(x, figure.value)],
                panel,
            }),
        }
    }
    curves.retain(|curve| curve.points.len() > 1);
    curves
}

/// Draws curves over one another.
fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &str, curves: &[&Curve]) {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let x = points().map(|(x, _)| x).fold(0.0, f64::max);
    let y = points().map(|(_, y)| y).fold(1e-3, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(panel, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..x * 1.03, 0.0..y * ROOM)
        .unwrap();
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).x_desc(&curves[0].x);
    mesh.draw().unwrap();
    for (number, curve) in curves.iter().enumerate() {
        let line = HSLColor(number as f64 / COLOURS, 0.9, 0.4).stroke_width(2);
        let series = LineSeries::new(curve.points.iter().copied(), line);
        let drawn = chart.draw_series(series).unwrap().label(&curve.name);
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line));
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft);
    labels.background_style(WHITE.mix(0.8)).draw().unwrap();
}
