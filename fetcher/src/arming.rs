//! How long the message that deletes a batch of rows waits in the broker: a little less than the
//! rows live, so that the janitor has it when they expire.

use std::time::Duration;

use broker::{Delay, Queue};

/// How long before the rows expire their message leaves the delay queue. It is published after they
/// are committed, some milliseconds after their time began, and the broker passes it on late: at
/// 1,000 messages a second by 19 ms in one case of a hundred. On a busy host all of this together was
/// seen to take up to 213 ms. The janitor holds the message for the rest of the lead. Messages that it holds
/// count towards `DELETE_PREFETCH`, so the lead is no longer than it has to be.
const LEAD: Duration = Duration::from_millis(250);

/// The queue in which the messages for rows that live for `object_ttl` wait.
#[must_use]
pub fn delay_queue(object_ttl: Delay) -> Queue {
    Queue::DeleteDelay(object_ttl.shorter_by(LEAD))
}

#[cfg(test)]
mod tests {
    use settings::Value;

    use super::*;

    #[test]
    fn a_message_comes_out_of_its_queue_a_quarter_of_a_second_before_its_rows_expire() {
        for (object_ttl, delay) in [
            ("30s", "29750ms"),
            ("1s", "750ms"),
            ("500ms", "250ms"),
            ("100ms", "50ms"),
            ("3ms", "2ms"),
            ("1ms", "1ms"),
        ] {
            let object_ttl = Delay::parse(object_ttl).unwrap();
            let delay = Delay::parse(delay).unwrap();
            assert_eq!(delay_queue(object_ttl), Queue::DeleteDelay(delay));
        }
    }
}
