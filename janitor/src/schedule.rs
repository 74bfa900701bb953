//! What is to be done at a time, and in batches: the earliest first, and nothing before its time.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

/// How large a batch may grow, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Weight from which on a batch is full; its last member may add to it.
    pub weight: usize,
    /// How long the first of a batch waits, when it is due, for others that soon are.
    pub linger: Duration,
    /// How far ahead something may be due to be held. What is due later is given out at once.
    pub horizon: Duration,
}

struct Held<T> {
    weight: usize,
    item: T,
}

/// Holds what is due soon. It has no clock: the caller says what time it is.
pub struct Schedule<T> {
    limits: Limits,
    /// By when it is due. The number keeps apart, and in order, what is due at once.
    held: BTreeMap<(OffsetDateTime, u64), Held<T>>,
    next_number: u64,
}

impl<T> Schedule<T> {
    /// Holds nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Holds `item` until it is `due`.
    pub fn hold(&mut self, due: OffsetDateTime, weight: usize, item: T) {
        self.held
            .insert((due, self.next_number), Held { weight, item });
        self.next_number += 1;
    }

    /// How many items it holds.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Drops the items that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.held.retain(|_, held| keep(&held.item));
    }

    /// How long after `now` the next batch is due: when the last is that belongs to it. None if
    /// nothing is held. When it is unknown what time it is, everything is due.
    #[must_use]
    pub fn wait(&self, now: Option<OffsetDateTime>) -> Option<Duration> {
        let (first, _) = self.held.first_key_value()?.0;
        let (last, _) = self.held.last_key_value()?.0;
        let Some(now) = now.filter(|now| !self.is_beyond(*last, *now)) else {
            return Some(Duration::ZERO);
        };
        let end = later(*first, self.limits.linger);
        let due = if end <= now { end } else { self.last(end) };
        // Negative where it is overdue.
        Some(Duration::try_from(due - now).unwrap_or_default())
    }

    /// When the last is due of a batch that takes what is due until `end`.
    fn last(&self, end: OffsetDateTime) -> OffsetDateTime {
        let mut weight = 0;
        let mut last = end;
        for ((due, _), held) in &self.held {
            if *due > end || weight >= self.limits.weight {
                break;
            }
            last = *due;
            weight += held.weight;
        }
        last
    }

    /// Gives out what is due at `now`, the earliest first, and what is not held, until the batch is
    /// full.
    pub fn take(&mut self, now: Option<OffsetDateTime>) -> Vec<T> {
        let mut weight = 0;
        let mut batch = Vec::new();
        while weight < self.limits.weight
            && let Some(held) = self.pop(now)
        {
            weight += held.weight;
            batch.push(held.item);
        }
        batch
    }

    /// The first item if it is due, else the last one if it is beyond the horizon.
    fn pop(&mut self, now: Option<OffsetDateTime>) -> Option<Held<T>> {
        let (first, _) = self.held.first_key_value()?.0;
        let (last, _) = self.held.last_key_value()?.0;
        let popped = match now {
            Some(now) if *first > now && self.is_beyond(*last, now) => self.held.pop_last(),
            Some(now) if *first > now => None,
            _ => self.held.pop_first(),
        };
        popped.map(|(_, held)| held)
    }

    fn is_beyond(&self, due: OffsetDateTime, now: OffsetDateTime) -> bool {
        due > later(now, self.limits.horizon)
    }
}

