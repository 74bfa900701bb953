//! Metrics of processes that are connected to the broker.

use metric_definitions::{Description, Values};

const ROLES: &[Values] = &[("role", &["publisher", "consumer"])];

/// Of processes that are connected to the broker.
pub const METRICS: &[Description] = &[
    Description::counter(
        "broker_connections_opened_total",
        "Connections to the broker that were opened.",
    )
    .by(ROLES),
    Description::counter(
        "broker_connection_failures_total",
        "Connections to the broker that failed, or could not be opened.",
    )
    .by(ROLES),
    Description::gauge(
        "broker_confirms_in_flight",
        "Messages that were published and are not confirmed yet.",
    )
    .from_zero(),
    Description::histogram(
        "broker_confirm_duration_seconds",
        "How long it took until a message was sent and the broker had confirmed or refused it.",
    ),
    Description::counter(
        "broker_publishes_total",
        "Messages published, by what the broker said in time. What is not confirmed is published \
         again, or goes to the spool, and counts each time.",
    )
    .by(&[(
        "outcome",
        &["confirmed", "refused", "unconfirmed", "blocked"],
    )]),
];

/// Of processes that consume a queue.
pub const CONSUMER_METRICS: &[Description] = &[
    Description::histogram(
        "consumer_lag_seconds",
        "How long messages had been due when they were taken: the time since they were published, \
         less their delay. The clocks of two hosts are compared.",
    ),
    Description::gauge(
        "consumer_last_lag_seconds",
        "How long the message that was taken last had been due.",
    ),
    Description::counter(
        "messages_consumed_total",
        "Messages worked on, by what became of them. One that comes again counts again.",
    )
    .by(&[("outcome", &["done", "requeued", "dead"])]),
];

/// Of processes that consume a queue; which reasons there are is their own.
pub const DEAD_LETTERS: Description = Description::counter(
    "dead_letters_total",
    "Messages published to objects.dead, by the kind of reason.",
);
