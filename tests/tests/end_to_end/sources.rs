//! Limits of each source: a source that sends more has to wait, and no other one.

use std::net::{IpAddr, SocketAddr};

use broker::Queue;
use http::{StatusCode, Version};
use serde_json::json;
use tests::client::{Answer, VERSIONS};
use tests::wait::BOUND;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::signatures::{post, signed};

/// At one id a second a source that has sent these waits for longer than a test takes. They go to the queue
/// of the large callbacks.
pub(crate) fn many() -> Vec<u8> {
    let ids: Vec<i64> = (0..2_500).collect();
    json!({ "object_ids": ids }).to_string().into_bytes()
}

pub(crate) const ONE: &[u8] = br#"{"object_ids":[1]}"#;

async fn post_for(version: Version, address: SocketAddr, client: &str, body: &[u8]) -> Answer {
    let lines = vec![("x-forwarded-for".to_owned(), client.to_owned())];
    post(version, address, &lines, body).await
}

pub(crate) fn assert_waits(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.error()),
        (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
        "{answer:?}"
    );
    let seconds = answer.headers["retry-after"].to_str().unwrap();
    let seconds: u64 = seconds.parse().unwrap();
    assert!((2_000..=2_491).contains(&seconds), "{seconds}");
}

pub(crate) fn assert_accepted(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
}

/// A connection that comes from this address of the machine.
pub(crate) async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let source: IpAddr = source.parse().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// The answer to a callback that comes from this address of the machine, on account of `client`.
async fn post_from(source: &str, address: SocketAddr, client: &str, body: &[u8]) -> String {
    let mut stream = connect_from(source, address).await;
    let head = format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: {client}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    stream.write_all(&request).await.unwrap();
    let mut answer = String::new();
    let read = timeout(BOUND, stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_sends_too_many_callbacks_is_asked_to_wait() {
    let world = &mut World::new().await;
    let address = world.ingest(&["--source-callbacks-rate=1"]).await;
    let mut accepted = 0;
    let refused = loop {
        let answer = post_from("127.0.0.1", address, "", ONE).await;
        if !answer.starts_with("HTTP/1.1 202") {
            break answer;
        }
        accepted += 1;
    };
    assert!(accepted >= 10, "{accepted}");
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    let other = post_from("127.0.0.2", address, "", ONE).await;
    assert!(other.starts_with("HTTP/1.1 202"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_sends_too_many_ids_is_asked_to_wait() {
    let world = &mut World::new().await;
    let address = world.ingest(&["--source-ids-rate=1"]).await;
    assert_accepted(&post(Version::HTTP_11, address, &vec![], &many()).await);
    for version in VERSIONS {
        // It is not believed that they come from elsewhere.
        for client in ["198.51.100.1", "198.51.100.2"] {
            assert_waits(&post_for(version, address, client, ONE).await);
        }
    }
    let other = post_from("127.0.0.2", address, "", ONE).await;
    assert!(other.starts_with("HTTP/1.1 202"), "{other}");
    world.broker.until_ready(Queue::Fetch, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let world = &mut World::new().await;
    let flags = [
        "--source-ids-rate=1",
        "--trusted-proxies=127.0.0.1,10.0.0.0/8",
    ];
    let address = world.ingest(&flags).await;
    let version = Version::HTTP_11;
    assert_accepted(&post_for(version, address, "198.51.100.1", &many()).await);
    for version in VERSIONS {
        for client in [
            "198.51.100.1",
            "198.51.100.1, 10.1.2.3",
            // What it made up.
            "203.0.113.5, 198.51.100.1",
            "10.1.2.3,198.51.100.1:4711",
        ] {
            assert_waits(&post_for(version, address, client, ONE).await);
        }
        assert_accepted(&post_for(version, address, "198.51.100.2", ONE).await);
    }
    // A host has as many addresses of IPv6 as it likes.
    for (version, host) in VERSIONS.into_iter().zip(["2001:db8:0:1", "2001:db8:0:2"]) {
        assert_accepted(&post_for(version, address, &format!("{host}::1"), &many()).await);
        assert_waits(&post_for(version, address, &format!("{host}::2"), ONE).await);
    }
    // Without the header the proxy speaks for itself.
    assert_accepted(&post(version, address, &vec![], ONE).await);
    // Anybody else is not believed.
    for (client, body, status) in [
        ("198.51.100.1", &*many(), "202"),
        ("203.0.113.9", ONE, "429"),
        ("127.0.0.1", ONE, "429"),
    ] {
        let answer = post_from("127.0.0.2", address, client, body).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{client}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_of_a_signed_callback_is_its_key() {
    const ONE_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER_KEY: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const FOREIGN: &str = "whsec_FxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA";
    let world = &mut World::new().await;
    let keys = format!("--webhook-secrets={ONE_KEY},{OTHER_KEY}");
    let address = world.ingest(&[&keys, "--source-ids-rate=1"]).await;
    let (version, many) = (Version::HTTP_11, many());
    // What others send is not on anybody's account.
    for key in [FOREIGN, FOREIGN, ONE_KEY] {
        let answer = post(version, address, &signed(key, &many), &many).await;
        let is_known = key == ONE_KEY;
        let expected = if is_known {
            StatusCode::ACCEPTED
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    assert_waits(&post(version, address, &signed(ONE_KEY, ONE), ONE).await);
    assert_accepted(&post(version, address, &signed(OTHER_KEY, ONE), ONE).await);
}
