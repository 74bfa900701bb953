//! The schema, embedded in the binaries that need it and brought up to date when they start.

use deadpool_postgres::Client;

use thiserror::Error;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Key of the advisory lock that lets one process migrate at a time.
const MIGRATION_LOCK: i64 = 0x6f62_6a65_6374_7301;

/// Why the schema is not known to be up to date.
#[derive(Debug, Error)]
pub(crate) enum MigrationError {
    /// The lock could not be taken.
    #[error(transparent)]
    Lock(#[from] tokio_postgres::Error),
    /// A migration failed, or differs from the one that was applied.
    #[error(transparent)]
    Migration(#[from] refinery::Error),
}

/// Applies the migrations that are missing, one process at a time. The connection is closed
/// afterwards, which frees the lock whatever happened.
pub(crate) async fn migrate(client: Client) -> Result<(), MigrationError> {
    let mut client = Client::take(client);
    client.batch_execute("set statement_timeout = 0").await?;
    client
        .execute("select pg_advisory_lock($1)", &[&MIGRATION_LOCK])
        .await?;
    let report = embedded::migrations::runner()
        .run_async(&mut *client)
        .await?;
    for migration in report.applied_migrations() {
        tracing::info!(%migration, "migrated the database");
    }
    Ok(())
}
