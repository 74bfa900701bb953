use messages::ObjectId;
use time::OffsetDateTime;
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

struct Fixture {
    source: BatchSource,
    requests: mpsc::Sender<Request>,
    clock: Clock,
    start: Instant,
}

impl Fixture {
    /// It is noon at the database, which is not known yet.
    fn new() -> Self {
        let (clock, time) = Clock::new();
        let (requests, receiver) = mpsc::channel(100);
        let limits = Limits {
            weight: 100,
            linger: millis(2),
            horizon: HORIZON,
        };
        Self {
            source: BatchSource::new(receiver, limits, PREFETCH, time),
            requests,
            clock,
            start: Instant::now(),
        }
    }

    fn at_noon() -> Self {
        let mut fixture = Self::new();
        fixture.clock.note(Ok(answer(NOON)));
        fixture
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
            traces: TraceSet::default(),
            done,
        };
        assert!(self.requests.send(request).await.is_ok());
        waits
    }

    /// The ids of the next batch, and how long after noon it was given out.
    async fn next(&mut self) -> (Vec<i64>, Duration) {
        self.source.until_due().await.unwrap();
        let batch = self.source.pop_due();
        let ids = batch.iter().map(|request| request.batch.object_ids[0].0);
        (ids.collect(), self.start.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn messages_wait_until_their_rows_expire() {
    let mut fixture = Fixture::at_noon();
    for (id, expiry) in [(1, 50), (2, 80), (3, 81), (4, 20)] {
        fixture.send(id, Some(NOON + millis(expiry))).await;
    }
    assert_eq!(fixture.next().await, (vec![4], millis(20)));
    assert_eq!(fixture.next().await, (vec![1], millis(50)));
    assert_eq!(fixture.next().await, (vec![2, 3], millis(81)));
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_rows_have_expired_passes_those_that_wait() {
    let mut fixture = Fixture::at_noon();
    fixture.send(1, Some(NOON + millis(90))).await;
    fixture.send(2, Some(NOON - millis(1))).await;
    fixture.send(3, None).await;
    assert_eq!(fixture.next().await, (vec![3, 2], millis(0)));
    assert_eq!(fixture.next().await, (vec![1], millis(90)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_while_others_wait_takes_its_place_among_them() {
    let mut fixture = Fixture::at_noon();
    fixture.send(1, Some(NOON + millis(90))).await;
    let cut_short = tokio::time::timeout(millis(30), fixture.next()).await;
    assert!(cut_short.is_err(), "{cut_short:?}");
    fixture.send(2, Some(NOON + millis(40))).await;
    assert_eq!(fixture.next().await, (vec![2], millis(40)));
}

#[tokio::test(start_paused = true)]
async fn messages_are_due_at_once_while_the_time_is_unknown() {
    let mut fixture = Fixture::new();
    fixture.send(1, Some(NOON + millis(90))).await;
    assert_eq!(fixture.next().await, (vec![1], millis(0)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_while_messages_wait_makes_them_due() {
    let hour = time::Duration::HOUR;
    for set_to in [NOON + hour, NOON - hour] {
        let mut fixture = Fixture::at_noon();
        fixture.send(1, Some(NOON + HORIZON)).await;
        let Fixture { source, clock, .. } = &mut fixture;
        let setting = async {
            advance(millis(1_000)).await;
            clock.note(Ok(answer(set_to)));
        };
        let (due, ()) = tokio::join!(source.until_due(), setting);
        assert!(due.is_some());
        assert_eq!(source.pop_due().len(), 1);
        assert_eq!(fixture.start.elapsed(), millis(1_000));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_rows_expire_beyond_the_horizon_does_not_wait() {
    let mut fixture = Fixture::at_noon();
    fixture
        .send(1, Some(datetime!(9999-12-31 23:59:59 UTC)))
        .await;
    fixture.send(2, Some(NOON + millis(90))).await;
    assert_eq!(fixture.next().await, (vec![1], millis(0)));
    assert_eq!(fixture.next().await, (vec![2], millis(90)));
}

#[tokio::test(start_paused = true)]
async fn messages_of_lost_channels_leave_the_schedule() {
    let mut fixture = Fixture::at_noon();
    let (first, second) = (NOON + millis(80), NOON + millis(90));
    let waits = fixture.send(0, Some(first)).await;
    for _ in 0..5 {
        for id in 1..10 {
            drop(fixture.send(id, Some(second)).await);
        }
        fixture.source.schedule_arrived();
        assert!(fixture.source.schedule.len() <= PREFETCH);
    }
    assert_eq!(fixture.next().await, (vec![0], millis(80)));
    drop(waits);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_senders() {
    let fixture = Fixture::at_noon();
    fixture.send(1, Some(NOON + millis(90))).await;
    let Fixture {
        mut source,
        requests,
        ..
    } = fixture;
    drop(requests);
    assert!(source.until_due().await.is_none());
}
