//! Looks every id up at the client service, stores the online ones, and arms their deletion. A
//! message is acked when each of its ids is stored, known to be offline or gone, or on its way to
//! another try.

use std::marker::PhantomData;
use std::sync::Arc;

use shared::boot::{Context, Process};
use shared::broker::Broker;
use shared::consumer::Consumer;
use shared::messages::FetchChunk;
use shared::publisher::Publisher;
use shared::store::Store;
use shared::topology::{Queue, Topology};

pub mod answer;
pub mod client;
pub mod config;
pub mod fetch;
pub mod look_ups;
pub mod retry;
pub mod writer;

pub use config::Config;

/// Fetches until the shut-down.
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

    let broker = Broker::new(Config::NAME, &config.broker, topology(&config));
    let (publisher, publishing) = Publisher::start(broker.clone(), publishing_health, &shutdown);
    let (writer, writing) =
        writer::Writer::start(&config, store.clone(), publisher.clone(), &shutdown);
    let client = client::ClientService::new(&config)?;
    let fetch = fetch::Fetch {
        look_ups: look_ups::LookUps::new(client, config.fetch_concurrency.get()),
        writer,
        retry_delays: config.retry_delays.clone(),
        publisher: publisher.clone(),
        publish_timeout: config.broker.broker_timeout,
    };
    let consumer: Consumer<FetchChunk, _> = Consumer {
        broker,
        queue: Queue::Fetch,
        prefetch: config.fetch_prefetch.get(),
        handler: Arc::new(fetch),
        publisher,
        shutdown: shutdown.clone(),
        message: PhantomData,
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(consumer.run(&consuming_health), store.watch(&shutdown)) } => {}
        error = publishing.failed() => return Err(error),
        error = writing.failed() => return Err(error),
    }
    // With the consumer the last users of the writer are gone, and with the writer those of the publisher.
    writing.finished().await;
    publishing.finished().await;
    Ok(())
}

/// The queues that `fetcher` publishes to and consumes.
#[must_use]
pub fn topology(config: &Config) -> Topology {
    let delete = Queue::DeleteDelay(config.object_ttl);
    Topology::new(&config.broker.queue_prefix)
        .with([delete])
        .with(config.retry_delays.queues())
}
