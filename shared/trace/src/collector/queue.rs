//! The spans that wait for one collector. There is room for a fixed number of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How many spans may wait, those of an unanswered request among them. Further ones are dropped.
const ROOM: usize = 8_192;
/// Maximum number of spans in one request.
const BATCH: usize = 512;
/// How long spans wait for others to be sent with.
const LINGER: Duration = Duration::from_secs(1);

/// Spans in the order in which they ended. All queues share them.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// There is a whole batch, or no more will come.
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<SpanData>>,
    /// How many spans have been taken, and may still have to be sent.
    taken: usize,
    has_ended: bool,
}

impl Queue {
    /// Adds a span. `false` if there is no room, or the queue has ended.
    pub(super) fn push(&self, span: &Arc<SpanData>) -> bool {
        let mut state = self.state.lock();
        if state.has_ended || state.waiting.len() + state.taken >= ROOM {
            return false;
        }
        state.waiting.push_back(Arc::clone(span));
        if state.waiting.len() == BATCH {
            self.ready.notify_one();
        }
        true
    }

    /// Waits for the next batch, and takes it. `None` if the queue has ended and is empty.
    pub(super) async fn take(&self) -> Option<Vec<Arc<SpanData>>> {
        loop {
            if !self.is_ready() {
                // Either way there may be some by now.
                timeout(LINGER, self.ready.notified()).await.ok();
            }
            let mut state = self.state.lock();
            if !state.waiting.is_empty() {
                let count = state.waiting.len().min(BATCH);
                state.taken += count;
                return Some(state.waiting.drain(..count).collect());
            }
            if state.has_ended {
                return None;
            }
        }
    }

    fn is_ready(&self) -> bool {
        let state = self.state.lock();
        state.has_ended || state.waiting.len() >= BATCH
    }

    /// Frees the room of this number of spans that were taken.
    pub(super) fn forget(&self, count: usize) {
        self.state.lock().taken -= count;
    }

    /// Takes no more spans. Those that wait are due at once.
    pub(crate) fn end(&self) {
        self.state.lock().has_ended = true;
        self.ready.notify_one();
    }

    /// How many spans have not been sent.
    pub(crate) fn left(&self) -> usize {
        let state = self.state.lock();
        state.waiting.len() + state.taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::span;
    use super::*;

    fn with(count: usize) -> Queue {
        let (queue, span) = (Queue::default(), Arc::new(span()));
        for _ in 0..count {
            assert!(queue.push(&span));
        }
        queue
    }

    #[tokio::test]
    async fn there_is_room_for_a_number_of_spans_until_they_are_sent() {
        let (queue, span) = (with(ROOM), Arc::new(span()));
        assert!(!queue.push(&span));
        let batch = queue.take().await.unwrap();
        assert_eq!(batch.len(), BATCH);
        assert!(!queue.push(&span), "the batch has not been sent yet");
        queue.forget(1);
        assert!(queue.push(&span) && !queue.push(&span));
        assert_eq!(queue.left(), ROOM);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_batch_does_not_wait_and_a_smaller_one_waits_for_others() {
        let (queue, begin) = (with(BATCH + 1), tokio::time::Instant::now());
        assert_eq!(queue.take().await.unwrap().len(), BATCH);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        // What has told of the whole batch may still be there.
        let rest = queue.take().await.unwrap();
        assert_eq!(rest.len(), 1);
        assert!(timeout(2 * LINGER, queue.take()).await.is_err());
        assert!(queue.push(&Arc::new(span())));
        assert_eq!(queue.take().await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_at_the_end_is_due_at_once_and_nothing_comes_after_it() {
        let (queue, begin) = (with(BATCH + 1), tokio::time::Instant::now());
        queue.end();
        assert!(!queue.push(&Arc::new(span())));
        assert_eq!(queue.take().await.unwrap().len(), BATCH);
        assert_eq!(queue.take().await.unwrap().len(), 1);
        assert!(queue.take().await.is_none());
        assert_eq!((queue.left(), begin.elapsed()), (BATCH + 1, Duration::ZERO));
    }
}
