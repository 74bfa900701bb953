//! The step for one chunk of ids: look all of them up, store the online ones, send the failed ones
//! on. It is done when each id is safe somewhere.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shared::consumer::{Handler, Outcome};
use shared::messages::{Attempt, FetchChunk, Headers, ObjectId};
use shared::publisher::{Publication, Publisher};
use shared::topology::Queue;
use shared::trace::Traces;
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Answer, Failure, Reason};
use crate::breaker::Withheld;
use crate::look_ups::LookUps;
use crate::retry::RetryDelays;
use crate::writer::{NotStored, Writer};

/// How long failed ids wait here for their next try while no queue takes them.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a chunk stays here at most while no queue takes its failed ids. Then it goes back to its
/// queue: the broker closes channels whose messages stay unacked for half an hour.
const PATIENCE: Duration = Duration::from_mins(1);

/// Largest chunk, in ids: no setting makes a larger one.
const MOST_IDS: usize = 10_000;

/// How long a message may be at hand: while the client service takes little, its ids would wait for so
/// long that the broker takes the channel for dead (30 minutes without an ack).
const MOST_AT_HAND: Duration = Duration::from_mins(15);

/// Handles chunks.
pub struct Fetch {
    /// Asks the client service.
    pub look_ups: LookUps,
    /// Stores what is online.
    pub writer: Writer,
    /// When to try again.
    pub retry_delays: RetryDelays,
    /// Way to the retry queues and to `objects.dead`.
    pub publisher: Publisher,
    /// How long the broker may take to confirm a message.
    pub publish_timeout: Duration,
}

impl Handler for Fetch {
    type Message = FetchChunk;

    async fn handle(&self, chunk: FetchChunk, headers: Headers) -> Outcome {
        let count = chunk.object_ids.len();
        if count > MOST_IDS {
            return Outcome::Dead(format!("{count} ids, more than {MOST_IDS}"));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut ids = chunk.object_ids;
        loop {
            let unsent = match self.settle_all(&ids, &headers.traces).await {
                Ok(failed) => self.send_on(&headers, failed).await,
                Err(Unfinished) => return Outcome::Requeue,
            };
            if unsent.is_empty() {
                return Outcome::Done;
            }
            if Instant::now() >= deadline {
                return Outcome::Requeue;
            }
            // They cannot wait at the broker, so they wait here.
            sleep(PAUSE).await;
            ids = unsent;
        }
    }
}

/// What is to be done for an id cannot be done here and now.
struct Unfinished;

impl From<Withheld> for Unfinished {
    fn from(_: Withheld) -> Self {
        Self
    }
}

impl Fetch {
    /// Settles each id, and returns what failed. What is not settled in the time that a message may be
    /// at hand counts as such: the others are done, and need not be done again.
    async fn settle_all(
        &self,
        ids: &[ObjectId],
        traces: &Traces,
    ) -> Result<Vec<(ObjectId, Failure)>, Unfinished> {
        let of_one = async |id| self.settle(id, traces).await.map(|failure| (id, failure));
        let mut under_way: FuturesUnordered<_> = ids.iter().copied().map(of_one).collect();
        let (mut failed, mut settled) = (Vec::new(), Vec::with_capacity(ids.len()));
        let deadline = Instant::now() + MOST_AT_HAND;
        while let Ok(Some(one)) = timeout_at(deadline, under_way.next()).await {
            let (id, failure) = one?;
            settled.push(id);
            failed.extend(failure.map(|failure| (id, failure)));
        }
        if !under_way.is_empty() {
            let settled: HashSet<ObjectId> = settled.into_iter().collect();
            let left = ids.iter().filter(|id| !settled.contains(id));
            failed.extend(left.map(|id| (*id, Reason::Unfinished.into())));
        }
        Ok(failed)
    }

    /// Looks one id up and, if it is online, waits until it is stored: it does not wait for the
    /// others of its chunk. Returns its failure.
    async fn settle(&self, id: ObjectId, traces: &Traces) -> Result<Option<Failure>, Unfinished> {
        loop {
            match self.look_ups.look_up(id, traces).await? {
                Answer::Online => match self.writer.store(id, traces.clone()).await {
                    Ok(()) => return Ok(None),
                    Err(NotStored::Ended) => return Err(Unfinished),
                    Err(NotStored::Outdated) => {
                        metrics::counter!("objects_outdated_total").increment(1);
                    }
                },
                Answer::Offline => {
                    metrics::counter!("objects_offline_total").increment(1);
                    return Ok(None);
                }
                Answer::Gone => {
                    note_gone();
                    return Ok(None);
                }
                Answer::Failed(failure) => return Ok(Some(failure)),
            }
        }
    }

    /// Publishes the failed ids, and no others, for another try or for an operator: one message for
    /// each queue and reason. Returns those that no queue took.
    async fn send_on(&self, headers: &Headers, failed: Vec<(ObjectId, Failure)>) -> Vec<ObjectId> {
        let mut groups: BTreeMap<(Queue, Reason), Vec<ObjectId>> = BTreeMap::new();
        for (id, failure) in failed {
            match self.retry_delays.next(headers.attempt, &failure) {
                Some(queue) => groups.entry((queue, failure.reason)).or_default().push(id),
                None => note_gone(),
            }
        }
        let mut unsent = Vec::new();
        for ((queue, reason), object_ids) in groups {
            match self.send(headers, queue, &reason, &object_ids).await {
                Ok(queue) => note(queue, headers.attempt, &reason, &object_ids),
                Err(error) => {
                    tracing::debug!(error, ?queue, count = object_ids.len(), "ids stay here");
                    unsent.extend(object_ids);
                }
            }
        }
        unsent
    }

    /// Publishes a group to its queue, or to the queue of another delay where that takes nothing.
    /// Returns which it was.
    async fn send(
        &self,
        headers: &Headers,
        queue: Queue,
        reason: &Reason,
        object_ids: &[ObjectId],
    ) -> Result<Queue, String> {
        let is_retry = queue != Queue::Dead;
        let headers = Headers {
            attempt: if is_retry && reason.costs_a_try() {
                headers.attempt.next()
            } else {
                headers.attempt
            },
            reason: Some(reason.to_string()),
            traces: headers.traces.clone(),
        };
        let chunk = FetchChunk {
            object_ids: object_ids.to_vec(),
        };
        let mut publication =
            Publication::new(queue, &chunk, headers).map_err(|error| error.to_string())?;
        let others = self.retry_delays.queues().into_iter();
        let others = others.filter(|other| is_retry && *other != queue);
        let mut failure = String::new();
        for queue in [queue].into_iter().chain(others) {
            publication.queue = queue;
            let offer = self
                .publisher
                .offer(publication.clone(), self.publish_timeout);
            match offer.await {
                Ok(()) => return Ok(queue),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(failure)
    }
}

fn note_gone() {
    metrics::counter!("objects_gone_total").increment(1);
}

fn note(queue: Queue, attempt: Attempt, reason: &Reason, ids: &[ObjectId]) {
    let count = ids.len() as u64;
    if queue == Queue::Dead {
        metrics::counter!("dead_letters_total", "reason" => reason.kind()).increment(1);
        metrics::counter!("dead_letter_ids_total", "reason" => reason.kind()).increment(count);
        tracing::warn!(%attempt, %reason, ids = ?ids.iter().map(|id| id.0).collect::<Vec<_>>(), "ids given up");
    } else {
        metrics::counter!("fetch_retries_total", "reason" => reason.kind()).increment(count);
        tracing::debug!(%attempt, %reason, count, "ids will be looked up again");
    }
}
