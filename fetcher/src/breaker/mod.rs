//! The breaker: tells failures of the client service from failures of single ids, and sends no
//! look-ups while the client service is down.
//!
//! The question that each failed look-up raises, "is it the id, or the service?", is answered by
//! evidence that is newer than the failure: a look-up that was started later and was answered, or a
//! probe that was started later and was not. "Gone" and "refused" are failures like others here, for
//! a gateway may say so of everything.

use std::fmt::Display;
use std::time::Duration;

use broker::Hold;
use lifecycle::Dependency;
use messages::ObjectId;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::answer::{Answer, Failure, Reason};
use crate::metrics::BREAKER_OPEN;

pub mod candidates;
pub mod limit;
pub mod prober;
pub mod state;

use candidates::{Candidates, Meaning};
use limit::{Limit, Slot};
use state::{Passage, State};

pub use state::{Moment, Verdict};

/// How long the client service is left alone when it asks for rest: at least so long, also when it
/// does not say how long or says 0.
const LEAST_REST: Duration = Duration::from_secs(1);

/// A longer rest would leave callbacks lying because of one wrong header.
const MOST_REST: Duration = Duration::from_mins(5);

/// How much longer the next probe of a client service that is down waits because it asks for that: it
/// cannot know when it will be well.
const MOST_PROBE_DELAY: Duration = Duration::from_secs(10);

/// How many ids of huge callbacks wait for a slot in the same queue as all others.
const BULK_LINE: usize = 32;

/// The look-up is not made for now: its message is to go back to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection;

/// Decides when look-ups are sent, and whose their failures are.
pub struct Breaker {
    state: watch::Sender<State>,
    withheld: watch::Sender<bool>,
    limit: Limit,
    /// Places in the queue before the limit for the ids of huge callbacks.
    bulk: Semaphore,
    candidates: Mutex<Candidates>,
    dependency: Dependency,
}

/// The right to send one look-up.
pub struct Admission<'a> {
    /// When it begins.
    pub started: Moment,
    _slot: Slot<'a>,
}

impl Breaker {
    /// Closed; at most `concurrency` look-ups are in flight at once. `dependency` shows whether the
    /// client service is down.
    #[must_use]
    pub fn new(concurrency: usize, dependency: Dependency) -> Self {
        dependency.up();
        BREAKER_OPEN.set(0);
        Self {
            state: watch::Sender::default(),
            withheld: watch::Sender::new(false),
            limit: Limit::new(concurrency),
            bulk: Semaphore::new(BULK_LINE),
            candidates: Mutex::default(),
            dependency,
        }
    }

