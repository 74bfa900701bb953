//! What is down stays down until the thing that failed works again, and is said to be so once.

use tests::client::{ClientService, Reply, post_ids};
use tests::processes::{Process, address_in, output};
use tests::wait::eventually;
use tests::world::World;

use crate::binaries::{flags, replaced, started};
use crate::privileges::{Users, rabbitmqctl};

/// How often the log says that the dependency went down, and that it came up.
fn turns(process: &Process, dependency: &str) -> (usize, usize) {
    let log = process.log();
    let count = |turn: &str| {
        let line = format!("dependency is {turn} dependency=\"{dependency}\"");
        log.matches(&line).count()
    };
    (count("down"), count("up"))
}

/// Posts callbacks until the process has met the broker `sessions` times more.
async fn post_over_sessions(
    broker_sessions: impl AsyncFn() -> usize,
    address: std::net::SocketAddr,
) {
    let begun = broker_sessions().await;
    eventually("several connections to the broker", async || {
        post_ids(address, &[1]).await;
        (broker_sessions().await >= begun + 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_nothing_from_the_user_is_down_once_and_heals() {
    let world = &mut World::new().await;
    let users = Users::create(world).await;
    world.broker.declare().await;
    let user = users.broker_user("ingest");
    let may_write = async |what: &str| {
        rabbitmqctl(&["set_permissions", "-p", "/", &user, "^$", what, ".*"]).await;
    };
    may_write("^$").await;
    let (proxy, url) = tests::world::proxied(&users.amqp_url("ingest")).await;
    let mut own = flags(world, "ingest");
    own.push("--publish-timeout=200ms".to_owned());
    let mut ingest = Process::started("ingest", &replaced(own, &[format!("--amqp-url={url}")]));
    ingest.until_logged("up dependency=\"broker\"").await;
    let address = ingest.address_in_log("accepting callbacks").await;
    post_over_sessions(async || proxy.accepted(), address).await;
    assert_eq!(turns(&ingest, "broker"), (1, 1), "{}", ingest.log());
    let log = ingest.log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("down dependency=\"broker\""));
    let row = "ACCESS_REFUSED …; give the user the rights";
    assert!(line.is_some_and(|line| super::says(line, row)), "{log}");

    may_write(".*").await;
    ingest.until_logged("up dependency=\"broker\"").await;
    assert_eq!(turns(&ingest, "broker"), (1, 2), "{}", ingest.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_the_user_may_not_read_is_down_once_and_heals() {
    let world = &mut World::new().await;
    let users = Users::create(world).await;
    world.broker.declare().await;
    let user = users.broker_user("janitor");
    let may_read = async |what: &str| {
        rabbitmqctl(&["set_permissions", "-p", "/", &user, "^$", ".*", what]).await;
    };
    may_read("^$").await;
    let (proxy, url) = tests::world::proxied(&users.amqp_url("janitor")).await;
    let own = replaced(flags(world, "janitor"), &[format!("--amqp-url={url}")]);
    let mut janitor = Process::started("janitor", &own);
    janitor
        .until_logged("down dependency=\"broker (consuming)\"")
        .await;
    eventually("several connections", async || {
        (proxy.accepted() >= 6).then_some(())
    })
    .await;
    assert_eq!(
        turns(&janitor, "broker (consuming)"),
        (1, 0),
        "{}",
        janitor.log()
    );
    may_read(".*").await;
    janitor
        .until_logged("up dependency=\"broker (consuming)\"")
        .await;
    assert_eq!(
        turns(&janitor, "broker (consuming)"),
        (1, 1),
        "{}",
        janitor.log()
    );
}

/// Processes whose role may not lay the schema, while rows are stored and deleted.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_gone_under_load_are_missed_once_and_found_again() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let janitor = world.janitor(&[]).await;
    world.running(janitor).stop().await;
    let url = world.database.create_role().await;
    world.database.grant_rows().await;
    let role = format!("--database-url={url}");
    let of_client = format!("--client-url={}", client.url);
    let fetching = [role.as_str(), of_client.as_str(), "--object-ttl=1s"];
    let mut processes = Vec::new();
    for (binary, more) in [("fetcher", &fetching[..]), ("janitor", &fetching[..1])] {
        let mut process = started(world, binary, more).await;
        process
            .until_logged("up dependency=\"broker (consuming)\"")
            .await;
        processes.push(process);
    }
    let ingest = world.ingest(&[]).await;
    post_ids(ingest, &[1]).await;
    world.database.until_ids(&[1]).await;
    let dropped = "drop table objects, objects_schema cascade";
    world.database.client.batch_execute(dropped).await.unwrap();
    for process in &mut processes {
        post_ids(ingest, &[2, 3]).await;
        let admin = address_in(&process.lines[0]);
        process.until_logged("down dependency=\"database\"").await;
        eventually("it to be unready", async || {
            let answer = tests::client::exchange(admin, b"GET /readyz HTTP/1.0\r\n\r\n").await;
            answer.contains(" 503 ").then_some(())
        })
        .await;
    }
    // Statements go on to fail.
    let failed = "select xact_rollback from pg_stat_database where datname = current_database()";
    let begun = world.database.number(failed).await;
    eventually("further statements to fail", async || {
        post_ids(ingest, &[4]).await;
        (world.database.number(failed).await >= begun + 20).then_some(())
    })
    .await;
    let flags = world.flags();
    let set_up = output("setup", &flags, &[]).await;
    assert_eq!(set_up.status.code(), Some(0), "{set_up:?}");
    world.database.grant_rows().await;
    for process in &mut processes {
        process.until_logged("up dependency=\"database\"").await;
    }
    post_ids(ingest, &[100]).await;
    let gone = "select count(*) from objects";
    eventually("the rows to come and go", async || {
        (world.database.number(gone).await == 0).then_some(())
    })
    .await;
    for process in &processes {
        assert_eq!(turns(process, "database"), (1, 2), "{}", process.log());
    }
}
