//! An account of the spans that were sent, and of those that were not.

use std::time::{Duration, Instant};

use metric_definitions::{Counter, Label as _, label};

label! {
    /// What takes spans to a collector, by its format.
    pub enum ExporterName: "exporter" {
        /// Zipkin's, version 2.
        Zipkin = "zipkin",
        /// OpenTelemetry's.
        Otlp = "otlp",
    }
}

/// What is counted of the spans that collectors took.
pub const SPANS_EXPORTED: Counter<ExporterName> = Counter::<ExporterName>::new(
    "callback_pipeline_trace_spans_exported_total",
    "Spans that the collector has taken.",
);

/// What is counted of the spans that they did not take.
pub const SPANS_DROPPED: Counter<ExporterName> = Counter::<ExporterName>::new(
    "callback_pipeline_trace_spans_dropped_total",
    "Spans that the collector did not take, or that found no place among those that wait for it.",
);

/// Minimum time between two log lines about dropped spans.
const LOG_INTERVAL: Duration = Duration::from_mins(5);

/// Counts, and logs when the collector goes away and when it is back.
#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) exporter: ExporterName,
    collector: String,
    state: State,
}

/// Spans that a collector did not take, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) spans: usize,
    pub(super) reason: String,
}

#[derive(Debug, Default)]
struct State {
    /// Spans that were dropped since the collector took all.
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
    fn note(&mut self, refused: usize, now: Instant) -> News {
        if refused == 0 {
            let dropped = std::mem::take(&mut self.dropped);
            return match self.logged.take() {
                Some(_) => News::Up { dropped },
                None => News::Nothing,
            };
        }
        self.dropped += refused;
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
    pub(super) fn new(exporter: ExporterName, collector: String) -> Self {
        Self {
            exporter,
            collector,
            state: State::default(),
        }
    }

    /// Notes what became of this number of spans.
    pub(super) fn note(&mut self, spans: usize, refusal: Option<Refusal>) {
        let Refusal {
            spans: refused,
            reason,
        } = refusal.unwrap_or_default();
        let refused = refused.min(spans);
        let taken = (spans - refused) as u64;
        SPANS_EXPORTED.of(&self.exporter).increment(taken);
        dropped(self.exporter, refused);
        let news = self.state.note(refused, Instant::now());
        let (exporter, collector) = (self.exporter.value(), &self.collector);
        match news {
            News::Down { dropped } => {
                tracing::warn!(
                    exporter,
                    collector,
                    dropped,
                    error = reason,
                    "spans are dropped because the collector does not take them"
                );
            }
            News::Up { dropped } => {
                tracing::info!(
                    exporter,
                    collector,
                    dropped,
                    "the span collector takes spans again"
                );
            }
            News::Nothing => {}
        }
    }
}

/// Counts spans that will not be sent.
pub(super) fn dropped(exporter: ExporterName, count: usize) {
    SPANS_DROPPED.of(&exporter).increment(count as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_is_logged_once_in_a_while_and_once_it_is_back() {
        let (mut state, start) = (State::default(), Instant::now());
        assert_eq!(state.note(0, start), News::Nothing);
        assert_eq!(state.note(5, start), News::Down { dropped: 5 });
        assert_eq!(state.note(5, start), News::Nothing);
        let later = start + LOG_INTERVAL;
        assert_eq!(state.note(5, later), News::Down { dropped: 15 });
        assert_eq!(state.note(0, later), News::Up { dropped: 15 });
        assert_eq!(state.note(0, later), News::Nothing);
    }
}
