//! The `ingest` process.

use std::process::ExitCode;

use ingest::Config;
use shared::boot::{listen, start};

fn main() -> ExitCode {
    start(|config: Config, context| async move {
        let listener = listen(config.listen_address).await?;
        // The system chooses the port where the setting says 0.
        tracing::info!(address = %listener.local_addr()?, "callbacks are taken");
        ingest::run(config, listener, context).await
    })
}
