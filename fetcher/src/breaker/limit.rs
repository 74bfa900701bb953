//! How many look-ups may be in flight: a limit that can be lowered and grows again.

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::FETCH_LIMIT;

/// The limit after an outage: low enough to spare the client service, high enough to learn within a few answers
/// what it can take.
const FLOOR: usize = 4;

/// The limit at the start: the number of connections that every client service can be expected to take at once.
const START: usize = 512;

/// Bounds the look-ups in flight. Those that wait get a slot in the order in which they came.
#[derive(Debug)]
pub(super) struct Limit {
    slots: Semaphore,
    size: Mutex<Size>,
    max: usize,
}

/// `issued` slots exist, free or taken. They are more than `limit` while some were taken before it was
/// lowered; these are not given out again.
#[derive(Debug)]
struct Size {
    limit: usize,
    issued: usize,
    /// The largest number in flight after the last [`Limit::cool`].
    peak: usize,
}

/// The right to have one look-up in flight, for as long as it lives.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    limit: &'a Limit,
    permit: Option<SemaphorePermit<'a>>,
}

impl Limit {
    /// A limit that grows up to `max`. At the start there are no connections yet.
    pub(super) fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let begin = max.min(START);
        let size = Size {
            limit: begin,
            issued: begin,
            peak: 0,
        };
        size.show();
        Self {
            slots: Semaphore::new(begin),
            size: Mutex::new(size),
            max,
        }
    }

    pub(super) async fn acquire(&self) -> Slot<'_> {
        Slot {
            limit: self,
            // The semaphore is never closed.
            permit: self.slots.acquire().await.ok(),
        }
    }

    /// Adds one, up to the maximum. With one for each answer the limit doubles in the time of a look-up.
    pub(super) fn grow(&self) {
        let mut size = self.size.lock();
        if size.limit == self.max {
            return;
        }
        size.limit += 1;
        size.show();
        if size.issued < size.limit {
            size.issued += 1;
            self.slots.add_permits(1);
        }
    }

    pub(super) fn lower_to_floor(&self) {
        self.lower(|_| FLOOR);
    }

    /// Lowers it to half, but not below the floor.
    pub(super) fn halve(&self) {
        self.lower(|limit| FLOOR.max(limit / 2));
    }

    /// Lowers it to what was needed since the last call, with room to double. For more there are no
    /// connections any more.
    pub(super) fn cool(&self) {
        let peak = std::mem::take(&mut self.size.lock().peak);
        self.lower(|_| START.max(2 * peak));
    }

    fn lower(&self, to: impl FnOnce(usize) -> usize) {
        let mut size = self.size.lock();
        size.limit = to(size.limit).min(size.limit);
        size.show();
        let excess = size.issued.saturating_sub(size.limit);
        size.issued -= self.slots.forget_permits(excess);
    }
}

impl Size {
    #[expect(clippy::cast_precision_loss, reason = "a limit of 2^52 is not met")]
    fn show(&self) {
        FETCH_LIMIT.set(self.limit as f64);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut size = self.limit.size.lock();
        let in_flight = size
            .issued
            .saturating_sub(self.limit.slots.available_permits());
        size.peak = size.peak.max(in_flight);
        if size.issued > size.limit
            && let Some(permit) = self.permit.take()
        {
            size.issued -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Takes slots until there are no more.
    fn take_all(limit: &Limit) -> Vec<Slot<'_>> {
        std::iter::from_fn(|| limit.acquire().now_or_never()).collect()
    }

    #[test]
    fn it_grows_one_by_one_up_to_the_maximum() {
        let limit = Limit::new(6);
        limit.lower_to_floor();
        assert_eq!(take_all(&limit).len(), FLOOR);
        for expected in [5, 6, 6] {
            limit.grow();
            assert_eq!(take_all(&limit).len(), expected);
        }
    }

    #[test]
    fn it_starts_low_and_cools_down_to_what_is_needed() {
        let limit = Limit::new(10_000);
        assert_eq!(take_all(&limit).len(), START);
        (0..10_000).for_each(|_| limit.grow());
        assert_eq!(take_all(&limit).len(), 10_000);
        limit.cool();
        let in_use: Vec<_> = take_all(&limit).into_iter().take(1_000).collect();
        assert_eq!(in_use.len(), 1_000);
        limit.cool();
        drop(in_use);
        limit.cool();
        assert_eq!(take_all(&limit).len(), 2_000);
        limit.cool();
        limit.cool();
        assert_eq!(take_all(&limit).len(), START);
    }

    #[test]
    fn slots_that_were_taken_before_it_was_lowered_are_not_given_out_again() {
        let limit = Limit::new(20);
        let mut taken = take_all(&limit);
        limit.halve();
        taken.truncate(10);
        assert_eq!(take_all(&limit).len(), 0);
        limit.grow();
        assert_eq!(take_all(&limit).len(), 1);
        taken.truncate(8);
        assert_eq!(take_all(&limit).len(), 3);
    }

    #[test]
    fn it_is_never_lowered_below_the_floor_nor_raised_by_that() {
        let limit = Limit::new(10);
        for expected in [5, FLOOR, FLOOR] {
            limit.halve();
            assert_eq!(take_all(&limit).len(), expected);
        }
        let small = Limit::new(2);
        small.halve();
        small.lower_to_floor();
        assert_eq!(take_all(&small).len(), 2);
    }
}
