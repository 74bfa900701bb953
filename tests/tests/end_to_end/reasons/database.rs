//! Reasons of the database.

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tests::client::{ClientService, Reply};
use tests::tls::Authority;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{HTTP, REDIS, SMTP, assert_said, encrypted, place, serve, silent, stranger};
use crate::binaries::started;

/// `janitor` with this address of the database says what the row does.
async fn said_of(world: &World, url: &str, row: &str) {
    let flags = [
        format!("--database-url={url}"),
        "--database-timeout=1s".to_owned(),
    ];
    assert_said(world, "janitor", "database", &flags, (place(url), row)).await;
}

/// A PostgreSQL that refuses everybody with this error.
async fn refusing(code: &str, message: &str) -> u16 {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    let error = [b"E", &length[..], fields.as_bytes()].concat();
    serve(move |mut stream| {
        let error = error.clone();
        async move {
            drop(stream.read(&mut [0; 1_024]).await);
            drop(stream.write_all(&error).await);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_in_place_of_the_database_is_recognized() {
    let world = &mut World::new().await;
    let tls = encrypted(&Authority::new("unknown")).await;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let other = "does not speak PostgreSQL's protocol…; are host and port right?";
    let mut cases = vec![
        (local(stranger(HTTP, true).await), other),
        (local(stranger(HTTP, false).await), other),
        (local(stranger(REDIS, true).await), other),
        (local(stranger(SMTP, false).await), other),
        (place(&world.amqp_url).to_owned(), other),
        (
            local(tls),
            "does not speak PostgreSQL's protocol but TLS…; PostgreSQL begins without TLS",
        ),
        (
            local(silent().await),
            "no answer within …; does the server hang",
        ),
    ];
    cases.extend(world.management.map(|address| (address.to_string(), other)));
    for (place, row) in cases {
        for query in ["", "?sslmode=require"] {
            said_of(
                world,
                &format!("postgres://user:hidden-word@{place}/db{query}"),
                row,
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_or_refuses_is_said_to() {
    let world = &mut World::new().await;
    let url = world.database.url.clone();
    let (server, _) = url.rsplit_once('/').unwrap();
    let real = place(&url);
    let no_encryption =
        "no pg_hba.conf entry for host \"10.0.0.7\", user \"user\", database \"db\", no encryption";
    let hostssl = refusing("28000", no_encryption).await;
    for (url, row) in [
        (
            "postgres://user:hidden-word@127.0.0.1:1/db".to_owned(),
            "Connection refused…; nothing listens there",
        ),
        (
            "postgres://user:hidden-word@host.invalid:5432/db".to_owned(),
            "failed to lookup …; no such name",
        ),
        (
            format!("postgres://nobody:hidden-word@{real}/postgres"),
            "FATAL: …(28…; are DATABASE_USERNAME and DATABASE_PASSWORD",
        ),
        (
            format!("{server}/no_such_database"),
            "does not exist (3D000); create the database",
        ),
        (
            format!("postgres://user:hidden-word@{real}/db?sslmode=require"),
            "server does not support TLS; turn ssl on",
        ),
        (
            format!("postgres://user:hidden-word@127.0.0.1:{hostssl}/db"),
            "no encryption (28000); add ?sslmode=require",
        ),
    ] {
        said_of(world, &url, row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_connections_left_is_told_so() {
    let world = &mut World::new().await;
    let url = world.database.create_role().await;
    let (_, name) = world.database.url.rsplit_once('/').unwrap();
    let none = format!("alter role {name} connection limit 0");
    world.database.client.batch_execute(&none).await.unwrap();
    said_of(world, &url, "(53300); end some of its connections").await;
}

/// A fetcher has a row to store, which the database refuses once it is told to by `refuse`.
async fn assert_said_of_a_row(refuse: &str, url: Option<String>, row: &str) {
    let world = &mut World::new().await;
    let janitor = world.janitor(&[]).await;
    world.running(janitor).stop().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let role = world.database.create_role().await;
    let url = url.map_or(world.database.url.clone(), |_| role);
    world.database.client.batch_execute(refuse).await.unwrap();
    let flags = [
        format!("--client-url={}", client.url),
        format!("--database-url={url}"),
    ];
    let mut fetcher = started(world, "fetcher", &flags.each_ref().map(String::as_str)).await;
    fetcher
        .until_logged("up dependency=\"broker (consuming)\"")
        .await;
    let chunk = FetchChunk {
        object_ids: vec![ObjectId(1)],
    };
    let headers = Headers::default();
    world.broker.publish(Queue::Fetch, &chunk, &headers).await;
    let line = fetcher.until_logged("down dependency=\"database\"").await;
    assert!(
        super::says(&line, row) && line.contains(place(&url)),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_store_rows_is_told_so() {
    let row = "permission denied for table objects (42501); run setup";
    assert_said_of_a_row("select 1", Some(String::new()), row).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_database_is_said() {
    let full = "
        create function fill() returns trigger language plpgsql as $$ begin
            raise exception using errcode = '53100', message = 'could not extend file: No space left on device';
        end $$;
        create trigger fill before insert on objects for each row execute function fill()";
    assert_said_of_a_row(full, None, "(53100); make room on the database's disk").await;
}
