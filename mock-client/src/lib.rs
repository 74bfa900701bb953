//! The client service of the task, to try the pipeline with and to put load on it: answers look-ups
//! slowly, and sends callbacks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_server::{ServerLimits, serve};
use process::ProcessContext;
use tokio::net::TcpListener;

use crate::callbacks::CallbackSender;
use crate::chance::Chance;
use crate::objects::ObjectService;

mod callbacks;
mod chance;
mod config;
mod metrics;
mod objects;

pub use crate::metrics::METRICS;
pub use config::Config;

/// Answers look-ups on `listener`, and sends callbacks, until the shut-down.
///
/// # Errors
/// The HTTP client cannot be set up, or the address of `listener` is unknown.
pub async fn run(
    config: Config,
    listener: TcpListener,
    context: ProcessContext,
) -> anyhow::Result<()> {
    let ProcessContext { shutdown, tls, .. } = context;
    let chance = Chance::new(config.seed);
    let callbacks = CallbackSender::new(&config, chance.clone())?;
    let objects = Arc::new(ObjectService::new(config, chance));
    let limits = ServerLimits {
        connections: 20_000,
        header_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        refusal: Bytes::from_static(
            b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
    };
    // The system chooses the port where the setting says 0.
    tracing::info!(address = %listener.local_addr()?, "answering look-ups");
    tokio::join!(
        serve(listener, tls, limits, objects, &shutdown),
        callbacks.run(&shutdown)
    );
    Ok(())
}
