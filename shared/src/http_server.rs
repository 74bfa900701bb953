//! Serving HTTP: the accept loop, its limits, and its end. What a request means is the caller's.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::shutdown::Shutdown;

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// How many connections may be open; further ones are answered by `refusal` and closed.
    pub connections: usize,
    /// How long a client may take to send the header of a request; also how long a connection
    /// may be idle.
    pub header_timeout: Duration,
    /// The whole HTTP/1.1 answer for connections above the limit.
    pub refusal: Bytes,
}

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request of the client at `remote`.
    fn respond(
        &self,
        request: Request<Incoming>,
        remote: SocketAddr,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
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
    let server = Server {
        slots: Arc::new(Semaphore::new(
            limits.connections.min(Semaphore::MAX_PERMITS),
        )),
        builder: builder(limits.header_timeout),
        limits,
        graceful: GracefulShutdown::new(),
        connections: TaskTracker::new(),
    };
    server.accept(listener, &service, shutdown).await;
    server.drain(shutdown.drain_timeout()).await;
}

fn builder(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        // A client that closes once it has sent its request has sent it nevertheless.
        .half_close(true)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(header_timeout)
        .keep_alive_timeout(header_timeout)
        .max_concurrent_streams(256);
    builder
}

struct Server {
    slots: Arc<Semaphore>,
    builder: auto::Builder<TokioExecutor>,
    limits: ServerLimits,
    graceful: GracefulShutdown,
    connections: TaskTracker,
}

impl Server {
    async fn accept(
        &self,
        listener: TcpListener,
        service: &Arc<impl Service>,
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
                Ok((stream, remote)) => self.open(stream, remote, service),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn open(&self, stream: TcpStream, remote: SocketAddr, service: &Arc<impl Service>) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            metrics::counter!("http_connections_refused_total").increment(1);
            self.connections.spawn(refuse(
                stream,
                self.limits.refusal.clone(),
                self.limits.header_timeout,
            ));
            return;
        };
        // Answers are small and complete: waiting to fill a segment only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %remote, "no TCP_NODELAY");
        }
        let service = Arc::clone(service);
        let spoke = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&spoke);
        let requests = service_fn(move |request| {
            heard.store(true, Ordering::Relaxed);
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.respond(request, remote).await) }
        });
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), requests)
            .into_owned();
        let connection = self.graceful.watch(connection);
        let silence = silent_for(self.limits.header_timeout, spoke);
        self.connections.spawn(async move {
            let _slot = slot;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, %remote, "connection ended early");
                },
                () = silence => tracing::debug!(%remote, "connection closed, since no request came"),
            }
        });
    }

    async fn drain(self, timeout: Duration) {
        self.connections.close();
        let drained = async {
            self.graceful.shutdown().await;
            self.connections.wait().await;
        };
        if tokio::time::timeout(timeout, drained).await.is_err() {
            tracing::info!(
                connections = self.connections.len(),
                "connections are closed with requests under way"
            );
        }
    }
}

/// Waits until it is certain that a client sent no request in time. The server's own header
/// time-out begins only with the bytes that tell HTTP/1 from HTTP/2, so that a client which stalls
/// before them would be waited for without end.
async fn silent_for(header_timeout: Duration, spoke: Arc<AtomicBool>) {
    tokio::time::sleep(header_timeout + Duration::from_secs(1)).await;
    if spoke.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

async fn refuse(mut stream: TcpStream, refusal: Bytes, timeout: Duration) {
    let answer = async {
        stream.write_all(&refusal).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(timeout, answer).await {
        tracing::debug!(%error, "a refused connection was gone already");
    }
}
