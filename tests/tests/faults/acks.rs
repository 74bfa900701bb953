//! Messages that are held for longer than the broker waits for acks: it closes their channel.

use tests::fault_world::FaultWorld;
use tests::parts::Part;
use tests::proxy::Network;
use tests::wait::eventually;

tests::cases![acks_that_take_too_long];

/// The broker's own settings, in milliseconds.
const TIMEOUT: u32 = 1_800_000;
const TICK: u32 = 60_000;

/// How long the broker waits for an ack, and how often it looks. Channels of new connections have it.
async fn set_ack_timeout(world: &FaultWorld, timeout: u32, tick: u32) {
    let set = format!(
        "application:set_env(rabbit, consumer_timeout, {timeout}), \
         application:set_env(rabbit, channel_tick_interval, {tick})."
    );
    let broker = &world.servers.broker;
    let eval = ["rabbitmqctl", "eval", &set];
    broker.command(&eval).await.unwrap();
    let close = ["rabbitmqctl", "close_all_connections", "the fault suite"];
    broker.command(&close).await.unwrap();
}

async fn acks_that_take_too_long(world: &mut FaultWorld) {
    set_ack_timeout(world, 3_000, 500).await;
    world.back_at_work().await;
    world.ways.to_client.set(Network::Hang);
    eventually("the broker to close a channel", async || {
        let log = world.process(Part::Fetcher).log();
        log.contains("delivery acknowledgement").then_some(())
    })
    .await;
    world.ways.to_client.set(Network::Pass);
    set_ack_timeout(world, TIMEOUT, TICK).await;
    world.back_at_work().await;
}
