//! A broker that is there, and against which something is done.

use std::time::Duration;

use broker::Queue;
use tests::faults::{FaultWorld, MEMORY_WATERMARK, Part};
use tests::wait::eventually;
use tokio::time::sleep;

tests::cases![
    connections_closed_by_the_broker,
    an_alarm_of_the_broker,
    every_queue_deleted_while_empty,
    the_delete_queues_deleted_while_full,
    the_exchange_deleted,
    an_alarm_that_only_the_fetchers_can_end,
    retry_queues_without_a_leader,
    the_delay_queue_of_deletions_without_a_leader,
    a_policy_that_limits_the_dead,
];

async fn connections_closed_by_the_broker(world: &mut FaultWorld) {
    let close = ["rabbitmqctl", "close_all_connections", "the fault suite"];
    world.servers.broker.command(&close).await.unwrap();
    world.back_at_work().await;
}

/// The broker blocks publishers.
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

/// The broker closes the channel of a publisher (404). What expires in a delay queue
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

/// A backlog waits, and the alarm is there before the fetchers are, who alone can work it off: what
/// they cannot publish must not keep them from it.
async fn an_alarm_that_only_the_fetchers_can_end(world: &mut FaultWorld) {
    let fetchers = [Part::Fetcher, Part::OtherFetcher];
    for part in fetchers {
        world.kill(part).await;
    }
    sleep(Duration::from_secs(3)).await;
    world.load.pause();
    world.set_memory_watermark("0").await;
    for part in fetchers {
        world.start(part).await;
    }
    let broker = world.broker().await;
    eventually(
        "the backlog to be worked off during the alarm",
        async || (broker.ready(Queue::Fetch).await == 0).then_some(()),
    )
    .await;
    world.until_rows_are_gone().await;
    world.set_memory_watermark(MEMORY_WATERMARK).await;
    world.load.resume();
    world.back_at_work().await;
}

/// Nothing that is published to it is confirmed, until it has a leader again.
async fn retry_queues_without_a_leader(world: &mut FaultWorld) {
    queue_without_a_leader(world, "objects.retry.200").await;
}

async fn the_delay_queue_of_deletions_without_a_leader(world: &mut FaultWorld) {
    queue_without_a_leader(world, "objects.delete.delay").await;
}

/// The first queue with `part` in its name.
async fn queue_without_a_leader(world: &mut FaultWorld, part: &str) {
    let mut names = world.topology.queue_names().into_iter();
    let name = names.find(|name| name.contains(part)).unwrap();
    let server = format!("{{'%2F_{name}', node()}}");
    let stop = format!("ra:stop_server(quorum_queues, {server}).");
    let restart = format!("ra:restart_server(quorum_queues, {server}).");
    let eval = async |expression: &str| {
        let command = ["rabbitmqctl", "eval", expression];
        world.servers.broker.command(&command).await.unwrap();
    };
    eval(&stop).await;
    sleep(Duration::from_secs(4)).await;
    world.rows_are_stored().await;
    sleep(Duration::from_secs(4)).await;
    world.rows_are_stored().await;
    eval(&restart).await;
    world.back_at_work().await;
}

/// What is beyond the limit is refused by the broker, and nothing that it had is forgotten.
async fn a_policy_that_limits_the_dead(world: &mut FaultWorld) {
    let pattern = format!("^{}$", world.topology.name(Queue::Dead).replace('.', "\\."));
    let policy = r#"{"max-length":3}"#;
    let set = [
        "rabbitmqctl",
        "set_policy",
        "--apply-to",
        "queues",
        "limit",
        &pattern,
        policy,
    ];
    world.servers.broker.command(&set).await.unwrap();
    sleep(Duration::from_secs(8)).await;
    let clear = ["rabbitmqctl", "clear_policy", "limit"];
    world.servers.broker.command(&clear).await.unwrap();
    world.back_at_work().await;
}
