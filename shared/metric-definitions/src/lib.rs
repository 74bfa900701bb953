//! Metrics, each defined once: a constant is the metric's entry in the catalogue and its handle.
//!
//! ```
//! use metric_definitions::{Counter, Histogram, buckets, label, metrics};
//!
//! label! {
//!     /// What deletes rows.
//!     pub enum DeletedBy: "by" {
//!         /// The message that arms the deletion.
//!         Message = "message",
//!         /// The sweep.
//!         Sweep = "sweep",
//!     }
//! }
//!
//! metrics! {
//!     pub METRICS;
//!
//!     /// Rows that were deleted.
//!     pub DELETED: Counter<DeletedBy> = "deleted_total";
//!     /// How long a statement took.
//!     pub DURATION: Histogram = "duration_seconds" in buckets::SECONDS;
//! }
//!
//! DELETED.of(&DeletedBy::Sweep).increment(3);
//! DURATION.record(0.2);
//! assert_eq!(METRICS.len(), 2);
//! ```
//!
//! A process announces its metrics at its boot, and shows counters from zero on: Prometheus does not
//! see the first increment of a counter that appears with it.

pub mod buckets;
mod description;
mod in_flight;
mod label;
mod metric;

pub use description::{Description, Kind, announce};
pub use in_flight::InFlight;
pub use label::{Label, Labels, Values};
pub use metric::{Counter, Gauge, Histogram, Metric};
