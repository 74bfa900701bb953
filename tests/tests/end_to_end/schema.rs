//! The schema of the database: what creates it, and what a process says when it is missing.

use tests::client::{ClientService, Reply, post_ids};
use tests::processes::{Process, output};
use tests::world::World;

use crate::binaries::{flags, replaced};

const MIGRATED: &str = "select max(version)::bigint from objects_schema";

/// Lays the schema by another process, which ends.
async fn lay(world: &mut World) {
    let janitor = world.janitor(&[]).await;
    world.running(janitor).stop().await;
}

/// A callback's object has a row, by way of a role with this URL.
async fn assert_stores(world: &mut World, url: &str) {
    let client = ClientService::start(|_, _| Reply::Online).await;
    let flag = format!("--database-url={url}");
    world.fetcher(&client, &[&flag]).await;
    world.janitor(&[&flag]).await;
    let ingest = world.ingest(&[]).await;
    post_ids(ingest, &[1]).await;
    world.database.until_ids(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_worked_with() {
    let world = &mut World::new().await;
    lay(world).await;
    let client = &world.database.client;
    let newer = "insert into objects_schema (version) values (99)";
    client.batch_execute(newer).await.unwrap();
    let url = world.database.url.clone();
    assert_stores(world, &url).await;
    assert_eq!(world.database.number(MIGRATED).await, 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_another_program_is_left_alone() {
    let world = &mut World::new().await;
    let client = &world.database.client;
    let history = "
        create table refinery_schema_history (
            version int4 primary key, name varchar(255), applied_on varchar(255), checksum varchar(255)
        );
        insert into refinery_schema_history
        values (1, 'users', '2026-01-01T00:00:00Z', '1'), (7, 'orders', '2026-01-01T00:00:00Z', '7')";
    client.batch_execute(history).await.unwrap();
    let url = world.database.url.clone();
    assert_stores(world, &url).await;
    let others = "select count(*) from refinery_schema_history";
    assert_eq!(world.database.number(others).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_from_before_the_migration_history_is_recognized() {
    let world = &mut World::new().await;
    let first = include_str!("../../../shared/database/migrations/V1__objects.sql");
    world.database.client.batch_execute(first).await.unwrap();
    let row = "insert into objects values (7, now(), now() + interval '1 h')";
    world.database.client.batch_execute(row).await.unwrap();
    world.janitor(&[]).await;
    assert_eq!(world.database.ids().await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_change_rows_is_enough_once_the_schema_exists() {
    let world = &mut World::new().await;
    lay(world).await;
    let url = world.database.create_role().await;
    world.database.grant_rows().await;
    assert_stores(world, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_not_create_the_missing_schema_says_so() {
    let world = &mut World::new().await;
    let url = world.database.create_role().await;
    let janitor = world.start_janitor(&[&format!("--database-url={url}")]);
    world
        .running(janitor)
        .until_down("database", "the schema is missing, and the role test_")
        .await;
    world
        .running(janitor)
        .until_down("database", "run setup as a role that may")
        .await;
    lay(world).await;
    world.database.grant_rows().await;
    world.running(janitor).ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_program_is_named_as_the_reason() {
    let world = &mut World::new().await;
    let client = &world.database.client;
    client
        .batch_execute("create table objects (name text)")
        .await
        .unwrap();
    let janitor = world.start_janitor(&[]);
    world
        .running(janitor)
        .until_down("database", r#"relation "objects" already exists"#)
        .await;
    let client = &world.database.client;
    client.batch_execute("drop table objects").await.unwrap();
    world.running(janitor).ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_back_empty_is_said_once_and_healed() {
    let world = &mut World::new().await;
    let mut process = Process::started("janitor", &flags(world, "janitor"));
    process.until_logged(r#"up dependency="database""#).await;
    world.database.recreate().await;
    process.until_logged("laid the schema").await;
    // Without the right to create it, until another process has created it.
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
    let url = world.database.create_role().await;
    world.database.grant_rows().await;
    let flag = format!("--database-url={url}");
    let mut process = Process::started("janitor", &replaced(flags(world, "janitor"), &[flag]));
    process.until_logged(r#"up dependency="database""#).await;
    world
        .database
        .client
        .batch_execute("drop table objects cascade")
        .await
        .unwrap();
    process.until_logged("the schema is missing").await;
    lay(world).await;
    world.database.grant_rows().await;
    process.until_logged(r#"up dependency="database""#).await;
    process.signal("TERM").await;
    process.end().await;
    let changes = process
        .lines
        .iter()
        .filter(|line| line.contains(r#"dependency="database""#));
    assert_eq!(changes.count(), 3, "{:#?}", process.lines);
}

/// Flags of `setup`, which declares the delay queues too.
fn flags_of_setup(world: &mut World) -> Vec<String> {
    let flags = world.flags();
    let config = tests::processes::configure(flags.clone(), &[]);
    world.will_use(&fetcher::topology(&config));
    flags
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_creates_the_schema_and_ends() {
    let world = &mut World::new().await;
    let flags = flags_of_setup(world);
    for _ in 0..2 {
        let ended = output("setup", &flags, &[]).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
    assert!(world.database.number(MIGRATED).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_says_what_it_waits_for_and_what_it_may_not_do() {
    let world = &mut World::new().await;
    let flags = flags_of_setup(world);
    let name = world.database.url.rsplit_once('/').unwrap().1;
    let admin = &world.database.client;
    let read_only = format!("alter database {name} set default_transaction_read_only = on");
    admin.batch_execute(&read_only).await.unwrap();
    let waiting = output("setup", &flags, &[]);
    let reset = async {
        // Whichever comes first: it has looked, or not yet.
        let reset = "set default_transaction_read_only = off;
                     alter database {} reset default_transaction_read_only";
        admin
            .batch_execute(&reset.replace("{}", name))
            .await
            .unwrap();
    };
    let (ended, ()) = tokio::join!(waiting, reset);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");

    admin
        .batch_execute("drop table objects cascade")
        .await
        .unwrap();
    let flag = format!("--database-url={}", world.database.create_role().await);
    let ended = output("setup", &replaced(flags, &[flag]), &[]).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("may not lay it"), "{said}");
}
