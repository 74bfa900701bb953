//! Metrics of processes that are connected to the database.

use metric_definitions::Description;

/// Of processes that are connected to the database.
pub const METRICS: &[Description] = &[
    Description::counter(
        "database_connections_opened_total",
        "Connections to the database that were opened.",
    ),
    Description::counter(
        "database_conflicts_total",
        "Statements that lost against a concurrent one and were tried again at once.",
    ),
];
