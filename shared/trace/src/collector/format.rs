//! What a format is: all that one collector's way differs from another's in.

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanData;

use super::deliveries::Refusal;

/// How spans are written for a collector.
pub(super) trait Format: Send + Sync {
    /// What a request says of its body.
    fn content_type(&self) -> &'static str;

    /// The body of a request.
    ///
    /// # Errors
    /// The spans cannot be written.
    fn encode(&self, spans: &[Arc<SpanData>]) -> anyhow::Result<Vec<u8>>;

    /// Which spans the collector left out, by its answer to a request that it took.
    fn refusal(&self, _answer: &[u8]) -> Option<Refusal> {
        None
    }
}
