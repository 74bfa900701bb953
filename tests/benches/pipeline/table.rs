//! The tables, in Markdown.

use std::fmt::Write;

use crate::figure::{Figure, Goal, Point};
use crate::report::Report;

const HEAD: &str = "\
| measurement | what | measured | beside | ratio | to reach | reached |
| --- | --- | --- | --- | --- | --- | --- |";

/// Everything in a report: what was measured once, a table for each measurement that was repeated, and
/// what took the processors.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = format!("{} form, on {}\n", report.form, report.machine);
    if !report.tried.is_empty() {
        writeln!(text, "with {}", report.tried.join(", ")).unwrap();
    }
    let once: Vec<&Figure> = (report.figures.iter())
        .filter(|figure| figure.point.is_none())
        .collect();
    if !once.is_empty() {
        writeln!(text, "\n{HEAD}").unwrap();
        for figure in once {
            writeln!(text, "{}", row(figure)).unwrap();
        }
    }
    let measurements = distinct(report.figures.iter().map(|figure| &figure.measurement));
    for measurement in measurements {
        let of_it = |figure: &&Figure| figure.measurement == *measurement && figure.point.is_some();
        let figures: Vec<&Figure> = report.figures.iter().filter(of_it).collect();
        if !figures.is_empty() {
            writeln!(text, "\n{}", grid(&figures)).unwrap();
        }
    }
    if !report.processors.is_empty() {
        writeln!(text, "\n{}", processors(report)).unwrap();
    }
    text
}

/// The row of a figure.
pub(crate) fn row(figure: &Figure) -> String {
    let beside = figure.beside.as_ref();
    let reference = beside.map(|beside| format!("{} {}", beside.name, number(beside.value)));
    let ratio = beside.map(|beside| format!("{:.2}", beside.ratio));
    let reached = figure
        .reached()
        .map(|reached| if reached { "yes" } else { "**no**" });
    format!(
        "| {} | {} | {} {} | {} | {} | {} | {} |",
        figure.measurement,
        name(figure),
        number(figure.value),
        figure.unit,
        reference.unwrap_or_default(),
        ratio.unwrap_or_default(),
        goal(figure).unwrap_or_default(),
        reached.unwrap_or_default()
    )
}

/// What a figure is about, and at which point.
pub(crate) fn name(figure: &Figure) -> String {
    match &figure.point {
        None => figure.name.clone(),
        Some(point) if point.x.is_some() => {
            format!("{}, {} {}", figure.name, point.label, point.axis)
        }
        Some(point) => format!("{}, {}", figure.name, point.label),
    }
}

fn goal(figure: &Figure) -> Option<String> {
    Some(match figure.goal? {
        Goal::RatioAtLeast(goal) => format!("at least {goal} of it"),
        Goal::RatioAtMost(goal) => format!("at most {goal} of it"),
        Goal::AtLeast(goal) => format!("at least {goal}"),
        Goal::AtMost(goal) => format!("at most {goal}"),
    })
}

/// A table of the figures of one measurement. A curve has a row for each point, and kinds have a column
/// each.
fn grid(figures: &[&Figure]) -> String {
    let points = distinct(figures.iter().filter_map(|figure| figure.point.as_ref()));
    let names = distinct(figures.iter().map(|figure| &figure.name));
    let cell_of = |point: &Point, name: &str| {
        let mut found = figures.iter();
        let found =
            found.find(|figure| figure.point.as_ref() == Some(point) && figure.name == name);
        found.map(|figure| cell(figure)).unwrap_or_default()
    };
    let labels: Vec<&str> = points.iter().map(|point| point.label.as_str()).collect();
    let names_shown: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let corner = format!("{}: {}", figures[0].measurement, points[0].axis);
    if points[0].x.is_some() {
        markdown(&corner, &names_shown, &labels, |row, column| {
            cell_of(points[row], names[column])
        })
    } else {
        markdown(&corner, &labels, &names_shown, |row, column| {
            cell_of(points[column], names[row])
        })
    }
}

/// What took the processors, in percent of what the machine has: a row for each measurement.
fn processors(report: &Report) -> String {
    let rows: Vec<&str> = report
        .processors
        .iter()
        .map(|(row, _)| row.as_str())
        .collect();
    let shares = || report.processors.iter().map(|(_, shares)| &shares.0);
    let names = distinct(shares().flatten().map(|(name, _)| name));
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    markdown("processors, %", &names, &rows, |row, column| {
        let share = report.processors[row].1.0.get(names[column]);
        share.map_or_else(String::new, |share| format!("{:.0}", 100.0 * share))
    })
}

/// A figure in a grid, with what it is held against, and with its goal where that is missed.
fn cell(figure: &Figure) -> String {
    let mut cell = format!("{} {}", number(figure.value), figure.unit);
    if let Some(beside) = &figure.beside {
        let value = number(beside.value);
        write!(cell, " ({:.2} of {} {value})", beside.ratio, beside.name).unwrap();
    }
    if figure.reached() == Some(false) {
        write!(cell, ", **not {}**", goal(figure).unwrap_or_default()).unwrap();
    }
    cell
}

fn markdown(
    corner: &str,
    columns: &[&str],
    rows: &[&str],
    cell: impl Fn(usize, usize) -> String,
) -> String {
    let line = |first: &str, cells: Vec<String>| format!("| {first} | {} |", cells.join(" | "));
    let head = columns.iter().map(|&column| column.to_owned()).collect();
    let rule = vec!["---".to_owned(); columns.len()];
    let mut lines = vec![line(corner, head), line("---", rule)];
    for (number, row) in rows.iter().enumerate() {
        let cells = (0..columns.len()).map(|column| cell(number, column));
        lines.push(line(row, cells.collect()));
    }
    lines.join("\n")
}

/// Each value once, in the order in which they come.
pub(crate) fn distinct<'a, T: PartialEq>(values: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// With as many digits as mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
