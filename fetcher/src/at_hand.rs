//! The ids that a fetcher has taken from a queue and not settled: those that wait for their look-up, are looked
//! up, or wait for their row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts ids at hand. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdsAtHand(Arc<AtomicUsize>);

/// Counts the ids of a chunk as at hand, until they are settled or this is dropped.
#[derive(Debug)]
pub(crate) struct AtHandGuard<'a> {
    all: &'a AtomicUsize,
    left: AtomicUsize,
}

impl IdsAtHand {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, ids: usize) -> AtHandGuard<'_> {
        self.0.fetch_add(ids, Ordering::Relaxed);
        AtHandGuard {
            all: &self.0,
            left: AtomicUsize::new(ids),
        }
    }
}

impl AtHandGuard<'_> {
    /// Takes settled ids off the count.
    pub(crate) fn settled(&self, ids: usize) {
        self.left.fetch_sub(ids, Ordering::Relaxed);
        self.all.fetch_sub(ids, Ordering::Relaxed);
    }
}

impl Drop for AtHandGuard<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.left.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_ids_are_no_longer_at_hand_and_the_others_are_until_they_are_given_up() {
        let at_hand = IdsAtHand::default();
        let (first, second) = (at_hand.take(50), at_hand.take(10));
        first.settled(20);
        assert_eq!(at_hand.count(), 40);
        drop(first);
        assert_eq!(at_hand.count(), 10);
        second.settled(10);
        drop(second);
        assert_eq!(at_hand.count(), 0);
    }
}
