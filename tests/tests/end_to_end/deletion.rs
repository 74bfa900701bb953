//! Rows go exactly when they expire: `janitor` and the delay queue.

use std::time::Duration;

use shared::messages::{DeleteBatch, FetchChunk, Headers, ObjectId};
use shared::topology::Queue;
use tests::client_service::{ClientService, Reply};
use tests::wait::eventually;
use tests::world::World;
use time::OffsetDateTime;

tests::tests![
    rows_vanish_when_they_expire_and_never_early,
    an_object_seen_again_before_it_expires_stays,
    a_stale_a_reordered_and_a_repeated_message_change_nothing,
    a_message_that_comes_early_waits_for_its_rows,
    a_janitor_that_was_away_catches_up,
    the_sweep_deletes_what_no_message_covers,
    a_row_that_has_expired_is_hidden_from_readers_before_it_is_deleted,
    an_unreadable_delete_message_goes_to_the_dead,
];

fn ids(range: std::ops::Range<i64>) -> Vec<ObjectId> {
    range.map(ObjectId).collect()
}

async fn publish(world: &World, range: std::ops::Range<i64>) {
    let chunk = FetchChunk {
        object_ids: ids(range),
    };
    world
        .broker
        .publish(Queue::Fetch, &chunk, &Headers::default())
        .await;
}

/// Inserts rows that were seen just now, and returns when.
async fn insert(world: &World, range: std::ops::Range<i64>, ttl: &str) -> OffsetDateTime {
    let insert = "insert into objects select id, now(), now() + $3::text::interval
                  from generate_series($1::bigint, $2::bigint) as id returning last_seen";
    let rows = world
        .database
        .client
        .query(insert, &[&range.start, &(range.end - 1), &ttl])
        .await
        .unwrap();
    rows[0].get(0)
}

async fn arm(world: &World, last_seen: OffsetDateTime, range: std::ops::Range<i64>) {
    let batch = DeleteBatch {
        last_seen,
        object_ids: ids(range),
    };
    world
        .broker
        .publish(Queue::Delete, &batch, &Headers::default())
        .await;
}

async fn rows_vanish_when_they_expire_and_never_early(world: &mut World) {
    const ROWS: i64 = 1_000;
    let client = ClientService::start(|_, _| Reply::Online).await;
    world.janitor(&["--sweep-interval=1h"]).await;
    world.database.record_deletions().await;
    world.fetcher(&client, &["--object-ttl=2s"]).await;
    for start in (0..ROWS).step_by(50) {
        publish(world, start..start + 50).await;
    }
    let deleted = "select count(*) from deletions";
    eventually("all deletions", async || {
        (world.database.number(deleted).await == ROWS).then_some(())
    })
    .await;
    assert!(world.database.ids().await.is_empty());
    let latest =
        "select min(late), percentile_disc(0.99) within group (order by late) from deletions";
    let row = world.database.client.query_one(latest, &[]).await.unwrap();
    let (least, p99): (f64, f64) = (row.get(0), row.get(1));
    assert!(least >= 0.0, "a row was deleted {least} s after it expired");
    // What it is on a machine that does nothing else is measured elsewhere; this finds a mistake.
    assert!(p99 < 2.0, "p99 of the lateness is {p99} s");
}

async fn an_object_seen_again_before_it_expires_stays(world: &mut World) {
    let client = ClientService::start(|_, _| Reply::Online).await;
    world.janitor(&["--sweep-interval=1h"]).await;
    world.database.record_deletions().await;
    world.fetcher(&client, &["--object-ttl=5s"]).await;
    publish(world, 0..1).await;
    world.database.until_ids(&[0]).await;
    let expires_at = async || -> OffsetDateTime {
        world
            .database
            .client
            .query_one("select expires_at from objects", &[])
            .await
            .unwrap()
            .get(0)
    };
    let first = expires_at().await;
    publish(world, 0..1).await;
    let second = eventually("the refresh", async || {
        Some(expires_at().await).filter(|second| *second > first)
    })
    .await;
    let gone = "select count(*) from deletions";
    eventually("the deletion", async || {
        (world.database.number(gone).await == 1).then_some(())
    })
    .await;
    let early = "select count(*) from deletions where late < 0";
    assert_eq!(world.database.number(early).await, 0);
    let now: OffsetDateTime = world
        .database
        .client
        .query_one("select now()", &[])
        .await
        .unwrap()
        .get(0);
    assert!(now >= second);
}

