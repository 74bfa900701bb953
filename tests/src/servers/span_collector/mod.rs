//! A collector of spans that takes nothing but what its format allows.

mod format;
mod otlp;
mod span;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use http_server::{RequestBody, Service};
use tokio::net::TcpListener;

use crate::servers::http_server::start_serving;
use crate::wait::eventually;
pub use format::{Format, OTLP, ZIPKIN};
pub use span::{Annotation, Endpoint, Kind, Span, defect};

/// What a collector does with requests.
#[derive(Clone, Debug, Default)]
pub enum Manner {
    /// It takes them.
    #[default]
    Takes,
    /// It takes requests with at most this number of spans, and answers 413 to others.
    TakesAtMost(usize),
    /// It sends them elsewhere.
    Redirects(String),
}

struct Collected {
    format: &'static Format,
    manner: Manner,
    spans: Mutex<Vec<Span>>,
    headers: Mutex<Vec<HeaderMap>>,
    defects: Mutex<Vec<String>>,
}

/// The collector. It ends with the test's runtime.
pub struct SpanCollector {
    /// Where it listens.
    pub address: SocketAddr,
    collected: Arc<Collected>,
}

impl SpanCollector {
    /// Starts to collect, in Zipkin's format.
    pub async fn start() -> Self {
        Self::with(&ZIPKIN, Manner::Takes).await
    }

    /// Starts to collect.
    pub async fn with(format: &'static Format, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            collected: Arc::new(Collected {
                format,
                manner,
                spans: Mutex::default(),
                headers: Mutex::default(),
                defects: Mutex::default(),
            }),
        };
        start_serving(listener, Arc::clone(&collector.collected));
        collector
    }

    /// Where spans are sent to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.collected.format.base)
    }

    /// The flag that has a process send its spans here.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}={}", self.collected.format.flag, self.url())
    }

    /// The headers of each request.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.collected.headers.lock().unwrap().clone()
    }

    /// What was collected.
    ///
    /// # Panics
    /// Something was not as it has to be.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let defects = self.collected.defects.lock().unwrap();
        assert!(defects.is_empty(), "not of the format: {defects:#?}");
        self.collected.spans.lock().unwrap().clone()
    }

    /// The traces that were collected, each as its spans in their order in time.
    #[must_use]
    pub fn traces(&self) -> Vec<Vec<Span>> {
        let mut traces: HashMap<String, Vec<Span>> = HashMap::new();
        for span in self.spans() {
            traces.entry(span.trace_id.clone()).or_default().push(span);
        }
        let mut traces: Vec<_> = traces.into_values().collect();
        for trace in &mut traces {
            trace.sort_by_key(|span| span.timestamp);
        }
        traces.sort_by_key(|trace| trace[0].timestamp);
        traces
    }

    /// Waits until there is one trace, which is whole and has the given number of spans with each of these names.
    pub async fn until_whole(&self, names: &[(&str, usize)]) -> Vec<Span> {
        eventually(&format!("a whole trace with {names:?}"), async || {
            let mut traces = self.traces();
            let trace = traces.pop().filter(|_| traces.is_empty())?;
            let count = |name: &str| {
                trace
                    .iter()
                    .filter(|span| span.name.ends_with(name))
                    .count()
            };
            let has_all = names
                .iter()
                .all(|(name, expected)| count(name) == *expected);
            (has_all && defect(&trace).is_none()).then_some(trace)
        })
        .await
    }

    /// Waits until `count` traces have a span with each of these names.
    pub async fn until_traces_with(&self, count: usize, names: &[&str]) -> Vec<Vec<Span>> {
        let what = format!("{count} trace(s) with {names:?}");
        eventually(&what, async || {
            let mut traces = self.traces();
            let has = |trace: &[Span], name: &str| trace.iter().any(|span| span.name == name);
            traces.retain(|trace| names.iter().all(|name| has(trace, name)));
            (traces.len() == count).then_some(traces)
        })
        .await
    }
}

impl Collected {
    /// The spans in a request.
    fn read(&self, head: &http::request::Parts, body: &[u8]) -> Result<Vec<Span>, String> {
        let path = (&head.method, head.uri.path());
        if path != (&Method::POST, self.format.path) {
            return Err(format!("{path:?}"));
        }
        let content_type = head.headers.get("content-type");
        if content_type != Some(&HeaderValue::from_static(self.format.content_type)) {
            return Err(format!("{content_type:?}"));
        }
        let spans = (self.format.read)(body)?;
        match spans.iter().find_map(Span::defect) {
            Some(defect) => Err(defect.to_owned()),
            None => Ok(spans),
        }
    }

    fn answer(&self, spans: Vec<Span>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = match &self.manner {
            Manner::TakesAtMost(most) if spans.len() > *most => StatusCode::PAYLOAD_TOO_LARGE,
            Manner::Redirects(elsewhere) => {
                let elsewhere = elsewhere.parse().unwrap();
                response.headers_mut().insert(LOCATION, elsewhere);
                StatusCode::TEMPORARY_REDIRECT
            }
            _ => {
                self.spans.lock().unwrap().extend(spans);
                self.format.taken
            }
        };
        response
    }
}

impl Service for Collected {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.headers.lock().unwrap().push(head.headers.clone());
        match self.read(&head, &body) {
            Ok(spans) => self.answer(spans),
            Err(defect) => {
                let body = String::from_utf8_lossy(&body);
                let defect = format!("{defect}: {body}");
                self.defects.lock().unwrap().push(defect);
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        }
    }
}
