//! Logs never stop a process, whether they are read or not.

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tests::client::{ClientService, Reply, exchange, post_ids, until_ready};
use tests::processes::{Pipeline, Process, address_in, exit_code_with_full_pipe};
use tests::wait::eventually;
use tests::world::World;

use crate::binaries::{binaries, flags, started};

#[tokio::test(flavor = "multi_thread")]
async fn every_binary_stops_while_its_log_is_not_read() {
    let world = &mut World::new().await;
    for (binary, _) in binaries() {
        if binary == "fetcher" {
            let config = tests::processes::configure::<fetcher::Config>(world.flags(), &[]);
            world.will_use(&fetcher::topology(&config));
        }
        let flags = flags(world, binary);
        let mut process = Process::with_full_log(binary, &flags, "starting").await;
        process.signal("TERM").await;
        assert_eq!(process.end_unread().await, Some(0), "{binary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_ends_while_its_log_is_not_read() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("--admin-address={}", taken.local_addr().unwrap());
    for (binary, _) in binaries() {
        for (wrong, code) in [(address.as_str(), 1), ("--log=inof", 2), ("--nonsense", 2)] {
            let ended = exit_code_with_full_pipe(binary, &[wrong.to_owned()]).await;
            assert_eq!(ended, Some(code), "{binary} {wrong}");
        }
    }
}

/// Callbacks whose lines are more than a pipe and the queue in front of it hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_read_delays_no_callback_and_says_what_was_dropped() {
    let world = &mut World::new().await;
    let mut process = started(world, "ingest", &["--log=trace,lapin=off"]).await;
    let admin = address_in(&process.lines[process.lines.len() - 1]);
    let address = address_in(&process.until_logged("accepting callbacks").await);
    until_ready(address).await;
    process.stop_reading_log();
    let dropped = async || {
        let name = "callback_pipeline_log_lines_dropped_total ";
        let metrics = exchange(admin, b"GET /metrics HTTP/1.0\r\n\r\n").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{metrics}"))
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(dropped().await, 0);
    let mut posted = 0;
    while dropped().await < 1_000 {
        assert!(posted < 100_000, "no line is dropped");
        for _ in 0..100 {
            post_ids(address, &[1]).await;
            posted += 1;
        }
    }
    process.until_logged(" log lines were dropped").await;
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
}

/// Each process has messages at work when it is stopped. Lines of the client library are off by default.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_logs_no_error() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let mut pipeline = Pipeline::start(world, &client, &[], &[]).await;
    let chunk = |first: i64| FetchChunk {
        object_ids: (first..first + 10).map(ObjectId).collect(),
    };
    let chunks: Vec<_> = (0..20_000).step_by(10).map(chunk).collect();
    let chunks: Vec<_> = chunks
        .into_iter()
        .map(|chunk| (chunk, Headers::default()))
        .collect();
    world.broker.publish_many(Queue::Fetch, &chunks).await;
    eventually("look-ups", async || (client.total() > 0).then_some(())).await;
    assert!(world.broker.ready(Queue::Fetch).await > 0);
    pipeline.fetcher.stop().await;
    for ids in [0..10_000, 10_000..20_000] {
        post_ids(pipeline.address, &ids.collect::<Vec<_>>()).await;
    }
    pipeline.ingest.stop().await;
    pipeline.janitor.stop().await;
    for process in [&pipeline.ingest, &pipeline.fetcher, &pipeline.janitor] {
        let log = process.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors, [""; 0]);
    }
}
