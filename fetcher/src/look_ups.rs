//! Look-ups under way: how many at once, and one for all who ask for the same id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use shared::messages::ObjectId;
use tokio::sync::Semaphore;

use crate::answer::{Answer, Reason};
use crate::client::ClientService;

type Joined = Shared<BoxFuture<'static, Answer>>;

/// Bounded, joined look-ups.
pub struct LookUps {
    client: ClientService,
    slots: Semaphore,
    under_way: Mutex<HashMap<ObjectId, Joined>>,
}

impl LookUps {
    /// At most `concurrency` look-ups are in flight at once.
    #[must_use]
    pub fn new(client: ClientService, concurrency: usize) -> Arc<Self> {
        let slots = Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS));
        Arc::new(Self {
            client,
            slots,
            under_way: Mutex::default(),
        })
    }

    /// Looks an object up, or waits for the look-up of it that is under way already.
    pub async fn look_up(self: &Arc<Self>, id: ObjectId) -> Answer {
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
                .unwrap_or_else(|_| Answer::Failed(Reason::Panicked.into()))
        };
        let joined = answer.boxed().shared();
        under_way.insert(id, joined.clone());
        joined
    }

    async fn run(self: Arc<Self>, id: ObjectId) -> Answer {
        let _listed = Listed {
            look_ups: &self,
            id,
        };
        let Ok(_slot) = self.slots.acquire().await else {
            return Answer::Failed(Reason::Panicked.into());
        };
        let _counted = Counted::new();
        let started = Instant::now();
        let answer = self.client.look_up(id).await;
        metrics::histogram!("fetch_duration_seconds").record(started.elapsed());
        metrics::counter!("fetches_total", "outcome" => answer.kind()).increment(1);
        answer
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
