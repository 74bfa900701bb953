//! Reasons of the client service.

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tests::proxy::{Network, Proxy};
use tests::tls::Authority;
use tests::world::World;

use super::{HTTP, REDIS, encrypted, says, silent, stranger};
use crate::binaries::started;

const GONE: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const MOVED: &[u8] =
    b"HTTP/1.1 301 Moved\r\nlocation: http://x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";

/// A fetcher that looks ids up at `url` says what the row does, and where.
async fn said_of(world: &mut World, url: &str, row: &str) {
    let client = format!("--client-url={url}");
    let flags = [client.as_str(), "--fetch-timeout=1s"];
    let mut fetcher = started(world, "fetcher", &flags).await;
    fetcher
        .until_logged("up dependency=\"broker (consuming)\"")
        .await;
    let chunk = FetchChunk {
        object_ids: (1..=12).map(ObjectId).collect(),
    };
    let headers = Headers::default();
    world.broker.publish(Queue::Fetch, &chunk, &headers).await;
    let line = fetcher
        .until_logged("down dependency=\"client service\"")
        .await;
    assert!(
        line.contains(url) && says(&line, row),
        "{row:?} at {url} is missing in: {line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_service_that_is_none_is_recognized() {
    let world = &mut World::new().await;
    let tls = encrypted(&Authority::new("unknown")).await;
    let (_, broker) = world.amqp_url.rsplit_once('@').unwrap();
    let broker = broker.split('/').next().unwrap().to_owned();
    let cut = Proxy::start(([127, 0, 0, 1], 1).into()).await;
    cut.set(Network::Cut);
    let invalid = "invalid HTTP …; it speaks something else";
    let plain =
        "received corrupt message of type InvalidContentType; it does not speak TLS: write http://";
    for (url, row) in [
        (
            "http://127.0.0.1:1".to_owned(),
            "Connection refused…; nothing listens there",
        ),
        (
            "http://host.invalid".to_owned(),
            "failed to lookup …; no such name",
        ),
        (format!("http://{broker}"), invalid),
        (
            format!("http://127.0.0.1:{}", stranger(REDIS, true).await),
            invalid,
        ),
        (format!("http://localhost:{tls}"), invalid),
        (
            format!("http://{}", cut.address),
            "reset by peer…; write https:// in CLIENT_URL",
        ),
        (
            format!("http://127.0.0.1:{}", stranger(b"", true).await),
            "connection closed…; write https:// in CLIENT_URL",
        ),
        (
            format!("https://127.0.0.1:{}", stranger(HTTP, false).await),
            plain,
        ),
        (
            format!("https://localhost:{tls}"),
            "invalid peer certificate…; the host has to be a name in the certificate",
        ),
        (
            format!("http://127.0.0.1:{}", silent().await),
            "no answer in time; does it hang",
        ),
        (
            format!("http://127.0.0.1:{}", stranger(GONE, true).await),
            "status 40…; are CLIENT_URL, with its path and its scheme, and the credentials right?",
        ),
        (
            format!("http://127.0.0.1:{}", stranger(MOVED, true).await),
            "status 3…; redirects are not followed",
        ),
        (
            format!("http://127.0.0.1:{}", stranger(PAGE, true).await),
            "malformed answer: …; is it the client service",
        ),
    ] {
        said_of(world, &url, row).await;
    }
}
