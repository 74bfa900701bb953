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
    places: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    displaced: Arc<Notify>,
}

impl DisplacementQueue {
    /// Displaces the connection that entered first. Returns false if none has been here for
    /// [`GRACE`].
    pub(crate) fn displace_first(&self) -> bool {
        let mut entries = self.entries.lock();
        let first = entries.places.first_entry();
        let ripe = first.filter(|first| first.get().since.elapsed() >= GRACE);
        let Some(place) = ripe.map(OccupiedEntry::remove) else {
            return false;
        };
        place.displaced.notify_one();
        true
    }

    /// Adds a connection, and returns its place.
    pub(crate) fn enter(&self, displaced: Arc<Notify>) -> u64 {
        let since = Instant::now();
        let mut entries = self.entries.lock();
        let place = entries.next;
        entries.next += 1;
        entries.places.insert(place, Place { since, displaced });
        place
    }

    pub(crate) fn leave(&self, place: u64) {
        self.entries.lock().places.remove(&place);
    }
}
