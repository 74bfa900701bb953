//! Access to the database: behind a pooler, over slow and failing networks, and by statements that are
//! given up.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tempfile::TempDir;
use tests::client::{ClientService, Reply, post_ids};
use tests::proxy::{Network, Proxy};
use tests::servers::programs;
use tests::wait::eventually;
use tests::world::{World, proxied};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};

/// A pooler in transaction mode, with two connections to the server for all of its clients. It is killed
/// when dropped.
struct Pooler {
    _child: Child,
    folder: TempDir,
}

impl Pooler {
    async fn start(database_url: &str) -> Self {
        let url: tokio_postgres::Config = database_url.parse().unwrap();
        let folder = TempDir::new().unwrap();
        let path = folder.path().display();
        // As root it would not run.
        let configuration = format!(
            "[databases]\n* = host={} port={} user={} password={}\n\
             [pgbouncer]\npool_mode = transaction\ndefault_pool_size = 2\nauth_type = any\n\
             listen_addr =\nlisten_port = 5432\nunix_socket_dir = {path}\n{}",
            place(database_url).split(':').next().unwrap(),
            url.get_ports()[0],
            url.get_user().unwrap(),
            String::from_utf8_lossy(url.get_password().unwrap_or_default()),
            if is_root() { "user = nobody\n" } else { "" },
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, configuration).unwrap();
        open_to_all(folder.path());
        let child = Command::new(programs::find("pgbouncer").expect("pgbouncer is installed"))
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pooler = Self {
            _child: child,
            folder,
        };
        let socket = pooler.folder.path().join(".s.PGSQL.5432");
        eventually("the pooler to listen", async || {
            UnixStream::connect(&socket).await.ok()
        })
        .await;
        pooler
    }

