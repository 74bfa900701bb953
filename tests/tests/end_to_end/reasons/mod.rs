//! Why the broker or the database cannot be reached is said in full: in the log and by `/readyz`.

use tests::client::exchange;
use tests::processes::{Process, address_in};
use tests::wait::eventually;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::binaries::{flags, replaced};

/// A binary whose `setting` is this one says `reason`.
async fn assert_said(world: &World, binary: &str, setting: &str, value: &str, reason: &str) {
    let flag = format!("--{setting}={value}");
    let mut process = Process::started(binary, &replaced(flags(world, binary), &[flag]));
    let admin = address_in(&process.until_logged("admin_address=").await);
    let line = process.until_logged("dependency is down").await;
    eventually(reason, async || {
        let answer = exchange(admin, b"GET /readyz HTTP/1.0\r\n\r\n").await;
        answer.contains(reason).then_some(())
    })
    .await;
    assert!(line.contains(reason), "{reason:?} is missing in: {line}");
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
    let log = process.lines.concat();
    assert!(!log.contains("hidden-word"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_failed_connection_to_the_database_is_said_in_full() {
    let world = &mut World::new().await;
    let url = world.database.url.clone();
    let (server, _) = url.rsplit_once('/').unwrap();
    let (_, place) = server.rsplit_once('@').unwrap();
    for (url, reason) in [
        (
            format!("{server}/no_such_database"),
            "FATAL: database \"no_such_database\" does not exist (3D000)",
        ),
        (
            format!("postgres://no_such_role:hidden-word@{place}/postgres"),
            "FATAL: ",
        ),
        (
            "postgres://user:hidden-word@127.0.0.1:1/db".to_owned(),
            "127.0.0.1:1: Connection refused",
        ),
        (
            "postgres://user:hidden-word@host.invalid/db".to_owned(),
            "host.invalid:5432: failed to lookup",
        ),
        (
            format!("postgres://user:hidden-word@{place}/db?sslmode=require"),
            "TLS",
        ),
    ] {
        assert_said(world, "janitor", "database-url", &url, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_failed_connection_to_the_broker_is_said_in_full() {
    let world = &mut World::new().await;
    let flags = world.broker_flags();
    let (_, url) = flags[0].split_once('=').unwrap();
    let (_, place) = url.rsplit_once('@').unwrap();
    for (url, reason) in [
        (
            format!("amqp://nobody:hidden-word@{place}"),
            "ACCESS_REFUSED",
        ),
        (
            "amqp://user:hidden-word@127.0.0.1:1/%2f".to_owned(),
            "127.0.0.1:1: IO error: Connection refused",
        ),
        (
            "amqp://user:hidden-word@host.invalid/%2f".to_owned(),
            "host.invalid:5672: IO error: failed to lookup",
        ),
        (
            format!("amqps://user:hidden-word@{place}"),
            "does not speak TLS",
        ),
    ] {
        assert_said(world, "ingest", "amqp-url", &url, reason).await;
    }
}

/// A server that answers with `answer` to a line, to a record of TLS, or to nothing, and closes.
async fn stranger(answer: &'static [u8], waits_for_a_line: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    if byte == b'\n' || !waits_for_a_line {
                        drop(stream.write_all(answer).await);
                        break;
                    }
                }
            });
        }
    });
    port
}

const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
const TLS: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_database_is_recognized_by_its_first_bytes() {
    let world = &mut World::new().await;
    for (port, begin) in [
        (stranger(HTTP, true).await, r#"it began with "HTTP/1.1 400"#),
        (
            stranger(HTTP, false).await,
            r#"it began with "HTTP/1.1 400"#,
        ),
        (stranger(TLS, false).await, "which is TLS"),
    ] {
        let url = format!("postgres://user:hidden-word@127.0.0.1:{port}/db");
        let reason = format!("on port {port} does not speak PostgreSQL's protocol: ");
        assert_said(world, "janitor", "database-url", &url, &reason).await;
        assert_said(world, "janitor", "database-url", &url, begin).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_broker_is_recognized_by_its_first_bytes() {
    let world = &mut World::new().await;
    for (port, begin) in [
        (stranger(HTTP, true).await, "it began with \"HTTP/1.1 400"),
        (stranger(HTTP, false).await, "it began with \"HTTP/1.1 400"),
        (stranger(TLS, false).await, r#"it began with "\x15\x03\x01"#),
        (
            stranger(b"SSH-2.0-server\r\n", false).await,
            "it began with \"SSH-2.0",
        ),
    ] {
        let url = format!("amqp://user:hidden-word@127.0.0.1:{port}/%2f");
        let reason = format!("on port {port} does not speak AMQP 0-9-1: {begin}");
        assert_said(world, "ingest", "amqp-url", &url, &reason).await;
    }
}

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
