//! The admin port of every process: `/livez`, `/readyz`, `/metrics`, and profiles under the paths of
//! Go's `net/http/pprof`. Also the client of another process's admin port, for health checks and
//! scripts.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use http_server::{RequestBody, Route, ServerLimits, Service, serve};
use hyper_util::rt::TokioIo;
use lifecycle::{Health, Shutdown};
use telemetry::profile::ProfileError;
use telemetry::{Exposition, Format, profile};
use tls::{Acceptor, connect_unverified};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::either::Either;

/// The prefix of the paths of profiles.
const PROFILES: &str = "/debug/pprof/";

/// Default duration of a CPU profile.
const SECONDS: u64 = 10;

/// The longest CPU profile.
const SECONDS_LIMIT: u64 = 60;

const READ: &str = "GET, HEAD";

/// All paths. A request with a wrong method is answered 405 also where the path is wrong.
const ROUTES: &[Route<Endpoint>] = &[
    Route::new("/livez", READ, Endpoint::Live),
    Route::new("/readyz", READ, Endpoint::Ready),
    Route::new("/metrics", READ, Endpoint::Metrics),
    // HEAD would take a profile and throw it away.
    Route::new("/debug/pprof/heap", "GET", Endpoint::HeapProfile),
    Route::new("/debug/pprof/profile", "GET", Endpoint::CpuProfile),
    Route::new("/debug/pprof/{profile}", "GET", Endpoint::Unknown),
    Route::new("{path}", READ, Endpoint::Unknown),
];

#[derive(Clone, Copy)]
enum Endpoint {
    Live,
    Ready,
    Metrics,
    HeapProfile,
    CpuProfile,
    Unknown,
}

/// The state that an admin port shows.
pub struct Admin {
    /// Dependencies, for `/readyz`.
    pub health: Health,
    /// Whether profiles are given.
    pub profiles: bool,
    /// Metrics, for `/metrics`, if they are collected.
    pub metrics: Option<Exposition>,
    /// The shut-down of the process, which ends a profile that is being taken.
    pub shutdown: Shutdown,
    /// The TLS of the port, if it has some.
    pub tls: Option<Acceptor>,
}

impl Admin {
    /// Serves until `shutdown` begins.
    pub async fn serve(mut self, listener: TcpListener, shutdown: &Shutdown) {
        let tls = self.tls.take();
        let limits = ServerLimits {
            connections: 64,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            refusal: Bytes::from_static(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            ),
        };
        serve(listener, tls, limits, Arc::new(self), shutdown).await;
    }

    async fn answer(
        &self,
        endpoint: Endpoint,
        query: &str,
        headers: &HeaderMap,
    ) -> Response<Full<Bytes>> {
        match endpoint {
            Endpoint::Live => text(StatusCode::OK, "ok"),
            Endpoint::Ready if self.health.is_ready() => lines(StatusCode::OK, self.health.lines()),
            Endpoint::Ready => lines(StatusCode::SERVICE_UNAVAILABLE, self.health.lines()),
            Endpoint::Metrics => self.metrics(headers),
            Endpoint::HeapProfile | Endpoint::CpuProfile if !self.profiles => text(
                StatusCode::FORBIDDEN,
                "profiles are off; the setting PROFILES=true turns them on",
            ),
            Endpoint::HeapProfile => file("heap", profile::heap().await),
            Endpoint::CpuProfile => match seconds(query) {
                Some(period) => file("profile", profile::cpu(period, &self.shutdown).await),
                None => text(
                    StatusCode::BAD_REQUEST,
                    format!("seconds is a whole number from 1 to {SECONDS_LIMIT}"),
                ),
            },
            Endpoint::Unknown => text(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz, /metrics, /debug/pprof/heap and /debug/pprof/profile",
            ),
        }
    }

    /// In the format that is asked for.
    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept = headers.get_all(ACCEPT).iter();
        let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
        let format = Format::accepted(&accept.join(","));
        let shown = match &self.metrics {
            Some(metrics) => metrics.render(format),
            None if format == Format::OpenMetrics => Ok("# EOF\n".to_owned()),
            None => Ok(String::new()),
        };
        match shown {
            Ok(shown) => {
                let mut response = lines(StatusCode::OK, shown);
                let content_type = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}

impl Service for Admin {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        let endpoint = match Route::find(ROUTES, request.uri().path()) {
            Some(route) if !route.takes(request.method()) => {
                return route.refuse_method(text(StatusCode::OK, "only GET is answered here"));
            }
            route => route.map_or(Endpoint::Unknown, |route| route.endpoint),
        };
        let query = request.uri().query().unwrap_or_default();
        self.answer(endpoint, query, request.headers()).await
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
    ask_with(address, path, false).await
}

/// The same over TLS, whatever the certificate is.
///
/// # Errors
/// As for [`ask`].
pub async fn ask_over_tls(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    ask_with(address, path, true).await
}

async fn ask_with(
    address: SocketAddr,
    path: &str,
    has_tls: bool,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let patience = Duration::from_secs(if path.starts_with(PROFILES) {
        SECONDS_LIMIT + 15
    } else {
        5
    });
    tokio::time::timeout(patience, get(reachable(address), path, has_tls))
        .await
        .with_context(|| format!("{address} did not answer within {patience:?}"))?
        .with_context(|| format!("asking {address} for {path}"))
}

async fn get(
    address: SocketAddr,
    path: &str,
    has_tls: bool,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let stream = if has_tls {
        // The certificate names the host that clients ask, and this is asked by an address of the machine, which leads
        // to no other. Nothing secret is sent.
        Either::Right(connect_unverified(stream).await?)
    } else {
        Either::Left(stream)
    };
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

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        // A process that listens on [::] listens by IPv4 too, and perhaps only by IPv4.
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}
