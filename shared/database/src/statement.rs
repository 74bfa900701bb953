//! Spans of statements, by OpenTelemetry's conventions for databases.

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use trace::attribute::{
    DB_COLLECTION_NAME, DB_NAMESPACE, DB_OPERATION_NAME, DB_QUERY_TEXT, DB_SYSTEM_NAME,
};

/// Number of rows of a statement. The conventions have a name only for a number of statements.
const ROWS: &str = "pipeline.rows";

/// A statement, as its span describes it.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// What it does: INSERT, DELETE.
    pub operation: &'static str,
    /// The table that it does it to.
    pub table: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Statement {
    /// A span of one run of the statement, on `rows` rows, in `database`.
    #[must_use]
    pub fn span(&self, database: &str, rows: usize) -> SpanBuilder {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        SpanBuilder::from_name(format!("{} {}", self.operation, self.table))
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new(DB_SYSTEM_NAME, "postgresql"),
                KeyValue::new(DB_NAMESPACE, database.to_owned()),
                KeyValue::new(DB_COLLECTION_NAME, self.table),
                KeyValue::new(DB_OPERATION_NAME, self.operation),
                KeyValue::new(ROWS, rows),
                KeyValue::new(DB_QUERY_TEXT, self.text),
            ])
    }
}
