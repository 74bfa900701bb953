//! Clients that are waited for: they have sent no request, or part of one, or have been answered.
//! They cost little and may stay, until their place is needed for somebody who has more to say.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a client keeps its place in any case: its request may be on its way.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The clients of a server that are waited for, in the order since when.
#[derive(Debug, Default)]
pub(super) struct Awaited {
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
    pub(super) fn dismiss_longest(&self) -> bool {
        let mut queue = self.queue();
        let longest = queue.places.first_entry();
        let overdue = longest.filter(|longest| longest.get().since.elapsed() >= GRACE);
        let Some(place) = overdue.map(OccupiedEntry::remove) else {
            return false;
        };
        place.dismissal.notify_one();
        true
    }

    fn enter(&self, dismissal: Arc<Notify>) -> u64 {
        let since = Instant::now();
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        queue.places.insert(number, Place { since, dismissal });
        number
    }

    fn leave(&self, number: u64) {
        self.queue().places.remove(&number);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client at the other end of a connection.
#[derive(Debug)]
pub(super) struct Client {
    awaited: Arc<Awaited>,
    dismissal: Arc<Notify>,
    turn: Mutex<Turn>,
    spoken: AtomicBool,
    rest_unread: AtomicBool,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    /// The client's; the number is that of its place among the awaited.
    Client(u64),
    /// Ours: so many whole requests are at work.
    Server(usize),
}

impl Client {
    /// One that has just connected.
    pub(super) fn new(awaited: Arc<Awaited>) -> Arc<Self> {
        let dismissal = Arc::new(Notify::new());
        let turn = Turn::Client(awaited.enter(Arc::clone(&dismissal)));
        Arc::new(Self {
            awaited,
            dismissal,
            turn: Mutex::new(turn),
            spoken: AtomicBool::new(false),
            rest_unread: AtomicBool::new(false),
        })
    }

    /// Returns when the client has been dismissed, unless a request of it came at the last moment.
    pub(super) async fn dismissed(&self) {
        loop {
            self.dismissal.notified().await;
            if matches!(*self.turn(), Turn::Client(_)) {
                return;
            }
        }
    }

    /// Notes that a request of the client has begun to arrive.
    pub(super) fn speaks(&self) {
        self.spoken.store(true, Ordering::Relaxed);
    }

    /// Whether a request of the client has begun to arrive.
    pub(super) fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// Notes that a whole request is here.
    pub(super) fn request_arrived(&self) {
        let mut turn = self.turn();
        *turn = match *turn {
            Turn::Client(number) => {
                self.awaited.leave(number);
                Turn::Server(1)
            }
            Turn::Server(requests) => Turn::Server(requests + 1),
        };
    }

    /// Notes that a request which had arrived has been answered.
    pub(super) fn request_answered(&self) {
        let mut turn = self.turn();
        *turn = match *turn {
            Turn::Server(requests) if requests > 1 => Turn::Server(requests - 1),
            _ => Turn::Client(self.awaited.enter(Arc::clone(&self.dismissal))),
        };
    }

    /// Notes that the rest of what the client sends will not be looked at.
    pub(super) fn leave_rest_unread(&self) {
        self.rest_unread.store(true, Ordering::Relaxed);
    }

    /// Whether the rest of what the client sends will not be looked at.
    pub(super) fn is_rest_unread(&self) -> bool {
        self.rest_unread.load(Ordering::Relaxed)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Turn::Client(number) = *self.turn() {
            self.awaited.leave(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dismissed(client: &Client) -> bool {
        use futures::FutureExt;
        client.dismissed().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_waited_for_longest_goes_first() {
        let awaited = Arc::new(Awaited::default());
        let [first, second] = [(); 2].map(|()| Client::new(Arc::clone(&awaited)));
        first.request_arrived();
        first.request_answered();
        tokio::time::advance(GRACE).await;
        assert!(awaited.dismiss_longest());
        assert!(is_dismissed(&second) && !is_dismissed(&first));
        assert!(awaited.dismiss_longest());
        assert!(is_dismissed(&first));
        assert!(!awaited.dismiss_longest());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_some_time_for_each_request() {
        let awaited = Arc::new(Awaited::default());
        let client = Client::new(Arc::clone(&awaited));
        assert!(!awaited.dismiss_longest());
        tokio::time::advance(GRACE).await;
        client.request_arrived();
        client.request_answered();
        assert!(!awaited.dismiss_longest());
        tokio::time::advance(GRACE).await;
        assert!(awaited.dismiss_longest());
        assert!(is_dismissed(&client));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_a_request_at_work_stays() {
        let awaited = Arc::new(Awaited::default());
        let client = Client::new(Arc::clone(&awaited));
        client.request_arrived();
        client.request_arrived();
        client.request_answered();
        tokio::time::advance(GRACE).await;
        assert!(!awaited.dismiss_longest());
        client.request_answered();
        tokio::time::advance(GRACE).await;
        assert!(awaited.dismiss_longest());
        // Dismissed, but quicker.
        client.request_arrived();
        assert!(!is_dismissed(&client));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_not_waited_for() {
        let awaited = Arc::new(Awaited::default());
        drop(Client::new(Arc::clone(&awaited)));
        tokio::time::advance(GRACE).await;
        assert!(!awaited.dismiss_longest());
    }
}
