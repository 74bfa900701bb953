//! Answers requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use http_server::{RequestBody, Route, Service};
use lifecycle::Health;
use metric_definitions::InFlight;
use serde_json::json;
use settings::SecretError;
use telemetry::milliseconds;
use tokio::sync::Semaphore;
use trace::{Spans, Traces};

use crate::acceptance::Acceptance;
use crate::admission::Admission;
use crate::body::BodyReader;
use crate::coding::Codings;
use crate::config::Config;
use crate::description::DESCRIPTION;
use crate::error::{ApiError, json_document, json_response};
use crate::metrics::{
    CALLBACK_DURATION, CALLBACKS_ACCEPTED, CALLBACKS_IN_FLIGHT, CALLBACKS_REJECTED, IDS_ACCEPTED,
    IDS_REJECTED, Status, StoredAt,
};
use crate::request::Callback;

const READ: &str = "GET, HEAD, OPTIONS";

/// All paths. `*` stands for the whole server.
pub(crate) const ROUTES: &[Route<Endpoint>] = &[
    Route::new("/callback", "OPTIONS, POST", Endpoint::Callback),
    Route::new("/", READ, Endpoint::Status),
    Route::new("*", READ, Endpoint::Status),
    Route::new("/readyz", READ, Endpoint::Status),
    Route::new("/livez", READ, Endpoint::Live),
    Route::new("/openapi.json", READ, Endpoint::Description),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Takes callbacks. Only its requests have a trace and metrics.
    Callback,
    Status,
    Live,
    Description,
}

pub(crate) struct Server {
    config: Config,
    admission: Admission,
    acceptance: Acceptance,
    health: Health,
    bodies: BodyReader,
    /// One for each callback that may be in progress.
    slots: Arc<Semaphore>,
}

/// A request that succeeded.
enum Success {
    /// A callback with this many distinct ids is stored.
    Accepted(usize),
    /// Callbacks are accepted, even though these dependencies are down.
    Ready(Vec<&'static str>),
    /// The process works.
    Alive,
    /// The methods of the path.
    Methods,
    /// The `OpenAPI` document.
    Description,
}

impl Server {
    /// # Errors
    /// The file with the keys of callbacks cannot be read.
    pub(crate) fn new(
        config: &Config,
        acceptance: Acceptance,
        health: Health,
    ) -> Result<Self, SecretError> {
        let slots = Arc::new(Semaphore::new(
            config.requests_limit.get().min(Semaphore::MAX_PERMITS),
        ));
        Ok(Self {
            config: config.clone(),
            admission: Admission::new(config)?,
            acceptance,
            health,
            bodies: BodyReader::new(config),
            slots,
        })
    }

    /// Who may hand in callbacks.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    async fn route(
        &self,
        request: Request<RequestBody>,
        remote: IpAddr,
        route: Option<&Route<Endpoint>>,
        traces: Traces,
    ) -> Result<Success, ApiError> {
        check_transfer_coding(request.headers())?;
        let route = route.ok_or(ApiError::NotFound)?;
        if !route.takes(request.method()) {
            return Err(ApiError::MethodNotAllowed(route.methods));
        }
        match route.endpoint {
            // Load balancers use any of its methods to ask where to send callbacks to.
            Endpoint::Status => self.status(),
            _ if request.method() == Method::OPTIONS => Ok(Success::Methods),
            Endpoint::Callback => self.callback(request, remote, traces).await,
            Endpoint::Live => Ok(Success::Alive),
            Endpoint::Description => Ok(Success::Description),
        }
    }

    /// Names the dependencies that are down, without the reasons, which only the admin port tells.
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
        remote: IpAddr,
        traces: Traces,
    ) -> Result<Success, ApiError> {
        let (head, body) = request.into_parts();
        let admitted = self.admission.admit_head(&head.headers, remote)?;
        let codings = Codings::of(&head.headers)?;
        let body = self.bodies.read(body).await?;
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded)?;
        let source = self.admission.admit_body(&admitted, body.bytes())?;
        let body = codings.decode(body)?;
        let callback = Callback::parse(body.bytes(), self.config.ids_limit.get())?;
        // The ids take as much memory as the body did.
        let memory = body.into_memory();
        let ids = callback.object_ids().len();
        self.admission.admit_ids(source, ids)?;
        let acceptance = self.acceptance.clone();
        let in_flight = InFlight::in_gauge(CALLBACKS_IN_FLIGHT.handle());
        // A separate task: if the client hangs up before the answer, this future is dropped, but a
        // callback that has arrived whole is accepted nevertheless.
        let accepting = tokio::spawn(async move {
            let _held = (slot, memory, in_flight);
            let accepted = traces.scope(acceptance.accept(callback, &traces)).await;
            // Counted here, because this task also ends without the client.
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

    /// Answers a request and logs the answer.
    async fn answer(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
        route: Option<&Route<Endpoint>>,
        traces: Traces,
    ) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let exemplar = traces.exemplar();
        let result = self.route(request, remote.ip(), route, traces).await;
        let mut response = match &result {
            Ok(success) => success.response(),
            Err(error) => error.response(),
        };
        let duration = started.elapsed();
        if let Some(route) = route {
            if method == Method::OPTIONS {
                response = route.list_methods(response);
            } else if route.endpoint == Endpoint::Callback {
                CALLBACK_DURATION
                    .of(&Status(response.status()))
                    .record_in(duration, exemplar);
                if let Err(error) = &result {
                    CALLBACKS_REJECTED.of(error).increment(1);
                }
            }
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
        let route = Route::find(ROUTES, request.uri().path());
        // OPTIONS hands in no callback.
        let callback = route.filter(|route| {
            route.endpoint == Endpoint::Callback && request.method() != Method::OPTIONS
        });
        let span = callback.map_or_else(Spans::default, |route| {
            trace::http::serve(&request, Some(route.path), remote)
        });
        let traces = span.traces();
        let answering = self.answer(request, remote, route, traces.clone());
        let response = traces.scope(answering).await;
        trace::http::answer(span, response.status());
        response
    }

    fn sends_proxy_header(&self, peer: IpAddr) -> bool {
        self.config.proxy_protocol && self.config.trusted_proxies.trusts(peer)
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

/// Hyper reads chunks whatever other coding they have.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(ApiError::UnsupportedTransferCoding),
    }
}

fn count_accepted(at: StoredAt, ids: usize) {
    CALLBACKS_ACCEPTED.of(&at).increment(1);
    IDS_ACCEPTED.increment(ids as u64);
}

/// Logs one line a request. An error of the client is no warning: clients may send any number of them.
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
