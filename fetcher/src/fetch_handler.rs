//! The step for one chunk of ids: looks all of them up, stores the online ones, and publishes the failed ones
//! again. The step is done when each id is safe somewhere.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use broker::{Attempt, Handler, Headers, Load, Outcome, Publication, Publisher, Queue};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use messages::{FetchChunk, ObjectId};
use tokio::time::{Instant, sleep, timeout_at};
use trace::Traces;

use crate::answer::{Answer, Failure, Reason};
use crate::at_hand::IdsAtHand;
use crate::breaker::Rejection;
use crate::look_up::LookUpClient;
use crate::metrics::{
    DEAD_LETTER_IDS, DEAD_LETTERS, FETCH_RETRIES, ID_DURATION, OBJECTS_GONE, OBJECTS_OFFLINE,
    OBJECTS_OUTDATED,
};
use crate::retry::RetryLadder;
use crate::writer::{WriteError, Writer};

/// How long failed ids wait here for their next try while no queue takes them.
const PAUSE: Duration = Duration::from_secs(1);

/// Maximum time that a chunk stays here while no queue takes its failed ids. Then it goes back to its
/// queue: the broker closes channels whose messages stay unacked for half an hour.
const PATIENCE: Duration = Duration::from_mins(1);

/// Maximum number of ids in a chunk: no setting makes a larger one.
const MAX_IDS: usize = 10_000;

/// How long a message may stay unacked. While the client service takes little, ids wait long, and the broker
/// takes a channel for dead after 30 minutes without an ack.
const MAX_AT_HAND: Duration = Duration::from_mins(15);

/// Handles chunks.
#[derive(Clone)]
pub(crate) struct FetchHandler {
    pub(crate) client: LookUpClient,
    pub(crate) writer: Writer,
    pub(crate) retry_delays: RetryLadder,
    /// Publishes to the retry queues and to `objects.dead`.
    pub(crate) publisher: Publisher,
    /// How long the broker may take to confirm a message.
    pub(crate) publish_timeout: Duration,
    /// The ids that are not settled.
    pub(crate) at_hand: IdsAtHand,
    /// Maximum number of them.
    pub(crate) prefetch: usize,
}

impl Handler for FetchHandler {
    type Message = FetchChunk;

    async fn handle(&self, chunk: FetchChunk, headers: Headers) -> Outcome {
        let count = chunk.object_ids.len();
        if count > MAX_IDS {
            return Outcome::Dead(format!("{count} ids, more than {MAX_IDS}"));
        }
        let deadline = Instant::now() + PATIENCE;
        let at_hand = self.at_hand.take(count);
        let mut ids = chunk.object_ids;
        loop {
            let settle = |id| {
                let settling = self.settle(id, &headers.traces);
                // A failed id stays at hand until it is published.
                settling.inspect(|result| {
                    if matches!(result, Ok(None)) {
                        at_hand.settled(1);
                        note_settled(&headers);
                    }
                })
            };
            let unsent = match settle_all(&ids, settle).await {
                Ok(failed) => self.publish_failed(&headers, failed).await,
                Err(GiveBack) => return Outcome::Requeue,
            };
            if unsent.is_empty() {
                return Outcome::Done;
            }
            if Instant::now() >= deadline {
                return Outcome::Requeue;
            }
            // The ids cannot wait at the broker, so they wait here.
            sleep(PAUSE).await;
            ids = unsent;
        }
    }

    /// Twice as many ids as may be looked up at once: the others wait for a place, or for their row. Ids that wait for the
    /// look-up of the same id keep nothing busy, and only take from the maximum.
    fn load(&self) -> Option<Load> {
        let followers = self.client.followers();
        let most = self.prefetch.div_ceil(2).saturating_sub(followers);
        Some(Load {
            at_hand: self.at_hand.count().saturating_sub(followers),
            wanted: (2 * self.client.limit()).min(most),
        })
    }
}

/// An id cannot be looked up or stored here for now: its message goes back to the queue.
#[derive(Debug)]
struct GiveBack;

impl From<Rejection> for GiveBack {
    fn from(_: Rejection) -> Self {
        Self
    }
}

impl FetchHandler {
    /// Looks one id up, and stores its object if it is online. Does not wait for the others of its
    /// chunk. Returns the failure of an id that has to be published again.
    async fn settle(&self, id: ObjectId, traces: &Traces) -> Result<Option<Failure>, GiveBack> {
        loop {
            match self.client.look_up(id, traces).await? {
                Answer::Online(object) => match self.writer.store(object, traces.clone()).await {
                    Ok(()) => return Ok(None),
                    Err(WriteError::WriterEnded) => return Err(GiveBack),
                    Err(WriteError::Outdated) => OBJECTS_OUTDATED.increment(1),
                },
                Answer::Offline => {
                    OBJECTS_OFFLINE.increment(1);
                    return Ok(None);
                }
                Answer::Gone => {
                    OBJECTS_GONE.increment(1);
                    return Ok(None);
                }
                Answer::Failed(failure) => return Ok(Some(failure)),
            }
        }
    }

