//! The `ingest` process.

use std::process::ExitCode;

use ingest::Config;
use shared::boot::{listen, start};

fn main() -> ExitCode {
    start(|config: Config, context| async move {
        let listener = listen(config.listen_address)?;
        ingest::run(config, listener, context).await
    })
}
