//! What an outage of the client service costs: time, and nothing else.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use broker::{Delay, Headers, Queue};
use messages::{FetchChunk, ObjectId, decode};
use process::ask;
use settings::Value;
use tests::client::{ClientService, Exposition, Reply};
use tests::processes::{Process, address_in};
use tests::servers::broker::headers;
use tests::wait::eventually;
use tests::world::World;
use tokio::time::Instant;

use super::binaries::started;

/// Without the breaker, an id would be among the dead after some hundredths of a second.
const FAST: &str = "--retry-delays=20ms,40ms";

/// How often a test's fetcher probes.
const INTERVAL: Duration = Duration::from_millis(300);
const PROBE: &str = "--probe-interval=300ms";

/// An id that is refused whenever the client service works.
const REFUSED: i64 = -1;

fn all_but_one_are_online(id: i64, _: usize) -> Reply {
    if id == REFUSED {
        Reply::Status(403, None)
    } else {
        Reply::Online
    }
}

async fn publish(world: &World, ids: &[i64]) {
    let chunk = FetchChunk {
        object_ids: ids.iter().copied().map(ObjectId).collect(),
    };
    let headers = Headers::default();
    world.broker.publish(Queue::Fetch, &chunk, &headers).await;
}

/// Waits until the fetcher takes the client service for down, or up.
async fn until_down(world: &mut World, fetcher: usize, down: bool) {
    let running = world.running(fetcher);
    eventually(&format!("the outage to be noticed: {down}"), async || {
        let is_down = running
            .down()
            .iter()
            .any(|(name, _)| *name == "client service");
        (is_down == down).then_some(())
    })
    .await;
}

/// Waits for `count` more look-ups; returns when the last ones of them were.
async fn further_look_ups(client: &ClientService, count: usize) -> Vec<Instant> {
    let before = client.times().len();
    let times = async || Some(client.times()).filter(|times| times.len() >= before + count);
    eventually("further look-ups", times).await[before..].to_vec()
}

async fn dead_ids(world: &World) -> Vec<ObjectId> {
    let dead = world.broker.take(Queue::Dead).await;
    decode::<FetchChunk>(&dead.data).unwrap().object_ids
}

async fn outage(world: &mut World, reply: Reply) {
    let client = ClientService::start(all_but_one_are_online).await;
    client.fail(reply);
    // What times out when the client service works again would have failed by itself.
    let flags = [FAST, PROBE, "--fetch-timeout=2s"];
    let fetcher = world.fetcher(&client, &flags).await;
    publish(world, &[1, REFUSED]).await;
    until_down(world, fetcher, true).await;
    let ids: Vec<i64> = (1..=60).collect();
    for ids in ids.chunks(20) {
        publish(world, ids).await;
    }
    let times = further_look_ups(&client, 8).await;
    // They may arrive closer to each other than they are sent.
    assert!(times[7] - times[3] >= 4 * INTERVAL / 2, "{times:?}");
    client.recover();
    recovered(world, &ids).await;
}

