//! Where an id goes whose look-up failed: to a retry queue, to `objects.dead`, or nowhere.

use std::time::Duration;

use broker::{Attempt, Delay, Queue};
use settings::Value;

use crate::answer::{Failure, Reason};

/// The delays before the further tries of a look-up, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryLadder(Vec<Delay>);

/// Maximum number of delays. Each different one has a queue.
const MAX_DELAYS: usize = 32;

impl Value for RetryLadder {
    fn parse(raw: &str) -> Result<Self, String> {
        if raw.is_empty() {
            return Err("at least one delay is needed".to_owned());
        }
        let delays: Result<Vec<_>, _> = raw.split(',').map(Delay::parse).collect();
        match delays? {
            delays if delays.len() > MAX_DELAYS => Err(format!("more than {MAX_DELAYS} delays")),
            delays => Ok(Self(delays)),
        }
    }

    fn show(&self) -> String {
        self.0.iter().map(Value::show).collect::<Vec<_>>().join(",")
    }
}

impl RetryLadder {
    /// The retry queues, each once.
    pub(crate) fn queues(&self) -> Vec<Queue> {
        let mut delays = self.0.clone();
        delays.sort_unstable();
        delays.dedup();
        delays.into_iter().map(Queue::Retry).collect()
    }

    /// The queue for an id whose try `attempt` ended in `failure`. There is none for an id that was gone
    /// at the last try too.
    pub(crate) fn next(&self, attempt: Attempt, failure: &Failure) -> Option<Queue> {
        let tried = attempt.0.get() as usize;
        let last = self.0.last().filter(|_| !failure.reason.costs_a_try());
        match (&failure.reason, self.0.get(tried - 1).or(last)) {
            (Reason::Refused(_), _) => Some(Queue::Dead),
            (_, Some(own)) => Some(Queue::Retry(self.long_enough(*own, failure))),
            (Reason::Gone(_), None) => None,
            (_, None) => Some(Queue::Dead),
        }
    }

    /// Where the client service asked for more rest than the try's `own` delay, the shortest delay that
    /// is long enough, or the longest there is. An id that met a throttled client service again and again
    /// takes the longest, because all others rest meanwhile.
    fn long_enough(&self, own: Delay, failure: &Failure) -> Delay {
        let least = if failure.reason == Reason::Throttled {
            Duration::MAX
        } else {
            own.as_duration()
                .max(failure.retry_after.unwrap_or_default())
        };
        let long_enough = self
            .0
            .iter()
            .filter(|delay| delay.as_duration() >= least)
            .min();
        *long_enough.or(self.0.iter().max()).unwrap_or(&own)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn next(attempt: u32, reason: Reason, retry_after: Option<u64>) -> Option<Queue> {
        let delays = RetryLadder::parse("1s, 5s,30s").unwrap();
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
        assert_eq!(next(1, Reason::Timeout, None), Some(retry("1s")));
        assert_eq!(next(2, Reason::Timeout, None), Some(retry("5s")));
        assert_eq!(next(3, Reason::Timeout, None), Some(retry("30s")));
        assert_eq!(next(4, Reason::Timeout, None), Some(Queue::Dead));
        assert_eq!(next(u32::MAX, Reason::Timeout, None), Some(Queue::Dead));
    }

    #[test]
    fn what_will_not_change_is_given_up_at_once() {
        assert_eq!(next(1, Reason::Refused(403), None), Some(Queue::Dead));
    }

    #[test]
    fn what_is_gone_to_the_last_is_gone() {
        assert_eq!(next(3, Reason::Gone(404), None), Some(retry("30s")));
        assert_eq!(next(4, Reason::Gone(404), None), None);
    }

    #[test]
    fn what_costs_no_try_is_never_given_up() {
        let unreachable = || Reason::Unreachable(String::new());
        assert_eq!(next(2, unreachable(), None), Some(retry("5s")));
        assert_eq!(next(u32::MAX, unreachable(), None), Some(retry("30s")));
        assert_eq!(next(u32::MAX, Reason::Throttled, None), Some(retry("30s")));
    }

    #[test]
    fn a_client_service_that_asks_for_rest_is_given_it() {
        assert_eq!(next(1, Reason::Status(503), Some(3)), Some(retry("5s")));
        assert_eq!(next(1, Reason::Status(503), Some(0)), Some(retry("1s")));
        assert_eq!(
            next(1, Reason::Status(503), Some(3_600)),
            Some(retry("30s"))
        );
        assert_eq!(next(1, Reason::Throttled, Some(0)), Some(retry("30s")));
    }

    #[test]
    fn a_wrong_list_of_delays_is_refused() {
        for raw in ["", "1s,,5s", "1s,soon", "0s"] {
            assert!(RetryLadder::parse(raw).is_err(), "{raw:?} was accepted");
        }
    }
}
