//! Deleting rows at their expiry. The message that was armed at their storing comes out of the delay
//! queue a little before, and is held until then.
//!
//! What the database's clock shows is known here well enough to begin a statement in time, but each
//! statement looks for itself: where it comes early nevertheless, it deletes what has expired, and
//! waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Handler, Headers, Outcome};
use database::Store;
use lifecycle::VitalTask;
use messages::DeleteBatch;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use trace::Traces;
use worker::Worker;

use crate::clock::DatabaseTime;
use crate::config::Config;
use crate::expire::{DELETE, Rows, expire, note, rows};
use crate::metrics::{DELETE_DURATION, DELETE_ROWS, DeletedBy, EARLY_BATCHES};
use crate::schedule::{Limits, Schedule};

/// How many messages may wait to be put into the schedule, as they do while all slots are taken.
const WAITING: usize = 1_000;

/// How far ahead rows may expire for their message to be held. Messages come 250 ms before; rows that
/// expire later were stored while the database's clock was ahead, and are left to the sweep.
const HORIZON: Duration = Duration::from_secs(2);

/// A message to work off, and who waits for its rows to be gone.
struct Request {
    batch: DeleteBatch,
    traces: Traces,
    done: oneshot::Sender<()>,
}

impl Request {
    /// When its rows expire. Where it does not say so it is due at once, as whatever lies in the
    /// past.
    fn due(&self) -> OffsetDateTime {
        self.batch.expires_at.unwrap_or(self.batch.last_seen)
    }
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
    pub fn start(config: &Config, worker: &Worker, time: DatabaseTime) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let limits = Limits {
            weight: config.delete_batch.get(),
            linger: config.delete_linger.0,
            horizon: HORIZON,
        };
        let batches = Batches {
            requests: receiver,
            schedule: Schedule::new(limits),
            prefetch: config.delete_prefetch.get().into(),
            time,
        };
        let concurrency = config.delete_concurrency.get().min(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(concurrency));
        let (store, stop) = (worker.store.clone(), worker.shutdown.clone());
        let work = async move {
            tokio::select! {
                () = delete_batches(batches, slots, store) => {}
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

/// The messages that wait for their rows to expire.
struct Batches {
    requests: mpsc::Receiver<Request>,
    schedule: Schedule<Request>,
    /// Maximum number of requests that somebody waits for.
    prefetch: usize,
    time: DatabaseTime,
}

impl Batches {
    /// Waits until a batch is due by the database's clock. `None` when all senders are gone: each
    /// waited for its message, so those that are held have gone back to the queue.
    async fn due(&mut self) -> Option<()> {
        loop {
            self.hold_arrived();
            let wait = self.schedule.wait(self.time.now());
            let wait = wait.unwrap_or(Duration::MAX);
            if wait.is_zero() {
                return Some(());
            }
            tokio::select! {
                request = self.requests.recv() => self.hold(request?),
                () = tokio::time::sleep(wait) => {}
                () = self.time.changed() => {}
            }
        }
    }

    /// What is due now; it may be more than when it was waited for, or nothing.
    fn take(&mut self) -> Vec<Request> {
        self.hold_arrived();
        self.schedule.take(self.time.now())
    }

    fn hold_arrived(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            self.hold(request);
        }
    }

    /// Messages go back to the queue with their channel, and come again. If more than the prefetch
    /// are held, some are of a channel that was lost.
    fn hold(&mut self, request: Request) {
        if self.schedule.len() >= self.prefetch {
            self.schedule.retain(|held| !held.done.is_closed());
        }
        let (due, rows) = (request.due(), request.batch.object_ids.len());
        self.schedule.hold(due, rows, request);
    }
}

/// While all statements are at work the next batch grows. Nothing that waits for its time takes a
/// slot meanwhile.
async fn delete_batches(mut batches: Batches, slots: Arc<Semaphore>, store: Store) {
    let mut work = JoinSet::new();
    while batches.due().await.is_some() {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        while work.try_join_next().is_some() {}
        let batch = batches.take();
        if !batch.is_empty() {
            work.spawn(work_off(batch, Arc::clone(&slots), slot, store.clone()));
        }
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
    let traces = Traces::gather(batch.iter().map(|request| &request.traces));
    let rows = rows(batch.iter().map(|request| &request.batch));
    traces
        .scope(until_expired(&rows, &traces, &slots, slot, &store))
        .await;
    for request in batch {
        if request.done.send(()).is_err() {
            tracing::trace!("deleted after its message was given back");
        }
    }
}

/// Deletes the rows, each of those that have not expired yet when it has: where the database's time
/// was unknown, or its clock was set back since. Rows that expire beyond the horizon are left to the
/// sweep.
async fn until_expired(
    rows: &Rows,
    traces: &Traces,
    slots: &Arc<Semaphore>,
    slot: OwnedSemaphorePermit,
    store: &Store,
) {
    let mut slot = Some(slot);
    let mut waited = Duration::ZERO;
    while let Some(early) = expire_and_count(store, rows, traces).await {
        EARLY_BATCHES.increment(1);
        tracing::debug!(?early, "a statement came before its rows expired");
        waited += early;
        if waited > HORIZON {
            return;
        }
        drop(slot.take());
        tokio::time::sleep(early).await;
        slot = Arc::clone(slots).acquire_owned().await.ok();
    }
}

async fn expire_and_count(store: &Store, rows: &Rows, traces: &Traces) -> Option<Duration> {
    let begun = Instant::now();
    let mut started = begun;
    let expired = store
        .until_done(traces, &DELETE, rows.count(), || {
            started = Instant::now();
            expire(store, rows)
        })
        .await;
    DELETE_DURATION.record(begun.elapsed());
    DELETE_ROWS.record(u32::try_from(rows.count()).unwrap_or(u32::MAX));
    note(DeletedBy::Message, &expired.deleted, started.elapsed());
    expired.early
}

#[cfg(test)]
mod tests {
    use messages::ObjectId;
    use time::macros::datetime;
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::clock::{Answer, Clock};

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const LONG_AGO: OffsetDateTime = datetime!(2026-01-01 11:00 UTC);
    const PREFETCH: usize = 10;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// An answer that took no time.
    fn answer(shown: OffsetDateTime) -> Answer {
        let now = Instant::now();
        Answer {
            asked: now,
            shown,
            answered: now,
        }
    }

    struct Held {
        batches: Batches,
        requests: mpsc::Sender<Request>,
        clock: Clock,
        start: Instant,
    }

    impl Held {
        /// It is noon at the database, which is not known yet.
        fn new() -> Self {
            let (clock, time) = Clock::new();
            let (requests, receiver) = mpsc::channel(WAITING);
            let limits = Limits {
                weight: 100,
                linger: millis(2),
                horizon: HORIZON,
            };
            let batches = Batches {
                requests: receiver,
                schedule: Schedule::new(limits),
                prefetch: PREFETCH,
                time,
            };
            Self {
                batches,
                requests,
                clock,
                start: Instant::now(),
            }
        }

        fn at_noon() -> Self {
            let mut held = Self::new();
            held.clock.note(Ok(answer(NOON)));
            held
        }

        /// Returns the receiver that is told of its end.
        async fn send(&self, id: i64, expires_at: Option<OffsetDateTime>) -> oneshot::Receiver<()> {
            let (done, waits) = oneshot::channel();
            let batch = DeleteBatch {
                last_seen: LONG_AGO,
                expires_at,
                object_ids: vec![ObjectId(id)],
            };
            let request = Request {
                batch,
                traces: Traces::default(),
                done,
            };
            assert!(self.requests.send(request).await.is_ok());
            waits
        }

        /// The ids of the next batch, and how long after noon it was given out.
        async fn next(&mut self) -> (Vec<i64>, Duration) {
            self.batches.due().await.unwrap();
            let batch = self.batches.take();
            let ids = batch.iter().map(|request| request.batch.object_ids[0].0);
            (ids.collect(), self.start.elapsed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_held_until_their_rows_expire() {
        let mut held = Held::at_noon();
        for (id, expiry) in [(1, 50), (2, 80), (3, 81), (4, 20)] {
            held.send(id, Some(NOON + millis(expiry))).await;
        }
        assert_eq!(held.next().await, (vec![4], millis(20)));
        assert_eq!(held.next().await, (vec![1], millis(50)));
        assert_eq!(held.next().await, (vec![2, 3], millis(81)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_whose_rows_have_expired_passes_those_that_are_held() {
        let mut held = Held::at_noon();
        held.send(1, Some(NOON + millis(90))).await;
        held.send(2, Some(NOON - millis(1))).await;
        held.send(3, None).await;
        assert_eq!(held.next().await, (vec![3, 2], millis(0)));
        assert_eq!(held.next().await, (vec![1], millis(90)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_while_others_are_held_is_held_in_its_place() {
        let mut held = Held::at_noon();
        held.send(1, Some(NOON + millis(90))).await;
        let cut_short = tokio::time::timeout(millis(30), held.next()).await;
        assert!(cut_short.is_err(), "{cut_short:?}");
        held.send(2, Some(NOON + millis(40))).await;
        assert_eq!(held.next().await, (vec![2], millis(40)));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_due_at_once_while_the_time_is_unknown() {
        let mut held = Held::new();
        held.send(1, Some(NOON + millis(90))).await;
        assert_eq!(held.next().await, (vec![1], millis(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_while_messages_are_held_makes_them_due() {
        let hour = time::Duration::HOUR;
        for set_to in [NOON + hour, NOON - hour] {
            let mut held = Held::at_noon();
            held.send(1, Some(NOON + HORIZON)).await;
            let Held { batches, clock, .. } = &mut held;
            let setting = async {
                advance(millis(1_000)).await;
                clock.note(Ok(answer(set_to)));
            };
            let (due, ()) = tokio::join!(batches.due(), setting);
            assert!(due.is_some());
            assert_eq!(batches.take().len(), 1);
            assert_eq!(held.start.elapsed(), millis(1_000));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_whose_rows_expire_beyond_the_horizon_is_not_held() {
        let mut held = Held::at_noon();
        held.send(1, Some(datetime!(9999-12-31 23:59:59 UTC))).await;
        held.send(2, Some(NOON + millis(90))).await;
        assert_eq!(held.next().await, (vec![1], millis(0)));
        assert_eq!(held.next().await, (vec![2], millis(90)));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_lost_channels_leave_the_schedule() {
        let mut held = Held::at_noon();
        let (first, second) = (NOON + millis(80), NOON + millis(90));
        let waits = held.send(0, Some(first)).await;
        for _ in 0..5 {
            for id in 1..10 {
                drop(held.send(id, Some(second)).await);
            }
            held.batches.hold_arrived();
            assert!(held.batches.schedule.len() <= PREFETCH);
        }
        assert_eq!(held.next().await, (vec![0], millis(80)));
        drop(waits);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_ends_with_those_who_wait_for_it() {
        let held = Held::at_noon();
        held.send(1, Some(NOON + millis(90))).await;
        let Held {
            mut batches,
            requests,
            ..
        } = held;
        drop(requests);
        assert!(batches.due().await.is_none());
    }
}
