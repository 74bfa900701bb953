//! The metrics of `janitor` that are its own.

use lifecycle::DEPENDENCY_UP;
use metric_definitions::{Counter, Gauge, Histogram, buckets, label, metrics};

label! {
    /// What deletes rows.
    pub(crate) enum DeletedBy: "by" {
        Message = "message",
        Sweep = "sweep",
    }
}

/// What it depends on.
const DEPENDENCIES: &[&str] = &["broker (publishing)", "broker (consuming)", "database"];

metrics! {
    /// All of them.
    pub(crate) METRICS = [
        DEPENDENCY_UP.description().with_values(DEPENDENCIES),
        broker::DEAD_LETTERS.description(),
    ];

    /// Rows that were deleted after they expired, by their message or by the sweep, which deletes
    /// what no message has deleted in time.
    pub(crate) OBJECTS_DELETED: Counter<DeletedBy> = "callback_pipeline_objects_deleted_total";
    /// How long each row had been expired when its deletion was known to be committed.
    pub(crate) LATENESS: Histogram<DeletedBy> =
        "callback_pipeline_object_deletion_lateness_seconds" in buckets::LATE_SECONDS;
    /// The same for the most overdue row of the last statement that deleted any.
    pub(crate) LAST_LATENESS: Gauge = "callback_pipeline_object_deletion_last_lateness_seconds";
    /// How long it took until a statement that deletes rows was committed, further tries
    /// included.
    pub(crate) DELETE_DURATION: Histogram = "callback_pipeline_delete_duration_seconds" in buckets::SECONDS;
    /// Rows named in one statement; those that were seen again or are gone are not deleted.
    pub(crate) DELETE_ROWS: Histogram = "callback_pipeline_delete_rows" in buckets::ROWS;
    /// Statements that were tried before all of their rows had expired: the database's time was
    /// not known, or its clock was set back. They wait up to 2 s, and leave later rows to the sweep.
    pub(crate) EARLY_BATCHES: Counter = "callback_pipeline_early_delete_batches_total";
    /// How long the sweep took to look for overdue rows and to delete them.
    pub(crate) SWEEP_DURATION: Histogram = "callback_pipeline_sweep_duration_seconds" in buckets::SECONDS;
    /// Sweeps that the database did not carry out, or not within DATABASE_TIMEOUT.
    pub(crate) SWEEP_FAILURES: Counter = "callback_pipeline_sweep_failures_total";
    /// Rows that were stored while the database's clock was ahead, and expire as if they had been
    /// seen when the sweep found them.
    pub(crate) OBJECTS_SET_RIGHT: Counter = "callback_pipeline_objects_set_right_total";
}
