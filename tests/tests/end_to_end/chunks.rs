//! How ids travel: how many of them a message has, and how many a fetcher takes.

use std::net::SocketAddr;

use broker::{Headers, Queue};
use futures::future::join_all;
use messages::{FetchChunk, ObjectId, decode};
use process::ask;
use tests::client::{ClientService, Exposition, Reply, post_ids, until_ready};
use tests::processes::address_in;
use tests::proxy::Network;
use tests::wait::eventually;
use tests::world::World;

use crate::binaries::started;

/// Publishes so many messages of so many ids, from 0 on.
async fn publish(world: &World, messages: i64, ids: i64) {
    publish_from(world, 0, messages, ids).await;
}

async fn publish_from(world: &World, first: i64, messages: i64, ids: i64) {
    let chunk = |number| {
        let ids = first + number * ids..first + (number + 1) * ids;
        let object_ids = ids.map(ObjectId).collect();
        (FetchChunk { object_ids }, Headers::default())
    };
    let chunks: Vec<_> = (0..messages).map(chunk).collect();
    world.broker.publish_many(Queue::Fetch, &chunks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_comes_alone_is_spread_in_small_chunks() {
    let world = &mut World::new().await;
    let ingest = world.ingest(&[]).await;
    for round in 0..3 {
        post_ids(
            ingest,
            &(200 * round..200 * (round + 1)).collect::<Vec<_>>(),
        )
        .await;
        for _ in 0..4 {
            let message = world.broker.take(Queue::Fetch).await;
            let chunk: FetchChunk = decode(&message.data).unwrap();
            assert_eq!(chunk.object_ids.len(), 50);
        }
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

/// The network to the broker hangs until all callbacks are there.
#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_come_together_become_few_messages() {
    const CALLBACKS: i64 = 20;
    // Four share the room as if they were alone, and each of the others is one message.
    const MESSAGES: u32 = 4 * 4 + 16;
    let world = &mut World::new().await;
    let (way, by_way) = world.broker_proxy().await;
    let flags = [
        by_way.as_str(),
        "--publish-timeout=1m",
        "--broker-timeout=1m",
    ];
    let mut process = started(world, "ingest", &flags).await;
    let admin = address_in(&process.lines[0]);
    let ingest = address_in(&process.until_logged("accepting callbacks").await);
    // The connection is in use before it hangs.
    until_ready(ingest).await;
    post_ids(ingest, &[-1]).await;
    world.broker.take(Queue::Fetch).await;
    way.set(Network::Hang);
    let post = |number: i64| async move {
        let ids: Vec<i64> = (200 * number..200 * (number + 1)).collect();
        post_ids(ingest, &ids).await;
    };
    let posting = join_all((0..CALLBACKS).map(post));
    let release = async {
        let what = format!("{MESSAGES} messages in flight");
        eventually(&what, async || {
            (in_flight(admin).await >= f64::from(MESSAGES)).then_some(())
        })
        .await;
        way.set(Network::Pass);
    };
    tokio::join!(posting, release);
    world.broker.until_ready(Queue::Fetch, MESSAGES).await;
}

/// The messages that `ingest` waits for the confirms of.
async fn in_flight(admin: SocketAddr) -> f64 {
    let (_, page) = ask(admin, "/metrics").await.unwrap();
    let metrics = Exposition::read(&String::from_utf8(page.into()).unwrap());
    metrics.sum("callback_pipeline_broker_confirms_in_flight", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_small_messages_are_taken_as_keep_the_look_ups_busy() {
    const MESSAGES: u32 = 200;
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    world.fetcher(&client, &["--fetch-concurrency=10"]).await;
    publish(world, MESSAGES.into(), 1).await;
    eventually("as many again to wait as are looked up", async || {
        (world.broker.ready(Queue::Fetch).await <= MESSAGES - 20).then_some(())
    })
    .await;
    // What is finished is replaced, and the others stay with the broker.
    for finished in 1..=5 {
        client.until_in_flight(10).await;
        client.let_through(10);
        let rows = 10 * finished;
        eventually("the rows", async || {
            let rows_now = world.database.number("select count(*) from objects").await;
            (rows_now == rows).then_some(())
        })
        .await;
        let gone = MESSAGES - world.broker.ready(Queue::Fetch).await;
        let taken = i64::from(gone) - rows;
        assert!(taken <= 40, "{taken} are at hand");
    }
    client.release();
    world.broker.until_ready(Queue::Fetch, 0).await;
    world
        .database
        .until_ids(&(0..MESSAGES.into()).collect::<Vec<_>>())
        .await;
    eventually("one consumer", async || {
        (world.broker.consumers(Queue::Fetch).await == 1).then_some(())
    })
    .await;
}

/// Consumers end while messages are on their way to them.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_become_larger_and_smaller_are_all_worked_on() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    world.fetcher(&client, &["--fetch-concurrency=10"]).await;
    for round in 0..3 {
        publish_from(world, 4_500 * round, 500, 1).await;
        publish_from(world, 4_500 * round + 500, 20, 200).await;
    }
    world
        .database
        .until_ids(&(0..13_500).collect::<Vec<_>>())
        .await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    assert_eq!(client.total(), 13_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_shared_evenly() {
    let world = &mut World::new().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = ClientService::start(|_, _| Reply::Online).await;
        client.hold();
        world.fetcher(&client, &["--fetch-concurrency=100"]).await;
        clients.push(client);
    }
    publish(world, 16, 500).await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    for client in &clients {
        client.release();
    }
    world
        .database
        .until_ids(&(0..8_000).collect::<Vec<_>>())
        .await;
    for client in &clients {
        assert_eq!(client.total(), 4_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_fetcher_leaves_large_messages_to_the_next_one() {
    let world = &mut World::new().await;
    let first = ClientService::start(|_, _| Reply::Online).await;
    let second = ClientService::start(|_, _| Reply::Online).await;
    first.hold();
    world.fetcher(&first, &["--fetch-concurrency=50"]).await;
    publish(world, 20, 500).await;
    first.until_in_flight(50).await;
    world.fetcher(&second, &["--fetch-concurrency=50"]).await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    let left: Vec<i64> = (4_000..10_000).collect();
    world.database.until_ids(&left).await;
    assert_eq!(second.total(), left.len());
    first.release();
    world
        .database
        .until_ids(&(0..10_000).collect::<Vec<_>>())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_looked_up_already_keep_no_message_waiting() {
    const IDS: i64 = 20;
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    world.fetcher(&client, &[]).await;
    let chunk = || {
        let object_ids = (0..IDS).map(ObjectId).collect();
        (FetchChunk { object_ids }, Headers::default())
    };
    let chunks: Vec<_> = std::iter::repeat_with(chunk).take(1_000).collect();
    world.broker.publish_many(Queue::Fetch, &chunks).await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    let ids = usize::try_from(IDS).unwrap();
    client.until_in_flight(ids).await;
    assert_eq!(client.total(), ids);

    client.release();
    world
        .database
        .until_ids(&(0..IDS).collect::<Vec<_>>())
        .await;
}
