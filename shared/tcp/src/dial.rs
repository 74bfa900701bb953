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

/// Opens a TCP connection to the first address of the host that answers, also what `greet` sends it. Each
/// address has an equal part of `limit` for that. The system gives the connection up when the other side
/// acknowledges nothing for `limit`.
///
/// # Errors
/// The host is not known, or none of its addresses answers in time: why the last one did not.
pub async fn dial<T, E: From<io::Error>, F: Future<Output = Result<T, E>>>(
    (host, port): (&str, u16),
    limit: Duration,
    greet: impl Fn(TcpStream) -> F,
) -> Result<(T, Lifeline), E> {
    let found = timeout(limit, lookup_host((host, port))).await;
    let addresses = found.map_err(io::Error::from).flatten()?;
    dial_any(&addresses.collect::<Vec<_>>(), limit, greet).await
}

async fn dial_any<T, E: From<io::Error>, F: Future<Output = Result<T, E>>>(
    addresses: &[SocketAddr],
    limit: Duration,
    greet: impl Fn(TcpStream) -> F,
) -> Result<(T, Lifeline), E> {
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = io::Error::from(io::ErrorKind::NotFound).into();
    for address in addresses {
        let answered = async {
            let stream = connect(*address, limit).await?;
            let lifeline = Lifeline(Some(SockRef::from(&stream).try_clone()?));
            Ok((greet(stream).await?, lifeline))
        };
        match timeout(share, answered).await {
            Ok(Ok(answered)) => return Ok(answered),
            Ok(Err(error)) => failure = error,
            Err(elapsed) => failure = io::Error::from(elapsed).into(),
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// Waits until the other side says something.
    async fn hear(stream: TcpStream) -> io::Result<TcpStream> {
        stream.readable().await?;
        Ok(stream)
    }

    async fn listening() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_lifeline() {
        let (address, listener) = listening().await;
        let greet = |stream| async { Ok::<_, io::Error>(stream) };
        let dialled = dial(("localhost", address.port()), LIMIT, greet).await;
        let (stream, lifeline) = dialled.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        drop(lifeline);
        assert_eq!(accepted.read(&mut [0; 1]).await.unwrap(), 0);
        drop(stream);
    }

    #[tokio::test]
    async fn a_connection_outlives_a_lifeline_that_was_released() {
        let (address, listener) = listening().await;
        let greet = |stream| async { Ok::<_, io::Error>(stream) };
        let (mut stream, lifeline) = dial_any(&[address], LIMIT, greet).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        lifeline.release();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(accepted.read(&mut [0; 1]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn addresses_that_refuse_or_say_nothing_leave_time_for_the_next() {
        let ((silent, _silent), (address, listener)) = (listening().await, listening().await);
        let (refusing, closed) = listening().await;
        drop(closed);
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
        };
        let begun = Instant::now();
        let addresses = [refusing, silent, address];
        let (dialled, ()) = tokio::join!(dial_any(&addresses, LIMIT, hear), answering);
        assert_eq!(dialled.unwrap().0.peer_addr().unwrap(), address);
        assert!(begun.elapsed() < LIMIT, "after {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn the_failure_is_that_of_the_last_address() {
        let (silent, _silent) = listening().await;
        let (refusing, closed) = listening().await;
        drop(closed);
        for (addresses, expected) in [
            ([refusing, silent], io::ErrorKind::TimedOut),
            ([silent, refusing], io::ErrorKind::ConnectionRefused),
        ] {
            let failure = dial_any(&addresses, LIMIT / 10, hear).await.unwrap_err();
            assert_eq!(failure.kind(), expected);
        }
    }
}
