//! The accept loop, its limits, and its end.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use lifecycle::Shutdown;
use tls::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::descriptors;
use crate::displacement::DisplacementQueue;
use crate::request_body::RequestBody;

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Maximum number of open connections. A further one displaces the connection that has waited
    /// longest for its client, if that is at least a second; otherwise it gets `refusal` and is closed.
    pub connections: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
    /// The whole HTTP/1.1 answer to a refused connection.
    pub refusal: Bytes,
}

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request of the client at `remote`.
    fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// Whether `peer` is a proxy that begins each connection with a PROXY header, which names its client.
    fn sends_proxy_header(&self, _peer: IpAddr) -> bool {
        false
    }

    /// Whether a request ends when its client closes its side. If not, the request is served: the
    /// client may have closed only its sending side, and still be reading.
    fn ends_with_client(&self) -> bool {
        false
    }

    /// The answer to a request that breaks the rules of HTTP for the given reason.
    fn malformed(&self, reason: &'static str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(reason));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
    }

    /// The answer to a request above the limit of bodies.
    fn overloaded(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }

    /// The answer to a request that made [`Service::respond`] panic.
    fn panicked(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

/// Serves HTTP/1.1 and, where a client asks for it, HTTP/2, until the shut-down begins: over TLS if `tls`
/// is given, and else without. At the shut-down no connection is accepted, and requests under way may finish while the shut-down leaves time.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    limits: ServerLimits,
    service: Arc<impl Service>,
    shutdown: &Shutdown,
) {
    let connections = descriptors::connections_within_limit(limits.connections);
    let server = Arc::new(Server {
        slots: semaphore(connections),
        overflow: semaphore(OVERFLOW_CONNECTIONS),
        further_bodies: semaphore(connections),
        waiting: Arc::default(),
        uploading: Arc::default(),
        builder: builder(limits.header_timeout, !service.ends_with_client()),
        keep_alive: keep_alive(limits.idle_timeout),
        tls,
        limits,
        service,
    });
    let tasks = TaskTracker::new();
    accept(listener, &server, &tasks, shutdown).await;
    drain(tasks, shutdown.drain_timeout()).await;
}

/// Maximum number of connections above the limit that wait for a slot, or for their refusal to arrive.
/// Further ones are refused without waiting.
const OVERFLOW_CONNECTIONS: usize = 128;

pub(crate) struct Server<S> {
    /// One for each open connection.
    pub(crate) slots: Arc<Semaphore>,
    /// One for each connection above the limit.
    overflow: Arc<Semaphore>,
    /// One for each body that is on its way besides the first one of its connection, which only
    /// HTTP/2 has.
    pub(crate) further_bodies: Arc<Semaphore>,
    /// Connections that wait for their clients.
    pub(crate) waiting: Arc<DisplacementQueue>,
    /// Connections on which several bodies are on their way.
    pub(crate) uploading: Arc<DisplacementQueue>,
    pub(crate) builder: auto::Builder<TokioExecutor>,
    /// The header that tells clients how long a connection may be idle.
    pub(crate) keep_alive: HeaderValue,
    /// What connections begin with, if the server speaks TLS.
    pub(crate) tls: Option<Acceptor>,
    pub(crate) limits: ServerLimits,
    pub(crate) service: Arc<S>,
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

fn keep_alive(idle_timeout: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("timeout={}", idle_timeout.as_secs()))
        .unwrap_or(HeaderValue::from_static("timeout=0"))
}

fn builder(header_timeout: Duration, half_close: bool) -> auto::Builder<TokioExecutor> {
    // These bound the memory of a client that sends without end, or does not read; there may be
    // 10,000 such clients.
    const HTTP1_BUFFER: usize = 16 << 10;
    const HTTP2_HEADERS: u32 = 16 << 10;
    const HTTP2_WINDOW: u32 = 64 << 10;
    const HTTP2_STREAMS: u32 = 100;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(HTTP1_BUFFER)
        .half_close(half_close);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(header_timeout)
        .keep_alive_timeout(header_timeout)
        .initial_connection_window_size(HTTP2_WINDOW)
        .initial_stream_window_size(HTTP2_WINDOW)
        .max_header_list_size(HTTP2_HEADERS)
        .max_send_buf_size(HTTP2_WINDOW as usize)
        .max_concurrent_streams(HTTP2_STREAMS);
    builder
}

async fn accept(
    listener: TcpListener,
    server: &Arc<Server<impl Service>>,
    tasks: &TaskTracker,
    shutdown: &Shutdown,
) {
    // After an error that passes, as when no file descriptor is left.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A listener for both writes IPv4 addresses as IPv6.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                server.open(stream, peer, tasks, shutdown);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn drain(tasks: TaskTracker, timeout: Duration) {
    tasks.close();
    if tokio::time::timeout(timeout, tasks.wait()).await.is_err() {
        tracing::info!(
            connections = tasks.len(),
            "connections are closed with requests under way"
        );
    }
}

impl<S: Service> Server<S> {
    fn open(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tasks: &TaskTracker,
        shutdown: &Shutdown,
    ) {
        let (server, shutdown) = (Arc::clone(self), shutdown.clone());
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            tasks.spawn(async move {
                let _slot = slot;
                server.serve_connection(stream, peer, shutdown).await;
            });
        } else if let Ok(overflow) = Arc::clone(&self.overflow).try_acquire_owned() {
            tasks.spawn(async move {
                if let Some(_slot) = server.slot().await {
                    drop(overflow);
                    server.serve_connection(stream, peer, shutdown).await;
                } else {
                    server.refuse(stream, peer).await;
                }
            });
        } else {
            self.refuse_without_waiting(stream);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
