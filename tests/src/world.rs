//! The world of one test: a private database and queue prefix on the shared servers, and the
//! processes that it starts there. Nothing of it is left behind, also when the test fails.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{QueuePrefix, Topology};
use process::{ProcessConfig, ProcessContext};
use settings::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use crate::client::ClientService;
use crate::processes::{Instance, configure};
use crate::proxy::Proxy;
use crate::servers::Servers;
use crate::servers::broker::Broker;
use crate::servers::database::Database;
use crate::servers::server::host_of;
use crate::wait::BOUND;

/// How long one test may take.
const TEST_BOUND: Duration = Duration::from_mins(3);

/// The world of one test. It is removed when it is dropped, within a runtime of several threads.
pub struct World {
    /// Address of the broker.
    pub amqp_url: String,
    /// The test's database.
    pub database: Database,
    /// The test's view of the broker.
    pub broker: Broker,
    /// Where the broker's metrics can be read, if they can.
    pub broker_metrics: Option<SocketAddr>,
    /// Where the broker's management API is, if it is known.
    pub management: Option<SocketAddr>,
    server_url: String,
    name: String,
    queues: BTreeSet<String>,
    /// Folder of the spools, removed with the world.
    spool: TempDir,
    instances: Vec<Instance>,
}

impl World {
    /// The world of the test that calls this, which must end in time from now on.
    pub async fn new() -> Self {
        let servers = block_in_place(Servers::shared).unwrap();
        end_run_if_late();
        let mut world = Self::create(servers).await;
        world.spool = folder_in_memory();
        world
    }

    /// Creates a database and picks a queue prefix. The spools are on the disk, as in production.
    pub async fn create(servers: &Servers) -> Self {
        let name = unique_name();
        let database = Database::create(&servers.database_url, &name).await;
        let prefix = <QueuePrefix as Value>::parse(&format!("{name}.")).unwrap();
        let broker = Broker::new(&servers.amqp_url, Topology::new(&prefix)).await;
        Self {
            amqp_url: servers.amqp_url.clone(),
            broker_metrics: servers.broker_metrics,
            management: servers.management,
            server_url: servers.database_url.clone(),
            queues: broker.topology.queue_names().into_iter().collect(),
            spool: TempDir::new().unwrap(),
            instances: Vec::new(),
            name,
            database,
            broker,
        }
    }

    /// Stops what runs and removes the database, the queues and the exchange.
    async fn remove(&mut self) {
        for instance in &mut self.instances {
            instance.kill().await;
        }
        for queue in &self.queues {
            self.broker.delete(queue).await;
        }
        self.broker.delete_exchange().await;
        Database::drop(&self.server_url, &self.name).await;
    }

