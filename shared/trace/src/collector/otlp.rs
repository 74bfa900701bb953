//! OpenTelemetry's own format: OTLP, in protobuf.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;

use super::deliveries::Refusal;
use super::format::Format;

/// Maximum number of characters of a collector's reason that are logged.
const REASON_LIMIT: usize = 200;

/// Spans of one process, as OTLP has them.
pub(super) struct Otlp(ResourceAttributesWithSchema);

impl Otlp {
    /// `resource` makes the spans.
    pub(super) fn new(resource: &Resource) -> Self {
        Self(resource.into())
    }
}

impl Format for Otlp {
    fn content_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    fn encode(&self, spans: &[Arc<SpanData>]) -> anyhow::Result<Vec<u8>> {
        // Others may still need them, for another collector or another try.
        let spans = spans.iter().map(|span| SpanData::clone(span)).collect();
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &self.0),
        };
        Ok(request.encode_to_vec())
    }

    fn refusal(&self, answer: &[u8]) -> Option<Refusal> {
        let answer = ExportTraceServiceResponse::decode(answer).ok()?;
        let partial = answer.partial_success?;
        let spans = usize::try_from(partial.rejected_spans).ok()?;
        let reason: String = partial.error_message.chars().take(REASON_LIMIT).collect();
        (spans > 0).then(|| Refusal {
            spans,
            reason: format!("it left out {spans}: {reason}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::super::sample::{resource, span};
    use super::*;

    fn refusal(rejected_spans: i64, reason: &str) -> Option<Refusal> {
        let partial = ExportTracePartialSuccess {
            rejected_spans,
            error_message: reason.to_owned(),
        };
        let answer = ExportTraceServiceResponse {
            partial_success: Some(partial),
        };
        Otlp::new(&resource()).refusal(&answer.encode_to_vec())
    }

    #[test]
    fn spans_of_one_scope_are_written_together_with_who_made_them() {
        let spans = [Arc::new(span()), Arc::new(span())];
        let body = Otlp::new(&resource()).encode(&spans).unwrap();
        let mut request = ExportTraceServiceRequest::decode(&*body).unwrap();
        let written = request.resource_spans.pop().unwrap();
        assert_eq!(written.resource.unwrap().attributes.len(), 3);
        let [scope] = &written.scope_spans[..] else {
            panic!("{:?}", written.scope_spans);
        };
        assert_eq!(scope.scope.as_ref().unwrap().name, "product");
        assert_eq!(scope.spans.len(), 2);
        assert_eq!(scope.spans[0].links.len(), 2);
    }

    #[test]
    fn what_a_collector_left_out_is_read_from_its_answer() {
        let left_out = refusal(2, "too old").unwrap();
        assert_eq!(left_out.spans, 2);
        assert_eq!(left_out.reason, "it left out 2: too old");
        assert_eq!(refusal(1, &"x".repeat(999)).unwrap().reason.len(), 215);
        assert_eq!(refusal(0, "a warning"), None);
        assert_eq!(refusal(-1, ""), None);
        for answer in [&b""[..], b"{}", b"\xff\xff"] {
            assert_eq!(Otlp::new(&resource()).refusal(answer), None);
        }
    }
}
