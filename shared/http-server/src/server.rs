//! Serving HTTP: the accept loop, its limits, and its end. What a request means is the caller's.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use lifecycle::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::awaited::Awaited;
use crate::descriptors;
use crate::request_body::RequestBody;

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// How many connections may be open. A further one takes the place of the one whose client has
    /// been waited for longest; if none has been for a second, it is answered by `refusal` and
    /// closed.
    pub connections: usize,
    /// How long a client may take to send the header of a request.
    pub header_timeout: Duration,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
    /// The whole HTTP/1.1 answer for connections above the limit.
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

    /// Whether a request ends when its client closes. Otherwise a client that closes once it has
    /// sent its request has sent it nevertheless, and may still be listening.
    fn ends_with_client(&self) -> bool {
        false
    }

    /// The answer to a request that breaks the rules of HTTP for the given reason.
    fn malformed(&self, reason: &'static str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(reason));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
    }

    /// The answer to a request for which there is no place.
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

/// Serves HTTP/1.1 and, where a client asks for it, HTTP/2 without TLS, until the shut-down begins.
/// Then no connection is accepted, requests under way may finish for as long as the shut-down
/// leaves time.
pub async fn serve(
    listener: TcpListener,
    limits: ServerLimits,
    service: Arc<impl Service>,
    shutdown: &Shutdown,
) {
    let connections = descriptors::connections_within_limit(limits.connections);
    let server = Arc::new(Server {
        slots: semaphore(connections),
        doorway: semaphore(DOORWAY),
        further_bodies: semaphore(connections),
        awaited: Arc::default(),
        crowded: Arc::default(),
        builder: builder(limits.header_timeout, !service.ends_with_client()),
        keep_alive: keep_alive(limits.idle_timeout),
        limits,
        service,
    });
    let tasks = TaskTracker::new();
    accept(listener, &server, &tasks, shutdown).await;
    drain(tasks, shutdown.drain_timeout()).await;
}

/// How many connections above the limit may be waiting for a place or for their refusal to arrive;
/// further ones are told and closed without waiting whether they heard it.
const DOORWAY: usize = 128;

pub(crate) struct Server<S> {
    /// One for each open connection.
    pub(crate) slots: Arc<Semaphore>,
    /// One for each connection above the limit.
    pub(crate) doorway: Arc<Semaphore>,
    /// One for each body that is awaited besides the first one of its connection. Those are of HTTP/2
    /// only.
    pub(crate) further_bodies: Arc<Semaphore>,
    /// Clients that are waited for.
    pub(crate) awaited: Arc<Awaited>,
    /// Clients of which more than one body is awaited.
    pub(crate) crowded: Arc<Awaited>,
    pub(crate) builder: auto::Builder<TokioExecutor>,
    /// What clients are told about how long a connection may be idle.
    pub(crate) keep_alive: HeaderValue,
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
    // What a client can have buffered here by sending, or not reading, without end: 10,000 of them
    // do at once.
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
    // For instance no file descriptors left: it passes, and asking at once would not help.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                // IPv4 written as IPv6 where the listener is reached by both.
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                server.open(stream, remote, tasks, shutdown);
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
        remote: SocketAddr,
        tasks: &TaskTracker,
        shutdown: &Shutdown,
    ) {
        let (server, shutdown) = (Arc::clone(self), shutdown.clone());
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            tasks.spawn(async move {
                let _slot = slot;
                server.converse(stream, remote, shutdown).await;
            });
        } else if let Ok(in_doorway) = Arc::clone(&self.doorway).try_acquire_owned() {
            tasks.spawn(async move {
                let slot = server.freed_slot().await;
                if slot.is_some() {
                    drop(in_doorway);
                    server.converse(stream, remote, shutdown).await;
                } else {
                    server.refuse(stream).await;
                }
            });
        } else {
            self.turn_away(stream);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
