//! Settings of `janitor`.

use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use broker::BrokerSettings;
use database::DatabaseSettings;
use metric_definitions::Description;
use process::{ProcessConfig, ProcessSettings};
use settings::DurationOrZero;

settings::settings! {
    /// Settings of `janitor`.
    pub struct Config {
        /// Maximum number of messages taken from the queue and not finished. Messages
        /// arrive 250 ms before their rows expire, in the order in which the rows were
        /// stored, and wait here. If more than this number arrive in 250 ms, the rest waits
        /// in the queue. A message whose rows expire in more than 2 s by the database's
        /// clock does not wait: the sweep deletes those rows.
        pub delete_prefetch: NonZeroU16 = "1000" in "1"..="65535",
        /// A statement stops taking messages once it has this many rows. The last message
        /// may exceed the number.
        pub delete_batch: NonZeroUsize = "2000" in "1"..="100000",
        /// Maximum number of statements in progress at once.
        pub delete_concurrency: NonZeroUsize = "2" in "1"..="1000",
        /// How long an expired row may wait so that rows that expire just after it share
        /// its statement. A single row is deleted at once.
        pub delete_linger: DurationOrZero = "2ms" in "0s"..="1m",
        /// How often the sweep looks for overdue rows that no message has deleted. It
        /// deletes them at most SWEEP_INTERVAL plus SWEEP_GRACE after their expiry.
        pub sweep_interval: Duration = "500ms" in "10ms"..="1day",
        /// How long a row must be overdue before the sweep deletes it. Until then the row
        /// is left to its message.
        pub sweep_grace: DurationOrZero = "1s" in "0s"..="1day",
        /// Maximum number of rows in one statement of the sweep. Between two statements the
        /// sweep pauses for as long as the first one took.
        pub sweep_batch: NonZeroUsize = "1000" in "1"..="100000",
    } with {
        /// Settings of the connection to the broker.
        pub broker: BrokerSettings,
        /// Settings of the access to the database.
        pub database: DatabaseSettings,
        /// Settings that every process has.
        pub process: ProcessSettings where admin_address = "127.0.0.1:6062",
    }
}

impl ProcessConfig for Config {
    const NAME: &'static str = "janitor";
    const ABOUT: &'static str =
        "Deletes objects at their expiry, and sweeps up those that no message covers.";
    const METRICS: &'static [&'static [Description]] = &[
        process::METRICS,
        http_server::METRICS,
        broker::METRICS,
        broker::CONSUMER_METRICS,
        database::METRICS,
        crate::metrics::METRICS,
    ];

    fn process(&self) -> &ProcessSettings {
        &self.process
    }
}
