//! The way of spans from a queue to a collector, whatever the format.

use std::sync::Arc;

use anyhow::Context as _;
use http::StatusCode;
use opentelemetry_sdk::trace::SpanData;
use tcp::advised;
use tokio::task::spawn_blocking;

use super::deliveries::{DeliveryLog, ExporterName, Refusal};
use super::format::Format;
use super::post::{Post, PostError};
use super::queue::Queue;

/// What can be tried about what a collector does.
const ADVICE: [(&str, &str); 9] = [
    (
        "it answered 404",
        "is the path right? ZIPKIN_URL ends in /api/v2/spans, OTEL_EXPORTER_OTLP_ENDPOINT before /v1/traces, and a Zipkin \
         takes no OTLP",
    ),
    (
        "it answered 40",
        "does the collector ask for credentials? OTEL_EXPORTER_OTLP_HEADERS has them, or user and password in the address",
    ),
    (
        "it answered 3",
        "redirects are not followed: name the new address",
    ),
    (
        "invalid HTTP",
        "name the port for OTLP over HTTP (4318), not that of gRPC (4317); write https:// where there is TLS",
    ),
    (
        "InvalidContentType",
        "it does not speak TLS: write http://, or name the port with TLS",
    ),
    ("reset by peer", "write https:// where there is TLS"),
    ("connection closed", "write https:// where there is TLS"),
    (
        "connection was not ready",
        "write https:// where there is TLS",
    ),
    (
        "timed out",
        "does the collector hang, or a firewall drop what is sent?",
    ),
];

/// Sends the spans of a queue, batch by batch. It works in a task of its exporter, so that no exporter waits
/// for another.
pub(crate) struct Exporter {
    pub(super) queue: Arc<Queue>,
    pub(super) format: Arc<dyn Format>,
    pub(super) post: Post,
    pub(super) deliveries: DeliveryLog,
}

impl Exporter {
    pub(super) fn queue(&self) -> (ExporterName, Arc<Queue>) {
        (self.deliveries.exporter, Arc::clone(&self.queue))
    }

    /// Sends until the queue has ended and is empty.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queue.take().await {
            self.deliver(&batch).await;
        }
    }

    /// Sends a batch, and in halves what the collector finds too large. What fails is given up.
    async fn deliver(&mut self, batch: &[Arc<SpanData>]) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.send(part).await {
                Err(PostError::Status(StatusCode::PAYLOAD_TOO_LARGE)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                result => self.note(part.len(), result),
            }
        }
    }

    /// Sends spans in one request. Returns what the collector says against them, if it took the request.
    async fn send(&mut self, spans: &[Arc<SpanData>]) -> Result<Option<Refusal>, PostError> {
        let (format, spans) = (Arc::clone(&self.format), spans.to_vec());
        // It takes milliseconds, for which work would have to wait.
        let body = spawn_blocking(move || format.encode(&spans)).await;
        let body = body.context("writing spans")??;
        let answer = self.post.send(self.format.content_type(), body).await?;
        Ok(self.format.refusal(&answer))
    }

    fn note(&mut self, count: usize, result: Result<Option<Refusal>, PostError>) {
        let refusal = result.unwrap_or_else(|error| {
            Some(Refusal {
                spans: count,
                reason: advised(error.to_string(), &ADVICE),
            })
        });
        self.queue.forget(count);
        self.deliveries.note(count, refusal);
    }
}
