//! Storing online objects: single ids are gathered into batches. Each batch is one statement, and one
//! message that arms the deletion of its rows. Where the message cannot be published, the janitor
//! finds the rows in the database when they have expired.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use broker::{Delay, Headers, Publication, Publisher};
use database::Store;
use lifecycle::VitalTask;
use messages::DeleteBatch;
use tokio::sync::{mpsc, oneshot};
use trace::Traces;
use worker::{BatchWorkers, Slot, Worker};

use crate::arming::delay_queue;
use crate::batch::{BatchLimits, next_batch};
use crate::config::Config;
use crate::metrics::{OBJECTS_STORED, OBJECTS_UNARMED, UPSERT_DURATION, UPSERT_ROWS};
use crate::object::Object;
use crate::upsert::{RowTimes, UPSERT, upsert};

/// How many ids may wait for a batch.
const WAITING: usize = 10_000;

/// An object to store. `stored` is told when its row is safe.
struct Request {
    object: Object,
    seen: Instant,
    traces: Traces,
    stored: oneshot::Sender<Result<(), WriteError>>,
}

/// Why an object is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    WriterEnded,
    /// The database was away for so long that the object would have expired by now. Nobody knows
    /// whether it is online still.
    Outdated,
}

/// Stores objects. Clones share batches.
#[derive(Clone)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Request>,
}

impl Writer {
    /// Starts the task that gathers batches. It ends when all clones are dropped and what they were
    /// given is stored, or when the shut-down leaves no more time.
    pub(crate) fn start(config: &Config, worker: &Worker) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let limits = BatchLimits {
            requests: config.write_batch.get(),
            linger: config.write_linger.0,
        };
        let batch_writer = BatchWriter {
            store: worker.store.clone(),
            publisher: worker.publisher.clone(),
            object_ttl: config.delays.object_ttl,
            publish_timeout: config.broker.broker_timeout,
        };
        let work = write_batches(receiver, limits, config.write_concurrency, batch_writer);
        (Self { requests }, worker.spawn("writer", work))
    }

    /// Stores an object that was just seen. Returns when its row is committed, however long that takes,
    /// and the message that deletes it is on the broker's disk, if it can be published.
    pub(crate) async fn store(&self, object: Object, traces: Traces) -> Result<(), WriteError> {
        let (stored, safe) = oneshot::channel();
        let request = Request {
            object,
            seen: Instant::now(),
            traces,
            stored,
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| WriteError::WriterEnded)?;
        safe.await.unwrap_or(Err(WriteError::WriterEnded))
    }
}

/// A single row waits only for `linger`.
async fn write_batches(
    mut requests: mpsc::Receiver<Request>,
    limits: BatchLimits,
    concurrency: NonZeroUsize,
    batch_writer: BatchWriter,
) {
    let mut workers = BatchWorkers::new(concurrency);
    loop {
        let slot = workers.slot().await;
        let Some(batch) = next_batch(&mut requests, limits).await else {
            break;
        };
        let batch_writer = batch_writer.clone();
        workers.spawn(async move {
            let traces = Traces::gather(batch.iter().map(|request| &request.traces));
            traces.scope(batch_writer.write(&traces, batch, slot)).await;
        });
    }
    workers.finish().await;
}

#[derive(Clone)]
struct BatchWriter {
    store: Store,
    publisher: Publisher,
    object_ttl: Delay,
    publish_timeout: Duration,
}

impl BatchWriter {
    async fn write(&self, traces: &Traces, batch: Vec<Request>, slot: Slot) {
        let started = Instant::now();
        let seen = batch.iter().map(|request| request.seen).min();
        let seen = seen.unwrap_or(started);
        let requests = batch.into_iter();
        let (objects, waiting): (Vec<_>, Vec<_>) = requests
            .map(|request| (request.object, request.stored))
            .unzip();
        let objects = latest_of_each(objects);
        let times = self
            .store
            .until_done(traces, &UPSERT, objects.len(), || {
                upsert(&self.store, &objects, seen, self.object_ttl)
            })
            .await;
        // The next statement need not wait for the broker.
        drop(slot);
        UPSERT_DURATION.record_in(started.elapsed(), traces.exemplar());
        let result = match times {
            Some(times) => {
                OBJECTS_STORED.increment(objects.len() as u64);
                let rows = u32::try_from(objects.len()).unwrap_or(u32::MAX);
                UPSERT_ROWS.record(rows);
                self.arm(times, &objects, traces.clone()).await;
                Ok(())
            }
            None => Err(WriteError::Outdated),
        };
        for stored in waiting {
            if stored.send(result).is_err() {
                tracing::trace!("an object was stored after its message was given back");
            }
        }
    }

    /// Publishes the message that deletes the rows. It must follow the commit: a message that is worked off
    /// before leaves its rows.
    async fn arm(&self, times: RowTimes, objects: &[Object], traces: Traces) {
        let object_ids = objects.iter().map(|object| object.id).collect();
        let batch = DeleteBatch {
            last_seen: times.last_seen,
            expires_at: Some(times.expires_at),
            object_ids,
        };
        let queue = delay_queue(self.object_ttl);
        let armed = match Publication::new(queue, &batch, Headers::first_try(traces)) {
            Ok(publication) => {
                let offer = self.publisher.offer(publication, self.publish_timeout);
                offer.await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = armed {
            OBJECTS_UNARMED.increment(objects.len() as u64);
            tracing::debug!(
                error,
                rows = objects.len(),
                "the sweep has to delete these rows"
            );
        }
    }
}

/// The objects in ascending order of their ids. Of those with the same id, the one that was seen last stays.
fn latest_of_each(mut objects: Vec<Object>) -> Vec<Object> {
    objects.sort_by_key(|object| object.id);
    objects.dedup_by(|later, earlier| {
        let is_same = later.id == earlier.id;
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
    objects
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn of_several_answers_about_one_object_the_last_is_stored() {
        let object = |(id, online): (i64, bool)| -> Object {
            from_value(json!({ "id": id, "online": online })).unwrap()
        };
        let seen = [(7, true), (-1, true), (7, false), (0, false), (7, true)];
        let stored = [(-1, true), (0, false), (7, true)];
        let objects = latest_of_each(seen.map(object).into());
        assert_eq!(objects, stored.map(object));
    }
}
