//! Signed callbacks: what a key of the settings has signed within the last minutes is accepted, and nothing else.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker::Queue;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use process::ask as ask_admin;
use ring::signature::{Ed25519KeyPair, KeyPair};
use settings::Value;
use tests::client::{Answer, Exposition, VERSIONS, ask, exchange, send};
use tests::processes::address_in;
use tests::servers::programs;
use tests::wait::{BOUND, eventually};
use tests::world::World;
use tokio::process::Command;
use tokio::time::timeout;
use webhook::Keys;

use crate::binaries::started;
use crate::secrets::SecretFile;

const BODY: &[u8] = br#"{"object_ids":[1,2]}"#;
const NO_JSON: &[u8] = b"{";
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const FOREIGN: &str = "whsec_FxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA";
const PRIVATE_KEY: &[u8; 32] = b"TESTSIGNINGKEYDONOTUSETHISFORANY";

type Lines = Vec<(String, String)>;

/// The headers of a callback that is signed by `secrets` at this time.
pub(crate) fn signed_at(secrets: &str, body: &[u8], time: SystemTime) -> Lines {
    let mut headers = HeaderMap::new();
    let id = HeaderValue::from_static("msg_1");
    Keys::parse(secrets)
        .unwrap()
        .sign(&mut headers, id, time, body);
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let lines = headers.iter();
    lines
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

pub(crate) fn signed(secrets: &str, body: &[u8]) -> Lines {
    signed_at(secrets, body, SystemTime::now())
}

fn key_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(PRIVATE_KEY).unwrap()
}

fn signed_by_private_key(body: &[u8]) -> Lines {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs().to_string();
    let content = [b"msg_1.", now.as_bytes(), b".", body].concat();
    let signature = format!("v1a,{}", STANDARD.encode(key_pair().sign(&content)));
    let lines = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", now.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn with(mut lines: Lines, name: &str, value: &str) -> Lines {
    lines.push((name.to_owned(), value.to_owned()));
    lines
}

fn without(mut lines: Lines, name: &str) -> Lines {
    lines.retain(|(header, _)| header != name);
    lines
}

