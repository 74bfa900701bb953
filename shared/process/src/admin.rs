//! The admin port of every process: `/livez`, `/readyz`, `/metrics`, and profiles under the paths of
//! Go's `net/http/pprof`. Also the client of another process's admin port, for health checks and
//! scripts.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::header::{ALLOW, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use http_server::{RequestBody, ServerLimits, Service, serve};
use hyper_util::rt::TokioIo;
use lifecycle::{Health, Shutdown};
use telemetry::profile::ProfileError;
use telemetry::{Exposition, profile};
use tokio::net::{TcpListener, TcpStream};

/// What the paths of profiles begin with.
const PROFILES: &str = "/debug/pprof/";

/// Default duration of a CPU profile.
const SECONDS: u64 = 10;

/// The longest CPU profile.
const SECONDS_LIMIT: u64 = 60;

/// The state that an admin port shows.
pub struct Admin {
    /// Dependencies, for `/readyz`.
    pub health: Health,
    /// Metrics, for `/metrics`, if they are collected.
    pub metrics: Option<Exposition>,
    /// The shut-down of the process, which ends a profile that is being taken.
    pub shutdown: Shutdown,
}

impl Admin {
    /// Serves until `shutdown` begins.
    pub async fn serve(self, listener: TcpListener, shutdown: &Shutdown) {
        let limits = ServerLimits {
            connections: 64,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            refusal: Bytes::from_static(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            ),
        };
        let (admin, ticking) = (Arc::new(self), shutdown.clone());
        let metrics = admin.metrics.clone();
        let upkeep = async {
            while ticking.sleep(Duration::from_secs(5)).await {
                metrics.iter().for_each(Exposition::run_upkeep);
            }
        };
        tokio::join!(serve(listener, limits, admin, shutdown), upkeep);
    }

    async fn answer(&self, uri: &Uri) -> Response<Full<Bytes>> {
        match uri.path() {
            "/livez" => text(StatusCode::OK, "ok"),
            "/readyz" if self.health.is_ready() => lines(StatusCode::OK, self.health.lines()),
            "/readyz" => lines(StatusCode::SERVICE_UNAVAILABLE, self.health.lines()),
            "/metrics" => {
                let metrics = self.metrics.as_ref().map(Exposition::render);
                lines(StatusCode::OK, metrics.unwrap_or_default())
            }
            "/debug/pprof/heap" => file("heap", profile::heap().await),
            "/debug/pprof/profile" => match seconds(uri.query().unwrap_or_default()) {
                Some(period) => file("profile", profile::cpu(period, &self.shutdown).await),
                None => text(
                    StatusCode::BAD_REQUEST,
                    format!("seconds is a whole number from 1 to {SECONDS_LIMIT}"),
                ),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz, /metrics, /debug/pprof/heap and /debug/pprof/profile",
            ),
        }
    }
}

impl Service for Admin {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        // HEAD would take a profile and throw it away.
        let allowed: &[Method] = if request.uri().path().starts_with(PROFILES) {
            &[Method::GET]
        } else {
            &[Method::GET, Method::HEAD]
        };
        if allowed.contains(request.method()) {
            self.answer(request.uri()).await
        } else {
            not_allowed(allowed)
        }
    }

    /// Stops profiling when the client disconnects.
    fn ends_with_client(&self) -> bool {
        true
    }
}

/// The duration of a CPU profile; `None` if the query asks for an impossible one.
fn seconds(query: &str) -> Option<Duration> {
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let seconds = match parameters.find(|(name, _)| name == "seconds") {
        Some((_, value)) => value.parse().ok()?,
        None => SECONDS,
    };
    (1..=SECONDS_LIMIT)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

fn text(status: StatusCode, line: impl Display) -> Response<Full<Bytes>> {
    lines(status, format!("{line}\n"))
}

fn lines(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

fn not_allowed(allowed: &[Method]) -> Response<Full<Bytes>> {
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// A profile as a file to be kept under its `name`.
fn file(name: &str, profile: Result<Vec<u8>, ProfileError>) -> Response<Full<Bytes>> {
    let profile = match profile {
        Ok(profile) => profile,
        Err(error) => return text(status_of(&error), error),
    };
    let mut response = Response::new(Full::from(profile));
    let headers = response.headers_mut();
    let bytes = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, bytes);
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    response
}

fn status_of(error: &ProfileError) -> StatusCode {
    match error {
        ProfileError::Busy => StatusCode::CONFLICT,
        ProfileError::HeapOff => StatusCode::NOT_IMPLEMENTED,
        ProfileError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Asks the process that runs, instead of being one.
#[derive(Args, Debug)]
pub struct Ask {
    /// Ask the instance that runs on the admin address for PATH (/livez, /readyz, /metrics,
    /// /debug/pprof/heap, /debug/pprof/profile?seconds=10), print the answer, and exit 0 if it is a
    /// success
    #[arg(long = "ask", value_name = "PATH")]
    pub path: Option<String>,
}

/// Gets `path` from the admin port at `address`. An unspecified address means the loopback interface.
///
/// # Errors
/// There is no answer within 5 s, or, for a profile, within its longest duration and 15 s.
pub async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let patience = Duration::from_secs(if path.starts_with(PROFILES) {
        SECONDS_LIMIT + 15
    } else {
        5
    });
    tokio::time::timeout(patience, get(reachable(address), path))
        .await
        .with_context(|| format!("{address} did not answer within {patience:?}"))?
        .with_context(|| format!("asking {address} for {path}"))
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    };
    tokio::select! {
        answer = exchange => answer,
        Err(error) = connection => Err(error.into()),
    }
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // The process listens by IPv4 too, and perhaps only by IPv4.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