    /// Publishes the failed ids, and no others, for another try or for an operator: one message for
    /// each queue and reason. Returns the ids that no queue took.
    async fn publish_failed(
        &self,
        headers: &Headers,
        failed: Vec<(ObjectId, Failure)>,
    ) -> Vec<ObjectId> {
        let mut groups: BTreeMap<(Queue, Reason), Vec<ObjectId>> = BTreeMap::new();
        for (id, failure) in failed {
            let Some(queue) = self.retry_delays.next(headers.attempt, &failure) else {
                OBJECTS_GONE.increment(1);
                note_settled(headers);
                continue;
            };
            groups.entry((queue, failure.reason)).or_default().push(id);
        }
        let mut unsent = Vec::new();
        for ((queue, reason), object_ids) in groups {
            match self
                .publish_group(headers, queue, &reason, &object_ids)
                .await
            {
                Ok(queue) => report(queue, headers.attempt, &reason, &object_ids),
                Err(error) => {
                    tracing::debug!(error, ?queue, count = object_ids.len(), "ids stay here");
                    unsent.extend(object_ids);
                }
            }
        }
        unsent
    }

    /// Publishes a group to its queue or, where that takes nothing, to the queue of another delay.
    /// Returns the queue that took it.
    async fn publish_group(
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
            accepted_at: headers.accepted_at,
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

/// Settles each id, and returns those that failed. The ids that are not settled in the time that a message
/// may be at hand are among them, so that the others need not be done again.
async fn settle_all<F>(
    ids: &[ObjectId],
    settle: impl Fn(ObjectId) -> F,
) -> Result<Vec<(ObjectId, Failure)>, GiveBack>
where
    F: Future<Output = Result<Option<Failure>, GiveBack>>,
{
    let of_one = |id: &ObjectId| {
        let id = *id;
        settle(id).map(move |settled| (id, settled))
    };
    let mut in_flight: FuturesUnordered<_> = ids.iter().map(of_one).collect();
    let (mut failed, mut settled) = (Vec::new(), Vec::with_capacity(ids.len()));
    let deadline = Instant::now() + MAX_AT_HAND;
    while let Ok(Some((id, result))) = timeout_at(deadline, in_flight.next()).await {
        failed.extend(result?.map(|failure| (id, failure)));
        settled.push(id);
    }
    if !in_flight.is_empty() {
        let settled: HashSet<ObjectId> = settled.into_iter().collect();
        let left = ids.iter().filter(|id| !settled.contains(id));
        failed.extend(left.map(|id| (*id, Reason::Unfinished.into())));
    }
    Ok(failed)
}

/// Records how long ago the callback of an id was accepted. A clock that is behind counts as no time at all.
fn note_settled(headers: &Headers) {
    if let Some(accepted_at) = headers.accepted_at {
        let duration = accepted_at.elapsed().unwrap_or_default();
        ID_DURATION.record_in(duration, headers.traces.exemplar());
    }
}

fn report(queue: Queue, attempt: Attempt, reason: &Reason, ids: &[ObjectId]) {
    let count = ids.len() as u64;
    if queue == Queue::Dead {
        DEAD_LETTERS.of(reason).increment(1);
        DEAD_LETTER_IDS.of(reason).increment(count);
        tracing::warn!(%attempt, %reason, ids = ?ids.iter().map(|id| id.0).collect::<Vec<_>>(), "ids given up");
    } else {
        FETCH_RETRIES.of(reason).increment(count);
        tracing::debug!(%attempt, %reason, count, "ids will be looked up again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_settled_in_time_is_sent_on_without_the_others() {
        let ids = [1, 2, 3, 4].map(ObjectId);
        let settle = async |id| match id {
            ObjectId(1) => Ok(None),
            ObjectId(2) => Ok(Some(Reason::Timeout.into())),
            _ => std::future::pending().await,
        };
        let begun = Instant::now();
        let failed = settle_all(&ids, settle).await.unwrap();
        assert_eq!(begun.elapsed(), MAX_AT_HAND);
        let reasons: Vec<_> = failed
            .into_iter()
            .map(|(id, failure)| (id.0, failure.reason))
            .collect();
        let expected = [
            (2, Reason::Timeout),
            (3, Reason::Unfinished),
            (4, Reason::Unfinished),
        ];
        assert_eq!(reasons, expected);
    }
}
