//! A connection whose server is not verified.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::outgoing::client_config;
use crate::verifier::unverified;

/// Shakes hands with whatever is at the other end. It is for questions to a process of this machine, by an address that its
/// certificate does not name.
///
/// # Errors
/// The other side does not speak TLS, or is gone.
pub async fn connect_unverified(stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(stream.peer_addr()?.ip());
    let config = client_config(unverified(), None)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
