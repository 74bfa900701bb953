//! Posting callbacks: as fast as they are answered, or at a rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use webhook::Keys;

use crate::processors::{Processors, Shares};
use crate::statistics::Durations;

/// Ids in a callback.
pub(crate) const CALLBACK: u32 = 200;

/// What was answered 202.
pub(crate) struct Accepted {
    /// Callbacks a second.
    pub(crate) rate: f64,
    /// From the request to the answer.
    pub(crate) latency: Durations,
    pub(crate) processors: Shares,
}

/// One kept connection, with as little around it as there can be.
struct Sender(SendRequest<Full<Bytes>>);

/// Where callbacks are posted to.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    /// None: without TLS.
    pub(crate) tls: Option<TlsConnector>,
}

impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

impl Sender {
    async fn connect(way: &Way) -> Self {
        let stream = TcpStream::connect(way.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match &way.tls {
            None => Self::on(stream).await,
            Some(tls) => {
                let name = way.address.ip().into();
                Self::on(tls.connect(name, stream).await.unwrap()).await
            }
        }
    }

    async fn on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn post(&mut self, callback: &Callback) {
        let mut request = Request::post("/callback")
            .body(Full::new(callback.body.clone()))
            .unwrap();
        request.headers_mut().clone_from(&callback.headers);
        self.0.ready().await.unwrap();
        let mut response = self.0.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        while let Some(frame) = response.frame().await {
            drop(frame.unwrap());
        }
    }
}

/// The key that all callbacks are signed with, for an `ingest` that asks for it.
pub(crate) const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(Clone)]
struct Callback {
    headers: HeaderMap,
    body: Bytes,
}

/// A callback with these ids.
fn callback(ids: impl IntoIterator<Item = i64>) -> Callback {
    let ids: Vec<i64> = ids.into_iter().collect();
    let body: Bytes = serde_json::json!({ "object_ids": ids }).to_string().into();
    let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("ingest"))]);
    let keys = <Keys as settings::Value>::parse(KEY).unwrap();
    let id = HeaderValue::from_static("msg_benchmark");
    keys.sign(&mut headers, id, SystemTime::now(), &body);
    Callback { headers, body }
}

/// Posts callbacks of [`CALLBACK`] ids on each of so many connections, one after the other.
pub(crate) async fn post(way: &Way, connections: usize, duration: Duration) -> Accepted {
    let mut senders = Vec::new();
    for number in 0..i64::try_from(connections).unwrap() {
        let first = number * 1_000_000;
        senders.push((
            Sender::connect(way).await,
            callback(first..first + i64::from(CALLBACK)),
        ));
    }
    let processors = Processors::watch();
    let begun = Instant::now();
    let mut work = JoinSet::new();
    for (mut sender, callback) in senders {
        work.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < duration {
                let sent = Instant::now();
                sender.post(&callback).await;
                latencies.push(sent.elapsed());
            }
            latencies
        });
    }
    let latencies = work.join_all().await;
    let elapsed = begun.elapsed();
    let processors = processors.shares();
    let latency: Durations = latencies.into_iter().flatten().collect();
    Accepted {
        rate: latency.len() as f64 / elapsed.as_secs_f64(),
        latency,
        processors,
    }
}

/// Callbacks at a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Ids in each callback.
    pub(crate) size: u32,
    /// Callbacks a second.
    pub(crate) rate: f64,
    /// For how long.
    pub(crate) duration: Duration,
}

/// A callback that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

/// Posts callbacks at a rate, whether or not those before have been answered. The ids are those
/// from 0 on, each once; returns the callbacks in that order.
pub(crate) async fn offer(address: SocketAddr, offer: Offer) -> Vec<Posted> {
    const CONNECTIONS: usize = 32;
    let due = move |number: u32| Duration::from_secs_f64(f64::from(number) / offer.rate);
    let numbers = (0..).take_while(|number| due(*number) < offer.duration);
    // Before the clock starts.
    let callbacks: Arc<[(Duration, Callback)]> = numbers
        .map(|number| {
            let first = i64::from(number * offer.size);
            (due(number), callback(first..first + i64::from(offer.size)))
        })
        .collect();
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(Sender::connect(&address.into()).await);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut work = JoinSet::new();
    for mut sender in senders {
        let (next, callbacks) = (Arc::clone(&next), Arc::clone(&callbacks));
        work.spawn(async move {
            let mut posted = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((due, callback)) = callbacks.get(number) else {
                    return posted;
                };
                sleep_until(begun + *due).await;
                let sent = Instant::now();
                sender.post(callback).await;
                let answered = Instant::now();
                posted.push((number, Posted { sent, answered }));
            }
        });
    }
    let mut posted: Vec<_> = work.join_all().await.into_iter().flatten().collect();
    posted.sort_unstable_by_key(|(number, _)| *number);
    posted.into_iter().map(|(_, posted)| posted).collect()
}
