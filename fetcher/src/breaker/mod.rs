//! The breaker: tells failures of the client service from failures of single ids, and sends no
//! look-ups while the client service is down.
//!
//! ```text
//!            a look-up fails               the probe fails
//!   closed ──────────────────▶ in doubt ────────────────────▶ open ◀──────────┐
//!     ▲                           │                            │              │
//!     │  a look-up or the probe   │           PROBE_INTERVAL   │              │ the probe
//!     │  is answered, or the      │           is over          ▼              │ fails
//!     │  answer is unclear        │                        half-open ─────────┘
//!     ├───────────────────────────┘                            │
//!     └────────────────────────────────────────────────────────┘
//!                        the probe is answered, or the answer is unclear
//! ```
//!
//! Look-ups are sent while the breaker is closed, or in doubt: then they go on besides the probe. While it
//! is open none is sent, and half-open it sends one probe.
//!
//! The question that each failed look-up raises, "is it the id, or the service?", is answered by
//! evidence that is newer than the failure: a look-up that was started later and was answered, or a
//! probe that was started later and was not. "Gone" and "refused" are failures like others here,
//! because a gateway may say so of everything: as the answer to a probe they can be unclear.

use std::time::Duration;

use broker::Hold;
use lifecycle::Dependency;
use messages::ObjectId;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until};

use crate::answer::Failure;
use crate::metrics::BREAKER_OPEN;

mod candidates;
mod evidence;
mod half_open;
mod level;
mod limit;
mod prober;
mod state;

use candidates::CandidatePool;
use limit::{Limit, Slot, TICK};
use state::{Passage, State};

pub(crate) use prober::Prober;
pub(crate) use state::{Moment, Verdict};

/// How many ids of huge callbacks wait for a slot in the same queue as all others.
const BULK_LINE: usize = 32;

/// The breaker admits no look-up for now: its message is to go back to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejection;

/// Decides when look-ups are sent, and whose their failures are.
pub(crate) struct Breaker {
    state: watch::Sender<State>,
    is_rejecting: watch::Sender<bool>,
    limit: Limit,
    /// Places in the queue before the limit for the ids of huge callbacks.
    bulk: Semaphore,
    candidates: Mutex<CandidatePool>,
    dependency: Dependency,
}

/// The right to send one look-up.
pub(crate) struct Admission<'a> {
    pub(crate) started: Moment,
    _slot: Slot<'a>,
}

impl Breaker {
    /// A closed breaker, with at most `concurrency` look-ups in flight at once, which time out after
    /// `timeout`. `dependency` shows whether the client service is down.
    pub(crate) fn new(concurrency: usize, timeout: Duration, dependency: Dependency) -> Self {
        dependency.up();
        BREAKER_OPEN.set(0);
        Self {
            state: watch::Sender::default(),
            is_rejecting: watch::Sender::new(false),
            limit: Limit::new(concurrency, timeout),
            bulk: Semaphore::new(BULK_LINE),
            candidates: Mutex::default(),
            dependency,
        }
    }

    /// Holds consumption back while look-ups are rejected.
    pub(crate) fn hold(&self) -> Hold {
        self.is_rejecting.subscribe().into()
    }

    /// How many look-ups may be in flight now.
    pub(crate) fn limit(&self) -> usize {
        self.limit.size()
    }

    /// Waits until `id` may be looked up. Few ids of huge callbacks stand in the queue at once, so that
    /// others do not wait behind them; where there are no others, they have all slots.
    ///
    /// # Errors
    /// [`Rejection`] when that will not be soon.
    pub(crate) async fn admit(
        &self,
        id: ObjectId,
        is_bulk: bool,
    ) -> Result<Admission<'_>, Rejection> {
        loop {
            let place = if is_bulk {
                // The semaphore is never closed.
                self.bulk.acquire().await.ok()
            } else {
                None
            };
            let slot = self.limit.acquire().await;
            drop(place);
            let started = self
                .update_quietly(|state| (state.passage() == Passage::Free).then(|| state.start()));
            if let Some(started) = started {
                return Ok(Admission {
                    started,
                    _slot: slot,
                });
            }
            drop(slot);
            self.candidates(|candidates| candidates.waits(id));
            // On the heap, because outages are few, and the ids that wait for a slot need no memory for it.
            Box::pin(self.unless_rejecting(self.until_free())).await?;
        }
    }

    /// Waits for the verdict on a look-up that began at `started` and has just failed.
    ///
    /// # Errors
    /// [`Rejection`] when it will not be known soon.
    pub(crate) async fn verdict(
        &self,
        started: Moment,
        failure: &Failure,
    ) -> Result<Verdict, Rejection> {
        let mut failed = Moment::default();
        self.state.send_modify(|state| failed = state.failed());
        let mut state = self.state.subscribe();
        let mut verdict = None;
        self.unless_rejecting(async {
            // Its sender lives as long as the breaker.
            let found = state.wait_for(|state| {
                verdict = state.verdict(started, failed);
                verdict.is_some()
            });
            found.await.ok();
        })
        .await?;
        let verdict = verdict.ok_or(Rejection)?;
        if verdict == Verdict::Works && failure.reason.may_be_about_the_object() {
            // It was an answer.
            self.limit.answered();
        }
        Ok(verdict)
    }

    /// Finds the number of look-ups in flight that suits the client service, for ever.
    pub(crate) async fn find_level(&self) {
        loop {
            self.limit.until_waited_for().await;
            while self.limit.is_waited_for() {
                if self.limit.observe() {
                    // What failed until now may have failed because there were too many: it is asked once more.
                    self.update_quietly(State::gap_ends);
                }
                sleep(TICK).await;
            }
            self.limit.pause();
            while !self.limit.is_waited_for() && self.limit.watch() {
                sleep(TICK).await;
            }
        }
    }

    /// Waits until look-ups may be sent.
    async fn until_free(&self) {
        let mut state = self.state.subscribe();
        loop {
            let passage = state.borrow_and_update().passage();
            match passage {
                Passage::Free => return,
                Passage::Resting(until) => sleep_until(until).await,
                // Its sender lives as long as the breaker.
                Passage::Open => {
                    state.changed().await.ok();
                }
            }
        }
    }

    async fn unless_rejecting(&self, event: impl Future<Output = ()>) -> Result<(), Rejection> {
        let mut is_rejecting = self.is_rejecting.subscribe();
        tokio::select! {
            biased;
            () = event => Ok(()),
            _ = is_rejecting.wait_for(|is_rejecting| *is_rejecting) => Err(Rejection),
        }
    }

    /// Changes the state in a way that nobody waits for, and wakes nobody.
    fn update_quietly<T: Default>(&self, update: impl FnOnce(&mut State) -> T) -> T {
        let mut result = T::default();
        self.state.send_if_modified(|state| {
            result = update(state);
            false
        });
        result
    }

    fn candidates<T>(&self, act: impl FnOnce(&mut CandidatePool) -> T) -> T {
        act(&mut self.candidates.lock())
    }
}
