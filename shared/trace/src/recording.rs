//! Whether and how the process records spans, from its start to its end.

use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::collector::Exporters;
use crate::config::TraceSettings;
use crate::recorder::{RECORDER, Recorder};

/// Name of what makes the spans, whichever the process is.
const PRODUCT: &str = "callback-pipeline";

/// Spans are recorded until it is finished.
#[derive(Debug)]
pub struct Recording(Option<Exporters>);

impl Recording {
    /// Begins to record spans of the process that is this resource, to be sent by the runtime that this
    /// is called on.
    ///
    /// # Errors
    /// A file cannot be read, an HTTP client cannot be set up, or recording has been begun before.
    pub fn begin(resource: Resource, settings: &TraceSettings) -> anyhow::Result<Self> {
        if settings.otel_sdk_disabled {
            return Ok(Self(None));
        }
        let Some(exporters) = Exporters::start(&resource, settings)? else {
            return Ok(Self(None));
        };
        let sampler = Sampler::TraceIdRatioBased(settings.trace_ratio.get());
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(sampler.clone())))
            .with_span_processor(exporters.queues())
            .build();
        let scope = InstrumentationScope::builder(PRODUCT).with_version(env!("CARGO_PKG_VERSION"));
        let recorder = Recorder {
            tracer: provider.tracer_with_scope(scope.build()),
            sampler,
            trusts_senders: settings.trust_traces,
        };
        if RECORDER.set(recorder).is_err() {
            anyhow::bail!("recording has been begun before");
        }
        Ok(Self(Some(exporters)))
    }

    /// How much of the time that a process has to end is for sending the last spans.
    #[must_use]
    pub fn flush_timeout(&self, shutdown_timeout: Duration) -> Duration {
        match self.0 {
            Some(_) => shutdown_timeout.mul_f64(0.1),
            None => Duration::ZERO,
        }
    }

    /// Sends what was recorded, for at most `timeout`.
    pub async fn finish(self, timeout: Duration) {
        if let Some(exporters) = self.0 {
            exporters.finish(timeout).await;
        }
    }
}
