//! Why something failed, in full: the text of many errors leaves the cause to their sources.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The text of `error` and of each of its sources that says something more.
#[must_use]
pub fn reason(error: &(dyn Error + 'static)) -> String {
    reason_with(error, |_| None)
}

/// The same. Where `describe` knows an error, its text replaces that of the error around it.
#[must_use]
pub fn reason_with(
    error: &(dyn Error + 'static),
    describe: impl Fn(&(dyn Error + 'static)) -> Option<String>,
) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(described) = describe(error) {
            parts.pop();
            parts.push(described);
        } else {
            let text = error.to_string();
            if parts.iter().all(|part| !part.contains(&text)) {
                parts.push(text);
            }
        }
        next = error.source();
    }
    parts.join(": ")
}

/// A protocol, and how to recognize a server that speaks it.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Its name.
    pub name: &'static str,
    /// What a client sends first, and what a server answers at once.
    pub hello: &'static [u8],
    /// Whether these bytes are the beginning of an answer to that.
    pub is_answer: fn(&[u8]) -> bool,
}

/// What answers at `host` and `port`, if it does not speak `protocol`. For connections that failed for
/// a reason that does not say so.
pub async fn stranger(host: &str, port: u16, protocol: Protocol) -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(2);
    let Protocol {
        name, is_answer, ..
    } = protocol;
    let answer = match timeout(LIMIT, first_bytes(host, port, protocol.hello)).await {
        Ok(Ok(answer)) if is_answer(&answer) => return None,
        Ok(Ok(answer)) if answer.is_empty() => "it closed the connection without a word".to_owned(),
        Ok(Ok(answer)) => format!("it began with {}", shown(&answer)),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            "it says nothing".to_owned()
        }
        // There is no answer, and the first reason has to do.
        Ok(Err(_)) | Err(_) => return None,
    };
    Some(format!(
        "what answers at {host} on port {port} does not speak {name}: {answer}"
    ))
}

async fn first_bytes(host: &str, port: u16, hello: &[u8]) -> std::io::Result<Vec<u8>> {
    const PATIENCE: Duration = Duration::from_millis(500);
    let mut stream = TcpStream::connect((host, port)).await?;
    let mut answer = vec![0; 24];
    // Servers of line-based protocols, such as HTTP, wait for the end of a line.
    for bytes in [hello, b"\r\n\r\n"] {
        // A server that has answered and closed may refuse further bytes.
        drop(stream.write_all(bytes).await);
        if let Ok(read) = timeout(PATIENCE, stream.read(&mut answer)).await {
            answer.truncate(read?);
            return Ok(answer);
        }
    }
    Err(std::io::ErrorKind::TimedOut.into())
}

fn shown(bytes: &[u8]) -> String {
    // An alert or a handshake, of version 3.x.
    let is_tls = matches!(bytes, [0x15 | 0x16, 3, ..]);
    let kind = if is_tls { ", which is TLS" } else { "" };
    format!("\"{}\"{kind}", bytes.escape_ascii())
}

/// Whether `host` is this machine, as far as its name tells.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || format!("{host}:0")
            .parse::<SocketAddr>()
            .or_else(|_| format!("[{host}]:0").parse())
            .is_ok_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use thiserror::Error;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Error)]
    #[error("outer{0}")]
    struct Outer(&'static str, #[source] Inner);

    #[derive(Debug, Error)]
    #[error("inner")]
    struct Inner;

    #[test]
    fn the_reason_has_each_source_once() {
        assert_eq!(reason(&Outer("", Inner)), "outer: inner");
        assert_eq!(reason(&Outer(": inner", Inner)), "outer: inner");
    }

    #[test]
    fn a_loopback_host_is_recognized() {
        for host in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.8.0.1",
            "::1",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["db", "10.0.0.1", "localhost.example.com", "2001:db8::5", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    const ECHO: Protocol = Protocol {
        name: "Echo",
        hello: b"echo",
        is_answer: |answer| answer == b"echo",
    };

    /// What is said of a server that answers with `answer` once it has read something ending in `end`.
    async fn said_of(answer: &'static [u8], end: &'static [u8]) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(end) {
                read.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(serve, stranger("127.0.0.1", port, ECHO)).1
    }

    #[tokio::test]
    async fn a_stranger_is_recognized_by_its_first_bytes() {
        assert_eq!(said_of(b"echo", b"echo").await, None);
        for (answer, end, said) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                &b"\r\n"[..],
                r#""HTTP/1.1 400 Bad Request""#,
            ),
            (
                b"\x15\x03\x01\x00\x02\x02F",
                b"echo",
                r#""\x15\x03\x01\x00\x02\x02F", which is TLS"#,
            ),
            (b"", b"echo", "without a word"),
        ] {
            let stranger = said_of(answer, end).await.unwrap();
            assert!(stranger.ends_with(said), "{stranger}");
            assert!(stranger.contains("does not speak Echo"), "{stranger}");
        }
    }
}
