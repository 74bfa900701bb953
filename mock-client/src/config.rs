//! Settings of `mock-client`.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use metric_definitions::Description;
use process::{ProcessConfig, ProcessSettings};
use settings::{DurationOrZero, Ratio};
use tls::TrustSettings;
use url::Url;
use webhook::WebhookSettings;

settings::settings! {
    /// Settings of `mock-client`.
    pub struct Config {
        /// Address for look-ups.
        pub listen_address: SocketAddr = "[::]:9010",
        /// Address that callbacks are posted to.
        pub callback_url: Url = "http://localhost:9090/callback",
        /// How often a callback is sent.
        pub callback_interval: Duration = "5s" in "1ms"..="1day",
        /// How long the receiver of a callback may take to answer.
        pub callback_timeout: Duration = "1s" in "1ms"..="1h",
        /// Maximum number of ids in one callback. Each callback has a random number of ids,
        /// from 0 to this.
        pub callback_ids: u64 = "199" in "0"..="100000",
        /// Number of different ids. They start at 0.
        pub object_count: NonZeroU16 = "100" in "1"..="65535",
        /// Shortest time that a look-up takes.
        pub latency_min: DurationOrZero = "300ms" in "0s"..="1h",
        /// Longest time that a look-up takes.
        pub latency_max: DurationOrZero = "4300ms" in "0s"..="1h",
        /// Maximum number of look-ups at work at once. Others wait until one of them is
        /// answered.
        pub look_ups_limit: NonZeroUsize = "100000" in "1"..="100000",
        /// How many times longer a look-up takes in every other SLOWER_PERIOD.
        pub slower_times: NonZeroU16 = "1" in "1"..="1000",
        /// How long look-ups take as long as usual, and then longer. The first period is a
        /// usual one.
        pub slower_period: Duration = "1m" in "1ms"..="1day",
        /// Share of look-ups that get 500.
        pub error_ratio: Ratio = "0",
        /// Share of look-ups that take SLOW_LATENCY.
        pub slow_ratio: Ratio = "0",
        /// How long a slow look-up takes. Longer than the fetchers' FETCH_TIMEOUT, it makes
        /// them time out.
        pub slow_latency: Duration = "10s" in "1ms"..="1h",
        /// Seed of all random choices. With 0 each run is different.
        pub seed: u64 = "0",
    } with {
        /// Settings of signed callbacks.
        pub webhook: WebhookSettings,
        /// Settings that every process has.
        pub process: ProcessSettings where admin_address = "127.0.0.1:6063" where trust_traces = "true",
        /// Settings of whom connections trust.
        pub trust: TrustSettings,
    }
}

impl Config {
    /// Bounds of the time that a look-up takes, in ascending order.
    pub(crate) fn latency(&self) -> std::ops::RangeInclusive<Duration> {
        let (one, other) = (self.latency_min.0, self.latency_max.0);
        one.min(other)..=one.max(other)
    }
}

impl ProcessConfig for Config {
    const NAME: &'static str = "mock-client";
    const ABOUT: &'static str =
        "A client service to try the pipeline with: answers look-ups slowly, and sends callbacks.";
    const METRICS: &'static [&'static [Description]] = &[
        process::METRICS,
        http_server::METRICS,
        crate::metrics::METRICS,
    ];

    fn process(&self) -> &ProcessSettings {
        &self.process
    }
}
