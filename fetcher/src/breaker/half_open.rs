//! When the breaker is open and wants a probe, and what it does in a long outage.

use messages::ObjectId;
use tokio::time::{Instant, sleep_until};

use crate::breaker::Breaker;
use crate::breaker::candidates::CandidatePool;
use crate::breaker::state::{Moment, Passage, State};

impl Breaker {
    /// Waits until a probe is wanted, which is not before `earliest`. Returns its id, and when it starts.
    pub(super) async fn next_probe(&self, earliest: Instant) -> (ObjectId, Moment) {
        let wants_probe = |state: &State| state.is_open() || state.is_in_doubt();
        loop {
            self.until(wants_probe).await;
            let resting = self.state.borrow().resting();
            sleep_until(resting.unwrap_or(earliest).max(earliest)).await;
            let started = self.update_quietly(|state| {
                // Meanwhile evidence may have come, or the wish for more rest.
                (wants_probe(state) && state.resting().is_none()).then(|| state.start())
            });
            if let Some(started) = started {
                return (self.candidates(CandidatePool::pick), started);
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.borrow().is_open()
    }

    /// Waits until no look-ups are sent.
    pub(super) async fn until_not_free(&self) {
        self.until(|state| state.passage() != Passage::Free).await;
    }

    /// A rest that has lasted for too long is an outage: a probe has to show that it is over.
    pub(super) fn rest_is_outage(&self) {
        self.state.send_modify(|state| {
            let now = state.start();
            if !state.is_open() && state.probe_failed(now) {
                self.show_open(&"it asks to be left alone");
            }
        });
    }

    /// Whether the look-ups that wait, and those that come, are rejected.
    pub(super) fn set_rejecting(&self, is_rejecting: bool) {
        self.is_rejecting.send_replace(is_rejecting);
    }

    /// Counts on no more connections than were needed lately.
    pub(super) fn cool(&self) {
        self.limit.cool();
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        // The sender lives as long as the breaker.
        self.state
            .subscribe()
            .wait_for(|state| condition(state))
            .await
            .ok();
    }
}
