//! Look-ups by when they began.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Look-ups that begin within this time are a cohort.
const SPAN: Duration = Duration::from_millis(20);

/// How many cohorts are kept: what becomes of look-ups after 5 s is not known.
pub(super) const KEPT: usize = 256;

/// Counts look-ups by the span in which they began.
#[derive(Debug)]
pub(in crate::breaker) struct Cohorts {
    since: Instant,
    ring: Box<[Cohort]>,
}

/// The look-ups that began in the same span.
#[derive(Debug, Default)]
struct Cohort {
    /// The number of the span, or 0 if there was none yet.
    span: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// A cohort as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) span: usize,
    pub(super) begun: usize,
    pub(super) ended: usize,
}

impl Cohorts {
    /// Without look-ups.
    pub(in crate::breaker) fn new(now: Instant) -> Self {
        Self {
            since: now,
            ring: std::iter::repeat_with(Cohort::default).take(KEPT).collect(),
        }
    }

    /// A look-up begins. Returns the number of its span.
    pub(in crate::breaker) fn begin(&self, now: Instant) -> usize {
        let span = self.span(now);
        let cohort = &self.ring[span % KEPT];
        if cohort.span.load(Relaxed) != span && cohort.span.swap(span, Relaxed) != span {
            cohort.begun.store(0, Relaxed);
            cohort.ended.store(0, Relaxed);
        }
        cohort.begun.fetch_add(1, Relaxed);
        span
    }

    /// A look-up ends that began in this span.
    pub(in crate::breaker) fn end(&self, span: usize) {
        let cohort = &self.ring[span % KEPT];
        if cohort.span.load(Relaxed) == span {
            cohort.ended.fetch_add(1, Relaxed);
        }
    }

    /// The number of the span that it is now. The first one is 1.
    pub(super) fn span(&self, now: Instant) -> usize {
        let spans = (now - self.since).as_millis() / SPAN.as_millis();
        usize::try_from(spans).unwrap_or_default() + 1
    }

    /// All cohorts, each always at the same place.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = Snapshot> {
        self.ring.iter().map(|cohort| Snapshot {
            span: cohort.span.load(Relaxed),
            begun: cohort.begun.load(Relaxed),
            ended: cohort.ended.load(Relaxed),
        })
    }
}
