//! The metrics of `ingest` that are its own.

use http::StatusCode;
use lifecycle::DEPENDENCY_UP;
use metric_definitions::{Counter, Gauge, Histogram, Label, buckets, label, metrics};

use crate::error::ApiError;

label! {
    /// Where a callback is stored.
    pub(crate) enum StoredAt: "by" {
        /// All of it at the broker.
        Broker = "broker",
        /// At least a part of it in the spool.
        Spool = "spool",
    }
}

label! {
    /// Where callbacks lie below the spool's directory.
    pub(crate) enum Place: "place" {
        Own = "own",
        Adopted = "adopted",
        Others = "others",
        Damaged = "damaged",
    }
}

/// Status of the answer to a callback.
pub(crate) struct Status(pub(crate) StatusCode);

impl Label for Status {
    const NAME: &'static str = "status";
    const VALUES: &'static [&'static str] = &[
        "202", "400", "401", "405", "408", "413", "415", "429", "500", "501", "503",
    ];

    fn value(&self) -> &'static str {
        let mut values = Self::VALUES.iter().copied();
        let value = values.find(|value| *value == self.0.as_str());
        value.unwrap_or("other")
    }
}

metrics! {
    /// All of them.
    pub METRICS = [DEPENDENCY_UP.description().with_values(&["broker", "spool"])];

    /// Callbacks that are safe: by the broker alone, or by the spool where a part of it went
    /// there.
    pub(crate) CALLBACKS_ACCEPTED: Counter<StoredAt> = "callback_pipeline_callbacks_accepted_total";
    /// Requests to /callback that were answered with an error, by its code.
    pub(crate) CALLBACKS_REJECTED: Counter<ApiError> = "callback_pipeline_callbacks_rejected_total";
    /// Distinct ids of the callbacks that are safe.
    pub(crate) IDS_ACCEPTED: Counter = "callback_pipeline_callback_ids_accepted_total";
    /// Distinct ids of the callbacks that could be read and not be made safe, by the code of
    /// the error.
    pub(crate) IDS_REJECTED: Counter<ApiError> =
        "callback_pipeline_callback_ids_rejected_total", only(&["unavailable", "internal_error"]);
    /// How long requests to /callback took, from the end of the header to the answer, by its
    /// status.
    pub(crate) CALLBACK_DURATION: Histogram<Status> =
        "callback_pipeline_callback_duration_seconds" in buckets::SECONDS;
    /// Callbacks that have arrived and are not safe yet; with REQUESTS_LIMIT of them further
    /// ones are answered 503.
    pub(crate) CALLBACKS_IN_FLIGHT: Gauge = "callback_pipeline_callbacks_in_flight", from_zero();
    /// Messages with ids that the broker confirmed, those from the spool included.
    pub(crate) CHUNKS_PUBLISHED: Counter = "callback_pipeline_callback_chunks_published_total";
    /// Size of what lies below SPOOL_DIRECTORY: what this replica has spooled, what it has adopted
    /// from replicas that are gone, what others have, and what was damaged and is set aside.
    pub(crate) SPOOL_BYTES: Gauge<Place> = "callback_pipeline_spool_bytes", from_zero();
    /// Files of callbacks that lie below SPOOL_DIRECTORY, by place as in callback_pipeline_spool_bytes.
    pub(crate) SPOOL_SEGMENTS: Gauge<Place> = "callback_pipeline_spool_segments", from_zero();
    /// Size from which on the spool takes no more: SPOOL_LIMIT. It is for what this replica has
    /// spooled.
    pub(crate) SPOOL_LIMIT: Gauge = "callback_pipeline_spool_limit_bytes";
    /// How long the oldest callback in the spool has been there.
    pub(crate) SPOOL_OLDEST_AGE: Gauge = "callback_pipeline_spool_oldest_age_seconds";
    /// Callbacks that were written to the spool.
    pub(crate) SPOOL_CALLBACKS_APPENDED: Counter = "callback_pipeline_spool_callbacks_appended_total";
    /// Callbacks of the spool that were published, the oldest first.
    pub(crate) SPOOL_CALLBACKS_DRAINED: Counter = "callback_pipeline_spool_callbacks_drained_total";
    /// Reads of a segment that failed. It is read again later, and waits until then.
    pub(crate) SPOOL_READS_FAILED: Counter = "callback_pipeline_spool_reads_failed_total";
    /// Segments that had unreadable parts. They are kept in the folder `damaged`.
    pub(crate) SPOOL_SEGMENTS_SET_ASIDE: Counter = "callback_pipeline_spool_segments_set_aside_total";
}
