//! Deletes objects at their expiry: on the messages that the delay queue gives out, and by a slow
//! sweep for rows that no message covers.

use shared::boot::{Context, Process};
use shared::topology::{Queue, Topology};
use shared::worker::Worker;

pub mod config;
pub mod expire;
pub mod sweep;

pub use config::Config;

/// Deletes until the shut-down.
///
/// # Errors
/// The database cannot be migrated, or a task ended before its time.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let (broker, database) = (&config.broker, &config.database);
    let topology = Topology::new(&broker.queue_prefix);
    let worker = Worker::start(Config::NAME, broker, topology, database, context).await?;
    let (expirer, expiring) = expire::Expirer::start(&config, &worker);
    let sweep = sweep::Sweep::new(&config, worker.store.clone());
    let shutdown = worker.shutdown.clone();
    let prefetch = config.delete_prefetch.get();
    worker
        .consume(
            Queue::Delete,
            prefetch,
            expirer,
            expiring,
            sweep.run(&shutdown),
        )
        .await
}
