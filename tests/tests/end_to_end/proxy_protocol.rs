//! The PROXY protocol: the source of a callback is the client that a trusted load balancer of TCP names.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use broker::Queue;
use http::{Method, StatusCode, Version};
use process::ask as ask_admin;
use tests::client::{Answer, Exposition, Stream, VERSIONS, ask_over, exchange, post};
use tests::processes::address_in;
use tests::tls::Authority;
use tests::wait::{BOUND, eventually};
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::binaries::started;
use crate::sources::{ONE, assert_accepted, assert_waits, connect_from, many};

/// The tests come from the first of them.
const PROXIES: &str = "--trusted-proxies=127.0.0.1,10.0.0.0/8";
/// Of the machine, and no proxy.
const OTHER: &str = "127.0.0.2";
const FLAGS: [&str; 3] = ["--proxy-protocol=true", PROXIES, "--source-ids-rate=1"];

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// A header of version 2, with the name of a host besides the addresses.
fn header(client: &str) -> Vec<u8> {
    const MORE: &[u8] = b"\x02\x00\x09localhost";
    let (family, addresses) = match client.parse().unwrap() {
        IpAddr::V4(client) => (0x11, [client.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(client) => (0x21, [client.octets(), [0; 16]].concat()),
    };
    let block = [&addresses[..], &4711_u16.to_be_bytes(), &[1, 0xbb], MORE].concat();
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x21, family], &length, &block].concat()
}

/// A header of version 1.
fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 10.0.0.1 4711 443\r\n").into_bytes()
}

fn callback() -> Vec<u8> {
    let head = "POST /callback HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let head = format!("{head}content-length: {}\r\n\r\n", ONE.len());
    [head.as_bytes(), ONE].concat()
}

async fn post_over(stream: impl Stream, version: Version, forwarded: &str, body: &[u8]) -> Answer {
    let headers = [("x-forwarded-for", forwarded)];
    let (method, body) = (Method::POST, body.to_vec());
    ask_over(stream, version, "x", &headers, method, "/callback", body).await
}

