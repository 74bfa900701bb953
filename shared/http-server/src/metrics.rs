//! Metrics of HTTP servers.

use metric_definitions::Description;

/// Metrics of HTTP servers, admin ports included.
pub const METRICS: &[Description] = &[
    Description::counter(
        "http_connections_refused_total",
        "Connections above the limit that were answered 503 and closed.",
    ),
    Description::counter(
        "http_connections_displaced_total",
        "Connections that were closed to make room for others, since their clients sent nothing.",
    ),
    Description::counter(
        "http_requests_malformed_total",
        "Requests that were answered 400 or 431, since their head is not HTTP, is too large, or names no host.",
    ),
    Description::counter(
        "http_requests_panicked_total",
        "Requests that were answered 500 because of a defect, which the log describes.",
    ),
];
