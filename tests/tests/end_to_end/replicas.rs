//! A trace says who made its spans.

use std::collections::BTreeSet;

use tests::client::{post_ids, post_ids_with};
use tests::processes::{Pipeline, Process};
use tests::servers::span_collector::Span;
use tests::wait::eventually;
use tests::world::World;

use crate::traces::{LAST, even_ones_are_online};

#[tokio::test(flavor = "multi_thread")]
async fn a_span_says_which_process_of_which_version_made_it_and_where() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let given = "--otel-resource-attributes=k8s.pod.name=pod%2d7,k8s.namespace.name=space";
    let pipeline = Pipeline::start(world, &client, &[given], &[]).await;
    post_ids(pipeline.address, &[2]).await;
    let trace = pipeline.collector.until_whole(&[(LAST, 1)]).await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for span in &trace {
        assert_eq!(span.tag("service.version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(span.tag("host.name"), host.trim());
        assert_eq!(span.tag("k8s.pod.name"), "pod-7");
        assert_eq!(span.tag("k8s.namespace.name"), "space");
        assert_eq!(span.tag("otel.scope.name"), "callback-pipeline");
        assert_eq!(span.tag("otel.scope.version"), env!("CARGO_PKG_VERSION"));
    }
    let pair = |span: &Span| {
        let service = span.local_endpoint.service_name.clone();
        (service, span.tag("service.instance.id").to_owned())
    };
    let pairs: BTreeSet<_> = trace.iter().map(pair).collect();
    let services: Vec<_> = pairs.iter().map(|(service, _)| &**service).collect();
    assert_eq!(services, ["fetcher", "ingest", "janitor"]);
    let instances: BTreeSet<_> = pairs.iter().map(|(_, instance)| instance).collect();
    assert_eq!(instances.len(), 3);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetchers_can_be_told_apart() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let named = ["--otel-service-name=look-ups"];
    let pipeline = Pipeline::start(world, &client, &[], &named).await;
    let mut flags = world.flags();
    flags.extend(["--admin-address=127.0.0.1:0", "--object-ttl=1s"].map(str::to_owned));
    flags.push(format!("--client-url={}", client.url));
    flags.extend([named[0].to_owned(), pipeline.collector.flag()]);
    let mut second = Process::started("fetcher", &flags);
    second.until_logged("broker (consuming)").await;
    eventually("spans of both", async || {
        post_ids(pipeline.address, &[2]).await;
        let spans = pipeline.collector.spans();
        let theirs = spans
            .iter()
            .filter(|span| span.local_endpoint.service_name == "look-ups");
        let instances: BTreeSet<_> = theirs.map(|span| span.tag("service.instance.id")).collect();
        (instances.len() == 2).then_some(())
    })
    .await;
    second.stop().await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_sdk_no_span_is_made_and_a_trace_is_handed_on() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let mut pipeline = Pipeline::start(world, &client, &["--otel-sdk-disabled=TRUE"], &[]).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("traceparent", parent)];
    post_ids_with(pipeline.address, &headers, &[2]).await;
    world.database.until_ids(&[2]).await;
    assert_eq!(client.headers(2).remove(0)["traceparent"], parent);
    for process in [&mut pipeline.ingest, &mut pipeline.fetcher] {
        process.stop().await;
    }
    assert_eq!(pipeline.collector.spans(), []);
    pipeline.stop().await;
}
