//! How many messages a callback becomes.
//!
//! Where the broker has little to do, a callback becomes several small messages, so that several fetchers share
//! it. Under load there are other callbacks for the other fetchers, and the broker manages more ids a second in
//! fewer messages, so a callback becomes one message.
//!
//! What tells load is the number of messages that are not confirmed yet. It is their rate times the time until a
//! confirm, so it grows when more callbacks come as well as when the broker becomes slow. A broker that is far
//! away does not look loaded while few callbacks come.

use std::slice::Chunks;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ids in a message where the broker has nothing else to do, and more if the callback would become more than
/// [`ROOM`] messages.
const SMALL: usize = 50;

/// How many messages in flight keep the broker busy. A callback becomes as many as there is room for.
const ROOM: usize = 16;

/// Decides on the size of chunks. Clones share the count of messages in flight.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// Maximum number of ids in a chunk.
    max: usize,
    in_flight: Arc<AtomicUsize>,
}

/// Messages in flight, for as long as it lives.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    all: &'a AtomicUsize,
    messages: usize,
}

impl Spread {
    /// Chunks of at most `max` ids.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            in_flight: Arc::default(),
        }
    }

    /// Maximum number of ids in a chunk.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Splits a callback, and counts its messages as in flight.
    pub(crate) fn split<'a, T>(&self, ids: &'a [T]) -> (Chunks<'a, T>, InFlight<'_>) {
        let mut in_flight = self.in_flight.load(Ordering::Relaxed);
        loop {
            let chunks = ids.chunks(self.size(ids.len(), in_flight));
            let messages = chunks.len();
            let (count, order) = (&self.in_flight, Ordering::Relaxed);
            match count.compare_exchange(in_flight, in_flight + messages, order, order) {
                Ok(_) => return (chunks, self.counted(messages)),
                // Another callback came first.
                Err(now) => in_flight = now,
            }
        }
    }

    /// Counts one more message as in flight.
    pub(crate) fn one_more(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counted(1)
    }

    fn counted(&self, messages: usize) -> InFlight<'_> {
        let all = &self.in_flight;
        InFlight { all, messages }
    }

    /// The number of ids in each chunk of a callback of `ids` ids.
    fn size(&self, ids: usize, in_flight: usize) -> usize {
        let messages = ROOM.saturating_sub(in_flight).max(1);
        ids.div_ceil(messages).clamp(SMALL.min(self.max), self.max)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.messages, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Into how many messages callbacks of `ids` ids are split that come one after the other, before the
    /// first is confirmed.
    fn messages(ids: usize, callbacks: usize) -> Vec<usize> {
        let spread = Spread::new(500);
        let callback = vec![(); ids];
        let split: Vec<_> = (0..callbacks).map(|_| spread.split(&callback)).collect();
        split.iter().map(|(chunks, _)| chunks.len()).collect()
    }

    #[test]
    fn a_callback_that_comes_alone_is_spread_in_small_chunks() {
        for (ids, expected) in [(1, 1), (50, 1), (51, 2), (200, 4), (800, 16)] {
            assert_eq!(messages(ids, 1), [expected], "{ids} ids");
        }
    }

    #[test]
    fn a_large_callback_that_comes_alone_is_spread_in_larger_chunks() {
        assert_eq!(messages(2_000, 1), [16]);
        assert_eq!(messages(100_000, 1), [200]);
    }

    #[test]
    fn callbacks_that_come_together_become_one_message_each() {
        assert_eq!(messages(200, 7), [4, 4, 4, 4, 1, 1, 1]);
        assert_eq!(messages(1_000, 3), [16, 2, 2]);
    }

    #[test]
    fn callbacks_are_spread_again_when_the_broker_has_confirmed() {
        let spread = Spread::new(500);
        let in_flight: Vec<_> = (0..ROOM).map(|_| spread.one_more()).collect();
        assert_eq!(spread.split(&[(); 200]).0.len(), 1);
        drop(in_flight);
        assert_eq!(spread.split(&[(); 200]).0.len(), 4);
    }

    #[test]
    fn no_chunk_is_larger_than_the_setting_says() {
        for max in [1, 10, 49, 50, 500] {
            let spread = Spread::new(max);
            let (chunks, _in_flight) = spread.split(&[(); 10_000]);
            assert!(chunks.clone().all(|chunk| chunk.len() <= max));
            let (mut chunks, _in_flight) = spread.split(&[(); 10_000]);
            assert!(chunks.all(|chunk| chunk.len() <= max));
        }
    }
}
