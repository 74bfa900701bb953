//! `OpenMetrics`, for those who ask for it, and the exemplars in it: a real Prometheus takes them, and they lead
//! to the traces that were recorded.

use std::net::SocketAddr;

use tests::client::{exchange, post_ids};
use tests::processes::address_in;
use tests::servers::programs::is_missing;
use tests::servers::prometheus::{Job, Prometheus};
use tests::servers::span_collector::SpanCollector;
use tests::wait::eventually;
use tests::world::World;

use crate::binaries::started;
use crate::traces::{LAST, even_ones_are_online};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The histograms whose observations lead to traces, of a callback from its request to the deletion.
const WITH_EXEMPLARS: [&str; 5] = [
    "callback_pipeline_callback_duration_seconds",
    "callback_pipeline_callback_id_duration_seconds",
    "callback_pipeline_fetch_duration_seconds",
    "callback_pipeline_upsert_duration_seconds",
    "callback_pipeline_object_deletion_lateness_seconds",
];

/// What `/metrics` answers to an `Accept` header: its `Content-Type`, and the body.
async fn metrics(admin: SocketAddr, accept: &str) -> (String, String) {
    let request = format!("GET /metrics HTTP/1.0\r\n{accept}\r\n");
    let answer = exchange(admin, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let content_type = lines.find_map(|line| line.strip_prefix("content-type: "));
    (content_type.unwrap().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let world = &mut World::new().await;
    let attributes =
        "--otel-resource-attributes=k8s.pod.name=janitor%221,service.instance.id=seven";
    let janitor = started(world, "janitor", &["--log-format=json", attributes]).await;
    let admin = address_in(&janitor.lines[0]);
    let prometheus = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4\r\n";
    for (accept, expected) in [
        ("", TEXT),
        ("Accept: */*\r\n", TEXT),
        ("Accept: text/plain\r\nAccept: application/json\r\n", TEXT),
        ("Accept: application/openmetrics-text;q=0\r\n", TEXT),
        (prometheus, OPEN_METRICS),
        (
            "Accept: text/plain;q=0.1\r\nAccept: application/openmetrics-text\r\n",
            OPEN_METRICS,
        ),
    ] {
        let (content_type, body) = metrics(admin, accept).await;
        assert_eq!(content_type, expected, "{accept}");
        let is_open = expected == OPEN_METRICS;
        assert_eq!(body.ends_with("\n# EOF\n"), is_open, "{accept}: {body}");
        let begin = if is_open {
            "target info"
        } else {
            "target_info gauge"
        };
        assert!(
            body.contains(&format!("# TYPE {begin}\ntarget_info{{")),
            "{body}"
        );
        for attribute in [
            "host_name=\"",
            "k8s_pod_name=\"janitor\\\"1\"",
            "service_instance_id=\"seven\"",
            "service_name=\"janitor\"",
            concat!("service_version=\"", env!("CARGO_PKG_VERSION"), "\""),
        ] {
            assert!(body.contains(attribute), "no {attribute}: {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_lead_from_prometheus_to_the_trace_of_the_callback() {
    if is_missing("prometheus") {
        return;
    }
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let collector = SpanCollector::start().await;
    let spans = collector.flag();
    let url = format!("--client-url={}", client.url);
    let mut running = Vec::new();
    let mut jobs = Vec::new();
    for (binary, more) in [
        ("fetcher", &["--object-ttl=1s", &url][..]),
        ("janitor", &["--sweep-grace=1m"]),
        ("ingest", &[]),
    ] {
        let flags: Vec<&str> = [&*spans, "--log-format=json"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let process = started(world, binary, &flags).await;
        jobs.push(Job::new(binary, address_in(&process.lines[0])));
        running.push(process);
    }
    let ingest = running.last_mut().unwrap();
    let accepting = ingest.until_logged("accepting callbacks").await;
    let prometheus = Prometheus::start(&jobs).await;
    post_ids(address_in(&accepting), &[2, 3]).await;
    let trace = collector.until_whole(&[(LAST, 1)]).await;
    for histogram in WITH_EXEMPLARS {
        let query = format!("{histogram}_bucket");
        let exemplars = eventually(&format!("exemplars of {histogram}"), async || {
            let exemplars = prometheus.exemplars(&query).await;
            (!exemplars.is_empty()).then_some(exemplars)
        })
        .await;
        for exemplar in exemplars {
            assert_eq!(
                exemplar["trace_id"], *trace[0].trace_id,
                "{histogram}: {exemplar}"
            );
            let span = trace.iter().find(|span| exemplar["span_id"] == *span.id);
            assert!(span.is_some(), "{histogram}: {exemplar} in {trace:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_is_no_exemplar() {
    let world = &mut World::new().await;
    let collector = SpanCollector::start().await;
    let flags = ["--log-format=json", "--trace-ratio=0", &collector.flag()];
    let mut ingest = started(world, "ingest", &flags).await;
    let admin = address_in(&ingest.lines[0]);
    let accepting = ingest.until_logged("accepting callbacks").await;
    post_ids(address_in(&accepting), &[2]).await;
    let asked = format!("Accept: {OPEN_METRICS}\r\n");
    let counted = "callback_pipeline_callback_duration_seconds_count{status=\"202\"} 1\n";
    let body = eventually("the callback to be counted", async || {
        let (_, body) = metrics(admin, &asked).await;
        body.contains(counted).then_some(body)
    })
    .await;
    assert!(!body.contains("trace_id"), "{body}");
}
