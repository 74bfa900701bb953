//! The metrics of `fetcher` that are its own.

use broker::GivenUp;
use lifecycle::DEPENDENCY_UP;
use metric_definitions::{Counter, Gauge, Histogram, Label, buckets, label, metrics};

use crate::answer::{Answer, Reason};

/// Upper bounds of buckets for look-ups, in seconds: most of them take 0.3 s to 4.3 s.
const FETCH_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0,
    4.5, 5.0, 10.0,
];

/// Why no id is given up.
const NEVER_GIVES_UP: &[&str] = &["throttled", "gone", "unfinished"];

/// What it depends on.
const DEPENDENCIES: &[&str] = &[
    "broker (publishing)",
    "broker (consuming)",
    "broker (consuming bulk)",
    "database",
    "client service",
    "client credentials",
];

/// Messages whose ids are given up. The consumer counts those that it cannot work on.
pub(crate) const DEAD_LETTERS: Counter<Reason> =
    broker::DEAD_LETTERS.by::<Reason>().except(NEVER_GIVES_UP);

label! {
    /// Why fewer look-ups may be in flight.
    pub(crate) enum Lowering: "reason" {
        Latency = "latency",
        Timeouts = "timeouts",
        Throttled = "throttled",
        Connection = "connection",
        Outage = "outage",
    }
}

metrics! {
    /// All of them.
    pub(crate) METRICS = [
        DEPENDENCY_UP.description().with_values(DEPENDENCIES),
        DEAD_LETTERS.description().with_values(GivenUp::VALUES),
    ];

    /// Look-ups, by what they ended in; probes are not among them.
    pub(crate) FETCHES: Counter<Answer> = "callback_pipeline_fetches_total";
    /// How long the client service took for a look-up.
    pub(crate) FETCH_DURATION: Histogram = "callback_pipeline_fetch_duration_seconds" in FETCH_SECONDS;
    /// Look-ups that the client service has not answered yet.
    pub(crate) FETCHES_IN_FLIGHT: Gauge = "callback_pipeline_fetches_in_flight", from_zero();
    /// Maximum number of look-ups in flight as it is now: what suits the client service by its
    /// answers so far, and at most FETCH_CONCURRENCY.
    pub(crate) FETCH_LIMIT: Gauge = "callback_pipeline_fetch_limit";
    /// Look-ups that wait because as many are in flight as callback_pipeline_fetch_limit allows.
    pub(crate) FETCHES_WAITING: Gauge = "callback_pipeline_fetches_waiting", from_zero();
    /// How often callback_pipeline_fetch_limit was lowered: because look-ups took longer, so that a lower limit is
    /// tried (latency); most look-ups timed out (timeouts); the client service answered 429
    /// (throttled); a connection could not be made (connection); or the client service is down
    /// (outage).
    pub(crate) FETCH_LIMIT_LOWERED: Counter<Lowering> = "callback_pipeline_fetch_limit_lowered_total";
    /// Ids that were not looked up, because a look-up of the same id that was sent after they had
    /// come answered for them.
    pub(crate) FETCHES_JOINED: Counter = "callback_pipeline_fetches_joined_total";
    /// Look-ups that were given back to the queue, since the client service is down or the
    /// process stops.
    pub(crate) FETCHES_WITHHELD: Counter = "callback_pipeline_fetches_withheld_total";
    /// Look-ups that were sent to find out whether the client service works, by what they ended
    /// in.
    pub(crate) PROBES: Counter<Answer> = "callback_pipeline_fetch_probes_total";
    /// 1 while the client service is down and only probes are sent, else 0.
    pub(crate) BREAKER_OPEN: Gauge = "callback_pipeline_client_service_breaker_open", from_zero();
    /// Ids that were sent to a retry queue, by what their look-up ended in.
    pub(crate) FETCH_RETRIES: Counter<Reason> = "callback_pipeline_fetch_retries_total", except(&["refused"]);
    /// Ids that were given up and went to objects.dead, by what their last look-up ended in.
    pub(crate) DEAD_LETTER_IDS: Counter<Reason> =
        "callback_pipeline_dead_letter_ids_total", except(NEVER_GIVES_UP);
    /// How long it took from the callback until its id was stored, or found to be offline or gone.
    /// The clocks of two hosts are compared.
    pub(crate) ID_DURATION: Histogram = "callback_pipeline_callback_id_duration_seconds" in buckets::LATE_SECONDS;
    /// Rows that were stored, or seen again.
    pub(crate) OBJECTS_STORED: Counter = "callback_pipeline_objects_stored_total";
    /// Rows whose deletion no message arms, because none could be published; the janitor's sweep
    /// deletes them.
    pub(crate) OBJECTS_UNARMED: Counter = "callback_pipeline_objects_unarmed_total";
    /// Online objects that were looked up again, because the database was away for longer than
    /// they are kept.
    pub(crate) OBJECTS_OUTDATED: Counter = "callback_pipeline_objects_outdated_total";
    /// Ids of objects that were offline, which are not stored.
    pub(crate) OBJECTS_OFFLINE: Counter = "callback_pipeline_objects_offline_total";
    /// Ids that the client service does not know (404, 410), which are not stored.
    pub(crate) OBJECTS_GONE: Counter = "callback_pipeline_objects_gone_total";
    /// How long it took until a batch of rows was committed, further tries included.
    pub(crate) UPSERT_DURATION: Histogram = "callback_pipeline_upsert_duration_seconds" in buckets::SECONDS;
    /// Rows stored by one statement.
    pub(crate) UPSERT_ROWS: Histogram = "callback_pipeline_upsert_rows" in buckets::ROWS;
}
