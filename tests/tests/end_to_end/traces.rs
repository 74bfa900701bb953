//! One callback is one trace, whatever happens to it.

use broker::{Queue, Topology};
use tests::client::{ClientService, Reply, exchange, post_ids, post_ids_with};
use tests::processes::Pipeline;
use tests::proxy::Network;
use tests::servers::span_collector::{Kind, Span};
use tests::wait::eventually;
use tests::world::{World, proxied};

pub(crate) async fn even_ones_are_online() -> ClientService {
    ClientService::start(|id, _| {
        if id % 2 == 0 {
            Reply::Online
        } else {
            Reply::Offline
        }
    })
    .await
}

/// What the spans of a queue's messages are named by.
fn destination(topology: &Topology, queue: Queue) -> String {
    format!("{}:{}", topology.exchange(), topology.name(queue))
}

/// That of the messages that wait for their rows, which live for a second.
fn delay(topology: &Topology) -> String {
    let fetch = destination(topology, Queue::Fetch);
    format!(
        "{}objects.delete.delay.750",
        fetch.trim_end_matches("objects.fetch")
    )
}

fn titles(trace: &[Span]) -> Vec<String> {
    trace.iter().map(Span::title).collect()
}

fn find<'a>(trace: &'a [Span], name: &str) -> &'a Span {
    let found = trace.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no {name}: {:#?}", titles(trace)))
}

pub(crate) const LAST: &str = "DELETE objects";

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_one_trace_from_its_request_to_the_deletion() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let pipeline = Pipeline::start(world, &client, &[], &[]).await;
    post_ids(pipeline.address, &[2, 3]).await;
    let trace = pipeline.collector.until_whole(&[(LAST, 1)]).await;
    assert_eq!(trace.len(), 9, "{:#?}", titles(&trace));
    let topology = &world.broker.topology;

    let fetch = destination(topology, Queue::Fetch);
    let delay = delay(topology);
    let delete = destination(topology, Queue::Delete);
    let expected = [
        ("ingest: POST /callback", Kind::Server, None),
        (
            &*format!("ingest: publish {fetch}"),
            Kind::Producer,
            Some("ingest: POST /callback"),
        ),
        (
            &*format!("fetcher: process {fetch}"),
            Kind::Consumer,
            Some(&*format!("ingest: publish {fetch}")),
        ),
        (
            "fetcher: GET /objects/{id}",
            Kind::Client,
            Some(&*format!("fetcher: process {fetch}")),
        ),
        (
            "fetcher: GET /objects/{id}",
            Kind::Client,
            Some(&*format!("fetcher: process {fetch}")),
        ),
        (
            "fetcher: INSERT objects",
            Kind::Client,
            Some(&*format!("fetcher: process {fetch}")),
        ),
        (
            &*format!("fetcher: publish {delay}"),
            Kind::Producer,
            Some(&*format!("fetcher: process {fetch}")),
        ),
        (
            &*format!("janitor: process {delete}"),
            Kind::Consumer,
            Some(&*format!("fetcher: publish {delay}")),
        ),
        (
            "janitor: DELETE objects",
            Kind::Client,
            Some(&*format!("janitor: process {delete}")),
        ),
    ];
    let parent = |span: &Span| {
        let parent = trace
            .iter()
            .find(|other| Some(&other.id) == span.parent_id.as_ref());
        parent.map(Span::title)
    };
    let found: Vec<_> = trace
        .iter()
        .map(|span| (span.title(), span.kind, parent(span)))
        .collect();
    for (title, kind, of) in expected {
        let entry = (title.to_owned(), Some(kind), of.map(str::to_owned));
        assert!(found.contains(&entry), "no {entry:?} in {found:#?}");
    }
    check_attributes(&trace, &fetch);
    let stored = find(&trace, "INSERT objects").timestamp;
    let deleted = find(&trace, LAST);
    assert!(
        deleted.end() >= stored + 1_000_000,
        "deleted before its time"
    );
    pipeline.stop().await;
}

