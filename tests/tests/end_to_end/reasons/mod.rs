//! Why something that a process depends on cannot be used is said in full, in the log and by `/readyz`: what is there, what was
//! expected, and what to try. The rows of `deploy/runbook/reasons.md` are made here, each by its fault.

mod broker;
mod client_service;
mod collector;
mod database;
mod flapping;

use tests::client::exchange;
use tests::processes::{Process, address_in};
use tests::tls::{Authority, Speaks, TlsProxy};
use tests::wait::eventually;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::binaries::{flags, replaced};

const PAGE: &str = include_str!("../../../../deploy/runbook/reasons.md");

/// Whether `text` says what a row of the page does, in which `…` stands for anything. The page has such a row.
fn says(text: &str, row: &str) -> bool {
    assert!(
        PAGE.contains(&format!("| `{row}` |")),
        "the page lacks {row:?}"
    );
    let mut rest = text;
    row.split('…').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// A binary, some of whose flags are replaced by these, says what the row does as the reason of `dependency`, and names `place`
/// before it.
async fn assert_said(
    world: &World,
    binary: &str,
    dependency: &str,
    more: &[String],
    (place, row): (&str, &str),
) {
    let mut process = Process::started(binary, &replaced(flags(world, binary), more));
    let admin = address_in(&process.until_logged("admin_address=").await);
    let down = format!("dependency is down dependency=\"{dependency}\"");
    let line = process.until_logged(&down).await;
    let said = |text: &str| text.contains(place) && says(text, row);
    assert!(said(&line), "{row:?} at {place} is missing in: {line}");
    eventually(row, async || {
        let answer = exchange(admin, b"GET /readyz HTTP/1.0\r\n\r\n").await;
        said(&answer).then_some(())
    })
    .await;
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
    let log = process.lines.concat();
    assert!(!log.contains("hidden-word"), "{log}");
}

/// A server that does this with each connection. Returns its port.
async fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    port
}

/// A server that sends `answer` once it has read a line, or anything at all, and closes.
async fn stranger(answer: &'static [u8], waits_for_a_line: bool) -> u16 {
    serve(move |mut stream| async move {
        while let Ok(byte) = stream.read_u8().await {
            if byte == b'\n' || !waits_for_a_line {
                drop(stream.write_all(answer).await);
                drop(stream.shutdown().await);
                // Closed with bytes unread, the connection would be reset, and the answer lost.
                drop(stream.read_to_end(&mut Vec::new()).await);
                break;
            }
        }
    })
    .await
}

/// A server that resets connections: it closes them with a part of what was sent unread.
async fn resetting() -> u16 {
    serve(|mut stream| async move { drop(stream.read_u8().await) }).await
}

/// A server that takes connections and says nothing.
async fn silent() -> u16 {
    serve(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await
}

/// Host and port in a URL.
fn place(url: &str) -> &str {
    let (_, place) = url.rsplit_once('@').unwrap();
    place.split('/').next().unwrap()
}

/// A server that speaks TLS from the first byte, with a certificate of an authority that nobody knows.
async fn encrypted(authority: &Authority) -> u16 {
    let shown = authority.certify("server", &["localhost", "127.0.0.1"]);
    let upstream = ([127, 0, 0, 1], 1).into();
    let proxy = TlsProxy::start(upstream, Speaks::Tls, &shown, None).await;
    proxy.address.port()
}

const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
const REDIS: &[u8] = b"-ERR unknown command\r\n";
const SMTP: &[u8] = b"220 mail.example.com ESMTP\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_can_have_an_address_of_ipv6() {
    let world = &mut World::new().await;
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flag = format!("--amqp-url=amqp://user:word@[::1]:{port}/%2f");
    let mut process = Process::started("ingest", &replaced(flags(world, "ingest"), &[flag]));
    process.until_logged("starting").await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut hello = [0; 8];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"AMQP\x00\x00\x09\x01");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_to_another_machine_is_warned_of_once() {
    let world = &mut World::new().await;
    for (amqp, database, warnings) in [
        (
            "amqp://user@127.0.0.1:1",
            "postgres://user@localhost:1/db",
            0,
        ),
        (
            "amqps://host.invalid",
            "postgres://user@host.invalid/db?sslmode=verify-full",
            0,
        ),
        ("amqp://host.invalid", "postgres://user@host.invalid/db", 1),
    ] {
        for (binary, flag, name) in [
            ("ingest", format!("--amqp-url={amqp}"), "AMQP_URL leads"),
            (
                "janitor",
                format!("--database-url={database}"),
                "DATABASE_URL leads",
            ),
        ] {
            let mut process = Process::started(binary, &replaced(flags(world, binary), &[flag]));
            process.until_logged("dependency is down").await;
            process.signal("TERM").await;
            process.end().await;
            let warned = process.lines.iter().filter(|line| line.contains(name));
            assert_eq!(warned.count(), warnings, "{:#?}", process.lines);
        }
    }
}
