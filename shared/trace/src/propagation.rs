//! How the trace of a piece of work travels: as the text of W3C Trace Context, and in the headers of HTTP
//! also as Zipkin's B3.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use opentelemetry_zipkin::{B3Encoding, Propagator as B3};

use crate::recorder::{RECORDER, Recorder};
use crate::traces::TraceSet;

/// Header with trace, span and flags.
const TRACEPARENT: &str = "traceparent";
/// Header with what other systems say of the trace.
const TRACESTATE: &str = "tracestate";
/// Maximum length that is handed on, which W3C asks for. It is sent with each look-up, and servers
/// refuse requests whose headers are too large.
const TRACESTATE_LIMIT: usize = 512;
/// Header of Zipkin's own format.
const B3_HEADER: &str = "b3";
/// What B3 adds to the flags: its sender left the decision to us.
const DEFERRED: TraceFlags = TraceFlags::new(0x02);
/// The same: its sender wants the trace to be recorded, whatever the ratio.
const DEBUG: TraceFlags = TraceFlags::new(0x04);

static W3C: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);
static ZIPKIN: LazyLock<B3> = LazyLock::new(|| B3::with_encoding(B3Encoding::SingleHeader));

fn extracted(propagator: &dyn TextMapPropagator, carrier: &dyn Extractor) -> Option<SpanContext> {
    let context = propagator.extract_with_context(&opentelemetry::Context::new(), carrier);
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

/// The context of a sender with another decision whether to record.
fn with_decision(context: &SpanContext, is_sampled: bool) -> SpanContext {
    SpanContext::new(
        context.trace_id(),
        context.span_id(),
        TraceFlags::default().with_sampled(is_sampled),
        true,
        context.trace_state().clone(),
    )
}

/// B3's flags in those of W3C.
fn decided(context: &SpanContext, recorder: Option<&Recorder>) -> SpanContext {
    let flags = context.trace_flags();
    let is_sampled = match flags {
        _ if flags & DEBUG == DEBUG => true,
        _ if flags & DEFERRED == DEFERRED => {
            recorder.is_some_and(|recorder| recorder.samples(context.trace_id()))
        }
        _ => flags.is_sampled(),
    };
    with_decision(context, is_sampled)
}

/// What is believed of a sender: where senders are not trusted, they can have less recorded than the ratio
/// says, but not more.
fn trusted(context: SpanContext, recorder: Option<&Recorder>) -> Option<SpanContext> {
    let Some(recorder) = recorder.filter(|recorder| !recorder.trusts_senders) else {
        return Some(context);
    };
    if !context.is_sampled() {
        return Some(context);
    }
    // By an id that the sender did not choose.
    let is_sampled = recorder.samples(RandomIdGenerator::default().new_trace_id());
    // Without ids there is nothing to continue.
    context
        .is_valid()
        .then(|| with_decision(&context, is_sampled))
}

/// B3's decision whether to record, without ids.
fn decision(headers: &HeaderMap) -> Option<SpanContext> {
    let value = |name| headers.get(name)?.to_str().ok();
    let record = match (value(B3_HEADER), value("x-b3-sampled"), value("x-b3-flags")) {
        (Some("1" | "d"), _, _) | (None, _, Some("1")) | (None, Some("1" | "true"), _) => true,
        (Some("0"), _, _) | (None, Some("0" | "false"), _) => false,
        _ => return None,
    };
    Some(with_decision(&SpanContext::NONE, record))
}

/// A trace as W3C Trace Context writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace, span and flags.
    pub parent: String,
    /// What other systems say of the trace.
    pub state: Option<String>,
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(&self.parent),
            TRACESTATE => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

fn traceparent(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    let (trace, span) = (context.trace_id(), context.span_id());
    format!("00-{trace}-{span}-{flags:02x}")
}

fn tracestate(context: &SpanContext) -> Option<String> {
    let state = context.trace_state().header();
    (1..=TRACESTATE_LIMIT)
        .contains(&state.len())
        .then_some(state)
}

fn b3(context: &SpanContext) -> String {
    let sampled = u8::from(context.is_sampled());
    let (trace, span) = (context.trace_id(), context.span_id());
    format!("{trace}-{span}-{sampled}")
}

fn request_headers(context: &SpanContext) -> Vec<(HeaderName, HeaderValue)> {
    let headers = [
        (TRACEPARENT, Some(traceparent(context))),
        (TRACESTATE, tracestate(context)),
        (B3_HEADER, Some(b3(context))),
    ];
    // What other systems say may be unfit for a header. Then it is left out.
    let fit = headers.into_iter().filter_map(|(name, value)| {
        let value = HeaderValue::try_from(value?).ok()?;
        Some((HeaderName::from_static(name), value))
    });
    fit.collect()
}

impl TraceSet {
    /// The span that the sender of a request is in, if its headers name one. B3 can also say no more
    /// than whether to record: that is a context without ids.
    #[must_use]
    pub fn sender(headers: &HeaderMap) -> Option<SpanContext> {
        extracted(&*W3C, &HeaderExtractor(headers))
            .or_else(|| {
                let context = extracted(&*ZIPKIN, &HeaderExtractor(headers))?;
                Some(decided(&context, RECORDER.get()))
            })
            .or_else(|| decision(headers))
            .and_then(|context| trusted(context, RECORDER.get()))
    }

    /// Adds the headers of the first trace to a request, in both formats: the server continues the one
    /// that it knows.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let own = &self.0.request_headers;
        let own = own.get_or_init(|| self.each().next().map_or_else(Vec::new, request_headers));
        headers.extend(own.iter().cloned());
    }

    /// The first trace, as a line of text.
    #[must_use]
    pub fn to_traceparent(&self) -> Option<String> {
        self.each().next().map(traceparent)
    }

    /// The trace that such a line names; none where it names none.
    #[must_use]
    pub fn from_traceparent(parent: Option<String>) -> Self {
        Self::from_contexts(parent.map(|parent| TraceContext {
            parent,
            state: None,
        }))
    }

    /// Each of the traces, as text.
    pub fn contexts(&self) -> impl Iterator<Item = TraceContext> {
        self.each().map(|context| TraceContext {
            parent: traceparent(context),
            state: tracestate(context),
        })
    }

    /// The traces that these texts name. Texts that cannot be read are left out.
    #[must_use]
    pub fn from_contexts(contexts: impl IntoIterator<Item = TraceContext>) -> Self {
        let read = |context: TraceContext| extracted(&*W3C, &context);
        contexts.into_iter().filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests;