    /// The URL of `database_url` by way of the pooler.
    fn url(&self, database_url: &str) -> String {
        let (_, name) = database_url.rsplit_once('/').unwrap();
        let folder = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://pooled@{folder}/{name}")
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn open_to_all(folder: &std::path::Path) {
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder, all).unwrap();
}

async fn publish(world: &World, id: i64) {
    let chunk = FetchChunk {
        object_ids: vec![ObjectId(id)],
    };
    world
        .broker
        .publish(Queue::Fetch, &chunk, &Headers::default())
        .await;
}

/// The URL with other hosts in it.
fn at(url: &str, hosts: &str) -> String {
    let (login, rest) = url.split_once('@').unwrap();
    let (_, name) = rest.split_once('/').unwrap();
    format!("--database-url={login}@{hosts}/{name}")
}

fn place(url: &str) -> &str {
    url.split_once('@').unwrap().1.split('/').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_works_behind_pgbouncer() {
    if programs::is_missing("pgbouncer") {
        return;
    }
    let world = &mut World::new().await;
    let pooler = Pooler::start(&world.database.url).await;
    let flag = format!("--database-url={}", pooler.url(&world.database.url));
    let client = ClientService::start(|_, _| Reply::Online).await;
    // It lays the schema, by one of the two connections of the pooler.
    world.janitor(&[&flag]).await;
    let mut started = vec![world.start_janitor(&[&flag])];
    for _ in 0..2 {
        started.push(world.start_fetcher(&client, &[&flag, "--object-ttl=1s", "--write-batch=5"]));
    }
    for place in started {
        world.running(place).ready().await;
    }
    world.database.record_deletions().await;
    let ingest = world.ingest(&[]).await;
    for first in 0..20 {
        let ids: Vec<i64> = (first * 10..first * 10 + 10).collect();
        post_ids(ingest, &ids).await;
    }
    let deleted = "select count(distinct id) from deletions where late between 0 and 5";
    eventually("all rows to be stored and deleted", async || {
        (world.database.number(deleted).await == 200).then_some(())
    })
    .await;
}

/// A connection takes several round trips, which take longer together than a statement may.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_made_over_a_slow_network() {
    let world = &mut World::new().await;
    let (proxy, url) = proxied(&world.database.url).await;
    proxy.set(Network::Slow(Duration::from_millis(150)));
    let flag = format!("--database-url={url}");
    world.janitor(&[&flag, "--database-timeout=900ms"]).await;
}

/// It takes connections, as a process does that is stopped, and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_is_passed_over() {
    let world = &mut World::new().await;
    let url = world.database.url.clone();
    let (first, _) = proxied(&url).await;
    first.set(Network::Hang);
    let hosts = format!("{},{}", first.address, place(&url));
    let flags = [at(&url, &hosts), "--database-timeout=1s".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let client = ClientService::start(|_, _| Reply::Online).await;
    let hung = world.fetcher(&client, &flags).await;
    world.running(hung).stop().await;

    // One that begins to hang later.
    first.set(Network::Pass);
    world.fetcher(&client, &flags).await;
    publish(world, 1).await;
    world.database.until_ids(&[1]).await;
    first.set(Network::Hang);
    publish(world, 2).await;
    world.database.until_ids(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_silent_at_the_start_is_waited_for() {
    let world = &mut World::new().await;
    let (proxy, url) = proxied(&world.database.url).await;
    proxy.set(Network::Hang);
    let flag = format!("--database-url={url}");
    let janitor = world.start_janitor(&[&flag, "--database-timeout=500ms"]);
    world
        .running(janitor)
        .until_down("database", "no answer within 500ms")
        .await;
    proxy.set(Network::Pass);
    world.running(janitor).ready().await;
    // It falls silent between the connection and the schema.
    let (proxy, url) = proxied(&world.database.url).await;
    let flag = format!("--database-url={url}");
    let janitor = world.start_janitor(&[&flag, "--database-timeout=500ms"]);
    eventually("a connection", async || {
        (proxy.accepted() > 0).then_some(())
    })
    .await;
    proxy.forget();
    world.running(janitor).ready().await;
}

/// A server that refuses everybody for as long as it starts.
async fn starting_up() -> SocketAddr {
    const REFUSAL: &[u8] = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let length = u32::try_from(REFUSAL.len() + 4).unwrap().to_be_bytes();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 8];
            drop(stream.read_exact(&mut hello).await);
            drop(
                stream
                    .write_all(&[b"E", &length[..], REFUSAL].concat())
                    .await,
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_restarts_is_waited_for() {
    let world = &mut World::new().await;
    let proxy = Proxy::start(starting_up().await).await;
    let url = world.database.url.clone();
    let janitor = world.start_janitor(&[&at(&url, &proxy.address.to_string())]);
    world
        .running(janitor)
        .until_down("database", "the database system is starting up (57P03)")
        .await;
    proxy.lead_to(
        tokio::net::lookup_host(place(&url))
            .await
            .unwrap()
            .next()
            .unwrap(),
    );
    world.running(janitor).ready().await;
}

async fn set_read_only(world: &World, setting: &str) {
    let (_, name) = world.database.url.rsplit_once('/').unwrap();
    let alter = format!("alter database {name} set default_transaction_read_only = {setting}");
    let alter = ["set default_transaction_read_only = off", &alter].join(";");
    world.database.client.batch_execute(&alter).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_only_be_read_is_waited_for() {
    let world = &mut World::new().await;
    set_read_only(world, "on").await;
    let janitor = world.start_janitor(&[]);
    world
        .running(janitor)
        .until_down("database", "the database can only be read")
        .await;
    set_read_only(world, "off").await;
    world.running(janitor).ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_given_up_is_cancelled_at_the_server() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let flags = ["--database-timeout=300ms", "--write-concurrency=1"];
    let fetcher = world.fetcher(&client, &flags).await;
    let mut admin = tests::servers::database::connect(&world.database.url)
        .await
        .unwrap();
    let lock = admin.transaction().await.unwrap();
    lock.batch_execute("lock table objects").await.unwrap();
    publish(world, 1).await;
    world
        .running(fetcher)
        .until_down("database", "the database took too long")
        .await;
    let mut attempts = Vec::new();
    eventually("a statement to be tried four times", async || {
        let waiting = "select coalesce(array_agg(pid::bigint), '{}') from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let row = world.database.client.query_one(waiting, &[]).await.unwrap();
        let waiting: Vec<i64> = row.get(0);
        assert!(waiting.len() <= 2, "{waiting:?} wait for the lock");
        attempts.extend(waiting);
        // All is well but that nothing is stored.
        assert!(!world.running(fetcher).is_ready(), "the database is up");
        attempts.sort_unstable();
        attempts.dedup();
        (attempts.len() >= 4).then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
    world.database.until_ids(&[1]).await;
    world.running(fetcher).ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_arrives_after_it_was_given_up_does_nothing() {
    let world = &mut World::new().await;
    let url = world.database.url.clone();
    let (first, _) = proxied(&url).await;
    let hosts = format!("{},{}", first.address, place(&url));
    let client = ClientService::start(|_, _| Reply::Online).await;
    world
        .fetcher(&client, &[&at(&url, &hosts), "--database-timeout=500ms"])
        .await;
    let held = world.database.number(BACKENDS).await;
    assert!(held > 0, "the fetcher is connected");
    // What is sent is held on its way, until it was sent once more on another one.
    first.set(Network::Hang);
    publish(world, 1).await;
    world.database.until_ids(&[1]).await;
    let seen = "select (extract(epoch from last_seen) * 1e6)::bigint from objects";
    let seen_first = world.database.number(seen).await;
    let others = world.database.number(BACKENDS).await - held;
    first.set(Network::Pass);
    eventually(
        "what was held to arrive, and its connections to end",
        async || (world.database.number(BACKENDS).await <= others).then_some(()),
    )
    .await;
    assert_eq!(world.database.number(seen).await, seen_first);
}

/// How many connections the fetcher has at the server.
const BACKENDS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'fetcher'";
