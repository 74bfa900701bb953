//! The metrics of `fetcher` that are its own.

use broker::DEAD_LETTERS;
use lifecycle::DEPENDENCY_UP;
use metric_definitions::{Description, Values};

/// What a look-up can end in.
const OUTCOMES: &[Values] = &[(
    "outcome",
    &[
        "online",
        "offline",
        "gone",
        "connection",
        "timeout",
        "throttled",
        "status",
        "refused",
        "malformed",
        "panic",
    ],
)];

/// Why a look-up that failed may be tried again.
const PASSING: &[Values] = &[(
    "reason",
    &[
        "connection",
        "timeout",
        "throttled",
        "status",
        "gone",
        "malformed",
        "panic",
        "unfinished",
    ],
)];

/// Why an id is given up.
const FAILURES: &[Values] = &[(
    "reason",
    &[
        "connection",
        "timeout",
        "status",
        "refused",
        "malformed",
        "panic",
    ],
)];

/// Why a message goes to `objects.dead`: its ids are given up, or it cannot be worked on.
const DEAD: &[Values] = &[(
    "reason",
    &[
        "connection",
        "timeout",
        "status",
        "refused",
        "malformed",
        "panic",
        "unprocessable",
    ],
)];

/// What it depends on.
const DEPENDENCIES: &[Values] = &[(
    "dependency",
    &[
        "broker (publishing)",
        "broker (consuming)",
        "broker (consuming bulk)",
        "database",
        "client service",
    ],
)];

/// All of them.
pub const METRICS: &[Description] = &[
    DEPENDENCY_UP.by(DEPENDENCIES),
    DEAD_LETTERS.by(DEAD),
    Description::counter(
        "fetches_total",
        "Look-ups, by what they ended in; probes are not among them.",
    )
    .by(OUTCOMES),
    Description::histogram(
        "fetch_duration_seconds",
        "How long the client service took for a look-up.",
    ),
    Description::gauge(
        "fetches_in_flight",
        "Look-ups that the client service has not answered yet.",
    )
    .from_zero(),
    Description::gauge(
        "fetch_limit",
        "Maximum number of look-ups in flight as it is now: FETCH_CONCURRENCY, or less at the start \
         and after an outage, a 429 or a connection that could not be made.",
    ),
    Description::counter(
        "fetches_joined_total",
        "Ids that were not looked up, because a look-up of the same id that was sent after they had \
         come answered for them.",
    ),
    Description::counter(
        "fetches_withheld_total",
        "Look-ups that were given back to the queue, since the client service is down or the \
         process stops.",
    ),
    Description::counter(
        "fetch_probes_total",
        "Look-ups that were sent to find out whether the client service works, by what they ended \
         in.",
    )
    .by(OUTCOMES),
    Description::gauge(
        "client_service_breaker_open",
        "1 while the client service is down and only probes are sent, else 0.",
    )
    .from_zero(),
    Description::counter(
        "fetch_retries_total",
        "Ids that were sent to a retry queue, by what their look-up ended in.",
    )
    .by(PASSING),
    Description::counter(
        "dead_letter_ids_total",
        "Ids that were given up and went to objects.dead, by what their last look-up ended in.",
    )
    .by(FAILURES),
    Description::counter(
        "objects_stored_total",
        "Rows that were stored, or seen again.",
    ),
    Description::counter(
        "objects_unarmed_total",
        "Rows whose deletion no message arms, because none could be published; the janitor's sweep \
         deletes them.",
    ),
    Description::counter(
        "objects_outdated_total",
        "Online objects that were looked up again, because the database was away for longer than \
         they are kept.",
    ),
    Description::counter(
        "objects_offline_total",
        "Ids of objects that were offline, which are not stored.",
    ),
    Description::counter(
        "objects_gone_total",
        "Ids that the client service does not know (404, 410), which are not stored.",
    ),
    Description::histogram(
        "upsert_duration_seconds",
        "How long it took until a batch of rows was committed, further tries included.",
    ),
    Description::histogram("upsert_rows", "Rows stored by one statement."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Reason;

    #[test]
    fn every_reason_of_a_failed_look_up_is_listed() {
        for reason in [
            Reason::Unreachable(String::new()),
            Reason::Connection(String::new()),
            Reason::Timeout,
            Reason::Status(429),
            Reason::Status(500),
            Reason::Gone(404),
            Reason::Refused(403),
            Reason::Malformed(String::new()),
            Reason::Panicked,
        ] {
            let lists = |labels: &[Values]| {
                labels
                    .iter()
                    .any(|(_, values)| values.contains(&reason.kind()))
            };
            assert!(lists(OUTCOMES), "{reason}");
            assert_eq!(lists(PASSING), reason.may_pass(), "{reason}");
            let kills = reason.costs_a_try() && !matches!(reason, Reason::Gone(_));
            assert!(!kills || lists(FAILURES) && lists(DEAD), "{reason}");
        }
    }
}
