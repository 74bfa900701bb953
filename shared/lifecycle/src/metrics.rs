//! The metric of dependencies.

use metric_definitions::Description;

/// Of every process that depends on something; which dependencies there are is its own.
pub const DEPENDENCY_UP: Description = Description::gauge(
    "dependency_up",
    "Whether what the process depends on is reachable: 1 or 0.",
);
