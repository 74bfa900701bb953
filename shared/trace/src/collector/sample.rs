//! A span to test with.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::attribute::{
    DB_SYSTEM_NAME, MESSAGING_BATCH_MESSAGE_COUNT, SERVICE_INSTANCE_ID, SERVICE_NAME,
    TELEMETRY_SDK_LANGUAGE,
};

pub(super) const BEGIN: u64 = 1_700_000_000_000_001;

fn context(trace: u128, span: u64) -> SpanContext {
    let (trace, span) = (TraceId::from(trace), SpanId::from(span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// Who made it.
pub(super) fn resource() -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new(SERVICE_NAME, "fetcher"),
            KeyValue::new(SERVICE_INSTANCE_ID, "7"),
            KeyValue::new(TELEMETRY_SDK_LANGUAGE, "rust"),
        ])
        .build()
}

/// A span with something of each kind.
pub(super) fn span() -> SpanData {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_micros(BEGIN);
    let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
    let half = begin + Duration::from_micros(10);
    events.events.push(Event::new("tried", half, Vec::new(), 0));
    for trace in [2, 3] {
        links.links.push(Link::with_context(context(trace, 7)));
    }
    SpanData {
        span_context: context(1, 5),
        parent_span_id: SpanId::from(4),
        parent_span_is_remote: true,
        span_kind: SpanKind::Client,
        name: "INSERT objects".into(),
        start_time: begin,
        end_time: begin + Duration::from_micros(20),
        attributes: vec![
            KeyValue::new(DB_SYSTEM_NAME, "postgresql"),
            KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, 3_i64),
        ],
        dropped_attributes_count: 0,
        events,
        links,
        status: Status::error("no connection"),
        instrumentation_scope: InstrumentationScope::builder("product")
            .with_version("1.2.3")
            .build(),
    }
}
