//! The messages of `objects.delete` that wait for their rows to expire, and come out in batches.

use std::time::Duration;

use messages::DeleteBatch;
use tokio::sync::{mpsc, oneshot};
// In the tests time is simulated, which only the runtime's own timers follow.
#[cfg(test)]
use tokio::time::sleep;
use trace::TraceSet;

use crate::clock::DatabaseTime;
#[cfg(not(test))]
use crate::precise::sleep;
use crate::schedule::{Limits, Schedule};

/// How far ahead rows may expire for their message to wait. Messages come 250 ms before; rows that
/// expire later were stored while the database's clock was ahead, and are left to the sweep.
pub(crate) const HORIZON: Duration = Duration::from_secs(2);

/// A message to work off. `done` is told when its rows are gone.
pub(crate) struct Request {
    pub(crate) batch: DeleteBatch,
    pub(crate) traces: TraceSet,
    pub(crate) done: oneshot::Sender<()>,
}

/// Gathers the messages whose rows expire together.
pub(crate) struct BatchSource {
    requests: mpsc::Receiver<Request>,
    schedule: Schedule<Request>,
    /// Maximum number of requests that somebody waits for.
    prefetch: usize,
    time: DatabaseTime,
}

impl BatchSource {
    pub(crate) fn new(
        requests: mpsc::Receiver<Request>,
        limits: Limits,
        prefetch: usize,
        time: DatabaseTime,
    ) -> Self {
        Self {
            requests,
            schedule: Schedule::new(limits),
            prefetch,
            time,
        }
    }

    /// Waits until a batch is due by the database's clock. Returns none when all senders are gone: each
    /// waited for its message, so those that are scheduled have gone back to the queue.
    pub(crate) async fn until_due(&mut self) -> Option<()> {
        loop {
            self.schedule_arrived();
            let wait = self.schedule.next_due(self.time.now());
            let wait = wait.unwrap_or(Duration::MAX);
            if wait.is_zero() {
                return Some(());
            }
            tokio::select! {
                request = self.requests.recv() => self.schedule(request?),
                () = sleep(wait) => {}
                () = self.time.changed() => {}
            }
        }
    }

    /// Takes out what is due now. That may be more than when it was waited for, or nothing.
    pub(crate) fn pop_due(&mut self) -> Vec<Request> {
        self.schedule_arrived();
        self.schedule.pop_due(self.time.now())
    }

    fn schedule_arrived(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            self.schedule(request);
        }
    }

    /// Messages go back to the queue with their channel, and come again. If there are more than the
    /// prefetch, some are of a channel that was lost.
    fn schedule(&mut self, request: Request) {
        if self.schedule.len() >= self.prefetch {
            self.schedule.retain(|request| !request.done.is_closed());
        }
        // A message of a version that did not say when its rows expire is due at once, as all that lies in
        // the past.
        let due = request.batch.expires_at.unwrap_or(request.batch.last_seen);
        let rows = request.batch.object_ids.len();
        self.schedule.push(due, rows, request);
    }
}

#[cfg(test)]
mod tests;
