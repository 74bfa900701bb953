//! Metrics of processes that are connected to the broker.

use metric_definitions::{Counter, Gauge, Histogram, Label, buckets, label, metrics};

use crate::handler::Outcome;
use crate::publication::PublishError;

label! {
    /// What a connection to the broker is for.
    pub(crate) enum Role: "role" {
        Publisher = "publisher",
        Consumer = "consumer",
    }
}

/// What the broker said to a message.
pub(crate) struct Published(pub(crate) Result<(), PublishError>);

impl Label for Published {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &["confirmed", "refused", "unconfirmed", "blocked"];

    fn value(&self) -> &'static str {
        self.0.map_or_else(PublishError::kind, |()| "confirmed")
    }
}

metrics! {
    /// Of processes that are connected to the broker.
    pub METRICS;

    /// Connections to the broker that were opened.
    pub(crate) CONNECTIONS_OPENED: Counter<Role> = "callback_pipeline_broker_connections_opened_total";
    /// Connections to the broker that failed, or could not be opened.
    pub(crate) CONNECTION_FAILURES: Counter<Role> = "callback_pipeline_broker_connection_failures_total";
    /// Messages that were published and are not confirmed yet.
    pub(crate) CONFIRMS_IN_FLIGHT: Gauge = "callback_pipeline_broker_confirms_in_flight", from_zero();
    /// How long it took until a message was sent and the broker had confirmed or refused it.
    pub(crate) CONFIRM_DURATION: Histogram =
        "callback_pipeline_broker_confirm_duration_seconds" in buckets::SECONDS;
    /// Messages published, by what the broker said in time. What is not confirmed is published
    /// again, or goes to the spool, and counts each time.
    pub(crate) PUBLISHES: Counter<Published> = "callback_pipeline_broker_publishes_total";
}

metrics! {
    /// Of processes that consume a queue.
    pub CONSUMER_METRICS;

    /// How long messages had been due when they were taken: the time since they were published,
    /// less their delay. The clocks of two hosts are compared.
    pub(crate) LAG: Histogram = "callback_pipeline_consumer_lag_seconds" in buckets::LATE_SECONDS;
    /// How long the message that was taken last had been due.
    pub(crate) LAST_LAG: Gauge = "callback_pipeline_consumer_last_lag_seconds";
    /// Messages worked on, by what became of them. One that comes again counts again.
    pub(crate) MESSAGES_CONSUMED: Counter<Outcome> = "callback_pipeline_messages_consumed_total";
}

label! {
    /// Why a consumer gives a message up.
    pub enum GivenUp: "reason" {
        /// It cannot be worked on.
        Unprocessable = "unprocessable",
    }
}

/// Of processes that consume a queue. Some of them have further reasons.
pub const DEAD_LETTERS: Counter<GivenUp> = Counter::<GivenUp>::new(
    "callback_pipeline_dead_letters_total",
    "Messages published to objects.dead, by the kind of reason.",
);
