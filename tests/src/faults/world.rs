//! The world of a fault case: the pipeline as it runs in production, in small, with its binaries, a
//! network that can fail, servers that can be killed, and load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use broker::Topology;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::client_service;
use super::ledger::{self, AnswerRecord, Ledger, Verdict};
use super::load::Load;
use super::network::{Configuration, ProxiedNetwork, in_database};
use super::{Allowed, Mood, Part};
use crate::processes::Process;
use crate::proxy::Proxy;
use crate::servers::Servers;
use crate::servers::broker::Broker;
use crate::servers::database::{self, Database};
use crate::wait::{BOUND, eventually};
use crate::world::{folder_in_memory, unique_name};

/// How long a row lives here.
pub const OBJECT_TTL: Duration = Duration::from_secs(2);

/// The default of RabbitMQ 4.
pub const MEMORY_WATERMARK: &str = "0.6";

/// RabbitMQ's own, in milliseconds: how long it waits for an ack, and how often it looks.
pub const ACK_TIMEOUT: u32 = 1_800_000;
/// See [`ACK_TIMEOUT`].
pub const ACK_TICK: u32 = 60_000;

/// The sweep takes rows so late that it cannot pass for a janitor that is back in time.
const SWEEP_GRACE: &str = "12s";

/// The folder of the spool, in that of the world: a case moves it away.
const SPOOL: &str = "spool";

/// How long it may take after the last fault until nothing is under way any more.
const SETTLE_BOUND: Duration = Duration::from_secs(90);

/// The world of one fault case.
pub struct FaultWorld {
    /// The servers of the run.
    pub servers: &'static Servers,
    /// The proxies between the parts.
    pub network: ProxiedNetwork,
    /// How the client service answers.
    pub mood: watch::Sender<Mood>,
    /// The callbacks that come in.
    pub load: Load,
    /// The longest that it took to be back at work.
    pub back_after: Option<Duration>,
    /// What may happen in this case.
    pub allowed: Allowed,
    /// What else there is to say about the case.
    pub notes: Vec<String>,
    /// The pipeline's processes.
    pub processes: BTreeMap<Part, Process>,
    /// The pipeline's queues.
    pub topology: Topology,
    /// Why the case cannot be run here.
    pub skipped: Option<String>,
    ledger: Ledger,
    /// When the queues were declared.
    pub(crate) declared: Instant,
    name: String,
    answers: AnswerRecord,
    folder: TempDir,
}

impl FaultWorld {
    /// Starts everything, and returns when rows are stored.
    pub async fn create(servers: &'static Servers) -> Self {
        let name = unique_name();
        let database = Database::create(&servers.database.url().await.unwrap(), &name).await;
        let (mood, answers) = (watch::Sender::new(Mood::Honest), AnswerRecord::default());
        let client = client_service::start(mood.subscribe(), answers.clone()).await;
        let network = ProxiedNetwork::start(servers, &client.url).await;
        let folder = folder_in_memory();
        let configuration = Configuration {
            servers,
            network: &network,
            world: &name,
        };
        let mut world = Self {
            processes: configuration.processes(&folder.path().join(SPOOL)),
            topology: configuration.topology(),
            load: Load::new(network.ingest.address),
            servers,
            network,
            mood,
            back_after: None,
            allowed: Allowed::default(),
            notes: Vec::new(),
            skipped: None,
            ledger: Ledger::default(),
            declared: Instant::now(),
            name,
            answers,
            folder,
        };
        world.start_processes(&database.client).await;
        world
    }

    /// The first process makes the table; the ledger's triggers are set before anything is stored.
    async fn start_processes(&mut self, client: &Client) {
        self.broker().await.declare().await;
        self.declared = Instant::now();
        self.process(Part::Janitor)
            .set_flag("sweep-grace", SWEEP_GRACE);
        self.start(Part::Janitor).await;
        eventually("the table of the objects", async || {
            let table = client
                .query_one("select to_regclass('objects')::text", &[])
                .await;
            table.unwrap().get::<_, Option<String>>(0)
        })
        .await;
        ledger::record(client).await;
        for part in [Part::Fetcher, Part::OtherFetcher, Part::Ingest] {
            self.start(part).await;
        }
        self.load.resume();
        self.until_back().await;
    }

