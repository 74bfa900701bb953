//! Deletes objects at their expiry: on the messages that the delay queue gives out, and by a
//! sweep for rows that no message covers.

use broker::{Consumption, Queue, Topology};
use clock::Clock;
use process::{ProcessConfig, ProcessContext};
use worker::Worker;

pub mod clock;
pub mod config;
pub mod expire;
pub mod expirer;
pub mod metrics;
pub mod migrate;
pub mod schedule;
pub mod sweep;

pub use config::Config;

/// Deletes until the shut-down.
///
/// # Errors
/// A task ended before its time.
pub async fn run(config: Config, context: ProcessContext) -> anyhow::Result<()> {
    let (broker, database) = (&config.broker, &config.database);
    let topology = Topology::new(&broker.queue_prefix);
    let worker = Worker::start(Config::NAME, broker, topology, database, context).await?;
    let (clock, time) = Clock::new();
    let (expirer, expiring) = expirer::Expirer::start(&config, &worker, time);
    let (store, shutdown) = (worker.store.clone(), worker.shutdown.clone());
    let mut sweep = sweep::Sweep::new(&config, store.clone());
    let beside = Box::pin(async {
        tokio::join!(clock.run(&store, &shutdown), sweep.run(&shutdown));
    });
    let consumption = Consumption {
        queue: Queue::Delete,
        name: "broker (consuming)",
        prefetch: config.delete_prefetch.get(),
        handler: expirer,
    };
    worker.consume([consumption], expiring, beside).await
}
