//! Bounds the look-ups in flight, by slots. The limit is learned ([`Level`]), and slots are made one after the other
//! up to it: each look-up more than lately needs a new connection, and many servers refuse or drop thousands of new
//! connections at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::breaker::level::{Cohorts, Counted, Level, START};
use crate::metrics::{FETCH_LIMIT, FETCH_LIMIT_LOWERED, FETCHES_WAITING, Lowering};

/// Slots that are made at once, and with the next ones after a [`TICK`]: 3,200 connections a second. Measured with a
/// server on the same machine: 16,384 connections were made in 6 s so, and all were accepted.
const BURST: usize = 64;

/// How often slots are made, and answers looked at, while look-ups wait.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// How long an unused connection is assumed to be open. Some servers close idle connections this soon.
pub(super) const COOLING: Duration = Duration::from_secs(5);

/// Bounds the look-ups in flight. Those that wait get a slot in the order in which they came.
#[derive(Debug)]
pub(super) struct Limit {
    slots: Semaphore,
    issued: Mutex<Issued>,
    /// How many slots there are too many, as a look-up that ends sees it without a lock.
    excess: AtomicUsize,
    in_flight: AtomicUsize,
    cohorts: Cohorts,
    /// The largest number in flight after the last [`Limit::cool`].
    peak: AtomicUsize,
    waiting: AtomicUsize,
    is_waited_for: Notify,
    answered: AtomicU64,
    ended: AtomicU64,
    timed_out: AtomicU64,
}

/// `count` slots exist, free or taken. They are more than the limit while some were taken before it was lowered; these
/// are not given out again.
#[derive(Debug)]
struct Issued {
    count: usize,
    level: Level,
}

/// The right to have one look-up in flight, for as long as it lives.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    limit: &'a Limit,
    /// The span in which the look-up began.
    span: usize,
    permit: Option<SemaphorePermit<'a>>,
}

impl Limit {
    /// A limit of at most `max`, for look-ups that time out after `timeout`.
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        let level = Level::new(max.min(Semaphore::MAX_PERMITS), timeout);
        show(&level);
        Self {
            slots: Semaphore::new(level.limit()),
            issued: Mutex::new(Issued {
                count: level.limit(),
                level,
            }),
            excess: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            cohorts: Cohorts::new(Instant::now()),
            peak: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            is_waited_for: Notify::new(),
            answered: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.issued.lock().level.limit()
    }

    pub(super) async fn acquire(&self) -> Slot<'_> {
        let permit = if let Ok(free) = self.slots.try_acquire() {
            Some(free)
        } else {
            let _waits = Waits::at(self);
            // The semaphore is never closed.
            self.slots.acquire().await.ok()
        };
        let in_flight = self.in_flight.fetch_add(1, Relaxed) + 1;
        if in_flight > self.peak.load(Relaxed) {
            self.peak.fetch_max(in_flight, Relaxed);
        }
        Slot {
            limit: self,
            span: self.cohorts.begin(Instant::now()),
            permit,
        }
    }

    /// A look-up ended, with a failure or with an answer.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    /// A look-up that ended was answered.
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    /// A look-up ended without an answer in time.
    pub(super) fn timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }

    /// Returns when look-ups wait for slots.
    pub(super) async fn until_waited_for(&self) {
        while !self.is_waited_for() {
            self.is_waited_for.notified().await;
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// To be called every [`TICK`] while look-ups wait: learns, and makes some more slots if all are taken. Returns
    /// whether the limit was lowered.
    #[expect(clippy::cast_precision_loss, reason = "2^52 do not wait")]
    pub(super) fn observe(&self) -> bool {
        FETCHES_WAITING.set(self.waiting.load(Relaxed) as f64);
        let counted = Counted {
            in_flight: self.in_flight.load(Relaxed),
            answered: self.answered.load(Relaxed),
            ended: self.ended.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
        };
        let lowering = self.change(|level| level.observe(Instant::now(), counted, &self.cohorts));
        if let Some(lowering) = &lowering {
            FETCH_LIMIT_LOWERED.of(lowering).increment(1);
        }
        let mut issued = self.issued.lock();
        if counted.in_flight >= issued.count {
            let more = issued.level.limit().saturating_sub(issued.count).min(BURST);
            issued.count += more;
            self.slots.add_permits(more);
        }
        lowering.is_some()
    }

    /// No look-up waits any more.
    pub(super) fn pause(&self) {
        FETCHES_WAITING.set(0);
        self.change(Level::pause);
    }

    /// To be called every [`TICK`] when no look-up waits any more, for as long as it returns true.
    pub(super) fn watch(&self) -> bool {
        if self.in_flight.load(Relaxed) == 0 {
            return false;
        }
        if self.change(|level| level.watch(Instant::now(), &self.cohorts)) {
            FETCH_LIMIT_LOWERED.of(&Lowering::Latency).increment(1);
        }
        self.issued.lock().level.is_growing()
    }

    pub(super) fn lower_to_floor(&self) {
        FETCH_LIMIT_LOWERED.of(&Lowering::Outage).increment(1);
        self.change(Level::lower_to_floor);
    }

    /// Lowers it to half, but not below the floor.
    pub(super) fn halve(&self, because: Lowering) {
        FETCH_LIMIT_LOWERED.of(&because).increment(1);
        let answered = self.answered.load(Relaxed);
        self.change(|level| level.halve(Instant::now(), answered));
    }

    /// To be called every [`COOLING`]. For more look-ups than were in flight after the last call there may be no
    /// connections any more.
    pub(super) fn cool(&self) {
        let peak = self.peak.swap(self.in_flight.load(Relaxed), Relaxed);
        self.change(|level| level.forget(peak));
        let mut issued = self.issued.lock();
        let unused = issued.count.saturating_sub(peak.max(START));
        issued.count -= self.slots.forget_permits(unused);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Level) -> T) -> T {
        let mut issued = self.issued.lock();
        let before = issued.level.limit();
        let result = change(&mut issued.level);
        if issued.level.limit() != before {
            show(&issued.level);
        }
        let excess = issued.count.saturating_sub(issued.level.limit());
        let forgotten = self.slots.forget_permits(excess);
        issued.count -= forgotten;
        self.excess.store(excess - forgotten, Relaxed);
        result
    }
}