    /// A connection of the tests' own to the database, past all faults of the network.
    pub async fn database(&self) -> Client {
        self.try_database().await.unwrap()
    }

    async fn try_database(&self) -> anyhow::Result<Client> {
        let url = self.servers.database.url().await?;
        database::connect(&in_database(&url, &self.name)).await
    }

    /// The URL of the world's database, by way of `address`.
    #[must_use]
    pub fn database_url(&self, address: SocketAddr) -> String {
        in_database(&self.servers.database.url_at(address), &self.name)
    }

    /// Creates a role with the name of the world's database, which can do there what the processes
    /// need. Returns its name.
    pub async fn create_role(&self, password: &str) -> String {
        let role = &self.name;
        let create = format!(
            "create role {role} login password '{password}';
             grant create on schema public to {role};
             grant all on all tables in schema public to {role};"
        );
        self.database().await.batch_execute(&create).await.unwrap();
        role.clone()
    }

    /// The tests' own view of the broker, past all faults of the network.
    pub async fn broker(&self) -> Broker {
        let url = self.servers.broker.url().await.unwrap();
        Broker::new(&url, self.topology.clone()).await
    }

    /// The proxy in front of `ingest`, for a case that cuts it.
    pub fn proxy_of_ingest(&mut self) -> &Proxy {
        self.allowed.refuse();
        &self.network.ingest
    }

