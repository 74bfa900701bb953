//! Where an id goes whose look-up failed: to a retry queue, or to `objects.dead`.

use shared::config::{Value, parse_with_envy};
use shared::messages::Attempt;
use shared::topology::{Delay, Queue};

use crate::answer::Failure;

/// The waiting times between the tries of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryDelays(Vec<Delay>);

/// Most delays: each different one has a queue.
const MOST: usize = 32;

impl Value for RetryDelays {
    fn parse(raw: &str) -> Result<Self, String> {
        let delays: Vec<String> = raw.split(',').map(|part| part.trim().to_owned()).collect();
        match parse_with_envy::<Vec<Delay>>(&delays.join(","))? {
            delays if delays.is_empty() => Err("at least one delay is needed".to_owned()),
            delays if delays.len() > MOST => Err(format!("more than {MOST} delays")),
            delays => Ok(Self(delays)),
        }
    }

    fn show(&self) -> String {
        self.0.iter().map(Value::show).collect::<Vec<_>>().join(",")
    }
}

impl RetryDelays {
    /// The retry queues, each once.
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        let mut delays = self.0.clone();
        delays.sort_unstable();
        delays.dedup();
        delays.into_iter().map(Queue::Retry).collect()
    }

    /// The queue for an id whose try `attempt` ended in `failure`. Where the client service asked
    /// to be left alone for longer than the try's own delay, the shortest delay that is long enough
    /// is taken, or the longest there is.
    #[must_use]
    pub fn next(&self, attempt: Attempt, failure: &Failure) -> Queue {
        let tried = attempt.0.get() as usize;
        let Some(own) = self.0.get(tried - 1).filter(|_| failure.reason.may_pass()) else {
            return Queue::Dead;
        };
        let least = own
            .as_duration()
            .max(failure.retry_after.unwrap_or_default());
        let long_enough = self
            .0
            .iter()
            .filter(|delay| delay.as_duration() >= least)
            .min();
        Queue::Retry(*long_enough.or(self.0.iter().max()).unwrap_or(own))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::answer::Reason;

    fn next(attempt: u32, reason: Reason, retry_after: Option<u64>) -> Queue {
        let delays = RetryDelays::parse("1s, 5s,30s").unwrap();
        let failure = Failure {
            reason,
            retry_after: retry_after.map(Duration::from_secs),
        };
        delays.next(Attempt(NonZeroU32::new(attempt).unwrap()), &failure)
    }

    fn retry(delay: &str) -> Queue {
        Queue::Retry(Delay::parse(delay).unwrap())
    }

    #[test]
    fn each_try_waits_longer_until_the_id_is_given_up() {
        assert_eq!(next(1, Reason::Timeout, None), retry("1s"));
        assert_eq!(next(2, Reason::Timeout, None), retry("5s"));
        assert_eq!(next(3, Reason::Timeout, None), retry("30s"));
        assert_eq!(next(4, Reason::Timeout, None), Queue::Dead);
        assert_eq!(next(u32::MAX, Reason::Timeout, None), Queue::Dead);
    }

    #[test]
    fn what_will_not_change_is_given_up_at_once() {
        assert_eq!(next(1, Reason::Refused(403), None), Queue::Dead);
    }

    #[test]
    fn a_client_service_that_asks_for_rest_is_given_it() {
        assert_eq!(next(1, Reason::Status(429), Some(3)), retry("5s"));
        assert_eq!(next(1, Reason::Status(429), Some(0)), retry("1s"));
        assert_eq!(next(1, Reason::Status(429), Some(3_600)), retry("30s"));
    }

    #[test]
    fn a_wrong_list_of_delays_is_refused() {
        for raw in ["", "1s,,5s", "1s,soon", "0s"] {
            assert!(RetryDelays::parse(raw).is_err(), "{raw:?} was accepted");
        }
    }
}
