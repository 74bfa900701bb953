//! What follows from the answers to look-ups and probes.

use std::fmt::Display;
use std::time::Duration;

use messages::ObjectId;
use tcp::advised;

use crate::answer::{Answer, Failure, Reason};
use crate::breaker::candidates::{CandidatePool, Meaning};
use crate::breaker::{Admission, Breaker, Moment};
use crate::metrics::{BREAKER_OPEN, Lowering};

/// How long the client service is left alone at least when it asks for rest, also when it does not say how
/// long or says 0.
const MIN_REST: Duration = Duration::from_secs(1);

/// Caps `Retry-After`, so that one bad header cannot stall the pipeline.
const MAX_REST: Duration = Duration::from_mins(5);

/// How much longer the next probe of a client service that is down waits because it asks for that: it
/// cannot know when it will be well.
const MAX_PROBE_DELAY: Duration = Duration::from_secs(10);

/// What can be tried where connections end without an answer.
const ENDS: &str = "write https:// in CLIENT_URL where there is TLS; is CLIENT_HTTP_VERSION right?";

/// What can be tried about what the client service does.
const ADVICE: [(&str, &str); 8] = [
    (
        "status 40",
        "are CLIENT_URL, with its path and its scheme, and the credentials right?",
    ),
    (
        "status 3",
        "redirects are not followed: name the new address in CLIENT_URL",
    ),
    (
        "InvalidContentType",
        "it does not speak TLS: write http:// in CLIENT_URL, or name the port with TLS",
    ),
    (
        "malformed answer",
        "is it the client service that CLIENT_URL leads to?",
    ),
    (
        "no answer in time",
        "does it hang, or a firewall drop what is sent? FETCH_TIMEOUT is how long it may take",
    ),
    (
        "invalid HTTP",
        "it speaks something else: name the port for HTTP in CLIENT_URL, or write https:// where there is TLS",
    ),
    ("reset by peer", ENDS),
    ("connection closed", ENDS),
];

impl Breaker {
    /// Draws the conclusions from an answer, except from failures, which are judged later.
    pub(crate) fn record(&self, id: ObjectId, admission: &Admission<'_>, answer: &Answer) {
        self.limit.ended();
        if let Answer::Failed(failure) = answer {
            if failure.reason == Reason::Timeout {
                self.limit.timed_out();
            }
            self.ease_off(admission.started, failure);
            self.candidates(|candidates| candidates.failed(id));
        } else {
            self.limit.answered();
            self.record_answered(id, admission.started);
        }
    }

    /// Draws the conclusions from the answer to a probe. Returns the minimum time until the next probe,
    /// if the client service gave one.
    pub(super) fn record_probe(
        &self,
        id: ObjectId,
        started: Moment,
        answer: &Answer,
    ) -> Option<Duration> {
        let Answer::Failed(failure) = answer else {
            self.record_answered(id, started);
            return None;
        };
        self.ease_off(started, failure);
        self.candidates(|candidates| candidates.refuted(id));
        let meaning = if failure.reason.may_be_about_the_object() {
            self.candidates(CandidatePool::meaning)
        } else {
            Meaning::Down
        };
        self.state.send_modify(|state| match meaning {
            Meaning::Down if state.probe_failed(started) => self.show_open(&failure.reason),
            Meaning::Unclear => {
                if let Some(outage) = state.probe_unclear(started) {
                    self.show_closed(outage);
                }
            }
            Meaning::Down | Meaning::NotKnownYet => {}
        });
        // A rest is waited for in any case.
        failure.retry_after.map(|after| after.min(MAX_PROBE_DELAY))
    }

    fn record_answered(&self, id: ObjectId, started: Moment) {
        let ends_gap = self.candidates(|candidates| candidates.answered(id));
        self.state.send_if_modified(|state| {
            let was_in_doubt = state.is_in_doubt();
            if ends_gap {
                state.gap_ends();
            }
            let outage = state.answered(started);
            if let Some(outage) = outage {
                self.show_closed(outage);
            }
            was_in_doubt || outage.is_some()
        });
    }

    /// To be called while the state is locked, so that what is shown changes in the order of the states.
    fn show_closed(&self, outage: Duration) {
        BREAKER_OPEN.set(0);
        tracing::info!(?outage, "client service answers again, breaker closed");
        self.dependency.up();
    }

    /// Lowers the limit when the client service asks for rest, or when a connection could not be made: too many
    /// look-ups at once may be the reason.
    fn ease_off(&self, started: Moment, failure: &Failure) {
        let (is_news, because) = match failure.reason {
            Reason::Throttled => {
                let rest = failure.retry_after.unwrap_or_default();
                let rest = rest.clamp(MIN_REST, MAX_REST);
                let mut is_news = false;
                self.state
                    .send_modify(|state| is_news = state.rest(started, rest));
                if is_news {
                    tracing::info!(?rest, "client service asks for rest");
                }
                (is_news, Lowering::Throttled)
            }
            Reason::Unreachable(_) => {
                let is_news = self.update_quietly(|state| state.ease(started));
                (is_news, Lowering::Connection)
            }
            _ => return,
        };
        if is_news {
            self.limit.halve(because);
        }
    }

    /// To be called while the state is locked: the limit is low before anybody sees the breaker open, and
    /// so before it can close again.
    pub(super) fn show_open(&self, reason: &dyn Display) {
        self.limit.lower_to_floor();
        BREAKER_OPEN.set(1);
        self.dependency.down(&advised(reason.to_string(), &ADVICE));
    }
}