    /// What holds consumption back while look-ups are withheld.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.withheld.subscribe().into()
    }

    /// Waits until `id` may be looked up. Few ids of huge callbacks stand in the queue at once, so that
    /// others do not wait behind them; where there are no others, they have all slots.
    ///
    /// # Errors
    /// [`Rejection`] when that will not be soon.
    pub async fn admit(&self, id: ObjectId, is_bulk: bool) -> Result<Admission<'_>, Rejection> {
        loop {
            let place = if is_bulk {
                // The semaphore is never closed.
                self.bulk.acquire().await.ok()
            } else {
                None
            };
            let slot = self.limit.acquire().await;
            drop(place);
            if let Some(started) = self.start() {
                return Ok(Admission {
                    started,
                    _slot: slot,
                });
            }
            drop(slot);
            self.candidates(|candidates| candidates.waits(id));
            self.or_withheld(self.until_free()).await?;
        }
    }

    /// Draws the conclusions from an answer, except from failures, which are judged later.
    pub fn record(&self, id: ObjectId, admission: &Admission<'_>, answer: &Answer) {
        if self.weigh(id, admission.started, answer).is_some() {
            self.candidates(|candidates| candidates.failed(id));
        }
    }

    /// Waits for the verdict on a look-up that began at `started` and has just failed.
    ///
    /// # Errors
    /// [`Rejection`] when it will not be known soon.
    pub async fn verdict(&self, started: Moment, failure: &Failure) -> Result<Verdict, Rejection> {
        let mut failed = Moment::default();
        self.state.send_modify(|state| failed = state.failed());
        let verdict = self.until(|state| state.verdict(started, failed)).await?;
        if verdict == Verdict::Works && failure.reason.may_be_about_the_object() {
            // It was an answer.
            self.limit.grow();
        }
        Ok(verdict)
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
    async fn until_free(&self) {
        let mut state = self.state.subscribe();
        loop {
            let passage = state.borrow_and_update().passage();
            match passage {
                Passage::Free => return,
                Passage::Resting(until) => sleep_until(until).await,
                // Its sender lives as long as the breaker.
                Passage::Open => drop(state.changed().await),
            }
        }
    }

    /// Waits until the state has what `look` looks for.
    async fn until<T>(&self, look: impl Fn(&State) -> Option<T>) -> Result<T, Rejection> {
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

    async fn or_withheld(&self, event: impl Future<Output = ()>) -> Result<(), Rejection> {
        let mut withheld = self.withheld.subscribe();
        tokio::select! {
            biased;
            () = event => Ok(()),
            _ = withheld.wait_for(|withheld| *withheld) => Err(Rejection),
        }
    }

    /// Returns the failure, if it is one.
    fn weigh<'a>(&self, id: ObjectId, started: Moment, answer: &'a Answer) -> Option<&'a Failure> {
        let Answer::Failed(failure) = answer else {
            self.answered(id, started);
            return None;
        };
        if failure.reason == Reason::Throttled {
            self.rest(started, failure);
        } else if let Reason::Unreachable(_) = failure.reason {
            self.ease(started);
        }
        Some(failure)
    }

    fn answered(&self, id: ObjectId, started: Moment) {
        let gap_ends = self.candidates(|candidates| candidates.answered(id));
        self.limit.grow();
        self.state.send_if_modified(|state| {
            let was_in_doubt = state.is_in_doubt();
            if gap_ends {
                state.gap_ends();
            }
            let outage = state.answered(started);
            outage.map_or(was_in_doubt, |outage| self.closed(outage))
        });
    }

    /// While the state is changed, so that nobody sees it changed before.
    fn closed(&self, outage: Duration) -> bool {
        BREAKER_OPEN.set(0);
        tracing::info!(?outage, "client service answers again, breaker closed");
        self.dependency.up();
        true
    }

    /// While the state is changed: the limit is low before anybody sees the breaker open, and so before
    /// it can close again.
    fn opened(&self, reason: &dyn Display) {
        self.limit.lower_to_few();
        BREAKER_OPEN.set(1);
        self.dependency.down(reason);
    }

    /// A connection could not be made: too many at once may be the reason.
    fn ease(&self, started: Moment) {
        let mut is_news = false;
        self.state.send_if_modified(|state| {
            is_news = state.ease(started);
            false
        });
        if is_news {
            self.limit.halve();
        }
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
        act(&mut self.candidates.lock())
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
        self.candidates(|candidates| candidates.refuted(id));
        let meaning = if failure.reason.may_be_about_the_object() {
            self.candidates(Candidates::meaning)
        } else {
            Meaning::Down
        };
        self.state.send_modify(|state| match meaning {
            Meaning::Down if state.probe_failed(started) => self.opened(&failure.reason),
            Meaning::Unclear => {
                state
                    .probe_unclear(started)
                    .map(|outage| self.closed(outage));
            }
            Meaning::Down | Meaning::NotKnownYet => {}
        });
        // A rest is waited for in any case.
        failure.retry_after.map(|after| after.min(MOST_PROBE_DELAY))
    }

    fn is_open(&self) -> bool {
        self.state.borrow().is_open()
    }

    /// Waits until no look-ups are sent.
    async fn until_not_free(&self) {
        let mut state = self.state.subscribe();
        // Its sender lives as long as the breaker.
        drop(
            state
                .wait_for(|state| state.passage() != Passage::Free)
                .await,
        );
    }

    /// A rest that has lasted for too long is an outage: a probe has to show that it is over.
    fn rest_is_outage(&self) {
        self.state.send_modify(|state| {
            let now = state.start();
            if !state.is_open() && state.probe_failed(now) {
                self.opened(&"it asks to be left alone");
            }
        });
    }

    /// From now on, or no longer, look-ups that wait end with [`Rejection`].
    fn withhold(&self, withheld: bool) {
        self.withheld.send_replace(withheld);
    }

    /// From now on no more look-ups at once than were lately.
    fn cool(&self) {
        self.limit.cool();
    }
}
