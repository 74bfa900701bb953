//! The HTTP server of a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_server::{ServerLimits, Service, serve};
use lifecycle::Shutdown;
use tokio::net::TcpListener;

/// Serves until the test's runtime ends, within limits that no test reaches.
pub(crate) fn start_serving(listener: TcpListener, service: Arc<impl Service>) {
    let limits = ServerLimits {
        connections: 10_000,
        header_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        refusal: Bytes::new(),
    };
    tokio::spawn(async move {
        let never = Shutdown::new(Duration::from_secs(1));
        serve(listener, None, limits, service, &never).await;
    });
}
