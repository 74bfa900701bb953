//! The PROXY protocol: a load balancer that passes TCP on begins each connection with a header that names its client.
//!
//! Both versions of the header are read: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::metrics::PROXY_HEADERS_MALFORMED;

/// What a header of version 1 begins with. It is a line of text.
const LINE: &[u8] = b"PROXY ";
/// Maximum length of that line, as the specification says.
const LINE_LIMIT: usize = 107;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// A header of version 2 on a connection that the load balancer has made for itself, as for a health check.
const LOCAL: &[u8; 13] = b"\r\n\r\n\0\r\nQUIT\n\x20";
/// Maximum length of what such a header announces. Addresses take 216 bytes or less; a client certificate, which a
/// load balancer may add, takes one or two thousand.
const BLOCK_LIMIT: usize = 4 << 10;

const VERSIONS: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

/// Reads a header, and no byte of what follows it. Returns the address of the client, if the header names one.
///
/// # Errors
/// The connection begins with something else, or ends.
pub(crate) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    // No header is shorter.
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_block(&mut header, stream).await?;
    } else if header.starts_with(LINE) {
        read_line(&mut header, stream).await?;
    } else {
        return Err(malformed(
            "the connection does not begin with a PROXY header",
        ));
    }
    client(&header)
}

/// Reads the rest of a header of version 2, which says how long it is.
async fn read_block(header: &mut Vec<u8>, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    header.extend(fixed);
    let [_, _, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BLOCK_LIMIT {
        return Err(malformed("the PROXY header is too long"));
    }
    let begin = header.len();
    header.resize(begin + length, 0);
    stream.read_exact(&mut header[begin..]).await?;
    Ok(())
}

/// Reads the rest of a header of version 1, which ends with the line.
async fn read_line(header: &mut Vec<u8>, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    while !header.ends_with(b"\n") {
        if header.len() == LINE_LIMIT {
            return Err(malformed("the PROXY header is too long"));
        }
        header.push(stream.read_u8().await?);
    }
    Ok(())
}

/// The address in a header that is complete.
fn client(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    // Such a header may have any address, which does not count.
    if header.starts_with(LOCAL) {
        return Ok(None);
    }
    let (header, _) = ProxyHeader::parse(header, VERSIONS)
        .map_err(|_| malformed("the PROXY header is malformed"))?;
    let client = header.proxied_address().map(|named| named.source);
    Ok(client.map(|client| SocketAddr::new(client.ip().to_canonical(), client.port())))
}

fn malformed(reason: &'static str) -> io::Error {
    PROXY_HEADERS_MALFORMED.increment(1);
    io::Error::new(ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::FutureExt;
    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    const V4: u8 = 0x11;
    const V6: u8 = 0x21;
    const UNIX: u8 = 0x31;
    const PROXIED: u8 = 0x21;

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl AsyncRead for Slow<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some((first, rest)) = self.0.split_first() {
                buffer.put_slice(&[*first]);
                self.0 = rest;
            }
            Poll::Ready(Ok(()))
        }
    }

    fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, block].concat()
    }

    /// The addresses 198.51.100.1:4711 and 10.0.0.1:443.
    fn v4() -> Vec<u8> {
        vec![198, 51, 100, 1, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb]
    }

    /// A client at this address, at port 4711.
    fn v6(client: &str) -> Vec<u8> {
        let client: std::net::Ipv6Addr = client.parse().unwrap();
        let ports = [0x12, 0x67, 0x01, 0xbb];
        [&client.octets()[..], &[0; 16], &ports].concat()
    }

    /// What is read of the header, and what is left; the same at once and byte by byte.
    async fn read(bytes: &[u8]) -> (Result<Option<String>, ErrorKind>, &[u8]) {
        let (mut at_once, mut slow) = (bytes, Slow(bytes));
        let text = |read: io::Result<Option<SocketAddr>>| {
            let read = read.map(|client| client.map(|client| client.to_string()));
            read.map_err(|error| error.kind())
        };
        let result = text(read_header(&mut at_once).await);
        assert_eq!(text(read_header(&mut slow).await), result);
        assert_eq!(slow.0, at_once);
        (result, at_once)
    }

    async fn assert_names(header: &[u8], client: Option<&str>) {
        const REST: &[u8] = b"\x16PROXY \r\n\r\n\0\r\nQUIT\n";
        let bytes = [header, REST].concat();
        let (read, rest) = read(&bytes).await;
        assert_eq!(read.unwrap().as_deref(), client, "{header:?}");
        assert_eq!(rest, REST, "{header:?}");
    }

    #[tokio::test]
    async fn a_header_names_the_client_and_what_follows_is_left() {
        let named = Some("198.51.100.1:4711");
        assert_names(&header(PROXIED, V4, &v4()), named).await;
        let v6 = |client| header(PROXIED, V6, &v6(client));
        assert_names(&v6("2001:db8::1"), Some("[2001:db8::1]:4711")).await;
        assert_names(&v6("::ffff:198.51.100.1"), named).await;
        let line = b"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n";
        assert_names(line, named).await;
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n";
        assert_names(line, Some("[2001:db8::1]:4711")).await;
    }

    #[tokio::test]
    async fn what_a_header_has_besides_addresses_is_skipped() {
        let named = Some("198.51.100.1:4711");
        for more in [
            // The name of the host, and a check sum that is wrong.
            &b"\x02\x00\x09localhost\x03\x00\x04\0\0\0\0"[..],
            // Longer than the header.
            b"\x02\xff\xff",
            &[b'x'; BLOCK_LIMIT - 12],
        ] {
            let block = [&v4(), more].concat();
            assert_names(&header(PROXIED, V4, &block), named).await;
        }
    }

    #[tokio::test]
    async fn a_header_may_name_no_client() {
        for (command, family, block) in [
            // Of the load balancer itself.
            (0x20, 0x00, vec![]),
            (0x20, V4, v4()),
            (0x20, V4, vec![1, 2, 3]),
            (0x20, 0xff, vec![b'x'; BLOCK_LIMIT]),
            // Of something that has no address.
            (PROXIED, 0x00, vec![]),
            (PROXIED, 0x00, v4()),
            (PROXIED, UNIX, vec![b'/'; 216]),
        ] {
            assert_names(&header(command, family, &block), None).await;
        }
        assert_names(b"PROXY UNKNOWN\r\n", None).await;
        assert_names(b"PROXY UNKNOWN fffe::1 fffe::2 1 2\r\n", None).await;
    }

    #[tokio::test]
    async fn a_malformed_header_is_refused() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; LINE_LIMIT]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
            b"\r\n\r\n\0\r\nQUIT\r\n",
            b"PROXY TCP4 198.51.100.1 10.0.0.1 4711\r\n",
            b"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n",
            b"PROXY TCP4 198.51.100.256 10.0.0.1 4711 443\r\n",
            b"PROXY UDP4 198.51.100.1 10.0.0.1 4711 443\r\n",
            &long,
            &header(PROXIED, V4, &v4()[..11]),
            &header(PROXIED, V6, &v4()),
            &header(PROXIED, UNIX, &v4()),
            &header(PROXIED, 0x41, &v4()),
            // Another version, and another command.
            &header(0x11, V4, &v4()),
            &header(0x22, V4, &v4()),
            &header(PROXIED, V4, &[0; BLOCK_LIMIT + 1]),
            &header(0x20, 0x00, &[0; BLOCK_LIMIT + 1]),
        ] {
            // No more is waited for.
            let bytes = bytes.get(..16 + BLOCK_LIMIT).unwrap_or(bytes);
            let (read, _) = read(bytes).await;
            assert_eq!(read, Err(ErrorKind::InvalidData), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_breaks_off_is_no_header() {
        let line = b"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n";
        for whole in [&line[..], &header(PROXIED, V4, &v4())] {
            for length in 0..whole.len() {
                let (read, rest) = read(&whole[..length]).await;
                assert_eq!(read, Err(ErrorKind::UnexpectedEof), "{length}");
                assert!(rest.is_empty());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none(
            begin in prop::sample::select(vec![&SIGNATURE[..], LINE, b"PROXY TCP6 ", b""]),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [begin, &bytes].concat();
            let (read, rest) = read(&bytes).now_or_never().unwrap();
            prop_assert!(read.is_err() || rest.len() < bytes.len());
        }
    }
}
