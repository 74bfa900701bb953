//! The way of spans to collectors: gathered into batches, sent next to the work, and given up where a
//! collector does not take them. Nothing waits for it.
//!
//! Each collector has an exporter: a queue with room for a fixed number of spans, and a task that sends them. The
//! exporters share all of that, and differ in their [`format`] only.

mod client;
mod deliveries;
mod destination;
mod exporter;
mod format;
mod otlp;
mod post;
mod queue;
#[cfg(test)]
mod sample;
mod zipkin;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metric_definitions::Label as _;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use settings::Value as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Address, TraceSettings};
use client::CollectorClient;
use deliveries::{DeliveryLog, dropped};
pub use deliveries::{ExporterName, SPANS_DROPPED, SPANS_EXPORTED};
use destination::Destination;
use exporter::Exporter;
use format::Format;
use otlp::Otlp;
use post::Post;
use queue::Queue;
use zipkin::Zipkin;

/// The exporters that the settings ask for.
///
/// # Errors
/// A file cannot be read, or an HTTP client cannot be set up.
fn exporters(resource: &Resource, settings: &TraceSettings) -> anyhow::Result<Vec<Exporter>> {
    let (zipkin, otlp) = (
        Arc::new(Zipkin::new(resource)),
        Arc::new(Otlp::new(resource)),
    );
    let (to_zipkin, to_otlp) = (Destination::zipkin(settings), Destination::otlp(settings)?);
    let zipkin = exporter(ExporterName::Zipkin, zipkin, to_zipkin, settings)?;
    let otlp = exporter(ExporterName::Otlp, otlp, to_otlp, settings)?;
    Ok(zipkin.into_iter().chain(otlp).collect())
}

/// The exporter to a destination, if there is one.
fn exporter(
    name: ExporterName,
    format: Arc<dyn Format>,
    destination: Destination,
    settings: &TraceSettings,
) -> anyhow::Result<Option<Exporter>> {
    let Some(url) = destination.url()? else {
        return Ok(None);
    };
    let client = CollectorClient::new(&url, &settings.trust)
        .context("setting up the HTTP client of the span collector")?;
    Ok(Some(Exporter {
        queue: Arc::default(),
        format,
        post: Post {
            destination,
            client,
        },
        deliveries: DeliveryLog::new(name, Address(Some(url)).show()),
    }))
}

/// The exporters at work. They end with it.
#[derive(Debug)]
pub(crate) struct Exporters {
    tasks: JoinSet<()>,
    fan_out: FanOut,
}

/// Puts each span into the queue of each exporter.
#[derive(Clone, Debug)]
pub(crate) struct FanOut(Arc<[(ExporterName, Arc<Queue>)]>);

impl Exporters {
    /// Starts them on the runtime that this is called on. `None` if spans are to go nowhere.
    ///
    /// # Errors
    /// A file cannot be read, or an HTTP client cannot be set up.
    pub(crate) fn start(
        resource: &Resource,
        settings: &TraceSettings,
    ) -> anyhow::Result<Option<Self>> {
        let exporters = exporters(resource, settings)?;
        let queues = exporters.iter().map(Exporter::queue);
        let fan_out = FanOut(queues.collect());
        let tasks: JoinSet<()> = exporters.into_iter().map(Exporter::run).collect();
        Ok((!tasks.is_empty()).then_some(Self { tasks, fan_out }))
    }

    /// Where spans are put for them.
    pub(crate) fn fan_out(&self) -> FanOut {
        self.fan_out.clone()
    }

    /// Sends the spans that wait, for at most `limit`. The exporters do so at the same time.
    pub(crate) async fn finish(mut self, limit: Duration) {
        let FanOut(queues) = &self.fan_out;
        for (_, queue) in queues.iter() {
            queue.end();
        }
        let all_sent = async { while self.tasks.join_next().await.is_some() {} };
        let ended = timeout(limit, all_sent).await;
        self.tasks.shutdown().await;
        for (name, queue) in queues.iter() {
            let spans = queue.left();
            if spans > 0 {
                dropped(*name, spans);
                let exporter = name.value();
                tracing::info!(exporter, spans, ?ended, "the last spans were not sent");
            }
        }
    }
}

/// Counts spans that find no room.
impl SpanProcessor for FanOut {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let span = Arc::new(span);
        for (name, queue) in self.0.iter() {
            if !queue.push(&span) {
                dropped(*name, 1);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
