//! Looks every id up at the client service, stores the online ones, and arms their deletion. A
//! message is acked when each of its ids is stored, known to be offline or gone, or on its way to
//! another try.

use std::sync::Arc;

use broker::{BrokerSettings, Consumption, Queue, Topology};
use http_server::connections_within_limit;
use process::{ProcessConfig, ProcessContext};
use worker::Worker;

mod answer;
mod arming;
mod at_hand;
mod batch;
mod breaker;
mod client;
mod config;
mod connection_pool;
mod credentials;
mod fetch_handler;
mod look_up;
mod metrics;
mod object;
mod retry;
pub mod setup;
mod single_flight;
mod upsert;
mod writer;

pub use answer::Reason;
pub use arming::delay_queue;
pub use config::Config;
pub use object::Object;
pub use upsert::{UPSERT, UpsertParameters};

use at_hand::IdsAtHand;
use breaker::{Breaker, Prober};
use client::ClientService;
use config::Delays;
use fetch_handler::FetchHandler;
use look_up::LookUpClient;
use writer::Writer;

/// Fetches until the shut-down.
///
/// # Errors
/// A task ended before its time.
pub async fn run(config: Config, context: ProcessContext) -> anyhow::Result<()> {
    let client_service = context.health.awaited("client service");
    let credentials =
        credentials::may_change(&config).then(|| context.health.awaited("client credentials"));
    let (broker, database) = (&config.broker, &config.database);
    let topology = topology(&config);
    let mut worker = Worker::start(Config::NAME, broker, topology, database, context).await?;
    let client = ClientService::new(&config)?;
    let concurrency = connections_within_limit(config.fetch_concurrency.get());
    let client_service = client_service.at(&client.place());
    let breaker = Breaker::new(concurrency, config.fetch_timeout, client_service);
    let breaker = Arc::new(breaker);
    worker.hold = breaker.hold();
    let (writer, writing) = Writer::start(&config, &worker);
    let handler = FetchHandler {
        client: LookUpClient::new(client.clone(), Arc::clone(&breaker)),
        writer,
        retry_delays: config.delays.retry_delays.clone(),
        publisher: worker.publisher.clone(),
        publish_timeout: config.broker.broker_timeout,
        at_hand: IdsAtHand::default(),
        prefetch: config.fetch_prefetch.get(),
    };
    let consumptions = consumptions(handler);
    let prober = Prober::new(breaker, client.clone(), &config);
    let shutdown = worker.shutdown.clone();
    let watch_client_service = async {
        tokio::select! {
            () = prober.run(&shutdown) => {}
            () = client.follow(credentials.as_ref()) => {}
        }
    };
    Box::pin(worker.consume(consumptions, writing, watch_client_service)).await
}

/// The chunks of huge callbacks have a separate queue and connection, so that others need not wait
/// behind them.
fn consumptions(handler: FetchHandler) -> [Consumption<FetchHandler>; 2] {
    // A message has at least one id.
    let prefetch = u16::try_from(handler.prefetch).unwrap_or(u16::MAX);
    let bulk = Consumption {
        queue: Queue::Bulk,
        name: "broker (consuming bulk)",
        prefetch,
        handler: FetchHandler {
            client: handler.client.for_bulk(),
            at_hand: IdsAtHand::default(),
            ..handler.clone()
        },
    };
    let others = Consumption {
        queue: Queue::Fetch,
        name: "broker (consuming)",
        prefetch,
        handler,
    };
    [bulk, others]
}

/// The queues that `fetcher` publishes to and consumes.
#[must_use]
pub fn topology(config: &Config) -> Topology {
    topology_of(&config.broker, &config.delays)
}

fn topology_of(broker: &BrokerSettings, delays: &Delays) -> Topology {
    Topology::new(&broker.queue_prefix)
        .with([delay_queue(delays.object_ttl)])
        .with(delays.retry_delays.queues())
}
