//! Metrics that every process has.

use metric_definitions::Description;

/// Metrics that every process has.
pub const METRICS: &[Description] = &[
    Description::gauge(
        "build_info",
        "Always 1; the labels say which process of which version this is.",
    )
    .by(&[("process", &[]), ("version", &[])]),
    Description::counter(
        "log_lines_dropped_total",
        "Log lines that nobody read in time, or that could not be written, as on a full disk.",
    ),
    Description::counter(
        "trace_spans_exported_total",
        "Spans that the collector has taken.",
    ),
    Description::counter(
        "trace_spans_dropped_total",
        "Spans that the collector did not take, or that found no place among those that wait for it.",
    ),
];
