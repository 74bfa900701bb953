//! Deleting rows at their expiry. The message that was armed at their storing comes out of the delay
//! queue a little before, and waits until then.
//!
//! What the database's clock shows is known here well enough to begin a statement in time, but each
//! statement looks for itself: if it comes early nevertheless, it deletes what has expired, and
//! waits.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use broker::{Handler, Headers, Outcome};
use database::Store;
use lifecycle::VitalTask;
use messages::DeleteBatch;
use tokio::sync::{mpsc, oneshot};
use trace::Traces;
use worker::{BatchWorkers, Slot, Worker};

use crate::batch_source::{BatchSource, HORIZON, Request};
use crate::clock::DatabaseTime;
use crate::config::Config;
use crate::delete::{DELETE, DueRows, count_deleted, delete};
use crate::metrics::{DELETE_DURATION, DELETE_ROWS, DeletedBy, EARLY_BATCHES};
use crate::schedule::Limits;

/// How many messages may wait to be put into the schedule, as they do while all slots are taken.
const WAITING: usize = 1_000;

/// Deletes expired rows. Handles the messages of `objects.delete`.
#[derive(Clone)]
pub(crate) struct Deleter {
    requests: mpsc::Sender<Request>,
}

impl Deleter {
    /// Starts the task that gathers messages into statements. It ends with the last clone, or when
    /// the shut-down leaves no more time.
    pub(crate) fn start(config: &Config, worker: &Worker, time: DatabaseTime) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let limits = Limits {
            weight: config.delete_batch.get(),
            linger: config.delete_linger.0,
            horizon: HORIZON,
        };
        let source = BatchSource::new(receiver, limits, config.delete_prefetch.get().into(), time);
        let work = delete_batches(source, config.delete_concurrency, worker.store.clone());
        (Self { requests }, worker.spawn("deleter", work))
    }
}

impl Handler for Deleter {
    type Message = DeleteBatch;

    async fn handle(&self, batch: DeleteBatch, headers: Headers) -> Outcome {
        let (done, deleted) = oneshot::channel();
        let request = Request {
            batch,
            traces: headers.traces,
            done,
        };
        if self.requests.send(request).await.is_err() {
            return Outcome::Requeue;
        }
        deleted.await.map_or(Outcome::Requeue, |()| Outcome::Done)
    }
}

/// Nothing that waits for its time takes a slot meanwhile.
async fn delete_batches(mut source: BatchSource, concurrency: NonZeroUsize, store: Store) {
    let mut workers = BatchWorkers::new(concurrency);
    while source.until_due().await.is_some() {
        let slot = workers.slot().await;
        let batch = source.pop_due();
        if !batch.is_empty() {
            workers.spawn(work_off(batch, slot, store.clone()));
        }
    }
    workers.finish().await;
}

async fn work_off(batch: Vec<Request>, slot: Slot, store: Store) {
    let traces = Traces::gather(batch.iter().map(|request| &request.traces));
    let rows = DueRows::of(batch.iter().map(|request| &request.batch));
    traces
        .scope(delete_until_expired(&rows, &traces, slot, &store))
        .await;
    for request in batch {
        if request.done.send(()).is_err() {
            tracing::trace!("deleted after its message was given back");
        }
    }
}

/// Deletes the rows, and repeats that while some have not expired yet: where the database's time was
/// unknown, or its clock was set back since. Rows that expire beyond the horizon are left to the sweep.
async fn delete_until_expired(rows: &DueRows, traces: &Traces, mut slot: Slot, store: &Store) {
    let mut waited = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let mut started = begun;
        let deletion = store
            .until_done(traces, &DELETE, rows.count(), || {
                started = Instant::now();
                delete(store, rows)
            })
            .await;
        DELETE_DURATION.record(begun.elapsed());
        DELETE_ROWS.record(u32::try_from(rows.count()).unwrap_or(u32::MAX));
        let exemplar = traces.exemplar();
        count_deleted(
            DeletedBy::Message,
            &deletion.deleted,
            started.elapsed(),
            exemplar,
        );
        let Some(early) = deletion.early else {
            return;
        };
        EARLY_BATCHES.increment(1);
        tracing::debug!(?early, "a statement came before its rows expired");
        waited += early;
        if waited > HORIZON {
            return;
        }
        slot.release();
        tokio::time::sleep(early).await;
        slot.acquire().await;
    }
}
