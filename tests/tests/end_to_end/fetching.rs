//! What becomes of the ids in the queue: `fetcher` against a client service that lies, stalls and fails.

use std::time::Duration;

use broker::{Delay, Headers, Queue};
use fetcher::delay_queue;
use messages::{DeleteBatch, FetchChunk, ObjectId, decode};
use serde_json::json;
use settings::Value;
use tests::client::{ClientService, Reply};
use tests::servers::broker::headers;
use tests::wait::eventually;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Delays so short that a test does not wait for them.
const FAST: &str = "--retry-delays=20ms,40ms";

fn chunk(ids: &[i64]) -> FetchChunk {
    FetchChunk {
        object_ids: ids.iter().copied().map(ObjectId).collect(),
    }
}

fn even_is_online(id: i64, _: usize) -> Reply {
    if id % 2 == 0 {
        Reply::Online
    } else {
        Reply::Offline
    }
}

async fn publish(world: &World, ids: &[i64]) {
    world
        .broker
        .publish(Queue::Fetch, &chunk(ids), &Headers::default())
        .await;
}

async fn until_worked_off(world: &World) {
    world.broker.until_ready(Queue::Fetch, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_online_objects_are_stored_whatever_their_id() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    world.fetcher(&client, &[]).await;
    publish(world, &[0, 1, -1, -2, i64::MIN, i64::MAX]).await;
    world.database.until_ids(&[i64::MIN, -2, 0]).await;
    eventually("all look-ups", async || (client.total() == 6).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_expires_its_ttl_after_it_was_last_seen() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    world.fetcher(&client, &["--object-ttl=90s"]).await;
    publish(world, &[2, 4, 6]).await;
    world.database.until_ids(&[2, 4, 6]).await;
    let others = "select count(*) from objects where expires_at - last_seen <> interval '90 s'";
    assert_eq!(world.database.number(others).await, 0);
    let skewed = "select count(*) from objects where last_seen not between now() - interval '1 min' and now()";
    assert_eq!(world.database.number(skewed).await, 0);
    assert_eq!(
        world
            .database
            .number("select count(*) from live_objects")
            .await,
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_is_armed_for_exactly_the_stored_rows() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    // Without a janitor the messages stay where they are dead-lettered to.
    world
        .fetcher(
            &client,
            &["--object-ttl=1ms", "--write-linger=20s", "--write-batch=2"],
        )
        .await;
    publish(world, &[1, 2, 3, 4]).await;
    let batch: DeleteBatch = decode(&world.broker.take(Queue::Delete).await.data).unwrap();
    assert_eq!(batch.object_ids, [ObjectId(2), ObjectId(4)]);
    let rows = "select count(*) from objects where last_seen = $1 and expires_at = $2";
    let rows: i64 = world
        .database
        .client
        .query_one(rows, &[&batch.last_seen, &batch.expires_at.unwrap()])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rows, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_gone_are_neither_stored_nor_asked_for_again() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| match id {
        1 => Reply::Status(404, None),
        2 => Reply::Status(410, None),
        _ => Reply::Online,
    })
    .await;
    let fetcher = world.fetcher(&client, &[FAST, "--fetch-prefetch=1"]).await;
    publish(world, &[1, 2, 3]).await;
    // Nothing is taken before all of that is settled.
    publish(world, &[4]).await;
    world.database.until_ids(&[3, 4]).await;
    // A stop in order finishes what is at work: from then on nothing more can happen.
    world.running(fetcher).stop().await;
    assert_eq!((client.look_ups(1).len(), client.look_ups(2).len()), (1, 1));
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_object_can_be_gone_and_is_asked_for_once() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| {
        if id % 2 == 0 {
            Reply::Online
        } else {
            Reply::Page(404)
        }
    })
    .await;
    let flags = ["--object-ttl=1h", "--fetch-prefetch=1"];
    let fetcher = world.fetcher(&client, &flags).await;
    // None of those that the client service is probed with.
    publish(world, &(100..200).collect::<Vec<_>>()).await;
    // Not taken before all of them are settled.
    publish(world, &[200]).await;
    let online: Vec<i64> = (100..=200).step_by(2).collect();
    world.database.until_ids(&online).await;
    world.running(fetcher).stop().await;
    for gone in (101..200).step_by(2) {
        assert_eq!(client.look_ups(gone).len(), 1, "id {gone}");
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_count_are_asked_for_again_until_they_do() {
    let world = &mut World::new().await;
    let oversized = format!(
        r#"{{"id":7,"online":true,"more":"{}"}}"#,
        "x".repeat(20_000)
    );
    let client = ClientService::start(move |id, n| match (id, n) {
        (_, 2..) | (0, _) => Reply::Online,
        (1, _) => Reply::Body(json!({ "id": 2, "online": true }).to_string()),
        (2, _) => Reply::Status(500, None),
        (3, _) => Reply::Status(429, None),
        (4, _) => Reply::Body("{\"id\":4,".to_owned()),
        (5, _) => Reply::Body(json!({ "id": 5 }).to_string()),
        (6, _) => Reply::Status(204, None),
        (7, _) => Reply::Body(oversized.clone()),
        (8, _) => Reply::Status(503, None),
        (9, _) => Reply::Body(json!({ "id": "9", "online": true }).to_string()),
        _ => Reply::Status(302, None),
    })
    .await;
    let ids: Vec<i64> = (1..=10).collect();
    world.fetcher(&client, &[FAST]).await;
    publish(world, &ids).await;
    world.database.until_ids(&ids).await;
    for id in ids {
        // More when it was probed with.
        assert!(client.look_ups(id).len() >= 2, "id {id}");
    }
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_without_an_answer_is_given_up_and_tried_again() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, n| match (id, n) {
        (1, 1) => Reply::Silence,
        _ => Reply::Online,
    })
    .await;
    world.fetcher(&client, &[FAST, "--fetch-timeout=5s"]).await;
    publish(world, &[1]).await;
    world.database.until_ids(&[1]).await;
    // More when it was probed with.
    assert!(client.look_ups(1).len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_keeps_failing_ends_among_the_dead_with_its_reason() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| {
        if id == 1 {
            Reply::Status(500, None)
        } else {
            Reply::Online
        }
    })
    .await;
    world.fetcher(&client, &[FAST, "--object-ttl=1h"]).await;
    publish(world, &[1, 2]).await;
    let dead = world.broker.take(Queue::Dead).await;
    assert_eq!(decode::<FetchChunk>(&dead.data).unwrap(), chunk(&[1]));
    assert_eq!(headers(&dead).reason.as_deref(), Some("status 500"));
    assert_eq!(headers(&dead).attempt.0.get(), 3);
    assert_eq!(client.look_ups(1).len(), 3);
    assert_eq!(world.database.ids().await, [2]);
    // The other one was not sent back with it, and so was stored once.
    let hour = delay_queue(<Delay as Value>::parse("1h").unwrap());
    world.broker.until_ready(hour, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_id_goes_to_the_dead_at_once_and_holds_up_no_other() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| {
        if id == 1 {
            Reply::Status(403, None)
        } else {
            Reply::Online
        }
    })
    .await;
    world.fetcher(&client, &[]).await;
    publish(world, &[1, 2, 3]).await;
    let dead = world.broker.take(Queue::Dead).await;
    assert_eq!(decode::<FetchChunk>(&dead.data).unwrap(), chunk(&[1]));
    assert_eq!(headers(&dead).reason.as_deref(), Some("status 403"));
    world.database.until_ids(&[2, 3]).await;
    assert_eq!(client.look_ups(1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_service_that_asks_for_rest_is_left_alone() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, n| {
        if n == 1 {
            Reply::Status(429, Some("1"))
        } else {
            Reply::Online
        }
    })
    .await;
    world
        .fetcher(&client, &["--retry-delays=20ms,1100ms"])
        .await;
    publish(world, &[1]).await;
    world.database.until_ids(&[1]).await;
    let times = client.look_ups(1);
    assert_eq!(times.len(), 2);
    assert!(
        times[1] - times[0] >= Duration::from_secs(1),
        "{:?}",
        times[1] - times[0]
    );
}

/// Offline when it is asked for first, online from then on.
fn comes_online(_: i64, n: usize) -> Reply {
    if n == 1 {
        Reply::Offline
    } else {
        Reply::Online
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_online_during_its_look_up_is_found_for_the_next_callback() {
    let world = &mut World::new().await;
    let client = ClientService::start(comes_online).await;
    world.fetcher(&client, &[]).await;
    client.hold();
    publish(world, &[2]).await;
    client.until_in_flight(1).await;
    publish(world, &[2, 10]).await;
    client.until_in_flight(2).await;
    client.release();
    world.database.until_ids(&[2]).await;
    until_worked_off(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_come_during_a_look_up_share_one_more() {
    let world = &mut World::new().await;
    let client = ClientService::start(comes_online).await;
    let fetcher = world.fetcher(&client, &[]).await;
    client.hold();
    for other in [10, 20, 30] {
        publish(world, &[2, other]).await;
    }
    client.until_in_flight(4).await;
    client.release();
    world.database.until_ids(&[2]).await;
    world.running(fetcher).stop().await;
    assert_eq!(client.look_ups(2).len(), 2);
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

/// Leads to `upstream`, and closes each connection when a second request comes on it: in order, or
/// with a reset.
async fn closing_at_the_second_request(upstream: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for nth in 0.. {
            let (downstream, _) = listener.accept().await.unwrap();
            tokio::spawn(pass_one(downstream, upstream.clone(), nth % 2 == 0));
        }
    });
    url
}

async fn pass_one(mut downstream: TcpStream, upstream: String, with_reset: bool) {
    let mut buffer = vec![0; 4_096];
    let read = downstream.read(&mut buffer).await.unwrap_or(0);
    if read == 0 {
        return;
    }
    let mut upstream = TcpStream::connect(upstream).await.unwrap();
    upstream.write_all(&buffer[..read]).await.unwrap();
    let read = upstream.read(&mut buffer).await.unwrap();
    downstream.write_all(&buffer[..read]).await.unwrap();
    let second = downstream.read(&mut buffer).await;
    if with_reset && second.is_ok() {
        downstream.set_zero_linger().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_meets_the_end_of_its_connection_is_sent_again_at_once() {
    let world = &mut World::new().await;
    let mut client = ClientService::start(|_, _| Reply::Online).await;
    let upstream = client.url.replace("http://", "");
    client.url = closing_at_the_second_request(upstream).await;
    // One after the other, so that connections are used again.
    let flags = ["--fetch-concurrency=1", "--retry-delays=1h"];
    world.fetcher(&client, &flags).await;
    let ids: Vec<i64> = (1..=20).collect();
    publish(world, &ids).await;
    world.database.until_ids(&ids).await;
    until_worked_off(world).await;
}

/// Thousands of connections at once are refused by many a server, and nothing is known of this one.
#[tokio::test(flavor = "multi_thread")]
async fn look_ups_begin_with_a_modest_number_in_flight() {
    const BEGIN: usize = 64;
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    world.fetcher(&client, &["--object-ttl=1h"]).await;
    let ids: Vec<i64> = (0..1_500).collect();
    for ids in ids.chunks(50) {
        publish(world, ids).await;
    }
    client.until_in_flight(BEGIN).await;
    // The first ones say how long a look-up takes. From then on each answer allows one more than it ends.
    client.let_through(BEGIN);
    eventually("all to be answered", async || {
        (client.total() == 2 * BEGIN).then_some(())
    })
    .await;
    assert_eq!(client.most_in_flight(), BEGIN);
    client.release();
    world.database.until_ids(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_in_flight_are_bounded() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    world.fetcher(&client, &["--fetch-concurrency=3"]).await;
    client.hold();
    publish(world, &(0..40).collect::<Vec<_>>()).await;
    client.until_in_flight(3).await;
    client.release();
    world
        .database
        .until_ids(&(0..40).step_by(2).collect::<Vec<_>>())
        .await;
    assert_eq!(client.most_in_flight(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_goes_to_the_dead_and_the_next_is_worked_on() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    world.fetcher(&client, &[]).await;
    for body in [
        &b"\xff\xfe nonsense"[..],
        br#"{"version":99,"object_ids":[1]}"#,
    ] {
        world
            .broker
            .publish_bytes(Queue::Fetch, body, &Headers::default())
            .await;
        let dead = world.broker.take(Queue::Dead).await;
        assert_eq!(dead.data, body);
        assert!(headers(&dead).reason.unwrap().contains("fetch_chunk"));
    }
    publish(world, &[2]).await;
    world.database.until_ids(&[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twice_changes_nothing() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    let fetcher = world.fetcher(&client, &[]).await;
    for _ in 0..2 {
        publish(world, &[2, 3, 4]).await;
        until_worked_off(world).await;
    }
    world.database.until_ids(&[2, 4]).await;
    world.running(fetcher).stop().await;
    assert_eq!(world.database.ids().await, [2, 4]);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acked_only_when_its_rows_are_stored() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    let fetcher = world.fetcher(&client, &["--database-timeout=1s"]).await;
    let lock = "begin; lock table objects in access exclusive mode";
    world.database.client.batch_execute(lock).await.unwrap();
    publish(world, &[2]).await;
    eventually("the look-up", async || (client.total() == 1).then_some(())).await;
    eventually("the statement to wait for the lock", async || {
        let waiting =
            "select count(*) from pg_locks where not granted and relation = 'objects'::regclass";
        (world.database.number(waiting).await > 0).then_some(())
    })
    .await;
    world.running(fetcher).kill().await;
    world.broker.until_ready(Queue::Fetch, 1).await;
    world
        .database
        .client
        .batch_execute("rollback")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetcher_loses_nothing() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    let first = world.fetcher(&client, &[]).await;
    client.hold();
    for start in [0, 100, 200] {
        publish(world, &(start..start + 20).collect::<Vec<_>>()).await;
    }
    client.until_in_flight(60).await;
    world.running(first).kill().await;
    client.release();
    world.fetcher(&client, &[]).await;
    let expected: Vec<i64> = [0, 100, 200]
        .into_iter()
        .flat_map(|start| (start..start + 20).step_by(2))
        .collect();
    world.database.until_ids(&expected).await;
    until_worked_off(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_fetcher_returns_what_it_cannot_finish() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| {
        if id == 1 {
            Reply::Silence
        } else {
            Reply::Online
        }
    })
    .await;
    let fetcher = world.fetcher(&client, &["--shutdown-timeout=1s"]).await;
    publish(world, &[1, 2]).await;
    world.database.until_ids(&[2]).await;
    world.running(fetcher).stop().await;
    world.broker.until_ready(Queue::Fetch, 1).await;
    assert_eq!(
        decode::<FetchChunk>(&world.broker.take(Queue::Fetch).await.data).unwrap(),
        chunk(&[1, 2])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetchers_on_overlapping_ids_do_not_deadlock() {
    const ROUNDS: u64 = 60;
    const IDS: u64 = 200;
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let flags = ["--write-linger=20ms", "--object-ttl=1h"];
    let fetchers = [
        world.fetcher(&client, &flags).await,
        world.fetcher(&client, &flags).await,
    ];
    for round in 0..ROUNDS {
        // The same ids, each time in another order.
        let shuffled: Vec<i64> = (0..IDS)
            .map(|n| ((n * 37 + round * 101) % IDS).cast_signed())
            .collect();
        publish(world, &shuffled).await;
    }
    // What a fetcher that stops has not taken goes to the other one, which takes it before anything
    // that is published later.
    let mut expected: Vec<i64> = (0..IDS.cast_signed()).collect();
    for fetcher in fetchers {
        let last = expected.len().try_into().unwrap();
        publish(world, &[last]).await;
        expected.push(last);
        world.database.until_ids(&expected).await;
        world.running(fetcher).stop().await;
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(world.database.number(deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    world.fetcher(&client, &[]).await;
    delete_queue(world, Queue::Fetch).await;
    eventually("a chunk to arrive", async || {
        publish(world, &[2]).await;
        (world.database.ids().await == [2]).then_some(())
    })
    .await;
}

/// It has no consumer that would be told that it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_delay_queue_is_declared_again() {
    let world = &mut World::new().await;
    let client = ClientService::start(even_is_online).await;
    world.fetcher(&client, &["--object-ttl=1h"]).await;
    let hour = delay_queue(<Delay as Value>::parse("1h").unwrap());
    delete_queue(world, hour).await;
    eventually("a deletion to be armed", async || {
        publish(world, &[2]).await;
        (world.broker.ready(hour).await > 0).then_some(())
    })
    .await;
}

/// Deletes a queue and waits until it is back. It is bound a moment after that: what is published
/// in between is kept as unroutable, so that callers publish more than once.
async fn delete_queue(world: &World, queue: Queue) {
    let name = world.broker.topology.name(queue);
    world.broker.delete(&name).await;
    eventually("the queue to be back", async || {
        world.broker.exists(&name).await.then_some(())
    })
    .await;
}
