//! The backstop: rows that are overdue although no message deletes them, such as those whose fetcher
//! died between the commit and the message and found the object offline at the second try.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use shared::shutdown::Shutdown;
use shared::store::{Parameters, Store, StoreError, Type};

use crate::config::Config;

/// Locked rows are in other hands already. The table has no index by expiry (see the migration), so
/// each sweep reads all of it: what is there is what was seen within the last N seconds.
const SWEEP: &str = "
    with overdue as (
        select id from objects
        where expires_at <= now() - $1::bigint * interval '1 millisecond'
        order by id
        limit $2
        for update skip locked
    )
    delete from objects o using overdue where o.id = overdue.id";

/// Looks for overdue rows.
#[derive(Clone)]
pub struct Sweep {
    store: Store,
    interval: Duration,
    grace: Duration,
    batch: NonZeroUsize,
}

impl Sweep {
    /// Sweeps as often as `config` says.
    #[must_use]
    pub fn new(config: &Config, store: Store) -> Self {
        Self {
            store,
            interval: config.sweep_interval,
            grace: config.sweep_grace.0,
            batch: config.sweep_batch,
        }
    }

    /// Sweeps until the shut-down.
    pub async fn run(&self, shutdown: &Shutdown) {
        while shutdown.sleep(self.interval).await {
            tokio::select! {
                swept = self.sweep() => match swept {
                    Ok(0) => {}
                    Ok(rows) => tracing::warn!(rows, "swept up rows that no message had deleted"),
                    Err(error) => tracing::debug!(%error, "could not sweep"),
                },
                () = shutdown.begun() => {}
            }
        }
    }

    /// Deletes all rows that are overdue by more than the grace, and returns how many.
    ///
    /// # Errors
    /// The database failed; what was deleted until then is deleted.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let started = Instant::now();
        let mut swept = 0;
        loop {
            let rows = self.sweep_batch().await?;
            metrics::counter!("objects_deleted_total", "by" => "sweep").increment(rows);
            swept += rows;
            if rows < self.batch.get() as u64 {
                metrics::histogram!("sweep_duration_seconds").record(started.elapsed());
                return Ok(swept);
            }
        }
    }

    async fn sweep_batch(&self) -> Result<u64, StoreError> {
        let grace = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let limit = i64::try_from(self.batch.get()).unwrap_or(i64::MAX);
        self.store
            .run(async |client| {
                let parameters: Parameters = &[(&grace, Type::INT8), (&limit, Type::INT8)];
                client.execute_typed(SWEEP, parameters).await
            })
            .await
    }
}
