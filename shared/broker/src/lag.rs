//! How long a message had been due at its queue when it was taken.
//!
//! The publisher says by its clock when the message is due, and the consumer compares that with its own
//! clock. On two hosts, the lag is as exact as their clocks agree.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::types::{AMQPValue, FieldTable};

use crate::queue::Queue;

/// Header that says when a message is due at the queue that it is worked on from, in milliseconds
/// since 1970.
pub const DUE_AT_HEADER: &str = "x-due-at";

/// Sets the time at which a message is due that is published to `queue` at `now`.
pub fn set_due(headers: &mut FieldTable, queue: Queue, now: SystemTime) {
    let due = AMQPValue::LongLongInt(millis(now + queue.delay()));
    headers.insert(DUE_AT_HEADER.into(), due);
}

/// How long a message with these headers has been due at `now`. `None` if the headers do not say when
/// it was due.
#[must_use]
pub fn lag(headers: Option<&FieldTable>, now: SystemTime) -> Option<Duration> {
    let due = match headers?.inner().get(DUE_AT_HEADER)? {
        AMQPValue::LongLongInt(due) => *due,
        _ => return None,
    };
    let late = millis(now).saturating_sub(due);
    // Not due yet, if the publisher's clock runs ahead.
    Some(Duration::from_millis(u64::try_from(late).unwrap_or(0)))
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delay::Delay;
    use settings::Value;

    fn published(queue: Queue, at: SystemTime) -> FieldTable {
        let mut headers = FieldTable::default();
        set_due(&mut headers, queue, at);
        headers
    }

    #[test]
    fn a_message_is_due_when_the_delay_of_its_queue_is_over() {
        let now = SystemTime::now();
        let delay = Delay::parse("2s").unwrap();
        for (queue, expected) in [
            (Queue::Fetch, 5),
            (Queue::Retry(delay), 3),
            (Queue::DeleteDelay(delay), 3),
        ] {
            let headers = published(queue, now - Duration::from_secs(5));
            let expected = Duration::from_secs(expected);
            assert_eq!(lag(Some(&headers), now), Some(expected), "{queue:?}");
        }
    }

    #[test]
    fn a_clock_that_runs_ahead_makes_no_lag() {
        let now = SystemTime::now();
        let headers = published(Queue::Fetch, now + Duration::from_secs(5));
        assert_eq!(lag(Some(&headers), now), Some(Duration::ZERO));
    }

    #[test]
    fn a_message_that_does_not_say_when_it_was_due_has_no_lag() {
        let now = SystemTime::now();
        assert_eq!(lag(None, now), None);
        let mut headers = FieldTable::default();
        assert_eq!(lag(Some(&headers), now), None);
        headers.insert(DUE_AT_HEADER.into(), AMQPValue::LongString("noon".into()));
        assert_eq!(lag(Some(&headers), now), None);
    }

    #[test]
    fn nonsensical_times_do_no_harm() {
        for due in [i64::MIN, i64::MAX] {
            let mut headers = FieldTable::default();
            headers.insert(DUE_AT_HEADER.into(), AMQPValue::LongLongInt(due));
            assert!(lag(Some(&headers), SystemTime::now()).is_some());
        }
    }
}
