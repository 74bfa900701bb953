//! The client at the other end of a connection: what it has sent, and whose turn it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::awaited::Awaited;

/// The client at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// Clients whose turn it is.
    awaited: Arc<Awaited>,
    /// Clients that are to send more than one body.
    crowded: Arc<Awaited>,
    dismissal: Arc<Notify>,
    eviction: Arc<Notify>,
    state: Mutex<State>,
    rest_unread: AtomicBool,
}

#[derive(Debug)]
struct State {
    turn: Turn,
    /// A part of a head is here, and no request.
    in_head: bool,
    /// Requests whose bodies are on their way.
    bodies: usize,
    /// Its place among the crowded.
    crowd: Option<u64>,
    /// When the connection was opened, or its last request ended.
    idle_since: Instant,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    /// The client's; the number is that of its place among the awaited.
    Client(u64),
    /// Ours: so many whole requests are at work.
    Server(usize),
}

impl State {
    fn is_idle(&self) -> bool {
        !self.in_head && self.bodies == 0 && matches!(self.turn, Turn::Client(_))
    }

    /// How long nothing of a request has been here.
    fn idle_time(&self) -> Duration {
        if self.is_idle() {
            self.idle_since.elapsed()
        } else {
            Duration::ZERO
        }
    }
}

impl Client {
    /// One that has just connected.
    pub(crate) fn new(awaited: Arc<Awaited>, crowded: Arc<Awaited>) -> Arc<Self> {
        let dismissal = Arc::new(Notify::new());
        let state = State {
            turn: Turn::Client(awaited.enter(Arc::clone(&dismissal))),
            in_head: false,
            bodies: 0,
            crowd: None,
            idle_since: Instant::now(),
        };
        Arc::new(Self {
            awaited,
            crowded,
            dismissal,
            eviction: Arc::default(),
            state: Mutex::new(state),
            rest_unread: AtomicBool::new(false),
        })
    }

    /// Returns when the place of the client is needed: for another connection, unless a request of
    /// it came at the last moment, or for the body of another's request.
    pub(crate) async fn dismissed(&self) {
        loop {
            tokio::select! {
                () = self.eviction.notified() => return,
                () = self.dismissal.notified() => {}
            }
            if matches!(self.state().turn, Turn::Client(_)) {
                return;
            }
        }
    }

    /// Returns when the connection has been idle for `period`.
    pub(crate) async fn idle_for(&self, period: Duration) {
        loop {
            let idle_time = self.state().idle_time();
            if idle_time >= period {
                return;
            }
            tokio::time::sleep(period.saturating_sub(idle_time)).await;
        }
    }

    /// Notes that bytes came which are not of a body; true if they begin a head.
    pub(crate) fn begins_head(&self) -> bool {
        let mut state = self.state();
        let begins = state.is_idle();
        state.in_head |= begins;
        begins
    }

    /// Notes that what came was no part of a request.
    pub(crate) fn ends_head(&self) {
        self.state().in_head = false;
    }

    /// Whether a part of a head is here, and no request.
    pub(crate) fn is_in_head(&self) -> bool {
        self.state().in_head
    }

    /// Notes that the head of a request is here, and a body is to follow; true if the body of
    /// another request of the client is awaited already.
    pub(crate) fn body_awaited(&self) -> bool {
        let mut state = self.state();
        state.in_head = false;
        state.bodies += 1;
        if state.bodies == 2 {
            state.crowd = Some(self.crowded.enter(Arc::clone(&self.eviction)));
        }
        state.bodies > 1
    }

    /// Notes that an awaited body is here, or awaited no longer.
    pub(crate) fn body_ended(&self) {
        let mut state = self.state();
        state.bodies -= 1;
        state.idle_since = Instant::now();
        if state.bodies <= 1
            && let Some(place) = state.crowd.take()
        {
            self.crowded.leave(place);
        }
    }

    /// Notes that a whole request is here.
    pub(crate) fn request_arrived(&self) {
        let mut state = self.state();
        state.in_head = false;
        state.turn = match state.turn {
            Turn::Client(number) => {
                self.awaited.leave(number);
                Turn::Server(1)
            }
            Turn::Server(requests) => Turn::Server(requests + 1),
        };
    }

    /// Notes that a request which had arrived has been answered.
    pub(crate) fn request_answered(&self) {
        let mut state = self.state();
        state.idle_since = Instant::now();
        state.turn = match state.turn {
            Turn::Server(requests) if requests > 1 => Turn::Server(requests - 1),
            _ => Turn::Client(self.awaited.enter(Arc::clone(&self.dismissal))),
        };
    }

    /// Notes that the rest of what the client sends will not be looked at.
    pub(crate) fn leave_rest_unread(&self) {
        self.rest_unread.store(true, Ordering::Relaxed);
    }

    /// Whether the rest of what the client sends will not be looked at.
    pub(crate) fn is_rest_unread(&self) -> bool {
        self.rest_unread.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let state = self.state();
        if let Turn::Client(number) = state.turn {
            self.awaited.leave(number);
        }
        if let Some(place) = state.crowd {
            self.crowded.leave(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::awaited::GRACE;

    fn is_dismissed(client: &Client) -> bool {
        use futures::FutureExt;
        client.dismissed().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_waited_for_longest_goes_first() {
        let awaited = Arc::new(Awaited::default());
        let [first, second] = [(); 2].map(|()| Client::new(Arc::clone(&awaited), Arc::default()));
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
        let client = Client::new(Arc::clone(&awaited), Arc::default());
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
        let client = Client::new(Arc::clone(&awaited), Arc::default());
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
        drop(Client::new(Arc::clone(&awaited), Arc::default()));
        tokio::time::advance(GRACE).await;
        assert!(!awaited.dismiss_longest());
    }
}
