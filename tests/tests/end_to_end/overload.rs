//! The limits of `ingest`, and what it does beyond them: it says so at once, and goes on answering.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker::Queue;
use http::{Method, StatusCode};
use lifecycle::Shutdown;
use tests::client::{Answer, HttpClient, exchange, post, until_ready};
use tests::processes::Process;
use tests::wait::{BOUND, eventually};
use tests::world::World;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// How soon an answer counts as given at once. Far more than it takes on a busy machine, and less than
/// anything that it could have waited for.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Clients that stall are waited for without end, as far as a test can see.
const PATIENCE: [&str; 3] = [
    "--header-timeout=5m",
    "--idle-timeout=5m",
    "--body-timeout=5m",
];

const CALLBACK: &str = r#"{"object_ids":[1]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_refused_whether_its_length_is_told_or_not() {
    let world = &mut World::new().await;
    let address = world.ingest(&["--body-limit=1KiB"]).await;
    let told = exchange(
        address,
        b"POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n{",
    )
    .await;
    let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));
    let untold = format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}"
    );
    let untold = exchange(address, untold.as_bytes()).await;
    for answer in [told, untold] {
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(
            answer.contains("payload_too_large") && answer.contains("connection: close"),
            "{answer}"
        );
    }
    let fits = format!(r#"{{"object_ids":[1]}}{}"#, " ".repeat(1_000));
    assert_eq!(post(address, fits).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_ids_than_allowed_are_refused_and_none_is_published() {
    let world = &mut World::new().await;
    let address = world.ingest(&["--ids-limit=3"]).await;
    let answer = post(address, r#"{"object_ids":[1,2,3,4]}"#).await;
    assert_eq!(
        (answer.status, answer.error()),
        (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large")
    );
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_answered_408() {
    let world = &mut World::new().await;
    let address = world.ingest(&["--body-timeout=200ms"]).await;
    let answer = exchange(
        address,
        b"POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{\"object",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_arrive_ends_the_connection() {
    let world = &mut World::new().await;
    let flags = ["--header-timeout=200ms", "--idle-timeout=200ms"];
    let address = world.ingest(&flags).await;
    for part in [
        "",
        "POST /call",
        "PRI * HTTP/2.0",
        "POST /callback HTTP/1.1\r\nhost: x\r\n",
    ] {
        let answer = exchange(address, part.as_bytes()).await;
        assert!(
            !answer.contains(" 202 "),
            "{part:?} was answered {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_without_end_is_refused_at_once() {
    const DEPTH: usize = 1_000_000;
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for (start, code) in [
        ("", "invalid_json"),
        (r#"{"object_ids":"#, "invalid_json"),
        (r#"{"object_ids":[],"more":"#, "invalid_json"),
    ] {
        for open in ["[", r#"{"a":"#] {
            let body = [start, &open.repeat(DEPTH / open.len())].concat();
            let started = Instant::now();
            let answer = post(address, body).await;
            assert_eq!(answer.error(), code, "{start}{open}: {answer:?}");
            assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        }
    }
    let closed = ["[".repeat(DEPTH / 2), "]".repeat(DEPTH / 2)].concat();
    let body = format!(r#"{{"more":{closed},"object_ids":[1]}}"#);
    assert_eq!(post(address, body).await.status, StatusCode::ACCEPTED);
}

/// An instance that keeps each callback at work, because its broker has fallen silent.
async fn ingest_at_work(world: &mut World, limit: &str) -> SocketAddr {
    let silence = Shutdown::new(BOUND);
    let (login, broker) = world.amqp_url.rsplit_once('@').unwrap();
    let (broker, vhost) = broker.split_once('/').unwrap();
    let relay = relay(broker.to_owned(), silence.clone()).await;
    let url = format!("--amqp-url={login}@{relay}/{vhost}");
    let flags = [&url, "--publish-timeout=60s", "--broker-timeout=60s", limit];
    let address = world.ingest(&flags).await;
    silence.begin();
    address
}

/// The address of a relay that hands bytes on until it falls silent; then it keeps its connections.
async fn relay(to: String, silence: Shutdown) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&to).await.unwrap();
            let silence = silence.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = silence.begun() => std::future::pending().await,
                    ended = copy_bidirectional(&mut near, &mut far) => drop(ended),
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_limit_are_shed_at_once() {
    let world = &mut World::new().await;
    let address = ingest_at_work(world, "--requests-limit=1").await;
    let started = Instant::now();
    // One of them is let in, and so will not be answered.
    let shed = tokio::select! {
        first = post(address, CALLBACK) => first,
        second = post(address, CALLBACK) => second,
    };
    assert_shed(&shed);
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

fn assert_shed(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.error()),
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
    );
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_shed_at_once() {
    let world = &mut World::new().await;
    let address = ingest_at_work(world, "--connections-limit=1").await;
    let started = Instant::now();
    let request = format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{CALLBACK}",
        CALLBACK.len()
    );
    let refusal = eventually("a refusal", async || {
        // One of them is let in, and so will not be answered.
        let ended = tokio::select! {
            first = exchange(address, request.as_bytes()) => first,
            second = exchange(address, request.as_bytes()) => second,
        };
        // The one let in makes room if its request does not arrive within a second.
        (!ended.is_empty()).then_some(ended)
    })
    .await;
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    assert!(
        refusal.contains("retry-after: 1") && refusal.contains("\"overloaded\""),
        "{refusal}"
    );
}

/// A callback of `length` bytes of which the last one does not come.
async fn stalled(address: SocketAddr, length: usize) -> TcpStream {
    let header = format!("POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let sent = [header, " ".repeat(length - 1)].concat();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_that_stall_shed_other_large_ones_and_no_small_ones() {
    const LARGE: usize = 900 << 10;
    let world = &mut World::new().await;
    let address = world
        .ingest(&["--body-memory=1MiB", "--body-timeout=60s"])
        .await;
    let large = [CALLBACK, &" ".repeat(LARGE)].concat();
    let mut stalling = stalled(address, LARGE).await;
    let shed = eventually("a large callback to be shed", async || {
        // Where one of ours was quicker, the stalling one was shed.
        if stalling.try_read(&mut [0; 100]).is_ok() {
            stalling = stalled(address, LARGE).await;
        }
        let answer = post(address, large.clone()).await;
        (answer.status != StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert_shed(&shed);
    let small = [CALLBACK, &" ".repeat(10 << 10)].concat();
    assert_eq!(post(address, small).await.status, StatusCode::ACCEPTED);
    drop(stalling);
    eventually("a large callback to be accepted", async || {
        let answer = post(address, large.clone()).await;
        (answer.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
}

/// Runs `ingest` as a separate process, so that its memory can be read.
pub(super) async fn ingest_process(world: &World, more: &[&str]) -> (Process, SocketAddr) {
    let mut flags = world.ingest_flags();
    flags.extend(
        [
            "--listen-address=127.0.0.1:0",
            "--admin-address=127.0.0.1:0",
            // Nobody reads its log while it is at work.
            "--log=warn,ingest=info,ingest::server=off",
            "--log-format=json",
        ]
        .map(str::to_owned),
    );
    flags.extend(more.iter().copied().map(str::to_owned));
    let mut process = Process::started("ingest", &flags);
    let line = process.until_logged("accepting callbacks").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["address"].as_str().unwrap().parse().unwrap();
    until_ready(address).await;
    (process, address)
}

/// What a sender that stalls has sent, in turn.
const STALLED: [&str; 4] = [
    "",
    "POST /callback HTTP/1.1\r\nhost: x\r\nx-long: ",
    "POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n{\"object_ids\":",
    "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
];

async fn stall(address: SocketAddr, connections: usize) -> Vec<TcpStream> {
    let mut stalled = Vec::with_capacity(connections);
    for sent in STALLED.iter().cycle().take(connections) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    stalled
}

async fn assert_answered_at_once(address: SocketAddr) {
    let started = Instant::now();
    let answer = post(address, CALLBACK).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_delay_no_other_client() {
    let world = &mut World::new().await;
    let (_process, address) = ingest_process(world, &PATIENCE).await;
    // More half bodies than callbacks that may be at work.
    let _stalled = stall(address, 5_000).await;
    let mut patient = HttpClient::connect(address).await;
    for _ in 0..100 {
        assert_answered_at_once(address).await;
        let answer = patient.send(Method::POST, "/callback", CALLBACK).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_stalled_connections_take_little_memory_and_keep_no_client_out() {
    const KIB_EACH: usize = 30;
    let world = &mut World::new().await;
    let connections = http_server::connections_within_limit(usize::MAX)
        .saturating_sub(2_000)
        .min(10_000);
    assert!(connections > 1_000, "raise the limit of file descriptors");
    let (process, address) = ingest_process(world, &PATIENCE).await;
    let before = process.resident_kib();
    let stalled = stall(address, connections).await;
    let request = format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{CALLBACK}",
        CALLBACK.len()
    );
    eventually("one that stalls to make room", async || {
        // A refusal may arrive before the request is sent.
        let answer = exchange(address, request.as_bytes()).await;
        answer.starts_with("HTTP/1.1 202").then_some(())
    })
    .await;
    assert_answered_at_once(address).await;
    assert!(process.open_descriptors() > connections * 9 / 10);
    let each = (process.resident_kib() - before) / connections;
    assert!(each < KIB_EACH, "{each} KiB a connection");
    drop(stalled);
    assert_answered_at_once(address).await;
}
