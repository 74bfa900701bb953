//! The breaker: tells failures of the client service from failures of single ids, and sends no
//! look-ups while the client service is down.
//!
//! The question that each failed look-up raises, "is it the id, or the service?", is answered by
//! evidence that is newer than the failure: a look-up that was started later and was answered, or a
//! probe that was started later and was not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::health::Dependency;
use shared::hold::Hold;
use shared::messages::ObjectId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::answer::{Answer, Failure};

pub mod candidates;
pub mod limit;
pub mod prober;
pub mod state;

use candidates::Candidates;
use limit::{Limit, Slot};
use state::{Moment, Passage, State};

pub use state::Verdict;

/// How long the client service is left alone when it asks for rest: at least so long, also when it
/// does not say how long or says 0.
const LEAST_REST: Duration = Duration::from_secs(1);

/// A longer rest would leave callbacks lying because of one wrong header.
const MOST_REST: Duration = Duration::from_mins(5);

/// The look-up is not made for now: its message is to go back to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withheld;

/// Decides when look-ups are sent, and whose their failures are.
pub struct Breaker {
    state: watch::Sender<State>,
    withheld: watch::Sender<bool>,
    limit: Limit,
    candidates: Mutex<Candidates>,
    dependency: Dependency,
}

/// The right to send one look-up.
pub struct Admission<'a> {
    started: Moment,
    _slot: Slot<'a>,
}

impl Breaker {
    /// Closed; at most `concurrency` look-ups are in flight at once. `dependency` shows whether the
    /// client service is down.
    #[must_use]
    pub fn new(concurrency: usize, dependency: Dependency) -> Self {
        dependency.up();
        metrics::gauge!("client_service_breaker_open").set(0);
        Self {
            state: watch::Sender::default(),
            withheld: watch::Sender::new(false),
            limit: Limit::new(concurrency),
            candidates: Mutex::default(),
            dependency,
        }
    }

