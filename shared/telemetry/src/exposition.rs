//! The metrics of a process, as Prometheus reads them.

use std::sync::OnceLock;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histogram buckets for durations, in seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// The same for look-ups, most of which take 0.3 s to 4.3 s.
const FETCH_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0,
    4.5, 5.0, 10.0,
];

/// The same for what can be late by as long as a process is away.
const LATE_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 3_600.0,
];

/// The same for rows in a statement.
const ROWS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
];

/// Names, or ends of names, and their buckets; a whole name goes before an end.
fn buckets() -> [(Matcher, &'static [f64]); 5] {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let suffix = |end: &str| Matcher::Suffix(end.to_owned());
    [
        (suffix("_seconds"), SECONDS),
        (full("fetch_duration_seconds"), FETCH_SECONDS),
        (full("consumer_lag_seconds"), LATE_SECONDS),
        (full("object_deletion_lateness_seconds"), LATE_SECONDS),
        (suffix("_rows"), ROWS),
    ]
}

/// The metrics of the process, as `/metrics` shows them.
#[derive(Clone, Debug)]
pub struct Exposition {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Exposition {
    /// All of them, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Takes up the samples that histograms keep until someone asks: without it they would grow.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Begins to collect metrics. A process has one recorder: a second call returns what the first did.
///
/// # Errors
/// Another recorder is installed already.
pub fn init_metrics() -> anyhow::Result<Exposition> {
    static EXPOSITION: OnceLock<Exposition> = OnceLock::new();
    if let Some(exposition) = EXPOSITION.get() {
        return Ok(exposition.clone());
    }
    let handle = buckets()
        .iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder.set_buckets_for_metric(name.clone(), bounds)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .context("installing the metrics recorder")?;
    let process = metrics_process::Collector::default();
    process.describe();
    let exposition = Exposition { handle, process };
    Ok(EXPOSITION.get_or_init(|| exposition).clone())
}
