//! Items that are due at a time, and come out in batches: the earliest first, and none before its time,
//! except those that are due too far ahead to be held.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

/// How large a batch may grow, and how long it may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A batch is full once it has this weight. Its last item may exceed it.
    pub(crate) weight: usize,
    /// How long the first item of a batch waits, after it is due, for others that are due soon after.
    pub(crate) linger: Duration,
    /// Maximum time that an item waits. An item that is due later comes out at once.
    pub(crate) horizon: Duration,
}

struct Entry<T> {
    weight: usize,
    item: T,
}

/// The items that are due soon. It has no clock: the caller says what time it is.
pub(crate) struct Schedule<T> {
    limits: Limits,
    /// By the time when they are due. The number keeps entries of the same time apart, and in order.
    entries: BTreeMap<(OffsetDateTime, u64), Entry<T>>,
    next_number: u64,
}

impl<T> Schedule<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub(crate) fn push(&mut self, due: OffsetDateTime, weight: usize, item: T) {
        self.entries
            .insert((due, self.next_number), Entry { weight, item });
        self.next_number += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops the items that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.entries.retain(|_, entry| keep(&entry.item));
    }

    /// How long until the next batch is due, that is, until its last item is. None if there is no
    /// item. Everything is due while the time is unknown.
    pub(crate) fn next_due(&self, now: Option<OffsetDateTime>) -> Option<Duration> {
        let (first, _) = self.entries.first_key_value()?.0;
        let (last, _) = self.entries.last_key_value()?.0;
        let Some(now) = now.filter(|now| !self.is_beyond(*last, *now)) else {
            return Some(Duration::ZERO);
        };
        let end = later(*first, self.limits.linger);
        let due = if end <= now { end } else { self.last_due(end) };
        // Negative if it is overdue.
        Some(Duration::try_from(due - now).unwrap_or_default())
    }

    /// When the last item of a batch is due, if the batch takes all that is due until `end`.
    fn last_due(&self, end: OffsetDateTime) -> OffsetDateTime {
        let mut weight = 0;
        let mut last = end;
        for ((due, _), entry) in &self.entries {
            if *due > end || weight >= self.limits.weight {
                break;
            }
            last = *due;
            weight += entry.weight;
        }
        last
    }

    /// Takes out the items that are due at `now`, the earliest first, and those beyond the horizon, until
    /// the batch is full.
    pub(crate) fn pop_due(&mut self, now: Option<OffsetDateTime>) -> Vec<T> {
        let mut weight = 0;
        let mut batch = Vec::new();
        while weight < self.limits.weight
            && let Some(entry) = self.pop(now)
        {
            weight += entry.weight;
            batch.push(entry.item);
        }
        batch
    }

    /// The first item if it is due, else the last one if it is beyond the horizon.
    fn pop(&mut self, now: Option<OffsetDateTime>) -> Option<Entry<T>> {
        let (first, _) = self.entries.first_key_value()?.0;
        let (last, _) = self.entries.last_key_value()?.0;
        let popped = match now {
            Some(now) if *first > now && self.is_beyond(*last, now) => self.entries.pop_last(),
            Some(now) if *first > now => None,
            _ => self.entries.pop_first(),
        };
        popped.map(|(_, entry)| entry)
    }

    fn is_beyond(&self, due: OffsetDateTime, now: OffsetDateTime) -> bool {
        due > later(now, self.limits.horizon)
    }
}

