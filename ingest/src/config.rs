//! Settings of `ingest`.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use broker::BrokerSettings;
use metric_definitions::Description;
use process::{ProcessConfig, ProcessSettings};
use settings::{ByteSize, Value};
use webhook::WebhookSettings;

use crate::proxies::TrustedProxies;

settings::settings! {
    /// Settings of `ingest`.
    pub struct Config {
        /// Address for callbacks. [::] means IPv6 and IPv4, or IPv4 alone where the host
        /// has no IPv6.
        pub listen_address: SocketAddr = "[::]:9090",
        /// Maximum number of ids in one message. A callback that comes alone is spread over
        /// the fetchers in messages of 50 ids; the more callbacks come at once, the larger
        /// are the messages. IDS_LIMIT may be at most 10,000 times this number.
        pub chunk_size: NonZeroU16 = "500" in "1"..="10000",
        /// A callback with more ids than this goes through a separate queue,
        /// objects.fetch.bulk, so that other callbacks do not wait behind it.
        pub bulk_ids: NonZeroUsize = "2000" in "1"..="1000000",
        /// How long the broker may take to confirm a callback before the callback goes to
        /// the spool. Keep it below the 1 s after which clients give up.
        pub publish_timeout: Duration = "500ms" in "10ms"..="10m",
        /// Folder for callbacks that the broker did not confirm in time. It must be on a
        /// disk that outlives the process. Replicas can share one.
        pub spool_directory: SpoolDirectory = "spool",
        /// Maximum size of the spool. When it is full, a callback that the broker does not
        /// confirm gets 503. What was adopted from replicas that are gone does not count. A
        /// callback of 200 ids takes 1 to 4 KiB.
        pub spool_limit: ByteSize = "1GiB" in "0"..="1024GiB",
        /// Maximum size of a request body, both as sent and as decoded. A larger body gets
        /// 413.
        pub body_limit: ByteSize = "1MiB" in "1KiB"..="64MiB",
        /// Maximum number of ids in one callback, duplicates included. A callback with more
        /// gets 413.
        pub ids_limit: NonZeroUsize = "10000" in "1"..="1000000",
        /// How long a client may take to send the header of a request. Then the connection
        /// is closed.
        pub header_timeout: Duration = "30s" in "10ms"..="1h",
        /// How long a connection may be idle before it is closed; answers announce this
        /// time in Keep-Alive. It must be longer than load balancers keep idle connections
        /// (most keep them for 60 s). Otherwise their next request may meet a connection
        /// that is being closed.
        pub idle_timeout: Duration = "75s" in "10ms"..="1h",
        /// How long a client may take to send the body of a request. Then the request gets
        /// 408.
        pub body_timeout: Duration = "10s" in "10ms"..="1h",
        /// Memory for the bodies of all requests together, beyond the first 16 KiB of each.
        /// When it is used up, callbacks larger than 16 KiB get 503; smaller ones are
        /// unaffected.
        pub body_memory: ByteSize = "64MiB" in "64KiB"..="64GiB",
        /// Maximum number of open connections. At the limit, a new connection replaces the
        /// one that has waited longest for its client, if that wait is at least 1 s.
        /// Otherwise the new connection gets 503 and is closed.
        pub connections_limit: NonZeroUsize = "10000" in "1"..="1000000",
        /// Maximum number of callbacks in progress at once. Further ones get 503.
        pub requests_limit: NonZeroUsize = "1000" in "1"..="1000000",
        /// Maximum number of callbacks a second from one source: a key of WEBHOOK_SECRETS or,
        /// without keys, an IPv4 address or the /64 of an IPv6 address. What 10 s allow may
        /// come at once; further callbacks get 429. 0 means no limit.
        pub source_callbacks_rate: u64 = "0" in "0"..="1000000",
        /// Maximum number of ids a second from one source, as in SOURCE_CALLBACKS_RATE. A
        /// callback may have more; then the next ones wait for longer.
        pub source_ids_rate: u64 = "0" in "0"..="1000000",
        /// Addresses of proxies (10.0.0.7) and blocks of them (10.0.0.0/8), separated by
        /// commas or blanks. Only these may say where a callback comes from: the last address
        /// in X-Forwarded-For that is not one of them. From others that header does not count.
        pub trusted_proxies: TrustedProxies = "",
        /// Whether TRUSTED_PROXIES begin each connection with a header of the PROXY protocol
        /// (version 2 or 1), which says where it comes from. Load balancers of TCP can send it.
        /// Then a connection of theirs without it is closed. From others it is refused.
        pub proxy_protocol: bool = "false",
    } with {
        /// Settings of the connection to the broker.
        pub broker: BrokerSettings,
        /// Settings of signed callbacks.
        pub webhook: WebhookSettings,
        /// Settings that every process has.
        pub process: ProcessSettings,
    } check fits
}

/// Maximum number of messages that a callback may become: each takes about 2 KiB until it is confirmed.
const MESSAGES_LIMIT: usize = 10_000;

fn fits(config: &Config) -> Result<(), String> {
    messages(config)?;
    if config.proxy_protocol && config.trusted_proxies.are_none() {
        return Err("PROXY_PROTOCOL=true: TRUSTED_PROXIES names nobody who may send it".to_owned());
    }
    Ok(())
}

fn messages(config: &Config) -> Result<(), String> {
    let (chunk, ids) = (usize::from(config.chunk_size.get()), config.ids_limit.get());
    if ids.div_ceil(chunk) <= MESSAGES_LIMIT {
        return Ok(());
    }
    Err(format!(
        "CHUNK_SIZE={chunk}: with IDS_LIMIT={ids} a callback could become more than \
         {MESSAGES_LIMIT} messages"
    ))
}

/// The directory of the spool.
#[derive(Clone, Debug)]
pub struct SpoolDirectory(pub PathBuf);

impl Value for SpoolDirectory {
    fn parse(raw: &str) -> Result<Self, String> {
        if raw.is_empty() {
            return Err("no folder".to_owned());
        }
        Ok(Self(raw.into()))
    }

    fn show(&self) -> String {
        self.0.display().to_string()
    }
}

impl ProcessConfig for Config {
    const NAME: &'static str = "ingest";
    const ABOUT: &'static str = "Accepts callbacks over HTTP and publishes their ids to the broker; answers 202 once they are safe.";
    const METRICS: &'static [&'static [Description]] = &[
        process::METRICS,
        http_server::METRICS,
        broker::METRICS,
        crate::metrics::METRICS,
    ];

    fn process(&self) -> &ProcessSettings {
        &self.process
    }
}
