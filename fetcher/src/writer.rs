//! Storing online objects: single ids are gathered into batches; each is one statement, and one
//! message that arms the deletion of its rows. Where the message cannot be published, the janitor
//! finds the rows in the database when they have expired.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Delay, Headers, Publication, Publisher};
use database::{Parameters, Statement, Store, StoreError, Type};
use lifecycle::VitalTask;
use messages::{DeleteBatch, ObjectId};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use trace::Traces;
use worker::Worker;

use crate::arming::delay_queue;
use crate::batch::{BatchLimits, next_batch};
use crate::config::Config;
use crate::metrics::{OBJECTS_STORED, OBJECTS_UNARMED, UPSERT_DURATION, UPSERT_ROWS};

/// How many ids may wait for a batch.
const WAITING: usize = 10_000;

/// A database that was away for longer than this stores objects as of when they were seen. Anything
/// shorter is the time that storing takes.
const DELAY: Duration = Duration::from_secs(1);

/// Ids are sorted: two statements that lock the same rows in different orders deadlock. A row
/// that was stored by a later statement already is left as it is, so `last_seen` never goes
/// backwards; the message of that statement covers it. A row that was seen in the future was stored
/// while the database's clock was ahead. `$3` is how many milliseconds ago the objects were seen. After
/// its deadline, `$4`, the statement does nothing.
///
/// The commit is on disk when it is reported, also where the server says otherwise by default: the
/// message is acked then. Stricter settings stand.
pub const UPSERT: Statement = Statement {
    operation: "INSERT",
    table: "objects",
    text: "
    with moment as (
        select now() - $3::bigint * interval '1 millisecond' as seen
    ),
    stored as (
        insert into objects as o (id, last_seen, expires_at)
        select id, seen, seen + $2::bigint * interval '1 millisecond'
        from unnest($1::bigint[]) as id, moment
        where now() < $4
        on conflict (id) do update
            set last_seen = excluded.last_seen, expires_at = excluded.expires_at
            where o.last_seen < excluded.last_seen
                or o.last_seen > clock_timestamp() + interval '1 second'
        returning 1
    )
    select
        seen,
        seen + $2::bigint * interval '1 millisecond',
        now() < $4,
        (select count(*) from stored),
        (
            select set_config('synchronous_commit', 'on', true)
            where current_setting('synchronous_commit') = 'off'
        )
    from moment",
};

/// An id to store, and who waits for it to be safe.
struct Request {
    id: ObjectId,
    seen: Instant,
    traces: Traces,
    stored: oneshot::Sender<Result<(), NotStored>>,
}

/// What the database says of the rows of one statement, by its clock.
#[derive(Clone, Copy)]
struct Stored {
    last_seen: OffsetDateTime,
    expires_at: OffsetDateTime,
}

/// Why an object is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The writer has ended.
    Ended,
    /// The database was away for so long that the object would have expired by now. Nobody knows
    /// whether it is online still.
    Outdated,
}

/// Stores objects. Clones share batches.
#[derive(Clone)]
pub struct Writer {
    requests: mpsc::Sender<Request>,
}

impl Writer {
    /// Starts the task that gathers batches. It ends when all clones are dropped and what they were
    /// given is stored, or when the shut-down leaves no more time.
    #[must_use]
    pub fn start(config: &Config, worker: &Worker) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let limits = BatchLimits {
            requests: config.write_batch.get(),
            linger: config.write_linger.0,
        };
        let batches = Batches {
            store: worker.store.clone(),
            publisher: worker.publisher.clone(),
            object_ttl: config.object_ttl,
            publish_timeout: config.broker.broker_timeout,
        };
        let (concurrency, stop) = (config.write_concurrency, worker.shutdown.clone());
        let work = async move {
            tokio::select! {
                () = write_batches(receiver, limits, concurrency, batches) => {}
                () = stop.closing() => {}
            }
        };
        (
            Self { requests },
            VitalTask::spawn("writer", &worker.shutdown, work),
        )
    }

    /// Stores an object that was just seen. Returns when its row is committed, however long that takes,
    /// and the message that deletes it is on the broker's disk, if it can be published.
    ///
    /// # Errors
    /// [`NotStored`].
    pub async fn store(&self, id: ObjectId, traces: Traces) -> Result<(), NotStored> {
        let (stored, safe) = oneshot::channel();
        let request = Request {
            id,
            seen: Instant::now(),
            traces,
            stored,
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| NotStored::Ended)?;
        safe.await.unwrap_or(Err(NotStored::Ended))
    }
}