    /// What holds consumption back while look-ups are withheld.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.withheld.subscribe().into()
    }

    /// Waits until `id` may be looked up.
    ///
    /// # Errors
    /// [`Withheld`] when that will not be soon.
    pub async fn admit(&self, id: ObjectId) -> Result<Admission<'_>, Withheld> {
        loop {
            let slot = self.limit.acquire().await;
            if let Some(started) = self.start() {
                return Ok(Admission {
                    started,
                    _slot: slot,
                });
            }
            drop(slot);
            self.candidates(|candidates| candidates.waits(id));
            self.passable().await?;
        }
    }

    /// Draws the conclusions from an answer, except from failures, which are judged later.
    pub fn record(&self, id: ObjectId, admission: &Admission<'_>, answer: &Answer) {
        self.weigh(id, admission.started, answer);
    }

    /// Waits for the verdict on a look-up that has just failed.
    ///
    /// # Errors
    /// [`Withheld`] when it will not be known soon.
    pub async fn verdict(&self) -> Result<Verdict, Withheld> {
        let mut failed = Moment::default();
        self.state.send_modify(|state| failed = state.failed());
        self.until(|state| state.verdict(failed)).await
    }

    fn start(&self) -> Option<Moment> {
        let mut started = None;
        self.state.send_if_modified(|state| {
            if state.passage() == Passage::Free {
                started = Some(state.start());
            }
            false
        });
        started
    }

    /// Waits until the breaker is closed and no rest is asked for.
    async fn passable(&self) -> Result<(), Withheld> {
        loop {
            let passage = |state: &State| match state.passage() {
                Passage::Open => None,
                passage => Some(passage),
            };
            match self.until(passage).await? {
                Passage::Resting(until) => self.or_withheld(sleep_until(until)).await?,
                _ => return Ok(()),
            }
        }
    }

    /// Waits until the state has what `look` looks for.
    async fn until<T>(&self, look: impl Fn(&State) -> Option<T>) -> Result<T, Withheld> {
        let mut state = self.state.subscribe();
        loop {
            if let Some(found) = look(&state.borrow_and_update()) {
                return Ok(found);
            }
            // Its sender lives as long as the breaker.
            self.or_withheld(async { drop(state.changed().await) })
                .await?;
        }
    }

    async fn or_withheld(&self, event: impl Future<Output = ()>) -> Result<(), Withheld> {
        let mut withheld = self.withheld.subscribe();
        tokio::select! {
            () = event => Ok(()),
            _ = withheld.wait_for(|withheld| *withheld) => Err(Withheld),
        }
    }

    /// Returns the failure, if the answer is one that says something of the client service.
    fn weigh<'a>(&self, id: ObjectId, started: Moment, answer: &'a Answer) -> Option<&'a Failure> {
        let failure = match answer {
            Answer::Failed(failure) if failure.reason.may_pass() => failure,
            _ => {
                self.answered(id, started);
                return None;
            }
        };
        self.candidates(|candidates| candidates.failed(id));
        if failure.asks_for_rest() {
            self.rest(started, failure);
        }
        Some(failure)
    }

    fn answered(&self, id: ObjectId, started: Moment) {
        self.candidates(|candidates| candidates.answered(id));
        self.limit.grow();
        self.state.send_if_modified(|state| {
            let was_in_doubt = state.is_in_doubt();
            let outage = state.answered(started);
            if let Some(outage) = outage {
                metrics::gauge!("client_service_breaker_open").set(0);
                tracing::info!(?outage, "client service answers again, breaker closed");
                self.dependency.up();
            }
            was_in_doubt || outage.is_some()
        });
    }

    fn rest(&self, started: Moment, failure: &Failure) {
        let rest = failure
            .retry_after
            .unwrap_or_default()
            .clamp(LEAST_REST, MOST_REST);
        let mut is_news = false;
        self.state
            .send_modify(|state| is_news = state.rest(started, rest));
        if is_news {
            tracing::info!(?rest, "client service asks for rest");
            self.limit.halve();
        }
    }

    fn candidates<T>(&self, act: impl FnOnce(&mut Candidates) -> T) -> T {
        act(&mut self
            .candidates
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the prober needs.
impl Breaker {
    /// Waits until a probe is wanted, which is not before `earliest`.
    async fn probe_wanted(&self, earliest: Instant) -> (ObjectId, Moment) {
        loop {
            self.in_need().await;
            let resting = self.state.borrow().resting();
            let due = resting.unwrap_or(earliest).max(earliest);
            sleep_until(due).await;
            let mut started = None;
            self.state.send_if_modified(|state| {
                // Meanwhile evidence may have come, or the wish for more rest.
                let is_wanted = state.is_open() || state.is_in_doubt();
                if is_wanted && state.resting().is_none() {
                    started = Some(state.start());
                }
                false
            });
            if let Some(started) = started {
                return (self.candidates(Candidates::pick), started);
            }
        }
    }

    async fn in_need(&self) {
        let mut state = self.state.subscribe();
        // Its sender lives as long as the breaker.
        drop(
            state
                .wait_for(|state| state.is_open() || state.is_in_doubt())
                .await,
        );
    }

    /// Draws the conclusions from the answer to a probe. Says how long at least to wait for the next
    /// one, if the client service said so.
    fn probed(&self, id: ObjectId, started: Moment, answer: &Answer) -> Option<Duration> {
        let failure = self.weigh(id, started, answer)?;
        self.state.send_modify(|state| {
            if state.probe_failed(started) {
                // Before anybody sees it open, and so before it can close again.
                self.limit.lower_to_few();
                metrics::gauge!("client_service_breaker_open").set(1);
                self.dependency.down(&failure.reason);
            }
        });
        failure.retry_after.map(|after| after.min(MOST_REST))
    }

    fn is_open(&self) -> bool {
        self.state.borrow().is_open()
    }

    /// Waits until the breaker is open, or closed.
    async fn until_open(&self, open: bool) {
        let mut state = self.state.subscribe();
        // Its sender lives as long as the breaker.
        drop(state.wait_for(|state| state.is_open() == open).await);
    }

    /// From now on, or no longer, look-ups that wait end with [`Withheld`].
    fn withhold(&self, withheld: bool) {
        self.withheld.send_replace(withheld);
    }
}
