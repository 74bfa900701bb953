//! What happens on a connection: whether it waits for its client or is busy with requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::displacement::{DisplacementQueue, Place};

/// What happens on a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Connections that wait for their clients.
    waiting: Arc<DisplacementQueue>,
    /// Connections on which several bodies are on their way.
    uploading: Arc<DisplacementQueue>,
    /// Notified by the queue `waiting`.
    displaced_for_connection: Arc<Notify>,
    /// Notified by the queue `uploading`.
    displaced_for_body: Arc<Notify>,
    state: Mutex<State>,
    has_unread_body: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// A part of a head has come, and not the rest.
    in_head: bool,
    /// Requests whose bodies are on their way.
    bodies: usize,
    /// The place in `uploading`.
    upload: Option<Place>,
    /// When the connection was opened, or its last request ended.
    idle_since: Instant,
}

#[derive(Debug)]
enum Phase {
    /// No whole request is here. The connection has a place in `waiting`.
    Waiting { _place: Place },
    /// This many whole requests are being answered.
    Busy { requests: usize },
}

impl State {
    fn is_idle(&self) -> bool {
        !self.in_head && self.bodies == 0 && matches!(self.phase, Phase::Waiting { .. })
    }

    fn idle_time(&self) -> Duration {
        if self.is_idle() {
            self.idle_since.elapsed()
        } else {
            Duration::ZERO
        }
    }
}

impl Activity {
    /// The activity of a connection that has just been accepted.
    pub(crate) fn new(
        waiting: Arc<DisplacementQueue>,
        uploading: Arc<DisplacementQueue>,
    ) -> Arc<Self> {
        let displaced_for_connection = Arc::new(Notify::new());
        let state = State {
            phase: Phase::Waiting {
                _place: waiting.enter(Arc::clone(&displaced_for_connection)),
            },
            in_head: false,
            bodies: 0,
            upload: None,
            idle_since: Instant::now(),
        };
        Arc::new(Self {
            waiting,
            uploading,
            displaced_for_connection,
            displaced_for_body: Arc::default(),
            state: Mutex::new(state),
            has_unread_body: AtomicBool::new(false),
        })
    }

    /// Returns when the connection is to make room: for another connection, unless a request came at
    /// the last moment, or for a body on another connection.
    pub(crate) async fn displaced(&self) {
        loop {
            tokio::select! {
                () = self.displaced_for_body.notified() => return,
                () = self.displaced_for_connection.notified() => {}
            }
            if matches!(self.state.lock().phase, Phase::Waiting { .. }) {
                return;
            }
        }
    }

    /// Returns when the connection has been idle for `period`.
    pub(crate) async fn idle_for(&self, period: Duration) {
        loop {
            let idle_time = self.state.lock().idle_time();
            if idle_time >= period {
                return;
            }
            tokio::time::sleep(period.saturating_sub(idle_time)).await;
        }
    }

    /// Notes bytes that belong to no body. Returns true if they begin a head.
    pub(crate) fn begin_head(&self) -> bool {
        let mut state = self.state.lock();
        let begins = state.is_idle();
        state.in_head |= begins;
        begins
    }

    /// Notes that the bytes belonged to no request.
    pub(crate) fn discard_head(&self) {
        self.state.lock().in_head = false;
    }

    /// Whether a part of a head has come, and not the rest.
    pub(crate) fn is_in_head(&self) -> bool {
        self.state.lock().in_head
    }

    /// Notes the head of a request whose body is to follow. Returns true if another body is on its
    /// way on this connection.
    pub(crate) fn begin_body(&self) -> bool {
        let mut state = self.state.lock();
        state.in_head = false;
        state.bodies += 1;
        if state.bodies == 2 {
            state.upload = Some(self.uploading.enter(Arc::clone(&self.displaced_for_body)));
        }
        state.bodies > 1
    }

    /// Notes that a body has arrived, or is not read any more.
    pub(crate) fn end_body(&self) {
        let mut state = self.state.lock();
        state.bodies -= 1;
        state.idle_since = Instant::now();
        if state.bodies <= 1 {
            state.upload = None;
        }
    }

    /// Notes that a whole request is here.
    pub(crate) fn request_arrived(&self) {
        let mut state = self.state.lock();
        state.in_head = false;
        let requests = match state.phase {
            Phase::Waiting { .. } => 1,
            Phase::Busy { requests } => requests + 1,
        };
        state.phase = Phase::Busy { requests };
    }

    /// Notes that a whole request has been answered.
    pub(crate) fn request_answered(&self) {
        let mut state = self.state.lock();
        state.idle_since = Instant::now();
        state.phase = match state.phase {
            Phase::Busy { requests } if requests > 1 => Phase::Busy {
                requests: requests - 1,
            },
            _ => Phase::Waiting {
                _place: self
                    .waiting
                    .enter(Arc::clone(&self.displaced_for_connection)),
            },
        };
    }

    /// Notes that the rest of a body will not be read.
    pub(crate) fn leave_body_unread(&self) {
        self.has_unread_body.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::displacement::GRACE;

    fn is_displaced(activity: &Activity) -> bool {
        use futures::FutureExt;
        activity.displaced().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_waited_longest_is_displaced_first() {
        let waiting = Arc::new(DisplacementQueue::default());
        let [first, second] = [(); 2].map(|()| Activity::new(Arc::clone(&waiting), Arc::default()));
        first.request_arrived();
        first.request_answered();
        tokio::time::advance(GRACE).await;
        assert!(waiting.displace_first());
        assert!(is_displaced(&second) && !is_displaced(&first));
        assert!(waiting.displace_first());
        assert!(is_displaced(&first));
        assert!(!waiting.displace_first());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_safe_at_first_and_after_each_request() {
        let waiting = Arc::new(DisplacementQueue::default());
        let activity = Activity::new(Arc::clone(&waiting), Arc::default());
        assert!(!waiting.displace_first());
        tokio::time::advance(GRACE).await;
        activity.request_arrived();
        activity.request_answered();
        assert!(!waiting.displace_first());
        tokio::time::advance(GRACE).await;
        assert!(waiting.displace_first());
        assert!(is_displaced(&activity));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_is_not_displaced() {
        let waiting = Arc::new(DisplacementQueue::default());
        let activity = Activity::new(Arc::clone(&waiting), Arc::default());
        activity.request_arrived();
        activity.request_arrived();
        activity.request_answered();
        tokio::time::advance(GRACE).await;
        assert!(!waiting.displace_first());
        activity.request_answered();
        tokio::time::advance(GRACE).await;
        assert!(waiting.displace_first());
        // The request came just before the end.
        activity.request_arrived();
        assert!(!is_displaced(&activity));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_connection_leaves_the_queue() {
        let waiting = Arc::new(DisplacementQueue::default());
        drop(Activity::new(Arc::clone(&waiting), Arc::default()));
        tokio::time::advance(GRACE).await;
        assert!(!waiting.displace_first());
    }
}
