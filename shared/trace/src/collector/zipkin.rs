//! What the exporter leaves out of Zipkin's format: who made a span, whom it asked, that a root has no
//! parent, and links, which Zipkin does not know.

use opentelemetry::KeyValue;
use opentelemetry::trace::Link;
use opentelemetry_http::Bytes;
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Map, Value, json};

use crate::attribute::{DB_SYSTEM_NAME, MESSAGING_SYSTEM, SERVER_ADDRESS};

/// The parent of a root, as the exporter writes it.
const NO_PARENT: &str = "0000000000000000";

/// Tag with the links of a span, each as `<trace id>/<span id>`, separated by commas.
const LINKS: &str = "otel.links";

/// The spans with their links in a tag, so that they are not lost.
pub(super) fn with_links(mut batch: Vec<SpanData>) -> Vec<SpanData> {
    for span in batch.iter_mut().filter(|span| !span.links.is_empty()) {
        let shown: Vec<String> = span.links.iter().map(show).collect();
        span.attributes.push(KeyValue::new(LINKS, shown.join(",")));
    }
    batch
}

fn show(link: &Link) -> String {
    let context = &link.span_context;
    format!("{}/{}", context.trace_id(), context.span_id())
}

/// The body of a request with what is missing: `service` made the spans.
pub(super) fn completed(body: &[u8], service: &str) -> serde_json::Result<Bytes> {
    let mut spans: Vec<Map<String, Value>> = serde_json::from_slice(body)?;
    for span in &mut spans {
        if span.get("parentId").is_some_and(|id| id == NO_PARENT) {
            span.remove("parentId");
        }
        span.insert("localEndpoint".into(), endpoint(service));
        let asked = span.get("tags").and_then(asked).map(endpoint);
        if let Some(asked) = asked {
            span.insert("remoteEndpoint".into(), asked);
        }
    }
    Ok(serde_json::to_vec(&spans)?.into())
}

/// Who was asked, by the most telling of the tags.
fn asked(tags: &Value) -> Option<&str> {
    [MESSAGING_SYSTEM, DB_SYSTEM_NAME, SERVER_ADDRESS]
        .iter()
        .find_map(|tag| tags.get(tag)?.as_str())
}

fn endpoint(service: &str) -> Value {
    json!({ "serviceName": service })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_no_parent_and_every_span_says_who_made_it_and_whom_it_asked() {
        let body = json!([
            { "id": "1", "parentId": NO_PARENT, "tags": {} },
            { "id": "2", "parentId": "0000000000000001", "tags": { "db.system.name": "postgresql" } },
        ]);
        let completed = completed(body.to_string().as_bytes(), "fetcher").unwrap();
        let spans: Value = serde_json::from_slice(&completed).unwrap();
        let local = json!({ "serviceName": "fetcher" });
        let expected = json!([
            { "id": "1", "tags": {}, "localEndpoint": local },
            { "id": "2", "parentId": "0000000000000001", "tags": { "db.system.name": "postgresql" },
              "localEndpoint": local, "remoteEndpoint": { "serviceName": "postgresql" } },
        ]);
        assert_eq!(spans, expected);
    }
}
