//! What answers at an address, if it does not speak the protocol that is expected of it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// TLS. The hello is of version 1.2 and offers little; a server answers to it with a handshake or an alert.
pub const TLS: Protocol = Protocol {
    name: "TLS",
    hello: b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03\
        0123456789abcdef0123456789abcdef\
        \x00\x00\x06\xc0\x2f\xc0\x30\x13\x01\x01\x00",
    is_answer: |bytes| matches!(bytes, [0x15 | 0x16, 3, ..]),
};

/// AMQP 0-9-1: a server answers with a frame of a method of the connection as a whole.
pub const AMQP: Protocol = Protocol {
    name: "AMQP 0-9-1",
    hello: b"AMQP\x00\x00\x09\x01",
    is_answer: |bytes| bytes.starts_with(&[1, 0, 0]),
};

/// PostgreSQL's: one byte in answer to the question whether TLS is spoken; old servers answer with an error.
pub const POSTGRES: Protocol = Protocol {
    name: "PostgreSQL's protocol",
    hello: b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    is_answer: |bytes| matches!(bytes, [b'S' | b'N'] | [b'E', 0, ..]),
};

/// What answers begin with whatever was sent, and whose protocol that is.
const BEGINNINGS: [(&[u8], &str); 6] = [
    (b"HTTP/", "HTTP"),
    (b"AMQP", "AMQP"),
    (&[1, 0, 0], "AMQP"),
    (b"-ERR", "Redis' protocol"),
    (b"SSH-", "SSH"),
    // SETTINGS of HTTP/2.
    (&[0, 0], "HTTP/2"),
];

/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Says what answers at `host` and `port`, if it does not speak `expected`. For connections that failed for a reason
/// that does not say so.
pub async fn stranger(host: &str, port: u16, expected: Protocol) -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(4);
    let place = (host, port);
    timeout(LIMIT, recognized(place, expected))
        .await
        .ok()
        .flatten()
}

async fn recognized(place: (&str, u16), expected: Protocol) -> Option<String> {
    let answer = ask(place, expected.hello).await?;
    let answer = answer.as_deref();
    if answer.is_some_and(expected.is_answer) {
        return None;
    }
    let spoken = match answer.and_then(spoken) {
        None if answer.is_some() => spoken_when_asked(place, expected).await,
        spoken => spoken,
    };
    let not = format!("what answers there does not speak {}", expected.name);
    let but = spoken.map_or_else(String::new, |spoken| format!(" but {spoken}"));
    let how = match answer {
        None => ": it says nothing".to_owned(),
        Some([]) if spoken.is_some() => String::new(),
        Some([]) => ": it closed the connection without a word".to_owned(),
        Some(answer) => format!(": it began with \"{}\"", answer.escape_ascii()),
    };
    Some(format!("{not}{but}{how}"))
}

fn spoken(answer: &[u8]) -> Option<&'static str> {
    if (TLS.is_answer)(answer) {
        return Some(TLS.name);
    }
    let mut known = BEGINNINGS.iter();
    let known = known.find(|(beginning, _)| answer.starts_with(beginning));
    known.map(|(_, name)| *name)
}

/// Some servers say nothing to what they do not understand, so each is asked in its own protocol.
async fn spoken_when_asked(place: (&str, u16), expected: Protocol) -> Option<&'static str> {
    for protocol in [TLS, POSTGRES, AMQP] {
        if protocol.name != expected.name
            && let Some(Some(answer)) = ask(place, protocol.hello).await
            && (protocol.is_answer)(&answer)
        {
            return Some(protocol.name);
        }
    }
    None
}

/// What is answered to `hello`: nothing in it if the connection was closed, and none if nothing comes. Fails if there is
/// no connection.
async fn ask(place: (&str, u16), hello: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect(place).await.ok()?;
    let mut answer = vec![0; 24];
    // Servers of line-based protocols, such as HTTP, wait for the end of a line.
    for bytes in [hello, b"\r\n\r\n"] {
        // A server that has answered and closed may refuse further bytes.
        drop(stream.write_all(bytes).await);
        if let Ok(read) = timeout(PATIENCE, stream.read(&mut answer)).await {
            // A connection that was reset was closed.
            answer.truncate(read.or_else(closed).ok()?);
            return Some(Some(answer));
        }
    }
    Some(None)
}

fn closed(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(0),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What is said of a server that answers `answer` to each connection once it has read something that begins with
    /// `begin` and ends with `end`, and closes others.
    async fn said_of(begin: &'static [u8], end: &'static [u8], answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                while !read.ends_with(end) || read.is_empty() {
                    read.push(stream.read_u8().await.unwrap());
                }
                if read.starts_with(begin) {
                    stream.write_all(answer).await.unwrap();
                }
            }
        };
        tokio::select! {
            () = serve => unreachable!("it serves for ever"),
            said = stranger("127.0.0.1", port, AMQP) => said.unwrap_or_default(),
        }
    }

    #[tokio::test]
    async fn who_speaks_the_protocol_is_no_stranger() {
        assert_eq!(said_of(b"AMQP", b"\x09\x01", b"\x01\x00\x00").await, "");
    }

    #[tokio::test]
    async fn a_stranger_is_recognized_by_its_first_bytes() {
        for (end, answer, said) in [
            (
                &b"\r\n"[..],
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                r#" but HTTP: it began with "HTTP/1.1 400 Bad Request""#,
            ),
            (
                b"\x09\x01",
                b"\x15\x03\x01\x00\x02\x02F",
                r#" but TLS: it began with "\x15\x03\x01\x00\x02\x02F""#,
            ),
            (
                b"\r\n",
                b"-ERR unknown command\r\n",
                r#" but Redis' protocol: it began with "-ERR unknown command\r\n""#,
            ),
            (
                b"\r\n",
                b"220 mail\r\n",
                r#": it began with "220 mail\r\n""#,
            ),
        ] {
            let stranger = said_of(b"", end, answer).await;
            let expected = format!("what answers there does not speak AMQP 0-9-1{said}");
            assert_eq!(stranger, expected);
        }
    }

    #[tokio::test]
    async fn a_stranger_that_closes_is_asked_in_its_own_protocol() {
        let said = said_of(b"\x16", b"", b"\x15\x03\x03\x00\x02\x02\x28").await;
        assert!(
            said.ends_with("does not speak AMQP 0-9-1 but TLS"),
            "{said}"
        );
        let said = said_of(b"\x00", b"", b"N").await;
        assert!(said.contains(" but PostgreSQL's protocol"), "{said}");
        let said = said_of(b"nothing", b"", b"").await;
        assert!(
            said.ends_with("closed the connection without a word"),
            "{said}"
        );
    }
}
