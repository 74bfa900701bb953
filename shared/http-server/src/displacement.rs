//! Which connection is closed to make room for another one.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a connection in the queue is safe: a request may be on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Connections that may be displaced, in the order in which they entered.
#[derive(Debug, Default)]
pub(crate) struct DisplacementQueue {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// By the number of their place.
    waiting: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    displaced: Arc<Notify>,
}

/// The place of a connection in the queue, which the connection leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<DisplacementQueue>,
    number: u64,
}

impl DisplacementQueue {
    /// Displaces the connection that entered first. Returns false if none has been here for
    /// [`GRACE`].
    pub(crate) fn displace_first(&self) -> bool {
        let mut entries = self.entries.lock();
        let first = entries.waiting.first_entry();
        let ripe = first.filter(|first| first.get().since.elapsed() >= GRACE);
        let Some(entry) = ripe.map(OccupiedEntry::remove) else {
            return false;
        };
        entry.displaced.notify_one();
        true
    }

    /// Adds a connection.
    pub(crate) fn enter(self: &Arc<Self>, displaced: Arc<Notify>) -> Place {
        let since = Instant::now();
        let mut entries = self.entries.lock();
        let number = entries.next;
        entries.next += 1;
        entries.waiting.insert(number, Entry { since, displaced });
        Place {
            queue: Arc::clone(self),
            number,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.entries.lock().waiting.remove(&self.number);
    }
}
