//! Names of what spans say of themselves, as OpenTelemetry's semantic conventions have them.

pub use opentelemetry_semantic_conventions::attribute::*;
