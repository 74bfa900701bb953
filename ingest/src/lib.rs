//! Accepts callbacks over HTTP and publishes their ids to the broker. A callback is answered 202
//! once all of it is on the broker's disk or in the spool on this host's, and not before.

use std::sync::Arc;

use broker::{Broker, Publisher, Topology};
use http_server::{ServerLimits, serve};
use process::{ProcessConfig, ProcessContext};
use tokio::net::TcpListener;

pub mod acceptance;
pub mod body;
pub mod coding;
pub mod config;
pub mod description;
pub mod error;
pub mod metrics;
pub mod publisher;
pub mod request;
pub mod server;
pub mod spool;

pub use config::Config;

/// Accepts callbacks on `listener` until the shut-down.
///
/// # Errors
/// A task ended before its time.
pub async fn run(
    config: Config,
    listener: TcpListener,
    context: ProcessContext,
) -> anyhow::Result<()> {
    let ProcessContext { health, shutdown } = context;
    let topology = Topology::new(&config.broker.queue_prefix);
    let broker = Broker::new(Config::NAME, &config.broker, topology);
    let dependency = health.dependency("broker");
    let (publisher, publishing) = Publisher::start(broker, dependency.clone(), &shutdown);
    let publisher = publisher::ChunkPublisher::new(publisher, dependency, &config);
    let (directory, limit) = (&config.spool_directory, config.spool_limit);
    // Each is enough to accept callbacks.
    let dependency = health.alternative("spool", "broker");
    let (spool, spooling) = spool::Spool::start(directory, limit, dependency, &shutdown);

    let acceptance = acceptance::Acceptance::new(publisher.clone(), spool.clone());
    let server = Arc::new(server::Server::new(&config, acceptance, health));
    let limits = ServerLimits {
        connections: config.connections_limit.get(),
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        refusal: error::refusal(),
    };
    // The system chooses the port where the setting says 0.
    tracing::info!(address = %listener.local_addr()?, "accepting callbacks");
    let work = async {
        tokio::join!(
            serve(listener, limits, server, &shutdown),
            spool::drain::run(&spool, &publisher, &shutdown),
        )
    };
    tokio::select! {
        _ = work => {}
        error = publishing.failed() => return Err(error),
        error = spooling.failed() => return Err(error),
    }
    // The last request has been answered; with these the last ways to publish and to spool are gone.
    drop((spool, publisher));
    spooling.finished().await;
    publishing.finished().await;
    Ok(())
}
