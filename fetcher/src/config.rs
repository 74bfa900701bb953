//! Settings of `fetcher`.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use shared::boot::{Process, ProcessSettings};
use shared::broker::BrokerSettings;
use shared::config::ByteSize;
use shared::store::DatabaseSettings;
use shared::topology::Delay;
use url::Url;

use crate::retry::RetryDelays;

shared::settings! {
    /// Settings of `fetcher`.
    pub struct Config {
        /// Address of /livez, /readyz and /metrics.
        pub admin_address: SocketAddr = "127.0.0.1:6061",
        /// Address of the client service; ids are looked up at /objects/ID below it.
        pub client_url: Url = "http://localhost:9010",
        /// How long an object is kept after it was last seen online. A change applies to what is
        /// stored from then on.
        pub object_ttl: Delay = "30s",
        /// How long the client service may take for one answer.
        pub fetch_timeout: Duration = "5s",
        /// Most look-ups in flight at once, in each replica. Waiting for a place does not count
        /// towards the time-out.
        pub fetch_concurrency: NonZeroUsize = "512",
        /// Largest answer of the client service; a larger one counts as malformed.
        pub answer_limit: ByteSize = "16KiB",
        /// Most messages taken from the queue and not finished. Enough to keep all look-ups busy
        /// with small chunks, and not so many that other replicas go without.
        pub fetch_prefetch: NonZeroU16 = "128",
        /// How long to wait before each further try of a look-up that failed. When all are used
        /// up, the id goes to objects.dead.
        pub retry_delays: RetryDelays = "1s,5s,30s,2m",
        /// Most rows in one statement.
        pub write_batch: NonZeroUsize = "1000",
        /// How long a row waits for others to be stored with.
        pub write_linger: Duration = "5ms",
        /// Most statements at work at once.
        pub write_concurrency: NonZeroUsize = "2",
    } with {
        /// Settings of the connection to the broker.
        pub broker: BrokerSettings,
        /// Settings of the access to the database.
        pub database: DatabaseSettings,
        /// Settings that every process has.
        pub process: ProcessSettings,
    }
}

impl Process for Config {
    const NAME: &'static str = "fetcher";
    const ABOUT: &'static str =
        "Looks ids up at the client service, stores the online objects and arms their deletion.";

    fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    fn process(&self) -> &ProcessSettings {
        &self.process
    }
}
