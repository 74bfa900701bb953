//! Metrics of processes that are connected to the database.

use metric_definitions::{Counter, metrics};

metrics! {
    /// Of processes that are connected to the database.
    pub METRICS;

    /// Connections to the database that were opened.
    pub(crate) CONNECTIONS_OPENED: Counter = "callback_pipeline_database_connections_opened_total";
    /// Statements that lost against a concurrent one and were tried again at once.
    pub(crate) CONFLICTS: Counter = "callback_pipeline_database_conflicts_total";
}
