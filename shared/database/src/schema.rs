//! The schema of the database: which version is there, and whether a process can work with it.
//!
//! A process that finds no schema, or an older one than it needs, lays it (`migration.rs`) if its role may do
//! so, and waits otherwise. It works with a newer one, so that processes can be upgraded one by one, and downgraded.

use std::fmt;

use thiserror::Error;
use time::OffsetDateTime;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{StoreError, reason};

/// The migrations: each leads from one version to the next, the first from an empty database.
pub(crate) const MIGRATIONS: [&str; 2] = [
    include_str!("../migrations/V1__objects.sql"),
    include_str!("../migrations/V2__objects_by_expiry.sql"),
];

/// The version that the processes need.
pub(crate) const VERSION: usize = MIGRATIONS.len();

/// The table is recognized by a column: another program may have a table of that name.
const LOOK: &str = "
    select
        clock_timestamp(),
        current_setting('transaction_read_only')::bool,
        exists (
            select from pg_attribute
            where attrelid = to_regclass('objects') and attname = 'expires_at'
        ),
        to_regclass('objects_schema') is not null,
        current_user::text";

/// The version that was found; 0 if there is no schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub(crate) usize);

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => formatter.write_str("the schema is missing"),
            found => write!(
                formatter,
                "the schema is version {found}, and {VERSION} is needed"
            ),
        }
    }
}

/// The result of a look at the database.
#[derive(Debug)]
pub(crate) struct Look {
    /// The time by its clock.
    pub(crate) time: OffsetDateTime,
    /// Whether nothing can be written over this connection.
    pub(crate) is_read_only: bool,
    pub(crate) has_history: bool,
    role: String,
    pub(crate) version: Version,
}

impl Look {
    /// Looks.
    ///
    /// # Errors
    /// The database did not say.
    pub(crate) async fn at(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let row = client.query_typed_one(LOOK, &[]).await?;
        let (has_table, has_history) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Self {
            time: row.try_get(0)?,
            is_read_only: row.try_get(1)?,
            has_history,
            role: row.try_get(4)?,
            version: match (has_table, has_history) {
                (false, _) => Version(0),
                // Laid before there was a history, or restored without it.
                (true, false) => Version(1),
                (true, true) => latest(client).await?,
            },
        })
    }

    /// Whether rows can be stored.
    ///
    /// # Errors
    /// The database can only be read, or the schema is missing or older.
    pub(crate) fn judge(&self) -> Result<(), SchemaError> {
        if self.is_read_only {
            return Err(SchemaError::ReadOnly);
        }
        if self.version.0 < VERSION {
            return Err(SchemaError::Outdated(self.version));
        }
        Ok(())
    }
}

async fn latest(client: &Client) -> Result<Version, tokio_postgres::Error> {
    const LATEST: &str = "select max(version) from objects_schema";
    let latest: Option<i32> = client.query_typed_one(LATEST, &[]).await?.try_get(0)?;
    Ok(Version(
        latest
            .and_then(|version| usize::try_from(version).ok())
            .unwrap_or(1),
    ))
}

/// Why the database cannot be worked with.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The database did not answer, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is a standby, or was told to take no writes.
    #[error("the database can only be read; name the primary in DATABASE_URL, or all servers")]
    ReadOnly,
    /// The schema is missing or older than needed.
    #[error("{0}")]
    Outdated(Version),
    /// Another process lays the schema.
    #[error("{0}: another process is laying it")]
    BeingLaid(Version),
    /// The role of this process may not lay it.
    #[error("{found}, and the role {role} may not lay it ({}): run setup as a role that may", reason(.error))]
    Forbidden {
        /// What was found.
        found: Version,
        /// The role of this process.
        role: String,
        /// What the database said.
        error: tokio_postgres::Error,
    },
    /// A role cannot be given its rights.
    #[error("granting {role} its rights failed: {}", reason(.error))]
    Ungranted {
        /// The role that was to get them.
        role: String,
        /// What the database said.
        error: tokio_postgres::Error,
    },
    /// A migration cannot be carried out.
    #[error(
        "{found}, and laying it failed: {}: name a database of its own in DATABASE_URL, or move what is in the way",
        reason(.error)
    )]
    Failed {
        /// What was found.
        found: Version,
        /// What the database said.
        error: tokio_postgres::Error,
    },
}

impl SchemaError {
    /// Whether another attempt would fail the same way until an operator changes something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Forbidden { .. } | Self::Failed { .. } | Self::Ungranted { .. }
        )
    }

    /// What an error of granting rights to `role` means.
    pub(crate) fn of_grant(error: StoreError, role: &str) -> Self {
        let role = role.to_owned();
        match error {
            StoreError::Statement(error)
                if error
                    .code()
                    .is_some_and(|state| state.code().starts_with("42")) =>
            {
                Self::Ungranted { role, error }
            }
            error => Self::Store(error),
        }
    }

    /// What an error of a migration means.
    pub(crate) fn of(error: tokio_postgres::Error, Look { version, role, .. }: &Look) -> Self {
        let (found, role) = (*version, role.clone());
        match error.code() {
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::ReadOnly,
            // No schema that it may create something in counts, too.
            Some(&SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::INVALID_SCHEMA_NAME) => {
                Self::Forbidden { found, role, error }
            }
            // "Syntax error or access rule violation": of the migration, or of what it finds.
            Some(state) if state.code().starts_with("42") => Self::Failed { found, error },
            _ => Self::Store(StoreError::Statement(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_is_embedded_in_its_place() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let number = name
                .strip_prefix('V')
                .and_then(|rest| rest.split_once("__"));
            number.unwrap().0.parse::<u32>().unwrap()
        });
        let texts: Vec<_> = files
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        assert!(texts == MIGRATIONS, "MIGRATIONS is not {files:#?}");
    }
}
