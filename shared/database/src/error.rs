//! What can go wrong with a statement.

use std::error::Error;

use opentelemetry::KeyValue;
use thiserror::Error;
use tokio_postgres::error::{DbError, SqlState};
use trace::SpanSet;
use trace::attribute::DB_RESPONSE_STATUS_CODE;

/// The text of `error` and of its sources, with the server's message.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    tcp::reason_with(error, |error| {
        // The text around it is "db error" and nothing else.
        let error = error.downcast_ref::<DbError>()?;
        let (severity, message) = (error.severity(), error.message());
        Some(format!("{severity}: {message} ({})", error.code().code()))
    })
}

/// What can be tried about what the database says, by its code where it has one.
pub(crate) const ADVICE: [(&str, &str); 11] = [
    ("no encryption", "add ?sslmode=require to DATABASE_URL"),
    (
        "(28",
        "are DATABASE_USERNAME and DATABASE_PASSWORD, or those in DATABASE_URL, right?",
    ),
    (
        "(3D000)",
        "create the database that DATABASE_URL ends in, or name another",
    ),
    (
        "(53300)",
        "end some of its connections, raise max_connections, or lower DATABASE_POOL_SIZE",
    ),
    ("(53100)", "make room on the database's disk"),
    ("(57P03)", "it is starting or stopping: wait"),
    (
        "(42501)",
        "run setup, which gives the role its rights, as an owner of the table",
    ),
    (
        "(42P01)",
        "run setup, or name the right database in DATABASE_URL",
    ),
    (
        "server does not support TLS",
        "turn ssl on at the server, or leave sslmode out of DATABASE_URL",
    ),
    (
        "it can only be read",
        "name the primary in DATABASE_URL, or all servers",
    ),
    (
        "protocol but TLS",
        "PostgreSQL begins without TLS: name its own port in DATABASE_URL",
    ),
];

/// Why a statement was not carried out, or is not known to have been.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no connection. Says where to, and why.
    #[error("no connection to the database: {0}")]
    NoConnection(String),
    /// The statement failed.
    #[error("{}", tcp::advised(reason(.0), &ADVICE))]
    Statement(#[from] tokio_postgres::Error),
    /// The statement took longer than `database_timeout`.
    #[error("the database took too long")]
    Timeout,
    /// The statement arrived after it had been given up, and did nothing.
    #[error("the statement reached the database too late")]
    Late,
    /// The commit did not wait for its synchronous standby, because somebody cancelled the wait.
    #[error("the commit is not on the standby: its wait was cancelled")]
    Unreplicated,
}

impl StoreError {
    /// The SQL state, if it is the database that failed.
    fn state(&self) -> Option<&str> {
        match self {
            Self::Statement(error) => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// The kind of failure, as traces name it.
    fn kind(&self) -> &str {
        self.state().unwrap_or(match self {
            Self::NoConnection(_) => "no connection",
            Self::Statement(_) => "connection lost",
            Self::Timeout => "timeout",
            Self::Late => "late",
            Self::Unreplicated => "unreplicated",
        })
    }

    /// Marks the span of the statement as failed.
    pub(crate) fn mark(&self, span: &mut SpanSet) {
        let state = self.state();
        span.set(|| {
            let state = state.map(|state| KeyValue::new(DB_RESPONSE_STATUS_CODE, state.to_owned()));
            state.into_iter().collect()
        });
        span.fail(self.kind(), self);
    }

    /// Whether the database can only be read: the server is no longer the primary.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Statement(error)
            if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    }

    /// Whether the statement lost against a concurrent one, and is worth trying again at once.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Statement(error) = self else {
            return false;
        };
        matches!(
            error.code(),
            Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
        )
    }
}
