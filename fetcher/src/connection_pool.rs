//! Connections to the client service. They are kept for further look-ups, until its name leads elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use tokio::sync::watch;
use tokio::time::sleep;
use url::Host;

use crate::config::Config;

/// How long a connection is kept without use. Shorter than most servers keep it.
pub(crate) const IDLE: Duration = Duration::from_secs(15);

/// How often the name is resolved while connections are kept.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(15);

/// Without it a server may choose any coding (RFC 9110, 12.5.3).
const NOT_COMPRESSED: HeaderValue = HeaderValue::from_static("identity");

#[derive(Clone)]
struct Connector {
    names: Arc<dyn Resolve>,
    timeout: Duration,
}

impl Connector {
    /// Makes a client that keeps at most `max_idle` unused connections.
    fn client(&self, max_idle: usize) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .user_agent(concat!("callback-pipeline-fetcher/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, NOT_COMPRESSED)]))
            .timeout(self.timeout)
            // Shared by all addresses, so that the next one is tried while there is time for an answer.
            .connect_timeout(self.timeout / 2)
            .dns_resolver(Arc::clone(&self.names))
            .pool_max_idle_per_host(max_idle)
            .pool_idle_timeout(IDLE)
            // A redirect is not an answer, and a proxy of the environment is not the client service.
            .redirect(Policy::none())
            // The pipeline makes further tries itself, and counts them.
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
    }
}

/// Connections to the client service, which are made when they are needed.
pub(crate) struct ConnectionPool {
    connector: Connector,
    max_idle: usize,
    /// Name of the client service; none if its address is a number.
    name: Option<String>,
    pooled: watch::Sender<reqwest::Client>,
    unpooled: reqwest::Client,
}

impl ConnectionPool {
    /// # Errors
    /// The TLS set-up fails.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        Self::with_names(config, Arc::new(SystemNames))
    }

    fn with_names(config: &Config, names: Arc<dyn Resolve>) -> anyhow::Result<Self> {
        let connector = Connector {
            names,
            timeout: config.fetch_timeout,
        };
        let max_idle = config.fetch_concurrency.get();
        let client = |max_idle| {
            let client = connector.client(max_idle);
            client.context("setting up the HTTP client")
        };
        Ok(Self {
            pooled: watch::Sender::new(client(max_idle)?),
            unpooled: client(0)?,
            max_idle,
            name: match config.client_url.url().host() {
                Some(Host::Domain(name)) => Some(name.to_owned()),
                Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => None,
            },
            connector,
        })
    }

    /// Sends on a kept connection, if there is one.
    pub(crate) fn pooled(&self) -> reqwest::Client {
        self.pooled.borrow().clone()
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
                self.renew().await;
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

    /// On another thread, because it takes a while to read the system's certificates.
    async fn renew(&self) {
        let (connector, max_idle) = (self.connector.clone(), self.max_idle);
        match tokio::task::spawn_blocking(move || connector.client(max_idle)).await {
            Ok(Ok(client)) => self.pooled.send_modify(|pooled| *pooled = client),
            Ok(Err(error)) => tracing::warn!(%error, "connections are kept to where it was"),
            Err(error) => tracing::error!(%error, "connections are kept to where it was"),
        }
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