/// By OpenTelemetry's conventions.
fn check_attributes(trace: &[Span], fetch: &str) {
    let request = find(trace, "POST /callback");
    assert_eq!(request.tag("http.request.method"), "POST");
    assert_eq!(request.tag("http.route"), "/callback");
    assert_eq!(request.tag("http.response.status_code"), "202");
    let publish = find(trace, &format!("publish {fetch}"));
    assert_eq!(publish.tag("messaging.system"), "rabbitmq");
    assert_eq!(publish.tag("messaging.operation.type"), "send");
    assert_eq!(publish.tag("messaging.destination.name"), fetch);
    assert_eq!(
        publish.remote_endpoint.clone().unwrap().service_name,
        "rabbitmq"
    );
    let process = find(trace, &format!("process {fetch}"));
    assert_eq!(process.tag("messaging.operation.type"), "process");
    let look_up = find(trace, "GET /objects/{id}");
    assert_eq!(look_up.tag("http.response.status_code"), "200");
    assert_eq!(look_up.tag("url.template"), "/objects/{id}");
    assert!(look_up.tag("url.full").starts_with("http://127.0.0.1:"));
    let insert = find(trace, "INSERT objects");
    assert_eq!(insert.tag("db.system.name"), "postgresql");
    assert_eq!(insert.tag("pipeline.rows"), "1");
    assert_eq!(
        insert.remote_endpoint.clone().unwrap().service_name,
        "postgresql"
    );
    for span in trace {
        assert_eq!(span.tag("error.type"), "", "{span:#?}");
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_a_request_comes_with_is_continued_to_the_client_service() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let pipeline = Pipeline::start(world, &client, &[], &[]).await;
    let b3 = "4bf92f3577b34da6a3ce929d0e0e4799-00f067aa0ba902b7-1";
    let vendor = "vendor=value";
    post_ids_with(
        pipeline.address,
        &[("traceparent", PARENT), ("tracestate", vendor)],
        &[2],
    )
    .await;
    post_ids_with(pipeline.address, &[("b3", b3)], &[4]).await;
    // Each process sends its spans when it comes to it.
    let names = ["POST /callback", "GET /objects/{id}", LAST];
    let traces = pipeline.collector.until_traces_with(2, &names).await;
    for (trace, id) in traces.iter().zip([2, 4]) {
        let begun = find(trace, "POST /callback");
        assert_eq!(begun.parent_id.as_deref(), Some("00f067aa0ba902b7"));
        let headers = client.headers(id).remove(0);
        let look_up = find(trace, "GET /objects/{id}");
        let parent = format!("00-{}-{}-01", look_up.trace_id, look_up.id);
        assert_eq!(headers["traceparent"], parent);
        assert_eq!(
            headers["b3"],
            format!("{}-{}-1", look_up.trace_id, look_up.id)
        );
    }
    assert_eq!(traces[0][0].trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(traces[1][0].trace_id, "4bf92f3577b34da6a3ce929d0e0e4799");
    assert_eq!(client.headers(2)[0]["tracestate"], vendor);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_in_the_trace_of_each_callback_and_links_them() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let flags = ["--write-linger=20s", "--write-batch=3"];
    let pipeline = Pipeline::start(world, &client, &[], &flags).await;
    client.hold();
    for id in [2, 4, 6] {
        post_ids(pipeline.address, &[id]).await;
    }
    client.until_in_flight(3).await;
    client.release();
    let names = ["INSERT objects", LAST];
    let traces = pipeline.collector.until_traces_with(3, &names).await;
    for name in names {
        let spans: Vec<_> = traces.iter().map(|trace| find(trace, name)).collect();
        for span in &spans {
            assert_eq!(span.tag("pipeline.rows"), "3", "{span:#?}");
        }
        let (first, others): (Vec<_>, Vec<_>) = spans
            .into_iter()
            .partition(|span| span.tag("otel.links").contains(','));
        assert_eq!((first.len(), others.len()), (1, 2));
        for other in others {
            assert_eq!(
                other.tag("otel.links"),
                format!("{}/{}", first[0].trace_id, first[0].id)
            );
            assert!(first[0].tag("otel.links").contains(&other.trace_id));
        }
    }
    pipeline.stop().await;
}

/// It waits for that of another id, so that it is not sent when the second callback comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_two_callbacks_share_is_linked_to_by_the_second() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let flags = ["--fetch-concurrency=1"];
    let pipeline = Pipeline::start(world, &client, &[], &flags).await;
    client.hold();
    post_ids(pipeline.address, &[4]).await;
    client.until_in_flight(1).await;
    for _ in 0..2 {
        post_ids(pipeline.address, &[2]).await;
    }
    let admin = pipeline.fetcher.address_in_log("starting").await;
    eventually("all three to be at work", async || {
        let metrics = exchange(admin, b"GET /metrics HTTP/1.0\r\n\r\n").await;
        let taken = metrics
            .lines()
            .any(|line| line == "callback_pipeline_consumer_lag_seconds_count 3");
        taken.then_some(())
    })
    .await;
    client.release();
    let joined = pipeline
        .collector
        .until_traces_with(1, &["join GET /objects/{id}", LAST])
        .await;
    let join = find(&joined[0], "join GET /objects/{id}");
    let traces = pipeline.collector.until_traces_with(3, &[LAST]).await;
    let others = traces.iter().map(|trace| &trace[0].trace_id);
    let mut others = others.filter(|id| **id != join.trace_id);
    assert!(
        others.any(|id| join.tag("otel.links").contains(id)),
        "{join:#?}"
    );
    assert_eq!(client.look_ups(2).len(), 1);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_look_up_is_marked_and_its_retry_is_in_the_same_trace() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, n| match (id, n) {
        (2, 1) => Reply::Status(500, None),
        (6, _) => Reply::Status(403, None),
        _ => Reply::Online,
    })
    .await;
    let pipeline = Pipeline::start(world, &client, &[], &[]).await;
    // Another one's answer says that the client service works, and that the failure is the id's.
    post_ids(pipeline.address, &[2, 4, 6]).await;
    let stored_and_deleted = [("INSERT objects", 2), ("objects.delete", 2)];
    let trace = pipeline.collector.until_whole(&stored_and_deleted).await;
    let failed: Vec<_> = trace
        .iter()
        .filter(|span| span.tags.contains_key("error"))
        .collect();
    let mut kinds: Vec<_> = failed
        .iter()
        .map(|span| (&*span.name, span.tag("error.type")))
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [("GET /objects/{id}", "403"), ("GET /objects/{id}", "500")]
    );
    for queue in ["objects.retry.50", "objects.dead"] {
        let published =
            |span: &&Span| span.name.starts_with("publish ") && span.name.ends_with(queue);
        assert_eq!(
            trace.iter().filter(published).count(),
            1,
            "{:#?}",
            titles(&trace)
        );
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_waited_in_the_spool_keeps_its_trace() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let (proxy, flag) = world.broker_proxy().await;
    proxy.set(Network::Cut);
    // What is published once more is deleted once more.
    let flags = [&flag, "--broker-timeout=30s"];
    let pipeline = Pipeline::start(world, &client, &flags, &[]).await;
    post_ids(pipeline.address, &[2]).await;
    pipeline
        .collector
        .until_traces_with(1, &["append spool"])
        .await;
    proxy.set(Network::Pass);
    let trace = pipeline
        .collector
        .until_whole(&[("append spool", 1), (LAST, 1)])
        .await;
    let spooled = find(&trace, "append spool");
    let publish = format!(
        "publish {}",
        destination(&world.broker.topology, Queue::Fetch)
    );
    assert_eq!(find(&trace, &publish).parent_id.as_ref(), Some(&spooled.id));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_adds_one_failed_attempt_to_a_trace() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let mut pipeline = Pipeline::start(world, &client, &[], &[]).await;
    let (proxy, url) = proxied(&world.database.url).await;
    pipeline.fetcher.address_in_log("starting").await;
    pipeline.fetcher.stop().await;
    pipeline.fetcher.set_flag("database-url", &url);
    pipeline.fetcher.start();
    post_ids(pipeline.address, &[2]).await;
    // Only then it is certain that the fetcher has been told of its row.
    pipeline.collector.until_traces_with(1, &[LAST]).await;
    proxy.set(Network::Cut);
    let before = proxy.accepted();
    post_ids(pipeline.address, &[4]).await;
    let tried =
        async || (client.look_ups(4).len() == 1 && proxy.accepted() > before + 5).then_some(());
    eventually("several attempts", tried).await;
    proxy.set(Network::Pass);
    // The fetcher sends its spans in the order in which they ended: the attempts come before this one.
    let armed = format!("publish {}", delay(&world.broker.topology));
    let names = [&*armed, LAST];
    let traces = pipeline.collector.until_traces_with(2, &names).await;
    let attempts = |trace: &[Span]| -> Vec<bool> {
        let attempts = trace.iter().filter(|span| span.name == "INSERT objects");
        attempts
            .map(|span| span.tags.contains_key("error"))
            .collect()
    };
    assert_eq!(attempts(&traces[0]), [false]);
    assert_eq!(attempts(&traces[1]), [true, false]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_sent_before_a_process_ends() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let mut pipeline = Pipeline::start(world, &client, &[], &[]).await;
    post_ids(pipeline.address, &[3]).await;
    pipeline.ingest.stop().await;
    let spans = pipeline.collector.spans();
    assert!(
        spans.iter().any(|span| span.name == "POST /callback"),
        "{spans:#?}"
    );
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_ratio_0_only_requests_that_ask_for_it_are_recorded() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let flags = ["--trace-ratio=0", "--trust-traces=true"];
    let pipeline = Pipeline::start(world, &client, &flags, &[]).await;
    post_ids(pipeline.address, &[2]).await;
    world.database.until_ids(&[2]).await;
    let headers = client.headers(2).remove(0);
    let parent = headers["traceparent"].to_str().unwrap();
    assert!(parent.ends_with("-00"), "{parent}");
    post_ids_with(pipeline.address, &[("traceparent", PARENT)], &[4]).await;
    let traces = pipeline.collector.until_traces_with(1, &[LAST]).await;
    assert_eq!(pipeline.collector.traces().len(), 1);
    assert_eq!(traces[0][0].trace_id, &PARENT[3..35]);
    post_ids_with(pipeline.address, &[("b3", "1")], &[6]).await;
    let names = ["POST /callback", LAST];
    let traces = pipeline.collector.until_traces_with(2, &names).await;
    assert_eq!(find(&traces[1], "POST /callback").parent_id, None);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_have_more_recorded_than_the_ratio_says() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let mut pipeline = Pipeline::start(world, &client, &["--trace-ratio=0"], &[]).await;
    for (id, name, value) in [
        (2, "traceparent", PARENT),
        (4, "b3", "1"),
        (6, "x-b3-flags", "1"),
    ] {
        post_ids_with(pipeline.address, &[(name, value)], &[id]).await;
    }
    world.database.until_ids(&[2, 4, 6]).await;
    // The trace goes on, unrecorded.
    let headers = client.headers(2).remove(0);
    let parent = headers["traceparent"].to_str().unwrap();
    assert_eq!(parent[3..35], PARENT[3..35]);
    assert!(parent.ends_with("-00"), "{parent}");
    // What it had recorded would be sent before its end.
    pipeline.ingest.signal("TERM").await;
    assert_eq!(pipeline.ingest.end().await, Some(0));
    assert_eq!(pipeline.collector.spans().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_choose_ids_that_are_recorded() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let mut pipeline = Pipeline::start(world, &client, &["--trace-ratio=0.01"], &[]).await;
    for id in 1..=100 {
        // A sampler that looks at the id takes low ones.
        let parent = format!("00-{id:016x}{:016x}-00000000000000b7-01", 1);
        let header = [("traceparent", parent.as_str()), ("b3", "1")];
        post_ids_with(pipeline.address, &header[id % 2..=id % 2], &[1]).await;
    }
    pipeline.ingest.signal("TERM").await;
    assert_eq!(pipeline.ingest.end().await, Some(0));
    let recorded = pipeline.collector.traces().len();
    assert!(recorded < 20, "{recorded} of 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_name_the_trace() {
    let world = &mut World::new().await;
    let client = even_ones_are_online().await;
    let pipeline = Pipeline::start(
        world,
        &client,
        &["--trace-ratio=0", "--trust-traces=true"],
        &[],
    )
    .await;
    post_ids_with(pipeline.address, &[("traceparent", PARENT)], &[3]).await;
    let ids = format!(" trace_id={} span_id=", &PARENT[3..35]);
    eventually("the line of the request", async || {
        let log = pipeline.ingest.log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains(" request ") && line.contains(&ids))
            .then_some(())
    })
    .await;
    pipeline.stop().await;
}
