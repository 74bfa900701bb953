//! The metrics about a process that all of Prometheus' client libraries have.

use std::fmt;

use metrics_process::collector::{Metrics, collect};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Asks the operating system each time that somebody looks.
#[derive(Debug)]
pub(crate) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let found = collect();
        if let Some(used) = found.cpu_seconds_total {
            let help = "Total user and system CPU time spent in seconds.";
            let counter = ConstCounter::new(used);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(
                "process_cpu",
                help,
                Some(&Unit::Seconds),
                kind,
            )?)?;
        }
        for (name, help, unit, value) in gauges(&found) {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)?;
        }
        Ok(())
    }
}

/// Name, help text, unit and value of each gauge.
fn gauges(found: &Metrics) -> [(&'static str, &'static str, Option<Unit>, Option<u64>); 7] {
    [
        (
            "process_open_fds",
            "Number of open file descriptors.",
            None,
            found.open_fds,
        ),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            None,
            found.max_fds,
        ),
        (
            "process_virtual_memory",
            "Virtual memory size in bytes.",
            Some(Unit::Bytes),
            found.virtual_memory_bytes,
        ),
        (
            "process_virtual_memory_max",
            "Maximum amount of virtual memory available in bytes.",
            Some(Unit::Bytes),
            found.virtual_memory_max_bytes,
        ),
        (
            "process_resident_memory",
            "Resident memory size in bytes.",
            Some(Unit::Bytes),
            found.resident_memory_bytes,
        ),
        (
            "process_start_time",
            "Start time of the process since unix epoch in seconds.",
            Some(Unit::Seconds),
            found.start_time_seconds,
        ),
        (
            "process_threads",
            "Number of OS threads in the process.",
            None,
            found.threads,
        ),
    ]
}
