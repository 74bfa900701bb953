//! The command `dead-letters`, as an operator gives it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::process::Output;
use std::time::Duration;

use broker::{Attempt, Delay, Headers, Queue};
use messages::{DeleteBatch, FetchChunk, ObjectId, decode};
use serde_json::{Value, json};
use tests::client::{ClientService, Reply};
use tests::processes::{Process, output};
use tests::proxy::Network;
use tests::servers::broker::headers;
use tests::wait::eventually;
use tests::world::World;
use time::OffsetDateTime;

async fn dead_letters(world: &World, arguments: &[&str]) -> Output {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    let all: Vec<String> = world.broker_flags().into_iter().chain(arguments).collect();
    output("dead-letters", &all, &[]).await
}

/// What the command answers as JSON, when it succeeds.
async fn answer(world: &World, arguments: &[&str]) -> Value {
    let json = [arguments, &["--json"]].concat();
    let output = dead_letters(world, &json).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn chunk(ids: &[i64]) -> FetchChunk {
    FetchChunk {
        object_ids: ids.iter().copied().map(ObjectId).collect(),
    }
}

fn died(attempt: u32, reason: &str) -> Headers {
    Headers {
        attempt: Attempt(NonZeroU32::new(attempt).unwrap()),
        reason: Some(reason.to_owned()),
        ..Headers::default()
    }
}

/// Two messages that died of one thing, one that died of another, and one whose rows were to go.
async fn fill(world: &World) {
    world.broker.declare().await;
    let chunks = [
        (chunk(&[1, 2]), died(5, "status 500")),
        (chunk(&[3]), died(5, "status 500")),
        (chunk(&[4]), died(1, "status 403")),
    ];
    world.broker.publish_many(Queue::Dead, &chunks).await;
    let batch = DeleteBatch {
        last_seen: OffsetDateTime::UNIX_EPOCH,
        expires_at: None,
        object_ids: vec![ObjectId(9)],
    };
    let batches = [(batch, died(1, "a panic"))];
    world.broker.publish_many(Queue::Dead, &batches).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_counts_by_reason_and_leaves_everything_as_it_was() {
    let world = &mut World::new().await;
    fill(world).await;
    for _ in 0..2 {
        let listing = answer(world, &["list"]).await;
        assert_eq!(listing["held"], 4);
        assert_eq!(listing["chosen"]["ids"], 5);
        let reasons = listing["reasons"].as_array().unwrap();
        let row = |reason: &str| {
            let row = reasons.iter().find(|row| row["reason"] == reason).unwrap();
            json!([row["kind"], row["attempt"], row["messages"], row["ids"]])
        };
        assert_eq!(row("status 500"), json!(["fetch_chunk", 5, 2, 3]));
        assert_eq!(row("status 403"), json!(["fetch_chunk", 1, 1, 1]));
        assert_eq!(row("a panic"), json!(["delete_batch", 1, 1, 1]));
        assert_eq!(reasons.len(), 3);
        assert_eq!(listing["oldest"][0]["object_ids"], json!([1, 2]));
        world.broker.until_ready(Queue::Dead, 4).await;
    }
    for (ids, died) in [
        (&[1, 2][..], died(5, "status 500")),
        (&[3], died(5, "status 500")),
    ] {
        let message = world.broker.take(Queue::Dead).await;
        assert_eq!(decode::<FetchChunk>(&message.data).unwrap(), chunk(ids));
        assert_eq!(headers(&message), died);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_for_people_has_the_same_and_nothing_that_moves_the_cursor() {
    let world = &mut World::new().await;
    fill(world).await;
    let many: Vec<i64> = (100..150).collect();
    let odd = [(chunk(&many), died(2, "odd \u{1b}[2J"))];
    world.broker.publish_many(Queue::Dead, &odd).await;
    let output = dead_letters(world, &["list"]).await;
    let shown = String::from_utf8(output.stdout).unwrap();
    let words: Vec<String> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let has = |line: &str| words.iter().any(|words| words == line);
    assert!(has("2 3 5 fetch_chunk - - status 500"), "{shown}");
    assert!(has("1 delete_batch - 9 a panic"), "{shown}");
    let shortened = r"2 fetch_chunk - 100, 101, 102, 103, 104 and 45 more odd \u{1b}[2J";
    assert!(has(shortened), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_dead_lettered_has_its_reason() {
    let world = &mut World::new().await;
    world.broker.declare().await;
    world
        .broker
        .publish(Queue::Fetch, &chunk(&[1]), &died(3, "status 500"))
        .await;
    world.broker.reject(Queue::Fetch).await;
    world.broker.until_ready(Queue::Dead, 1).await;
    let listing = answer(world, &["list"]).await;
    let reason = listing["reasons"][0]["reason"].as_str().unwrap();
    let queue = world.broker.topology.name(Queue::Fetch);
    assert_eq!(reason, format!("rejected in {queue}"));
    assert!(listing["chosen"]["oldest"].is_string(), "{listing}");
    // What was listed comes back a moment after the list.
    world.broker.until_ready(Queue::Dead, 1).await;
    assert_eq!(answer(world, &["replay"]).await["replayed"], 1);
    let message = world.broker.take(Queue::Fetch).await;
    assert_eq!(headers(&message), Headers::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_everything_makes_rows() {
    let world = &mut World::new().await;
    fill(world).await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    world.fetcher(&client, &[]).await;
    let replayed = answer(world, &["replay"]).await;
    assert_eq!(replayed["replayed"], 4);
    assert_eq!(replayed["left"], 0);
    world.database.until_ids(&[1, 2, 3, 4]).await;
    world.broker.until_ready(Queue::Delete, 1).await;
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_by_reason_leaves_the_others() {
    let world = &mut World::new().await;
    fill(world).await;
    let replayed = answer(world, &["replay", "--reason=500"]).await;
    assert_eq!(replayed["replayed"], 2);
    assert_eq!(replayed["left"], 2);
    for ids in [&[1, 2][..], &[3]] {
        let message = world.broker.take(Queue::Fetch).await;
        assert_eq!(decode::<FetchChunk>(&message.data).unwrap(), chunk(ids));
        assert_eq!(headers(&message), Headers::default());
    }
    world.broker.until_ready(Queue::Dead, 2).await;
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_by_id_takes_the_messages_with_that_id_whole() {
    let world = &mut World::new().await;
    fill(world).await;
    let negative = [(chunk(&[-7]), died(5, "status 500"))];
    world.broker.publish_many(Queue::Dead, &negative).await;
    let arguments = ["replay", "--id", "2", "--id", "-7", "--kind=fetch_chunk"];
    assert_eq!(answer(world, &arguments).await["replayed"], 2);
    let message = world.broker.take(Queue::Fetch).await;
    assert_eq!(decode::<FetchChunk>(&message.data).unwrap(), chunk(&[1, 2]));
    world.broker.until_ready(Queue::Dead, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_takes_no_more_than_its_limit() {
    let world = &mut World::new().await;
    fill(world).await;
    assert_eq!(answer(world, &["replay", "--limit=1"]).await["replayed"], 1);
    world.broker.until_ready(Queue::Dead, 3).await;
    world.broker.until_ready(Queue::Fetch, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_poison_message_is_parked_again_and_the_replay_ends() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    world.fetcher(&client, &[]).await;
    for body in [&b"not json"[..], b"{}"] {
        world
            .broker
            .publish_bytes(Queue::Fetch, body, &Headers::default())
            .await;
    }
    world.broker.until_ready(Queue::Dead, 2).await;
    for _ in 0..2 {
        assert_eq!(answer(world, &["replay"]).await["replayed"], 2);
        world.broker.until_ready(Queue::Dead, 2).await;
    }
    let listing = answer(world, &["list", "--reason=unreadable fetch_chunk"]).await;
    assert_eq!(listing["chosen"]["messages"], 2);
    assert!(listing["chosen"]["oldest"].is_string(), "{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_an_unknown_kind_stays_and_is_reported() {
    let world = &mut World::new().await;
    fill(world).await;
    world
        .broker
        .publish_bytes(Queue::Dead, b"what is this?", &Headers::default())
        .await;
    // Published by hand, without its type: it can be read, so it is known.
    world
        .broker
        .publish(Queue::Dead, &chunk(&[5]), &Headers::default())
        .await;
    let replayed = answer(world, &["replay"]).await;
    assert_eq!(replayed["replayed"], 5);
    assert_eq!(replayed["left_for_no_known_queue"], 1);
    world.broker.until_ready(Queue::Dead, 1).await;
    let listing = answer(world, &["list", "--kind=unknown"]).await;
    assert_eq!(listing["reasons"][0]["reason"], "none given");
    world.broker.until_ready(Queue::Dead, 1).await;
    let purged = answer(world, &["purge", "--kind=unknown", "--yes"]).await;
    assert_eq!(purged["deleted"], 1);
    world.broker.until_ready(Queue::Dead, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_message_is_replayed_as_it_was() {
    let world = &mut World::new().await;
    world.broker.declare().await;
    let hour = Queue::Retry(<Delay as settings::Value>::parse("1h").unwrap());
    world.will_use(&world.broker.topology.clone().with([hour]));
    let fetch = world.broker.topology.name(Queue::Fetch);
    world.broker.delete(&fetch).await;
    let headers_of = died(2, "status 503");
    let lost = [(chunk(&[1]), headers_of.clone())];
    world.broker.publish_many(Queue::Fetch, &lost).await;
    world.broker.publish_many(hour, &lost).await;
    let listing = answer(world, &["list", "--queue=unroutable"]).await;
    let reasons: BTreeSet<&str> = listing["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["reason"].as_str().unwrap())
        .collect();
    let expected = [Queue::Fetch, hour].map(|queue| {
        let name = world.broker.topology.name(queue);
        format!("no queue {name}")
    });
    assert_eq!(reasons, expected.iter().map(String::as_str).collect());
    world.broker.until_ready(Queue::Unroutable, 2).await;

    let replayed = answer(world, &["replay", "--queue=unroutable"]).await;
    assert_eq!(replayed["replayed"], 2);
    for queue in [Queue::Fetch, hour] {
        let message = world.broker.take(queue).await;
        assert_eq!(decode::<FetchChunk>(&message.data).unwrap(), chunk(&[1]));
        assert_eq!(headers(&message), headers_of);
    }
    assert_eq!(world.broker.ready(Queue::Unroutable).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_loses_nothing() {
    const COUNT: i64 = 1_500;
    let world = &mut World::new().await;
    world.broker.declare().await;
    let messages: Vec<_> = (0..COUNT)
        .map(|id| (chunk(&[id]), died(5, "status 500")))
        .collect();
    world.broker.publish_many(Queue::Dead, &messages).await;
    // So slow that it is at work for seconds.
    let (proxy, by_way) = world.broker_proxy().await;
    proxy.set(Network::Slow(Duration::from_millis(20)));
    let mut arguments = world.broker_flags();
    arguments.extend([by_way, "replay".to_owned()]);
    let mut replay = Process::started("dead-letters", &arguments);
    eventually("the first replayed message", async || {
        (world.broker.ready(Queue::Fetch).await > 0).then_some(())
    })
    .await;
    replay.signal("KILL").await;
    assert_eq!(replay.end().await, None);

    let count = u32::try_from(COUNT).unwrap();
    let left = eventually("what it held to be back", async || {
        let dead = world.broker.ready(Queue::Dead).await;
        (dead + world.broker.ready(Queue::Fetch).await >= count).then_some(dead)
    })
    .await;
    assert!(left > 0, "it was killed too late");
    // What was replayed and not yet acknowledged comes back as well, whenever the broker notices.
    let mut ids = BTreeSet::new();
    let replayed = eventually("all messages to be replayed", async || {
        let replayed = answer(world, &["replay"]).await;
        while let Some(message) = world.broker.try_take(Queue::Fetch).await {
            ids.extend(decode::<FetchChunk>(&message.data).unwrap().object_ids);
        }
        (ids == (0..COUNT).map(ObjectId).collect()).then_some(replayed)
    })
    .await;
    assert_eq!(replayed["left"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_deletes_what_was_chosen_and_asks_for_a_yes() {
    let world = &mut World::new().await;
    fill(world).await;
    let refused = dead_letters(world, &["purge", "--reason=500"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--yes"));
    assert_eq!(world.broker.ready(Queue::Dead).await, 4);

    let purged = dead_letters(world, &["purge", "--reason=500", "--yes"]).await;
    let shown = String::from_utf8_lossy(&purged.stdout).into_owned();
    assert!(shown.contains("deleted 2 of 4 messages, 2 left"), "{shown}");
    world.broker.until_ready(Queue::Dead, 2).await;
    let listing = answer(world, &["list"]).await;
    assert!(!listing.to_string().contains("status 500"), "{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_listed_and_purged_to_the_message() {
    const COUNT: i64 = 5_000;
    let world = &mut World::new().await;
    world.broker.declare().await;
    let messages: Vec<_> = (0..COUNT)
        .map(|id| {
            let reason = if id % 2 == 0 {
                "even".to_owned()
            } else {
                format!("odd {}", id % 1_000)
            };
            (chunk(&[id]), died(1, &reason))
        })
        .collect();
    world.broker.publish_many(Queue::Dead, &messages).await;
    let listing = answer(world, &["list"]).await;
    assert_eq!(listing["chosen"]["messages"], COUNT);
    assert_eq!(listing["reasons"][0]["messages"], COUNT / 2);
    let told_apart = listing["reasons"].as_array().unwrap().len();
    assert!(told_apart < 100, "{told_apart} reasons");
    let row = |row: &Value| row["messages"].as_i64().unwrap();
    let rows: i64 = listing["reasons"].as_array().unwrap().iter().map(row).sum();
    assert_eq!(rows + row(&listing["others"]), COUNT);

    world.broker.until_ready(Queue::Dead, 5_000).await;
    // All of one page, so that nothing is asked of the broker between the acks and the end.
    let oldest = ["purge", "--limit=500", "--yes"];
    assert_eq!(answer(world, &oldest).await["deleted"], 500);
    world.broker.until_ready(Queue::Dead, 4_500).await;

    let purged = answer(world, &["purge", "--reason=odd", "--yes"]).await;
    assert_eq!(purged["deleted"], 2_250);
    world.broker.until_ready(Queue::Dead, 2_250).await;
    let listing = answer(world, &["list"]).await;
    assert_eq!(listing["chosen"]["messages"], 2_250);
    assert_eq!(listing["reasons"][0]["reason"], "even");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_and_settings_are_named() {
    let world = &mut World::new().await;
    for (arguments, named) in [
        (&["lists"][..], "list"),
        (&[], "<ACTION>"),
        (&["list", "--queue=fetch"], "unroutable"),
        (&["list", "--kind=chunk"], "fetch_chunk"),
        (&["replay", "--id=one"], "--id"),
        (&["replay", "--limit=-1"], "--limit"),
        (&["list", "--broker-timeout=soon"], "BROKER_TIMEOUT=soon"),
    ] {
        let output = dead_letters(world, arguments).await;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {shown}");
        assert!(shown.contains(named), "{arguments:?}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_is_a_clear_error() {
    let world = &mut World::new().await;
    let nowhere = ["list", "--amqp-url=amqp://nobody:hidden@127.0.0.1:1/%2f"];
    let output = dead_letters(world, &nowhere).await;
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("refused") && !shown.contains("hidden"),
        "{shown}"
    );

    let no_queue = dead_letters(world, &["list"]).await;
    let shown = String::from_utf8_lossy(&no_queue.stderr).into_owned();
    assert_eq!(no_queue.status.code(), Some(1), "{shown}");
    assert!(shown.contains("objects.dead"), "{shown}");
}
