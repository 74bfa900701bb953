//! Traces: what happened to a callback, from its request to the deletion of its rows, across all
//! processes.
//!
//! A piece of work carries the [`Traces`] that it belongs to: one for a callback or a chunk of it,
//! several for a batch of rows. A span is started in each of them, so that every callback's trace is
//! whole, and the spans of one batch are linked to one another. Where nothing is recorded, which is
//! the case for all but a share of the callbacks, no span is described.

pub mod attribute;
mod collector;
mod config;
pub mod http;
mod pairs;
#[expect(deprecated, reason = "B3 is what clients that use Zipkin send")]
mod propagation;
mod recorder;
mod recording;
mod resource;
mod traces;

pub use collector::{ExporterName, SPANS_DROPPED, SPANS_EXPORTED};
pub use config::{Address, TraceSettings};
pub use pairs::{Attributes, Headers};
pub use propagation::TraceContext;
pub use recorder::current;
pub use recording::Recording;
pub use resource::resource;
pub use traces::{Spans, Traces};
