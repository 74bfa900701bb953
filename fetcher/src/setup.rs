//! What the processes find: the schema of the database, the rights of their roles, and the exchange and queues of
//! the broker. A step before they start, by an owner who may do so; the processes need no such rights.

use std::error::Error;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use broker::{Broker, BrokerError, BrokerSettings};
use database::{DatabaseSettings, Privileges, Role, Store};
use lifecycle::Health;
use telemetry::write_to_stderr;

use crate::config::Delays;
use crate::topology_of;

mod unused_queues;

use unused_queues::ManagementUrl;

settings::settings! {
    /// Settings of `setup`.
    pub struct Config {
        /// Role of the fetchers at the database, which gets the rights that they need.
        pub fetcher_role: Role = "",
        /// Role of the janitors at the database, which gets the rights that they need.
        pub janitor_role: Role = "",
        /// Role at the database that may read the view live_objects.
        pub reader_role: Role = "",
        /// Address of RabbitMQ's management API, such as http://localhost:15672. With it,
        /// delay queues that OBJECT_TTL and RETRY_DELAYS no longer name are deleted when they
        /// are empty.
        pub management_url: ManagementUrl = "",
    } with {
        /// The delays that queues are made for.
        pub delays: Delays,
        /// Settings of the connection to the broker.
        pub broker: BrokerSettings,
        /// Settings of the access to the database.
        pub database: DatabaseSettings,
    }
}

/// Name of the command, as its binary is called.
pub const NAME: &str = "setup";

/// What the command does, in a sentence.
pub const ABOUT: &str = "Lays the schema of the database, grants the processes' roles their rights, declares the broker's exchange \
     and queues, and ends. To do so again changes nothing.";

/// Waits for database and broker, and says why it waits.
///
/// # Errors
/// The role of the database or the user of the broker may not do it, or cannot.
pub async fn run(config: Config, (): ()) -> anyhow::Result<()> {
    let store = Store::new(
        NAME,
        &config.database,
        Health::default().dependency("database"),
    )?;
    until_done(
        || store.ensure_schema(),
        database::SchemaError::is_permanent,
    )
    .await?;
    for (role, privileges) in [
        (&config.fetcher_role, Privileges::Store),
        (&config.janitor_role, Privileges::Delete),
        (&config.reader_role, Privileges::Read),
    ] {
        let grant = || store.grant(role, privileges);
        until_done(grant, database::SchemaError::is_permanent).await?;
    }
    let topology = topology_of(&config.broker, &config.delays);
    let broker = Broker::new(NAME, &config.broker, topology);
    until_done(|| declare(&broker), BrokerError::is_refusal).await?;
    if let Some(management) = &config.management_url.0 {
        // The pipeline works with them, too.
        match unused_queues::remove(management, &config.broker, &broker).await {
            Ok(removed) => {
                for name in removed {
                    write_to_stderr(&format!("deleted the queue {name}, which no setting names"));
                }
            }
            Err(error) => write_to_stderr(&format!("unused delay queues are left: {error:#}")),
        }
    }
    write_to_stderr("database and broker are set up");
    Ok(())
}

async fn declare(broker: &Broker) -> Result<(), BrokerError> {
    let connection = broker.connect(NAME).await?;
    let channel = broker.declare(&connection, broker.topology()).await?;
    let closed = broker.close(connection).await;
    // Closed before the connection, it would be an error of that.
    drop(channel);
    closed
}

/// Repeats `step` until it is done, or until another attempt would fail the same way.
async fn until_done<E: Error + Send + Sync + 'static>(
    step: impl AsyncFn() -> Result<(), E>,
    is_permanent: impl Fn(&E) -> bool,
) -> anyhow::Result<()> {
    const PAUSES: ConstantBuilder = ConstantBuilder::new()
        .with_delay(Duration::from_millis(500))
        .without_max_times();
    let mut said = String::new();
    let attempt = || step();
    attempt
        .retry(PAUSES)
        .when(|error| !is_permanent(error))
        .notify(|error, _| {
            let waiting = error.to_string();
            if said != waiting {
                write_to_stderr(&format!("waiting: {waiting}"));
                said = waiting;
            }
        })
        .await?;
    Ok(())
}
