//! Brokers that are silent, slow, far away, or not as they were left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker::{Attempt, Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tests::client::{ClientService, Reply, post_ids, until_ready};
use tests::processes::Process;
use tests::proxy::Network;
use tests::wait::eventually;
use tests::world::World;
use tokio::net::TcpListener;
use trace::TraceSet;

use super::binaries::flags;

/// Accepts connections and never says anything on them. Returns its address, and how many it has
/// accepted.
async fn mute_broker() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://x:y@{}/%2f", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (url, accepted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_and_says_nothing_costs_no_threads_and_no_sockets() {
    let world = &mut World::new().await;
    let (url, accepted) = mute_broker().await;
    for binary in ["ingest", "janitor"] {
        let mut flags = flags(world, binary);
        flags.extend([
            "--broker-timeout=100ms".to_owned(),
            format!("--amqp-url={url}"),
        ]);
        let process = Process::started(binary, &flags);
        let begin = accepted.load(Ordering::Relaxed);
        let until = async |count: usize| {
            let what = format!("{count} connections of {binary}");
            let enough = async || (accepted.load(Ordering::Relaxed) >= begin + count).then_some(());
            eventually(&what, enough).await;
            (process.threads(), process.open_descriptors())
        };
        let (threads, descriptors) = until(8).await;
        let (more_threads, more_descriptors) = until(40).await;
        assert!(
            more_threads <= threads + 3,
            "{binary}: {threads}, {more_threads}"
        );
        assert!(
            more_descriptors <= descriptors + 4,
            "{binary}: {descriptors}, {more_descriptors}"
        );
    }
}

/// A round trip takes 300 ms, and to declare the topology takes two dozen of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_far_away_is_connected_to() {
    let world = &mut World::new().await;
    let (proxy, amqp_url) = world.broker_proxy().await;
    proxy.set(Network::Slow(Duration::from_millis(150)));
    let flags = [amqp_url.as_str(), "--broker-timeout=3s"];
    let ingest = world.ingest(&flags).await;
    post_ids(ingest, &[1]).await;
    world.broker.until_ready(Queue::Fetch, 1).await;
}

/// Confirms come after 0.8 s, which is longer than a callback waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_confirms_late_gets_callbacks_once() {
    const CALLBACKS: u32 = 100;
    let world = &mut World::new().await;
    let (proxy, amqp_url) = world.broker_proxy().await;
    let flags = [amqp_url.as_str(), "--publish-timeout=500ms"];
    let ingest = world.ingest(&flags).await;
    proxy.set(Network::Slow(Duration::from_millis(400)));
    for id in 0..CALLBACKS {
        post_ids(ingest, &[id.into()]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.set(Network::Pass);
    let published = eventually("all callbacks at the broker", async || {
        let ready = world.broker.ready(Queue::Fetch).await;
        (ready >= CALLBACKS).then_some(ready)
    })
    .await;
    // One callback a second tries whether the broker is fast again.
    assert!(published <= CALLBACKS + 10, "{published}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_queue_of_an_earlier_version_is_used_as_it_is() {
    let world = &mut World::new().await;
    world.broker.declare_without_overflow(Queue::Dead).await;
    let mut process = Process::started("ingest", &flags(world, "ingest"));
    let line = process.until_logged("it is used as it is").await;
    assert!(
        line.contains("objects.dead") && line.contains("x-overflow"),
        "{line}"
    );
    process.until_logged("dependency is up").await;
}

fn chunk(ids: impl IntoIterator<Item = i64>) -> FetchChunk {
    FetchChunk {
        object_ids: ids.into_iter().map(ObjectId).collect(),
    }
}

fn first_try() -> Headers {
    Headers {
        attempt: Attempt::FIRST,
        reason: None,
        traces: TraceSet::default(),
        accepted_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_on_a_queue_that_is_deleted_is_finished() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    let ingest = world.ingest(&["--chunk-size=1", "--ids-limit=100"]).await;
    world.fetcher(&client, &["--fetch-prefetch=40"]).await;
    post_ids(ingest, &(0..20).collect::<Vec<_>>()).await;
    client.until_in_flight(20).await;
    let queue = world.broker.topology.name(Queue::Fetch);
    world.broker.delete(&queue).await;
    eventually("the queue to be declared again", async || {
        (world.broker.messages(&queue).await == Some(0)).then_some(())
    })
    .await;
    client.release();
    world.database.until_ids(&(0..20).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_cannot_be_finished_returns_to_a_queue_that_was_deleted() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    let ingest = world.ingest(&["--chunk-size=1", "--ids-limit=100"]).await;
    let fetcher = world.fetcher(&client, &["--fetch-concurrency=1"]).await;
    post_ids(ingest, &[1, 2, 3]).await;
    client.until_in_flight(1).await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    let queue = world.broker.topology.name(Queue::Fetch);
    world.broker.delete(&queue).await;
    eventually("another consumer", async || {
        let exists = world.broker.messages(&queue).await.is_some();
        (exists && world.broker.consumers(Queue::Fetch).await == 1).then_some(())
    })
    .await;
    // What waits for a look-up is given up, and has to be somewhere.
    let stopping = world.running(fetcher).stop();
    client.release();
    stopping.await;
    world.fetcher(&client, &[]).await;
    world.database.until_ids(&[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_too_many_ids_is_refused() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    world.fetcher(&client, &[]).await;
    for count in [10_001, 600_000] {
        world
            .broker
            .publish(Queue::Fetch, &chunk(0..count), &first_try())
            .await;
        let refused = world.broker.take(Queue::Dead).await;
        let reason = tests::servers::broker::headers(&refused).reason.unwrap();
        assert!(
            reason.contains("more than") || reason.contains("longer than"),
            "{reason}"
        );
    }
    world
        .broker
        .publish(Queue::Fetch, &chunk([-1]), &first_try())
        .await;
    world.database.until_ids(&[-1]).await;
}

/// What finds no queue tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_without_its_bindings_has_them_again() {
    let world = &mut World::new().await;
    let ingest = world.ingest(&[]).await;
    world.broker.unbind(Queue::Fetch).await;
    post_ids(ingest, &[1]).await;
    world.broker.until_ready(Queue::Unroutable, 1).await;
    eventually("a callback in its queue", async || {
        post_ids(ingest, &[2]).await;
        (world.broker.ready(Queue::Fetch).await > 0).then_some(())
    })
    .await;
    until_ready(ingest).await;
}

/// The huge one needs 500 rounds of look-ups.
#[tokio::test(flavor = "multi_thread")]
async fn small_callbacks_do_not_wait_behind_huge_ones() {
    const HUGE: i64 = 10_000;
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    let ingest = world.ingest(&["--bulk-ids=1000"]).await;
    world.fetcher(&client, &["--fetch-concurrency=20"]).await;
    let stored = async |query: &str| world.database.number(query).await;
    post_ids(ingest, &(1..=HUGE).collect::<Vec<_>>()).await;
    client.until_in_flight(20).await;
    let small: Vec<i64> = (1..=20).map(|id| -id).collect();
    post_ids(ingest, &small).await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    for _ in 0..20 {
        client.let_through(20);
        client.until_in_flight(20).await;
    }
    eventually("the small callback's rows", async || {
        (stored("select count(*) from objects where id < 0").await == 20).then_some(())
    })
    .await;
    let before = stored("select count(*) from objects where id > 0").await;
    assert!(before <= 400, "{before} rows of the huge one came before");
    client.release();
    let all = "select count(*) from objects";
    eventually("all rows", async || {
        (stored(all).await == HUGE + 20).then_some(())
    })
    .await;
}
