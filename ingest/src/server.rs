//! The HTTP side: which request is answered how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use shared::health::Health;
use shared::http_server::{RequestBody, Service};
use shared::telemetry::milliseconds;
use tokio::sync::Semaphore;

use crate::acceptance::Acceptance;
use crate::body::BodyReader;
use crate::config::Config;
use crate::description::DESCRIPTION;
use crate::error::{ApiError, json_document, json_response};
use crate::request::Callback;

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

    async fn route(&self, request: Request<RequestBody>) -> Result<Success, ApiError> {
        match (request.uri().path(), request.method()) {
            ("/callback", &Method::POST) => self.callback(request.into_body()).await,
            ("/callback", _) => Err(ApiError::MethodNotAllowed("POST")),
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

    async fn callback(&self, body: RequestBody) -> Result<Success, ApiError> {
        let body = self.bodies.read(body).await?;
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ApiError::Overloaded)?;
        let callback = Callback::parse(body.bytes(), self.config.ids_limit.get())?;
        // The ids take their place, and as much of it as the body did.
        let memory = body.into_memory();
        let ids = callback.object_ids().len();
        let acceptance = self.acceptance.clone();
        // A task of its own: a callback that arrived whole is accepted also when its client hangs
        // up before the answer, which ends this one.
        let accepting = tokio::spawn(async move {
            let _held = (slot, memory);
            acceptance.accept(callback).await
        });
        match accepting.await {
            Ok(Ok(())) => Ok(Success::Accepted(ids)),
            Ok(Err(error)) => Err(ApiError::Unavailable(error.to_string())),
            Err(_) => Err(ApiError::Internal),
        }
    }
}

impl Service for Server {
    async fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let result = self.route(request).await;
        let response = match &result {
            Ok(Success::Accepted(ids)) => {
                json_response(StatusCode::ACCEPTED, &json!({ "accepted": ids }))
            }
            Ok(Success::Ready) => json_response(StatusCode::OK, &json!({ "status": "ok" })),
            Ok(Success::Description) => json_document(DESCRIPTION),
            Err(error) => error.response(),
        };
        count(&path, &result);
        let duration = started.elapsed();
        log(&method, &path, remote, duration, response.status(), &result);
        response
    }

    fn panicked(&self) -> Response<Full<Bytes>> {
        ApiError::Internal.response()
    }
}

fn count(path: &str, result: &Result<Success, ApiError>) {
    match result {
        Ok(Success::Accepted(ids)) => {
            metrics::counter!("callbacks_accepted_total").increment(1);
            metrics::counter!("callback_ids_accepted_total").increment(*ids as u64);
        }
        Err(error) if path == "/callback" => {
            let (_, code) = error.status_and_code();
            metrics::counter!("callbacks_rejected_total", "reason" => code).increment(1);
        }
        Ok(Success::Ready | Success::Description) | Err(_) => {}
    }
}

/// One line a request. What the client did wrong is no warning: it may do so at any rate.
fn log(
    method: &Method,
    path: &str,
    remote: SocketAddr,
    duration: std::time::Duration,
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
