//! Deletes objects at their expiry: on the messages that the delay queue gives out, and by a slow
//! sweep for rows that no message covers.

use std::marker::PhantomData;
use std::sync::Arc;

use shared::boot::{Context, Process};
use shared::broker::Broker;
use shared::consumer::Consumer;
use shared::messages::DeleteBatch;
use shared::publisher::Publisher;
use shared::store::Store;
use shared::topology::{Queue, Topology};

pub mod config;
pub mod expire;
pub mod sweep;

pub use config::Config;

/// Deletes until the shut-down.
///
/// # Errors
/// The database cannot be migrated, or a task ended before its time.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let Context { health, shutdown } = context;
    let publishing_health = health.dependency("broker (publishing)");
    let consuming_health = health.dependency("broker (consuming)");
    let store = Store::new(
        Config::NAME,
        &config.database,
        health.dependency("database"),
    )?;
    store.migrate(&shutdown).await?;

    let topology = Topology::new(&config.broker.queue_prefix);
    let broker = Broker::new(Config::NAME, &config.broker, topology);
    let (publisher, publishing) = Publisher::start(broker.clone(), publishing_health, &shutdown);
    let (expirer, expiring) = expire::Expirer::start(&config, store.clone(), &shutdown);
    let sweep = sweep::Sweep::new(&config, store.clone());
    let consumer: Consumer<DeleteBatch, _> = Consumer {
        broker,
        queue: Queue::Delete,
        prefetch: config.delete_prefetch.get(),
        handler: Arc::new(expirer),
        publisher,
        shutdown: shutdown.clone(),
        message: PhantomData,
    };
    let work = async {
        tokio::join!(
            consumer.run(&consuming_health),
            sweep.run(&shutdown),
            store.watch(&shutdown)
        );
    };
    tokio::select! {
        () = work => {}
        error = publishing.failed() => return Err(error),
        error = expiring.failed() => return Err(error),
    }
    expiring.finished().await;
    publishing.finished().await;
    Ok(())
}
