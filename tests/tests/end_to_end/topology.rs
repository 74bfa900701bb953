//! Queues and schema, when several processes make them and when settings change.

use broker::{Delay, Headers, Queue};
use fetcher::delay_queue;
use messages::{FetchChunk, ObjectId};
use settings::Value;
use tests::client::{ClientService, Reply, post_ids};
use tests::processes::output;
use tests::servers::programs::may_skip;
use tests::wait::eventually;
use tests::world::World;

use crate::privileges::Users;

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
    for said in [
        "objects.fetch",
        "delete it while it is empty, or set QUEUE_PREFIX",
    ] {
        assert!(reason.contains(said), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_deletes_empty_delay_queues_that_no_setting_names() {
    let world = &mut World::new().await;
    let Some(management) = world.management else {
        assert!(may_skip("TEST_MANAGEMENT_ADDRESS is not set"));
        return;
    };
    let users = Users::create(world).await;
    let named = |delay: &str| <Delay as Value>::parse(delay).unwrap();
    let [former, new] = [["1h", "20m", "40m"], ["2h", "30m", "30m"]].map(|[ttl, first, second]| {
        let retries = [first, second].map(|delay| Queue::Retry(named(delay)));
        [delay_queue(named(ttl)), retries[0], retries[1]]
    });
    let topology = world.broker.topology.clone();
    world.will_use(&topology.clone().with(former).with(new));
    let world = &*world;
    let flags = |delays: [&str; 2]| {
        let [ttl, retry] = delays;
        vec![
            format!("--amqp-url={}", users.amqp_url("setup")),
            format!("--queue-prefix={}", world.prefix()),
            format!("--database-url={}", world.database.url),
            format!("--management-url=http://{management}"),
            format!("--object-ttl={ttl}"),
            format!("--retry-delays={retry}"),
        ]
    };
    let ended = output("setup", &flags(["1h", "20m,40m"]), &[]).await;
    assert!(ended.status.success(), "{ended:?}");
    let [empty @ .., held] = former;
    let waiting = FetchChunk {
        object_ids: vec![ObjectId(7)],
    };
    world
        .broker
        .publish(held, &waiting, &Headers::default())
        .await;

    // The broker counts what is in new queues only after a while.
    eventually("the empty queues to go", async || {
        let ended = output("setup", &flags(["2h", "30m"]), &[]).await;
        assert!(ended.status.success(), "{ended:?}");
        let mut left = 0;
        for queue in empty {
            left += u32::from(world.broker.exists(&topology.name(queue)).await);
        }
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(world.broker.ready(held).await, 1);
    for queue in new {
        assert!(world.broker.exists(&topology.name(queue)).await);
    }
    // It is bound still.
    world
        .broker
        .publish(held, &waiting, &Headers::default())
        .await;
    world.broker.until_ready(held, 2).await;
}
