//! What is known of the client service as a whole, and what follows from it.

use std::time::Duration;

use tokio::time::Instant;

/// Places look-ups and failures in one order. Clocks would not do: evidence has to be newer than
/// what it judges, and two clock readings can be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// Whose failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The id's own: the client service works.
    Works,
    /// The client service's.
    Down,
}

/// Whether look-ups may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Yes.
    Free,
    /// Not before the rest is over that the client service asked for.
    Resting(Instant),
    /// Not before a probe is answered.
    Open,
}

/// State of the breaker. An answer is valid when the client service did its work, whatever it says
/// of the object.
#[derive(Debug, Default)]
pub struct State {
    now: Moment,
    /// Start of the newest look-up that got a valid answer.
    answered: Moment,
    /// The newest failure that waits, or waited, for a verdict.
    failed: Moment,
    /// Start of the newest probe that showed the client service to be down.
    down: Moment,
    /// Since when the breaker is open.
    open: Option<Instant>,
    rest_until: Option<Instant>,
    /// When the limit was last lowered because rest was asked for.
    eased: Moment,
}

impl State {
    /// The moment at which a look-up starts.
    pub fn start(&mut self) -> Moment {
        self.now.0 += 1;
        self.now
    }

    /// A look-up failed: the moment that a verdict on it is asked for with.
    pub fn failed(&mut self) -> Moment {
        self.failed = self.start();
        self.failed
    }

    /// A look-up, or a probe, that began at `started` got a valid answer. Says for how long the
    /// breaker was open, if that closes it.
    pub fn answered(&mut self, started: Moment) -> Option<Duration> {
        self.answered = self.answered.max(started);
        if self.answered < self.down {
            return None;
        }
        self.open.take().map(|since| since.elapsed())
    }

    /// A probe that began at `started` got no valid answer. Says whether that opens the breaker: not
    /// if there is a valid answer to a later question.
    pub fn probe_failed(&mut self, started: Moment) -> bool {
        if started < self.answered {
            return false;
        }
        self.down = started;
        let opens = self.open.is_none();
        self.open.get_or_insert_with(Instant::now);
        opens
    }

    /// A look-up that began at `started` was answered with the wish to be left alone for `rest`. Says
    /// whether the wish is news: look-ups that were in flight together get it together.
    pub fn rest(&mut self, started: Moment, rest: Duration) -> bool {
        self.rest_until = self.rest_until.max(Some(Instant::now() + rest));
        let is_news = started > self.eased;
        if is_news {
            self.eased = self.start();
        }
        is_news
    }

    /// Whether look-ups may be sent.
    #[must_use]
    pub fn passage(&self) -> Passage {
        match self.resting() {
            _ if self.open.is_some() => Passage::Open,
            Some(until) => Passage::Resting(until),
            None => Passage::Free,
        }
    }

    /// When the rest is over that the client service asked for, if it is not over yet.
    #[must_use]
    pub fn resting(&self) -> Option<Instant> {
        self.rest_until.filter(|until| *until > Instant::now())
    }

    /// Whose failure it was that happened at `failed`, once there is evidence from after it. In
    /// doubt it was the client service's, since that costs no attempt.
    #[must_use]
    pub fn verdict(&self, failed: Moment) -> Option<Verdict> {
        if self.is_open() || self.down > failed {
            Some(Verdict::Down)
        } else {
            (self.answered > failed).then_some(Verdict::Works)
        }
    }

    /// Whether the breaker is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a failure waits for a verdict.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.verdict(self.failed).is_none() && self.failed > Moment::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_evidence_from_after_a_failure_judges_it() {
        let mut state = State::default();
        let (early, probe) = (state.start(), state.start());
        let failed = state.failed();
        assert_eq!(state.answered(early), None);
        assert!(state.is_in_doubt() && state.verdict(failed).is_none());
        let late = state.start();
        assert_eq!(state.answered(late), None);
        assert_eq!(state.verdict(failed), Some(Verdict::Works));
        assert!(!state.is_in_doubt());
        assert!(!state.probe_failed(probe), "a later look-up was answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_opens_the_breaker_and_a_later_answer_closes_it() {
        let mut state = State::default();
        let in_flight = state.start();
        let failed = state.failed();
        let (probe, second) = (state.start(), state.start());
        assert!(state.probe_failed(probe));
        assert_eq!(state.verdict(failed), Some(Verdict::Down));
        let later = state.failed();
        assert_eq!(state.verdict(later), Some(Verdict::Down));
        assert_eq!(state.answered(in_flight), None);
        assert_eq!(state.passage(), Passage::Open);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(state.answered(second), Some(Duration::from_secs(9)));
        assert_eq!(state.passage(), Passage::Free);
        assert_eq!(state.verdict(failed), Some(Verdict::Down));
    }

    #[test]
    fn further_failing_probes_keep_it_open() {
        let mut state = State::default();
        let (first, second) = (state.start(), state.start());
        assert!(state.probe_failed(first));
        assert!(!state.probe_failed(second));
        assert!(state.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn look_ups_wait_until_the_longest_rest_is_over() {
        let mut state = State::default();
        let (first, second) = (state.start(), state.start());
        assert!(state.rest(first, Duration::from_secs(3)));
        assert!(!state.rest(second, Duration::from_secs(1)), "no news");
        let until = Instant::now() + Duration::from_secs(3);
        assert_eq!(state.passage(), Passage::Resting(until));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(state.passage(), Passage::Free);
        let third = state.start();
        assert!(state.rest(third, Duration::from_secs(1)));
    }
}
