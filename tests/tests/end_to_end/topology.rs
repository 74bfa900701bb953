//! Queues and schema, when several processes make them and when settings change.

use broker::{Delay, Queue};
use fetcher::delay_queue;
use settings::Value;
use tests::client::{ClientService, Reply, post_ids};
use tests::wait::eventually;
use tests::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_topology_can_be_declared_twice() {
    let world = &mut World::new().await;
    world.broker.declare().await;
    world.broker.declare().await;
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_share_one_topology_and_one_schema() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let mut started = Vec::new();
    for _ in 0..2 {
        started.push(world.start_fetcher(&client, &[]));
        started.push(world.start_janitor(&[]));
        started.push(world.start_ingest(&[]).await.1);
    }
    for place in started {
        world.running(place).ready().await;
    }
    let laid_twice = "select count(*) - max(version) from objects_schema";
    assert_eq!(world.database.number(laid_twice).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_ttl_leaves_older_rows_their_own() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let ingest = world.ingest(&[]).await;
    world.janitor(&["--sweep-interval=1h"]).await;
    world.database.record_deletions().await;
    let before = world.fetcher(&client, &["--object-ttl=1h"]).await;
    post_ids(ingest, &[1, 2]).await;
    world.database.until_ids(&[1, 2]).await;
    world.running(before).stop().await;

    world.fetcher(&client, &["--object-ttl=1s"]).await;
    post_ids(ingest, &[2, 3]).await;
    let gone = "select count(*) from deletions where id in (2, 3) and late >= 0";
    eventually("the rows with the new TTL to go", async || {
        (world.database.number(gone).await == 2).then_some(())
    })
    .await;
    assert_eq!(world.database.ids().await, [1]);
    let hour = delay_queue(<Delay as Value>::parse("1h").unwrap());
    assert!(world.broker.ready(hour).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_exists_with_other_arguments_is_named_as_the_reason() {
    let world = &mut World::new().await;
    world
        .broker
        .declare_classic(&world.broker.topology.name(Queue::Fetch))
        .await;
    let (_, ingest) = world.start_ingest(&[]).await;
    let reason = eventually("the reason", async || {
        let down = world.running(ingest).down();
        down.into_iter()
            .map(|(_, reason)| reason)
            .find(|reason| reason.contains("PRECONDITION"))
    })
    .await;
    assert!(reason.contains("objects.fetch"), "{reason}");
}
