//! How many look-ups in flight the client service takes well, learned from its answers.
//!
//! Rounds are compared: a round lasts until about as many look-ups have ended as were in flight at its beginning.
//! Of each round two figures are known. The rate is what counts, answers a second. The latency is look-ups in flight
//! divided by rate (Little's law), so it takes no clock for each look-up, what times out makes it longer, and an
//! average over thousands of look-ups is steady, however different they are from each other.
//!
//! While the limit grows, it does so threefold, whenever the look-ups that began since the last time take no longer than
//! those before (`comparison`). That is known after a fraction of a look-up's time, so thousands are in flight after two of
//! these times. When they take longer, growth ends, and rounds decide. When the latency grows from round to round,
//! either there is a queue at the client service, and fewer look-ups in flight bring as many answers; or the client
//! service became slower by itself, and fewer look-ups only bring fewer answers. A trial with a lower limit tells.
//! A cut that costs no answers is kept and followed by another. One that costs answers is taken back, and if the
//! latency did not fall either, the longer one is the usual one from now on.
//!
//! What others do, and why it is not enough where a look-up takes seconds, and some take ten times as long as others:
//!
//! - Vector raises its limit by one in each round trip: thousands would take hours.
//! - Vegas (one of Netflix's limits) compares with the fastest answer ever seen: 0.3 s, where the average is 2.3 s
//!   without any queue, looks like a queue and holds the limit down.
//! - Envoy compares with the latency at 3 in flight, and goes down to 3 again and again to measure it. A measurement
//!   would take most of a minute, with hardly an answer.
//! - Gradient2 (Netflix) compares a short average with a long one, as is done here. It cannot tell a queue from a
//!   slower service: under a lasting queue its long average follows, and the limit with it.
//! - TCP's slow start, and one look-up more for each answer, double the limit in the time of a look-up. From 64 to 16,384
//!   that is 20 s where a look-up takes 2.3 s, and if too many are sent, the first sign of it comes too late.
//!
//! So it is Gradient2's comparison, with BBR's way to settle doubts (TCP): try, and look at the rate.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Lowering;

mod cohorts;
mod comparison;
mod growth;
mod holding;
mod round;
mod trial;

pub(super) use cohorts::Cohorts;
use growth::Growth;
pub(super) use round::Counted;
use round::{Measured, Round};
use trial::Trial;

/// The limit at the start, before anything is known.
pub(super) const START: usize = 64;

/// The limit after an outage: low enough to spare the client service, high enough to learn within a few answers
/// what it can take.
pub(super) const FLOOR: usize = 4;

/// Up to here latencies are all the same, in seconds: a queue as short as this delays nobody, and where answers come as
/// fast, each look-up costs less processor time the more of them are under way at once.
const SHORT: f64 = 0.015;

/// The number of look-ups whose latency is worth an opinion.
const FEW: u64 = 32;

/// Latency in terms of the usual one: up to here there is room for more look-ups.
const CALM: f64 = 1.2;

/// From here on it has to be tried whether fewer would do.
const LONG: f64 = 1.6;

/// The number of rounds without a change after a trial.
const REST: u32 = 4;

/// How long a limit that was too much is remembered.
const MEMORY: Duration = Duration::from_mins(1);

/// The limit and what is known for it. It sees only times at which look-ups wait for a place: else more in flight
/// would not bring more answers.
#[derive(Debug)]
pub(super) struct Level {
    limit: usize,
    max: usize,
    /// The longest latency that may become the usual one without having been seen at the beginning, in seconds. With
    /// a longer one, some look-ups would time out before anything is learned.
    max_usual: f64,
    /// In seconds.
    usual: Option<f64>,
    phase: Phase,
    round: Option<Round>,
    growth: Option<Growth>,
    /// The limit was changed: what was in flight before has to end before anything can be compared.
    is_settling: bool,
    /// Look-ups begin again after a pause: until as many are in flight as there may be, their latency is not known.
    is_filling: bool,
    /// A limit that was too much, and until when it is remembered.
    too_much: Option<(usize, Instant)>,
    /// How many answers there had been when the limit was halved last.
    answered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// By a factor, whenever the look-ups that began since are seen to take no longer.
    Growing,
    /// Growth made look-ups take longer, and was taken back. A trial shows whether it was too much before.
    Doubting,
    /// No growth by a factor. It has lasted for `rounds` rounds, of which each of the last `raises` raised the
    /// limit by a quarter.
    Holding {
        raises: u32,
        rounds: u32,
    },
    Trial(Trial),
}

const HOLDING: Phase = Phase::Holding {
    raises: 0,
    rounds: REST,
};
const AFTER_TRIAL: Phase = Phase::Holding {
    raises: 0,
    rounds: 0,
};

