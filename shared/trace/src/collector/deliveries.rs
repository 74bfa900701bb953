//! An account of the spans that were sent, and of those that were not.

use std::fmt;
use std::time::{Duration, Instant};

use metric_definitions::Counter;
use opentelemetry_sdk::error::OTelSdkResult;
use parking_lot::Mutex;

/// What is counted of the spans that the collector took.
pub const SPANS_EXPORTED: Counter = Counter::<()>::new(
    "trace_spans_exported_total",
    "Spans that the collector has taken.",
);

/// What is counted of the spans that it did not take.
pub const SPANS_DROPPED: Counter = Counter::<()>::new(
    "trace_spans_dropped_total",
    "Spans that the collector did not take, or that found no place among those that wait for it.",
);

/// Minimum time between two log lines about dropped spans.
const LOG_INTERVAL: Duration = Duration::from_mins(5);

/// Counts, and logs when the collector goes away and when it is back.
#[derive(Debug)]
pub(super) struct Deliveries {
    collector: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Spans that were dropped since the collector took some.
    dropped: usize,
    logged: Option<Instant>,
}

/// What to log about a delivery.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Nothing,
    Down { dropped: usize },
    Up { dropped: usize },
}

impl State {
    fn note(&mut self, count: usize, delivered: bool, now: Instant) -> News {
        if delivered {
            let dropped = std::mem::take(&mut self.dropped);
            return match self.logged.take() {
                Some(_) => News::Up { dropped },
                None => News::Nothing,
            };
        }
        self.dropped += count;
        let is_time = self
            .logged
            .is_none_or(|logged| now.duration_since(logged) >= LOG_INTERVAL);
        if !is_time {
            return News::Nothing;
        }
        self.logged = Some(now);
        News::Down {
            dropped: self.dropped,
        }
    }
}

impl Deliveries {
    /// Nothing is delivered yet to the collector at this address.
    pub(super) fn to(collector: String) -> Self {
        Self {
            collector,
            state: Mutex::default(),
        }
    }

    /// Notes what became of a batch.
    pub(super) fn note(&self, count: usize, result: &OTelSdkResult) {
        if result.is_ok() {
            SPANS_EXPORTED.increment(count as u64);
        } else {
            dropped(count);
        }
        let news = self
            .state
            .lock()
            .note(count, result.is_ok(), Instant::now());
        let collector = &self.collector;
        match (news, result) {
            (News::Down { dropped }, Err(error)) => {
                let error: &dyn fmt::Display = error;
                tracing::warn!(collector, dropped, %error, "the span collector takes no spans, which are dropped");
            }
            (News::Up { dropped }, _) => {
                tracing::info!(collector, dropped, "the span collector takes spans again");
            }
            _ => {}
        }
    }
}

/// Counts spans that will not be sent.
pub(super) fn dropped(count: usize) {
    SPANS_DROPPED.increment(count as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_is_logged_once_in_a_while_and_once_it_is_back() {
        let (mut state, start) = (State::default(), Instant::now());
        assert_eq!(state.note(9, true, start), News::Nothing);
        assert_eq!(state.note(5, false, start), News::Down { dropped: 5 });
        assert_eq!(state.note(5, false, start), News::Nothing);
        let later = start + LOG_INTERVAL;
        assert_eq!(state.note(5, false, later), News::Down { dropped: 15 });
        assert_eq!(state.note(9, true, later), News::Up { dropped: 15 });
        assert_eq!(state.note(9, true, later), News::Nothing);
    }
}
