//! Parts that are stopped in order, and started again.

use std::time::Duration;

use tests::faults::{FaultWorld, OBJECT_TTL, Part};
use tests::wait::eventually;
use tokio::time::sleep;

tests::cases![
    sigterm_to_each_process,
    the_broker_restarted,
    the_database_restarted_while_deletions_fall_due,
    the_janitor_away_for_longer_than_objects_live,
];

const OVERDUE: &str = "select count(*) from objects where expires_at < clock_timestamp()";
const ALIVE_THOUGH_OVERDUE: &str = "select count(*) from live_objects where expires_at < now()";

/// That each ends with exit code 0, and in time, is asserted where it is stopped.
async fn sigterm_to_each_process(world: &mut FaultWorld) {
    for part in [
        Part::Ingest,
        Part::Fetcher,
        Part::OtherFetcher,
        Part::Janitor,
    ] {
        world.stop(part).await;
        world.start(part).await;
        world.back_at_work().await;
    }
}

async fn the_broker_restarted(world: &mut FaultWorld) {
    world.stop(Part::Broker).await;
    world.start(Part::Broker).await;
    world.back_at_work().await;
}

async fn the_database_restarted_while_deletions_fall_due(world: &mut FaultWorld) {
    let client = world.database().await;
    eventually("deletions", async || {
        let deleted = client
            .query_one("select count(*) from deletions", &[])
            .await;
        (deleted.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    drop(client);
    world.stop(Part::Database).await;
    world.start(Part::Database).await;
    world.back_at_work().await;
}

/// Readers do not see what has expired, and it is deleted as soon as the janitor is back.
async fn the_janitor_away_for_longer_than_objects_live(world: &mut FaultWorld) {
    world.kill(Part::Janitor).await;
    sleep(OBJECT_TTL + Duration::from_secs(1)).await;
    let client = world.database().await;
    let count = async |query: &str| -> i64 { client.query_one(query, &[]).await.unwrap().get(0) };
    let overdue = count(OVERDUE).await;
    assert!(overdue > 0, "nothing waited for the janitor");
    assert_eq!(count(ALIVE_THOUGH_OVERDUE).await, 0);
    world.start(Part::Janitor).await;
    world.back_at_work().await;
}
