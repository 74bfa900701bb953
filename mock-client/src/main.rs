//! The `mock-client` process.

use std::process::ExitCode;

use mock_client::Config;
use shared::boot::start;
use shared::http_server::listen;

fn main() -> ExitCode {
    start(|config: Config, context| async move {
        let listener = listen(config.listen_address)?;
        mock_client::run(config, listener, context).await
    })
}
