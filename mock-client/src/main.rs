//! The `mock-client` process.

use std::process::ExitCode;

use http_server::listen;
use mock_client::Config;
use process::start;

fn main() -> ExitCode {
    start(|config: Config, context| async move {
        let listener = listen(config.listen_address)?;
        mock_client::run(config, listener, context).await
    })
}
