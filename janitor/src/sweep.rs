//! The second leg of deletion: rows that are overdue although no message has deleted them.
//!
//! A message is exact, but not every row has one: its fetcher died between the commit and the message,
//! the broker took no messages, or somebody deleted the queue. The sweep needs nothing but the
//! database, which knows when each row expires.

use std::num::NonZeroUsize;
use std::time::Duration;

use database::{Parameters, Store, StoreError, Type};
use lifecycle::Shutdown;
use tokio::time::Instant;

use crate::config::Config;
use crate::delete::{DeletedRows, count_deleted, deleted_rows};
use crate::metrics::{DeletedBy, OBJECTS_SET_RIGHT, SWEEP_DURATION, SWEEP_FAILURES};

/// Deletes up to $3 rows that are overdue by more than $1 ms, and by no more than $2 ms above that. The
/// index on `expires_at` leads to them. Rows that another statement has locked are left to it: this one
/// waits for no lock, so that the order of its own locks does not matter.
pub const OVERDUE: &str = "
    with overdue as (
        select id from objects
        where expires_at <= now() - $1::bigint * interval '1 millisecond'
            and expires_at > now() - ($1::bigint + $2::bigint) * interval '1 millisecond'
        order by expires_at
        limit $3
        for update skip locked
    ),
    deleted as (
        delete from objects
        where id = any (array(select id from overdue))
        returning expires_at
    ),
    late as (
        select extract(epoch from now() - expires_at)::float8 as seconds, count(*) as rows
        from deleted
        group by expires_at
    )
    select
        coalesce(array_agg(seconds order by seconds), '{}'),
        coalesce(array_agg(rows order by seconds), '{}')
    from late";

/// Sets rows right that were stored while the database's clock was ahead: they live on as if they had
/// been seen now. The row does not say by how much the clock was ahead, and a deletion is never early.
/// Of rows that live equally long these expire last, so that only the last $1 rows are read.
pub const AHEAD: &str = "
    with last as (
        select id, last_seen from objects order by expires_at desc limit $1
    ),
    ahead as (
        select id from objects
        where id = any (array(
                select id from last where last_seen > clock_timestamp() + interval '1 second'
            ))
            and last_seen > clock_timestamp() + interval '1 second'
        for update skip locked
    )
    update objects
    set last_seen = now(),
        expires_at = now() + extract(epoch from expires_at - last_seen) * interval '1 second'
    where id = any (array(select id from ahead))";

/// How far back most sweeps look. An old transaction keeps the server from removing deleted rows, and
/// a sweep reads all those within its reach: 10 million take a second or more.
const RECENT: Duration = Duration::from_mins(1);

/// How often a sweep looks back without a limit. It finds rows that became overdue while no janitor
/// swept, or whose locks an outage left behind.
const FULL_INTERVAL: Duration = Duration::from_secs(10);

/// More than any row can be overdue, in milliseconds: 1,000 years.
const EVER: i64 = 1_000 * 365 * 24 * 3_600 * 1_000;

/// Deletes overdue rows.
pub(crate) struct Sweep {
    store: Store,
    interval: Duration,
    grace: Duration,
    batch: NonZeroUsize,
    /// When to look back without a limit the next time.
    next_full: Instant,
    /// Whether the last sweep failed.
    is_failing: bool,
}

impl Sweep {
    pub(crate) fn new(config: &Config, store: Store) -> Self {
        Self {
            store,
            interval: config.sweep_interval,
            grace: config.sweep_grace.0,
            batch: config.sweep_batch,
            next_full: Instant::now(),
            is_failing: false,
        }
    }

    pub(crate) async fn run(&mut self, shutdown: &Shutdown) {
        while shutdown.sleep(self.interval).await {
            tokio::select! {
                swept = self.sweep() => self.report(swept),
                () = shutdown.begun() => {}
            }
        }
    }

    /// Logs the first failure of several, and their end.
    fn report(&mut self, swept: Result<(), StoreError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, swept.is_err());
        match swept {
            Ok(()) if was_failing => tracing::info!("sweeping again"),
            Ok(()) => {}
            Err(error) => {
                SWEEP_FAILURES.increment(1);
                if !was_failing {
                    tracing::warn!(%error, "could not sweep: overdue rows without a message stay");
                }
            }
        }
    }

    /// Deletes all rows that are overdue by more than the grace, and sets right those that were stored
    /// while the database's clock was ahead. After an error, what was done until then stays done.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let started = Instant::now();
        let within = if self.next_full <= started {
            self.next_full = started + FULL_INTERVAL;
            EVER
        } else {
            millis(RECENT)
        };
        self.delete_overdue(within).await?;
        self.correct_times().await?;
        SWEEP_DURATION.record(started.elapsed());
        Ok(())
    }

    /// Pauses between two statements for as long as the first one took, and leaves the database to others.
    async fn delete_overdue(&self, within: i64) -> Result<(), StoreError> {
        loop {
            let started = Instant::now();
            let deleted = self.delete_batch(within).await?;
            let elapsed = started.elapsed();
            count_deleted(DeletedBy::Sweep, &deleted, elapsed, None);
            let rows: u64 = deleted.iter().map(|rows| rows.count).sum();
            if rows > 0 {
                tracing::debug!(rows, "deleted overdue rows");
            }
            if rows < self.batch.get() as u64 {
                return Ok(());
            }
            tokio::time::sleep(elapsed).await;
        }
    }

    async fn delete_batch(&self, within: i64) -> Result<Vec<DeletedRows>, StoreError> {
        let (grace, limit) = (millis(self.grace), self.limit());
        self.store
            .run(async |client| {
                let parameters: Parameters = &[
                    (&grace, Type::INT8),
                    (&within, Type::INT8),
                    (&limit, Type::INT8),
                ];
                deleted_rows(&client.query_typed_one(OVERDUE, parameters).await?)
            })
            .await
    }

    async fn correct_times(&self) -> Result<(), StoreError> {
        loop {
            let rows = self.correct_batch().await?;
            OBJECTS_SET_RIGHT.increment(rows);
            if rows > 0 {
                tracing::warn!(
                    rows,
                    "rows were stored while the database's clock was ahead; they live on as if seen now"
                );
            }
            if rows < self.batch.get() as u64 {
                return Ok(());
            }
        }
    }

    async fn correct_batch(&self) -> Result<u64, StoreError> {
        let limit = self.limit();
        self.store
            .run(async |client| client.execute_typed(AHEAD, &[(&limit, Type::INT8)]).await)
            .await
    }

    fn limit(&self) -> i64 {
        i64::try_from(self.batch.get()).unwrap_or(i64::MAX)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
