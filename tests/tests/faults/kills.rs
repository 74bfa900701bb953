//! Parts that are killed by SIGKILL, and started again.

use std::time::Duration;

use tests::faults::{FaultWorld, Part};
use tokio::time::sleep;

tests::cases![
    ingest_killed,
    a_fetcher_killed,
    all_fetchers_killed,
    the_janitor_killed,
    the_broker_killed,
    the_database_killed,
];

/// Kills the parts, lets the load go on without them, and starts them again.
async fn kill_and_start(world: &mut FaultWorld, parts: &[Part]) {
    for part in parts {
        world.kill(*part).await;
    }
    sleep(Duration::from_secs(1)).await;
    for part in parts {
        world.start(*part).await;
    }
    world.back_at_work().await;
}

async fn ingest_killed(world: &mut FaultWorld) {
    kill_and_start(world, &[Part::Ingest]).await;
}

async fn a_fetcher_killed(world: &mut FaultWorld) {
    kill_and_start(world, &[Part::Fetcher]).await;
}

async fn all_fetchers_killed(world: &mut FaultWorld) {
    kill_and_start(world, &[Part::Fetcher, Part::OtherFetcher]).await;
}

async fn the_janitor_killed(world: &mut FaultWorld) {
    kill_and_start(world, &[Part::Janitor]).await;
}

async fn the_broker_killed(world: &mut FaultWorld) {
    kill_and_start(world, &[Part::Broker]).await;
}

async fn the_database_killed(world: &mut FaultWorld) {
    kill_and_start(world, &[Part::Database]).await;
}
