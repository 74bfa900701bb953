//! The traces of a piece of work, and its spans in them.
//!
//! [`Traces`] is where a piece of work belongs: the span of each trace that the work is a part of. It
//! is a value that travels with the work, through channels, tasks and messages. [`Spans`] is a piece
//! of work itself: a span in each of those traces, which end together when the value is dropped.
//!
//! [`Traces::begin`] makes the span of a request, at the edge of a process. [`Traces::start`] makes the
//! spans of a step, and [`Spans::traces`] is what the parts of that step belong to. [`Traces::gather`]
//! joins the traces of the messages in a batch, whose statement then has a span in each of them.
//!
//! A span of the crate `tracing` would not do: it has one parent, and a batch has up to
//! [`MOST_TRACES`].

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue};
use metric_definitions::Exemplar;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use crate::attribute::ERROR_TYPE;
use crate::recorder::{CURRENT, RECORDER};

/// Maximum number of traces that a batch is in. Further traces lack its spans, because a message has to
/// carry the context of each.
const MOST_TRACES: usize = 64;

/// The traces that a piece of work belongs to, each by the span that the work is a part of. Of the
/// traces that are not recorded at most one is kept, for log lines and for the servers that are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces(pub(crate) Arc<Contexts>);

#[derive(Debug, Default)]
pub(crate) struct Contexts {
    each: Vec<SpanContext>,
    /// The headers of a request that is a part of this work, once there is one: all look-ups of a
    /// chunk that is not recorded have the same.
    pub(crate) request_headers: OnceLock<Vec<(HeaderName, HeaderValue)>>,
}

impl PartialEq for Contexts {
    fn eq(&self, other: &Self) -> bool {
        self.each == other.each
    }
}

impl Eq for Contexts {}

impl FromIterator<SpanContext> for Traces {
    fn from_iter<I: IntoIterator<Item = SpanContext>>(contexts: I) -> Self {
        Self(Arc::new(Contexts {
            each: contexts.into_iter().collect(),
            request_headers: OnceLock::new(),
        }))
    }
}

impl Traces {
    /// The traces of a batch, each once: the batch has one span in each, however many of the trace's
    /// messages it has.
    pub fn gather<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut recorded = Vec::new();
        let mut seen = HashSet::new();
        let mut other = None;
        for context in parts.into_iter().flat_map(Traces::each) {
            if !context.is_sampled() {
                other.get_or_insert(context);
            } else if recorded.len() < MOST_TRACES && seen.insert(context.trace_id()) {
                recorded.push(context.clone());
            }
        }
        if recorded.is_empty() {
            recorded.extend(other.cloned());
        }
        recorded.into_iter().collect()
    }

    /// Begins a trace, or continues the one that the sender of a request is in. The span is described,
    /// by its name and attributes, only if it is recorded.
    #[must_use]
    pub fn begin(
        sender: Option<SpanContext>,
        kind: SpanKind,
        describe: impl FnOnce() -> (String, Vec<KeyValue>),
    ) -> Spans {
        let Some(recorder) = RECORDER.get() else {
            return Spans::none(sender.into_iter().filter(SpanContext::is_valid).collect());
        };
        let parent = sender.map_or_else(Context::new, remote);
        let builder = SpanBuilder::from_name("").with_kind(kind);
        let mut span = recorder.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            let (name, attributes) = describe();
            span.update_name(name);
            span.set_attributes(attributes);
        }
        Spans::new(vec![span])
    }

    /// Starts a span in each of the traces that are recorded. The first span is linked to the parents of
    /// the others, and the others to the first.
    pub fn start(&self, describe: impl FnOnce() -> SpanBuilder) -> Spans {
        let parents = || self.each().filter(|context| context.is_sampled());
        let Some(recorder) = RECORDER.get().filter(|_| parents().next().is_some()) else {
            return Spans::none(self.clone());
        };
        let builder = describe();
        let mut links = links(parents().skip(1));
        let mut spans: Vec<Span> = Vec::new();
        for parent in parents() {
            let own = builder.links.iter().flatten().cloned();
            let builder = builder.clone().with_links(own.chain(links).collect());
            let context = remote(parent.clone());
            spans.push(recorder.tracer.build_with_context(builder, &context));
            links = self::links(spans.first().map(Span::span_context));
        }
        Spans::new(spans)
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &SpanContext> {
        self.0.each.iter()
    }

    /// What leads from an observation of this work to its trace: to the first, of a batch. None if the
    /// process does not record it.
    #[must_use]
    pub fn exemplar(&self) -> Option<Exemplar> {
        RECORDER.get()?;
        let recorded = self.each().find(|context| context.is_sampled())?;
        Some(Exemplar {
            trace_id: u128::from_be_bytes(recorded.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(recorded.span_id().to_bytes()),
        })
    }

    /// Links to all of them.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        links(self.each())
    }

    /// Does work whose log lines name the first trace.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        match self.each().next() {
            Some(context) => CURRENT.scope(context.clone(), work).await,
            None => work.await,
        }
    }
}

