//! The step for one chunk of ids: look all of them up, store the online ones, send the failed ones
//! on. It is done when each id is safe somewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shared::consumer::{Handler, Outcome};
use shared::messages::{Attempt, FetchChunk, Headers, ObjectId};
use shared::publisher::{Publication, Publisher};
use shared::topology::Queue;
use shared::trace::Traces;

use crate::answer::{Answer, Failure, Reason};
use crate::breaker::Withheld;
use crate::look_ups::LookUps;
use crate::retry::RetryDelays;
use crate::writer::{Writer, WriterEnded};

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
    /// How long one confirm may take before the message is published again.
    pub publish_timeout: Duration,
}

impl Handler for Fetch {
    type Message = FetchChunk;

    async fn handle(&self, chunk: FetchChunk, headers: Headers) -> Outcome {
        let mut settled: FuturesUnordered<_> = chunk
            .object_ids
            .into_iter()
            .map(|id| self.settle(id, &headers.traces))
            .collect();
        let mut failed = Vec::new();
        while let Some(result) = settled.next().await {
            match result {
                Ok(None) => {}
                Ok(Some(failure)) => failed.push(failure),
                Err(Unfinished) => return Outcome::Requeue,
            }
        }
        self.send_on(&headers, failed).await
    }
}

/// What is to be done for an id cannot be done here and now.
struct Unfinished;

impl From<Withheld> for Unfinished {
    fn from(_: Withheld) -> Self {
        Self
    }
}

impl From<WriterEnded> for Unfinished {
    fn from(_: WriterEnded) -> Self {
        Self
    }
}

impl Fetch {
    /// Looks one id up and, if it is online, waits until it is stored: it does not wait for the
    /// others of its chunk. Returns what failed.
    async fn settle(
        &self,
        id: ObjectId,
        traces: &Traces,
    ) -> Result<Option<(ObjectId, Failure)>, Unfinished> {
        match self.look_ups.look_up(id, traces).await? {
            Answer::Online => {
                self.writer.store(id, traces.clone()).await?;
                Ok(None)
            }
            Answer::Offline => {
                metrics::counter!("objects_offline_total").increment(1);
                Ok(None)
            }
            Answer::Gone => {
                metrics::counter!("objects_gone_total").increment(1);
                Ok(None)
            }
            Answer::Failed(failure) => Ok(Some((id, failure))),
        }
    }

    /// Publishes the failed ids, and no others, for another try or for an operator: one message for
    /// each queue and reason.
    async fn send_on(&self, headers: &Headers, failed: Vec<(ObjectId, Failure)>) -> Outcome {
        let attempt = headers.attempt;
        let mut groups: BTreeMap<(Queue, Reason), Vec<ObjectId>> = BTreeMap::new();
        for (id, failure) in failed {
            let queue = self.retry_delays.next(attempt, &failure);
            groups.entry((queue, failure.reason)).or_default().push(id);
        }
        for ((queue, reason), object_ids) in groups {
            note(queue, attempt, &reason, &object_ids);
            let headers = Headers {
                attempt: match queue {
                    Queue::Dead => attempt,
                    _ => attempt.next(),
                },
                reason: Some(reason.to_string()),
                traces: headers.traces.clone(),
            };
            match Publication::new(queue, &FetchChunk { object_ids }, headers) {
                Ok(publication) => {
                    self.publisher
                        .publish_until_confirmed(publication, self.publish_timeout)
                        .await;
                }
                Err(error) => {
                    return Outcome::Dead(format!("failed ids could not be sent on: {error}"));
                }
            }
        }
        Outcome::Done
    }
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
