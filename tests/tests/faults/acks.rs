//! Messages that are held for longer than the broker waits for acks: it closes their channel, or, from RabbitMQ 4.3 on,
//! cancels their consumer.

use tests::faults::{ACK_TICK, ACK_TIMEOUT, FaultWorld, Part};
use tests::proxy::Network;
use tests::wait::eventually;

tests::cases![acks_that_take_too_long];

/// Sets how long the broker waits for an ack, on connections that are all new.
async fn set_ack_timeout(world: &FaultWorld, timeout: u32, tick: u32) {
    world.set_ack_timeout(timeout, tick).await;
    let close = ["rabbitmqctl", "close_all_connections", "the fault suite"];
    world.servers.broker.command(&close).await.unwrap();
}

async fn acks_that_take_too_long(world: &mut FaultWorld) {
    set_ack_timeout(world, 3_000, 500).await;
    world.back_at_work().await;
    world.network.client.set(Network::Hang);
    // What the fetcher logs of a closed channel, and of a cancelled consumer.
    let signs = ["delivery acknowledgement", "the broker ended the consumer"];
    let log_so_far = world.process(Part::Fetcher).log().len();
    eventually("the broker to take the messages back", async || {
        let log = world.process(Part::Fetcher).log();
        let news = log.get(log_so_far..).unwrap_or_default();
        signs.iter().any(|sign| news.contains(sign)).then_some(())
    })
    .await;
    world.network.client.set(Network::Pass);
    set_ack_timeout(world, ACK_TIMEOUT, ACK_TICK).await;
    world.back_at_work().await;
}
