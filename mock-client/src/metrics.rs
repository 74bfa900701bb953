//! The metrics of `mock-client` that are its own.

use metric_definitions::{Counter, label, metrics};

label! {
    /// What became of a callback that was sent.
    pub(crate) enum Sent: "outcome" {
        Accepted = "accepted",
        Refused = "refused",
        Failed = "failed",
    }
}

label! {
    /// What became of a look-up.
    pub(crate) enum LookUp: "outcome" {
        Answered = "answered",
        Failed = "failed",
    }
}

metrics! {
    /// All of them.
    pub METRICS;

    /// Callbacks that were sent: answered with success, answered otherwise, or not answered.
    pub(crate) CALLBACKS_SENT: Counter<Sent> = "callback_pipeline_callbacks_sent_total";
    /// Look-ups that were answered, or failed as asked for by ERROR_RATIO.
    pub(crate) LOOK_UPS: Counter<LookUp> = "callback_pipeline_look_ups_total";
}