    /// What the names of the test's queues begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}.", self.name)
    }

    /// Flags that lead a process to the test's queues.
    #[must_use]
    pub fn broker_flags(&self) -> Vec<String> {
        vec![
            format!("--amqp-url={}", self.amqp_url),
            format!("--queue-prefix={}", self.prefix()),
        ]
    }

    /// Flags that lead `ingest` to the test's queues and spool.
    #[must_use]
    pub fn ingest_flags(&self) -> Vec<String> {
        let mut flags = self.broker_flags();
        flags.push(format!("--spool-directory={}", self.spool().display()));
        flags
    }

    /// Folder of the test's spool.
    #[must_use]
    pub fn spool(&self) -> &Path {
        self.spool.path()
    }

    /// Flags that lead a process to the test's queues and database.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut flags = self.broker_flags();
        flags.push(format!("--database-url={}", self.database.url));
        flags
    }

    /// A proxy to the broker, and the flag that leads a process through it.
    pub async fn broker_proxy(&self) -> (Proxy, String) {
        let (proxy, url) = proxied(&self.amqp_url).await;
        (proxy, format!("--amqp-url={url}"))
    }

    /// Notes the queues of `topology`, so that they are deleted in the end.
    pub fn will_use(&mut self, topology: &Topology) {
        self.queues.extend(topology.queue_names());
    }

    /// Starts `ingest` and waits until it is ready; returns its address.
    pub async fn ingest(&mut self, flags: &[&str]) -> SocketAddr {
        let (address, started) = self.start_ingest(flags).await;
        self.instances[started].ready().await;
        address
    }

    /// Starts `ingest`; returns its address, and its place among what runs.
    pub async fn start_ingest(&mut self, flags: &[&str]) -> (SocketAddr, usize) {
        // Long enough for the broker of a busy machine: what goes to the spool is published twice.
        let mut own = self.ingest_flags();
        own.push("--publish-timeout=30s".to_owned());
        let config = configure::<ingest::Config>(own, flags);
        let (listener, address) = listen().await;
        let started = self.start(&config, |config, context| {
            ingest::run(config, listener, context)
        });
        (address, started)
    }

    /// Starts `fetcher` on a client service and waits until it is ready; returns its place among
    /// what runs.
    pub async fn fetcher(&mut self, client: &ClientService, flags: &[&str]) -> usize {
        let started = self.start_fetcher(client, flags);
        self.instances[started].ready().await;
        started
    }

    /// Starts `fetcher` on a client service; returns its place among what runs.
    pub fn start_fetcher(&mut self, client: &ClientService, flags: &[&str]) -> usize {
        let mut own = self.flags();
        // Long enough for answers that a test holds back; a test that is about less says so.
        own.push("--fetch-timeout=60s".to_owned());
        own.push(format!("--client-url={}", client.url));
        let config = configure::<fetcher::Config>(own, flags);
        self.will_use(&fetcher::topology(&config));
        self.start(&config, fetcher::run)
    }

    /// Starts `janitor` and waits until it is ready; returns its place among what runs.
    pub async fn janitor(&mut self, flags: &[&str]) -> usize {
        let started = self.start_janitor(flags);
        self.instances[started].ready().await;
        started
    }

    /// Starts `janitor`; returns its place among what runs.
    pub fn start_janitor(&mut self, flags: &[&str]) -> usize {
        let config = configure::<janitor::Config>(self.flags(), flags);
        self.start(&config, janitor::run)
    }

    /// Starts `mock-client`; returns its address.
    pub async fn mock_client(&mut self, flags: &[&str]) -> SocketAddr {
        let config = configure::<mock_client::Config>(Vec::new(), flags);
        let (listener, address) = listen().await;
        self.start(&config, |config, context| {
            mock_client::run(config, listener, context)
        });
        address
    }

    fn start<C, F>(&mut self, config: &C, run: impl FnOnce(C, ProcessContext) -> F) -> usize
    where
        C: ProcessConfig + Clone,
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.instances.push(Instance::start(config, run));
        self.instances.len() - 1
    }

    /// The instance at the `started`th place.
    #[must_use]
    pub fn running(&mut self, started: usize) -> &mut Instance {
        &mut self.instances[started]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let remove = || Handle::current().block_on(timeout(BOUND, self.remove()));
        let removed = catch_unwind(AssertUnwindSafe(|| block_in_place(remove).unwrap()));
        // The test's own panic goes first: a second one would end the whole run.
        if let Err(panic) = removed
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// Ends the run when the test of this thread takes too long. Its waits are bounded, so that it hangs
/// in another way, and nothing else would end it.
#[expect(
    clippy::disallowed_methods,
    reason = "a test that hangs leaves no orderly way"
)]
fn end_run_if_late() {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    tokio::spawn(async move {
        sleep(TEST_BOUND).await;
        // Directly, because the harness shows the output of a test only when the test has failed.
        let late = format!("{test} is not done after {TEST_BOUND:?}\n");
        std::io::stderr().write_all(late.as_bytes()).ok();
        std::process::exit(101);
    });
}

/// A folder that is in memory, where the system has a place for such: a disk that is busy with what a
/// build has written can take longer for a write than `ingest` waits.
pub(crate) fn folder_in_memory() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

/// A proxy to the server at `url`, and its URL by way of it.
pub async fn proxied(url: &str) -> (Proxy, String) {
    let host = host_of(url);
    let mut addresses = tokio::net::lookup_host(host).await.unwrap();
    let proxy = Proxy::start(addresses.find(SocketAddr::is_ipv4).unwrap()).await;
    let url = url.replacen(host, &proxy.address.to_string(), 1);
    (proxy, url)
}

/// A listener on a port that the system chooses.
async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "test_{}_{}_{count}",
        std::process::id(),
        elapsed.as_micros()
    )
}
