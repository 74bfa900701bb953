//! The pipeline's own processes, with the settings that they have by default: logs and metrics as in
//! production, and no Zipkin to send spans to.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::OnceLock;

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use process::ask_over_tls;
use serde_json::Value;
use status::exposition::{self, Series};
use tests::client::until_ready;
use tests::processes::{Process, configure};
use tests::servers::Servers;
use tests::tls::Certified;
use tests::wait::eventually;
use tests::world::World;
use trace::TraceSet;

use crate::service::{Bare, Part};

/// Ids in each message of the queue, as `ingest` publishes them.
pub(crate) const CHUNK: u32 = 50;

/// A setting of a process that is to be tried with another value.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    binary: String,
    flag: String,
}

impl FromStr for Trial {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        let (binary, setting) = raw.split_once(':').ok_or("not PROCESS:SETTING=VALUE")?;
        if !["ingest", "fetcher", "janitor"].contains(&binary) {
            return Err(format!("{binary} is none of ingest, fetcher and janitor"));
        }
        Ok(Self {
            binary: binary.to_owned(),
            flag: format!("--{setting}"),
        })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.binary, self.flag)
    }
}

static TRIALS: OnceLock<Vec<Trial>> = OnceLock::new();

/// From now on processes are started with these settings.
pub(crate) fn try_settings(trials: Vec<Trial>) {
    TRIALS.set(trials).unwrap();
}

fn start(binary: &'static str, mut flags: Vec<String>, more: &[String]) -> Process {
    flags.push("--admin-address=127.0.0.1:0".to_owned());
    flags.extend_from_slice(more);
    let trials = TRIALS.get().into_iter().flatten();
    let trials = trials.filter(|trial| trial.binary == binary);
    flags.extend(trials.map(|trial| trial.flag.clone()));
    Process::started(binary, &flags)
}

/// Starts `ingest` and waits until it has the broker; returns its address.
pub(crate) async fn ingest(world: &World, more: &[String]) -> (Process, SocketAddr) {
    let (process, address) = start_ingest(world, more).await;
    until_ready(address).await;
    (process, address)
}

/// The same with TLS.
pub(crate) async fn encrypted_ingest(world: &World, shown: &Certified) -> (Process, SocketAddr) {
    let (process, address) = start_ingest(world, &shown.flags("tls")).await;
    eventually("ingest to be ready", async || {
        let (_, body) = ask_over_tls(address, "/").await.ok()?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        (answer["status"] == "ok").then_some(())
    })
    .await;
    (process, address)
}

async fn start_ingest(world: &World, more: &[String]) -> (Process, SocketAddr) {
    let mut flags = world.ingest_flags();
    flags.push("--listen-address=127.0.0.1:0".to_owned());
    let process = start("ingest", flags, more);
    let address = process.address_in_log("accepting callbacks").await;
    (process, address)
}

/// Starts a fetcher on the client service at `client_url`.
pub(crate) fn fetcher(world: &mut World, client_url: &str, more: &[String]) -> Process {
    let mut flags = world.flags();
    flags.push(format!("--client-url={client_url}"));
    flags.extend_from_slice(more);
    world.will_use(&fetcher::topology(&configure(flags.clone(), &[])));
    start("fetcher", flags, &[])
}

/// All of the pipeline, with a client service that answers at once.
pub(crate) struct Pipeline {
    pub(crate) ingest: Process,
    pub(crate) fetchers: Vec<Process>,
    pub(crate) janitor: Process,
    /// Where callbacks are posted to.
    pub(crate) address: SocketAddr,
    _objects: Bare,
    /// The last field, because fields are dropped in this order: the processes end first.
    pub(crate) world: World,
}

impl Pipeline {
    /// Starts it with so many replicas of the fetcher, and waits until it can take callbacks, looks ids up
    /// and has a table. Rows live for `ttl`.
    pub(crate) async fn start(servers: &Servers, ttl: &str, replicas: u32) -> Self {
        let mut world = World::create(servers).await;
        world.broker.declare().await;
        let objects = Bare::start(Part::Objects).await;
        let (ingest, address) = ingest(&world, &[]).await;
        let ttl = [format!("--object-ttl={ttl}")];
        let fetchers = (0..replicas)
            .map(|_| fetcher(&mut world, &objects.url(), &ttl))
            .collect();
        let janitor = start("janitor", world.flags(), &[]);
        eventually("the table", async || has_table(&world).await.then_some(())).await;
        eventually("the fetchers", async || {
            (world.broker.consumers(Queue::Fetch).await == replicas).then_some(())
        })
        .await;
        Self {
            ingest,
            fetchers,
            janitor,
            address,
            _objects: objects,
            world,
        }
    }
}

/// Whether the first process has made the table.
pub(crate) async fn has_table(world: &World) -> bool {
    let query = "select count(*) from pg_tables where tablename = 'objects'";
    world.database.number(query).await == 1
}

/// A page of metrics, of a process of the pipeline or of the broker.
pub(crate) struct Metrics {
    http: reqwest::Client,
    url: String,
}

impl Metrics {
    /// Those of a process that runs.
    pub(crate) async fn of(process: &Process) -> Self {
        Self::at(process.address_in_log("starting").await)
    }

    /// Those at an address.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{address}/metrics");
        Self { http, url }
    }

    /// All of them, as they are now.
    pub(crate) async fn page(&self) -> Page {
        let page = self.http.get(&self.url).send().await.unwrap();
        Page(exposition::read(&page.text().await.unwrap()))
    }

    /// The sum of the samples of a metric.
    pub(crate) async fn sum(&self, name: &str) -> f64 {
        self.page().await.sum(name)
    }
}

/// Metrics as they were once.
pub(crate) struct Page(Vec<Series>);

impl Page {
    /// The sum of the samples of a metric.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let named = self.0.iter().filter(|series| series.name == name);
        named.map(|series| series.value).sum()
    }

    /// The sum of those that have a label with this value.
    pub(crate) fn sum_of(&self, name: &str, value: &str) -> f64 {
        let is_of = |series: &&Series| series.labels.values().any(|label| label == value);
        let named = self.0.iter().filter(|series| series.name == name);
        named.filter(is_of).map(|series| series.value).sum()
    }
}

/// Puts ids from 0 on into the queue of look-ups, in chunks; `traces` gives each chunk's.
pub(crate) async fn queue(world: &World, ids: u32, traces: impl Fn(u32) -> TraceSet) {
    const AT_ONCE: usize = 20_000;
    world.broker.declare().await;
    let chunk = |number: u32| {
        let ids = number * CHUNK..(number + 1) * CHUNK;
        let object_ids = ids.map(|id| ObjectId(id.into())).collect();
        let headers = Headers::first_try(traces(number));
        (FetchChunk { object_ids }, headers)
    };
    let numbers: Vec<u32> = (0..ids / CHUNK).collect();
    for numbers in numbers.chunks(AT_ONCE) {
        let chunks: Vec<_> = numbers.iter().copied().map(chunk).collect();
        world.broker.publish_many(Queue::Fetch, &chunks).await;
    }
}
