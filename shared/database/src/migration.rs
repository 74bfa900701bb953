//! Laying the schema: each migration once, under a lock, in one transaction.

use tokio_postgres::Transaction;

use crate::connection::Connection;
use crate::schema::{Look, MIGRATIONS, SchemaError, VERSION};
use crate::store::{Parameters, Store, Type};

/// The table of the versions that were laid. Every role may read it, so that the role of a process needs
/// privileges on the rows only.
const HISTORY: &str = "
    create table objects_schema (
        version int primary key,
        laid_at timestamptz not null default now()
    );
    comment on table objects_schema is 'The versions of the schema, and when they were laid';
    grant select on objects_schema to public";

/// Key of the advisory lock that lets one process migrate at a time.
const LOCK: i64 = 0x6f62_6a65_6374_7301;

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

    /// Has no time limit, but waits for a lock no longer than `database_timeout`, because other statements
    /// queue behind it meanwhile.
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

/// The lock ends with the transaction. A lock of the session would stay with a pooler's connection.
async fn try_lock(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    const TRY: &str = "select pg_try_advisory_xact_lock($1)";
    let parameters: Parameters = &[(&LOCK, Type::INT8)];
    transaction
        .query_typed_one(TRY, parameters)
        .await?
        .try_get(0)
}
