//! The way of spans to Zipkin: gathered into batches, sent beside the work, and given up where the
//! collector does not take them. Nothing waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use opentelemetry_zipkin::ZipkinExporter;
use parking_lot::Mutex;
use settings::{Ratio, Secret, Value};
use tls::TrustSettings;
use tokio::runtime::Handle;
use url::Url;

use crate::recorder::{RECORDER, Recorder};

mod connections;
mod deliveries;
mod zipkin;

use connections::Connections;
use deliveries::Deliveries;
pub use deliveries::{SPANS_DROPPED, SPANS_EXPORTED};

/// Name of the instrumentation scope in every span, the same in all versions.
const SCOPE: &str = "shared";

/// How many spans may wait to be sent; further ones are dropped.
const QUEUE: usize = 8_192;
/// Most spans in one request.
const BATCH: usize = 512;
/// How long spans wait for others to be sent with.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take for one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans are sent to.
#[derive(Clone, Debug)]
pub struct Collector(Option<Url>);

impl Value for Collector {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        match raw.trim() {
            "off" => Ok(Self(None)),
            url => <Url as Value>::parse(url).map(Some).map(Self),
        }
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or("off".to_owned(), Value::show)
    }
}

settings::settings! {
    /// Settings of traces.
    pub struct TraceSettings {
        /// Address that spans are sent to, in Zipkin's format (version 2). With off the
        /// process makes no spans, and passes an incoming trace on unchanged.
        pub zipkin_url: Secret<Collector> = "http://localhost:9411/api/v2/spans",
        /// Share of callbacks whose traces are recorded, from 0 to 1. A callback that
        /// arrives with a trace which is not recorded is not recorded either.
        pub trace_ratio: Ratio = "1",
        /// Whether a callback that arrives with a trace which is recorded is recorded
        /// too, whatever TRACE_RATIO is. Then strangers can have every callback recorded.
        pub trust_traces: bool = "false",
    } with {
        /// Settings of whom connections trust.
        pub trust: TrustSettings,
    }
}

/// Spans are recorded until it is finished.
#[derive(Debug)]
pub struct Recording(Option<Way>);

/// The way of spans to the collector.
#[derive(Debug)]
struct Way {
    provider: SdkTracerProvider,
    /// How many spans are on it.
    waiting: Arc<AtomicUsize>,
}

impl Recording {
    /// Begins to record spans of the process `service`, to be sent by the runtime that this is called
    /// on.
    ///
    /// # Errors
    /// The HTTP client cannot be set up, or recording has been begun before.
    pub fn begin(service: &'static str, settings: &TraceSettings) -> anyhow::Result<Self> {
        let Some(url) = settings.zipkin_url.get()?.0 else {
            return Ok(Self(None));
        };
        let exporter = exporter(service, &url, settings)?;
        let waiting = Arc::clone(&exporter.waiting);
        let sampler = Sampler::TraceIdRatioBased(settings.trace_ratio.get());
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(sampler.clone())))
            .with_span_processor(Bounded::new(exporter))
            .build();
        let tracer = provider.tracer(SCOPE);
        let recorder = Recorder {
            tracer,
            sampler,
            trusts_senders: settings.trust_traces,
        };
        if RECORDER.set(recorder).is_err() {
            anyhow::bail!("recording has been begun before");
        }
        Ok(Self(Some(Way { provider, waiting })))
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
        let Some(Way { provider, waiting }) = self.0 else {
            return;
        };
        // It waits for the thread that sends.
        let ending = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(timeout));
        let ended = tokio::time::timeout(timeout, ending).await;
        let spans = waiting.load(Ordering::Relaxed);
        if spans > 0 {
            deliveries::dropped(spans);
            tracing::info!(spans, ?ended, "the last spans were not sent");
        }
    }
}

fn exporter(
    service: &'static str,
    url: &Url,
    settings: &TraceSettings,
) -> anyhow::Result<Exporter> {
    let connections = Connections::new(url, &settings.trust);
    let connections = connections.context("setting up the HTTP client of the span collector")?;
    let client = Client {
        connections: Mutex::new(connections),
        setting: settings.zipkin_url.clone(),
        runtime: Handle::current(),
        service,
    };
    let zipkin = ZipkinExporter::builder()
        .with_collector_endpoint(url.as_str())
        .with_http_client(client)
        .build()
        .context("setting up the way to the span collector")?;
    Ok(Exporter {
        zipkin,
        deliveries: Deliveries::to(Value::show(url)),
        waiting: Arc::default(),
    })
}

/// Drops spans that find no place, and counts them: the library's own queue does so in silence.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
}

impl Bounded {
    fn new(exporter: Exporter) -> Self {
        let waiting = Arc::clone(&exporter.waiting);
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(LINGER)
            .build();
        let queue = BatchSpanProcessor::builder(exporter).with_batch_config(config);
        Self {
            queue: queue.build(),
            waiting,
        }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.queue.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            deliveries::dropped(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }
}

/// Sends batches, and keeps account of them.
#[derive(Debug)]
struct Exporter {
    zipkin: ZipkinExporter,
    deliveries: Deliveries,
    waiting: Arc<AtomicUsize>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.zipkin.export(zipkin::with_links(batch)).await;
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.deliveries.note(count, &result);
        result
    }
}

/// Sends requests on the runtime of the process, for whoever asks from outside of it.
struct Client {
    connections: Mutex<Connections>,
    /// Has the address with its credentials, which a URI of the `http` crate would be sent without.
    setting: Secret<Collector>,
    runtime: Handle,
    service: &'static str,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let body = zipkin::completed(&body, self.service)?;
        let Collector(url) = self.setting.get()?;
        let url = url.ok_or("only a restart turns traces off")?;
        let http = self.connections.lock().current();
        let request = http.post(url).headers(parts.headers);
        let exchange = self.runtime.spawn(async move {
            let response = request.body(body).send().await?;
            let status = response.status();
            // Read, so that the connection can be used again.
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        });
        let (status, body) = exchange.await?.map_err(without_url)?;
        Ok(Response::builder().status(status).body(body)?)
    }
}

/// The error in one line, without the address, which has credentials.
fn without_url(error: reqwest::Error) -> HttpError {
    let error = anyhow::Error::new(error.without_url());
    format!("{error:#}").into()
}
