//! Connections to the client service. They are kept for further look-ups, until its name leads elsewhere.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::sleep;
use url::Host;

use crate::config::{Config, HttpVersion};
use crate::credentials::Credentials;

/// How long a connection is kept without use. Shorter than most servers keep it.
pub(crate) const IDLE: Duration = Duration::from_secs(15);

/// How often the name is resolved while connections are kept.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(15);

/// Requests in flight on one client, which has one connection where the client service speaks HTTP/2. It is the
/// least that a server is asked to take on a connection (RFC 9113, 6.5.2); what is more would wait there, on
/// account of its time-out.
const STREAMS: usize = 100;

/// How often a connection that carries several requests is asked for a sign of life. A dead one would
/// take others with it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How much of answers may be on its way before it is read. Answers are small.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Without it a server may choose any coding (RFC 9110, 12.5.3).
const NOT_COMPRESSED: HeaderValue = HeaderValue::from_static("identity");

struct Connector {
    names: Arc<dyn Resolve>,
    timeout: Duration,
    version: HttpVersion,
    /// Made once, because it takes a while to read the system's certificates.
    tls: ClientConfig,
    proxy: Option<reqwest::Proxy>,
}

impl Connector {
    /// Makes a client that keeps at most `max_idle` unused connections.
    fn client(&self, max_idle: usize) -> reqwest::Result<reqwest::Client> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("callback-pipeline-fetcher/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, NOT_COMPRESSED)]))
            .timeout(self.timeout)
            // Shared by all addresses, so that the next one is tried while there is time for an answer.
            .connect_timeout(self.timeout / 2)
            .dns_resolver(Arc::clone(&self.names))
            .pool_max_idle_per_host(max_idle)
            .pool_idle_timeout(IDLE)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(self.timeout)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .tls_backend_preconfigured(self.tls.clone())
            // A redirect is not an answer, and a proxy of the environment is not the client service.
            .redirect(Policy::none())
            // The pipeline makes further tries itself, and counts them. Without the limit of 0 each request would be
            // copied for a further try that is never made.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .no_proxy();
        let builder = match &self.proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder,
        };
        match self.version {
            HttpVersion::Two => builder.http2_prior_knowledge(),
            HttpVersion::OneOne => builder.http1_only(),
            HttpVersion::Auto => builder,
        }
        .build()
    }
}

/// What is trusted and offered in a TLS handshake. Without TLS nothing is, and no certificate is read.
fn tls(version: HttpVersion, is_needed: bool) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if is_needed {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(
            !roots.is_empty(),
            "the system has no certificate authorities"
        );
    }
    let mut tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let offered = version.offered().iter();
    tls.alpn_protocols = offered.map(|name| name.as_bytes().to_vec()).collect();
    Ok(tls)
}

/// Connections to the client service, which are made when they are needed.
pub(crate) struct ConnectionPool {
    connector: Connector,
    /// Name of the client service, or of the proxy in front of it; none if its address is a number.
    name: Option<String>,
    pooled: Mutex<PooledClients>,
    /// Requests in flight on each of the pooled clients.
    share: usize,
    unpooled: reqwest::Client,
}

/// Each request has a place while it is in flight, and goes to the client that has this place. The lowest free
/// place is taken, so that the other clients' connections can become idle and be closed.
struct PooledClients {
    clients: Vec<reqwest::Client>,
    free: BinaryHeap<Reverse<usize>>,
    /// How many places there are, free or taken.
    places: usize,
}

/// A client that keeps its connections, and the place of one request on it.
pub(crate) struct PooledClient<'a> {
    client: reqwest::Client,
    place: usize,
    pool: &'a ConnectionPool,
}

impl ConnectionPool {
    /// # Errors
    /// The TLS set-up fails, or the address cannot be read.
    pub(crate) fn new(config: &Config, credentials: &Credentials) -> anyhow::Result<Self> {
        Self::with_names(config, credentials, Arc::new(SystemNames))
    }

    fn with_names(
        config: &Config,
        credentials: &Credentials,
        names: Arc<dyn Resolve>,
    ) -> anyhow::Result<Self> {
        let url = config.client_url.get()?.url().clone();
        let has_tls = url.scheme() == "https";
        let version = config.client_http_version;
        let connector = Connector {
            names,
            timeout: config.fetch_timeout,
            version,
            tls: tls(version, has_tls).context("setting up TLS")?,
            proxy: credentials.proxy(),
        };
        let may_multiplex = match version {
            HttpVersion::OneOne => false,
            HttpVersion::Two => true,
            HttpVersion::Auto => has_tls,
        };
        let share = if may_multiplex {
            STREAMS
        } else {
            config.fetch_concurrency.get()
        };
        let client = |max_idle| {
            let client = connector.client(max_idle);
            client.context("setting up the HTTP client")
        };
        let pooled = PooledClients {
            clients: vec![client(share)?],
            free: BinaryHeap::new(),
            places: 0,
        };
        Ok(Self {
            pooled: Mutex::new(pooled),
            share,
            unpooled: client(0)?,
            name: match credentials.proxy_url().unwrap_or(url).host() {
                Some(Host::Domain(name)) => Some(name.to_owned()),
                Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => None,
            },
            connector,
        })
    }

    /// Sends on a kept connection, if there is one.
    pub(crate) fn pooled(&self) -> PooledClient<'_> {
        let mut pooled = self.pooled.lock();
        let place = pooled.take_place();
        PooledClient {
            client: self.client_of(place, &mut pooled),
            place,
            pool: self,
        }
    }

    fn client_of(&self, place: usize, pooled: &mut PooledClients) -> reqwest::Client {
        let number = place / self.share;
        while pooled.clients.len() <= number {
            match self.connector.client(self.share) {
                Ok(client) => pooled.clients.push(client),
                Err(error) => {
                    tracing::warn!(%error, "no further client for look-ups");
                    return self.unpooled.clone();
                }
            }
        }
        pooled.clients[number].clone()
    }

    /// Makes a connection for each request.
    pub(crate) fn unpooled(&self) -> &reqwest::Client {
        &self.unpooled
    }

    /// Resolves the name every [`RESOLVE_INTERVAL`]. When its addresses have changed, further requests are sent
    /// on connections to the new ones. Requests in flight end where they are.
    pub(crate) async fn follow_name(&self) {
        let Some(name) = &self.name else {
            return std::future::pending().await;
        };
        let mut known = None;
        loop {
            let found = self.addresses(name).await;
            if found.is_some() && known.is_some() && found != known {
                tracing::info!(name, addresses = ?found, "client service has moved");
                // New clients have no connections yet. Those in use end with their requests.
                self.pooled.lock().clients.clear();
            }
            known = found.or(known);
            sleep(RESOLVE_INTERVAL).await;
        }
    }

    async fn addresses(&self, name: &str) -> Option<BTreeSet<IpAddr>> {
        let found = self.connector.names.resolve(Name::from_str(name).ok()?);
        let addresses = found.await.ok()?.map(|address| address.ip()).collect();
        Some(addresses).filter(|addresses: &BTreeSet<IpAddr>| !addresses.is_empty())
    }
}

impl PooledClients {
    fn take_place(&mut self) -> usize {
        self.free.pop().map_or_else(
            || {
                self.places += 1;
                self.places - 1
            },
            |Reverse(place)| place,
        )
    }
}

impl PooledClient<'_> {
    /// The client, for the request that has the place.
    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

impl Drop for PooledClient<'_> {
    fn drop(&mut self) {
        self.pool.pooled.lock().free.push(Reverse(self.place));
    }
}

/// The names that the system resolves.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
