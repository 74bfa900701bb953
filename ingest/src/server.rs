//! The HTTP side: which request is answered how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use http_server::{RequestBody, Service};
use lifecycle::Health;
use metric_definitions::InFlight;
use serde_json::json;
use telemetry::milliseconds;
use tokio::sync::Semaphore;
use trace::{Spans, Traces};

use crate::acceptance::{Acceptance, SafeAt};
use crate::body::BodyReader;
use crate::coding::Codings;
use crate::config::Config;
use crate::description::DESCRIPTION;
use crate::error::{ApiError, json_document, json_response};
use crate::metrics::{
    CALLBACK_DURATION, CALLBACKS_ACCEPTED, CALLBACKS_IN_FLIGHT, CALLBACKS_REJECTED, IDS_ACCEPTED,
    IDS_REJECTED, Status,
};
use crate::request::Callback;

/// Where callbacks are posted to. Other requests have no trace.
const CALLBACK: &str = "/callback";

/// The methods of the paths that can only be asked.
const ASKING: &str = "GET, HEAD, OPTIONS";

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
    /// Callbacks are accepted, though without these dependencies.
    Ready(Vec<&'static str>),
    /// The process works.
    Alive,
    /// The methods of the path.
    Methods,
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
        check_transfer_coding(request.headers())?;
        let path = request.uri().path();
        let methods = methods(path).ok_or(ApiError::NotFound)?;
        match (path, request.method()) {
            (CALLBACK, &Method::POST) => self.callback(request, traces).await,
            // Load balancers use any of them to ask where to send callbacks to.
            ("/" | "*" | "/readyz", &Method::GET | &Method::HEAD | &Method::OPTIONS) => {
                self.status()
            }
            (_, &Method::OPTIONS) => Ok(Success::Methods),
            ("/livez", &Method::GET | &Method::HEAD) => Ok(Success::Alive),
            ("/openapi.json", &Method::GET | &Method::HEAD) => Ok(Success::Description),
            _ => Err(ApiError::MethodNotAllowed(methods)),
        }
    }

    /// Names dependencies and no reasons, which strangers need not know: the admin port has them.
    fn status(&self) -> Result<Success, ApiError> {
        let down = self.health.down().into_iter().map(|(name, _)| name);
        let down: Vec<&str> = down.collect();
        if self.health.is_ready() {
            return Ok(Success::Ready(down));
        }
        let reason = format!("{} are down", down.join(" and "));
        Err(ApiError::Unavailable(reason))
    }

    async fn callback(
        &self,
        request: Request<RequestBody>,
        traces: Traces,
    ) -> Result<Success, ApiError> {
        let codings = Codings::of(request.headers())?;
        let body = self.bodies.read(&codings, request.into_body()).await?;
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded)?;
        let callback = Callback::parse(body.bytes(), self.config.ids_limit.get())?;
        // The ids take their place, and as much of it as the body did.
        let memory = body.into_memory();
        let ids = callback.object_ids().len();
        let acceptance = self.acceptance.clone();
        let in_flight = InFlight::in_gauge(CALLBACKS_IN_FLIGHT.handle());
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
        IDS_REJECTED.of(&error).increment(ids as u64);
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
        let mut response = match &result {
            Ok(success) => success.response(),
            Err(error) => error.response(),
        };
        if method == Method::OPTIONS
            && let Some(methods) = methods(&path)
        {
            let methods = HeaderValue::from_static(methods);
            response.headers_mut().insert(ALLOW, methods);
        }
        let duration = started.elapsed();
        if is_callback(&method, &path) {
            count_answer(&result, response.status(), duration);
        }
        log(&method, &path, remote, duration, response.status(), &result);
        response
    }
}

impl Success {
    fn response(&self) -> Response<Full<Bytes>> {
        let (status, body) = match self {
            Self::Accepted(ids) => (StatusCode::ACCEPTED, json!({ "accepted": ids })),
            Self::Ready(down) if down.is_empty() => (StatusCode::OK, json!({ "status": "ok" })),
            Self::Ready(down) => (
                StatusCode::OK,
                json!({ "status": "degraded", "degraded": down }),
            ),
            Self::Alive => (StatusCode::OK, json!({ "status": "ok" })),
            Self::Description => return json_document(DESCRIPTION),
            Self::Methods => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                return response;
            }
        };
        json_response(status, &body)
    }
}

impl Service for Server {
    async fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let span = if is_callback(request.method(), request.uri().path()) {
            trace::http::serve(&request, Some(CALLBACK), remote)
        } else {
            Spans::default()
        };
        let traces = span.traces();
        let answering = self.answer(request, remote, traces.clone());
        let response = traces.scope(answering).await;
        trace::http::answer(span, response.status());
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

/// What the path answers to; `None` if there is no such path. `*` stands for the whole server.
fn methods(path: &str) -> Option<&'static str> {
    match path {
        CALLBACK => Some("OPTIONS, POST"),
        "/" | "*" | "/livez" | "/readyz" | "/openapi.json" => Some(ASKING),
        _ => None,
    }
}

/// Whether a request is meant to hand in a callback, rightly or not.
fn is_callback(method: &Method, path: &str) -> bool {
    path == CALLBACK && method != Method::OPTIONS
}

/// The server below reads chunks whatever they are in.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(ApiError::UnsupportedTransferCoding),
    }
}

fn count_accepted(at: SafeAt, ids: usize) {
    CALLBACKS_ACCEPTED.of(&at).increment(1);
    IDS_ACCEPTED.increment(ids as u64);
}

fn count_answer(result: &Result<Success, ApiError>, status: StatusCode, duration: Duration) {
    CALLBACK_DURATION.of(&Status(status)).record(duration);
    if let Err(error) = result {
        CALLBACKS_REJECTED.of(error).increment(1);
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
        Ok(_) => {
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
