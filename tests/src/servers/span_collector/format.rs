//! The formats in which spans are sent.

use http::StatusCode;

use super::span::Span;

/// A format in which spans are sent.
pub struct Format {
    pub(super) flag: &'static str,
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    /// What the collector answers to what it has taken.
    pub(super) taken: StatusCode,
    pub(super) read: fn(&[u8]) -> Result<Vec<Span>, String>,
}

/// Zipkin's, version 2.
pub static ZIPKIN: Format = Format {
    flag: "zipkin-url",
    path: "/api/v2/spans",
    content_type: "application/json",
    taken: StatusCode::ACCEPTED,
    read: |body| serde_json::from_slice(body).map_err(|error| error.to_string()),
};