#[expect(clippy::cast_precision_loss, reason = "a limit of 2^52 is not met")]
fn show(level: &Level) {
    FETCH_LIMIT.set(level.limit() as f64);
}

/// A look-up that waits for a slot.
struct Waits<'a>(&'a Limit);

impl<'a> Waits<'a> {
    fn at(limit: &'a Limit) -> Self {
        if limit.waiting.fetch_add(1, Relaxed) == 0 {
            limit.is_waited_for.notify_one();
        }
        Self(limit)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let limit = self.limit;
        limit.in_flight.fetch_sub(1, Relaxed);
        limit.cohorts.end(self.span);
        if limit.excess.load(Relaxed) == 0 {
            return;
        }
        let mut issued = limit.issued.lock();
        if issued.count > issued.level.limit()
            && let Some(permit) = self.permit.take()
        {
            issued.count -= 1;
            permit.forget();
            let excess = issued.count - issued.level.limit();
            limit.excess.store(excess, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;
    use crate::breaker::level::FLOOR;

    /// More than a round without an answer lasts.
    const MAX_TICKS: u32 = 20;

    fn limit(max: usize) -> Limit {
        Limit::new(max, Duration::from_secs(5))
    }

    /// Takes slots until there are no more.
    fn take_all(limit: &Limit) -> Vec<Slot<'_>> {
        std::iter::from_fn(|| limit.acquire().now_or_never()).collect()
    }

    /// Answers all look-ups in flight, and starts as many as there may be then.
    async fn answer<'a>(limit: &'a Limit, slots: &mut Vec<Slot<'a>>) {
        limit.observe();
        for _ in slots.drain(..) {
            limit.ended();
            limit.answered();
        }
        slots.extend(take_all(limit));
        for _ in 0..=MAX_TICKS {
            advance(TICK).await;
            limit.observe();
            slots.extend(take_all(limit));
        }
    }

    /// Lets the limit grow to 1,000.
    async fn grow(limit: &Limit) {
        let mut slots = take_all(limit);
        while slots.len() < 1_000 {
            answer(limit, &mut slots).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_it_grows_with_the_answers() {
        let limit = limit(30);
        limit.lower_to_floor();
        let mut slots = take_all(&limit);
        let mut counts = vec![slots.len()];
        while slots.len() < 30 {
            answer(&limit, &mut slots).await;
            counts.push(slots.len());
        }
        assert_eq!(counts, [FLOOR, 3 * FLOOR, 3 * FLOOR, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_made_a_few_at_a_time_although_more_are_allowed() {
        let limit = limit(1_000);
        grow(&limit).await;
        // In two steps, because the first one looks back to the growth.
        limit.cool();
        limit.cool();
        let mut slots = take_all(&limit);
        assert_eq!(slots.len(), START);
        for expected in [BURST, BURST, BURST] {
            assert!(limit.acquire().now_or_never().is_none());
            limit.observe();
            let more = take_all(&limit);
            assert_eq!(more.len(), expected);
            slots.extend(more);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_in_use_need_not_be_made_again() {
        let limit = limit(1_000);
        grow(&limit).await;
        limit.cool();
        let mut in_use = take_all(&limit);
        in_use.truncate(300);
        limit.cool();
        drop(in_use);
        limit.cool();
        assert_eq!(take_all(&limit).len(), 300);
        limit.cool();
        limit.cool();
        assert_eq!(take_all(&limit).len(), START);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_that_were_taken_before_it_was_lowered_are_not_given_out_again() {
        let limit = limit(20);
        let mut taken = take_all(&limit);
        limit.halve(Lowering::Throttled);
        taken.truncate(10);
        assert_eq!(take_all(&limit).len(), 0);
        taken.truncate(8);
        assert_eq!(take_all(&limit).len(), 2);
    }

    #[test]
    fn it_is_never_lowered_below_the_floor_nor_raised_by_that() {
        let limit = limit(10);
        for expected in [5, FLOOR, FLOOR] {
            limit.halve(Lowering::Throttled);
            assert_eq!(take_all(&limit).len(), expected);
        }
        let small = self::limit(2);
        small.halve(Lowering::Throttled);
        small.lower_to_floor();
        assert_eq!(take_all(&small).len(), 2);
    }
}
