//! Asking every replica and the broker at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use clap::Args;
use futures::future::join_all;
use process::{ask, ask_over_tls};

use crate::exposition::{self, Series};

/// The broker, among the services.
pub(crate) const BROKER: &str = "broker";

/// What the broker tells queue by queue.
const QUEUES: &str = "/metrics/detailed?family=queue_coarse_metrics&family=queue_consumer_count";

/// Where numbers are told. A name stands for every address that it has, as those of the compose
/// file do, which are the usual ones; each may be given more than once.
#[derive(Args, Clone, Debug)]
pub(crate) struct Addresses {
    /// Admin address of an ingest.
    #[arg(long, default_value = "ingest:6060")]
    ingest: Vec<String>,
    /// Admin address of a fetcher.
    #[arg(long, default_value = "fetcher:6061")]
    fetcher: Vec<String>,
    /// Admin address of a janitor.
    #[arg(long, default_value = "janitor:6062")]
    janitor: Vec<String>,
    /// Where RabbitMQ tells its metrics.
    #[arg(long, default_value = "rabbitmq:15692")]
    broker: Vec<String>,
}

impl Addresses {
    fn services(&self) -> [(&'static str, &[String]); 4] {
        [
            ("ingest", &self.ingest),
            ("fetcher", &self.fetcher),
            ("janitor", &self.janitor),
            (BROKER, &self.broker),
        ]
    }
}

/// What one replica, or the broker, told.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) service: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) asked: Instant,
    /// `None` when it did not answer.
    pub(crate) series: Option<Vec<Series>>,
}

/// What all of them told at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(pub(crate) Vec<Instance>);

impl Sample {
    /// Asks all at once, so that one that hangs does not hold up the others.
    pub(crate) async fn take(addresses: &Addresses) -> Self {
        let services = addresses.services().into_iter();
        let names =
            services.flat_map(|(service, names)| names.iter().map(move |name| (service, name)));
        let found = join_all(names.map(async |(service, name)| {
            let addresses = resolve(name).await.into_iter();
            join_all(addresses.map(|address| Instance::ask(service, address))).await
        }));
        Self(found.await.into_iter().flatten().collect())
    }
}

impl Instance {
    async fn ask(service: &'static str, address: SocketAddr) -> Self {
        let asked = Instant::now();
        let path = if service == BROKER {
            QUEUES
        } else {
            "/metrics"
        };
        let answer = match ask(address, path).await.ok() {
            // What a port that speaks TLS says to those who do not.
            Some((status, _)) if status == 400 => ask_over_tls(address, path).await.ok(),
            answer => answer,
        };
        let series = answer
            .filter(|(status, _)| status.is_success())
            .map(|(_, body)| exposition::read(&String::from_utf8_lossy(&body)));
        Self {
            service,
            address,
            asked,
            series,
        }
    }
}

/// A name that is not known is one that no container has.
async fn resolve(name: &str) -> BTreeSet<SocketAddr> {
    let found = tokio::net::lookup_host(name).await;
    found.into_iter().flatten().collect()
}
