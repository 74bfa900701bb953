//! A database that is there, and takes no more connections, no writes, moves elsewhere, or is set to
//! promise less or wait for more.

use std::net::SocketAddr;
use std::time::Duration;

use tests::faults::{FaultWorld, Part};
use tests::proxy::{Network, Proxy};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

tests::cases![
    no_connection_to_the_database_left,
    a_database_that_turns_read_only,
    failover_to_another_address,
    commits_that_are_reported_before_they_are_on_disk,
    a_standby_that_never_answers,
];

const DATABASE_USERS: [Part; 3] = [Part::Fetcher, Part::OtherFetcher, Part::Janitor];

fn binary(part: Part) -> &'static str {
    if part == Part::Janitor {
        "janitor"
    } else {
        "fetcher"
    }
}

/// Starts the processes that use the database again, with another URL, and waits until they work.
async fn restart_with_url(world: &mut FaultWorld, url: impl Fn(&FaultWorld, SocketAddr) -> String) {
    for part in DATABASE_USERS {
        let url = url(world, world.network.database[binary(part)].address);
        world.stop(part).await;
        world.process(part).set_flag("database-url", &url);
        world.start(part).await;
    }
    world.back_at_work().await;
}

/// The limit is that of a role, because a superuser has none.
async fn no_connection_to_the_database_left(world: &mut FaultWorld) {
    let role = world.create_role("limited").await;
    restart_with_url(world, |world, address| {
        let url = world.database_url(address);
        let (_, place) = url.split_once('@').unwrap();
        format!("postgres://{role}:limited@{place}")
    })
    .await;
    let admin = world.database().await;
    let limit = async |connections: i32| {
        let limit = format!("alter role {role} connection limit {connections}");
        admin.batch_execute(&limit).await.unwrap();
    };
    limit(0).await;
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1";
    let ended = admin.query(terminate, &[&role]).await.unwrap();
    assert!(!ended.is_empty(), "nobody was connected");
    sleep(Duration::from_secs(2)).await;
    limit(-1).await;
    world.back_at_work().await;
}

/// Changes a setting of the whole server.
async fn alter_system(admin: &Client, change: &str) {
    for command in [&format!("alter system {change}"), "select pg_reload_conf()"] {
        admin.batch_execute(command).await.unwrap();
    }
}

/// As a primary that was demoted: its connections live on, and are good for nothing.
async fn a_database_that_turns_read_only(world: &mut FaultWorld) {
    let admin = world.database().await;
    let before = world.network.database["fetcher"].accepted();
    alter_system(&admin, "set default_transaction_read_only = on").await;
    sleep(Duration::from_secs(3)).await;
    let after = world.network.database["fetcher"].accepted();
    alter_system(&admin, "set default_transaction_read_only = off").await;
    world.back_at_work().await;
    assert!(after > before, "connections that cannot write were kept");
}

async fn failover_to_another_address(world: &mut FaultWorld) {
    let server = world.servers.database.address().await.unwrap();
    let second = Proxy::start(server).await;
    second.set(Network::Cut);
    let place = second.address;
    restart_with_url(world, |world, address| {
        let url = world.database_url(address);
        let (login, rest) = url.split_once('@').unwrap();
        format!("{login}@{place},{rest}?target_session_attrs=read-write")
    })
    .await;
    world.network.set_to_database(Network::Cut);
    second.set(Network::Pass);
    world.back_at_work().await;
    second.set(Network::Cut);
    world.network.set_to_database(Network::Pass);
    world.back_at_work().await;
}

/// The server keeps what it has reported in its own memory for ten seconds, and dies with it.
async fn commits_that_are_reported_before_they_are_on_disk(world: &mut FaultWorld) {
    let admin = world.database().await;
    alter_system(&admin, "set wal_writer_delay = '10s'").await;
    alter_system(&admin, "set synchronous_commit = off").await;
    world.back_at_work().await;
    world.kill(Part::Database).await;
    world.start(Part::Database).await;
    world.back_at_work().await;
    let admin = world.database().await;
    alter_system(&admin, "reset all").await;
}

/// Every commit waits for it, and goes on doing so at the server when it was given up here.
async fn a_standby_that_never_answers(world: &mut FaultWorld) {
    for part in DATABASE_USERS {
        world.stop(part).await;
        world.process(part).set_flag("database-timeout", "500ms");
        world.start(part).await;
    }
    world.back_at_work().await;
    let admin = world.database().await;
    alter_system(&admin, "set synchronous_standby_names = 'nobody'").await;
    let (begin, mut longest) = (Instant::now(), 0.0);
    while begin.elapsed() < Duration::from_secs(5) {
        let waiting = "
            select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8
            from pg_stat_activity where wait_event = 'SyncRep'";
        let waiting: f64 = admin.query_one(waiting, &[]).await.unwrap().get(0);
        longest = waiting.max(longest);
        sleep(Duration::from_millis(20)).await;
    }
    alter_system(&admin, "reset all").await;
    world.back_at_work().await;
    assert!(
        (0.4..2.5).contains(&longest),
        "a commit waited for {longest} s with its locks"
    );
}
