//! The profiles on the admin port, as an operator takes them.

use std::convert::Infallible;
use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use http::{Method, StatusCode};
use pprof::protos::{Message, Profile};
use process::ask;
use tests::client::{HttpClient, post, send};
use tests::processes::{Process, address_in, output};
use tests::wait::eventually;
use tests::world::World;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const HEAP: &str = "/debug/pprof/heap";
const CPU: &str = "/debug/pprof/profile?seconds=1";
const LONG: &str = "/debug/pprof/profile?seconds=60";

/// Status and body.
type Answer = (StatusCode, Bytes);

/// A process with the addresses that it logged.
struct Running {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    async fn start(binary: &str, flags: &[String], listening: &str) -> Self {
        let mut flags = flags.to_vec();
        flags.extend(
            [
                "--listen-address=127.0.0.1:0",
                "--admin-address=127.0.0.1:0",
                "--log-format=json",
                // Nobody reads its log while it is at work.
                "--log=info,ingest::server=off,lapin=off",
            ]
            .map(str::to_owned),
        );
        let mut process = Process::started(binary, &flags);
        let admin = address_in(&process.until_logged("starting").await);
        let address = address_in(&process.until_logged(listening).await);
        Self {
            process,
            address,
            admin,
        }
    }

    async fn mock_client() -> Self {
        Self::mock_client_with(&["--profiles=true"]).await
    }

    async fn mock_client_with(more: &[&str]) -> Self {
        let flags = [
            "--callback-interval=1h",
            "--callback-url=http://127.0.0.1:1/",
            "--latency-min=0ms",
            "--latency-max=0ms",
        ];
        let flags = flags.iter().chain(more);
        let flags: Vec<_> = flags.map(|flag| (*flag).to_owned()).collect();
        Self::start("mock-client", &flags, "answering look-ups").await
    }

    async fn ask(&self, path: &str) -> Answer {
        ask(self.admin, path).await.unwrap()
    }

    async fn profile(&self, path: &str) -> Profile {
        let (status, body) = self.ask(path).await;
        assert_eq!(status, StatusCode::OK, "{}", body.escape_ascii());
        decoded(&body)
    }
}

