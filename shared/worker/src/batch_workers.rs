//! Working off batches, a bounded number at once. While all slots are taken the next batch grows, so
//! that batches are as large as the load makes them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Tasks that each work off a batch.
pub struct BatchWorkers {
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// The right to work, until it is released or dropped.
pub struct Slot {
    slots: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl BatchWorkers {
    /// At most `concurrency` slots are taken at once.
    #[must_use]
    pub fn new(concurrency: NonZeroUsize) -> Self {
        let slots = concurrency.get().min(Semaphore::MAX_PERMITS);
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            tasks: JoinSet::new(),
        }
    }

    /// Waits for a slot. Take the batch afterwards: it grows meanwhile.
    pub async fn slot(&self) -> Slot {
        let mut slot = Slot {
            slots: Arc::clone(&self.slots),
            permit: None,
        };
        slot.acquire().await;
        slot
    }

    /// Starts the work on a batch.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(work);
    }

    /// Waits until all batches are worked off.
    pub async fn finish(mut self) {
        // Not `join_all`, which panics where one of them did, and ends the others with it.
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Slot {
    /// Leaves the slot to others for now.
    pub fn release(&mut self) {
        self.permit = None;
    }

    /// Waits for a slot after [`Self::release`].
    pub async fn acquire(&mut self) {
        // The semaphore is never closed.
        self.permit = Arc::clone(&self.slots).acquire_owned().await.ok();
    }
}
