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

use crate::awaited::Awaited;
use crate::client::Client;
use crate::head;
use crate::metrics::{
    CONNECTIONS_DISPLACED, CONNECTIONS_REFUSED, REQUESTS_MALFORMED, REQUESTS_PANICKED,
};
use crate::request_body::{Exchange, RequestBody};
use crate::server::{Server, Service};
use crate::stream::ClientStream;

/// An idle connection is kept for a bit longer than clients are told, so that none that keeps to it
/// has a request on its way when it is closed.
const SLACK: Duration = Duration::from_secs(1);

/// How long the end of an idle connection may take: with HTTP/2 the client has to agree to it.
const FAREWELL: Duration = Duration::from_secs(3);

impl<S: Service> Server<S> {
    /// Serves the connection until either side closes it.
    pub(crate) async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        shutdown: Shutdown,
    ) {
        // Answers are small and complete: waiting to fill a segment only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %remote, "no TCP_NODELAY");
        }
        let client = Client::new(Arc::clone(&self.awaited), Arc::clone(&self.crowded));
        let (server, speaker) = (Arc::clone(&self), Arc::clone(&client));
        let requests = service_fn(move |request| {
            let answer = Arc::clone(&server).answer(request, remote, Arc::clone(&speaker));
            answer.map(Ok::<_, Infallible>)
        });
        let head_timeout = self.limits.header_timeout;
        let stream = ClientStream::new(stream, Arc::clone(&client), head_timeout);
        let mut connection = pin!(
            self.builder
                .serve_connection(TokioIo::new(stream), requests)
        );
        let idle_timeout = self.limits.idle_timeout.saturating_add(SLACK);
        let conversation = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = shutdown.begun() => {}
                () = client.idle_for(idle_timeout) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        tokio::select! {
            ended = conversation => if let Err(error) = ended {
                head::count_malformed(error.as_ref());
                tracing::debug!(%error, %remote, "connection ended early");
            },
            () = client.idle_for(idle_timeout.saturating_add(FAREWELL)) => {
                tracing::debug!(%remote, "connection closed, since no request came");
            }
            () = client.dismissed() => {
                CONNECTIONS_DISPLACED.increment(1);
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
            // The next request would begin somewhere in the rest of this one's body.
            if in_order && !exchange.has_arrived() {
                exchange.leave_rest_unread();
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
        match freed(&self.further_bodies, &self.crowded).await {
            Some(_place) => self.service.respond(request, remote).await,
            None => self.service.overloaded(),
        }
    }

    /// The place of the client that has been waited for longest; none if no client is waited for.
    pub(crate) async fn freed_slot(&self) -> Option<OwnedSemaphorePermit> {
        freed(&self.slots, &self.awaited).await
    }

    pub(crate) async fn refuse(&self, stream: TcpStream) {
        CONNECTIONS_REFUSED.increment(1);
        let mut stream = ClientStream::unheard(stream);
        let answer = async {
            stream.write_all(&self.limits.refusal).await?;
            stream.shutdown().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(self.limits.header_timeout, answer).await {
            tracing::debug!(%error, "a refused connection was gone already");
        }
    }

    /// Refuses a connection without taking time for it: what cannot be sent at once is not sent.
    pub(crate) fn turn_away(&self, stream: TcpStream) {
        CONNECTIONS_REFUSED.increment(1);
        let told = stream
            .into_std()
            .and_then(|mut stream| stream.write_all(&self.limits.refusal));
        if let Err(error) = told {
            tracing::debug!(%error, "a connection was turned away without a word");
        }
    }
}

/// The header of an answer, as it is with the body. The library would send the body over HTTP/2 also
/// where it must not.
fn without_body(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let (mut header, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        header.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(header, Full::default())
}

/// A place; where all are taken, that of the client which has been in `queue` for longest.
async fn freed(places: &Arc<Semaphore>, queue: &Awaited) -> Option<OwnedSemaphorePermit> {
    const PATIENCE: Duration = Duration::from_secs(1);
    if let Ok(free) = Arc::clone(places).try_acquire_owned() {
        return Some(free);
    }
    if !queue.dismiss_longest() {
        return None;
    }
    let freed = Arc::clone(places).acquire_owned();
    tokio::time::timeout(PATIENCE, freed).await.ok()?.ok()
}
