//! The HTTP client of an exporter.

use std::time::Duration;

use reqwest::redirect::Policy;
use settings::Renewal;
use tls::TrustSettings;
use url::Url;

/// How long a collector may take for one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The HTTP client, which is made again when a file of its TLS has changed.
pub(super) struct CollectorClient {
    http: reqwest::Client,
    /// What TLS is made of, if there is TLS, and the files that it was made of.
    tls: Option<(tls::Client, Renewal)>,
}

impl CollectorClient {
    /// # Errors
    /// A file of the TLS cannot be used, or the client cannot be set up.
    pub(super) fn new(url: &Url, trust: &TrustSettings) -> anyhow::Result<Self> {
        let tls = (url.scheme() == "https").then(|| tls::Client::new(trust, None));
        let tls = tls.map(|tls| {
            let renewal = Renewal::of(tls.stamp());
            (tls, renewal)
        });
        Ok(Self {
            http: client(tls.as_ref().map(|(tls, _)| tls))?,
            tls,
        })
    }

    /// The client for the next request.
    pub(super) fn current(&mut self) -> reqwest::Client {
        if let Some((tls, renewal)) = &mut self.tls {
            let warning = "the new CA_FILE is not used for spans";
            let renewed = renewal.renew(tls.stamp(), warning, || client(Some(tls)));
            if let Some(http) = renewed {
                self.http = http;
            }
        }
        self.http.clone()
    }
}

fn client(tls: Option<&tls::Client>) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .user_agent(concat!("callback-pipeline/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(Policy::none());
    if let Some(tls) = tls {
        builder = builder.tls_backend_preconfigured(tls.config()?);
    }
    Ok(builder.build()?)
}
