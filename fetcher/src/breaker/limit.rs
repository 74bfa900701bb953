//! How many look-ups may be in flight: a limit that can be lowered and grows again.

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::FETCH_LIMIT;

/// What a client service in trouble is not asked to bear more than, and not less: enough to find
/// out within a few answers how much it bears.
pub const FEW: usize = 4;

/// How many connections at once no client service minds.
pub const MODEST: usize = 512;

/// Bounds look-ups in flight; who waits is served in order.
#[derive(Debug)]
pub struct Limit {
    slots: Semaphore,
    size: Mutex<Size>,
    most: usize,
}

/// `issued` slots exist, free or taken. More than `limit` while some were taken before it was
/// lowered: those are not given out again.
#[derive(Debug)]
struct Size {
    limit: usize,
    issued: usize,
    /// The largest number in flight after the last [`Limit::cool`].
    peak: usize,
}

/// The right to have one look-up in flight, for as long as it lives.
#[derive(Debug)]
pub struct Slot<'a> {
    limit: &'a Limit,
    permit: Option<SemaphorePermit<'a>>,
}

impl Limit {
    /// Never exceeds `most`, and begins with a modest number: there are no connections yet.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        let begin = most.min(MODEST);
        let size = Size {
            limit: begin,
            issued: begin,
            peak: 0,
        };
        size.show();
        Self {
            slots: Semaphore::new(begin),
            size: Mutex::new(size),
            most,
        }
    }

    /// Waits for a slot.
    pub async fn acquire(&self) -> Slot<'_> {
        Slot {
            limit: self,
            // The semaphore is never closed.
            permit: self.slots.acquire().await.ok(),
        }
    }

    /// One more, up to the most. With one for each answer it doubles in the time of a look-up.
    pub fn grow(&self) {
        let mut size = self.size();
        if size.limit == self.most {
            return;
        }
        size.limit += 1;
        size.show();
        if size.issued < size.limit {
            size.issued += 1;
            self.slots.add_permits(1);
        }
    }

    /// Down to a few.
    pub fn lower_to_few(&self) {
        self.lower(|_| FEW);
    }

    /// Down to half, but not to less than a few.
    pub fn halve(&self) {
        self.lower(|limit| FEW.max(limit / 2));
    }

    /// Down to what was needed lately, with room to double: for more than that there are no
    /// connections any more.
    pub fn cool(&self) {
        let peak = std::mem::take(&mut self.size().peak);
        self.lower(|_| MODEST.max(2 * peak));
    }

    fn lower(&self, to: impl FnOnce(usize) -> usize) {
        let mut size = self.size();
        size.limit = to(size.limit).min(size.limit);
        size.show();
        let excess = size.issued.saturating_sub(size.limit);
        size.issued -= self.slots.forget_permits(excess);
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock()
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
        let mut size = self.limit.size();
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
    fn it_grows_one_by_one_up_to_the_most() {
        let limit = Limit::new(6);
        limit.lower_to_few();
        assert_eq!(take_all(&limit).len(), FEW);
        for expected in [5, 6, 6] {
            limit.grow();
            assert_eq!(take_all(&limit).len(), expected);
        }
    }

    #[test]
    fn it_begins_with_a_modest_number_and_cools_down_to_what_is_needed() {
        let limit = Limit::new(10_000);
        assert_eq!(take_all(&limit).len(), MODEST);
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
        assert_eq!(take_all(&limit).len(), MODEST);
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
    fn it_is_lowered_to_no_less_than_a_few_and_never_raised_by_that() {
        let limit = Limit::new(10);
        for expected in [5, FEW, FEW] {
            limit.halve();
            assert_eq!(take_all(&limit).len(), expected);
        }
        let small = Limit::new(2);
        small.halve();
        small.lower_to_few();
        assert_eq!(take_all(&small).len(), 2);
    }
}