/// All are stored, and the one that is refused was refused at its first attempt.
async fn recovered(world: &World, ids: &[i64]) {
    world.database.until_ids(ids).await;
    let dead = world.broker.take(Queue::Dead).await;
    assert_eq!(headers(&dead).reason.as_deref(), Some("status 403"));
    assert_eq!(headers(&dead).attempt.0.get(), 1);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
    world.broker.until_ready(Queue::Fetch, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_errors_costs_no_attempts() {
    let world = &mut World::new().await;
    outage(world, Reply::Status(500, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_silence_costs_no_attempts() {
    let world = &mut World::new().await;
    outage(world, Reply::Silence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_lies_costs_no_attempts() {
    let world = &mut World::new().await;
    outage(world, Reply::Body("all is well".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_refused_connections_costs_no_attempts() {
    let world = &mut World::new().await;
    let mut client = ClientService::refuse(all_but_one_are_online);
    let fetcher = world.fetcher(&client, &[FAST, PROBE]).await;
    publish(world, &[1, 2, 3, REFUSED]).await;
    until_down(world, fetcher, true).await;
    client.listen();
    recovered(world, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_only_asks_for_rest_costs_no_attempts() {
    let world = &mut World::new().await;
    let client = ClientService::start(all_but_one_are_online).await;
    client.fail(Reply::Status(429, None));
    let flags = [FAST, PROBE, "--fetch-concurrency=2"];
    let fetcher = world.fetcher(&client, &flags).await;
    publish(world, &[1, REFUSED]).await;
    // When both have rested as often as they may.
    until_down(world, fetcher, true).await;
    client.recover();
    recovered(world, &[1]).await;
}

/// Everything is answered so, and later as it should be: nothing is gone, nothing is dead.
async fn gateway(world: &mut World, reply: Reply) {
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.fail(reply);
    let flags = [FAST, PROBE, "--object-ttl=1h"];
    let fetcher = world.fetcher(&client, &flags).await;
    let ids: Vec<i64> = (1_001..=1_100).collect();
    for ids in ids.chunks(20) {
        publish(world, ids).await;
    }
    until_down(world, fetcher, true).await;
    further_look_ups(&client, 8).await;
    client.recover();
    world.database.until_ids(&ids).await;
    until_down(world, fetcher, false).await;
    world.broker.until_ready(Queue::Fetch, 0).await;
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_finds_nothing_makes_no_object_gone() {
    let world = &mut World::new().await;
    gateway(world, Reply::Page(404)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_to_which_everything_is_gone_makes_no_object_gone() {
    let world = &mut World::new().await;
    gateway(world, Reply::Status(410, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_forbids_everything_kills_no_id() {
    let world = &mut World::new().await;
    gateway(world, Reply::Page(403)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_wants_a_password_kills_no_id() {
    let world = &mut World::new().await;
    gateway(world, Reply::Status(401, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_legal_obstacle_kills_no_id() {
    let world = &mut World::new().await;
    gateway(world, Reply::Page(451)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_content_cost_no_attempts() {
    let world = &mut World::new().await;
    gateway(world, Reply::Status(204, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_place_of_every_object_costs_no_attempts() {
    let world = &mut World::new().await;
    gateway(world, Reply::Page(200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn being_led_to_a_login_page_costs_no_attempts() {
    let world = &mut World::new().await;
    gateway(world, Reply::Page(302)).await;
}

/// Few ids, so that it has to be known that they were answered before.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_were_known_and_are_not_found_together_are_not_gone() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let flags = [FAST, "--probe-interval=100ms", "--object-ttl=1h"];
    let fetcher = world.fetcher(&client, &flags).await;
    publish(world, &[101, 102, 103]).await;
    world.database.until_ids(&[101, 102, 103]).await;
    until_worked_off(world).await;
    forget_rows(world).await;
    client.fail(Reply::Page(404));
    publish(world, &[101, 102, 103]).await;
    until_down(world, fetcher, true).await;
    further_look_ups(&client, 8).await;
    assert!(world.database.ids().await.is_empty());
    client.recover();
    world.database.until_ids(&[101, 102, 103]).await;
}

async fn forget_rows(world: &World) {
    let delete = world.database.client.batch_execute("delete from objects");
    delete.await.unwrap();
}

async fn until_worked_off(world: &World) {
    world.broker.until_ready(Queue::Fetch, 0).await;
}

/// Too short, and too few ids, for an outage: an object that is known and not found for a moment tells of
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_a_moment_makes_no_object_gone() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let flags = ["--retry-delays=1h", "--probe-interval=3s"];
    world.fetcher(&client, &flags).await;
    publish(world, &[101, 102, 103]).await;
    world.database.until_ids(&[101, 102, 103]).await;
    client.fail(Reply::Page(404));
    let before = client.total();
    publish(world, &[201, 202, 203, 204]).await;
    eventually("a second probe", async || {
        (client.total() > before + 5).then_some(())
    })
    .await;
    client.recover();
    let all = [101, 102, 103, 201, 202, 203, 204];
    world.database.until_ids(&all).await;
    until_worked_off(world).await;
}

/// Waits until a fetcher whose metrics are `admin`'s has counted so much.
async fn until_counted(admin: SocketAddr, name: &str, labels: &[(&str, &str)], least: f64) {
    eventually(name, async || {
        let (_, shown) = ask(admin, "/metrics").await.ok()?;
        let shown = Exposition::read(std::str::from_utf8(&shown).unwrap());
        (shown.sum(name, labels) >= least).then_some(())
    })
    .await;
}

/// A fetcher in a separate process, with metrics of nothing else, and the address of these metrics.
async fn fetcher_alone(
    world: &mut World,
    client: &ClientService,
    flags: &[&str],
) -> (Process, SocketAddr) {
    let client_url = format!("--client-url={}", client.url);
    let flags: Vec<&str> = flags.iter().copied().chain([&*client_url]).collect();
    let fetcher = started(world, "fetcher", &flags).await;
    let admin = address_in(&fetcher.lines[fetcher.lines.len() - 1]);
    world.broker.declare().await;
    (fetcher, admin)
}

/// Stops it; nothing is left to do, and nothing was given up.
async fn ends_with_nothing_left(world: &World, mut fetcher: Process) {
    fetcher.signal("TERM").await;
    assert_eq!(fetcher.end().await, Some(0));
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

/// No other id is answered: such an answer would show that the id is at fault.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_object_there_is_can_be_gone() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Status(404, None)).await;
    let (fetcher, admin) = fetcher_alone(world, &client, &[FAST, PROBE]).await;
    publish(world, &[50]).await;
    until_counted(admin, "callback_pipeline_objects_gone_total", &[], 1.0).await;
    ends_with_nothing_left(world, fetcher).await;
    assert_eq!(client.look_ups(50).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_object_that_was_known_can_be_gone() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, n| match (id, n) {
        (50, 1) => Reply::Online,
        _ => Reply::Status(404, None),
    })
    .await;
    let (fetcher, admin) = fetcher_alone(world, &client, &[FAST, PROBE]).await;
    publish(world, &[50]).await;
    world.database.until_ids(&[50]).await;
    publish(world, &[50]).await;
    until_counted(admin, "callback_pipeline_objects_gone_total", &[], 1.0).await;
    ends_with_nothing_left(world, fetcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_id_there_is_can_be_refused() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Status(403, None)).await;
    let fetcher = world.fetcher(&client, &[FAST, PROBE]).await;
    publish(world, &[50]).await;
    let dead = world.broker.take(Queue::Dead).await;
    assert_eq!(headers(&dead).reason.as_deref(), Some("status 403"));
    assert_eq!(headers(&dead).attempt.0.get(), 3);
    assert!(world.running(fetcher).down().is_empty());
}

/// Nothing but what is in the queue can show that the client service works.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_id_is_found_behind_many_that_are_unknown() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| match id {
        500 => Reply::Online,
        _ => Reply::Status(404, None),
    })
    .await;
    let flags = [FAST, "--probe-interval=20ms", "--outage-patience=200ms"];
    let (fetcher, admin) = fetcher_alone(world, &client, &flags).await;
    publish(world, &(100..130).collect::<Vec<_>>()).await;
    let given_back = [("outcome", "requeued")];
    until_counted(
        admin,
        "callback_pipeline_messages_consumed_total",
        &given_back,
        1.0,
    )
    .await;
    publish(world, &[500]).await;
    world.database.until_ids(&[500]).await;
    until_counted(admin, "callback_pipeline_objects_gone_total", &[], 30.0).await;
    ends_with_nothing_left(world, fetcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_asks_for_an_hour_is_found_well_within_seconds() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.fail(Reply::Status(503, Some("3600")));
    let fetcher = world.fetcher(&client, &[FAST, PROBE]).await;
    publish(world, &[1, 2, 3]).await;
    until_down(world, fetcher, true).await;
    client.recover();
    let recovered = Instant::now();
    world.database.until_ids(&[1, 2, 3]).await;
    let took = recovered.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_rest_gives_messages_back() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.fail(Reply::Status(429, Some("300")));
    let flags = [FAST, PROBE, "--outage-patience=500ms"];
    let fetcher = world.fetcher(&client, &flags).await;
    publish(world, &[1, 2]).await;
    until_given_back(world, fetcher, 1).await;
    let message = world.broker.take(Queue::Fetch).await;
    assert_eq!(headers(&message).attempt.0.get(), 1);
    assert_eq!(deliveries(&message), 1);
    assert!(client.total() <= 3, "{}", client.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_look_ups_ramp_up() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    client.fail(Reply::Status(500, None));
    client.hold();
    // What is held must not time out meanwhile.
    let fetcher = world.fetcher(&client, &[PROBE, "--fetch-timeout=1m"]).await;
    // Opened by the only look-up there is and by the probe after it: none is in flight then.
    publish(world, &[1]).await;
    client.let_through(2);
    until_down(world, fetcher, true).await;
    let ids: Vec<i64> = (1..=100).collect();
    publish(world, &ids[1..]).await;
    client.recover();
    // The next probe.
    client.until_in_flight(1).await;
    client.let_through(1);
    // A few, and three times as many with their answers.
    client.until_in_flight(4).await;
    client.let_through(4);
    client.until_in_flight(12).await;
    client.release();
    world.database.until_ids(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_id_among_many_holds_up_no_other() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| match id {
        1 => Reply::Silence,
        _ => Reply::Online,
    })
    .await;
    let flags = [FAST, PROBE, "--fetch-timeout=8s", "--fetch-concurrency=2"];
    world.fetcher(&client, &flags).await;
    publish(world, &[1]).await;
    eventually("the bad id to be asked for", async || {
        (client.look_ups(1).len() == 1).then_some(())
    })
    .await;
    let others: Vec<i64> = (2..30).collect();
    publish(world, &others).await;
    world.database.until_ids(&others).await;
    let first_failure = client.look_ups(1)[0] + Duration::from_secs(8);
    assert!(Instant::now() < first_failure, "the others were held up");
    assert_eq!(dead_ids(world).await, [ObjectId(1)]);
    assert_eq!(client.look_ups(1).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_id_there_is_can_be_the_bad_one() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| match id {
        7 => Reply::Status(503, Some("0")),
        _ => Reply::Status(404, None),
    })
    .await;
    let fetcher = world.fetcher(&client, &[FAST, PROBE]).await;
    publish(world, &[7]).await;
    assert_eq!(dead_ids(world).await, [ObjectId(7)]);
    assert_eq!(client.look_ups(7).len(), 3);
    assert!(world.running(fetcher).down().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_brings_the_client_service_down_is_given_up() {
    let world = &mut World::new().await;
    let is_ill = AtomicBool::new(false);
    let client = ClientService::start(move |id, _| {
        let was_ill = is_ill.swap(id == 13, Ordering::Relaxed);
        if was_ill || id == 13 {
            Reply::Status(500, None)
        } else {
            Reply::Online
        }
    })
    .await;
    let flags = ["--retry-delays=20ms", "--probe-interval=20ms"];
    world.fetcher(&client, &flags).await;
    publish(world, &[13]).await;
    assert_eq!(dead_ids(world).await, [ObjectId(13)]);
    // Two attempts, each of which eleven outages met.
    assert_eq!(client.look_ups(13).len(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_id_that_turned_bad_does_not_keep_the_breaker_open() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, n| match (id, n) {
        (5, 1) => Reply::Online,
        (5 | 6, _) => Reply::Status(500, None),
        _ => Reply::Online,
    })
    .await;
    // Long enough that it is seen open.
    let flags = [FAST, "--probe-interval=5s"];
    let fetcher = world.fetcher(&client, &flags).await;
    publish(world, &[5]).await;
    world.database.until_ids(&[5]).await;
    // The probe goes to the good id, and fails.
    publish(world, &[6]).await;
    until_down(world, fetcher, true).await;
    until_down(world, fetcher, false).await;
    publish(world, &[8]).await;
    world.database.until_ids(&[5, 8]).await;
    assert_eq!(dead_ids(world).await, [ObjectId(6)]);
    assert!(
        client.look_ups(6).len() <= 5,
        "{}",
        client.look_ups(6).len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_without_a_known_good_id_closes_by_waiting_ids() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| match id {
        100..110 => Reply::Online,
        _ => Reply::Status(500, None),
    })
    .await;
    client.fail(Reply::Status(500, None));
    let flags = [PROBE, "--outage-patience=1ms"];
    let fetcher = world.fetcher(&client, &flags).await;
    let ids: Vec<i64> = (100..110).collect();
    publish(world, &ids).await;
    until_given_back(world, fetcher, 1).await;
    client.recover();
    world.database.until_ids(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_rest_is_asked_for_no_id_is_looked_up() {
    let world = &mut World::new().await;
    let asked = AtomicUsize::new(0);
    let client = ClientService::start(move |_, _| match asked.fetch_add(1, Ordering::Relaxed) {
        3 => Reply::Status(429, Some("2")),
        _ => Reply::Online,
    })
    .await;
    world.fetcher(&client, &["--fetch-concurrency=1"]).await;
    let ids: Vec<i64> = (1..=20).collect();
    publish(world, &ids).await;
    world.database.until_ids(&ids).await;
    let times = client.times();
    assert_eq!(times.len(), 21);
    let rest = times[4] - times[3];
    assert!(rest >= Duration::from_secs(2), "{rest:?}");
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_always_asks_for_rest_keeps_its_tries() {
    let world = &mut World::new().await;
    let client = ClientService::start(|id, _| match id {
        1 => Reply::Status(429, None),
        _ => Reply::Online,
    })
    .await;
    world.fetcher(&client, &["--retry-delays=20ms,1h"]).await;
    publish(world, &[1, 2]).await;
    world.database.until_ids(&[2]).await;
    let hour = Queue::Retry(<Delay as Value>::parse("1h").unwrap());
    let waiting = world.broker.take(hour).await;
    assert_eq!(headers(&waiting).attempt.0.get(), 1);
    assert_eq!(headers(&waiting).reason.as_deref(), Some("status 429"));
    assert_eq!(client.look_ups(1).len(), 11);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}

/// Waits until the fetcher has met the outage, `messages` are in the queue and nobody is there to
/// take them.
async fn until_given_back(world: &mut World, fetcher: usize, messages: u32) {
    // Before it begins to consume, nobody is there either.
    until_down(world, fetcher, true).await;
    eventually("messages to be given back", async || {
        let (ready, consumers) = (
            world.broker.ready(Queue::Fetch).await,
            world.broker.consumers(Queue::Fetch).await,
        );
        ((ready, consumers) == (messages, 0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_long_outage_messages_are_given_back_once_and_taken_again_after_it() {
    let world = &mut World::new().await;
    let client = ClientService::start(all_but_one_are_online).await;
    client.fail(Reply::Status(500, None));
    let flags = [FAST, PROBE, "--outage-patience=500ms"];
    let fetcher = world.fetcher(&client, &flags).await;
    for ids in [[1, 2], [3, REFUSED]] {
        publish(world, &ids).await;
    }
    until_given_back(world, fetcher, 2).await;
    further_look_ups(&client, 4).await;
    let first = world.broker.take(Queue::Fetch).await;
    assert_eq!(deliveries(&first), 1, "{:?}", first.properties);
    world
        .broker
        .publish_bytes(Queue::Fetch, &first.data, &headers(&first))
        .await;
    until_given_back(world, fetcher, 2).await;
    client.recover();
    recovered(world, &[1, 2, 3]).await;
}

/// How often a message was given to a consumer that did not finish it.
fn deliveries(message: &lapin::message::BasicGetMessage) -> i64 {
    let headers = message.properties.headers().as_ref().unwrap();
    let count = headers.inner().get("x-delivery-count").unwrap();
    count.as_long_long_int().unwrap()
}

/// A fetcher has 30 s to finish its work, but not for work that cannot be finished.
async fn stop_at_once(world: &mut World, fetcher: usize) {
    let stopping = Instant::now();
    world.running(fetcher).stop().await;
    let took = stopping.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_holds_back_consumption_can_be_stopped() {
    let world = &mut World::new().await;
    let client = ClientService::refuse(all_but_one_are_online);
    let flags = [PROBE, "--outage-patience=100ms"];
    let fetcher = world.fetcher(&client, &flags).await;
    publish(world, &[1]).await;
    until_given_back(world, fetcher, 1).await;
    stop_at_once(world, fetcher).await;
    world.broker.until_ready(Queue::Fetch, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_is_stopped_in_an_outage_returns_its_messages() {
    let world = &mut World::new().await;
    let client = ClientService::start(all_but_one_are_online).await;
    client.fail(Reply::Status(500, None));
    let fetcher = world.fetcher(&client, &[FAST, PROBE]).await;
    publish(world, &[1, 2]).await;
    publish(world, &[3]).await;
    until_down(world, fetcher, true).await;
    stop_at_once(world, fetcher).await;
    world.broker.until_ready(Queue::Fetch, 2).await;
    client.recover();
    world.fetcher(&client, &[FAST, PROBE]).await;
    world.database.until_ids(&[1, 2, 3]).await;
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}
