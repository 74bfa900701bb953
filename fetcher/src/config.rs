//! Settings of `fetcher`.

use std::num::NonZeroUsize;
use std::time::Duration;

use broker::{BrokerSettings, Delay};
use database::DatabaseSettings;
use metric_definitions::Description;
use process::{ProcessConfig, ProcessSettings};
use settings::{ByteSize, DurationOrZero, Secret, Value};
use tls::{CertificateFile, Client, Identity, KeyFile, TrustSettings, check_pair};
use url::Url;

use crate::credentials::{self, BearerToken, ClientHeader, ProxyUrl};
use crate::retry::RetryLadder;

settings::settings! {
    /// Settings of `fetcher`.
    pub struct Config {
        /// Address of the client service. Ids are looked up at /objects/ID below it.
        pub client_url: Secret<ClientUrl> = "http://localhost:9010",
        /// Token that each look-up has, as Authorization: Bearer TOKEN.
        pub client_token: Secret<BearerToken> = "",
        /// A header that each look-up has, such as X-Api-Key: KEY.
        pub client_header: Secret<ClientHeader> = "",
        /// Proxy that look-ups pass: http://user:password@host:port. Proxies in the
        /// environment (HTTP_PROXY) do not count.
        pub client_proxy: Secret<ProxyUrl> = "",
        /// Version of HTTP that look-ups are sent with. auto: HTTP/2 where the client service
        /// offers it with TLS, else HTTP/1.1. 2: HTTP/2, also without TLS. 1.1: HTTP/1.1.
        pub client_http_version: HttpVersion = "auto",
        /// File with a client certificate, then those of its issuers (PEM), for a client
        /// service that asks for one. Read again when it changes.
        pub client_certificate_file: CertificateFile = "",
        /// File with the private key of CLIENT_CERTIFICATE_FILE (PEM).
        pub client_key_file: KeyFile = "",
        /// How long the client service may take for one answer.
        pub fetch_timeout: Duration = "5s" in "10ms"..="10m",
        /// Maximum number of look-ups in flight in each replica. How many there are follows
        /// from the answers; each takes a file descriptor. Waiting for a free place does not
        /// count towards FETCH_TIMEOUT.
        pub fetch_concurrency: NonZeroUsize = "16384" in "1"..="100000",
        /// How often a probe is sent to the client service while it is down.
        pub probe_interval: Duration = "1s" in "10ms"..="10m",
        /// How long a fetcher keeps messages while the client service is down. Then it
        /// returns them to the queue, and takes no more until the service works again.
        pub outage_patience: Duration = "30s" in "1ms"..="20m",
        /// Maximum size of an answer of the client service. A larger answer counts as
        /// malformed.
        pub answer_limit: ByteSize = "16KiB" in "64"..="16MiB",
        /// Maximum number of ids that a replica has taken from the queue and not finished,
        /// give or take a few messages. As many are taken as keep its look-ups busy, and the
        /// others are left to other replicas.
        pub fetch_prefetch: NonZeroUsize = "65536" in "1"..="1000000",
        /// Maximum number of rows in one statement.
        pub write_batch: NonZeroUsize = "1000" in "1"..="50000",
        /// How long a row waits for others, so that one statement stores them together.
        /// Each statement has one message that deletes its rows, and the broker passes on
        /// about 15,000 such messages a second.
        pub write_linger: DurationOrZero = "2ms" in "0s"..="1m",
        /// Maximum number of statements in progress at once.
        pub write_concurrency: NonZeroUsize = "2" in "1"..="1000",
    } with {
        /// The delays that queues are made for.
        pub delays: Delays,
        /// Settings of the connection to the broker.
        pub broker: BrokerSettings,
        /// Settings of the access to the database.
        pub database: DatabaseSettings,
        /// Settings that every process has.
        pub process: ProcessSettings where admin_address = "127.0.0.1:6061",
        /// Settings of whom connections trust.
        pub trust: TrustSettings,
    } check check
}

settings::settings! {
    /// The delays that `fetcher` publishes with. There is a queue for each.
    pub struct Delays {
        /// How long an object is kept after it was last seen online. A change applies to
        /// rows stored from then on.
        pub object_ttl: Delay = "30s" in "1ms"..="30days",
        /// How long to wait before each further try of a failed look-up. After the last try
        /// the id goes to objects.dead.
        pub retry_delays: RetryLadder = "1s,5s,30s,2m",
    } with {}
}

fn check(config: &Config) -> Result<(), String> {
    credentials::check(config)?;
    let (certificate, key) = (&config.client_certificate_file, &config.client_key_file);
    check_pair(
        ("CLIENT_CERTIFICATE_FILE", certificate),
        ("CLIENT_KEY_FILE", key),
    )?;
    let url = config.client_url.get().map_err(|error| error.to_string())?;
    if certificate.path().is_some() && !url.is_encrypted() {
        return Err("CLIENT_CERTIFICATE_FILE needs a CLIENT_URL with https://".to_owned());
    }
    Ok(())
}

impl Config {
    /// TLS of the connections to the client service at `url`; `None` if there is none.
    pub(crate) fn client_tls(&self, url: &ClientUrl) -> Option<Client> {
        let identity = Identity::of(&self.client_certificate_file, &self.client_key_file);
        url.is_encrypted()
            .then(|| Client::new(&self.trust, identity))
    }
}

impl ProcessConfig for Config {
    const NAME: &'static str = "fetcher";
    const ABOUT: &'static str =
        "Looks ids up at the client service, stores the online objects and arms their deletion.";
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

/// Address of the client service, which has paths below it: no query, no fragment.
#[derive(Clone, Debug)]
pub struct ClientUrl(Url);

impl ClientUrl {
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Address of the look-ups, without credentials: an id follows.
    pub(crate) fn objects(&self) -> Url {
        let mut objects = self.0.clone();
        // Neither fails for an address of http or https.
        objects.set_username("").ok();
        objects.set_password(None).ok();
        objects.set_path(&format!("{}/objects/", self.0.path().trim_end_matches('/')));
        objects
    }
}

impl Value for ClientUrl {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let url = <Url as Value>::parse(raw)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "ids are looked up below it, so it can have no query and no fragment".to_owned(),
            );
        }
        Ok(Self(url))
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// Which versions of HTTP are spoken with the client service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// What it chooses where there is TLS, else HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    OneOne,
    /// HTTP/2, which it is known to speak.
    Two,
}

impl HttpVersion {
    /// What is offered to a server in a TLS handshake (ALPN).
    pub(crate) fn offered(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["h2", "http/1.1"],
            Self::OneOne => &["http/1.1"],
            Self::Two => &["h2"],
        }
    }
}

impl Value for HttpVersion {
    fn parse(raw: &str) -> Result<Self, String> {
        match raw {
            "auto" => Ok(Self::Auto),
            "1.1" => Ok(Self::OneOne),
            "2" => Ok(Self::Two),
            _ => Err(format!("{raw:?} is not auto, 1.1 or 2")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::OneOne => "1.1",
            Self::Two => "2",
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_looked_up_below_the_address_of_the_client_service() {
        for (raw, objects) in [
            ("http://host:9010", "http://host:9010/objects/"),
            ("http://host/api/", "http://host/api/objects/"),
            ("http://user:word@host/", "http://host/objects/"),
        ] {
            assert_eq!(ClientUrl::parse(raw).unwrap().objects().as_str(), objects);
        }
        for raw in [
            "http://host/?key=1",
            "http://host/#top",
            "ftp://host",
            "host:9010",
        ] {
            assert!(ClientUrl::parse(raw).is_err(), "{raw} was accepted");
        }
    }
}
