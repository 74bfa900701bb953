//! What load balancers ask on the port that callbacks come to.

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};
use serde_json::{Value, json};
use tests::client::{VERSIONS, ask, exchange, post, send};
use tests::wait::eventually;
use tests::world::World;

const NO_BROKER: &str = "--amqp-url=amqp://nobody:secret@127.0.0.1:1/%2f";

/// Those that tell whether callbacks are accepted.
const READINESS: [(Method, &str); 7] = [
    (Method::GET, "/"),
    (Method::HEAD, "/"),
    (Method::OPTIONS, "/"),
    (Method::GET, "/?check=1"),
    (Method::GET, "/readyz"),
    (Method::HEAD, "/readyz"),
    (Method::OPTIONS, "/readyz"),
];

/// The first lines of requests that clients of the tests cannot make.
const UNUSUAL: [&str; 4] = [
    // What HAProxy asks by default, and what it asks when it is told to ask for no path.
    "OPTIONS / HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n",
    "GET / HTTP/1.0\r\n",
    "GET http://x/readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n",
];

async fn readiness_is(address: SocketAddr, status: StatusCode, body: &Value) {
    for version in VERSIONS {
        for (method, path) in READINESS {
            let shown = format!("{version:?} {method} {path}");
            let is_head = method == Method::HEAD;
            let answer = ask(version, address, &[], method, path, "").await;
            assert_eq!(answer.status, status, "{shown}");
            let length = answer.headers["content-length"].to_str().unwrap();
            assert_eq!(length, body.to_string().len().to_string(), "{shown}");
            let body = if is_head { &Value::Null } else { body };
            assert_eq!(&answer.body, body, "{shown}");
        }
    }
    for head in UNUSUAL {
        let answer = exchange(address, format!("{head}\r\n").as_bytes()).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.contains(status.as_str()), "{head}: {answer}");
        assert!(answer.ends_with(&body.to_string()), "{head}: {answer}");
    }
}

async fn lives(address: SocketAddr, version: Version) {
    for method in [Method::GET, Method::HEAD] {
        let answer = ask(version, address, &[], method, "/livez", "").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_usual_check_is_answered() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    readiness_is(address, StatusCode::OK, &json!({ "status": "ok" })).await;
    for version in VERSIONS {
        lives(address, version).await;
        for (method, path) in [
            (Method::POST, "/livez"),
            (Method::DELETE, "/readyz"),
            (Method::PUT, "/"),
        ] {
            let answer = ask(version, address, &[], method, path, "").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer.headers["allow"], "GET, HEAD, OPTIONS");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_succeed_while_the_spool_alone_takes_callbacks() {
    let world = &mut World::new().await;
    let (address, _) = world.start_ingest(&[NO_BROKER]).await;
    let degraded = json!({ "status": "degraded", "degraded": ["broker"] });
    eventually("the spool to be ready", async || {
        let answer = send(address, Method::GET, "/", "").await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    readiness_is(address, StatusCode::OK, &degraded).await;
    let answer = post(address, r#"{"object_ids":[1]}"#).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    readiness_is(address, StatusCode::OK, &degraded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_fail_while_nothing_takes_callbacks_and_say_nothing_of_the_inside() {
    let world = &mut World::new().await;
    let (address, _) = world.start_ingest(&[NO_BROKER, "--spool-limit=0"]).await;
    // The spool is known to be full from then on.
    let answer = post(address, r#"{"object_ids":[1]}"#).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    let unavailable = json!({
        "error": "unavailable",
        "message": "broker and spool are down; send the callback again",
    });
    readiness_is(address, StatusCode::SERVICE_UNAVAILABLE, &unavailable).await;
    for version in VERSIONS {
        let answer = ask(version, address, &[], Method::OPTIONS, "/", "").await;
        assert_eq!(answer.headers["retry-after"], "1");
        lives(address, version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_methods_of_a_path_can_be_asked_for() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for version in VERSIONS {
        for (path, status, allow) in [
            ("/", StatusCode::OK, "GET, HEAD, OPTIONS"),
            ("/callback", StatusCode::NO_CONTENT, "OPTIONS, POST"),
            ("/livez", StatusCode::NO_CONTENT, "GET, HEAD, OPTIONS"),
            ("/readyz", StatusCode::OK, "GET, HEAD, OPTIONS"),
            (
                "/openapi.json",
                StatusCode::NO_CONTENT,
                "GET, HEAD, OPTIONS",
            ),
        ] {
            let answer = ask(version, address, &[], Method::OPTIONS, path, "").await;
            assert_eq!(answer.status, status, "{version:?} {path}");
            assert_eq!(answer.headers["allow"], allow, "{version:?} {path}");
        }
        let answer = ask(version, address, &[], Method::OPTIONS, "/nowhere", "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}
