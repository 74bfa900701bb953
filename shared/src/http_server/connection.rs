//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::Watcher;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::awaited::Client;
use super::lingering::Lingering;
use super::request_body::{Exchange, RequestBody};
use super::{Server, Service};

impl<S: Service> Server<S> {
    /// Serves the connection until either side closes it.
    pub(super) async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        watcher: Watcher,
    ) {
        // Answers are small and complete: waiting to fill a segment only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %remote, "no TCP_NODELAY");
        }
        let client = Client::new(Arc::clone(&self.awaited));
        let (server, speaker) = (Arc::clone(&self), Arc::clone(&client));
        let requests = service_fn(move |request| {
            let answer = Arc::clone(&server).answer(request, remote, Arc::clone(&speaker));
            answer.map(Ok::<_, Infallible>)
        });
        let stream = Lingering::where_unread(stream, Arc::clone(&client));
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), requests)
            .into_owned();
        tokio::select! {
            ended = watcher.watch(connection) => if let Err(error) = ended {
                tracing::debug!(%error, %remote, "connection ended early");
            },
            () = silent_for(self.limits.header_timeout, &client) => {
                tracing::debug!(%remote, "connection closed, since no request came");
            }
            () = client.dismissed() => {
                metrics::counter!("http_connections_displaced_total").increment(1);
                tracing::debug!(%remote, "connection closed to make room for another one");
            }
        }
    }

    /// A panic is the request's own: its client is answered, and everything else goes on. The hook
    /// that logs panics has described it.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        remote: SocketAddr,
        client: Arc<Client>,
    ) -> impl Future<Output = Response<Full<Bytes>>> {
        // Not in the future itself: whoever decides on this client now has to know.
        let exchange = Exchange::begin(client, request.body());
        let in_order = request.version() < Version::HTTP_2;
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&exchange)));
        async move {
            let responding =
                AssertUnwindSafe(async { self.service.respond(request, remote).await });
            let mut response = responding.catch_unwind().await.unwrap_or_else(|_| {
                metrics::counter!("http_requests_panicked_total").increment(1);
                self.service.panicked()
            });
            // The next request would begin somewhere in the rest of this one's body.
            if in_order && !exchange.has_arrived() {
                exchange.leave_rest_unread();
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            response
        }
    }

    /// The place of the client that has been waited for longest; none if no client is waited for.
    pub(super) async fn freed_slot(&self) -> Option<OwnedSemaphorePermit> {
        const PATIENCE: Duration = Duration::from_secs(1);
        if !self.awaited.dismiss_longest() {
            return None;
        }
        let freed = Arc::clone(&self.slots).acquire_owned();
        tokio::time::timeout(PATIENCE, freed).await.ok()?.ok()
    }

    pub(super) async fn refuse(&self, stream: TcpStream) {
        metrics::counter!("http_connections_refused_total").increment(1);
        let mut stream = Lingering::always(stream);
        let answer = async {
            stream.write_all(&self.limits.refusal).await?;
            stream.shutdown().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(self.limits.header_timeout, answer).await {
            tracing::debug!(%error, "a refused connection was gone already");
        }
    }

    /// Refuses a connection without taking time for it: what cannot be sent at once is not sent.
    pub(super) fn turn_away(&self, stream: TcpStream) {
        metrics::counter!("http_connections_refused_total").increment(1);
        let told = stream
            .into_std()
            .and_then(|mut stream| stream.write_all(&self.limits.refusal));
        if let Err(error) = told {
            tracing::debug!(%error, "a connection was turned away without a word");
        }
    }
}

/// Waits until it is certain that a client sent no request in time. The server's own header
/// time-out begins only with the bytes that tell HTTP/1 from HTTP/2, so that a client which stalls
/// before them would be waited for without end.
async fn silent_for(header_timeout: Duration, client: &Client) {
    tokio::time::sleep(header_timeout + Duration::from_secs(1)).await;
    if client.has_spoken() {
        std::future::pending::<()>().await;
    }
}
