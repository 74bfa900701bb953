//! Laying the schema as a step before the processes start, by a role that may do so.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use database::{DatabaseSettings, Store};
use lifecycle::Health;
use telemetry::write_to_stderr;

/// Name of the command, as its binary is called.
pub const NAME: &str = "migrate";

/// What the command does, in a sentence.
pub const ABOUT: &str = "Lays the schema of the database, or brings it up to date, and ends.";

/// Waits for the database, and says why it waits.
///
/// # Errors
/// The role may not lay the schema, or a migration cannot be carried out.
pub async fn run(settings: DatabaseSettings, (): ()) -> anyhow::Result<()> {
    const PAUSES: ConstantBuilder = ConstantBuilder::new()
        .with_delay(Duration::from_millis(500))
        .without_max_times();
    let store = Store::new(NAME, &settings, Health::default().dependency("database"))?;
    let mut said = String::new();
    let lay = || store.ensure_schema();
    lay.retry(PAUSES)
        .when(|error| !error.is_permanent())
        .notify(|error, _| {
            let waiting = error.to_string();
            if said != waiting {
                write_to_stderr(&format!("waiting: {waiting}"));
                said = waiting;
            }
        })
        .await?;
    write_to_stderr("the schema is up to date");
    Ok(())
}
