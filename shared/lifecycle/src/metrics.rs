//! The metric of dependencies.

use metric_definitions::{Gauge, Label};

/// Of every process that depends on something. The process lists the names of its dependencies.
pub const DEPENDENCY_UP: Gauge<DependencyName> = Gauge::<DependencyName>::new(
    "callback_pipeline_dependency_up",
    "Whether what the process depends on is reachable: 1 or 0.",
);

/// Name of a dependency.
pub struct DependencyName(pub(crate) &'static str);

impl Label for DependencyName {
    const NAME: &'static str = "dependency";
    const VALUES: &'static [&'static str] = &[];

    fn value(&self) -> &'static str {
        self.0
    }
}
