//! The rounds that are compared: what is counted, and what it shows.

use std::time::Duration;

use tokio::time::Instant;

/// A round is never shorter, so that a stall of this process is not taken for one of the client service.
const MIN_ROUND: Duration = Duration::from_millis(100);

/// The number of look-ups in a round that may change the limit by more than growth, so that chance has little part in
/// it.
const MANY: u64 = 256;

/// How long a round waits for [`MANY`] look-ups to end. Then a quarter of them is enough.
const LONG_ROUND: Duration = Duration::from_secs(5);

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::breaker) struct Counted {
    pub(in crate::breaker) in_flight: usize,
    pub(in crate::breaker) answered: u64,
    /// With those that were answered.
    pub(in crate::breaker) ended: u64,
    pub(in crate::breaker) timed_out: u64,
}

/// A time in which about as many look-ups end as were in flight at its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    begun: Instant,
    pub(super) limit: usize,
    at_begin: Counted,
    seen: Instant,
    /// Look-ups in flight, summed over the time, in seconds.
    time_in_flight: f64,
}

/// What a round has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) ended: u64,
    pub(super) answered: u64,
    pub(super) timed_out: u64,
    /// Answers a second.
    pub(super) rate: f64,
    /// In seconds.
    pub(super) latency: f64,
}

impl Round {
    /// Begins with a limit that will not be lowered meanwhile.
    pub(super) fn begin(limit: usize, now: Instant, counted: Counted) -> Self {
        Self {
            begun: now,
            limit,
            at_begin: counted,
            seen: now,
            time_in_flight: 0.0,
        }
    }

    /// To be called every few milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    pub(super) fn see(&mut self, now: Instant, in_flight: usize) {
        let elapsed = now - self.seen;
        self.time_in_flight += in_flight as f64 * elapsed.as_secs_f64();
        self.seen = now;
    }

    /// What it has shown, if it is over: as many look-ups have ended as were in flight, and enough for a decision.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn measured(&self, counted: Counted, decides: bool) -> Option<Measured> {
        let lasted = self.seen - self.begun;
        let ended = counted.ended - self.at_begin.ended;
        let enough = if decides { self.enough(lasted) } else { 1 };
        if lasted < MIN_ROUND || ended < enough.max(self.in_flight()) {
            return None;
        }
        let answered = counted.answered - self.at_begin.answered;
        Some(Measured {
            ended,
            answered,
            timed_out: counted.timed_out - self.at_begin.timed_out,
            rate: answered as f64 / lasted.as_secs_f64(),
            latency: self.time_in_flight / answered.max(1) as f64,
        })
    }

    /// Whether more are in flight than at the beginning. The newest cannot have ended yet, so the latency comes out too
    /// long.
    pub(super) fn has_filled(&self, in_flight: usize) -> bool {
        in_flight > self.at_begin.in_flight / 4 * 5
    }

    fn enough(&self, lasted: Duration) -> u64 {
        let many = if lasted > LONG_ROUND { MANY / 4 } else { MANY };
        many.min(16 * self.limit as u64)
    }

    /// How many were in flight at the beginning. The last slots may not have been taken yet.
    fn in_flight(&self) -> u64 {
        let in_flight = self.at_begin.in_flight;
        let is_nearly_all = in_flight >= self.limit / 4 * 3;
        let least = if is_nearly_all { self.limit } else { 0 };
        in_flight.max(least) as u64
    }
}
