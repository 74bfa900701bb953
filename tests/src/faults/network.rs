//! The network of the fault suite: a proxy between any two parts, and the flags that lead the processes
//! to the proxies.

use std::collections::BTreeMap;
use std::path::Path;

use broker::Topology;

use super::Part;
use crate::processes::{Process, configure};
use crate::proxy::{Network, Proxy};
use crate::servers::Servers;
use crate::servers::server::Server;

/// The proxies between the parts, with faults at will.
pub struct ProxiedNetwork {
    /// To `ingest`.
    pub ingest: Proxy,
    /// To the client service.
    pub client: Proxy,
    /// To the broker, for each binary.
    pub broker: BTreeMap<&'static str, Proxy>,
    /// To the database, for each binary that uses it.
    pub database: BTreeMap<&'static str, Proxy>,
}

impl ProxiedNetwork {
    /// Starts the proxies. That to `ingest` leads nowhere yet.
    pub async fn start(servers: &Servers, client_url: &str) -> Self {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let client = client_url.strip_prefix("http://").unwrap();
        Self {
            ingest: Proxy::start(nowhere).await,
            client: Proxy::start(client.parse().unwrap()).await,
            broker: proxies(&servers.broker, &["ingest", "fetcher", "janitor"]).await,
            database: proxies(&servers.database, &["fetcher", "janitor"]).await,
        }
    }

    /// Changes how all proxies to the broker behave.
    pub fn set_to_broker(&self, network: Network) {
        self.broker.values().for_each(|proxy| proxy.set(network));
    }

    /// Changes how all proxies to the database behave.
    pub fn set_to_database(&self, network: Network) {
        self.database.values().for_each(|proxy| proxy.set(network));
    }
}

async fn proxies(server: &Server, binaries: &[&'static str]) -> BTreeMap<&'static str, Proxy> {
    let address = server.address().await.unwrap();
    let mut proxies = BTreeMap::new();
    for binary in binaries {
        proxies.insert(*binary, Proxy::start(address).await);
    }
    proxies
}

/// The configuration of the processes.
pub(crate) struct Configuration<'a> {
    /// Where the servers are, and how to log in.
    pub(crate) servers: &'a Servers,
    /// The proxies in front of them.
    pub(crate) network: &'a ProxiedNetwork,
    /// Name of the database, with which the names of the queues begin.
    pub(crate) world: &'a str,
}

impl Configuration<'_> {
    /// Every process of the pipeline, not started.
    #[must_use]
    pub(crate) fn processes(&self, spool: &Path) -> BTreeMap<Part, Process> {
        let process = |binary| Process::new(binary, &self.of(binary, spool));
        BTreeMap::from([
            (Part::Ingest, process("ingest")),
            (Part::Fetcher, process("fetcher")),
            (Part::OtherFetcher, process("fetcher")),
            (Part::Janitor, process("janitor")),
        ])
    }

    /// Every queue.
    #[must_use]
    pub(crate) fn topology(&self) -> Topology {
        let topology = fetcher::topology(&configure(self.of("fetcher", Path::new("")), &[]));
        assert!(topology.queue_names()[0].starts_with(self.world));
        topology
    }

    /// Times are short, so that a case is.
    fn of(&self, binary: &str, spool: &Path) -> Vec<String> {
        let mut flags = vec![
            "--admin-address=127.0.0.1:0".to_owned(),
            format!("--queue-prefix={}.", self.world),
            format!(
                "--amqp-url={}",
                self.servers
                    .broker
                    .url_at(self.network.broker[binary].address)
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
                self.network.client.address
            ));
        }
        if binary == "ingest" {
            flags.push(format!("--spool-directory={}", spool.display()));
        }
        if let Some(proxy) = self.network.database.get(binary) {
            let url = self.servers.database.url_at(proxy.address);
            flags.push(format!("--database-url={}", in_database(&url, self.world)));
        }
        flags
    }
}

/// The URL of another database on the same server.
#[must_use]
pub(crate) fn in_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
