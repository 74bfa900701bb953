//! The watch over the health of the database.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use lifecycle::Shutdown;

use crate::error::StoreError;
use crate::store::Store;

/// The time between two looks at a database that is up.
const INTERVAL: Duration = Duration::from_secs(2);

/// The time between two looks at a database that is down.
const PAUSE: Duration = Duration::from_millis(500);

impl Store {
    /// Waits, until the shut-down begins, for the database to answer, to take writes and to have the
    /// schema, which is laid if it is missing or older than needed.
    pub async fn ready(&self, shutdown: &Shutdown) {
        const PAUSES: ConstantBuilder =
            ConstantBuilder::new().with_delay(PAUSE).without_max_times();
        let check = || async {
            Box::pin(self.check()).await;
            self.dependency.is_up().then_some(()).ok_or(())
        };
        tokio::select! {
            Ok(()) = check.retry(PAUSES) => {}
            () = shutdown.begun() => {}
        }
    }

    /// Looks at the database until the shut-down: every two seconds, so that `/readyz` is right also when
    /// nothing is stored, more often while the database is down, and when a statement fails or succeeds
    /// after failures.
    pub async fn watch(&self, shutdown: &Shutdown) {
        let mut retries = self.retries.subscribe();
        loop {
            let pause = if self.dependency.is_up() {
                INTERVAL
            } else {
                PAUSE
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = retries.changed() => {}
                () = shutdown.begun() => return,
            }
            tokio::select! {
                () = Box::pin(self.check()) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// The database is up when its schema is there and no statement is being tried again.
    async fn check(&self) {
        match self.ensure_schema().await {
            Ok(()) if *self.retries.borrow() == 0 => self.dependency.up(),
            Ok(()) => {}
            Err(error) => self.dependency.down(&error),
        }
    }

    /// Returns when the database no longer answers.
    pub(crate) async fn until_down(&self) -> StoreError {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.look().await {
                return error;
            }
        }
    }
}
