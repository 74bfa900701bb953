//! The network of the fault suite: a proxy on each way between two parts, and the flags that lead the
//! processes onto these ways.

use std::collections::BTreeMap;
use std::path::Path;

use broker::Topology;

use crate::parts::Part;
use crate::process::Process;
use crate::proxy::{Network, Proxy};
use crate::server::Server;
use crate::servers::Servers;
use crate::world::configure;

/// The ways between the parts, with faults at will.
pub struct Ways {
    /// To `ingest`.
    pub to_ingest: Proxy,
    /// To the client service.
    pub to_client: Proxy,
    /// To the broker, for each binary.
    pub to_broker: BTreeMap<&'static str, Proxy>,
    /// To the database, for each binary that uses it.
    pub to_database: BTreeMap<&'static str, Proxy>,
}

impl Ways {
    /// Opens the ways. That to `ingest` leads nowhere yet.
    pub async fn open(servers: &Servers, client_url: &str) -> Self {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let client = client_url.strip_prefix("http://").unwrap();
        Self {
            to_ingest: Proxy::start(nowhere).await,
            to_client: Proxy::start(client.parse().unwrap()).await,
            to_broker: ways(&servers.broker, &["ingest", "fetcher", "janitor"]).await,
            to_database: ways(&servers.database, &["fetcher", "janitor"]).await,
        }
    }

    /// Changes how all ways to the broker behave.
    pub fn set_to_broker(&self, network: Network) {
        self.to_broker.values().for_each(|way| way.set(network));
    }

    /// Changes how all ways to the database behave.
    pub fn set_to_database(&self, network: Network) {
        self.to_database.values().for_each(|way| way.set(network));
    }
}

async fn ways(server: &Server, binaries: &[&'static str]) -> BTreeMap<&'static str, Proxy> {
    let address = server.address().await.unwrap();
    let mut ways = BTreeMap::new();
    for binary in binaries {
        ways.insert(*binary, Proxy::start(address).await);
    }
    ways
}

/// What the processes are told about the world.
pub struct Flags<'a> {
    /// Where the servers are, and how to log in.
    pub servers: &'a Servers,
    /// The ways there.
    pub ways: &'a Ways,
    /// Name of the database, and of what the queues' names begin with.
    pub world: &'a str,
}

impl Flags<'_> {
    /// Every process of the pipeline, not started.
    #[must_use]
    pub fn processes(&self, logs: &Path) -> BTreeMap<Part, Process> {
        let process = |name, binary| Process::new(name, binary, self.of(binary, logs), logs);
        BTreeMap::from([
            (Part::Ingest, process("ingest", "ingest")),
            (Part::Fetcher, process("fetcher-1", "fetcher")),
            (Part::OtherFetcher, process("fetcher-2", "fetcher")),
            (Part::Janitor, process("janitor", "janitor")),
        ])
    }

    /// Every queue.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let topology = fetcher::topology(&configure(self.of("fetcher", Path::new("")), &[]));
        assert!(topology.queue_names()[0].starts_with(self.world));
        topology
    }

    /// Times are short, so that a case is.
    fn of(&self, binary: &str, logs: &Path) -> Vec<String> {
        let mut flags = vec![
            "--admin-address=127.0.0.1:0".to_owned(),
            format!("--queue-prefix={}.", self.world),
            format!(
                "--amqp-url={}",
                self.servers
                    .broker
                    .url_at(self.ways.to_broker[binary].address)
            ),
        ];
        let own: &[&str] = match binary {
            "ingest" => &["--listen-address=127.0.0.1:0"],
            "fetcher" => &[
                "--object-ttl=2s",
                "--fetch-timeout=2s",
                "--retry-delays=200ms,300ms,500ms,1s",
            ],
            _ => &["--sweep-interval=1s", "--sweep-grace=1s"],
        };
        flags.extend(own.iter().map(|flag| (*flag).to_owned()));
        if binary == "fetcher" {
            flags.push(format!(
                "--client-url=http://{}",
                self.ways.to_client.address
            ));
        }
        if binary == "ingest" {
            flags.push(format!(
                "--spool-directory={}",
                logs.join("spool").display()
            ));
        }
        if let Some(way) = self.ways.to_database.get(binary) {
            let url = self.servers.database.url_at(way.address);
            flags.push(format!("--database-url={}", in_database(&url, self.world)));
        }
        flags
    }
}

/// The URL of another database on the same server.
#[must_use]
pub fn in_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
