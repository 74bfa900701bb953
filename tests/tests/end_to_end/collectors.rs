//! Collectors that take no spans, or not as they come: they cost nothing but spans.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use process::ask;
use tests::client::{ClientService, Exposition, Reply, post, post_ids};
use tests::processes::Pipeline;
use tests::servers::span_collector::{Manner, OTLP, SpanCollector, ZIPKIN, defect};
use tests::wait::eventually;
use tests::world::World;
use tokio::net::TcpListener;

use crate::traces::{LAST, even_ones_are_online};

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_a_log_line() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let nobody = "--zipkin-url=http://127.0.0.1:1/api/v2/spans";
    let mut pipeline = Pipeline::start(world, &client, &[nobody], &[]).await;
    let admin = pipeline.ingest.address_in_log("starting").await;
    let dropped = async || {
        let (_, body) = ask(admin, "/metrics").await.unwrap();
        Exposition::read(&String::from_utf8_lossy(&body))
            .sum("callback_pipeline_trace_spans_dropped_total", &[])
    };
    // Three batches are tried in vain.
    for batch in 0..3 {
        let before = dropped().await;
        let answer = post(pipeline.address, format!(r#"{{"object_ids":[{batch}]}}"#)).await;
        assert_eq!(answer.status, 202);
        eventually("spans to be dropped", async || {
            (dropped().await > before).then_some(())
        })
        .await;
    }
    pipeline.ingest.stop().await;
    let log = pipeline.ingest.log();
    let warnings = |log: &str| log.matches("does not take them").count();
    assert_eq!(warnings(&log), 1, "{log}");
    assert!(!log.contains(" ERROR "), "{log}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_finds_too_large_is_sent_in_halves() {
    for format in [&ZIPKIN, &OTLP] {
        let world = &mut World::new().await;
        let client = even_ones_are_online().await;
        let collector = SpanCollector::with(format, Manner::TakesAtMost(2)).await;
        let pipeline = Pipeline::start(world, &client, &[], &[&collector.flag()]).await;
        post_ids(pipeline.address, &(2..50).collect::<Vec<_>>()).await;
        eventually("all look-ups", async || {
            (look_ups(&collector) == 48).then_some(())
        })
        .await;
        let log = pipeline.fetcher.log();
        assert!(!log.contains("spans are dropped"), "{log}");
        pipeline.stop().await;
    }
}

fn look_ups(collector: &SpanCollector) -> usize {
    let spans = collector.spans();
    let of_look_ups = spans.iter().filter(|span| span.name == "GET /objects/{id}");
    of_look_ups.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    for format in [&ZIPKIN, &OTLP] {
        let world = &mut World::new().await;
        let client = even_ones_are_online().await;
        let elsewhere = SpanCollector::with(format, Manner::Takes).await;
        let collector = SpanCollector::with(format, Manner::Redirects(elsewhere.url())).await;
        let mut pipeline = Pipeline::start(world, &client, &[&collector.flag()], &[]).await;
        post_ids(pipeline.address, &[2]).await;
        let line = pipeline.ingest.until_logged("spans are dropped").await;
        assert!(line.contains("307"), "{line}");
        assert_eq!(elsewhere.headers().len(), 0);
        pipeline.stop().await;
    }
}

/// Two batches of look-ups, an outage of one of them, and links between callbacks.
#[tokio::test(flavor = "multi_thread")]
async fn two_collectors_get_the_same_of_each_span() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, n| match (id, n) {
        (6, 1) => Reply::Status(500, None),
        _ => Reply::Online,
    })
    .await;
    let otlp = SpanCollector::with(&OTLP, Manner::Takes).await;
    let of_fetcher = ["--write-linger=20s", "--write-batch=3"];
    let mut pipeline = Pipeline::start(world, &client, &[&otlp.flag()], &of_fetcher).await;
    client.hold();
    for id in [2, 4, 6] {
        post_ids(pipeline.address, &[id]).await;
    }
    client.until_in_flight(3).await;
    client.release();
    for collector in [&pipeline.collector, &otlp] {
        let names = ["POST /callback", "INSERT objects", LAST];
        let traces = collector.until_traces_with(3, &names).await;
        assert_eq!(traces.len(), 3);
    }
    for process in [
        &mut pipeline.ingest,
        &mut pipeline.fetcher,
        &mut pipeline.janitor,
    ] {
        process.stop().await;
    }
    let [in_zipkin, in_otlp] = [&pipeline.collector, &otlp].map(|collector| {
        let mut spans = collector.spans();
        spans.sort_by(|one, other| (&one.trace_id, &one.id).cmp(&(&other.trace_id, &other.id)));
        spans
    });
    assert_eq!(in_zipkin, in_otlp);
    for tag in ["otel.links", "error", "service.instance.id"] {
        assert!(
            in_otlp.iter().any(|span| !span.tag(tag).is_empty()),
            "{tag}"
        );
    }
    assert!(otlp.traces().iter().all(|trace| defect(trace).is_none()));
}

/// Spans of one of the two exporters of a process, by a metric of theirs.
async fn count(admin: SocketAddr, metric: &str, exporter: &str) -> f64 {
    let (_, body) = ask(admin, "/metrics").await.unwrap();
    let shown = Exposition::read(&String::from_utf8_lossy(&body));
    shown.sum(metric, &[("exporter", exporter)])
}

const EXPORTED: &str = "callback_pipeline_trace_spans_exported_total";
const DROPPED: &str = "callback_pipeline_trace_spans_dropped_total";
/// How many spans may wait for a collector.
const ROOM: u32 = 8_192;

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_its_spans_and_those_of_no_other() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    // Its connections are taken, and nobody reads what comes.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let flag = format!("--otel-exporter-otlp-endpoint=http://{address}");
    let mut pipeline = Pipeline::start(world, &client, &[], &[&flag]).await;
    let admin = pipeline.fetcher.address_in_log("starting").await;
    let ids = 12_000;
    for begin in (0..ids).step_by(1_000) {
        post_ids(
            pipeline.address,
            &(begin..begin + 1_000).collect::<Vec<_>>(),
        )
        .await;
    }
    eventually("all look-ups", async || {
        let collected = look_ups(&pipeline.collector);
        (i64::try_from(collected).unwrap() == ids).then_some(())
    })
    .await;
    assert!(count(admin, DROPPED, "zipkin").await < 1.0);
    assert!(count(admin, EXPORTED, "otlp").await < 1.0);
    let waiting = count(admin, EXPORTED, "zipkin").await - count(admin, DROPPED, "otlp").await;
    assert!(waiting <= f64::from(ROOM), "{waiting}");
    // Its last spans have a tenth of the time that it has to end.
    let begin = Instant::now();
    pipeline.fetcher.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(10));
    let log = pipeline.fetcher.log();
    let lost = log
        .lines()
        .find(|line| line.contains("the last spans were not sent"));
    assert!(lost.unwrap().contains("exporter=\"otlp\""), "{log}");
    assert!(!log.contains("exporter=\"zipkin\""), "{log}");
    pipeline.stop().await;
}
