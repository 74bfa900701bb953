//! The `ingest` process.

use std::process::ExitCode;

use anyhow::Context as _;
use ingest::Config;
use tokio::net::TcpListener;

fn main() -> ExitCode {
    shared::boot::start(|config: Config, context| async move {
        let address = config.listen_address;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address}"))?;
        ingest::run(config, listener, context).await
    })
}
