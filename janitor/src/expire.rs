//! Deleting rows when the message that was armed at their storing comes out of the delay queue.
//!
//! The message says which rows, and up to which `last_seen`: rows seen again since stay, so that a
//! duplicate, late or reordered message does no harm. The database's clock decides whether a row has
//! expired; a message that comes early, because the broker's clock runs ahead, is held back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::batch::{BatchLimits, next_batch};
use shared::consumer::{Handler, Outcome};
use shared::messages::{Attempt, DeleteBatch};
use shared::shutdown::VitalTask;
use shared::store::{Store, StoreError};
use shared::worker::Worker;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::Config;

/// How many messages may wait for a batch.
const WAITING: usize = 1_000;

/// Rows are locked in the order of their ids, as the fetchers do, so that the two never deadlock.
/// `now()` is when the statement began: what has expired by then is deleted after it expired.
const DELETE: &str = "
    with message as (
        select * from unnest($1::bigint[], $2::timestamptz[]) as m(id, last_seen)
    ),
    due as (
        select o.id
        from objects o join message m using (id)
        where o.last_seen <= m.last_seen and o.expires_at <= now()
        order by o.id
        for update of o
    ),
    deleted as (
        delete from objects o using due
        where o.id = due.id and o.expires_at <= now()
        returning o.expires_at
    ),
    early as (
        select max(o.expires_at) - now() as wait
        from objects o join message m using (id)
        where o.last_seen <= m.last_seen and o.expires_at > now()
    )
    select
        (select count(*) from deleted),
        (select extract(epoch from now() - min(expires_at))::float8 from deleted),
        (select extract(epoch from wait)::float8 from early)";

/// What one statement did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expired {
    /// How many rows were deleted.
    pub deleted: u64,
    /// How long the most overdue of them had been expired when the statement began.
    pub lateness: Option<Duration>,
    /// How long until the last of the rows expires that the messages name and that have not yet.
    pub early: Option<Duration>,
}

/// A message to work off, and who waits for its rows to be gone.
struct Request {
    batch: DeleteBatch,
    done: oneshot::Sender<()>,
}

/// Deletes expired rows. Handles the messages of `objects.delete`.
#[derive(Clone)]
pub struct Expirer {
    requests: mpsc::Sender<Request>,
}

impl Expirer {
    /// Starts the task that gathers messages into statements. It ends with the last clone, or when
    /// the shut-down leaves no more time.
    #[must_use]
    pub fn start(config: &Config, worker: &Worker) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let limits = BatchLimits {
            weight: config.delete_batch.get(),
            linger: config.delete_linger.0,
        };
        let concurrency = config.delete_concurrency.get().min(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(concurrency));
        let (store, stop) = (worker.store.clone(), worker.shutdown.clone());
        let work = async move {
            tokio::select! {
                () = delete_batches(receiver, limits, slots, store) => {}
                () = stop.closing() => {}
            }
        };
        (
            Self { requests },
            VitalTask::spawn("expirer", &worker.shutdown, work),
        )
    }
}

impl Handler for Expirer {
    type Message = DeleteBatch;

    async fn handle(&self, batch: DeleteBatch, _: Attempt) -> Outcome {
        let (done, deleted) = oneshot::channel();
        if self.requests.send(Request { batch, done }).await.is_err() {
            return Outcome::Requeue;
        }
        deleted.await.map_or(Outcome::Requeue, |()| Outcome::Done)
    }
}

/// While all statements are at work the next batch grows. Batches that are held back take no slot.
async fn delete_batches(
    mut requests: mpsc::Receiver<Request>,
    limits: BatchLimits,
    slots: Arc<Semaphore>,
    store: Store,
) {
    let mut work = JoinSet::new();
    let weigh = |request: &Request| request.batch.object_ids.len();
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Some(batch) = next_batch(&mut requests, limits, weigh).await else {
            break;
        };
        while work.try_join_next().is_some() {}
        work.spawn(work_off(batch, Arc::clone(&slots), slot, store.clone()));
    }
    // Not `join_all`, which panics where one of them did, and ends the others with it.
    while work.join_next().await.is_some() {}
}

async fn work_off(
    batch: Vec<Request>,
    slots: Arc<Semaphore>,
    slot: OwnedSemaphorePermit,
    store: Store,
) {
    let rows = rows(batch.iter().map(|request| &request.batch));
    let mut slot = Some(slot);
    while let Some(early) = expire_and_count(&store, &rows).await {
        metrics::counter!("early_delete_batches_total").increment(1);
        tracing::debug!(?early, "messages came before their rows expired");
        drop(slot.take());
        tokio::time::sleep(early).await;
        slot = Arc::clone(&slots).acquire_owned().await.ok();
    }
    for request in batch {
        if request.done.send(()).is_err() {
            tracing::trace!("deleted after its message was given back");
        }
    }
}

async fn expire_and_count(store: &Store, rows: &Rows) -> Option<Duration> {
    let mut started = Instant::now();
    let expired = store
        .until_done(|| {
            started = Instant::now();
            expire(store, rows)
        })
        .await;
    metrics::counter!("objects_deleted_total", "by" => "message").increment(expired.deleted);
    if let Some(lateness) = expired.lateness {
        // Until the commit was known here, which is no less than until the commit.
        let lateness = lateness + started.elapsed();
        metrics::histogram!("object_deletion_lateness_seconds").record(lateness);
        metrics::gauge!("object_deletion_last_lateness_seconds").set(lateness);
    }
    expired.early
}

/// Ids, in ascending order, and the `last_seen` up to which each is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    ids: Vec<i64>,
    last_seen: Vec<OffsetDateTime>,
}

/// What several messages name, each id once with its latest `last_seen`.
pub fn rows<'a>(batches: impl IntoIterator<Item = &'a DeleteBatch>) -> Rows {
    let mut latest: BTreeMap<i64, OffsetDateTime> = BTreeMap::new();
    for batch in batches {
        for id in &batch.object_ids {
            let last_seen = latest.entry(id.0).or_insert(batch.last_seen);
            *last_seen = batch.last_seen.max(*last_seen);
        }
    }
    let (ids, last_seen) = latest.into_iter().unzip();
    Rows { ids, last_seen }
}

/// Deletes those of the rows that have expired and were not seen again, in one statement.
///
/// # Errors
/// The statement was not carried out, or is not known to have been; doing it again is harmless.
pub async fn expire(store: &Store, rows: &Rows) -> Result<Expired, StoreError> {
    store
        .run(async |client| {
            let statement = client.prepare_cached(DELETE).await?;
            let row = client
                .query_one(&statement, &[&rows.ids, &rows.last_seen])
                .await?;
            let seconds = |column| -> Result<_, tokio_postgres::Error> {
                let seconds: Option<f64> = row.try_get(column)?;
                Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
            };
            let deleted: i64 = row.try_get(0)?;
            Ok(Expired {
                deleted: deleted.unsigned_abs(),
                lateness: seconds(1)?,
                early: seconds(2)?,
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use shared::messages::ObjectId;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_id_in_several_messages_is_deleted_up_to_the_latest() {
        let (early, late) = (
            datetime!(2026-01-01 00:00 UTC),
            datetime!(2026-01-01 00:01 UTC),
        );
        let batch = |last_seen, ids: &[i64]| DeleteBatch {
            last_seen,
            object_ids: ids.iter().copied().map(ObjectId).collect(),
        };
        let rows = rows(&[batch(late, &[3, 1]), batch(early, &[2, 3])]);
        assert_eq!(
            rows,
            Rows {
                ids: vec![1, 2, 3],
                last_seen: vec![late, early, late]
            }
        );
    }
}