fn links<'a>(contexts: impl IntoIterator<Item = &'a SpanContext>) -> Vec<Link> {
    let contexts = contexts.into_iter().cloned();
    contexts.map(Link::with_context).collect()
}

fn remote(context: SpanContext) -> Context {
    Context::new().with_remote_span_context(context)
}

/// The spans of one piece of work, one in each of its traces. They end when the value is dropped.
#[derive(Debug, Default)]
pub struct Spans {
    each: Vec<Span>,
    traces: Traces,
    /// Why they have failed if they end as it is now.
    unfinished: Option<(&'static str, String)>,
}

impl Spans {
    fn none(traces: Traces) -> Self {
        Self {
            each: Vec::new(),
            traces,
            unfinished: None,
        }
    }

    fn new(spans: Vec<Span>) -> Self {
        let traces = spans.iter().map(|span| span.span_context().clone());
        Self {
            traces: traces.collect(),
            each: spans,
            unfinished: None,
        }
    }

    /// The same traces, for what is a part of this work.
    #[must_use]
    pub fn traces(&self) -> Traces {
        self.traces.clone()
    }

    fn is_recording(&self) -> bool {
        self.each.iter().any(Span::is_recording)
    }

    /// Adds attributes.
    pub fn set(&mut self, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if self.is_recording() {
            let attributes = attributes();
            for span in &mut self.each {
                span.set_attributes(attributes.iter().cloned());
            }
        }
    }

    /// Marks the work as failed. `kind` is one of few: a status code, an SQL state, a kind of error.
    pub fn fail(&mut self, kind: &str, error: &dyn std::fmt::Display) {
        self.set(|| vec![KeyValue::new(ERROR_TYPE, kind.to_owned())]);
        if self.is_recording() {
            let status = Status::error(error.to_string());
            for span in &mut self.each {
                span.set_status(status.clone());
            }
        }
    }

    /// From now on the work counts as failed unless [`Self::done`] is called before it ends: it is tried
    /// again, and may be cut off.
    pub fn fails_unless_done(&mut self, kind: &'static str, error: &dyn std::fmt::Display) {
        if self.is_recording() {
            self.unfinished = Some((kind, error.to_string()));
        }
    }

    /// Ends the spans of work that has succeeded after all.
    pub fn done(mut self) {
        self.unfinished = None;
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        if let Some((kind, error)) = self.unfinished.take() {
            self.fail(kind, &error);
        }
        if std::thread::panicking() {
            self.fail("panic", &"a panic, which the log describes");
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn traces(trace: u128, span: u64, flags: TraceFlags) -> Traces {
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        let context = SpanContext::new(trace, span, flags, true, TraceState::default());
        Traces::from_iter([context])
    }

    #[test]
    fn a_batch_is_in_each_recorded_trace_once() {
        let sampled = TraceFlags::SAMPLED;
        let parts = [
            traces(1, 1, TraceFlags::default()),
            traces(2, 2, sampled),
            traces(2, 3, sampled),
            traces(3, 4, sampled),
        ];
        let gathered = Traces::gather(&parts);
        let spans: Vec<_> = gathered.each().map(SpanContext::span_id).collect();
        assert_eq!(spans, [SpanId::from(2), SpanId::from(4)]);
    }

    #[test]
    fn a_batch_of_which_nothing_is_recorded_keeps_one_trace() {
        let part = |trace| traces(trace, 1, TraceFlags::default());
        assert_eq!(Traces::gather(&[part(7), part(8)]), part(7));
        assert_eq!(Traces::gather([]), Traces::default());
    }

    #[test]
    fn a_batch_is_in_a_limited_number_of_traces() {
        let parts: Vec<_> = (1..=200)
            .map(|trace| traces(trace, 1, TraceFlags::SAMPLED))
            .collect();
        assert_eq!(Traces::gather(&parts).each().count(), MOST_TRACES);
    }

    #[tokio::test]
    async fn without_a_recorder_the_sender_s_trace_is_handed_on() {
        let sender = traces(5, 6, TraceFlags::SAMPLED);
        let begun = Traces::begin(sender.each().next().cloned(), SpanKind::Server, || {
            ("begun".to_owned(), Vec::new())
        });
        assert_eq!(begun.traces(), sender);
        let started = begun.traces().start(|| SpanBuilder::from_name("started"));
        assert_eq!(started.traces(), sender);
    }
}