/// At the latest the end of the calendar.
fn later(time: OffsetDateTime, by: Duration) -> OffsetDateTime {
    time.saturating_add(by.try_into().unwrap_or(time::Duration::MAX))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const LIMITS: Limits = Limits {
        weight: 10,
        linger: Duration::from_millis(2),
        horizon: Duration::from_secs(2),
    };

    fn after(micros: i64) -> OffsetDateTime {
        NOON + time::Duration::microseconds(micros)
    }

    /// Each is due so many microseconds after noon, which is also its name, and weighs so much.
    fn schedule(items: &[(i64, usize)]) -> Schedule<i64> {
        let mut schedule = Schedule::new(LIMITS);
        for (micros, weight) in items {
            schedule.hold(after(*micros), *weight, *micros);
        }
        schedule
    }

    fn waits(schedule: &Schedule<i64>, now: i64) -> Option<u128> {
        schedule.wait(Some(after(now))).map(|wait| wait.as_micros())
    }

    #[test]
    fn nothing_is_waited_for_where_nothing_is_held() {
        assert_eq!(schedule(&[]).wait(Some(NOON)), None);
        assert_eq!(schedule(&[]).wait(None), None);
    }

    #[test]
    fn one_that_is_alone_waits_for_nothing_but_its_time() {
        let mut schedule = schedule(&[(5_000, 1), (7_001, 1)]);
        assert_eq!(waits(&schedule, 0), Some(5_000));
        assert_eq!(schedule.take(Some(after(4_999))), [] as [i64; 0]);
        assert_eq!(schedule.take(Some(after(5_000))), [5_000]);
        assert_eq!(waits(&schedule, 5_000), Some(2_001));
    }

    #[test]
    fn a_batch_is_due_when_the_last_is_that_the_first_may_wait_for() {
        let mut schedule = schedule(&[(7_000, 1), (5_000, 1), (6_900, 1), (7_100, 1)]);
        assert_eq!(waits(&schedule, 0), Some(7_000));
        assert_eq!(waits(&schedule, 5_500), Some(1_500));
        assert_eq!(schedule.take(Some(after(7_000))), [5_000, 6_900, 7_000]);
        assert_eq!(schedule.take(Some(after(7_000))), [] as [i64; 0]);
    }

    #[test]
    fn a_full_batch_waits_for_no_more() {
        let mut schedule = schedule(&[(5_000, 4), (5_500, 7), (6_000, 1)]);
        assert_eq!(waits(&schedule, 0), Some(5_500));
        assert_eq!(schedule.take(Some(after(9_000))), [5_000, 5_500]);
        assert_eq!(schedule.take(Some(after(9_000))), [6_000]);
    }

    #[test]
    fn what_is_overdue_is_taken_at_once_and_in_its_order() {
        let mut schedule = schedule(&[(5_000, 1), (-60_000_000, 1), (2_500, 1)]);
        assert_eq!(waits(&schedule, 3_000), Some(0));
        assert_eq!(schedule.take(Some(after(3_000))), [-60_000_000, 2_500]);
        assert_eq!(waits(&schedule, 3_000), Some(2_000));
    }

    #[test]
    fn everything_is_due_when_nobody_knows_the_time() {
        let mut schedule = schedule(&[(3_600_000_000, 6), (5_000, 6), (6_000, 6)]);
        assert_eq!(schedule.wait(None), Some(Duration::ZERO));
        assert_eq!(schedule.take(None), [5_000, 6_000]);
        assert_eq!(schedule.take(None), [3_600_000_000]);
    }

    #[test]
    fn what_is_due_at_the_same_time_is_taken_in_the_order_it_came() {
        let mut schedule = Schedule::new(LIMITS);
        for n in 0..3 {
            schedule.hold(NOON, 1, n);
        }
        assert_eq!(schedule.take(Some(NOON)), [0, 1, 2]);
    }

    #[test]
    fn times_at_the_end_of_the_calendar_do_no_harm() {
        let mut schedule = Schedule::new(Limits {
            linger: Duration::MAX,
            ..LIMITS
        });
        schedule.hold(datetime!(9999-12-31 23:59:59 UTC), 1, ());
        assert_eq!(schedule.wait(Some(NOON)), Some(Duration::ZERO));
        schedule.hold(datetime!(-9999-01-01 00:00 UTC), 1, ());
        assert!(schedule.wait(Some(NOON)).is_some());
        assert_eq!(schedule.take(Some(NOON)), [(), ()]);
    }

    #[test]
    fn what_is_due_beyond_the_horizon_is_given_out_at_once() {
        let mut schedule = schedule(&[(1_000_000, 1), (2_000_000, 1), (2_000_001, 1)]);
        assert_eq!(waits(&schedule, 0), Some(0));
        assert_eq!(schedule.take(Some(NOON)), [2_000_001]);
        assert_eq!(waits(&schedule, 0), Some(1_000_000));
    }

    #[test]
    fn a_clock_that_is_set_back_puts_what_is_held_beyond_the_horizon() {
        let mut schedule = schedule(&[(5_000, 1), (7_100, 1)]);
        assert_eq!(waits(&schedule, 0), Some(5_000));
        assert_eq!(waits(&schedule, -3_600_000_000), Some(0));
        assert_eq!(schedule.take(Some(after(-3_600_000_000))), [7_100, 5_000]);
    }
}
