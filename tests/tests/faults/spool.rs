//! A broker that is away, and callbacks that are accepted nevertheless.

use std::time::Duration;

use tests::faults::{FaultWorld, Part};
use tests::proxy::Network;
use tokio::time::sleep;

tests::cases![
    callbacks_are_accepted_while_the_broker_is_away,
    ingest_killed_while_the_broker_is_away,
    a_full_disk_while_the_broker_is_away,
    no_disk_for_the_spool_and_then_one_again,
];

async fn accepted_within(world: &FaultWorld, time: Duration) -> usize {
    let before = world.load.answers().accepted.len();
    sleep(time).await;
    world.load.answers().accepted.len() - before
}

async fn callbacks_are_accepted_while_the_broker_is_away(world: &mut FaultWorld) {
    world.kill(Part::Broker).await;
    let accepted = accepted_within(world, Duration::from_secs(8)).await;
    world.start(Part::Broker).await;
    world.back_at_work().await;
    assert!(accepted > 0, "nothing was accepted without the broker");
}

async fn ingest_killed_while_the_broker_is_away(world: &mut FaultWorld) {
    world.kill(Part::Broker).await;
    let accepted = accepted_within(world, Duration::from_secs(4)).await;
    world.kill(Part::Ingest).await;
    world.start(Part::Ingest).await;
    world.start(Part::Broker).await;
    world.back_at_work().await;
    assert!(accepted > 0, "nothing was accepted without the broker");
}

/// What does not fit is refused, and what was answered 202 before is kept.
async fn a_full_disk_while_the_broker_is_away(world: &mut FaultWorld) {
    world.stop(Part::Ingest).await;
    world.process(Part::Ingest).set_file_limit(Some(8));
    world.start(Part::Ingest).await;
    world.back_at_work().await;
    world.kill(Part::Broker).await;
    let refused = world.load.answers().refused;
    let accepted = accepted_within(world, Duration::from_secs(6)).await;
    let refused = world.load.answers().refused - refused;
    world.start(Part::Broker).await;
    world.back_at_work().await;
    assert!(accepted > 0, "nothing fitted");
    assert!(refused > 0, "everything fitted");
}

/// The broker alone is enough to accept callbacks, and the spool is there again as soon as its disk is.
async fn no_disk_for_the_spool_and_then_one_again(world: &mut FaultWorld) {
    world.stop(Part::Ingest).await;
    let (spool, elsewhere) = (world.spool(), world.spool().with_extension("away"));
    std::fs::rename(&spool, &elsewhere).unwrap();
    std::fs::write(&spool, "").unwrap();
    world.start(Part::Ingest).await;
    world.back_at_work().await;
    std::fs::remove_file(&spool).unwrap();
    std::fs::rename(&elsewhere, &spool).unwrap();
    world.network.broker["ingest"].set(Network::Cut);
    let accepted = accepted_within(world, Duration::from_secs(3)).await;
    world.network.broker["ingest"].set(Network::Pass);
    world.back_at_work().await;
    assert!(accepted > 0, "nothing was accepted by the spool");
}
