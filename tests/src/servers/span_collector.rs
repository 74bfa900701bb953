//! A collector of spans that takes nothing but what Zipkin's API (version 2) allows.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use http_server::{RequestBody, Service};
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::servers::http_server::start_serving;
use crate::wait::eventually;

/// The process that made a span, or that it asked.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Name of the service.
    #[serde(default)]
    pub service_name: String,
    /// Address.
    pub ipv4: Option<String>,
    /// Address.
    pub ipv6: Option<String>,
    /// Port.
    pub port: Option<u16>,
}

/// What happened at a moment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotation {
    /// Microseconds since 1970.
    pub timestamp: u64,
    /// What.
    pub value: String,
}

/// Side of an exchange.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// The span of a request at its sender.
    Client,
    /// The span of a request at its receiver.
    Server,
    /// The span of a message at its publisher.
    Producer,
    /// The span of a message at its consumer.
    Consumer,
}

/// A span as Zipkin's API describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    /// 16 or 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits; none in a root.
    pub parent_id: Option<String>,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Side of an exchange; none if it is none.
    pub kind: Option<Kind>,
    /// What it is.
    pub name: String,
    /// Begin, in microseconds since 1970.
    pub timestamp: u64,
    /// Microseconds.
    pub duration: u64,
    /// The process that made it.
    pub local_endpoint: Endpoint,
    /// The process that it asked.
    pub remote_endpoint: Option<Endpoint>,
    /// What happened meanwhile.
    #[serde(default)]
    pub annotations: Vec<Annotation>,
    /// What is known of it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it was recorded for certain.
    #[serde(default)]
    pub debug: bool,
    /// Whether client and server share its id.
    #[serde(default)]
    pub shared: bool,
}

impl Span {
    /// What is wrong with it, as far as the types do not say so already.
    fn defect(&self) -> Option<&'static str> {
        let is_hex = |id: &str, lengths: &[usize]| {
            let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            lengths.contains(&id.len()) && id.chars().all(digits) && id.chars().any(|c| c != '0')
        };
        let parent = self.parent_id.as_ref();
        let checks = [
            (!is_hex(&self.trace_id, &[16, 32]), "traceId"),
            (!is_hex(&self.id, &[16]), "id"),
            (parent.is_some_and(|id| !is_hex(id, &[16])), "parentId"),
            (self.name.is_empty(), "name"),
            (self.timestamp < 1_600_000_000_000_000, "timestamp"),
            (self.local_endpoint.service_name.is_empty(), "localEndpoint"),
        ];
        checks
            .iter()
            .find(|(wrong, _)| *wrong)
            .map(|(_, what)| *what)
    }

    /// The moment at which it ended, in microseconds since 1970.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.timestamp + self.duration
    }

    /// A tag; empty where there is none.
    #[must_use]
    pub fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    /// The service and the name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}: {}", self.local_endpoint.service_name, self.name)
    }
}

#[derive(Default)]
struct Collected {
    spans: Mutex<Vec<Span>>,
    defects: Mutex<Vec<String>>,
}

/// The collector. It ends with the test's runtime.
pub struct SpanCollector {
    /// Where it listens.
    pub address: SocketAddr,
    collected: Arc<Collected>,
}

impl SpanCollector {
    /// Starts to collect.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            collected: Arc::default(),
        };
        start_serving(listener, Arc::clone(&collector.collected));
        collector
    }

    /// The flag that has a process send its spans here.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--zipkin-url=http://{}/api/v2/spans", self.address)
    }

    /// What was collected.
    ///
    /// # Panics
    /// Something was not as it has to be.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let defects = self.collected.defects.lock().unwrap();
        assert!(defects.is_empty(), "not Zipkin's format: {defects:#?}");
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

    /// Waits until there is one trace, which is whole and has so many spans with each of these names.
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

impl Service for Collected {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        let path = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let defect = match serde_json::from_slice::<Vec<Span>>(&body) {
            _ if path != (Method::POST, "/api/v2/spans".to_owned()) => Some(format!("{path:?}")),
            Err(error) => Some(error.to_string()),
            Ok(spans) => {
                let defect = spans.iter().find_map(Span::defect).map(str::to_owned);
                self.spans.lock().unwrap().extend(spans);
                defect
            }
        };
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::ACCEPTED;
        if let Some(defect) = defect {
            let body = String::from_utf8_lossy(&body);
            self.defects
                .lock()
                .unwrap()
                .push(format!("{defect}: {body}"));
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        response
    }
}

/// What a trace lacks to be whole: one root, and each parent there and begun before its children.
#[must_use]
pub fn defect(trace: &[Span]) -> Option<String> {
    let by_id: HashMap<_, _> = trace.iter().map(|span| (&span.id, span)).collect();
    if by_id.len() < trace.len() {
        return Some("an id is there twice".to_owned());
    }
    let roots = trace.iter().filter(|span| span.parent_id.is_none()).count();
    if roots != 1 {
        return Some(format!("{roots} roots"));
    }
    let mut others = trace.iter().filter(|span| span.parent_id.is_some());
    others.find_map(|span| {
        let parent = span.parent_id.as_ref().and_then(|id| by_id.get(id));
        match parent {
            None => Some(format!("{} lacks its parent", span.title())),
            Some(parent) if parent.timestamp > span.timestamp => {
                Some(format!("{} begins before {}", span.title(), parent.title()))
            }
            Some(_) => None,
        }
    })
}
