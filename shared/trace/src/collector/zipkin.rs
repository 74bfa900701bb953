//! Zipkin's format, version 2. It knows neither links nor a status, nor who made a span apart from the name
//! of the service: tags tell of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanId, SpanKind, Status};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;

use super::format::Format;
use crate::attribute::{
    DB_SYSTEM_NAME, MESSAGING_SYSTEM, OTEL_SCOPE_NAME, OTEL_SCOPE_VERSION, OTEL_STATUS_CODE,
    SERVER_ADDRESS, SERVICE_NAME,
};

/// Tag with the links of a span, each as `<trace id>/<span id>`, separated by commas.
const LINKS: &str = "otel.links";
/// Tag of a failed span: Zipkin shows it in red.
const ERROR: &str = "error";

/// Spans of one process, as Zipkin's API takes them.
pub(super) struct Zipkin {
    service: String,
    /// What is the same in all of its spans.
    common: Vec<(String, String)>,
}

impl Zipkin {
    /// `resource` makes the spans.
    pub(super) fn new(resource: &Resource) -> Self {
        let service = resource.get(&Key::from_static_str(SERVICE_NAME));
        let attributes = resource.iter();
        let attributes = attributes.map(|(name, value)| (name.to_string(), value.to_string()));
        Self {
            service: service.map_or_else(String::new, |name| name.to_string()),
            common: attributes.filter(|(name, _)| tells(name)).collect(),
        }
    }

    fn written<'a>(&'a self, span: &'a SpanData) -> ZipkinSpan<'a> {
        let tags = self.tags(span);
        let parent = Some(span.parent_span_id).filter(|parent| *parent != SpanId::INVALID);
        let duration = span.end_time.duration_since(span.start_time);
        ZipkinSpan {
            trace_id: span.span_context.trace_id().to_string(),
            parent_id: parent.map(|parent| parent.to_string()),
            id: span.span_context.span_id().to_string(),
            kind: kind(&span.span_kind),
            name: &span.name,
            timestamp: micros(since_1970(span.start_time)),
            duration: micros(duration.unwrap_or_default()),
            local_endpoint: Endpoint {
                service_name: self.service.clone(),
            },
            remote_endpoint: asked(&tags),
            annotations: span.events.iter().map(annotation).collect(),
            tags,
        }
    }

    /// What is known of a span and of who made it, and what Zipkin has no other place for.
    fn tags<'a>(&'a self, span: &'a SpanData) -> BTreeMap<&'a str, String> {
        let common = self.common.iter();
        let common = common.map(|(name, value)| (name.as_str(), value.clone()));
        let mut tags: BTreeMap<_, _> = common.chain(span.attributes.iter().map(tag)).collect();
        let scope = &span.instrumentation_scope;
        tags.insert(OTEL_SCOPE_NAME, scope.name().to_owned());
        tags.extend(
            scope
                .version()
                .map(|version| (OTEL_SCOPE_VERSION, version.to_owned())),
        );
        if !span.links.is_empty() {
            let shown: Vec<String> = span.links.iter().map(show).collect();
            tags.insert(LINKS, shown.join(","));
        }
        tags.extend(outcome(&span.status));
        tags
    }
}

impl Format for Zipkin {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn encode(&self, spans: &[Arc<SpanData>]) -> anyhow::Result<Vec<u8>> {
        let written: Vec<_> = spans.iter().map(|span| self.written(span)).collect();
        Ok(serde_json::to_vec(&written)?)
    }
}

/// A span as Zipkin's API describes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    trace_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    name: &'a str,
    timestamp: u64,
    duration: u64,
    local_endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation<'a>>,
    tags: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    service_name: String,
}

#[derive(Serialize)]
struct Annotation<'a> {
    timestamp: u64,
    value: &'a str,
}

/// Side of an exchange; none if it is none.
fn kind(kind: &SpanKind) -> Option<&'static str> {
    match kind {
        SpanKind::Client => Some("CLIENT"),
        SpanKind::Server => Some("SERVER"),
        SpanKind::Producer => Some("PRODUCER"),
        SpanKind::Consumer => Some("CONSUMER"),
        SpanKind::Internal => None,
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

fn annotation(event: &Event) -> Annotation<'_> {
    Annotation {
        timestamp: micros(since_1970(event.timestamp)),
        value: &event.name,
    }
}

/// Who was asked, by the most telling of the tags.
fn asked(tags: &BTreeMap<&str, String>) -> Option<Endpoint> {
    let mut telling = [MESSAGING_SYSTEM, DB_SYSTEM_NAME, SERVER_ADDRESS].iter();
    let service_name = telling.find_map(|tag| tags.get(tag).cloned())?;
    Some(Endpoint { service_name })
}

fn outcome(status: &Status) -> Vec<(&'static str, String)> {
    match status {
        Status::Unset => Vec::new(),
        Status::Ok => vec![(OTEL_STATUS_CODE, "OK".to_owned())],
        Status::Error { description } => vec![
            (OTEL_STATUS_CODE, "ERROR".to_owned()),
            (ERROR, description.clone().into_owned()),
        ],
    }
}

/// Whether a tag of this name tells something that is not known anyway.
fn tells(name: &str) -> bool {
    name != SERVICE_NAME && !name.starts_with("telemetry.sdk.")
}

fn tag(attribute: &KeyValue) -> (&str, String) {
    (attribute.key.as_str(), attribute.value.to_string())
}

fn show(link: &Link) -> String {
    let context = &link.span_context;
    format!("{}/{}", context.trace_id(), context.span_id())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::sample::{BEGIN, resource, span};
    use super::*;

    fn encoded(span: SpanData) -> Value {
        let body = Zipkin::new(&resource()).encode(&[Arc::new(span)]).unwrap();
        let mut spans: Vec<Value> = serde_json::from_slice(&body).unwrap();
        spans.remove(0)
    }

    #[test]
    fn a_span_is_written_with_all_that_is_known_of_it() {
        let expected = json!({
            "traceId": "00000000000000000000000000000001",
            "parentId": "0000000000000004",
            "id": "0000000000000005",
            "kind": "CLIENT",
            "name": "INSERT objects",
            "timestamp": BEGIN,
            "duration": 20,
            "localEndpoint": { "serviceName": "fetcher" },
            "remoteEndpoint": { "serviceName": "postgresql" },
            "annotations": [{ "timestamp": BEGIN + 10, "value": "tried" }],
            "tags": {
                "db.system.name": "postgresql",
                "messaging.batch.message_count": "3",
                "error": "no connection",
                "service.instance.id": "7",
                "otel.status_code": "ERROR",
                "otel.scope.name": "product",
                "otel.scope.version": "1.2.3",
                "otel.links": "00000000000000000000000000000002/0000000000000007,\
                               00000000000000000000000000000003/0000000000000007",
            },
        });
        assert_eq!(encoded(span()), expected);
    }

    #[test]
    fn a_root_has_no_parent_and_what_is_no_exchange_no_kind() {
        let root = SpanData {
            parent_span_id: SpanId::INVALID,
            span_kind: SpanKind::Internal,
            attributes: Vec::new(),
            status: Status::Unset,
            ..span()
        };
        let written = encoded(root);
        for member in ["parentId", "kind", "remoteEndpoint"] {
            assert_eq!(written.get(member), None, "{written}");
        }
        assert_eq!(written["tags"].get("error"), None);
    }
}