/// `time` plus `by`, or the end of the calendar if that is earlier.
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

    /// Items by their microseconds after noon, which are also their names, and their weights.
    fn schedule(items: &[(i64, usize)]) -> Schedule<i64> {
        let mut schedule = Schedule::new(LIMITS);
        for (micros, weight) in items {
            schedule.push(after(*micros), *weight, *micros);
        }
        schedule
    }

    fn waits(schedule: &Schedule<i64>, now: i64) -> Option<u128> {
        schedule
            .next_due(Some(after(now)))
            .map(|wait| wait.as_micros())
    }

    #[test]
    fn without_items_there_is_nothing_to_wait_for() {
        assert_eq!(schedule(&[]).next_due(Some(NOON)), None);
        assert_eq!(schedule(&[]).next_due(None), None);
    }

    #[test]
    fn a_single_item_waits_only_for_its_time() {
        let mut schedule = schedule(&[(5_000, 1), (7_001, 1)]);
        assert_eq!(waits(&schedule, 0), Some(5_000));
        assert_eq!(schedule.pop_due(Some(after(4_999))), [] as [i64; 0]);
        assert_eq!(schedule.pop_due(Some(after(5_000))), [5_000]);
        assert_eq!(waits(&schedule, 5_000), Some(2_001));
    }

    #[test]
    fn a_batch_waits_for_items_that_are_due_within_the_linger() {
        let mut schedule = schedule(&[(7_000, 1), (5_000, 1), (6_900, 1), (7_100, 1)]);
        assert_eq!(waits(&schedule, 0), Some(7_000));
        assert_eq!(waits(&schedule, 5_500), Some(1_500));
        assert_eq!(schedule.pop_due(Some(after(7_000))), [5_000, 6_900, 7_000]);
        assert_eq!(schedule.pop_due(Some(after(7_000))), [] as [i64; 0]);
    }

    #[test]
    fn a_full_batch_waits_for_no_more() {
        let mut schedule = schedule(&[(5_000, 4), (5_500, 7), (6_000, 1)]);
        assert_eq!(waits(&schedule, 0), Some(5_500));
        assert_eq!(schedule.pop_due(Some(after(9_000))), [5_000, 5_500]);
        assert_eq!(schedule.pop_due(Some(after(9_000))), [6_000]);
    }

    #[test]
    fn what_is_overdue_is_taken_at_once_and_in_its_order() {
        let mut schedule = schedule(&[(5_000, 1), (-60_000_000, 1), (2_500, 1)]);
        assert_eq!(waits(&schedule, 3_000), Some(0));
        assert_eq!(schedule.pop_due(Some(after(3_000))), [-60_000_000, 2_500]);
        assert_eq!(waits(&schedule, 3_000), Some(2_000));
    }

    #[test]
    fn everything_is_due_when_nobody_knows_the_time() {
        let mut schedule = schedule(&[(3_600_000_000, 6), (5_000, 6), (6_000, 6)]);
        assert_eq!(schedule.next_due(None), Some(Duration::ZERO));
        assert_eq!(schedule.pop_due(None), [5_000, 6_000]);
        assert_eq!(schedule.pop_due(None), [3_600_000_000]);
    }

    #[test]
    fn what_is_due_at_the_same_time_is_taken_in_the_order_it_came() {
        let mut schedule = Schedule::new(LIMITS);
        for n in 0..3 {
            schedule.push(NOON, 1, n);
        }
        assert_eq!(schedule.pop_due(Some(NOON)), [0, 1, 2]);
    }

    #[test]
    fn times_at_the_end_of_the_calendar_do_no_harm() {
        let mut schedule = Schedule::new(Limits {
            linger: Duration::MAX,
            ..LIMITS
        });
        schedule.push(datetime!(9999-12-31 23:59:59 UTC), 1, ());
        assert_eq!(schedule.next_due(Some(NOON)), Some(Duration::ZERO));
        schedule.push(datetime!(-9999-01-01 00:00 UTC), 1, ());
        assert!(schedule.next_due(Some(NOON)).is_some());
        assert_eq!(schedule.pop_due(Some(NOON)), [(), ()]);
    }

    #[test]
    fn what_is_due_beyond_the_horizon_is_given_out_at_once() {
        let mut schedule = schedule(&[(1_000_000, 1), (2_000_000, 1), (2_000_001, 1)]);
        assert_eq!(waits(&schedule, 0), Some(0));
        assert_eq!(schedule.pop_due(Some(NOON)), [2_000_001]);
        assert_eq!(waits(&schedule, 0), Some(1_000_000));
    }

    #[test]
    fn a_clock_that_is_set_back_puts_what_is_held_beyond_the_horizon() {
        let mut schedule = schedule(&[(5_000, 1), (7_100, 1)]);
        assert_eq!(waits(&schedule, 0), Some(5_000));
        assert_eq!(waits(&schedule, -3_600_000_000), Some(0));
        assert_eq!(
            schedule.pop_due(Some(after(-3_600_000_000))),
            [7_100, 5_000]
        );
    }
}
