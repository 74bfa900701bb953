//! Callbacks that the broker cannot take: they wait on the disk of `ingest`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broker::Queue;
use http::{Method, StatusCode};
use messages::{FetchChunk, decode};
use serde_json::json;
use tests::client::{post, post_ids, send, until_ready};
use tests::processes::Process;
use tests::wait::eventually;
use tests::world::World;

/// Nothing listens there.
const NO_BROKER: &str = "--amqp-url=amqp://nobody:x@127.0.0.1:1/%2f";

async fn next_chunk(world: &World) -> Vec<i64> {
    let chunk: FetchChunk = decode(&world.broker.take(Queue::Fetch).await.data).unwrap();
    chunk.object_ids.into_iter().map(|id| id.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_accepted_without_a_broker_and_published_in_order_by_the_next_run() {
    let world = &mut World::new().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_ingest_leaves_a_spool_that_the_next_one_drains() {
    let world = &mut World::new().await;
    let (mut process, address) = started(world, &[NO_BROKER]).await;
    let ids: Vec<i64> = (0..1_000).collect();
    post_ids(address, &ids).await;
    process.signal("KILL").await;
    assert_eq!(process.end().await, None);

    world.ingest(&["--chunk-size=1000"]).await;
    assert_eq!(next_chunk(world).await, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_cut_off_is_logged_and_costs_nothing_that_was_answered() {
    let world = &mut World::new().await;
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    post_ids(address, &[1]).await;
    world.running(ingest).kill().await;
    let segment = segment(world.spool());
    let written = std::fs::read(&segment).unwrap();
    let mut file = OpenOptions::new().append(true).open(segment).unwrap();
    file.write_all(&written[..written.len() - 1]).unwrap();

    let (mut process, address) = started(world, &[]).await;
    process.until_logged("write that was cut off").await;
    until_ready(address).await;
    post_ids(address, &[2]).await;
    // One comes from the spool and the other one does not wait for it.
    let chunks = BTreeSet::from([next_chunk(world).await, next_chunk(world).await]);
    assert_eq!(chunks, BTreeSet::from([vec![1], vec![2]]));
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_asks_the_client_to_come_back() {
    let world = &mut World::new().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn ingest_is_ready_with_the_spool_alone_and_names_the_broker() {
    let world = &mut World::new().await;
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    post_ids(address, &[1]).await;
    assert!(world.running(ingest).is_ready());
    let answer = send(address, Method::GET, "/", "").await;
    let degraded = json!({ "status": "degraded", "degraded": ["broker"] });
    assert_eq!((answer.status, answer.body), (StatusCode::OK, degraded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_replica_publishes_the_spool_of_one_that_is_gone() {
    let world = &mut World::new().await;
    let (address, gone) = world.start_ingest(&[NO_BROKER]).await;
    post_ids(address, &[1]).await;
    world.ingest(&[]).await;
    world.running(gone).kill().await;
    assert_eq!(next_chunk(world).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_behind_a_gap_is_found() {
    let world = &mut World::new().await;
    spooled(world, &[1]).await;
    let folder = |number: &str| world.spool().join(number);
    std::fs::rename(folder("0"), folder("3")).unwrap();
    std::fs::create_dir(folder("1")).unwrap();
    world.ingest(&[]).await;
    assert_eq!(next_chunk(world).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_could_not_be_read_is_read_again() {
    let world = &mut World::new().await;
    spooled(world, &[1]).await;
    let (segment, elsewhere) = (segment(world.spool()), world.spool().join("moved"));
    std::fs::rename(&segment, &elsewhere).unwrap();
    std::fs::create_dir(&segment).unwrap();
    let (mut process, address) = started(world, &[]).await;
    process.until_logged("cannot be read").await;
    until_ready(address).await;
    std::fs::remove_dir(&segment).unwrap();
    std::fs::rename(&elsewhere, &segment).unwrap();
    assert_eq!(next_chunk(world).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_callback_is_set_aside_and_the_others_are_published() {
    let world = &mut World::new().await;
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    // The first ones may be in another segment.
    for id in 1..=4 {
        post_ids(address, &[id]).await;
    }
    world.running(ingest).stop().await;
    let segment = segments(world.spool()).pop().unwrap();
    let mut content = std::fs::read(&segment).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&segment, &content).unwrap();

    world.ingest(&[]).await;
    for id in 1..=3 {
        assert_eq!(next_chunk(world).await, [id]);
    }
    let removed = async || (!segment.exists()).then_some(());
    eventually("the segment to be set aside", removed).await;
    let mut aside = std::fs::read_dir(world.spool().join("damaged")).unwrap();
    let kept = std::fs::read(aside.next().unwrap().unwrap().path()).unwrap();
    assert_eq!(kept, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_disk_for_the_spool_callbacks_are_accepted_by_the_broker() {
    let world = &mut World::new().await;
    let in_the_way = world.spool().join("file");
    std::fs::write(&in_the_way, "").unwrap();
    let directory = format!("--spool-directory={}/spool", in_the_way.display());
    let (mut process, address) = started(world, &[&directory]).await;
    let line = process
        .until_logged("dependency is down dependency=\"spool\"")
        .await;
    assert!(line.contains("SPOOL_DIRECTORY"), "{line}");
    post_until_accepted(address, 1).await;
    assert_eq!(next_chunk(world).await, [1]);
    let degraded = json!({ "status": "degraded", "degraded": ["spool"] });
    for path in ["/", "/readyz"] {
        let answer = send(address, Method::GET, path, "").await;
        assert_eq!(
            (answer.status, answer.body),
            (StatusCode::OK, degraded.clone())
        );
    }
    std::fs::remove_file(&in_the_way).unwrap();
    std::fs::create_dir(&in_the_way).unwrap();
    process
        .until_logged("dependency is up dependency=\"spool\"")
        .await;
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
}

/// A spool of 8 GiB: one segment of a MiB with many names, full of small callbacks.
#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_accepted_at_once_while_the_spool_is_large() {
    const SEGMENTS: usize = 8_000;
    let world = &mut World::new().await;
    spooled(world, &[1]).await;
    let first = segment(world.spool());
    let written = std::fs::read(&first).unwrap();
    std::fs::write(&first, written.repeat((1 << 20) / written.len() + 1)).unwrap();
    for number in 1..SEGMENTS {
        let name = first.with_file_name(format!("{number:020}.segment"));
        std::fs::hard_link(&first, name).unwrap();
    }
    let begin = Instant::now();
    let (address, _) = world
        .start_ingest(&[NO_BROKER, "--spool-limit=100GiB"])
        .await;
    post_ids(address, &[1]).await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A pipe in the place of a file: opening it takes until it has a reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_holds_up_neither_callbacks_nor_the_end() {
    let world = &mut World::new().await;
    let folder = world.spool().join("0");
    std::fs::create_dir(&folder).unwrap();
    let lock = folder.join("lock");
    let made = std::process::Command::new("mkfifo").arg(lock).status();
    assert!(made.unwrap().success());
    let (mut process, address) = started(world, &["--shutdown-timeout=3s"]).await;
    post_until_accepted(address, 1).await;
    assert_eq!(next_chunk(world).await, [1]);
    process.until_logged("takes too long").await;
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
    let log = process.lines.join("\n");
    assert!(log.contains("did not answer in time"), "{log}");
}

/// Leaves a callback in the spool.
async fn spooled(world: &mut World, ids: &[i64]) {
    let (address, ingest) = world.start_ingest(&[NO_BROKER]).await;
    post_ids(address, ids).await;
    world.running(ingest).kill().await;
}

/// Posts a callback until the broker is connected, on which alone it depends.
async fn post_until_accepted(address: SocketAddr, id: i64) {
    eventually("the callback to be accepted", async || {
        let answer = post(address, json!({ "object_ids": [id] }).to_string()).await;
        (answer.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
}

/// Starts the binary; returns the address that it listens on.
async fn started(world: &World, more: &[&str]) -> (Process, SocketAddr) {
    let mut flags = world.ingest_flags();
    flags.push("--admin-address=127.0.0.1:0".to_owned());
    flags.push("--listen-address=127.0.0.1:0".to_owned());
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let process = Process::started("ingest", &flags);
    let address = process.address_in_log("accepting callbacks").await;
    (process, address)
}

/// The one segment in the spool.
fn segment(spool: &Path) -> PathBuf {
    let mut segments = segments(spool);
    assert_eq!(segments.len(), 1, "{segments:?}");
    segments.remove(0)
}

/// The segments in the spool, in their order.
fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(spool.join("0")).unwrap();
    let mut segments: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "segment"))
        .collect();
    segments.sort();
    segments
}
