//! The admin port of every process: `/livez`, `/readyz` and `/metrics`; and asking another
//! process's admin port, for health checks and scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};

use crate::health::Health;
use crate::http_server::{RequestBody, ServerLimits, Service, serve};
use crate::shutdown::Shutdown;

/// What an admin port answers from.
pub struct Admin {
    /// Dependencies, for `/readyz`.
    pub health: Health,
    /// Metrics, for `/metrics`.
    pub metrics: PrometheusHandle,
}

impl Admin {
    /// Serves until `shutdown` begins.
    pub async fn serve(self, listener: TcpListener, shutdown: &Shutdown) {
        let limits = ServerLimits {
            connections: 64,
            header_timeout: Duration::from_secs(10),
            refusal: Bytes::from_static(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            ),
        };
        let (admin, ticking) = (Arc::new(self), shutdown.clone());
        let handle = admin.metrics.clone();
        // Histograms keep their samples until someone asks: without upkeep they would grow.
        let upkeep = async {
            while ticking.sleep(Duration::from_secs(5)).await {
                handle.run_upkeep();
            }
        };
        tokio::join!(serve(listener, limits, admin, shutdown), upkeep);
    }

    fn answer(&self, method: &Method, path: &str) -> (StatusCode, String) {
        if method != Method::GET && method != Method::HEAD {
            return (
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is answered here\n".to_owned(),
            );
        }
        match path {
            "/livez" => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if self.health.is_ready() => (StatusCode::OK, self.health.lines()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, self.health.lines()),
            "/metrics" => (StatusCode::OK, self.metrics.render()),
            _ => (
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz and /metrics\n".to_owned(),
            ),
        }
    }
}

impl Service for Admin {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        let (status, body) = self.answer(request.method(), request.uri().path());
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response
    }
}

/// Asks the process whose admin port is at `address` for `path`; an unspecified address is asked
/// on the loopback interface.
///
/// # Errors
/// Nobody answers there within 5 s.
pub async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    tokio::time::timeout(Duration::from_secs(5), get(reachable(address), path))
        .await
        .with_context(|| format!("{address} did not answer within 5 s"))?
        .with_context(|| format!("asking {address} for {path}"))
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
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
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::select! {
        answer = exchange => answer,
        Err(error) = connection => Err(error.into()),
    }
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
