//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lifecycle::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::activity::Activity;
use crate::displacement::DisplacementQueue;
use crate::head;
use crate::lingering_stream::{LingeringStream, Transport};
use crate::metrics::{
    CONNECTIONS_DISPLACED, CONNECTIONS_REFUSED, REQUESTS_MALFORMED, REQUESTS_PANICKED,
};
use crate::request_body::{Exchange, RequestBody};
use crate::server::{Server, Service};

/// An idle connection stays open for a bit longer than its client was told, so that no request of a
/// client that respects the time is on its way when the connection is closed.
const SLACK: Duration = Duration::from_secs(1);

/// How long the graceful end of an idle connection may take: with HTTP/2 the client has to agree.
const GRACEFUL_END: Duration = Duration::from_secs(3);

impl<S: Service> Server<S> {
    /// Serves the connection until either side closes it.
    pub(crate) async fn serve_connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: Shutdown,
    ) {
        // Answers are small and complete: waiting to fill a segment only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "no TCP_NODELAY");
        }
        let activity = Activity::new(Arc::clone(&self.waiting), Arc::clone(&self.uploading));
        let begun = self.begin(stream, peer, &activity, &shutdown).await;
        let Some((stream, remote)) = begun else {
            return;
        };
        let (server, noted) = (Arc::clone(&self), Arc::clone(&activity));
        let requests = service_fn(move |request| {
            let answer = Arc::clone(&server).answer(request, remote, Arc::clone(&noted));
            answer.map(Ok::<_, Infallible>)
        });
        let head_timeout = self.limits.header_timeout;
        let stream = LingeringStream::new(stream, Arc::clone(&activity), head_timeout);
        let mut connection = pin!(
            self.builder
                .serve_connection(TokioIo::new(stream), requests)
        );
        let idle_timeout = self.limits.idle_timeout.saturating_add(SLACK);
        let serving = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = shutdown.begun() => {}
                () = activity.idle_for(idle_timeout) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                head::count_malformed(error.as_ref());
                tracing::debug!(%error, %remote, "connection ended early");
            },
            () = activity.idle_for(idle_timeout.saturating_add(GRACEFUL_END)) => {
                tracing::debug!(%remote, "connection closed because no request came");
            }
            () = activity.displaced() => {
                CONNECTIONS_DISPLACED.increment(1);
                tracing::debug!(%remote, "connection closed to make room for another one");
            }
        }
    }

    /// Shakes hands, unless the connection has to end before. Returns also the address of the client.
    async fn begin(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        activity: &Activity,
        shutdown: &Shutdown,
    ) -> Option<(Transport, SocketAddr)> {
        tokio::select! {
            biased;
            shaken = self.shake_hands(stream, peer) => shaken
                .inspect_err(|error| tracing::debug!(%error, %peer, "connection ended in its handshake"))
                .ok(),
            () = activity.displaced() => {
                CONNECTIONS_DISPLACED.increment(1);
                tracing::debug!(%peer, "connection closed in its handshake to make room for another one");
                None
            }
            () = shutdown.begun() => None,
        }
    }

    /// Answers a request. If the service panics, only this request fails: its client is answered, and
    /// the hook that logs panics has described the panic.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        remote: SocketAddr,
        activity: Arc<Activity>,
    ) -> impl Future<Output = Response<Full<Bytes>>> {
        // Before the future is polled: the connection may be chosen for displacement until then.
        let exchange = Exchange::begin(activity, request.body());
        let in_order = request.version() < Version::HTTP_2;
        let persistent = head::is_persistent(&request);
        let only_head = request.method() == Method::HEAD;
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&exchange)));
        async move {
            let responding = AssertUnwindSafe(self.respond(request, remote, &exchange));
            let mut response = responding.catch_unwind().await.unwrap_or_else(|_| {
                REQUESTS_PANICKED.increment(1);
                self.service.panicked()
            });
            if only_head {
                response = without_body(response);
            }
            // The unread rest of the body would be taken for the next request.
            if in_order && !exchange.has_arrived() {
                exchange.leave_body_unread();
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            } else if persistent {
                let keep_alive = HeaderName::from_static("keep-alive");
                let timeout = self.keep_alive.clone();
                response.headers_mut().insert(keep_alive, timeout);
            }
            response
        }
    }

    async fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
        exchange: &Exchange,
    ) -> Response<Full<Bytes>> {
        if let Err(reason) = head::check_host(&request) {
            REQUESTS_MALFORMED.increment(1);
            tracing::debug!(%remote, reason, "request refused");
            return self.service.malformed(reason);
        }
        if !exchange.is_further() {
            return self.service.respond(request, remote).await;
        }
        match acquire_or_displace(&self.further_bodies, &self.uploading).await {
            Some(_permit) => self.service.respond(request, remote).await,
            None => self.service.overloaded(),
        }
    }

    /// A slot; at the limit, that of the connection which has waited longest for its client. `None` if
    /// no connection can be displaced.
    pub(crate) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        acquire_or_displace(&self.slots, &self.waiting).await
    }

    /// Answers a connection above the limit, and waits until the answer has arrived.
    pub(crate) async fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        /// While it lasts, nobody else has the place for a refusal.
        const HANDSHAKE: Duration = Duration::from_secs(1);
        CONNECTIONS_REFUSED.increment(1);
        let patience = if self.has_handshake(peer) {
            HANDSHAKE
        } else {
            self.limits.header_timeout
        };
        let answer = async {
            let (stream, _) = self.shake_hands(stream, peer).await?;
            let mut stream = LingeringStream::write_only(stream);
            stream.write_all(&self.limits.refusal).await?;
            stream.shutdown().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(patience, answer).await {
            tracing::debug!(%error, "a refused connection was gone already");
        }
    }

    /// Answers a connection above the limit with what can be sent at once, and closes it.
    pub(crate) fn refuse_without_waiting(&self, stream: TcpStream) {
        CONNECTIONS_REFUSED.increment(1);
        if self.tls.is_some() {
            // A handshake takes too long.
            return;
        }
        let written = stream
            .into_std()
            .and_then(|mut stream| stream.write_all(&self.limits.refusal));
        if let Err(error) = written {
            tracing::debug!(%error, "a connection was closed without its refusal");
        }
    }
}

/// The answer to HEAD: the same headers without the body. Over HTTP/2 hyper would send the body.
fn without_body(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let (mut header, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        header.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(header, Full::default())
}

/// A permit; where all are taken, that of the connection which entered `queue` first.
async fn acquire_or_displace(
    permits: &Arc<Semaphore>,
    queue: &DisplacementQueue,
) -> Option<OwnedSemaphorePermit> {
    const PATIENCE: Duration = Duration::from_secs(1);
    if let Ok(free) = Arc::clone(permits).try_acquire_owned() {
        return Some(free);
    }
    if !queue.displace_first() {
        return None;
    }
    let released = Arc::clone(permits).acquire_owned();
    tokio::time::timeout(PATIENCE, released).await.ok()?.ok()
}
