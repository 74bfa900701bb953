//! The metrics of `janitor` that are its own.

use broker::DEAD_LETTERS;
use lifecycle::DEPENDENCY_UP;
use metric_definitions::{Description, Values};

/// What it depends on.
const DEPENDENCIES: &[Values] = &[(
    "dependency",
    &["broker (publishing)", "broker (consuming)", "database"],
)];

/// What deletes rows.
const LEGS: &[Values] = &[("by", &["message", "sweep"])];

/// All of them.
pub const METRICS: &[Description] = &[
    DEPENDENCY_UP.by(DEPENDENCIES),
    DEAD_LETTERS.by(&[("reason", &["unprocessable"])]),
    Description::counter(
        "objects_deleted_total",
        "Rows that were deleted after they expired, by their message or by the sweep, which deletes \
         what no message has deleted in time.",
    )
    .by(LEGS),
    Description::histogram(
        "object_deletion_lateness_seconds",
        "How long each row had been expired when its deletion was known to be committed.",
    )
    .by(LEGS),
    Description::gauge(
        "object_deletion_last_lateness_seconds",
        "The same for the most overdue row of the last statement that deleted any.",
    ),
    Description::histogram(
        "delete_duration_seconds",
        "How long it took until a statement that deletes rows was committed, further tries \
         included.",
    ),
    Description::histogram(
        "delete_rows",
        "Rows named in one statement; those that were seen again or are gone are not deleted.",
    ),
    Description::counter(
        "early_delete_batches_total",
        "Statements that were tried before all of their rows had expired: the database's time was \
         not known, or its clock was set back. They wait up to 2 s, and leave later rows to the sweep.",
    ),
    Description::histogram(
        "sweep_duration_seconds",
        "How long the sweep took to look for overdue rows and to delete them.",
    ),
    Description::counter(
        "sweep_failures_total",
        "Sweeps that the database did not carry out, or not within DATABASE_TIMEOUT.",
    ),
    Description::counter(
        "objects_set_right_total",
        "Rows that were stored while the database's clock was ahead, and expire as if they had been \
         seen when the sweep found them.",
    ),
];
