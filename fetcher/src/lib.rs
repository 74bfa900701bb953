//! Looks every id up at the client service, stores the online ones, and arms their deletion. A
//! message is acked when each of its ids is stored, known to be offline or gone, or on its way to
//! another try.

use std::num::NonZeroU16;
use std::sync::Arc;

use broker::{Consumption, Queue, Topology};
use process::{ProcessConfig, ProcessContext};
use worker::Worker;

pub mod answer;
pub mod arming;
pub mod batch;
pub mod breaker;
pub mod client;
pub mod config;
pub mod connections;
pub mod fetch;
mod look_up;
pub mod metrics;
pub mod retry;
mod single_flight;
pub mod writer;

pub use config::Config;

use breaker::Breaker;
use breaker::prober::Prober;

/// How many times fewer chunks of huge callbacks than others are at work at once.
const BULK_PART: u16 = 4;

/// Fetches until the shut-down.
///
/// # Errors
/// A task ended before its time.
pub async fn run(config: Config, context: ProcessContext) -> anyhow::Result<()> {
    let (broker, database) = (&config.broker, &config.database);
    let client_service = context.health.awaited("client service");
    let mut worker =
        Worker::start(Config::NAME, broker, topology(&config), database, context).await?;
    let (writer, writing) = writer::Writer::start(&config, &worker);
    let client = client::ClientService::new(&config)?;
    let breaker = Arc::new(Breaker::new(config.fetch_concurrency.get(), client_service));
    worker.hold = breaker.hold();
    let prober = Prober::new(Arc::clone(&breaker), client.clone(), &config);
    let service = client.clone();
    let look_ups = look_up::LookUpClient::new(client, breaker);
    let prefetch = config.fetch_prefetch;
    let consume = |queue, name, prefetch: NonZeroU16, client| Consumption {
        queue,
        name,
        prefetch: prefetch.get(),
        handler: fetch::Fetch {
            client,
            writer: writer.clone(),
            retry_delays: config.retry_delays.clone(),
            publisher: worker.publisher.clone(),
            publish_timeout: config.broker.broker_timeout,
        },
    };
    let bulk_prefetch = NonZeroU16::new(prefetch.get() / BULK_PART).unwrap_or(NonZeroU16::MIN);
    let consumptions = [
        consume(
            Queue::Bulk,
            "broker (consuming bulk)",
            bulk_prefetch,
            look_ups.for_bulk(),
        ),
        consume(Queue::Fetch, "broker (consuming)", prefetch, look_ups),
    ];
    drop(writer);
    let shutdown = worker.shutdown.clone();
    let prober_and_names = async {
        tokio::select! {
            () = prober.run(&shutdown) => {}
            () = service.follow() => {}
        }
    };
    Box::pin(worker.consume(consumptions, writing, prober_and_names)).await
}

/// The queues that `fetcher` publishes to and consumes.
#[must_use]
pub fn topology(config: &Config) -> Topology {
    Topology::new(&config.broker.queue_prefix)
        .with([arming::delay_queue(config.object_ttl)])
        .with(config.retry_delays.queues())
}
