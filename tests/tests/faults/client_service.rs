//! A client service that is down, slow, lying or flapping. No id may die of it that is not meant to.

use std::time::Duration;

use tests::faults::{FaultWorld, Mood};
use tests::proxy::Network;
use tokio::time::sleep;

tests::cases![
    the_client_service_down,
    the_client_service_slow,
    the_client_service_lying,
    the_client_service_flapping,
    the_client_service_down_for_longer_than_all_tries,
    the_client_service_failing_for_longer_than_all_tries,
    the_client_service_behind_a_gateway_that_finds_nothing,
    the_client_service_behind_a_gateway_that_forbids_everything_for_a_moment,
    the_client_service_behind_a_gateway_that_finds_nothing_for_longer_than_all_tries,
    the_client_service_resetting_connections,
];

async fn down(world: &mut FaultWorld, how_long: Duration) {
    world.network.client.set(Network::Cut);
    sleep(how_long).await;
    world.network.client.set(Network::Pass);
    world.back_at_work().await;
}

async fn moody(world: &mut FaultWorld, mood: Mood, how_long: Duration) {
    world.mood.send_replace(mood);
    sleep(how_long).await;
    world.mood.send_replace(Mood::Honest);
    world.back_at_work().await;
}

async fn the_client_service_down(world: &mut FaultWorld) {
    down(world, Duration::from_millis(1200)).await;
}

async fn the_client_service_slow(world: &mut FaultWorld) {
    moody(world, Mood::Slow, Duration::from_secs(3)).await;
}

async fn the_client_service_lying(world: &mut FaultWorld) {
    moody(world, Mood::Lying, Duration::from_secs(3)).await;
}

async fn the_client_service_flapping(world: &mut FaultWorld) {
    for _ in 0..4 {
        down(world, Duration::from_millis(800)).await;
        sleep(Duration::from_millis(400)).await;
    }
}

async fn the_client_service_down_for_longer_than_all_tries(world: &mut FaultWorld) {
    down(world, Duration::from_secs(10)).await;
}

async fn the_client_service_failing_for_longer_than_all_tries(world: &mut FaultWorld) {
    moody(world, Mood::Failing(503), Duration::from_secs(10)).await;
}

async fn the_client_service_behind_a_gateway_that_finds_nothing(world: &mut FaultWorld) {
    moody(world, Mood::Failing(404), Duration::from_secs(3)).await;
}

/// Again and again for a moment, as gateways do that are told of new routes.
async fn the_client_service_behind_a_gateway_that_forbids_everything_for_a_moment(
    world: &mut FaultWorld,
) {
    for _ in 0..5 {
        world.mood.send_replace(Mood::Failing(403));
        sleep(Duration::from_millis(300)).await;
        world.mood.send_replace(Mood::Honest);
        sleep(Duration::from_millis(700)).await;
    }
    world.back_at_work().await;
}

async fn the_client_service_behind_a_gateway_that_finds_nothing_for_longer_than_all_tries(
    world: &mut FaultWorld,
) {
    moody(world, Mood::Failing(404), Duration::from_secs(10)).await;
}

async fn the_client_service_resetting_connections(world: &mut FaultWorld) {
    for _ in 0..10 {
        world.network.client.reset();
        sleep(Duration::from_millis(200)).await;
    }
    world.back_at_work().await;
}
