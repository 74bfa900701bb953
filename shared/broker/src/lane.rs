//! Lanes of publishing: each queue has one, of limited width, and a lane that stands still does not hold up
//! the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::brake::Brake;
use crate::publication::PublishError;
use crate::queue::Queue;

/// Maximum number of confirms in flight for `objects.fetch`, which callbacks go to.
pub(crate) const WINDOW: usize = 1_000;

/// The same for any other queue. The broker holds a connection back while 32 messages of it are on
/// their way to one quorum queue: with fewer, a queue without a leader does not hold up the others.
const NARROW: usize = 24;

#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<BTreeMap<Queue, Arc<Lane>>>);

impl Lanes {
    pub(crate) fn of(&self, queue: Queue) -> Arc<Lane> {
        let mut lanes = self.0.lock();
        let lane = lanes
            .entry(queue)
            .or_insert_with(|| Arc::new(Lane::of(queue)));
        Arc::clone(lane)
    }
}

/// The way to one queue.
#[derive(Debug)]
pub(crate) struct Lane {
    places: Arc<Semaphore>,
    /// On after the queue did not take a message.
    brake: Brake,
}

impl Lane {
    fn of(queue: Queue) -> Self {
        let width = if queue == Queue::Fetch {
            WINDOW
        } else {
            NARROW
        };
        Self {
            places: Arc::new(Semaphore::new(width)),
            brake: Brake::default(),
        }
    }

    /// Waits for a place. It is free again when the message is confirmed or its session ends.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Whether the queue took the last message. If not, one message a second is tried.
    pub(crate) fn is_worth_a_try(&self) -> bool {
        self.brake.lets_pass()
    }

    /// Notes whether the queue took a message. An alarm is no fault of the queue.
    pub(crate) fn note(&self, published: Result<(), PublishError>) {
        if published != Err(PublishError::Blocked) {
            self.brake.note(published.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::delay::Delay;
    use settings::Value;

    #[test]
    fn a_full_lane_holds_up_no_other() {
        let lanes = Lanes::default();
        let lane = |millis: &str| lanes.of(Queue::Retry(Delay::parse(millis).unwrap()));
        let taken: Vec<_> = (0..NARROW)
            .map(|_| lane("1s").place().now_or_never().unwrap())
            .collect();
        assert!(lane("1s").place().now_or_never().is_none());
        assert!(lane("2s").place().now_or_never().is_some());
        drop(taken);
        assert!(lane("1s").place().now_or_never().is_some());
    }

    #[test]
    fn a_queue_that_took_nothing_is_left_alone_until_it_takes_something() {
        let lane = Lane::of(Queue::Dead);
        lane.note(Err(PublishError::Blocked));
        assert!(lane.is_worth_a_try());
        lane.note(Err(PublishError::Refused));
        assert!(!lane.is_worth_a_try());
        lane.note(Ok(()));
        assert!(lane.is_worth_a_try());
    }
}
