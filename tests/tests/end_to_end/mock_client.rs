//! The client service that is part of the repository.

use broker::Queue;
use futures::FutureExt;
use http::{Method, StatusCode};
use serde_json::json;
use tests::client::send;
use tests::wait::eventually;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// No callbacks, and answers without delay.
const QUIET: [&str; 4] = [
    "--callback-interval=1h",
    "--callback-url=http://127.0.0.1:1/",
    "--latency-min=1ms",
    "--latency-max=1ms",
];

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_are_answered_by_parity_and_refused_for_what_is_no_id() {
    let world = &mut World::new().await;
    let address = world.mock_client(&QUIET).await;
    for (id, online) in [
        (0, true),
        (1, false),
        (-2, true),
        (i64::MAX, false),
        (i64::MIN, true),
    ] {
        let answer = send(address, Method::GET, &format!("/objects/{id}"), "").await;
        assert_eq!(
            (answer.status, answer.body),
            (StatusCode::OK, json!({ "id": id, "online": online }))
        );
    }
    for id in ["x", "", "1.5", "9223372036854775808", "1/2"] {
        let answer = send(address, Method::GET, &format!("/objects/{id}"), "").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{id}");
    }
    assert_eq!(
        send(address, Method::GET, "/", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(address, Method::POST, "/objects/1", "").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_come_at_the_ratio_asked_for() {
    let world = &mut World::new().await;
    let mut flags = QUIET.to_vec();
    flags.extend(["--error-ratio=0.5", "--seed=7"]);
    let address = world.mock_client(&flags).await;
    let mut errors = 0;
    for id in 0..100 {
        let answer = send(address, Method::GET, &format!("/objects/{id}"), "").await;
        errors += usize::from(answer.status == StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert!((25..=75).contains(&errors), "{errors} of 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_arrive_at_ingest() {
    let world = &mut World::new().await;
    let ingest = world.ingest(&[]).await;
    let url = format!("--callback-url=http://{ingest}/callback");
    world
        .mock_client(&["--callback-interval=20ms", &url, "--callback-ids=10"])
        .await;
    eventually("callbacks", async || {
        (world.broker.ready(Queue::Fetch).await >= 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_does_not_follow_a_redirect() {
    let world = &mut World::new().await;
    let [receiver, other] = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let url = format!(
        "--callback-url=http://{}/callback",
        receiver.local_addr().unwrap()
    );
    world.mock_client(&[&url, "--callback-interval=10ms"]).await;
    let location = other.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{location}/\r\n\
         connection: close\r\ncontent-length: 0\r\n\r\n"
    );
    for _ in 0..3 {
        let (mut stream, _) = receiver.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    assert!(other.accept().now_or_never().is_none());
}
