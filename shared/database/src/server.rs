//! One server of the database: where it listens, and how a stream to it is opened.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tcp::connect;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use crate::wire::Wire;

/// How long a connection is idle before the kernel asks the server's host whether it is still there,
/// and the time between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One server, or one address of a server with several.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) address: Address,
}

/// Host and port as the URL names them, or the path of a socket.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl Server {
    /// Opens a stream. The kernel ends it when the server's host has not acknowledged what was sent for
    /// `silence`.
    pub(crate) async fn open(&self, heard: &Arc<Notify>, silence: Duration) -> io::Result<Wire> {
        let stream = match &self.address {
            Address::Tcp(address) => {
                let stream = connect(*address, silence).await?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                let keepalive = keepalive.with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Either::Left(stream)
            }
            Address::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        };
        let heard = Arc::clone(heard);
        Ok(Wire { stream, heard })
    }

    pub(crate) fn tls(&self, tls: &MakeRustlsConnect) -> Handshake {
        let mut tls = tls.clone();
        let Ok(tls) = MakeTlsConnect::<Wire>::make_tls_connect(&mut tls, &self.place.host);
        tls
    }
}

/// Encrypts a stream to one server.
pub(crate) type Handshake = <MakeRustlsConnect as MakeTlsConnect<Wire>>::TlsConnect;
