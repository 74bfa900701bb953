//! Trying a statement until it is carried out, however long the database is away.

use std::time::Duration;

use tokio::sync::watch;
use trace::TraceSet;

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
        traces: &TraceSet,
        statement: &Statement,
        rows: usize,
        mut attempt: impl FnMut() -> F,
    ) -> T {
        const PAUSE: Duration = Duration::from_millis(250);
        let start = || traces.start(|| statement.span(&self.name, rows));
        let mut span = start();
        let mut is_first = true;
        let mut counted = None;
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
                counted.get_or_insert_with(|| RetryGuard::begin(&self.retries));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Counts one statement that is tried again, until it is dropped.
struct RetryGuard<'a>(&'a watch::Sender<usize>);

impl<'a> RetryGuard<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for RetryGuard<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
