//! The schema of the database: which version is there, and how it is laid.
//!
//! A process that finds no schema, or an older one than it needs, lays it if its role may do so, and waits
//! otherwise. It works with a newer one, so that processes can be upgraded one by one, and downgraded.

use std::fmt;

use thiserror::Error;
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use crate::connection::Connection;
use crate::error::StoreError;
use crate::error::reason;
use crate::store::{Parameters, Store, Type};

/// What leads from each version to the next, the first one from nothing.
const MIGRATIONS: [&str; 2] = [
    include_str!("../migrations/V1__objects.sql"),
    include_str!("../migrations/V2__objects_by_expiry.sql"),
];

/// The version that the processes need.
const VERSION: usize = MIGRATIONS.len();

/// The versions that were laid. Every role may read it: a role of the processes then needs privileges on
/// the rows only.
const HISTORY: &str = "
    create table objects_schema (
        version int primary key,
        laid_at timestamptz not null default now()
    );
    comment on table objects_schema is 'The versions of the schema, and when they were laid';
    grant select on objects_schema to public";

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

/// Key of the advisory lock that lets one process migrate at a time.
const LOCK: i64 = 0x6f62_6a65_6374_7301;

/// The version that was found; 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(usize);

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

/// What a look at the database shows.
#[derive(Debug)]
pub(crate) struct Look {
    /// What its clock showed.
    pub(crate) time: OffsetDateTime,
    /// Whether nothing can be written over this connection.
    pub(crate) is_read_only: bool,
    has_history: bool,
    role: String,
    version: Version,
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
    #[error("the database can only be read")]
    ReadOnly,
    /// The schema is missing or older than needed.
    #[error("{0}")]
    Outdated(Version),
    /// Another process lays the schema.
    #[error("{0}: another process is laying it")]
    BeingLaid(Version),
    /// The role of this process may not lay it.
    #[error("{found}, and the role {role} may not lay it ({}): run migrate as a role that may", reason(.error))]
    Forbidden {
        /// What was found.
        found: Version,
        /// Who may not lay it.
        role: String,
        /// What the database said.
        error: tokio_postgres::Error,
    },
    /// A migration cannot be carried out.
    #[error("{found}, and laying it failed: {}", reason(.error))]
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
        matches!(self, Self::Forbidden { .. } | Self::Failed { .. })
    }

    /// What an error of a migration means.
    fn of(error: tokio_postgres::Error, Look { version, role, .. }: &Look) -> Self {
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

impl Store {
    /// Looks at the database, and lays the schema where it is missing or older than needed. Any number of
    /// processes may do so at once.
    ///
    /// # Errors
    /// The database does not answer, or cannot be written to; or the schema is missing or older, and is
    /// not laid.
    pub async fn ensure_schema(&self) -> Result<(), SchemaError> {
        match self.look().await?.judge() {
            Err(SchemaError::Outdated(_)) => self.lay().await,
            judged => judged,
        }
    }

    /// The connection is not one of the pool, which may have a single one: that is needed to find out
    /// whether the database still answers.
    async fn lay(&self) -> Result<(), SchemaError> {
        let mut connection = self.connect().await?;
        let laid = self.lay_on(&mut connection).await;
        if laid.is_err() {
            connection.abandon();
        }
        laid
    }

    async fn lay_on(&self, connection: &mut Connection) -> Result<(), SchemaError> {
        let transaction = self.bounded(connection.transaction()).await?;
        let is_ours = self.bounded(try_lock(&transaction)).await?;
        let look = self.bounded(Look::at(transaction.client())).await?;
        if look.judge().is_ok() {
            self.bounded(transaction.rollback()).await?;
            return Ok(());
        }
        if !is_ours {
            return Err(SchemaError::BeingLaid(look.version));
        }
        tokio::select! {
            applied = self.apply(&transaction, &look) => {
                applied.map_err(|error| SchemaError::of(error, &look))?;
            }
            error = self.until_down() => return Err(error.into()),
        }
        self.bounded(transaction.commit()).await?;
        tracing::info!(
            from = look.version.0,
            to = VERSION,
            "laid the schema of the database"
        );
        Ok(())
    }

    /// Takes as long as it takes, but waits for a lock no longer than `database_timeout`: statements of
    /// others queue behind it meanwhile.
    async fn apply(
        &self,
        transaction: &Transaction<'_>,
        look: &Look,
    ) -> Result<(), tokio_postgres::Error> {
        const NOTE: &str = "
            insert into objects_schema (version) values ($1)
            on conflict (version) do nothing";
        let limits = format!(
            "set local lock_timeout = {}; set local statement_timeout = 0",
            self.timeout().as_millis()
        );
        transaction.batch_execute(&limits).await?;
        if !look.has_history {
            transaction.batch_execute(HISTORY).await?;
        }
        for (version, migration) in (1..).zip(MIGRATIONS) {
            if version > look.version.0 {
                transaction.batch_execute(migration).await?;
            }
            let number = i32::try_from(version).unwrap_or(i32::MAX);
            let parameters: Parameters = &[(&number, Type::INT4)];
            transaction.execute_typed(NOTE, parameters).await?;
        }
        Ok(())
    }
}

/// The lock ends with the transaction: that of a session would stay with a pooler's connection.
async fn try_lock(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    const TRY: &str = "select pg_try_advisory_xact_lock($1)";
    let parameters: Parameters = &[(&LOCK, Type::INT8)];
    transaction
        .query_typed_one(TRY, parameters)
        .await?
        .try_get(0)
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
        assert_eq!(texts, MIGRATIONS);
    }
}
