//! Callbacks that the broker cannot take: they wait on the disk of `ingest`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use serde_json::json;
use shared::messages::{FetchChunk, decode};
use shared::topology::Queue;
use tests::binaries::{Started, output};
use tests::http_client::{post, post_ids, send, until_ready};
use tests::world::World;

tests::tests![
    callbacks_are_accepted_without_a_broker_and_published_in_order_by_the_next_run,
    a_killed_ingest_leaves_a_spool_that_the_next_one_drains,
    a_write_that_was_cut_off_is_logged_and_costs_nothing_that_was_answered,
    a_full_spool_asks_the_client_to_come_back,
    ingest_is_ready_with_the_spool_alone_and_names_the_broker,
    a_spool_that_cannot_be_used_is_named,
];

/// Nothing listens there.
const NO_BROKER: &str = "--amqp-url=amqp://nobody:x@127.0.0.1:1/%2f";

async fn next_chunk(world: &World) -> Vec<i64> {
    let chunk: FetchChunk = decode(&world.broker.take(Queue::Fetch).await.data).unwrap();
    chunk.object_ids.into_iter().map(|id| id.0).collect()
}

async fn callbacks_are_accepted_without_a_broker_and_published_in_order_by_the_next_run(
    world: &mut World,
) {
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    for n in 0..20 {
        post_ids(address, &[n, n + 100]).await;
    }
    world.running(ingest).stop().await;
    world.ingest(&["--chunk-size=1", "--ids-limit=1000"]).await;
    for n in 0..20 {
        assert_eq!(next_chunk(world).await, [n]);
        assert_eq!(next_chunk(world).await, [n + 100]);
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

async fn a_killed_ingest_leaves_a_spool_that_the_next_one_drains(world: &mut World) {
    let (mut process, address) = started(world, &[NO_BROKER]).await;
    let ids: Vec<i64> = (0..1_000).collect();
    post_ids(address, &ids).await;
    process.signal("KILL").await;
    assert_eq!(process.end().await, None);

    world.ingest(&["--chunk-size=1000"]).await;
    assert_eq!(next_chunk(world).await, ids);
}

async fn a_write_that_was_cut_off_is_logged_and_costs_nothing_that_was_answered(world: &mut World) {
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    post_ids(address, &[1]).await;
    world.running(ingest).kill().await;
    let segment = segment(world.spool());
    let written = std::fs::read(&segment).unwrap();
    let mut file = OpenOptions::new().append(true).open(segment).unwrap();
    file.write_all(&written[..written.len() - 1]).unwrap();

    let (mut process, address) = started(world, &[]).await;
    let begun = process.lines.join("\n");
    assert!(begun.contains("write that was cut off"), "{begun}");
    until_ready(address).await;
    post_ids(address, &[2]).await;
    // One comes from the spool and the other one does not wait for it.
    let chunks = BTreeSet::from([next_chunk(world).await, next_chunk(world).await]);
    assert_eq!(chunks, BTreeSet::from([vec![1], vec![2]]));
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
}

async fn a_full_spool_asks_the_client_to_come_back(world: &mut World) {
    let (address, ingest) = world.start_ingest(&[NO_BROKER, "--spool-limit=200"]).await;
    post_ids(address, &[1]).await;
    let many: Vec<i64> = (0..100).collect();
    let body = json!({ "object_ids": many }).to_string();
    let answer = post(address, body).await;
    assert_eq!(
        (answer.status, answer.error()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert!(answer.message().contains("the spool is full"), "{answer:?}");
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(!world.running(ingest).is_ready());
    // There is room for a small one, after which it is ready again.
    post_ids(address, &[2]).await;
    assert!(world.running(ingest).is_ready());
    world.running(ingest).kill().await;
    world.ingest(&[]).await;
    assert_eq!(next_chunk(world).await, [1]);
    assert_eq!(next_chunk(world).await, [2]);
}

async fn ingest_is_ready_with_the_spool_alone_and_names_the_broker(world: &mut World) {
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    post_ids(address, &[1]).await;
    assert!(world.running(ingest).is_ready());
    let answer = send(address, Method::GET, "/", "").await;
    let degraded = json!({ "status": "degraded", "degraded": ["broker"] });
    assert_eq!((answer.status, answer.body), (StatusCode::OK, degraded));
}

async fn a_spool_that_cannot_be_used_is_named(_: &mut World) {
    let output = output(
        "ingest",
        &[
            "--admin-address=127.0.0.1:0".to_owned(),
            "--listen-address=127.0.0.1:0".to_owned(),
            "--spool-directory=/dev/null/spool".to_owned(),
        ],
        &[],
    )
    .await;
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("SPOOL_DIRECTORY /dev/null/spool"), "{shown}");
}

/// Starts the binary; returns the address that it listens on.
async fn started(world: &World, more: &[&str]) -> (Started, SocketAddr) {
    let mut flags = world.ingest_flags();
    flags.push("--admin-address=127.0.0.1:0".to_owned());
    flags.push("--listen-address=127.0.0.1:0".to_owned());
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let mut process = Started::new("ingest", &flags);
    let line = process.until_logged("accepting callbacks").await;
    let (_, address) = line.split_once("address=").unwrap();
    (process, address.trim().parse().unwrap())
}

/// The one segment in the spool.
fn segment(spool: &Path) -> PathBuf {
    let files = std::fs::read_dir(spool.join("0")).unwrap();
    let mut segments = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "segment"));
    let segment = segments.next().unwrap();
    assert_eq!(segments.next(), None);
    segment
}
