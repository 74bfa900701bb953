//! The formats in which spans are sent.

use http::StatusCode;

use super::otlp;
use super::span::Span;

/// A format in which spans are sent.
pub struct Format {
    pub(super) flag: &'static str,
    /// Where the address in the flag leads.
    pub(super) base: &'static str,
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    /// What the collector answers to what it has taken.
    pub(super) taken: StatusCode,
    pub(super) read: fn(&[u8]) -> Result<Vec<Span>, String>,
}

/// Zipkin's, version 2.
pub static ZIPKIN: Format = Format {
    flag: "zipkin-url",
    base: "/api/v2/spans",
    path: "/api/v2/spans",
    content_type: "application/json",
    taken: StatusCode::ACCEPTED,
    read: |body| serde_json::from_slice(body).map_err(|error| error.to_string()),
};

/// OpenTelemetry's, in protobuf.
pub static OTLP: Format = Format {
    flag: "otel-exporter-otlp-endpoint",
    base: "",
    path: "/v1/traces",
    content_type: "application/x-protobuf",
    taken: StatusCode::OK,
    read: otlp::read,
};
