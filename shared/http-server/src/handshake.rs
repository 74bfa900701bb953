//! The TLS handshake at the beginning of a connection.

use std::io::{self, ErrorKind};

use tls::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::either::Either;

use crate::lingering_stream::{LingeringStream, Transport};
use crate::server::Server;

/// The first byte of a TLS connection.
const HANDSHAKE: u8 = 0x16;

/// The answer to a client that begins with something else.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 31\r\n\
    connection: close\r\n\r\nthis port speaks TLS: https://\n";

impl<S> Server<S> {
    /// Shakes hands with the client if the server speaks TLS, in the time that a head may take.
    ///
    /// # Errors
    /// The client speaks something else, or takes too long, or is gone.
    pub(crate) async fn shake_hands(&self, stream: TcpStream) -> io::Result<Transport> {
        let Some(tls) = &self.tls else {
            return Ok(Either::Left(stream));
        };
        // On the heap, where a connection without TLS has no need of its size.
        let shaken = Box::pin(shake_hands(tls, stream));
        timeout(self.limits.header_timeout, shaken).await?
    }
}

async fn shake_hands(tls: &Acceptor, stream: TcpStream) -> io::Result<Transport> {
    let mut first = [0];
    if stream.peek(&mut first).await? > 0 && first[0] != HANDSHAKE {
        let mut stream = LingeringStream::write_only(Either::Left(stream));
        stream.write_all(NOT_TLS).await?;
        stream.shutdown().await?;
        return Err(io::Error::new(ErrorKind::InvalidData, "it speaks no TLS"));
    }
    Ok(Either::Right(Box::new(tls.accept(stream).await?)))
}
