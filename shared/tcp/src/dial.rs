//! Opening TCP connections that are given up in time.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Ends a TCP connection when it is dropped, even while others hold the connection.
#[derive(Debug)]
pub struct Lifeline(Option<Socket>);

impl Lifeline {
    /// Leaves the end of the connection to those who hold it.
    pub fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let ended = self
            .0
            .as_ref()
            .map(|socket| socket.shutdown(Shutdown::Both));
        if let Some(Err(error)) = ended {
            tracing::trace!(%error, "the connection had ended");
        }
    }
}

/// Opens a TCP connection to the first address of the host that answers. Each one has an equal part of
/// `limit`. The system gives the connection up when the other side acknowledges nothing for `limit`.
///
/// # Errors
/// The host is not known, or none of its addresses answers in time: why the last one did not.
pub async fn dial((host, port): (&str, u16), limit: Duration) -> io::Result<(TcpStream, Lifeline)> {
    let found = timeout(limit, lookup_host((host, port))).await??;
    let addresses: Vec<SocketAddr> = found.collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(share, connect(address, limit)).await {
            Ok(Ok(stream)) => {
                let lifeline = Lifeline(Some(SockRef::from(&stream).try_clone()?));
                return Ok((stream, lifeline));
            }
            Ok(Err(error)) => failure = error,
            Err(elapsed) => failure = elapsed.into(),
        }
    }
    Err(failure)
}

/// Opens a TCP connection that sends small packets at once. The system gives it up when the other side
/// acknowledges nothing for `silence`.
///
/// # Errors
/// There is no connection.
pub async fn connect(address: SocketAddr, silence: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(silence))?;
    Ok(stream)
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
