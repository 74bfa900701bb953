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
//! A process registers its metrics at its boot, and shows counters from zero on: Prometheus does not
//! see the first increment of a counter that appears with it. What is not registered is not counted.

pub mod buckets;
mod description;
mod exemplar;
mod families;
pub mod handle;
mod in_flight;
mod label;
mod metric;

pub use description::{Description, Kind};
pub use exemplar::Exemplar;
pub use families::{RegisteredBefore, register};
pub use in_flight::InFlight;
pub use label::{Label, Labels, Pair, Values};
pub use metric::{Counter, Gauge, Histogram, Metric};