/// The answer to a callback on a connection that begins with this header, in the same segment as the request.
async fn post_after(header: &[u8], version: Version, address: SocketAddr, body: &[u8]) -> Answer {
    let mut stream = BufStream::new(TcpStream::connect(address).await.unwrap());
    stream.write_all(header).await.unwrap();
    post_over(stream, version, "203.0.113.5", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_of_a_load_balancer_has_its_own_limit() {
    let world = &mut World::new().await;
    let address = world.ingest(&FLAGS).await;
    let post = async |header: &[u8], version, body: &[u8]| {
        post_after(header, version, address, body).await
    };
    let one = header("198.51.100.1");
    assert_accepted(&post(&one, Version::HTTP_11, &many()).await);
    for version in VERSIONS {
        for same in [&one, &line("198.51.100.1"), &header("::ffff:198.51.100.1")] {
            assert_waits(&post(same, version, ONE).await);
        }
        assert_accepted(&post(&header("198.51.100.2"), version, ONE).await);
        assert_accepted(&post(&line("198.51.100.3"), version, ONE).await);
    }
    // A host has as many addresses of IPv6 as it likes.
    for (version, host) in VERSIONS.into_iter().zip(["2001:db8:0:1", "2001:db8:0:2"]) {
        assert_accepted(&post(&header(&format!("{host}::1")), version, &many()).await);
        assert_waits(&post(&header(&format!("{host}::2")), version, ONE).await);
    }
    // What has no client comes from the load balancer itself.
    assert_accepted(&post(LOCAL, Version::HTTP_11, &many()).await);
    for version in VERSIONS {
        for itself in [LOCAL, b"PROXY UNKNOWN\r\n"] {
            assert_waits(&post(itself, version, ONE).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_before_the_load_balancer_names_the_client_in_its_request() {
    let world = &mut World::new().await;
    let address = world.ingest(&FLAGS).await;
    let post = async |proxy: &str, client: &str, body: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&header(proxy)).await.unwrap();
        post_over(stream, Version::HTTP_11, client, body).await
    };
    assert_accepted(&post("10.1.2.3", "198.51.100.1", &many()).await);
    assert_waits(&post("10.1.2.4", "198.51.100.1", ONE).await);
    assert_accepted(&post("10.1.2.3", "198.51.100.2", ONE).await);
    // Nobody else is believed.
    assert_accepted(&post("198.51.100.3", "198.51.100.1", &many()).await);
    assert_waits(&post("198.51.100.3", "198.51.100.4", ONE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_comes_before_tls() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", &["127.0.0.1"]);
    let mut flags = shown.flags("tls");
    flags.extend(FLAGS.map(str::to_owned));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let address = world.ingest(&flags).await;
    let connector = authority.connector();
    let post = async |header: &[u8], version, body: &[u8]| {
        // One segment has the header and the begin of the handshake.
        let mut stream = BufStream::new(TcpStream::connect(address).await.unwrap());
        stream.write_all(header).await.unwrap();
        let stream = connector.connect(address.ip().into(), stream).await;
        post_over(stream.unwrap(), version, "203.0.113.5", body).await
    };
    let [one, other] = ["198.51.100.1", "198.51.100.2"].map(header);
    assert_accepted(&post(&one, Version::HTTP_11, &many()).await);
    for version in VERSIONS {
        assert_waits(&post(&one, version, ONE).await);
        assert_accepted(&post(&other, version, ONE).await);
        assert_accepted(&post(LOCAL, version, ONE).await);
    }
    // Without TLS after it.
    let answer = exchange(address, &[header("198.51.100.3"), callback()].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // Without a header before it.
    let stream = TcpStream::connect(address).await.unwrap();
    let refused = connector.connect(address.ip().into(), stream).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_may_come_byte_by_byte() {
    let world = &mut World::new().await;
    let address = world.ingest(&FLAGS).await;
    for header in [header("198.51.100.1"), line("198.51.100.1")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in [header, callback()].concat() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        let read = timeout(BOUND, stream.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_valid_header_is_closed_and_counted() {
    let world = &mut World::new().await;
    let mut process = started(world, "ingest", &FLAGS).await;
    let admin = address_in(&process.lines[0]);
    let address = address_in(&process.until_logged("accepting callbacks").await);
    let long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[b'x'; 10_000]].concat();
    let wrong = [
        callback(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"PROXY TCP4 198.51.100.1\r\n".to_vec(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 10_000]].concat(),
        [SIGNATURE, &[0x21, 0x11, 0, 1, 1]].concat(),
        long,
    ];
    for bytes in &wrong {
        assert_eq!(exchange(address, bytes).await, "", "{bytes:?}");
    }
    // Another connection of the same load balancer.
    let right = [header("198.51.100.1"), callback()].concat();
    let answer = exchange(address, &right).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    process.until_logged("remote=198.51.100.1:4711").await;
    let (_, metrics) = ask_admin(admin, "/metrics").await.unwrap();
    let metrics = Exposition::read(std::str::from_utf8(&metrics).unwrap());
    let counted = metrics.sum("callback_pipeline_http_proxy_headers_malformed_total", &[]);
    assert!((counted - 6.0).abs() < f64::EPSILON, "{counted}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_that_does_not_finish_its_header_is_let_go() {
    let world = &mut World::new().await;
    let limits = ["--header-timeout=200ms", "--idle-timeout=5m"];
    let address = world.ingest(&[&FLAGS[..], &limits].concat()).await;
    let whole = header("198.51.100.1");
    // This one sends its header at once, and its request later.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(&whole).await.unwrap();
    for begin in [&b""[..], b"\r", b"PROXY", b"PROXY TCP4 198.", &whole[..20]] {
        assert_eq!(exchange(address, begin).await, "", "{begin:?}");
    }
    // A byte now and then is no progress.
    let mut slow = TcpStream::connect(address).await.unwrap();
    let drip = async {
        while slow.write_all(b"P").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, drip).await.unwrap();
    assert_accepted(&post_over(idle, Version::HTTP_11, "", ONE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_counts_as_a_connection_and_makes_room_for_others() {
    let world = &mut World::new().await;
    let limits = ["--connections-limit=2", "--header-timeout=5m"];
    let address = world.ingest(&[&FLAGS[..2], &limits].concat()).await;
    // As many as are served, and as many as are refused at once.
    let silent = (0..140).map(async |_| TcpStream::connect(address).await.unwrap());
    let _silent = futures::future::join_all(silent).await;
    let right = [header("198.51.100.1"), callback()].concat();
    eventually("room for another client", async || {
        let answer = exchange(address, &right).await;
        answer.starts_with("HTTP/1.1 202 ").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_a_load_balancer_is_refused() {
    let world = &mut World::new().await;
    let limit = ["--connections-limit=1"];
    let address = world.ingest(&[&FLAGS[..2], &limit].concat()).await;
    let right = [header("198.51.100.1"), callback()].concat();
    eventually("a refusal", async || {
        // Nobody else is let in for a second.
        let _first = TcpStream::connect(address).await.unwrap();
        let answer = exchange(address, &right).await;
        answer.starts_with("HTTP/1.1 503 ").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_send_no_header_and_are_not_believed() {
    let world = &mut World::new().await;
    let address = world.ingest(&FLAGS).await;
    for header in [header("198.51.100.1"), line("198.51.100.1"), LOCAL.to_vec()] {
        let mut stream = connect_from(OTHER, address).await;
        stream
            .write_all(&[header, callback()].concat())
            .await
            .unwrap();
        let mut answer = String::new();
        let read = timeout(BOUND, stream.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    world.broker.until_ready(Queue::Fetch, 0).await;
    let post = async |forwarded: &str, body: &[u8]| {
        let stream = connect_from(OTHER, address).await;
        post_over(stream, Version::HTTP_11, forwarded, body).await
    };
    assert_accepted(&post("198.51.100.1", &many()).await);
    assert_waits(&post("198.51.100.2", ONE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_no_header_is_read() {
    let world = &mut World::new().await;
    let address = world.ingest(&[PROXIES]).await;
    for header in [header("198.51.100.1"), line("198.51.100.1")] {
        let answer = exchange(address, &[header, callback()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(post(address, ONE).await.status, StatusCode::ACCEPTED);
}
