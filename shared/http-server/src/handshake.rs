//! The beginning of a connection before HTTP: the PROXY header of a proxy, and the TLS handshake.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tls::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::either::Either;

use crate::lingering_stream::{LingeringStream, Transport};
use crate::proxy_protocol;
use crate::server::{Server, Service};

/// The first byte of a TLS connection.
const HANDSHAKE: u8 = 0x16;

/// The answer to a client that begins with something else.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 31\r\n\
    connection: close\r\n\r\nthis port speaks TLS: https://\n";

impl<S: Service> Server<S> {
    /// Reads the PROXY header if `peer` has to send one, and then shakes hands if the server speaks TLS, in the time that a head
    /// may take. Returns also the address of the client.
    ///
    /// # Errors
    /// The client speaks something else, or takes too long, or is gone.
    pub(crate) async fn shake_hands(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> io::Result<(Transport, SocketAddr)> {
        if !self.has_handshake(peer) {
            return Ok((Either::Left(stream), peer));
        }
        // On the heap, where a connection without a handshake has no need of its size.
        let shaken = Box::pin(self.shake_hands_without_bound(stream, peer));
        timeout(self.limits.header_timeout, shaken).await?
    }

    /// Whether something comes before HTTP.
    pub(crate) fn has_handshake(&self, peer: SocketAddr) -> bool {
        self.tls.is_some() || self.service.sends_proxy_header(peer.ip())
    }

    async fn shake_hands_without_bound(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> io::Result<(Transport, SocketAddr)> {
        let mut client = None;
        if self.service.sends_proxy_header(peer.ip()) {
            client = proxy_protocol::read_header(&mut stream).await?;
        }
        let transport = match &self.tls {
            Some(tls) => shake_hands(tls, stream).await?,
            None => Either::Left(stream),
        };
        Ok((transport, client.unwrap_or(peer)))
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
