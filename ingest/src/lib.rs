//! Accepts callbacks over HTTP and publishes their ids to the broker. A callback is answered 202 once all
//! of it is stored by the broker or in the spool on this host's disk, and not before.

use std::sync::Arc;

use broker::{Broker, Publisher, Topology};
use http_server::{ServerLimits, serve};
use lifecycle::VitalTask;
use process::{ProcessConfig, ProcessContext};
use tokio::net::TcpListener;

use crate::acceptance::Acceptance;
use crate::chunks::ChunkPublisher;
use crate::server::Server;
use crate::spool::{Spool, drain};

mod acceptance;
mod admission;
mod body;
mod chunks;
mod coding;
mod config;
mod description;
mod error;
mod metrics;
mod proxies;
mod request;
mod server;
mod sources;
mod spool;
mod spread;

pub use crate::metrics::METRICS;
pub use config::Config;
pub use description::DESCRIPTION;
pub use request::{Callback, CallbackError};

/// Accepts callbacks on `listener` until the shut-down.
///
/// # Errors
/// A task ended before its time.
pub async fn run(
    config: Config,
    listener: TcpListener,
    context: ProcessContext,
) -> anyhow::Result<()> {
    let ingest = Ingest::start(config, context);
    ingest.work(listener).await?;
    ingest.finish().await;
    Ok(())
}

struct Ingest {
    config: Config,
    context: ProcessContext,
    chunks: ChunkPublisher,
    publishing: VitalTask,
    spool: Spool,
    spooling: VitalTask,
}

impl Ingest {
    /// Begins to connect to the broker, and opens the spool.
    fn start(config: Config, context: ProcessContext) -> Self {
        let ProcessContext {
            health, shutdown, ..
        } = &context;
        let topology = Topology::new(&config.broker.queue_prefix);
        let broker = Broker::new(Config::NAME, &config.broker, topology);
        let broker_health = health.dependency("broker");
        let (broker_publisher, publishing) =
            Publisher::start(broker, broker_health.clone(), shutdown);
        let chunks = ChunkPublisher::new(broker_publisher, broker_health, &config);
        // Either of the two is enough to accept callbacks.
        let spool_health = health.alternative("spool", "broker");
        let (directory, limit) = (&config.spool_directory, config.spool_limit);
        let (spool, spooling) = Spool::start(directory, limit, spool_health, shutdown);
        Self {
            config,
            context,
            chunks,
            publishing,
            spool,
            spooling,
        }
    }

    /// Answers requests and drains the spool until the shut-down.
    async fn work(&self, listener: TcpListener) -> anyhow::Result<()> {
        let ProcessContext {
            health,
            shutdown,
            tls,
        } = self.context.clone();
        let acceptance = Acceptance::new(self.chunks.clone(), self.spool.clone());
        let server = Server::new(&self.config, acceptance, health)?;
        let server = Arc::new(server);
        let limits = ServerLimits {
            connections: self.config.connections_limit.get(),
            header_timeout: self.config.header_timeout,
            idle_timeout: self.config.idle_timeout,
            refusal: error::refusal(),
        };
        // The system chooses the port where the setting says 0.
        let address = listener.local_addr()?;
        tracing::info!(%address, "accepting callbacks");
        if !server.admission().asks_for_signatures() && !address.ip().is_loopback() {
            tracing::warn!(
                "callbacks are accepted from anybody who reaches this address, because \
                 WEBHOOK_SECRETS is not set"
            );
        }
        let serving = serve(listener, tls, limits, Arc::clone(&server), &shutdown);
        let draining = drain::run(&self.spool, &self.chunks, &shutdown);
        tokio::select! {
            _ = async { tokio::join!(serving, draining) } => Ok(()),
            () = server.admission().follow_keys() => Ok(()),
            error = self.publishing.failed() => Err(error),
            error = self.spooling.failed() => Err(error),
        }
    }

    /// Ends the spool and then the publisher. The callbacks of clients that have hung up may still use
    /// both; each ends when they are done, or when the time to drain is over.
    async fn finish(self) {
        self.spool.close(self.spooling).await;
        self.chunks.close(self.publishing).await;
    }
}
