//! Deletes objects at their expiry: on the messages that the delay queue gives out, and by a
//! sweep for rows that no message covers.

use broker::{Consumption, Queue, Topology};
use process::{ProcessConfig, ProcessContext};
use worker::Worker;

mod batch_source;
mod clock;
mod config;
mod delete;
mod deleter;
mod metrics;
#[cfg(not(test))]
mod precise;
mod schedule;
mod sweep;

pub use clock::{Clock, ask_time};
pub use config::Config;
pub use delete::{DeletedRows, Deletion, DueRows, delete};
pub use sweep::{AHEAD, OVERDUE};

use deleter::Deleter;
use sweep::Sweep;

/// Deletes until the shut-down.
///
/// # Errors
/// A task ended before its time.
pub async fn run(config: Config, context: ProcessContext) -> anyhow::Result<()> {
    let (broker, database) = (&config.broker, &config.database);
    let topology = Topology::new(&broker.queue_prefix);
    let worker = Worker::start(Config::NAME, broker, topology, database, context).await?;
    let (clock, time) = Clock::new();
    let (deleter, deleting) = Deleter::start(&config, &worker, time);
    let consumption = Consumption {
        queue: Queue::Delete,
        name: "broker (consuming)",
        prefetch: config.delete_prefetch.get(),
        handler: deleter,
    };
    let (store, shutdown) = (worker.store.clone(), worker.shutdown.clone());
    let mut sweep = Sweep::new(&config, store.clone());
    let clock_and_sweep = Box::pin(async {
        tokio::join!(clock.run(&store, &shutdown), sweep.run(&shutdown));
    });
    worker
        .consume([consumption], deleting, clock_and_sweep)
        .await
}
