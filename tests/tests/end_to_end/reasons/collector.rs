//! Reasons of the collectors of spans.

use tests::processes::Process;
use tests::tls::Authority;
use tests::world::World;

use super::{HTTP, encrypted, resetting, says, silent, stranger};
use crate::binaries::flags;

const GONE: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const DENIED: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const MOVED: &[u8] =
    b"HTTP/1.1 308 Moved\r\nlocation: http://x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// What a server of gRPC begins with: SETTINGS of HTTP/2.
const GRPC: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0";

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_no_spans_is_said_to_and_why() {
    let world = &mut World::new().await;
    let tls = encrypted(&Authority::new("unknown")).await;
    let local = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
    for (url, row) in [
        (
            local("http", 1),
            "Connection refused…; nothing listens there",
        ),
        (
            "http://host.invalid".to_owned(),
            "failed to lookup …; no such name",
        ),
        (
            local("http", stranger(GRPC, false).await),
            "invalid HTTP …; name the port for OTLP over HTTP (4318)",
        ),
        (
            local("http", tls),
            "invalid HTTP …; name the port for OTLP over HTTP (4318)",
        ),
        (
            local("http", resetting().await),
            "reset by peer…; write https:// where there is TLS",
        ),
        (
            local("http", stranger(b"", true).await),
            "connection closed…; write https:// where there is TLS",
        ),
        (
            local("http", stranger(GONE, true).await),
            "it answered 404 …; is the path right?",
        ),
        (
            local("http", stranger(DENIED, true).await),
            "it answered 40…; does the collector ask for credentials?",
        ),
        (
            local("http", stranger(MOVED, true).await),
            "it answered 3…; redirects are not followed",
        ),
        (
            local("https", stranger(HTTP, false).await),
            "received corrupt message of type InvalidContentType; it does not speak TLS: write http://",
        ),
        (
            local("https", tls),
            "invalid peer certificate…; the host has to be a name in the certificate",
        ),
        (
            local("http", silent().await),
            "timed out; does the collector hang",
        ),
    ] {
        for setting in ["zipkin-url", "otel-exporter-otlp-endpoint"] {
            let mut flags = flags(world, "mock-client");
            flags.push("--callback-interval=50ms".to_owned());
            flags.push(format!("--{setting}={url}"));
            let mut process = Process::started("mock-client", &flags);
            let line = process.until_logged("spans are dropped").await;
            assert!(
                line.contains(&url) && says(&line, row),
                "{row:?} at {url} is missing in: {line}"
            );
        }
    }
}