async fn a_stale_a_reordered_and_a_repeated_message_change_nothing(world: &mut World) {
    let janitor = world.janitor(&["--sweep-interval=1h"]).await;
    let last_seen = insert(world, 0..5, "0.001 s").await;
    // These have expired too, but were seen again since their message was armed: another message
    // covers them, and this one must leave them alone.
    let seen_again = insert(world, 5..10, "0.001 s").await;
    arm(world, seen_again - Duration::from_secs(30), 5..10).await;
    arm(world, last_seen, 0..5).await;
    arm(world, last_seen, 0..5).await;
    world.database.until_ids(&[5, 6, 7, 8, 9]).await;
    world.broker.until_ready(Queue::Delete, 0).await;
    world.running(janitor).stop().await;
    assert_eq!(world.broker.ready(Queue::Delete).await, 0);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
    assert_eq!(world.database.ids().await, [5, 6, 7, 8, 9]);
}

/// As when the broker's clock runs ahead of the database's.
async fn a_message_that_comes_early_waits_for_its_rows(world: &mut World) {
    let janitor = world.janitor(&["--sweep-interval=1h"]).await;
    world.database.record_deletions().await;
    let last_seen = insert(world, 0..3, "1 s").await;
    arm(world, last_seen, 0..3).await;
    world.database.until_ids(&[]).await;
    assert_eq!(
        world
            .database
            .number("select count(*) from deletions where late < 0")
            .await,
        0
    );
    world.running(janitor).stop().await;
    assert_eq!(world.broker.ready(Queue::Delete).await, 0);
}

async fn a_janitor_that_was_away_catches_up(world: &mut World) {
    let client = ClientService::start(|_, _| Reply::Online).await;
    world
        .fetcher(&client, &["--object-ttl=100ms", "--write-batch=10"])
        .await;
    publish(world, 0..50).await;
    eventually("dead-lettered messages", async || {
        (world.broker.ready(Queue::Delete).await > 0).then_some(())
    })
    .await;
    let first = world.janitor(&["--sweep-interval=1h"]).await;
    world.running(first).kill().await;
    world.janitor(&["--sweep-interval=1h"]).await;
    world.database.until_ids(&[]).await;
    world.broker.until_ready(Queue::Delete, 0).await;
}

async fn the_sweep_deletes_what_no_message_covers(world: &mut World) {
    let flags = [
        "--sweep-interval=50ms",
        "--sweep-grace=300ms",
        "--sweep-batch=3",
    ];
    world.janitor(&flags).await;
    world.database.record_deletions().await;
    insert(world, 0..10, "0.2 s").await;
    insert(world, 10..12, "1 h").await;
    world.database.until_ids(&[10, 11]).await;
    assert_eq!(
        world
            .database
            .number("select count(*) from deletions where late < 0.3")
            .await,
        0
    );
}

async fn a_row_that_has_expired_is_hidden_from_readers_before_it_is_deleted(world: &mut World) {
    world.janitor(&["--sweep-interval=1h"]).await;
    insert(world, 0..3, "0.01 s").await;
    insert(world, 3..5, "1 h").await;
    let live = "select count(*) from live_objects";
    eventually("the rows to expire", async || {
        (world.database.number(live).await == 2).then_some(())
    })
    .await;
    assert_eq!(
        world.database.number("select count(*) from objects").await,
        5
    );
}

async fn an_unreadable_delete_message_goes_to_the_dead(world: &mut World) {
    world.janitor(&["--sweep-interval=1h"]).await;
    let body = br#"{"version":1,"last_seen":"yesterday","object_ids":[]}"#;
    world
        .broker
        .publish_bytes(Queue::Delete, body, &Headers::default())
        .await;
    let dead = world.broker.take(Queue::Dead).await;
    assert!(
        tests::broker::headers(&dead)
            .reason
            .unwrap()
            .contains("delete_batch")
    );
}
