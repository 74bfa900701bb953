//! Making clients that have no connection yet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use reqwest::dns::Resolve;
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use settings::Stamp;

use crate::config::HttpVersion;
use crate::connection_pool::IDLE;

/// How often a connection that carries several requests is asked for a sign of life. A dead one would
/// take others with it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How much of answers may be on its way before it is read. Answers are small.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Without it a server may choose any coding (RFC 9110, 12.5.3).
const NOT_COMPRESSED: HeaderValue = HeaderValue::from_static("identity");

/// What a client is made of.
pub(super) struct Connector {
    pub(super) names: Arc<dyn Resolve>,
    pub(super) timeout: Duration,
    pub(super) version: HttpVersion,
    /// The files of TLS, if there is TLS.
    pub(super) files: Option<tls::Client>,
    pub(super) proxy: Option<reqwest::Proxy>,
}

impl Connector {
    /// What is trusted, proved and offered in a TLS handshake, by the files as they are now. Without TLS nothing is, and no
    /// certificate is read.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn tls(&self) -> io::Result<ClientConfig> {
        let mut tls = match &self.files {
            Some(files) => files.config()?,
            None => ClientConfig::builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth(),
        };
        let offered = self.version.offered().iter();
        tls.alpn_protocols = offered.map(|name| name.as_bytes().to_vec()).collect();
        Ok(tls)
    }

    /// Tells whether [`Self::tls`] would be another one.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.files.as_ref().map(tls::Client::stamp)
    }

    /// Makes a client that keeps at most `max_idle` unused connections.
    pub(super) fn client(
        &self,
        tls: &ClientConfig,
        max_idle: usize,
    ) -> reqwest::Result<reqwest::Client> {
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
            .tls_backend_preconfigured(tls.clone())
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