impl Level {
    /// Begins low. The limit will not be more than `max`; look-ups time out after `timeout`.
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self {
            limit: START.min(max),
            max,
            max_usual: 0.4 * timeout.as_secs_f64(),
            usual: None,
            phase: Phase::Growing,
            round: None,
            growth: None,
            is_settling: false,
            is_filling: false,
            too_much: None,
            answered: 0,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// To be called every few milliseconds while look-ups wait for a place. Returns why the limit was lowered, if it
    /// was.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        counted: Counted,
        cohorts: &Cohorts,
    ) -> Option<Lowering> {
        if self.phase == Phase::Growing && self.grow(now, counted.in_flight, cohorts) {
            return Some(Lowering::Latency);
        }
        let mut lowering = None;
        if let Some(mut round) = self.round.take() {
            round.see(now, counted.in_flight);
            let Some(measured) = round.measured(counted, self.phase != Phase::Growing) else {
                self.round = Some(round);
                return None;
            };
            // Growth has its own idea of what is long.
            self.is_filling &= self.phase != Phase::Growing && round.has_filled(counted.in_flight);
            if !std::mem::take(&mut self.is_settling) && !self.is_filling {
                lowering = self.judge(now, measured, counted);
            }
        }
        self.round = Some(Round::begin(self.limit, now, counted));
        lowering
    }

    /// To be called instead while growth goes on and no look-up waits: what was sent still tells whether it was too
    /// much. Returns whether the limit was lowered.
    pub(super) fn watch(&mut self, now: Instant, cohorts: &Cohorts) -> bool {
        const UNUSED: usize = 0;
        self.is_growing() && self.grow(now, UNUSED, cohorts)
    }

    /// Whether there is something to watch.
    pub(super) fn is_growing(&self) -> bool {
        self.phase == Phase::Growing && self.growth.is_some()
    }

    /// No look-up waits any more: the round says nothing, and a trial has nothing to show.
    pub(super) fn pause(&mut self) {
        if let Phase::Trial(trial) = self.phase {
            self.limit = trial.from;
            self.phase = HOLDING;
        }
        self.forget_round();
        self.is_filling = true;
    }

    /// The client service was asked too much: half of it is to be tried, and more soon, but not as much. If there was no
    /// answer since it was halved last, of `answered` in all, the client service is away, and would not have taken less.
    pub(super) fn halve(&mut self, now: Instant, answered: u64) {
        if answered > self.answered {
            self.too_much = Some((self.limit, now + MEMORY));
        }
        self.answered = answered;
        self.lower_to(FLOOR.max(self.limit / 2));
    }

    pub(super) fn lower_to_floor(&mut self) {
        self.lower_to(FLOOR);
    }

    /// What was not needed for long is slowly forgotten, down to twice of what was needed at most.
    pub(super) fn forget(&mut self, peak: usize) {
        let slowly = self.limit - self.limit / 128;
        self.limit = slowly.max(START.max(2 * peak)).min(self.limit);
    }

    fn lower_to(&mut self, limit: usize) {
        self.limit = limit.min(self.limit);
        self.phase = Phase::Growing;
        self.growth = None;
        self.forget_round();
    }

    fn forget_round(&mut self) {
        self.round = None;
        self.is_settling = false;
    }

    /// The maximum for now.
    fn top(&self, now: Instant) -> usize {
        let below = |limit| self.max.min(FLOOR.max(limit - limit / 10));
        self.remembered(now).map_or(self.max, below)
    }

    /// The limit that was too much, if that is not too long ago.
    fn remembered(&self, now: Instant) -> Option<usize> {
        let (limit, until) = self.too_much?;
        (now < until).then_some(limit)
    }

    /// Whether a higher limit could bring more answers. Connections are made one by one, so there may not yet be as
    /// many look-ups in flight as are allowed.
    fn is_used(&self, in_flight: usize) -> bool {
        in_flight >= self.limit / 4 * 3
    }

    fn judge(&mut self, now: Instant, measured: Measured, counted: Counted) -> Option<Lowering> {
        if measured.ended < FEW || measured.answered == 0 {
            return None;
        }
        if 2 * measured.timed_out > measured.ended {
            // What is answered late is not answered at all: no time for trials.
            self.halve(now, counted.answered);
            return Some(Lowering::Timeouts);
        }
        let before = self.limit;
        match self.phase {
            // The newest look-ups cannot have ended yet, so the latency is not known.
            Phase::Growing => {}
            Phase::Doubting => {
                let usual = self.learn(measured.latency);
                self.try_less(measured, usual);
            }
            Phase::Holding { raises, rounds } => {
                let top = self.top(now);
                self.hold(measured, counted.in_flight, top, raises, rounds);
            }
            Phase::Trial(trial) => {
                self.learn(measured.latency);
                self.conclude(trial, measured);
            }
        }
        (self.limit < before).then_some(Lowering::Latency)
    }

    /// Returns the usual latency before this one, or [`SHORT`] if that is longer, and remembers a shorter one. A little
    /// shorter may be chance.
    fn learn(&mut self, latency: f64) -> f64 {
        let usual = *self.usual.get_or_insert(latency);
        if latency < 0.7 * usual {
            self.usual = Some(latency);
        } else if latency < usual {
            self.usual = Some(usual + (latency - usual) / 4.0);
        }
        usual.max(SHORT)
    }

    fn change_to(&mut self, limit: usize) {
        self.limit = limit;
        self.is_settling = true;
    }
}

#[cfg(test)]
mod tests;
