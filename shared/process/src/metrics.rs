//! Metrics that every process has.

use metric_definitions::{Description, Gauge, Labels, Pair, Values};

/// Metrics that every process has.
pub const METRICS: &[Description] = &[
    BUILD_INFO.description(),
    telemetry::LOG_LINES_DROPPED.description(),
    trace::SPANS_EXPORTED.description(),
    trace::SPANS_DROPPED.description(),
];

pub(crate) const BUILD_INFO: Gauge<Build> = Gauge::<Build>::new(
    "callback_pipeline_build_info",
    "Always 1; the labels say which process of which version this is.",
);

/// The process that this binary is.
pub(crate) struct Build {
    pub(crate) process: &'static str,
    pub(crate) version: &'static str,
}

impl Labels for Build {
    const ALL: &'static [Values] = &[("process", &[]), ("version", &[])];

    fn pairs(&self) -> Vec<Pair> {
        let values = [self.process, self.version].into_iter();
        let names = Self::ALL.iter().map(|(name, _)| *name);
        names.zip(values).collect()
    }
}
