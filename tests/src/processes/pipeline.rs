//! The binaries of the pipeline with their spans collected: each makes its own, as in production.

use std::net::SocketAddr;

use crate::client::{ClientService, until_ready};
use crate::processes::{Process, configure};
use crate::servers::span_collector::SpanCollector;
use crate::world::World;

/// One `ingest`, one `fetcher` and one `janitor`, killed when dropped. Rows live for a second.
pub struct Pipeline {
    /// Where their spans are.
    pub collector: SpanCollector,
    /// Takes callbacks.
    pub ingest: Process,
    /// Looks ids up.
    pub fetcher: Process,
    /// Deletes rows.
    pub janitor: Process,
    /// Where callbacks are posted to.
    pub address: SocketAddr,
}

impl Pipeline {
    /// Starts the three with `flags`, and the fetcher with `of_fetcher` as well. Unless a flag leads
    /// elsewhere, spans go to the collector, and `ingest` is waited for until it has the broker:
    /// callbacks would take the way through the spool before.
    pub async fn start(
        world: &mut World,
        client: &ClientService,
        flags: &[&str],
        of_fetcher: &[&str],
    ) -> Self {
        let collector = SpanCollector::start().await;
        let start = |binary: &'static str, own: Vec<String>, more: &[&str]| {
            // Its spans are sent in a tenth of the time for the shut-down.
            let usual = ["--admin-address=127.0.0.1:0", "--shutdown-timeout=30s"];
            let given = usual.iter().chain(flags).chain(more);
            let given = given.map(|flag| (*flag).to_owned());
            let flags = own.into_iter().chain([collector.flag()]).chain(given);
            Process::started(binary, &flags.collect::<Vec<_>>())
        };
        let client_url = format!("--client-url={}", client.url);
        let usual = [
            "--object-ttl=1s",
            "--retry-delays=50ms",
            "--fetch-timeout=60s",
            &client_url,
        ];
        let of_fetcher = [&usual, of_fetcher].concat();
        let listen = "--listen-address=127.0.0.1:0";
        let ingest = start("ingest", world.ingest_flags(), &[listen]);
        let fetcher = start("fetcher", world.flags(), &of_fetcher);
        let janitor = start("janitor", world.flags(), &[]);
        world.will_use(&fetcher::topology(&configure(world.flags(), &of_fetcher)));
        let address = ingest.address_in_log("accepting callbacks").await;
        for process in [&fetcher, &janitor] {
            // From here on they end in order when they are asked to.
            process.address_in_log("starting").await;
        }
        if !flags.iter().any(|flag| flag.starts_with("--amqp-url")) {
            until_ready(address).await;
        }
        Self {
            collector,
            ingest,
            fetcher,
            janitor,
            address,
        }
    }

    /// Stops those that run, in order.
    pub async fn stop(mut self) {
        for process in [&mut self.ingest, &mut self.fetcher, &mut self.janitor] {
            process.stop().await;
        }
    }
}
