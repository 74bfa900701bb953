//! The metrics of `mock-client` that are its own.

use metric_definitions::Description;

/// All of them.
pub const METRICS: &[Description] = &[
    Description::counter(
        "callbacks_sent_total",
        "Callbacks that were sent: answered with success, answered otherwise, or not answered.",
    )
    .by(&[("outcome", &["accepted", "refused", "failed"])]),
    Description::counter(
        "look_ups_total",
        "Look-ups that were answered, or failed as asked for by ERROR_RATIO.",
    )
    .by(&[("outcome", &["answered", "failed"])]),
];
