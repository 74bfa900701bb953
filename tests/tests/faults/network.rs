//! Networks that break, hang and crawl between parts that are all well.

use std::time::Duration;

use tests::faults::FaultWorld;
use tests::proxy::Network;
use tokio::time::sleep;

tests::cases![
    callbacks_cut_in_the_middle,
    the_broker_cut_off_from_each_binary,
    the_broker_in_a_black_hole,
    connections_to_the_broker_forgotten,
    the_broker_behind_a_slow_network,
    the_database_cut_off_from_each_binary,
    the_database_in_a_black_hole,
    connections_to_the_database_forgotten,
];

/// Until it is noticed that a connection is gone of which nobody hears, and work goes on: with the
/// broker 8 s, with the database somewhat more than 5 s, and then what a new connection takes.
const NOTICED: Duration = Duration::from_secs(13);

/// What was not answered is not accepted, whether it arrived or not.
async fn callbacks_cut_in_the_middle(world: &mut FaultWorld) {
    let network = Network::Slow(Duration::from_millis(100));
    world.proxy_of_ingest().set(network);
    for _ in 0..10 {
        sleep(Duration::from_millis(150)).await;
        world.proxy_of_ingest().reset();
    }
    world.proxy_of_ingest().set(Network::Pass);
    world.back_at_work().await;
    assert!(world.load.answers().refused > 0, "none was cut");
}

async fn the_broker_cut_off_from_each_binary(world: &mut FaultWorld) {
    for binary in ["ingest", "fetcher", "janitor"] {
        world.network.broker[binary].set(Network::Cut);
        sleep(Duration::from_secs(1)).await;
        world.network.broker[binary].set(Network::Pass);
        world.back_at_work().await;
    }
}

/// For longer than any step with the broker may take.
async fn the_broker_in_a_black_hole(world: &mut FaultWorld) {
    world.network.set_to_broker(Network::Hang);
    sleep(Duration::from_secs(8)).await;
    world.network.set_to_broker(Network::Pass);
    world.back_at_work().await;
}

/// Neither side is told that the connections are gone: each has to notice that nothing comes.
async fn connections_to_the_broker_forgotten(world: &mut FaultWorld) {
    world
        .allowed
        .be_back_within(NOTICED, "it has to be noticed");
    for way in world.network.broker.values() {
        way.forget();
    }
    world.back_at_work().await;
}

async fn the_broker_behind_a_slow_network(world: &mut FaultWorld) {
    world
        .network
        .set_to_broker(Network::Slow(Duration::from_millis(30)));
    sleep(Duration::from_secs(3)).await;
    world.network.set_to_broker(Network::Pass);
    world.back_at_work().await;
}

async fn the_database_cut_off_from_each_binary(world: &mut FaultWorld) {
    for binary in ["fetcher", "janitor"] {
        world.network.database[binary].set(Network::Cut);
        sleep(Duration::from_secs(1)).await;
        world.network.database[binary].set(Network::Pass);
        world.back_at_work().await;
    }
}

async fn the_database_in_a_black_hole(world: &mut FaultWorld) {
    world.network.set_to_database(Network::Hang);
    sleep(Duration::from_secs(7)).await;
    world.network.set_to_database(Network::Pass);
    world.back_at_work().await;
}

/// A statement on such a connection ends with its time-out, 5 s.
async fn connections_to_the_database_forgotten(world: &mut FaultWorld) {
    world
        .allowed
        .be_back_within(NOTICED, "it has to be noticed");
    for way in world.network.database.values() {
        way.forget();
    }
    world.back_at_work().await;
}
