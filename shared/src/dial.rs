//! Opening TCP connections, and with them those to the broker. Its client library would open the TCP connection too, but one
//! that it cannot be made to give up: a broker that accepts and says nothing would cost a thread and a
//! socket for each try.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use lapin::tcp::TLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, runtime};
use socket2::{SockRef, Socket};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Ends a TCP connection when it is dropped, whoever else has a part in it.
#[derive(Debug)]
pub(crate) struct Lifeline(Socket);

impl Drop for Lifeline {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown(Shutdown::Both) {
            tracing::trace!(%error, "the connection had ended");
        }
    }
}

/// Opens a TCP connection to the first address of the host that answers. Each one has an equal part of
/// `limit`. The system gives the connection up when the other side acknowledges nothing for `limit`.
///
/// # Errors
/// The host is not known, or none of its addresses answers in time: why the last one did not.
pub(crate) async fn dial(
    (host, port): (&str, u16),
    limit: Duration,
) -> io::Result<(TcpStream, Lifeline)> {
    let found = timeout(limit, lookup_host((host, port))).await??;
    let addresses: Vec<SocketAddr> = found.collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(share, connect(address, limit)).await {
            Ok(Ok(stream)) => {
                let lifeline = Lifeline(SockRef::from(&stream).try_clone()?);
                return Ok((stream, lifeline));
            }
            Ok(Err(error)) => failure = error,
            Err(elapsed) => failure = elapsed.into(),
        }
    }
    Err(failure)
}

/// Opens a TCP connection that sends at once what it is given, and that the system gives up when the
/// other side acknowledges nothing for `silence`.
///
/// # Errors
/// There is no connection.
pub(crate) async fn connect(address: SocketAddr, silence: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(silence))?;
    Ok(stream)
}

/// Speaks AMQP on `stream`, encrypted if `uri` says so.
///
/// # Errors
/// What answers does not speak it, or does not let the user in.
pub(crate) async fn open(
    uri: AMQPUri,
    stream: TcpStream,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let stream = Mutex::new(Some(stream));
    let connect = async move |uri: AMQPUri, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The library asks for another one when the first has ended.
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        let plain = AsyncTcpStream::Plain(Compat::new(stream));
        Ok(match uri.scheme {
            AMQPScheme::AMQP => plain,
            AMQPScheme::AMQPS => {
                let host = &uri.authority.host;
                plain.into_tls(host, TLSConfig::default()).await?
            }
        })
    };
    Connection::connector(uri, runtime::default_runtime()?, connect, properties).await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_ends_with_its_lifeline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stream, lifeline) = dial(("localhost", port), Duration::from_secs(5))
            .await
            .unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        drop(lifeline);
        assert_eq!(accepted.read(&mut [0; 1]).await.unwrap(), 0);
        drop(stream);
    }
}
