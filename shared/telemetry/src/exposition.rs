//! The metrics of a process, as Prometheus reads them.

use anyhow::Context;
use metric_definitions::{Description, announce};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

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

/// Begins to collect metrics, and announces those of the process.
///
/// # Errors
/// Another recorder is installed already.
pub fn init_metrics<'a>(
    of_the_process: impl IntoIterator<Item = &'a Description> + Clone,
) -> anyhow::Result<Exposition> {
    let mut builder = PrometheusBuilder::new();
    for metric in of_the_process.clone() {
        if !metric.buckets.is_empty() {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, metric.buckets)?;
        }
    }
    let handle = builder
        .install_recorder()
        .context("installing the metrics recorder")?;
    announce(of_the_process);
    let process = metrics_process::Collector::default();
    process.describe();
    Ok(Exposition { handle, process })
}
