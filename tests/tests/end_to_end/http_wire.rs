//! What `ingest` does with bytes that no well-behaved client sends, and with addresses.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::client::{HttpClient, exchange, post, send};
use tests::processes::Process;
use tests::wait::eventually;
use tests::world::World;
use tokio::net::TcpStream;

use super::overload::ingest_process;

const CALLBACK: &str = r#"{"object_ids":[1]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_cannot_be_read_is_answered() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let with =
        |lines: &str| format!("POST /callback HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n{CALLBACK}");
    let many: Vec<String> = (0..101).map(|number| format!("x{number}: y")).collect();
    let greeting = "\x16\x03\x01\x01\0\x01\0\0\u{7c}\x03\x03";
    for (expected, bytes) in [
        (400, "GARBAGE\r\n\r\n".to_owned()),
        (400, "GET /\r\n\r\n".to_owned()),
        (400, "GET / HTTP/3.0\r\nhost: x\r\n\r\n".to_owned()),
        (400, "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        (400, with("Ho st: a")),
        (400, with("x: a\r\n folded")),
        (400, with("content-length: 18\r\ncontent-length: 19")),
        (400, with("content-length: -18")),
        (400, with("transfer-encoding: chunked, x")),
        (
            400,
            [
                "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
                &with("content-length: 18"),
            ]
            .concat(),
        ),
        (400, [greeting, &"\0".repeat(200)].concat()),
        (431, with(&many.join("\r\n"))),
        (431, with(&["cookie: ", &"c".repeat(20_000)].concat())),
        (
            431,
            ["GET /", &"u".repeat(70_000), " HTTP/1.1\r\nhost: x\r\n\r\n"].concat(),
        ),
    ] {
        let answer = exchange(address, bytes.as_bytes()).await;
        let begin = &bytes[..bytes.len().min(60)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{begin:?}: {answer}"
        );
        assert!(
            answer.contains("connection: close\r\n"),
            "{begin:?}: {answer}"
        );
    }
    assert_eq!(post(address, CALLBACK).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_its_host() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for (version, hosts, expected) in [
        ("1.1", "", 400),
        ("1.1", "host: a\r\nhost: a\r\n", 400),
        ("1.1", "host: a\r\nHost: b\r\n", 400),
        ("1.1", "host: a b\r\n", 400),
        ("1.0", "host: a\r\nhost: b\r\n", 400),
        ("1.1", "host: a\r\n", 202),
        ("1.1", "host:\r\n", 202),
        ("1.0", "", 202),
    ] {
        let length = CALLBACK.len();
        let request = format!(
            "POST /callback HTTP/{version}\r\n{hosts}connection: close\r\ncontent-length: {length}\r\n\r\n{CALLBACK}"
        );
        let answer = exchange(address, request.as_bytes()).await;
        let status = format!("HTTP/{version} {expected} ");
        assert!(answer.starts_with(&status), "{version} {hosts:?}: {answer}");
        assert_eq!(
            answer.contains("\"invalid_request\""),
            expected == 400,
            "{answer}"
        );
    }
}

/// What one connection may make the process take.
const MEMORY_KIB: usize = 8 << 10;

fn assert_grown_little(process: &Process, before: usize) {
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown <= MEMORY_KIB, "grown by {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_answers_takes_little_memory() {
    const REQUEST: &str = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let world = &mut World::new().await;
    let (process, address) = ingest_process(world, &[]).await;
    let mut other = HttpClient::connect(address).await;
    // What the process takes in any case.
    for _ in 0..100 {
        other.send(Method::GET, "/openapi.json", "").await;
    }
    let before = process.resident_kib();
    let stream = TcpStream::connect(address).await.unwrap();
    let requests = REQUEST.repeat(20_000);
    let (mut sent, mut stuck) = (0, 0);
    // Until all is taken, or nothing is any more while others are answered.
    while sent < requests.len() && stuck < 100 {
        match stream.try_write(&requests.as_bytes()[sent..]) {
            Ok(more) => (sent, stuck) = (sent + more, 0),
            Err(_) => stuck += 1,
        }
        let answer = other.send(Method::GET, "/openapi.json", "").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_grown_little(&process, before);
}

type Body = BoxBody<Bytes, Infallible>;

fn whole(body: &'static str) -> Body {
    Full::from(body).boxed()
}

fn never() -> Body {
    let frames = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
    BoxBody::new(StreamBody::new(frames))
}

async fn http2(address: SocketAddr, window: u32) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_no_window_takes_little_memory() {
    const ROUNDS: usize = 50;
    let world = &mut World::new().await;
    let (process, address) = ingest_process(world, &[]).await;
    let get = || {
        let request = Request::get(format!("http://{address}/openapi.json"));
        request.body(whole("")).unwrap()
    };
    let mut client = http2(address, 0).await;
    client.ready().await.unwrap();
    let before = process.resident_kib();
    // As many at once as the server allows, of which the bodies cannot be sent; then others instead.
    for _ in 0..ROUNDS {
        let answers = (0..100).map(|_| client.send_request(get()));
        let answers = futures::future::join_all(answers).await;
        assert!(answers.iter().all(|answer| {
            let status = answer.as_ref().map(http::Response::status);
            status.is_ok_and(|status| status == StatusCode::OK)
        }));
    }
    assert_grown_little(&process, before);
}

fn callback(address: SocketAddr, body: Body) -> Request<Body> {
    let request = Request::post(format!("http://{address}/callback"));
    request.body(body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_arrive_delay_only_their_own_clients() {
    let world = &mut World::new().await;
    let (_process, address) =
        ingest_process(world, &["--connections-limit=50", "--body-timeout=5m"]).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut client = http2(address, 1 << 16).await;
        for _ in 0..50 {
            silent.push(tokio::spawn(
                client.send_request(callback(address, never())),
            ));
        }
        silent.push(tokio::spawn(async move {
            // The connection lasts as long as its sender.
            client.ready().await?;
            std::future::pending().await
        }));
    }
    // Places for bodies are used up once one that is not the only one of its connection is refused.
    eventually("one of them to be refused", async || {
        silent
            .iter()
            .any(tokio::task::JoinHandle::is_finished)
            .then_some(())
    })
    .await;
    for _ in 0..100 {
        let answer = post(address, CALLBACK).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
    // Its second body needs one of those places.
    let mut client = http2(address, 1 << 16).await;
    let _first = tokio::spawn(client.send_request(callback(address, never())));
    eventually("a client with two bodies to get its place", async || {
        let answer = client
            .send_request(callback(address, whole(CALLBACK)))
            .await;
        (answer.unwrap().status() == StatusCode::ACCEPTED).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_address_is_reached_by_both_versions_of_ip() {
    let world = &mut World::new().await;
    let (_process, address) = ingest_process(world, &["--listen-address=[::]:0"]).await;
    let v4 = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    for address in [v4, v6] {
        // Where a machine has no IPv6, it is reached by IPv4.
        if address.is_ipv6() && tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
            continue;
        }
        let answer = send(address, Method::GET, "/", "").await;
        assert_eq!(answer.status, StatusCode::OK, "{address}");
    }
}
