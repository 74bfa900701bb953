//! Accepts callbacks over HTTP and publishes their ids to the broker. A callback is answered 202
//! once the broker has confirmed all of it, and not before.

use std::sync::Arc;

use shared::boot::{Context, Process};
use shared::broker::Broker;
use shared::http_server::{ServerLimits, serve};
use shared::publisher::Publisher;
use shared::topology::Topology;
use tokio::net::TcpListener;

pub mod body;
pub mod config;
pub mod description;
pub mod error;
pub mod publisher;
pub mod request;
pub mod server;

pub use config::Config;

/// Accepts callbacks on `listener` until the shut-down.
///
/// # Errors
/// The task that publishes ended before its time.
pub async fn run(config: Config, listener: TcpListener, context: Context) -> anyhow::Result<()> {
    let Context { health, shutdown } = context;
    let topology = Topology::new(&config.broker.queue_prefix);
    let broker = Broker::new(Config::NAME, &config.broker, topology);
    let dependency = health.dependency("broker");
    let (publisher, publishing) = Publisher::start(broker, dependency, &shutdown);

    let callbacks =
        publisher::CallbackPublisher::new(publisher, config.chunk_size, config.publish_timeout);
    let server = Arc::new(server::Server::new(&config, callbacks, health));
    let limits = ServerLimits {
        connections: config.connections_limit.get(),
        header_timeout: config.header_timeout,
        refusal: error::refusal(),
    };
    tokio::select! {
        () = serve(listener, limits, server, &shutdown) => {}
        error = publishing.failed() => return Err(error),
    }
    // The last request has been answered, and with the server the last way to publish is gone.
    publishing.finished().await;
    Ok(())
}