pub(crate) async fn post(
    version: Version,
    address: SocketAddr,
    lines: &Lines,
    body: &[u8],
) -> Answer {
    let headers: Vec<(&str, &str)> = lines
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let body = body.to_vec();
    ask(version, address, &headers, Method::POST, "/callback", body).await
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_any_key_has_signed_is_accepted() {
    let world = &mut World::new().await;
    let public = format!("whpk_{}", STANDARD.encode(key_pair().public_key()));
    let flag = format!("--webhook-secrets={OLD}, {NEW} {public}");
    let address = world.ingest(&[&flag]).await;
    let minutes = Duration::from_mins(4);
    let zipped = gzip(BODY);
    let large = [BODY, &b" ".repeat(900 << 10)].concat();
    for version in VERSIONS {
        for (lines, body) in [
            (signed(OLD, BODY), BODY),
            (signed(NEW, BODY), BODY),
            (signed(&format!("{FOREIGN},{NEW}"), BODY), BODY),
            (signed_by_private_key(BODY), BODY),
            (signed_at(OLD, BODY, SystemTime::now() - minutes), BODY),
            (signed_at(OLD, BODY, SystemTime::now() + minutes), BODY),
            // The signature is of the body as it is sent.
            (
                with(signed(OLD, &zipped), "content-encoding", "gzip"),
                zipped.as_slice(),
            ),
            (signed(OLD, &large), large.as_slice()),
            (signed_by_private_key(&large), large.as_slice()),
        ] {
            let answer = post(version, address, &lines, body).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{lines:?}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_no_key_has_signed_lately_is_refused() {
    let world = &mut World::new().await;
    let address = world
        .ingest(&[&format!("--webhook-secrets={OLD},{NEW}")])
        .await;
    let long = Duration::from_mins(6);
    let zipped = gzip(BODY);
    let other: &[u8] = br#"{"object_ids":[1,3]}"#;
    let replaced = |name: &str, value: &str| with(without(signed(OLD, BODY), name), name, value);
    for version in VERSIONS {
        for (lines, body, message) in [
            (Lines::new(), BODY, "webhook-id is missing"),
            (Lines::new(), NO_JSON, "webhook-id is missing"),
            (signed(OLD, other), BODY, "no signature is valid"),
            (signed(FOREIGN, BODY), BODY, "no signature is valid"),
            (signed_by_private_key(BODY), BODY, "no signature is valid"),
            // Before it is parsed.
            (signed(FOREIGN, NO_JSON), NO_JSON, "no signature is valid"),
            (
                with(signed(OLD, BODY), "content-encoding", "gzip"),
                zipped.as_slice(),
                "no signature is valid",
            ),
            (
                signed_at(OLD, BODY, SystemTime::now() - long),
                BODY,
                "5 minutes ago",
            ),
            (
                signed_at(OLD, BODY, SystemTime::now() + long),
                BODY,
                "5 minutes ahead",
            ),
            (
                without(signed(OLD, BODY), "webhook-timestamp"),
                BODY,
                "webhook-timestamp is missing",
            ),
            (
                with(signed(OLD, BODY), "webhook-id", "msg_1"),
                BODY,
                "webhook-id stands more than once",
            ),
            (
                [signed(OLD, BODY), signed(OLD, BODY)].concat(),
                BODY,
                "more than once",
            ),
            (
                replaced("webhook-timestamp", "-9223372036854775808"),
                BODY,
                "not a number of seconds",
            ),
            (
                replaced("webhook-timestamp", "9223372036854775807"),
                BODY,
                "5 minutes ahead",
            ),
            (
                replaced("webhook-signature", "v1,v1a,% ,, v1"),
                BODY,
                "no signature is valid",
            ),
        ] {
            let answer = post(version, address, &lines, body).await;
            assert_eq!(
                (answer.status, answer.error()),
                (StatusCode::UNAUTHORIZED, "unauthorized"),
                "{lines:?}: {answer:?}"
            );
            assert_eq!(answer.headers["www-authenticate"], "StandardWebhooks");
            assert!(answer.message().contains(message), "{message}: {answer:?}");
        }
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    // Whoever has signed it is told what is wrong with it.
    let answer = post(Version::HTTP_11, address, &signed(OLD, NO_JSON), NO_JSON).await;
    assert_eq!(answer.error(), "invalid_json", "{answer:?}");
    for (method, path) in [
        (Method::GET, "/"),
        (Method::OPTIONS, "/callback"),
        (Method::GET, "/openapi.json"),
    ] {
        let answer = send(address, method, path, "").await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_pipelined_callbacks_has_its_own_signature() {
    let world = &mut World::new().await;
    let address = world.ingest(&[&format!("--webhook-secrets={OLD}")]).await;
    let body = std::str::from_utf8(BODY).unwrap();
    let request = |signed_body: &[u8], more: &str| {
        let lines = signed(OLD, signed_body).into_iter();
        let lines = lines.map(|(name, value)| [&name, ": ", &value, "\r\n"].concat());
        let lines = lines.collect::<Vec<_>>().concat();
        format!(
            "POST /callback HTTP/1.1\r\nhost: x\r\n{lines}{more}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let pipelined = [
        request(BODY, ""),
        request(b"", ""),
        request(BODY, "connection: close\r\n"),
    ];
    let answers = exchange(address, pipelined.concat().as_bytes()).await;
    let statuses: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(place, _)| &answers[place + 9..place + 12])
        .collect();
    assert_eq!(statuses, ["202", "401", "202"], "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_callback_is_refused_before_its_body_is_here() {
    let world = &mut World::new().await;
    let flags = [&format!("--webhook-secrets={OLD}"), "--body-timeout=10m"];
    let address = world.ingest(&flags).await;
    let head = "POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let answer = exchange(address, head.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mock_client_signs_with_its_secrets() {
    let world = &mut World::new().await;
    let ingest = world.ingest(&[&format!("--webhook-secrets={NEW}")]).await;
    let url = format!("--callback-url=http://{ingest}/callback");
    let often = "--callback-interval=20ms";
    let foreign = format!("--webhook-secrets={FOREIGN}");
    let mut refused = started(world, "mock-client", &[&url, often, &foreign]).await;
    refused.until_logged("status=401").await;
    drop(refused);
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    let both = format!("--webhook-secrets={OLD},{NEW}");
    world.mock_client(&[often, &url, &both]).await;
    eventually("callbacks", async || {
        (world.broker.ready(Queue::Fetch).await >= 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_warns_if_strangers_can_hand_in_callbacks() {
    const WARNING: &str = "because WEBHOOK_SECRETS is not set";
    let world = &mut World::new().await;
    let secret = format!("--webhook-secrets={OLD}");
    for (address, more, warns) in [
        ("0.0.0.0:0", "--bulk-ids=2000", true),
        ("127.0.0.1:0", "--bulk-ids=2000", false),
        ("0.0.0.0:0", &secret, false),
    ] {
        let listen = format!("--listen-address={address}");
        let mut ingest = started(world, "ingest", &[&listen, more]).await;
        ingest
            .until_logged("dependency is up dependency=\"broker\"")
            .await;
        let log = ingest.lines.join("\n");
        assert_eq!(log.matches(WARNING).count(), usize::from(warns), "{log}");
        assert!(!log.contains("MfKQ9r8G"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_callbacks_are_counted_and_logged() {
    let world = &mut World::new().await;
    let secret = format!("--webhook-secrets={OLD}");
    let mut ingest = started(world, "ingest", &[&secret]).await;
    let admin = address_in(&ingest.lines[0]);
    let address = address_in(&ingest.until_logged("accepting callbacks").await);
    post(Version::HTTP_11, address, &signed(FOREIGN, BODY), BODY).await;
    let line = ingest.until_logged("status=401").await;
    assert!(line.contains("no signature is valid"), "{line}");
    let (_, metrics) = ask_admin(admin, "/metrics").await.unwrap();
    let metrics = Exposition::read(std::str::from_utf8(&metrics).unwrap());
    let count = metrics.sum(
        "callback_pipeline_callbacks_rejected_total",
        &[("reason", "unauthorized")],
    );
    assert!((count - 1.0).abs() < f64::EPSILON, "{count}");
}

/// Runs commands as somebody at a terminal would, and returns what they print.
async fn shell(commands: &str, secret: &str) -> String {
    let mut command = Command::new("bash");
    command
        .args(["-euc", commands])
        .env("WEBHOOK_SECRET", secret);
    command.env("NO_PROXY", "*");
    let output = timeout(BOUND, command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{commands}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_runbook_make_a_secret_and_sign_with_it() {
    const PAGE: &str = include_str!("../../../deploy/runbook/exposing.md");
    if ["curl", "openssl"].into_iter().any(programs::is_missing) {
        return;
    }
    let mut samples = PAGE.split("```sh\n").skip(1);
    let mut sample = || samples.next().unwrap().split("```").next().unwrap();
    let (make, sign) = (sample(), sample());
    let secret = shell(make, "").await.trim().to_owned();
    let world = &mut World::new().await;
    let address = world
        .ingest(&[&format!("--webhook-secrets={secret}")])
        .await;
    let sign = sign.replace("localhost:9090", &address.to_string());
    assert_eq!(shell(&sign, &secret).await, r#"{"accepted":3}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_read_again_and_hold_while_it_cannot_be_read() {
    let world = &mut World::new().await;
    let file = SecretFile::new(&format!("{OLD}\n"));
    let flag = format!("--webhook-secrets-file={}", file.name());
    let address = world.ingest(&[&flag]).await;
    let status = async |secret| {
        let answer = post(Version::HTTP_11, address, &signed(secret, BODY), BODY).await;
        answer.status
    };
    assert_eq!(status(OLD).await, StatusCode::ACCEPTED);
    assert_eq!(status(NEW).await, StatusCode::UNAUTHORIZED);

    file.write(&format!("{NEW},{OLD}"));
    let accepted = async || (status(NEW).await == StatusCode::ACCEPTED).then_some(());
    eventually("the new key to be accepted", accepted).await;
    assert_eq!(status(OLD).await, StatusCode::ACCEPTED);

    file.write(NEW);
    let refused = async || (status(OLD).await == StatusCode::UNAUTHORIZED).then_some(());
    eventually("the old key to be refused", refused).await;

    // A file that says nothing, or nonsense, takes no key away and lets nobody in, for longer than it takes to read it.
    let mut looks = tokio::time::interval(Duration::from_millis(200));
    for broken in ["", "whsec_short"] {
        file.write(broken);
        for _ in 0..30 {
            looks.tick().await;
            assert_eq!(status(NEW).await, StatusCode::ACCEPTED);
            assert_eq!(status(FOREIGN).await, StatusCode::UNAUTHORIZED);
        }
    }
    file.write(OLD);
    let accepted = async || (status(OLD).await == StatusCode::ACCEPTED).then_some(());
    eventually("the file to be read again", accepted).await;
}
