//! The time by the database's clock, which alone says when a row expires.
//!
//! The database is asked for its time every second. In between, this process's monotonic clock counts on
//! from the answers. Only what is certain counts: the database's clock showed an answer's time at the
//! latest when the answer came. Of several answers the one that travelled fastest is the best, and it
//! is behind the truth by no more than its round trip. This host's wall clock is not used.

use std::collections::VecDeque;
use std::time::Duration;

use database::{Store, StoreError};
use lifecycle::Shutdown;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

const TIME: &str = "select clock_timestamp()";

/// How often the database is asked for its time.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many answers count: enough for one of them to have come without delay, and so few that two clocks do not
/// drift apart meanwhile.
const READINGS: usize = 5;

/// The database's clock showed `shown` after it was asked, and before it had answered.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When the database was asked, by this process's clock.
    pub asked: Instant,
    /// What the database's clock showed.
    pub shown: OffsetDateTime,
    /// When the answer came, by this process's clock.
    pub answered: Instant,
}

/// Bounds, according to one answer, of what the database's clock showed at the start.
#[derive(Clone, Copy)]
struct Reading {
    min: OffsetDateTime,
    max: OffsetDateTime,
}

impl Reading {
    fn agrees(self, other: Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// Asks the database for its time.
pub struct Clock {
    start: Instant,
    readings: VecDeque<Reading>,
    at_start: watch::Sender<Option<OffsetDateTime>>,
}

/// Tells the database's time. Clones tell the same.
#[derive(Clone)]
pub struct DatabaseTime {
    start: Instant,
    at_start: watch::Receiver<Option<OffsetDateTime>>,
}

impl Clock {
    /// The time is unknown at first.
    #[must_use]
    pub fn new() -> (Self, DatabaseTime) {
        let start = Instant::now();
        let (sender, at_start) = watch::channel(None);
        let clock = Self {
            start,
            readings: VecDeque::new(),
            at_start: sender,
        };
        (clock, DatabaseTime { start, at_start })
    }

    /// Asks until the shut-down. While the database does not answer, its time is unknown: the next server
    /// that answers may be another one.
    pub(crate) async fn run(mut self, store: &Store, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                answer = ask_time(store) => self.note(answer),
                () = shutdown.begun() => return,
            }
            if !shutdown.sleep(INTERVAL).await {
                return;
            }
        }
    }

    /// Takes an answer into account, or that there was none.
    pub fn note(&mut self, answer: Result<Answer, StoreError>) {
        match answer {
            Ok(answer) => self.take(answer),
            Err(error) => {
                tracing::debug!(%error, "the database did not tell its time");
                self.readings.clear();
            }
        }
        let at_start = self.readings.iter().map(|reading| reading.min).max();
        self.at_start.send_replace(at_start);
    }

    /// An earlier answer that cannot be right if this one is was given before somebody set the clock.
    fn take(&mut self, answer: Answer) {
        let reading = Reading {
            min: answer.shown - (answer.answered - self.start),
            max: answer.shown - (answer.asked - self.start),
        };
        self.readings.retain(|earlier| earlier.agrees(reading));
        self.readings.push_back(reading);
        if self.readings.len() > READINGS {
            self.readings.pop_front();
        }
    }
}

impl DatabaseTime {
    /// A time that the database's clock shows now, or has passed. None while it is unknown.
    #[must_use]
    pub fn now(&self) -> Option<OffsetDateTime> {
        let at_start = *self.at_start.borrow();
        at_start.map(|at_start| at_start + self.start.elapsed())
    }

    /// Waits until more is known than before, or for ever when the clock has stopped.
    pub(crate) async fn changed(&mut self) {
        if self.at_start.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Asks the database for its time.
///
/// # Errors
/// The database did not answer.
pub async fn ask_time(store: &Store) -> Result<Answer, StoreError> {
    store
        .run(async |client| {
            let asked = Instant::now();
            let row = client.query_typed_one(TIME, &[]).await?;
            let answered = Instant::now();
            let shown = row.try_get(0)?;
            Ok(Answer {
                asked,
                shown,
                answered,
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const MILLISECOND: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// An answer that shows `shown`, after a way there and a way back.
    async fn answer(shown: OffsetDateTime, there: Duration, back: Duration) -> Answer {
        let asked = Instant::now();
        tokio::time::advance(there + back).await;
        let answered = Instant::now();
        Answer {
            asked,
            shown,
            answered,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_unknown_until_the_database_answers_and_when_it_does_no_more() {
        let (mut clock, time) = Clock::new();
        assert_eq!(time.now(), None);
        clock.note(Ok(answer(NOON, MILLISECOND, MILLISECOND).await));
        assert!(time.now().is_some());
        clock.note(Err(StoreError::Timeout));
        assert_eq!(time.now(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_goes_on_from_the_answer_that_came_back_fastest_and_is_never_ahead() {
        let (mut clock, time) = Clock::new();
        let start = Instant::now();
        for (there, back) in [(7, 30), (9, 2), (1, 80)] {
            let (there, back) = (MILLISECOND * there, MILLISECOND * back);
            let shown = NOON + start.elapsed() + there;
            clock.note(Ok(answer(shown, there, back).await));
            assert!(time.now().unwrap() <= NOON + start.elapsed());
            tokio::time::advance(SECOND).await;
        }
        assert_eq!(time.now(), Some(NOON + start.elapsed() - 2 * MILLISECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_believed_at_its_next_answer() {
        let (mut clock, time) = Clock::new();
        let start = Instant::now();
        for set_to in [NOON, NOON - 5 * SECOND, NOON + 90 * SECOND] {
            let shown = set_to + start.elapsed() + MILLISECOND;
            clock.note(Ok(answer(shown, MILLISECOND, MILLISECOND).await));
            assert_eq!(time.now(), Some(set_to + start.elapsed() - MILLISECOND));
            tokio::time::advance(SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_drifts_is_followed() {
        let (mut clock, time) = Clock::new();
        let start = Instant::now();
        // Slower than ours by 0.1 %, which no two answers contradict by itself.
        for second in 0..60 {
            let shown = NOON + start.elapsed().mul_f64(0.999);
            clock.note(Ok(answer(shown, Duration::ZERO, 20 * MILLISECOND).await));
            let ahead = time.now().unwrap() - (NOON + start.elapsed().mul_f64(0.999));
            assert!(ahead < 5 * MILLISECOND, "by {ahead} after {second} s");
            tokio::time::advance(SECOND).await;
        }
    }
}
