//! Names of the attributes of spans, by OpenTelemetry's semantic conventions.

pub use opentelemetry_semantic_conventions::attribute::*;
