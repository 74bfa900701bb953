//! Every row of the HTTP contract, asked of `ingest` as clients would.

use std::collections::BTreeSet;

use broker::Queue;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use messages::{FetchChunk, decode};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::json;
use tests::client::{HttpClient, exchange, post, post_ids, send};
use tests::wait::eventually;
use tests::world::World;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_answered_with_its_number_of_distinct_ids() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for (body, accepted) in [
        (r#"{"object_ids":[1,2,3]}"#, 3),
        (r#"{"object_ids":[]}"#, 0),
        (r#"{"object_ids":[7,7,7,0,-1]}"#, 3),
        (
            r#"{"object_ids":[9223372036854775807,-9223372036854775808]}"#,
            2,
        ),
        (r#"{"object_ids":[0,-0]}"#, 1),
        (r#" {"more":{"deep":[[]]},"object_ids":[5],"x":null} "#, 1),
        ("\u{feff}{\"object_ids\":[1]}", 1),
    ] {
        let answer = post(address, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{body}: {answer:?}");
        assert_eq!(answer.body, json!({ "accepted": accepted }), "{body}");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_callback_is_in_the_queue_in_persistent_chunks() {
    let world = &mut World::new().await;
    let address = world.ingest(&["--chunk-size=2", "--ids-limit=1000"]).await;
    post_ids(address, &[0, i64::MIN, i64::MAX, 0, 5]).await;
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let message = world.broker.take(Queue::Fetch).await;
        assert_eq!(*message.properties.delivery_mode(), Some(2));
        let chunk: FetchChunk = decode(&message.data).unwrap();
        assert_eq!(chunk.object_ids.len(), 2);
        ids.extend(chunk.object_ids.iter().map(|id| id.0));
    }
    assert_eq!(ids, BTreeSet::from([0, i64::MIN, i64::MAX, 5]));
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_callback_are_refused_with_code_and_position() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for (body, code, message) in [
        ("", "invalid_json", ""),
        ("{", "invalid_json", "line 1"),
        ("{\"object_ids\":[1]} x", "invalid_json", "trailing"),
        ("\u{feff}\u{feff}{\"object_ids\":[1]}", "invalid_json", ""),
        ("null", "invalid_request", "object_ids"),
        ("[1]", "invalid_request", "object_ids"),
        ("{}", "invalid_request", "object_ids is missing"),
        (r#"{"object_ids":7}"#, "invalid_request", "object_ids"),
        (
            r#"{"object_ids":[1,"2"]}"#,
            "invalid_request",
            "object_ids[1]",
        ),
        (
            r#"{"object_ids":[1,2.5]}"#,
            "invalid_request",
            "object_ids[1]",
        ),
        (
            r#"{"object_ids":[-0,-1e-400]}"#,
            "invalid_request",
            "object_ids[1]",
        ),
        (r#"{"object_ids":[-0.0]}"#, "invalid_request", "-0.0"),
        (
            r#"{"object_ids":[9223372036854775808]}"#,
            "invalid_request",
            "object_ids[0]",
        ),
    ] {
        let answer = post(address, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
        assert_eq!(answer.error(), code, "{body}: {answer:?}");
        assert!(answer.message().contains(message), "{body}: {answer:?}");
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_that_do_not_exist_are_refused() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for (method, path) in [
        (Method::POST, "/"),
        (Method::GET, "/callback"),
        (Method::DELETE, "/callback"),
    ] {
        let answer = send(address, method.clone(), path, "").await;
        assert_eq!(
            answer.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        assert_eq!(answer.error(), "method_not_allowed");
        let allow = if path == "/" {
            "GET, HEAD, OPTIONS"
        } else {
            "OPTIONS, POST"
        };
        assert_eq!(answer.headers["allow"], allow);
    }
    for path in ["/callbacks", "/callback/", "//", "/livez/"] {
        let answer = send(address, Method::POST, path, r#"{"object_ids":[1]}"#).await;
        assert_eq!(
            (answer.status, answer.error()),
            (StatusCode::NOT_FOUND, "not_found"),
            "{path}"
        );
    }
    assert_eq!(post(address, "{").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn arbitrary_bodies_are_refused_and_never_an_error_of_the_server() {
    const BODIES: usize = 300;
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let mut runner = TestRunner::default();
    let noise = proptest::collection::vec(proptest::num::u8::ANY, 0..200);
    let near_json = r#"[\[\]{}":,0-9eE+. -]{0,60}|\{"object_ids":[\[\],0-9eE"-]{0,40}\}?"#;
    let mut client = HttpClient::connect(address).await;
    for round in 0..BODIES {
        let body: Vec<u8> = if round % 2 == 0 {
            noise.new_tree(&mut runner).unwrap().current()
        } else {
            let text = proptest::string::string_regex(near_json).unwrap();
            text.new_tree(&mut runner).unwrap().current().into_bytes()
        };
        let answer = client.send(Method::POST, "/callback", body.clone()).await;
        let expected = [StatusCode::BAD_REQUEST, StatusCode::ACCEPTED];
        assert!(
            expected.contains(&answer.status),
            "{:?}: {answer:?}",
            String::from_utf8_lossy(&body)
        );
        assert!(client.reusable().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_broker_and_spool_the_client_is_asked_to_come_back_within_a_second() {
    let world = &mut World::new().await;
    let (address, _) = world
        .start_ingest(&[
            "--amqp-url=amqp://nobody:secret@127.0.0.1:1/%2f",
            "--spool-limit=0",
            "--publish-timeout=500ms",
        ])
        .await;
    let started = std::time::Instant::now();
    let answer = post(address, r#"{"object_ids":[1]}"#).await;
    // Its own time-out is half a second; the rest is what a busy machine may take.
    assert!(
        started.elapsed().as_secs_f64() < 2.0,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        (answer.status, answer.error()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(!answer.message().contains("secret"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_says_whether_the_service_works() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let answer = send(address, Method::GET, "/?x=1", "").await;
    assert_eq!(
        (answer.status, answer.body),
        (StatusCode::OK, json!({ "status": "ok" }))
    );
    assert_eq!(
        send(address, Method::HEAD, "/", "").await.status,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_requests_also_when_pipelined() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let body = r#"{"object_ids":[1]}"#;
    let request = |close: &str| {
        format!(
            "POST /callback HTTP/1.1\r\nhost: x\r\n{close}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let pipelined = [request(""), request(""), request("connection: close\r\n")].concat();
    let answers = exchange(address, pipelined.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 202").count(), 3, "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_speak_http2_without_tls() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    // The second one is larger than what may be on its way at once.
    for padding in [0, 900 << 10] {
        let body = [r#"{"object_ids":[1,2]}"#, &" ".repeat(padding)].concat();
        let request = http::Request::post(format!("http://{address}/callback"))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            r#"{"accepted":2}"#
        );
    }
}

/// A proxy in front may have taken the length for true: nothing may follow on the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_together_with_chunks_ends_the_connection() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let body = r#"{"object_ids":[]}"#;
    let request = format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    // Returns when the other side has closed.
    let answer = exchange(address, request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 202") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_published_also_when_its_client_hangs_up() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let body = r#"{"object_ids":[1]}"#;
    let request = format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream);
    world.broker.until_ready(Queue::Fetch, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_message_is_kept() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let fetch = world.broker.topology.name(Queue::Fetch);
    // It is declared again every few seconds, perhaps between these two.
    let message = eventually("an unroutable message", async || {
        world.broker.delete(&fetch).await;
        post_ids(address, &[1]).await;
        world.broker.try_take(Queue::Unroutable).await
    })
    .await;
    assert_eq!(message.routing_key.as_str(), fetch);
}
