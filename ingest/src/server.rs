//! The HTTP side: which request is answered how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use shared::health::Health;
use shared::http_server::{RequestBody, Service};
use shared::metrics::InFlight;
use shared::telemetry::milliseconds;
use shared::trace::{Spans, Traces, http as trace};
use tokio::sync::Semaphore;

use crate::acceptance::{Acceptance, SafeAt};
use crate::body::BodyReader;
use crate::config::Config;
use crate::description::DESCRIPTION;
use crate::error::{ApiError, json_document, json_response};
use crate::request::Callback;

/// Where callbacks are posted to. Other requests have no trace.
const CALLBACK: &str = "/callback";

/// Answers requests.
pub struct Server {
    config: Config,
    acceptance: Acceptance,
    health: Health,
    bodies: BodyReader,
    /// One for each callback that may be at work.
    slots: Arc<Semaphore>,
}

/// A request that succeeded.
enum Success {
    /// The callback's distinct ids are safe.
    Accepted(usize),
    /// Everything that is needed is reachable.
    Ready,
    /// What can be asked here.
    Description,
}

impl Server {
    /// Answers within the limits of `config`.
    #[must_use]
    pub fn new(config: &Config, acceptance: Acceptance, health: Health) -> Self {
        let slots = Arc::new(Semaphore::new(
            config.requests_limit.get().min(Semaphore::MAX_PERMITS),
        ));
        Self {
            config: config.clone(),
            acceptance,
            health,
            bodies: BodyReader::new(config),
            slots,
        }
    }

    async fn route(
        &self,
        request: Request<RequestBody>,
        traces: Traces,
    ) -> Result<Success, ApiError> {
        match (request.uri().path(), request.method()) {
            (CALLBACK, &Method::POST) => self.callback(request.into_body(), traces).await,
            (CALLBACK, _) => Err(ApiError::MethodNotAllowed("POST")),
            ("/", &Method::GET | &Method::HEAD) => self.status(),
            ("/openapi.json", &Method::GET | &Method::HEAD) => Ok(Success::Description),
            ("/" | "/openapi.json", _) => Err(ApiError::MethodNotAllowed("GET, HEAD")),
            _ => Err(ApiError::NotFound),
        }
    }

    fn status(&self) -> Result<Success, ApiError> {
        let down = self.health.down();
        if down.is_empty() {
            return Ok(Success::Ready);
        }
        let reasons: Vec<String> = down
            .iter()
            .map(|(name, reason)| format!("{name} is down ({reason})"))
            .collect();
        Err(ApiError::Unavailable(reasons.join(", ")))
    }

    async fn callback(&self, body: RequestBody, traces: Traces) -> Result<Success, ApiError> {
        let body = self.bodies.read(body).await?;
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded)?;
        let callback = Callback::parse(body.bytes(), self.config.ids_limit.get())?;
        // The ids take their place, and as much of it as the body did.
        let memory = body.into_memory();
        let ids = callback.object_ids().len();
        let acceptance = self.acceptance.clone();
        let in_flight = InFlight::in_gauge(metrics::gauge!("callbacks_in_flight"));
        // A task of its own: a callback that arrived whole is accepted also when its client hangs
        // up before the answer, which ends this one.
        let accepting = tokio::spawn(async move {
            let _held = (slot, memory, in_flight);
            let accepted = traces.scope(acceptance.accept(callback, &traces)).await;
            // Here, so that a callback counts whose client has hung up.
            accepted.inspect(|at| count_accepted(*at, ids))
        });
        let error = match accepting.await {
            Ok(Ok(_)) => return Ok(Success::Accepted(ids)),
            Ok(Err(error)) => ApiError::Unavailable(error.to_string()),
            Err(_) => ApiError::Internal,
        };
        let (_, code) = error.status_and_code();
        metrics::counter!("callback_ids_rejected_total", "reason" => code).increment(ids as u64);
        Err(error)
    }

    /// Answers a request, and says so in a log line.
    async fn answer(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
        traces: Traces,
    ) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let result = self.route(request, traces).await;
        let response = match &result {
            Ok(Success::Accepted(ids)) => {
                json_response(StatusCode::ACCEPTED, &json!({ "accepted": ids }))
            }
            Ok(Success::Ready) => json_response(StatusCode::OK, &json!({ "status": "ok" })),
            Ok(Success::Description) => json_document(DESCRIPTION),
            Err(error) => error.response(),
        };
        let duration = started.elapsed();
        if path == CALLBACK {
            count_answer(&result, response.status(), duration);
        }
        log(&method, &path, remote, duration, response.status(), &result);
        response
    }
}

impl Service for Server {
    async fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let span = if request.uri().path() == CALLBACK {
            trace::serve(&request, Some(CALLBACK), remote)
        } else {
            Spans::default()
        };
        let traces = span.traces();
        let answering = self.answer(request, remote, traces.clone());
        let response = traces.scope(answering).await;
        trace::answer(span, response.status());
        response
    }

    fn malformed(&self, reason: &'static str) -> Response<Full<Bytes>> {
        let body = json!({ "error": "invalid_request", "message": reason });
        json_response(StatusCode::BAD_REQUEST, &body)
    }

    fn overloaded(&self) -> Response<Full<Bytes>> {
        ApiError::Overloaded.response()
    }

    fn panicked(&self) -> Response<Full<Bytes>> {
        ApiError::Internal.response()
    }
}

fn count_accepted(at: SafeAt, ids: usize) {
    metrics::counter!("callbacks_accepted_total", "by" => at.name()).increment(1);
    metrics::counter!("callback_ids_accepted_total").increment(ids as u64);
}

fn count_answer(result: &Result<Success, ApiError>, status: StatusCode, duration: Duration) {
    let status = status.as_str().to_owned();
    metrics::histogram!("callback_duration_seconds", "status" => status).record(duration);
    if let Err(error) = result {
        let (_, code) = error.status_and_code();
        metrics::counter!("callbacks_rejected_total", "reason" => code).increment(1);
    }
}

/// One line a request. What the client did wrong is no warning: it may do so at any rate.
fn log(
    method: &Method,
    path: &str,
    remote: SocketAddr,
    duration: Duration,
    status: StatusCode,
    result: &Result<Success, ApiError>,
) {
    let (status, duration_ms) = (status.as_u16(), milliseconds(duration));
    match result {
        Ok(Success::Accepted(ids)) => {
            tracing::info!(%method, path, status, ids, duration_ms, %remote, "request");
        }
        Ok(Success::Ready | Success::Description) => {
            tracing::debug!(%method, path, status, duration_ms, %remote, "request");
        }
        Err(error) if status >= 500 => {
            tracing::warn!(%method, path, status, duration_ms, %remote, %error, "request");
        }
        Err(error) => {
            tracing::info!(%method, path, status, duration_ms, %remote, %error, "request");
        }
    }
}
