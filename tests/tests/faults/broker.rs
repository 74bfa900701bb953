//! A broker that is there, and against which something is done.

use std::time::Duration;

use shared::topology::Queue;
use tests::fault_world::{FaultWorld, MEMORY_WATERMARK};
use tokio::time::sleep;

tests::cases![
    connections_closed_by_the_broker,
    an_alarm_of_the_broker,
    every_queue_deleted_while_empty,
    the_delete_queues_deleted_while_full,
    the_exchange_deleted,
];

async fn connections_closed_by_the_broker(world: &mut FaultWorld) {
    let close = ["rabbitmqctl", "close_all_connections", "the fault suite"];
    world.servers.broker.command(&close).await.unwrap();
    world.back_at_work().await;
}

/// The broker blocks whoever publishes.
async fn an_alarm_of_the_broker(world: &mut FaultWorld) {
    world.set_memory_watermark("0").await;
    sleep(Duration::from_secs(6)).await;
    world.set_memory_watermark(MEMORY_WATERMARK).await;
    world.back_at_work().await;
}

/// What is published until they are declared again waits for an operator: the column "parked".
async fn every_queue_deleted_while_empty(world: &mut FaultWorld) {
    world.allowed.park();
    world.load.pause();
    world.until_quiet().await;
    let broker = world.broker().await;
    for queue in world.topology.queue_names() {
        if queue != world.topology.name(Queue::Unroutable) {
            broker.delete(&queue).await;
        }
    }
    world.load.resume();
    world.back_at_work().await;
}

/// Their messages are gone, so the sweep has to delete the rows.
async fn the_delete_queues_deleted_while_full(world: &mut FaultWorld) {
    world.allowed.park();
    let broker = world.broker().await;
    for queue in world.topology.queue_names() {
        if queue.contains("objects.delete") {
            broker.delete(&queue).await;
        }
    }
    world.back_at_work().await;
}

/// Whoever publishes has his channel closed by the broker (404). What expires in a delay queue
/// meanwhile has nowhere to go, and the broker has to try again.
async fn the_exchange_deleted(world: &mut FaultWorld) {
    world.allowed.park();
    let broker = world.broker().await;
    for _ in 0..10 {
        broker.delete_exchange().await;
        sleep(Duration::from_millis(150)).await;
    }
    world.back_at_work().await;
}
