//! Spans in OTLP, turned into what Zipkin would have of them, by OpenTelemetry's rules for that.

use std::collections::BTreeMap;
use std::fmt::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

use super::span::{Annotation, Endpoint, Kind, Span};

/// What OTLP says of each process, and no tag in Zipkin says.
const NO_TAGS: [&str; 4] = [
    "service.name",
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
];

type Tags = BTreeMap<String, String>;

/// The spans in the body of a request.
pub(super) fn read(body: &[u8]) -> Result<Vec<Span>, String> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|error| error.to_string())?;
    let mut spans = Vec::new();
    for of_process in request.resource_spans {
        let resource = of_process.resource.ok_or("no resource")?;
        let resource = tags(&resource.attributes)?;
        for of_scope in of_process.scope_spans {
            let scope = of_scope.scope.ok_or("no scope")?;
            for span in of_scope.spans {
                spans.push(as_in_zipkin(&span, &resource, &scope)?);
            }
        }
    }
    Ok(spans)
}

fn tags(attributes: &[KeyValue]) -> Result<Tags, String> {
    let tag = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().and_then(|any| any.value.as_ref());
        let shown = match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(flag)) => flag.to_string(),
            other => return Err(format!("{}={other:?}", attribute.key)),
        };
        Ok((attribute.key.clone(), shown))
    };
    attributes.iter().map(tag).collect()
}

fn as_in_zipkin(
    span: &otlp::Span,
    resource: &Tags,
    scope: &InstrumentationScope,
) -> Result<Span, String> {
    let own = tags(&span.attributes)?;
    let asked = ["messaging.system", "db.system.name", "server.address"];
    Ok(Span {
        trace_id: hex(&span.trace_id),
        parent_id: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        id: hex(&span.span_id),
        kind: kind(span.kind())?,
        name: span.name.clone(),
        timestamp: span.start_time_unix_nano / 1_000,
        duration: (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000,
        local_endpoint: endpoint(resource.get("service.name").ok_or("no service")?),
        remote_endpoint: asked
            .iter()
            .find_map(|name| own.get(*name))
            .map(|service| endpoint(service)),
        annotations: span.events.iter().map(annotation).collect(),
        tags: all_tags(span, own, resource, scope)?,
        debug: false,
        shared: false,
    })
}

fn hex(id: &[u8]) -> String {
    let mut digits = String::new();
    for byte in id {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}

fn kind(kind: SpanKind) -> Result<Option<Kind>, String> {
    match kind {
        SpanKind::Client => Ok(Some(Kind::Client)),
        SpanKind::Server => Ok(Some(Kind::Server)),
        SpanKind::Producer => Ok(Some(Kind::Producer)),
        SpanKind::Consumer => Ok(Some(Kind::Consumer)),
        SpanKind::Internal => Ok(None),
        SpanKind::Unspecified => Err("no kind".to_owned()),
    }
}

fn endpoint(service: &str) -> Endpoint {
    Endpoint {
        service_name: service.to_owned(),
        ..Endpoint::default()
    }
}

fn annotation(event: &otlp::span::Event) -> Annotation {
    Annotation {
        timestamp: event.time_unix_nano / 1_000,
        value: event.name.clone(),
    }
}

/// The tags of a span, with those of the process that made it and of the scope, its links and its status.
fn all_tags(
    span: &otlp::Span,
    own: Tags,
    resource: &Tags,
    scope: &InstrumentationScope,
) -> Result<Tags, String> {
    let mut all = resource.clone();
    for name in NO_TAGS {
        all.remove(name).ok_or_else(|| format!("no {name}"))?;
    }
    all.extend(own);
    let mut add = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
    add("otel.scope.name", &scope.name);
    add("otel.scope.version", &scope.version);
    let links = span.links.iter();
    let links: Vec<String> = links
        .map(|link| format!("{}/{}", hex(&link.trace_id), hex(&link.span_id)))
        .collect();
    if !links.is_empty() {
        add("otel.links", &links.join(","));
    }
    let status = span.status.as_ref().ok_or("no status")?;
    match status.code() {
        StatusCode::Unset => {}
        StatusCode::Ok => drop(add("otel.status_code", "OK")),
        StatusCode::Error => {
            add("otel.status_code", "ERROR");
            add("error", &status.message);
        }
    }
    Ok(all)
}
