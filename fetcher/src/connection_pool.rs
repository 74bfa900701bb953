//! Connections to the client service. They are kept for further look-ups, until its name leads elsewhere, or a
//! file of their TLS changes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use settings::Renewal;
use tokio::time::sleep;
use url::Host;

use crate::config::{Config, HttpVersion};
use crate::credentials::Credentials;

mod connector;

use connector::Connector;

/// How long a connection is kept without use. Shorter than most servers keep it.
pub(crate) const IDLE: Duration = Duration::from_secs(15);

/// How often the name is resolved, and the files of TLS are looked at, while connections are kept.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(15);

/// Requests in flight on one client, which has one connection where the client service speaks HTTP/2. It is the
/// least that a server is asked to take on a connection (RFC 9113, 6.5.2); what is more would wait there, on
/// account of its time-out.
const STREAMS: usize = 100;

/// Connections to the client service, which are made when they are needed.
pub(crate) struct ConnectionPool {
    connector: Connector,
    /// Name of the client service, or of the proxy in front of it; none if its address is a number.
    name: Option<String>,
    pooled: Mutex<PooledClients>,
    /// Of the TLS of all clients, if there is TLS.
    renewal: Mutex<Option<Renewal>>,
    /// Requests in flight on each of the pooled clients.
    share: usize,
}

/// Each request has a place while it is in flight, and goes to the client that has this place. The lowest free
/// place is taken, so that the other clients' connections can become idle and be closed.
struct PooledClients {
    clients: Vec<reqwest::Client>,
    /// Keeps no connection.
    unpooled: reqwest::Client,
    /// Of all clients. Made once, because it takes a while to read the system's certificates.
    tls: ClientConfig,
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
        let url = config.client_url.get()?;
        let version = config.client_http_version;
        let connector = Connector {
            names,
            timeout: config.fetch_timeout,
            version,
            files: config.client_tls(&url),
            proxy: credentials.proxy(),
        };
        let renewal = connector.stamp().map(Renewal::of);
        let tls = connector.tls().context("setting up TLS")?;
        let may_multiplex = match version {
            HttpVersion::OneOne => false,
            HttpVersion::Two => true,
            HttpVersion::Auto => connector.files.is_some(),
        };
        let share = if may_multiplex {
            STREAMS
        } else {
            config.fetch_concurrency.get()
        };
        let client = |max_idle| {
            let client = connector.client(&tls, max_idle);
            client.context("setting up the HTTP client")
        };
        let pooled = PooledClients {
            clients: vec![client(share)?],
            unpooled: client(0)?,
            tls,
            free: BinaryHeap::new(),
            places: 0,
        };
        Ok(Self {
            pooled: Mutex::new(pooled),
            renewal: Mutex::new(renewal),
            share,
            name: match credentials.proxy_url().unwrap_or(url.url().clone()).host() {
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
            match self.connector.client(&pooled.tls, self.share) {
                Ok(client) => pooled.clients.push(client),
                Err(error) => {
                    tracing::warn!(%error, "no further client for look-ups");
                    return pooled.unpooled.clone();
                }
            }
        }
        pooled.clients[number].clone()
    }

    /// Makes a connection for each request.
    pub(crate) fn unpooled(&self) -> reqwest::Client {
        self.pooled.lock().unpooled.clone()
    }

    /// Resolves the name every [`FOLLOW_INTERVAL`], and looks at the files of TLS. When its addresses or the files have
    /// changed, further requests are sent on new connections. Requests in flight end where they are.
    pub(crate) async fn follow(&self) {
        let mut known = None;
        loop {
            if let Some(name) = &self.name {
                let found = self.addresses(name).await;
                if found.is_some() && known.is_some() && found != known {
                    tracing::info!(name, addresses = ?found, "client service has moved");
                    // New clients have no connections yet. Those in use end with their requests.
                    self.pooled.lock().clients.clear();
                }
                known = found.or(known);
            }
            self.renew_tls();
            sleep(FOLLOW_INTERVAL).await;
        }
    }

    fn renew_tls(&self) {
        let mut renewal = self.renewal.lock();
        let (Some(renewal), Some(stamp)) = (renewal.as_mut(), self.connector.stamp()) else {
            return;
        };
        let warning = "the new certificates for the client service are not used, the old ones stay";
        let renewed = renewal.renew(stamp, warning, || {
            let tls = self.connector.tls()?;
            anyhow::Ok((self.connector.client(&tls, 0)?, tls))
        });
        if let Some((unpooled, tls)) = renewed {
            let mut pooled = self.pooled.lock();
            pooled.clients.clear();
            (pooled.unpooled, pooled.tls) = (unpooled, tls);
            tracing::info!("the certificates for the client service were read again");
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
