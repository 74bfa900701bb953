//! The `ingest` process.

use std::process::ExitCode;

use http_server::listen;
use ingest::Config;
use process::start;

fn main() -> ExitCode {
    start(|config: Config, context| async move {
        let listener = listen(config.listen_address)?;
        ingest::run(config, listener, context).await
    })
}
