//! Look-ups under way: one for all who ask for the same id, asked again for as long as a failure is
//! not the id's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use shared::messages::ObjectId;

use crate::answer::{Answer, Reason};
use crate::breaker::{Breaker, Verdict, Withheld};
use crate::client::ClientService;

/// How many times in a row an id may be asked for anew because the client service asked for rest,
/// before its failure is judged as any other.
const MOST_RESTS: usize = 10;

/// How many outages may meet the look-up of an id before it counts as failed: were they the work of
/// this very id, they would never end.
const MOST_OUTAGES: usize = 10;

type Joined = Shared<BoxFuture<'static, Result<Answer, Withheld>>>;

/// Joined look-ups.
pub struct LookUps {
    client: ClientService,
    breaker: Arc<Breaker>,
    under_way: Mutex<HashMap<ObjectId, Joined>>,
}

impl LookUps {
    /// Looks up when `breaker` allows it.
    #[must_use]
    pub fn new(client: ClientService, breaker: Arc<Breaker>) -> Arc<Self> {
        Arc::new(Self {
            client,
            breaker,
            under_way: Mutex::default(),
        })
    }

    /// Looks an object up, or waits for the look-up of it that is under way already. Returns a
    /// failure only when it is the object's own.
    ///
    /// # Errors
    /// [`Withheld`] when the client service is down and will not be asked soon.
    pub async fn look_up(self: &Arc<Self>, id: ObjectId) -> Result<Answer, Withheld> {
        self.join(id).await
    }

    fn join(self: &Arc<Self>, id: ObjectId) -> Joined {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(joined) = under_way.get(&id) {
            metrics::counter!("fetches_joined_total").increment(1);
            return joined.clone();
        }
        // A task of its own: it goes on when the first who asked no longer waits.
        let task = tokio::spawn(Arc::clone(self).run(id));
        let answer = async {
            task.await
                .unwrap_or_else(|_| Ok(Answer::Failed(Reason::Panicked.into())))
        };
        let joined = answer.boxed().shared();
        under_way.insert(id, joined.clone());
        joined
    }

    async fn run(self: Arc<Self>, id: ObjectId) -> Result<Answer, Withheld> {
        let _listed = Listed {
            look_ups: &self,
            id,
        };
        let settled = self.settle(id).await;
        if settled.is_err() {
            metrics::counter!("fetches_withheld_total").increment(1);
        }
        settled
    }

    async fn settle(&self, id: ObjectId) -> Result<Answer, Withheld> {
        let (mut rests, mut outages) = (0, 0);
        loop {
            let answer = self.ask(id).await?;
            let rest_is_asked_for = match &answer {
                Answer::Failed(failure) if failure.reason.may_pass() => failure.asks_for_rest(),
                _ => return Ok(answer),
            };
            if rest_is_asked_for && rests < MOST_RESTS {
                rests += 1;
                continue;
            }
            rests = 0;
            if self.breaker.verdict().await? == Verdict::Works || outages == MOST_OUTAGES {
                return Ok(answer);
            }
            outages += 1;
        }
    }

    async fn ask(&self, id: ObjectId) -> Result<Answer, Withheld> {
        let admission = self.breaker.admit(id).await?;
        let _counted = Counted::new();
        let started = Instant::now();
        let answer = self.client.look_up(id).await;
        metrics::histogram!("fetch_duration_seconds").record(started.elapsed());
        metrics::counter!("fetches_total", "outcome" => answer.kind()).increment(1);
        self.breaker.record(id, &admission, &answer);
        Ok(answer)
    }
}

/// Takes the look-up off the list, also when it panics: who asks from then on asks anew.
struct Listed<'a> {
    look_ups: &'a LookUps,
    id: ObjectId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.look_ups
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

/// Counts a look-up in flight for as long as it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("fetches_in_flight").increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("fetches_in_flight").decrement(1);
    }
}
