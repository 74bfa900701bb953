//! The metrics of `ingest` that are its own.

use lifecycle::DEPENDENCY_UP;
use metric_definitions::{Description, Values};

/// Error codes of the answers to callbacks.
const REASONS: &[Values] = &[(
    "reason",
    &[
        "invalid_json",
        "invalid_request",
        "method_not_allowed",
        "payload_too_large",
        "unsupported_media_type",
        "not_implemented",
        "request_timeout",
        "overloaded",
        "unavailable",
        "internal_error",
    ],
)];

/// Statuses of the answers to callbacks.
const STATUSES: &[Values] = &[(
    "status",
    &[
        "202", "400", "405", "408", "413", "415", "500", "501", "503",
    ],
)];

/// Where callbacks lie below the spool's directory.
const PLACES: &[Values] = &[("place", &["own", "adopted", "others", "damaged"])];

/// All of them.
pub const METRICS: &[Description] = &[
    DEPENDENCY_UP.by(&[("dependency", &["broker", "spool"])]),
    Description::counter(
        "callbacks_accepted_total",
        "Callbacks that are safe: by the broker alone, or by the spool where a part of it went \
         there.",
    )
    .by(&[("by", &["broker", "spool"])]),
    Description::counter(
        "callbacks_rejected_total",
        "Requests to /callback that were answered with an error, by its code.",
    )
    .by(REASONS),
    Description::counter(
        "callback_ids_accepted_total",
        "Distinct ids of the callbacks that are safe.",
    ),
    Description::counter(
        "callback_ids_rejected_total",
        "Distinct ids of the callbacks that could be read and not be made safe, by the code of \
         the error.",
    )
    .by(&[("reason", &["unavailable", "internal_error"])]),
    Description::histogram(
        "callback_duration_seconds",
        "How long requests to /callback took, from the end of the header to the answer, by its \
         status.",
    )
    .by(STATUSES),
    Description::gauge(
        "callbacks_in_flight",
        "Callbacks that have arrived and are not safe yet; with REQUESTS_LIMIT of them further \
         ones are answered 503.",
    )
    .from_zero(),
    Description::counter(
        "callback_chunks_published_total",
        "Messages with ids that the broker confirmed, those from the spool included.",
    ),
    Description::gauge(
        "spool_bytes",
        "Size of what lies below SPOOL_DIRECTORY: what this replica has spooled, what it has adopted \
         from replicas that are gone, what others have, and what was damaged and is set aside.",
    )
    .by(PLACES)
    .from_zero(),
    Description::gauge(
        "spool_segments",
        "Files of callbacks that lie below SPOOL_DIRECTORY, by place as in spool_bytes.",
    )
    .by(PLACES)
    .from_zero(),
    Description::gauge(
        "spool_limit_bytes",
        "Size from which on the spool takes no more: SPOOL_LIMIT. It is for what this replica has \
         spooled.",
    ),
    Description::gauge(
        "spool_oldest_age_seconds",
        "How long the oldest callback in the spool has been there.",
    ),
    Description::counter(
        "spool_callbacks_appended_total",
        "Callbacks that were written to the spool.",
    ),
    Description::counter(
        "spool_callbacks_drained_total",
        "Callbacks of the spool that were published, the oldest first.",
    ),
    Description::counter(
        "spool_reads_failed_total",
        "Reads of a segment that failed. It is read again later, and waits until then.",
    ),
    Description::counter(
        "spool_segments_set_aside_total",
        "Segments that had unreadable parts. They are kept in the folder `damaged`.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;
    use crate::request::Callback;

    fn error(body: &str, limit: usize) -> ApiError {
        ApiError::from(Callback::parse(body.as_bytes(), limit).unwrap_err())
    }

    #[test]
    fn every_answer_to_a_callback_is_listed() {
        let lists = |labels: &[Values], value: &str| {
            let mut known = labels.iter().flat_map(|(_, values)| *values);
            known.any(|known| *known == value)
        };
        for error in [
            error("{", 1),
            error("[]", 1),
            error(r#"{"object_ids":[1,2]}"#, 1),
            ApiError::BrokenBody(String::new()),
            ApiError::Undecodable(String::new()),
            ApiError::UnsupportedCoding,
            ApiError::UnsupportedTransferCoding,
            ApiError::MethodNotAllowed("POST"),
            ApiError::PayloadTooLarge(1),
            ApiError::RequestTimeout,
            ApiError::Overloaded,
            ApiError::Unavailable(String::new()),
            ApiError::Internal,
        ] {
            let (status, code) = error.status_and_code();
            assert!(
                lists(REASONS, code) && lists(STATUSES, status.as_str()),
                "{error}"
            );
        }
    }
}
