//! What is known of the client service as a whole, and what follows from it.

use std::time::Duration;

use tokio::time::Instant;

/// Places look-ups and failures in one order. Clocks would not do: evidence has to be newer than
/// what it judges, and two clock readings can be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// Whose failure a failed look-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The id's own: the client service works.
    Works,
    /// The client service works, and did not for a moment: the id is asked for again.
    WorksAgain,
    /// The client service's.
    Down,
    /// Nobody knows: something answers, and nothing shows that it is the client service.
    Unclear,
}

/// Whether look-ups may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Free,
    /// Not before the end of the rest that the client service asked for.
    Resting(Instant),
    /// Not before a probe is answered.
    Open,
}

/// State of the breaker. An answer is valid when it says whether the object is online. A gateway too can
/// answer that there is no such object, or that the request is forbidden.
#[derive(Debug, Default)]
pub(super) struct State {
    now: Moment,
    /// Start of the newest look-up that got a valid answer.
    answered: Moment,
    /// The newest failure that waits, or waited, for a verdict.
    failed: Moment,
    /// Start of the newest probe that showed the client service to be down.
    down: Moment,
    /// Start of the newest probe that left it unclear.
    unclear: Moment,
    /// End of the newest gap: a time in which there was no valid answer, and should have been some.
    gap: Moment,
    /// When the breaker opened, if it is open.
    open: Option<Instant>,
    rest_until: Option<Instant>,
    /// When the limit was last lowered because of what look-ups met.
    eased: Moment,
}

impl State {
    /// Returns the moment at which a look-up starts.
    pub(super) fn start(&mut self) -> Moment {
        self.now.0 += 1;
        self.now
    }

    /// A look-up failed. Returns the moment to ask for the verdict with.
    pub(super) fn failed(&mut self) -> Moment {
        self.failed = self.start();
        self.failed
    }

    /// There was no valid answer for a while, and there is one now.
    pub(super) fn gap_ends(&mut self) {
        self.gap = self.start();
    }

    /// A look-up, or a probe, that began at `started` got a valid answer. If that closes the breaker,
    /// returns how long it was open.
    pub(super) fn answered(&mut self, started: Moment) -> Option<Duration> {
        self.answered = self.answered.max(started);
        if self.answered < self.down {
            return None;
        }
        self.open.take().map(|since| since.elapsed())
    }

    /// A probe that began at `started` got no valid answer. Returns whether that opens the breaker. It does
    /// not if a later look-up got a valid answer.
    pub(super) fn probe_failed(&mut self, started: Moment) -> bool {
        if started < self.answered {
            return false;
        }
        self.down = started;
        let opens = self.open.is_none();
        self.open.get_or_insert_with(Instant::now);
        opens
    }

    /// A probe that began at `started` showed only that something answers. If that closes the breaker,
    /// returns how long it was open.
    pub(super) fn probe_unclear(&mut self, started: Moment) -> Option<Duration> {
        self.unclear = started;
        self.open.take().map(|since| since.elapsed())
    }

    /// A look-up that began at `started` was answered with the wish for a `rest`. Returns whether the wish
    /// is news.
    pub(super) fn rest(&mut self, started: Moment, rest: Duration) -> bool {
        self.rest_until = self.rest_until.max(Some(Instant::now() + rest));
        self.ease(started)
    }

    /// A look-up that began at `started` met an overloaded client service. Returns whether that is news:
    /// look-ups that were in flight together meet it together.
    pub(super) fn ease(&mut self, started: Moment) -> bool {
        let is_news = started > self.eased;
        if is_news {
            self.eased = self.start();
        }
        is_news
    }
    pub(super) fn passage(&self) -> Passage {
        match self.resting() {
            _ if self.open.is_some() => Passage::Open,
            Some(until) => Passage::Resting(until),
            None => Passage::Free,
        }
    }

    /// When the rest that the client service asked for ends, if it has not ended yet.
    pub(super) fn resting(&self) -> Option<Instant> {
        self.rest_until.filter(|until| *until > Instant::now())
    }

    /// The verdict on a look-up that began at `started` and failed at `failed`, once there is newer
    /// evidence. In doubt the failure is the client service's, because that costs no attempt.
    pub(super) fn verdict(&self, started: Moment, failed: Moment) -> Option<Verdict> {
        if self.is_open() || self.down > failed {
            Some(Verdict::Down)
        } else if self.answered > failed && self.gap > started {
            Some(Verdict::WorksAgain)
        } else if self.answered > failed {
            Some(Verdict::Works)
        } else {
            (self.unclear > failed).then_some(Verdict::Unclear)
        }
    }
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a failure waits for a verdict.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.verdict(self.failed, self.failed).is_none() && self.failed > Moment::default()
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
        assert!(state.is_in_doubt() && state.verdict(failed, failed).is_none());
        let late = state.start();
        assert_eq!(state.answered(late), None);
        assert_eq!(state.verdict(failed, failed), Some(Verdict::Works));
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
        assert_eq!(state.verdict(failed, failed), Some(Verdict::Down));
        let later = state.failed();
        assert_eq!(state.verdict(later, later), Some(Verdict::Down));
        assert_eq!(state.answered(in_flight), None);
        assert_eq!(state.passage(), Passage::Open);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(state.answered(second), Some(Duration::from_secs(9)));
        assert_eq!(state.passage(), Passage::Free);
        assert_eq!(state.verdict(failed, failed), Some(Verdict::Down));
    }

    #[test]
    fn a_gap_shows_in_what_began_before_its_end() {
        let mut state = State::default();
        let (within, after) = (state.start(), state.failed());
        state.gap_ends();
        let (late, probe) = (state.start(), state.start());
        assert_eq!(state.verdict(within, after), None);
        assert_eq!(state.answered(probe), None);
        assert_eq!(state.verdict(within, after), Some(Verdict::WorksAgain));
        assert_eq!(state.verdict(late, after), Some(Verdict::Works));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unclear_probe_ends_the_doubt_and_closes_the_breaker() {
        let mut state = State::default();
        let failed = state.failed();
        let probe = state.start();
        assert_eq!(state.probe_unclear(probe), None);
        assert!(!state.is_in_doubt());
        assert_eq!(state.verdict(failed, failed), Some(Verdict::Unclear));
        let (down, unclear) = (state.start(), state.start());
        assert!(state.probe_failed(down));
        assert_eq!(state.probe_unclear(unclear), Some(Duration::ZERO));
        assert_eq!(state.passage(), Passage::Free);
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
