//! Trying a statement until it is carried out, however long the database is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use trace::Traces;

use crate::error::StoreError;
use crate::metrics::CONFLICTS;
use crate::statement::Statement;
use crate::store::Store;

impl Store {
    /// Tries until `attempt` has carried out `statement`, on `rows` rows, however long the database is
    /// away. Its span is in each of the `traces` that the rows belong to. The first attempt has one span
    /// and all further attempts share one, so that an outage does not flood the traces.
    pub async fn until_done<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        traces: &Traces,
        statement: &Statement,
        rows: usize,
        mut attempt: impl FnMut() -> F,
    ) -> T {
        const PAUSE: Duration = Duration::from_millis(250);
        let start = || traces.start(|| statement.span(&self.name, rows));
        let mut span = start();
        let mut is_first = true;
        let mut retrying = None;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    span.done();
                    return value;
                }
                Err(error) => error,
            };
            if std::mem::take(&mut is_first) {
                error.mark(&mut span);
                span = start();
            }
            span.fails_unless_done("given up", &error);
            if error.is_conflict() {
                CONFLICTS.increment(1);
            } else {
                self.dependency.down(&error);
                retrying.get_or_insert_with(|| self.retry_count.begin());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The number of statements that have failed and are tried again.
#[derive(Default)]
pub(crate) struct RetryCount {
    count: AtomicUsize,
    pub(crate) changed: Notify,
}

impl RetryCount {
    fn begin(self: &Arc<Self>) -> RetryGuard {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        RetryGuard(Arc::clone(self))
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}

/// Counts one statement until it is dropped.
struct RetryGuard(Arc<RetryCount>);

impl Drop for RetryGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}
