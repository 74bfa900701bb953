//! The `ingest` process.

use std::process::ExitCode;

use ingest::Config;
use shared::boot::start;
use shared::http_server::listen;

fn main() -> ExitCode {
    start(|config: Config, context| async move {
        let listener = listen(config.listen_address)?;
        ingest::run(config, listener, context).await
    })
}