/// While all statements are at work the next batch grows, so that batches are as large as the load
/// makes them and a lone row waits only for `linger`.
async fn write_batches(
    mut requests: mpsc::Receiver<Request>,
    limits: BatchLimits,
    concurrency: NonZeroUsize,
    batches: Batches,
) {
    let slots = Arc::new(Semaphore::new(
        concurrency.get().min(Semaphore::MAX_PERMITS),
    ));
    let mut work = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Some(batch) = next_batch(&mut requests, limits).await else {
            break;
        };
        while work.try_join_next().is_some() {}
        work.spawn(batches.clone().write(batch, slot));
    }
    // Not `join_all`, which panics where one of them did, and ends the others with it.
    while work.join_next().await.is_some() {}
}

fn note_rows(rows: usize) {
    OBJECTS_STORED.increment(rows as u64);
    UPSERT_ROWS.record(u32::try_from(rows).unwrap_or(u32::MAX));
}

#[derive(Clone)]
struct Batches {
    store: Store,
    publisher: Publisher,
    object_ttl: Delay,
    publish_timeout: Duration,
}

impl Batches {
    async fn write(self, batch: Vec<Request>, slot: OwnedSemaphorePermit) {
        let traces = Traces::gather(batch.iter().map(|request| &request.traces));
        traces.scope(self.write_in(&traces, batch, slot)).await;
    }

    async fn write_in(self, traces: &Traces, batch: Vec<Request>, slot: OwnedSemaphorePermit) {
        let mut ids: Vec<i64> = batch.iter().map(|request| request.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let started = Instant::now();
        let seen = batch.iter().map(|request| request.seen).min();
        let seen = seen.unwrap_or(started);
        let stored = self
            .store
            .until_done(traces, &UPSERT, ids.len(), || self.upsert(&ids, seen))
            .await;
        // The next statement need not wait for the broker.
        drop(slot);
        UPSERT_DURATION.record(started.elapsed());
        let stored = match stored {
            Some(stored) => {
                note_rows(ids.len());
                self.arm(stored, &ids, traces.clone()).await;
                Ok(())
            }
            None => Err(NotStored::Outdated),
        };
        for request in batch {
            if request.stored.send(stored).is_err() {
                tracing::trace!(id = %request.id, "stored after its message was given back");
            }
        }
    }

    /// Stores the rows of objects that were seen at `seen`, unless they have expired since.
    async fn upsert(&self, ids: &[i64], seen: Instant) -> Result<Option<Stored>, StoreError> {
        let ttl = i64::from(self.object_ttl.as_millis());
        let waited = seen.elapsed();
        let age = i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
        let age = if waited < DELAY { 0 } else { age };
        if age >= ttl {
            return Ok(None);
        }
        let run = self.store.run(async |client| {
            let parameters: Parameters = &[
                (&ids, Type::INT8_ARRAY),
                (&ttl, Type::INT8),
                (&age, Type::INT8),
                (&self.store.deadline(), Type::TIMESTAMPTZ),
            ];
            let row = client.query_typed_one(UPSERT.text, parameters).await?;
            let stored = Stored {
                last_seen: row.try_get(0)?,
                expires_at: row.try_get(1)?,
            };
            Ok((stored, row.try_get(2)?))
        });
        match run.await? {
            (stored, true) => Ok(Some(stored)),
            (_, false) => Err(StoreError::Late),
        }
    }

    /// After the commit: a row that is not there when its message is worked off would stay.
    async fn arm(&self, stored: Stored, ids: &[i64], traces: Traces) {
        let object_ids = ids.iter().copied().map(ObjectId).collect();
        let batch = DeleteBatch {
            last_seen: stored.last_seen,
            expires_at: Some(stored.expires_at),
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
            OBJECTS_UNARMED.increment(ids.len() as u64);
            tracing::debug!(
                error,
                rows = ids.len(),
                "the sweep has to delete these rows"
            );
        }
    }
}
