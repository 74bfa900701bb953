//! What the process makes its spans with, and the span that a task works for.

use std::sync::OnceLock;

use opentelemetry::trace::{SpanContext, SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SdkTracer, ShouldSample};

/// What spans are made with. Not set where no spans are to be made.
pub(crate) static RECORDER: OnceLock<Recorder> = OnceLock::new();

pub(crate) struct Recorder {
    pub(crate) tracer: SdkTracer,
    /// Decides on traces that begin here.
    pub(crate) sampler: Sampler,
    /// Whether the sender of a request can have its trace recorded.
    pub(crate) trusts_senders: bool,
}

impl Recorder {
    pub(crate) fn samples(&self, trace_id: TraceId) -> bool {
        let kind = SpanKind::Internal;
        let sampler = &self.sampler;
        let result = sampler.should_sample(None, trace_id, "", &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

tokio::task_local! {
    /// The span that log lines are about.
    pub(crate) static CURRENT: SpanContext;
}

/// The span that the task works for, if it works for one.
#[must_use]
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(SpanContext::clone).ok()
}
