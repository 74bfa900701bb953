//! Clients that are waited for: they have sent no request, or part of one, or have been answered.
//! They cost little and may stay, until their place is needed for somebody who has more to say.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a client keeps its place in any case: its request may be on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The clients of a server that are waited for, in the order since when.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    places: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    dismissal: Arc<Notify>,
}

impl Awaited {
    /// Ends the connection whose client has been waited for longest; false if none has been waited
    /// for as long as any client may take.
    pub(crate) fn dismiss_longest(&self) -> bool {
        let mut queue = self.queue();
        let longest = queue.places.first_entry();
        let overdue = longest.filter(|longest| longest.get().since.elapsed() >= GRACE);
        let Some(place) = overdue.map(OccupiedEntry::remove) else {
            return false;
        };
        place.dismissal.notify_one();
        true
    }

    pub(crate) fn enter(&self, dismissal: Arc<Notify>) -> u64 {
        let since = Instant::now();
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        queue.places.insert(number, Place { since, dismissal });
        number
    }

    pub(crate) fn leave(&self, number: u64) {
        self.queue().places.remove(&number);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}
