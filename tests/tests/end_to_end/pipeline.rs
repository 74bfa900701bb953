//! The whole way of a callback, from the client service's post to the row's deletion.

use broker::Queue;
use tests::client::{ClientService, Reply, post_ids};
use tests::wait::eventually;
use tests::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_become_rows_that_vanish() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| {
        if id % 2 == 0 {
            Reply::Online
        } else {
            Reply::Offline
        }
    })
    .await;
    world.janitor(&["--sweep-interval=1h"]).await;
    world.database.record_deletions().await;
    world.fetcher(&client, &["--object-ttl=1s"]).await;
    let ingest = world.ingest(&[]).await;
    post_ids(ingest, &(0..200).collect::<Vec<_>>()).await;
    let gone = "select count(distinct id) from deletions";
    eventually("all deletions", async || {
        (world.database.number(gone).await == 100).then_some(())
    })
    .await;
    assert_eq!(
        world
            .database
            .number("select count(*) from deletions where id % 2 <> 0 or late < 0")
            .await,
        0
    );
    for queue in [Queue::Fetch, Queue::Delete, Queue::Dead, Queue::Unroutable] {
        assert_eq!(world.broker.ready(queue).await, 0, "{queue:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_fetchers_share_the_work() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.hold();
    for _ in 0..3 {
        world
            .fetcher(&client, &["--fetch-concurrency=10", "--fetch-prefetch=1"])
            .await;
    }
    let ingest = world.ingest(&["--chunk-size=10"]).await;
    post_ids(ingest, &(0..30).collect::<Vec<_>>()).await;
    client.until_in_flight(30).await;
    client.release();
    world.database.until_ids(&(0..30).collect::<Vec<_>>()).await;
}
