//! Metrics of HTTP servers.

use metric_definitions::{Counter, metrics};

metrics! {
    /// Metrics of HTTP servers, admin ports included.
    pub METRICS;

    /// Connections above the limit that were answered 503 and closed.
    pub(crate) CONNECTIONS_REFUSED: Counter = "callback_pipeline_http_connections_refused_total";
    /// Connections that were closed to make room for others, since their clients sent nothing.
    pub(crate) CONNECTIONS_DISPLACED: Counter = "callback_pipeline_http_connections_displaced_total";
    /// Requests that were answered 400 or 431, since their head is not HTTP, is too large, or names no host.
    pub(crate) REQUESTS_MALFORMED: Counter = "callback_pipeline_http_requests_malformed_total";
    /// Connections of proxies that were closed, since they began with a malformed PROXY header, or with none.
    pub(crate) PROXY_HEADERS_MALFORMED: Counter = "callback_pipeline_http_proxy_headers_malformed_total";
    /// Requests that were answered 500 because of a defect, which the log describes.
    pub(crate) REQUESTS_PANICKED: Counter = "callback_pipeline_http_requests_panicked_total";
}
