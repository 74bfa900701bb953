//! Connections to the collector.

use reqwest::redirect::Policy;
use tls::{Stamp, TrustSettings};
use url::Url;

use super::TIMEOUT;

/// The HTTP client, which is made again when a file of its TLS has changed.
pub(super) struct Connections {
    http: reqwest::Client,
    /// What TLS is made of, if there is TLS, and the files that it was made of.
    tls: Option<(tls::Client, Stamp)>,
    /// Why newer files are not used; said once.
    refused: Option<String>,
}

impl Connections {
    /// # Errors
    /// A file of the TLS cannot be used, or the client cannot be set up.
    pub(super) fn new(url: &Url, trust: &TrustSettings) -> anyhow::Result<Self> {
        let tls = (url.scheme() == "https").then(|| tls::Client::new(trust, None));
        let tls = tls.map(|tls| (tls.stamp(), tls));
        Ok(Self {
            http: client(tls.as_ref().map(|(_, tls)| tls))?,
            tls: tls.map(|(stamp, tls)| (tls, stamp)),
            refused: None,
        })
    }

    /// The client for the next request.
    pub(super) fn current(&mut self) -> reqwest::Client {
        if let Some((tls, known)) = &mut self.tls {
            let stamp = tls.stamp();
            if stamp != *known {
                match client(Some(tls)) {
                    Ok(http) => (self.http, *known, self.refused) = (http, stamp, None),
                    // It is read again with the next spans: this may have passed by then.
                    Err(error) => {
                        let error = format!("{error:#}");
                        if self.refused.as_ref() != Some(&error) {
                            tracing::warn!(error, "the new CA_FILE is not used for spans");
                            self.refused = Some(error);
                        }
                    }
                }
            }
        }
        self.http.clone()
    }
}

fn client(tls: Option<&tls::Client>) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(Policy::none());
    if let Some(tls) = tls {
        builder = builder.tls_backend_preconfigured(tls.config()?);
    }
    Ok(builder.build()?)
}