    /// Folder of the spool.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.folder.path().join(SPOOL)
    }

    /// Whether `ingest` was killed or stopped, which is how each change to its process begins.
    #[must_use]
    pub fn ingest_was_started_again(&self) -> bool {
        let log = self.processes[&Part::Ingest].log();
        log.matches("accepting callbacks").count() > 1
    }

    /// Waits until callbacks that are posted from now on have a row, and until one of these rows is
    /// deleted. Notes how long the first row took, or how long after its expiry the first deletion
    /// was, whichever is longer.
    pub async fn back_at_work(&mut self) -> Duration {
        let took = self.until_back().await;
        self.back_after = self.back_after.max(Some(took));
        took
    }

    async fn until_back(&self) -> Duration {
        const PAUSE: Duration = Duration::from_millis(50);
        let begin = Instant::now();
        let first = self.load.next_probe();
        let (mut client, mut stored_after) = (None, None);
        while begin.elapsed() < BOUND {
            if client.is_none() {
                client = self.try_database().await.ok();
            }
            let probes = match &client {
                Some(client) => ledger::probes(client, first).await.ok(),
                None => None,
            };
            match probes {
                Some(probes) if probes.stored => {
                    let stored_after = *stored_after.get_or_insert_with(|| begin.elapsed());
                    if let Some(late) = probes.deleted_late {
                        return late.max(stored_after);
                    }
                }
                Some(_) => {}
                None => client = None,
            }
            self.load.probe();
            sleep(PAUSE).await;
        }
        panic!("not back at work after {BOUND:?}, rows stored after {stored_after:?}");
    }

    /// Posts callbacks until one that is posted from now on has a row.
    ///
    /// # Panics
    /// None has one soon.
    pub async fn rows_are_stored(&self) {
        let (first, client) = (self.load.next_probe(), self.database().await);
        eventually("a row of a callback that was just posted", async || {
            self.load.probe();
            let probes = ledger::probes(&client, first).await.unwrap();
            probes.stored.then_some(())
        })
        .await;
    }

    /// Waits until there is no row.
    ///
    /// # Panics
    /// That takes longer than rows live and the sweep may be late.
    pub async fn until_rows_are_gone(&self) {
        let client = self.database().await;
        eventually("all rows to be deleted", async || {
            let rows = client.query_one("select count(*) from objects", &[]).await;
            (rows.unwrap().get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }

    /// Waits until nothing is under way any more, or for too long a time, and reckons. The load is
    /// paused or has ended.
    pub async fn until_quiet(&mut self) -> Verdict {
        const PAUSE: Duration = Duration::from_millis(250);
        const LOOKS: u32 = 3;
        let deadline = Instant::now() + SETTLE_BOUND;
        // What is on its way from one queue to another one, or with a process, may be seen nowhere: it is
        // by one of several looks.
        let mut finals = 0;
        loop {
            let verdict = self.reckon().await;
            finals = if verdict.is_final() { finals + 1 } else { 0 };
            if finals == LOOKS || Instant::now() > deadline {
                return verdict;
            }
            sleep(PAUSE).await;
        }
    }

    async fn reckon(&mut self) -> Verdict {
        let (broker, client) = (self.broker().await, self.database().await);
        self.ledger.look(&broker, &client).await;
        let accepted = self.load.answers().accepted;
        self.ledger.verdict(&accepted, &self.answers)
    }

    /// Ends the load and, when nothing is under way any more, the processes.
    pub async fn settle(&mut self) -> Verdict {
        self.load.stop().await;
        self.until_quiet().await;
        // What a process held unfinished is in its queue again.
        for process in self.processes.values_mut() {
            process.stop().await;
        }
        self.reckon().await
    }

    /// The last lines of each process, without those about accepted callbacks.
    #[must_use]
    pub fn logs(&self) -> String {
        let last_lines = |(part, process): (&Part, &Process)| {
            let log = process.log();
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| !line.contains("status=202"))
                .collect();
            let last = lines[lines.len().saturating_sub(25)..].join("\n");
            format!("--- {part:?}\n{last}\n")
        };
        self.processes.iter().map(last_lines).collect()
    }

    /// Sets the share of the memory beyond which the broker blocks publishers.
    pub async fn set_memory_watermark(&self, share: &str) {
        let command = ["rabbitmqctl", "set_vm_memory_high_watermark", share];
        self.servers.broker.command(&command).await.unwrap();
    }

    /// Sets how many milliseconds the broker waits for an ack, and how often it looks. Channels of new
    /// connections have it.
    pub async fn set_ack_timeout(&self, timeout: u32, tick: u32) {
        let set = format!(
            "application:set_env(rabbit, consumer_timeout, {timeout}), \
             application:set_env(rabbit, channel_tick_interval, {tick})."
        );
        let command = ["rabbitmqctl", "eval", &set];
        self.servers.broker.command(&command).await.unwrap();
    }

    /// Undoes what a case that broke off may leave behind for later ones. A limit of connections is
    /// that of a role, which goes with the world.
    pub async fn repair(&self) {
        for server in [&self.servers.broker, &self.servers.database] {
            if server.until_it_lets_in(Duration::ZERO).await.is_err() {
                server.start().await.unwrap();
            }
        }
        self.set_memory_watermark(MEMORY_WATERMARK).await;
        self.set_ack_timeout(ACK_TIMEOUT, ACK_TICK).await;
        let url = self.servers.database.url().await.unwrap();
        let admin = database::connect(&url).await.unwrap();
        admin.batch_execute("alter system reset all").await.unwrap();
        admin
            .batch_execute("select pg_reload_conf()")
            .await
            .unwrap();
    }

    /// Removes everything. The servers run.
    pub async fn destroy(mut self) {
        for process in self.processes.values_mut() {
            process.kill().await;
        }
        let broker = self.broker().await;
        for queue in self.topology.queue_names() {
            broker.delete(&queue).await;
        }
        broker.delete_exchange().await;
        let server_url = self.servers.database.url().await.unwrap();
        Database::drop(&server_url, &self.name).await;
        let role = format!("drop role if exists {}", self.name);
        let admin = database::connect(&server_url).await.unwrap();
        admin.batch_execute(&role).await.unwrap();
        self.folder.close().unwrap();
    }
}
