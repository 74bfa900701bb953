//! The look-up of an id, in layers, from the outside in: callers that ask for the same id share a look-up
//! (`look_up`); a panic becomes a failure (`look_up_guarded`); the look-up is made again for as long as
//! the client service, not the id, is at fault (`look_up_until_judged`); one request is sent when the
//! breaker admits it (`look_up_once`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use messages::ObjectId;
use metric_definitions::handle::{Counter, Gauge, Histogram};
use metric_definitions::{InFlight, Label};
use trace::Traces;

use crate::answer::{Answer, Reason};
use crate::at_hand::IdsAtHand;
use crate::breaker::{Breaker, Moment, Rejection, Verdict};
use crate::client::ClientService;
use crate::metrics::{
    FETCH_DURATION, FETCHES, FETCHES_IN_FLIGHT, FETCHES_JOINED, FETCHES_WITHHELD,
};
use crate::single_flight::{Leader, LookUpResult, Role, SingleFlight, Turn};

/// How many times in a row an id is looked up again because the client service asked for rest. Then its
/// failure is judged as any other.
const MAX_RESTS: usize = 10;

/// How many outages may meet the look-up of an id before it counts as failed. An id that causes the
/// outages itself would never end.
const MAX_OUTAGES: usize = 10;

/// The client service behind a single flight and the breaker. Clones share both.
#[derive(Clone)]
pub(crate) struct LookUpClient {
    client: ClientService,
    breaker: Arc<Breaker>,
    single_flight: SingleFlight,
    counts: Counts,
    /// Ids that wait for a look-up that is made for another caller.
    followers: IdsAtHand,
    /// Whether the ids are those of huge callbacks.
    is_bulk: bool,
}

/// The metrics of each look-up. To find them by name each time would take long.
#[derive(Clone)]
struct Counts {
    in_flight: Gauge,
    duration: Histogram,
    /// For each outcome.
    ended: Arc<[Counter]>,
}

impl Counts {
    fn new() -> Self {
        Self {
            in_flight: FETCHES_IN_FLIGHT.handle(),
            duration: FETCH_DURATION.handle(),
            ended: FETCHES.each().into(),
        }
    }

    fn ended(&self, answer: &Answer) {
        self.ended[answer.place()].increment(1);
    }
}

impl LookUpClient {
    pub(crate) fn new(client: ClientService, breaker: Arc<Breaker>) -> Self {
        Self {
            client,
            breaker,
            single_flight: SingleFlight::default(),
            counts: Counts::new(),
            followers: IdsAtHand::default(),
            is_bulk: false,
        }
    }

    /// The same for the ids of huge callbacks, which let others go first.
    pub(crate) fn for_bulk(&self) -> Self {
        Self {
            is_bulk: true,
            ..self.clone()
        }
    }

    /// How many look-ups may be in flight now.
    pub(crate) fn limit(&self) -> usize {
        self.breaker.limit()
    }

    /// How many ids wait for a look-up that is made for another caller. Such an id takes no place among those in flight.
    pub(crate) fn followers(&self) -> usize {
        self.followers.count()
    }

    /// Looks an object up, or waits for a look-up of it that was not sent yet. Returns a failure only
    /// when it is the object's own, or when nothing shows whose failure it is.
    ///
    /// # Errors
    /// [`Rejection`] when the client service is down and will not be asked soon.
    pub(crate) async fn look_up(&self, id: ObjectId, traces: &Traces) -> LookUpResult {
        loop {
            let turn = match self.single_flight.join(id, traces) {
                Role::Leader(leader) => Ok(Turn::Lead(leader)),
                Role::Follower(turn, _span) => {
                    let _follower = self.followers.take(1);
                    turn.await
                }
            };
            match turn {
                Ok(Turn::Result(result)) => {
                    FETCHES_JOINED.increment(1);
                    return result;
                }
                Ok(Turn::Lead(leader)) => {
                    let result = self.look_up_guarded(&leader, traces).await;
                    return leader.finish(result);
                }
                Err(_) => tracing::debug!(%id, "a look-up was forgotten"),
            }
        }
    }

    async fn look_up_guarded(&self, leader: &Leader, traces: &Traces) -> LookUpResult {
        let result = AssertUnwindSafe(self.look_up_until_judged(leader, traces))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Ok(Answer::Failed(Reason::Panicked.into())));
        if result.is_err() {
            FETCHES_WITHHELD.increment(1);
        }
        result
    }

    async fn look_up_until_judged(&self, leader: &Leader, traces: &Traces) -> LookUpResult {
        let (mut rests, mut outages, mut has_met_gap) = (0, 0, false);
        loop {
            let (answer, started) = self.look_up_once(leader, traces).await?;
            let Answer::Failed(failure) = &answer else {
                return Ok(answer);
            };
            if failure.reason == Reason::Throttled && rests < MAX_RESTS {
                rests += 1;
                continue;
            }
            rests = 0;
            let is_the_ids = !matches!(failure.reason, Reason::Unreachable(_));
            // On the heap, as failures are few, and the ids that wait need no memory for it.
            match Box::pin(self.breaker.verdict(started, failure)).await? {
                Verdict::Works if is_the_ids => return Ok(answer.believed()),
                Verdict::WorksAgain if is_the_ids && has_met_gap => return Ok(answer.believed()),
                Verdict::Unclear => return Ok(answer.doubted()),
                _ if outages == MAX_OUTAGES => return Ok(answer.doubted()),
                verdict => has_met_gap = verdict == Verdict::WorksAgain,
            }
            outages += 1;
        }
    }

    async fn look_up_once(
        &self,
        leader: &Leader,
        traces: &Traces,
    ) -> Result<(Answer, Moment), Rejection> {
        let id = leader.id;
        let admission = self.breaker.admit(id, self.is_bulk).await?;
        leader.is_sending();
        let _counted = InFlight::in_gauge(self.counts.in_flight.clone());
        let started = Instant::now();
        // On the heap, because far more ids wait for admission than are looked up, and these need no
        // memory for a request.
        let answer = Box::pin(self.client.look_up(id, traces)).await;
        let duration = &self.counts.duration;
        duration.record_in(started.elapsed(), traces.exemplar());
        self.counts.ended(&answer);
        self.breaker.record(id, &admission, &answer);
        Ok((answer, admission.started))
    }
}

#[cfg(test)]
mod tests;