fn decoded(zipped: &[u8]) -> Profile {
    let mut bytes = Vec::new();
    GzDecoder::new(zipped).read_to_end(&mut bytes).unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

fn string(profile: &Profile, index: i64) -> &str {
    &profile.string_table[usize::try_from(index).unwrap()]
}

/// What is counted, and in which unit.
fn sample_types(profile: &Profile) -> Vec<(&str, &str)> {
    let types = profile.sample_type.iter();
    types
        .map(|of| (string(profile, of.ty), string(profile, of.unit)))
        .collect()
}

fn names_a_function(profile: &Profile, of: &str) -> bool {
    let mut functions = profile.function.iter();
    functions.any(|function| string(profile, function.name).contains(of))
}

/// Asks for objects without end.
async fn look_ups(address: SocketAddr) -> Infallible {
    let mut client = HttpClient::connect(address).await;
    loop {
        client.send(Method::GET, "/objects/1", "").await;
        client.reusable().await;
    }
}

/// Posts callbacks without end.
async fn callbacks(address: SocketAddr) -> Infallible {
    loop {
        post(address, r#"{"object_ids":[1,2,3]}"#).await;
    }
}

async fn under<T>(load: impl Future<Output = Infallible>, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        never = load => match never {},
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cpu_profile_names_the_functions_at_work() {
    let world = &mut World::new().await;
    let client = Running::mock_client().await;
    let profile = at_work(&client, "mock_client::");
    assert_cpu(&under(look_ups(client.address), profile).await);
    let mut flags = world.ingest_flags();
    flags.push("--profiles=true".to_owned());
    let ingest = Running::start("ingest", &flags, "accepting callbacks").await;
    let profile = at_work(&ingest, "ingest::");
    assert_cpu(&under(callbacks(ingest.address), profile).await);
}

/// A profile of the processor that names functions of `of`. A single one has few samples where
/// others keep the processors busy, and none of them need be in such a function.
async fn at_work(running: &Running, of: &str) -> Profile {
    eventually(&format!("{of} in a profile"), async || {
        let profile = running.profile(CPU).await;
        names_a_function(&profile, of).then_some(profile)
    })
    .await
}

fn assert_cpu(profile: &Profile) {
    let types = [("samples", "count"), ("cpu", "nanoseconds")];
    assert_eq!(sample_types(profile), types);
    let counts = profile.sample.iter().map(|sample| sample.value.as_slice());
    assert!(counts.clone().count() > 0, "no samples");
    for values in counts {
        assert!(values[0] > 0 && values[1] > 0, "{values:?}");
    }
    assert!(names_a_function(profile, "tokio::"), "{profile:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heap_profile_names_the_functions_that_allocated() {
    let client = Running::mock_client().await;
    // Half a header each, some 15 MiB in all, of which a sample is noted every half a MiB.
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        let mut stream = TcpStream::connect(client.address).await.unwrap();
        let header = b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ";
        stream.write_all(header).await.unwrap();
        waiting.push(stream);
    }
    let profile = eventually("connections in the profile", async || {
        let profile = client.profile(HEAP).await;
        names_a_function(&profile, "http_server::").then_some(profile)
    })
    .await;
    assert_eq!(sample_types(&profile), [("inuse_space", "bytes")]);
    assert!(profile.sample.iter().any(|sample| sample.value[0] > 0));
    assert!(names_a_function(&profile, "tokio::"), "{profile:?}");
    assert!(string(&profile, profile.drop_frames).starts_with("_rjem_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_can_be_asked_for_its_profiles_on_the_command_line() {
    let client = Running::mock_client().await;
    let asked = async |path: &str| {
        let flags = [
            format!("--admin-address={}", client.admin),
            format!("--ask={path}"),
        ];
        output("mock-client", &flags, &[]).await
    };
    for path in [HEAP, CPU] {
        let answer = asked(path).await;
        assert_eq!(answer.status.code(), Some(0));
        assert!(!sample_types(&decoded(&answer.stdout)).is_empty());
    }
}

/// Of two CPU profiles asked for at once, the answer to the one that was refused, and the other,
/// which is being taken until it is dropped.
async fn refused_and_taken(admin: SocketAddr) -> (Answer, BoxFuture<'static, Answer>) {
    let [first, second] = [(); 2].map(|()| async move { ask(admin, LONG).await.unwrap() }.boxed());
    let (Either::Left(one_of_both) | Either::Right(one_of_both)) = select(first, second).await;
    one_of_both
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_cpu_profile_at_a_time_and_it_ends_with_its_client() {
    let client = Running::mock_client().await;
    let ((status, message), taken) = refused_and_taken(client.admin).await;
    let message = String::from_utf8_lossy(&message).into_owned();
    assert_eq!(status, StatusCode::CONFLICT, "{message}");
    assert!(message.contains("one at a time"), "{message}");
    for path in ["/livez", "/readyz", "/metrics", HEAP] {
        assert_eq!(client.ask(path).await.0, StatusCode::OK, "{path}");
    }
    // Its client hangs up, long before its time.
    drop(taken);
    eventually("another profile", async || {
        (client.ask(CPU).await.0 == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cpu_profile_ends_with_the_process() {
    let mut client = Running::mock_client().await;
    let (_, taken) = refused_and_taken(client.admin).await;
    client.process.signal("TERM").await;
    assert_eq!(client.process.end().await, Some(0));
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_profiles_unless_they_are_asked_for() {
    let client = Running::mock_client_with(&["--profiles=false"]).await;
    for path in [HEAP, CPU] {
        let (status, message) = client.ask(path).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(message.starts_with(b"profiles are off"), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_profile_is_refused_at_once() {
    let client = Running::mock_client().await;
    for seconds in ["0", "61", "-1", "1.5", "x", "", "99999999999999999999"] {
        let path = format!("/debug/pprof/profile?seconds={seconds}");
        let (status, message) = client.ask(&path).await;
        let message = String::from_utf8_lossy(&message).into_owned();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{seconds}: {message}");
        assert!(message.contains("from 1 to 60"), "{message}");
    }
    for method in [Method::HEAD, Method::POST] {
        for path in [HEAP, LONG] {
            let answer = send(client.admin, method.clone(), path, "").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(answer.headers["allow"], "GET");
        }
    }
    let (status, message) = client.ask("/debug/pprof/").await;
    let message = String::from_utf8_lossy(&message).into_owned();
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        message.contains(HEAP) && message.contains("/debug/pprof/profile"),
        "{message}"
    );
}
