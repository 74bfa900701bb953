//! Collectors that take no spans, or not as they come: they cost nothing but spans.

use process::ask;
use tests::client::{Exposition, post, post_ids};
use tests::processes::Pipeline;
use tests::servers::span_collector::{Manner, SpanCollector, ZIPKIN};
use tests::wait::eventually;
use tests::world::World;

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
        Exposition::read(&String::from_utf8_lossy(&body)).sum("trace_spans_dropped_total", &[])
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
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let mut pipeline = Pipeline::start(world, &client, &[], &[]).await;
    let collector = SpanCollector::with(&ZIPKIN, Manner::TakesAtMost(2)).await;
    pipeline.fetcher.stop().await;
    pipeline.fetcher.set_flag("zipkin-url", &collector.url());
    pipeline.fetcher.start();
    post_ids(pipeline.address, &(2..50).collect::<Vec<_>>()).await;
    pipeline.collector.until_traces_with(1, &[LAST]).await;
    pipeline.fetcher.stop().await;
    let look_ups = collector.spans().into_iter();
    let look_ups = look_ups.filter(|span| span.name == "GET /objects/{id}");
    assert_eq!(look_ups.count(), 48);
    let log = pipeline.fetcher.log();
    assert!(!log.contains("spans are dropped"), "{log}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let elsewhere = SpanCollector::start().await;
    let collector = SpanCollector::with(&ZIPKIN, Manner::Redirects(elsewhere.url())).await;
    let mut pipeline = Pipeline::start(world, &client, &[&collector.flag()], &[]).await;
    post_ids(pipeline.address, &[2]).await;
    let line = pipeline.ingest.until_logged("spans are dropped").await;
    assert!(line.contains("307"), "{line}");
    assert_eq!(elsewhere.headers().len(), 0);
    pipeline.stop().await;
}
