//! What proves the fetcher's identity to the client service, and to a proxy on the way. Files are read again
//! while look-ups go on; a request takes what was read last.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use lifecycle::Dependency;
use parking_lot::Mutex;
use reqwest::{Client, Proxy};
use settings::{Secret, SecretError};
use tokio::time::sleep;
use url::Url;

use crate::config::{ClientUrl, Config, HttpVersion};

mod values;

pub(crate) use values::{BearerToken, ClientHeader, ProxyUrl};

/// How often files are read again.
const INTERVAL: Duration = Duration::from_secs(5);

/// The credentials as they were last read. Clones share them.
#[derive(Clone)]
pub(crate) struct Credentials {
    url: Secret<ClientUrl>,
    token: Secret<BearerToken>,
    header: Secret<ClientHeader>,
    proxy: Secret<ProxyUrl>,
    /// The headers of each request that are not the HTTP client's own.
    headers: Arc<Mutex<Arc<HeaderMap>>>,
    proxy_now: Arc<Mutex<Option<Url>>>,
}

impl Credentials {
    /// Those that `config` names; [`Self::read`] reads the headers.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn new(config: &Config) -> Result<Self, SecretError> {
        let proxy = config.client_proxy.get()?.0;
        Ok(Self {
            url: config.client_url.clone(),
            token: config.client_token.clone(),
            header: config.client_header.clone(),
            proxy: config.client_proxy.clone(),
            headers: Arc::default(),
            proxy_now: Arc::new(Mutex::new(proxy)),
        })
    }

    /// What goes with a request.
    pub(crate) fn headers(&self) -> Arc<HeaderMap> {
        Arc::clone(&self.headers.lock())
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        self.proxy_now.lock().as_ref()?;
        let now = Arc::clone(&self.proxy_now);
        Some(Proxy::custom(move |_| now.lock().clone()))
    }

    pub(crate) fn proxy_url(&self) -> Option<Url> {
        self.proxy_now.lock().clone()
    }

    /// Reads the files again and again, for ever. What cannot be read stays as it was.
    pub(crate) async fn follow_files(&self, client: &Client, dependency: &Dependency) {
        loop {
            match self.read(client) {
                Ok(()) => dependency.up(),
                Err(error) => dependency.down(&error),
            }
            sleep(INTERVAL).await;
        }
    }

    /// Reads all of them. `client` makes a header of user and password in the address, if it has some.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(&self, client: &Client) -> anyhow::Result<()> {
        let request = client.get(self.url.get()?.url().clone()).build();
        let request = request.context("reading the client service's address")?;
        let mut headers = request.headers().clone();
        let token = self.token.get()?.0.map(|token| (AUTHORIZATION, token));
        for (name, value) in token.into_iter().chain(self.header.get()?.0) {
            headers.insert(name, value);
        }
        let proxy = self.proxy.get()?.0;
        *self.headers.lock() = Arc::new(headers);
        *self.proxy_now.lock() = proxy;
        Ok(())
    }
}

/// Whether some credentials are in files, and so may change.
pub(crate) fn may_change(config: &Config) -> bool {
    config.client_url.may_change()
        || config.client_token.may_change()
        || config.client_header.may_change()
        || config.client_proxy.may_change()
}

/// Without TLS a proxy does not understand HTTP/2, and a request has one `Authorization`.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let now = |error: SecretError| error.to_string();
    let url = config.client_url.get().map_err(now)?;
    let proxy = config.client_proxy.get().map_err(now)?;
    if proxy.0.is_some()
        && url.url().scheme() == "http"
        && config.client_http_version == HttpVersion::Two
    {
        let wrong = "CLIENT_HTTP_VERSION=2: through CLIENT_PROXY it needs https:// in CLIENT_URL";
        return Err(wrong.to_owned());
    }
    let header = config.client_header.get().map_err(now)?;
    let token = config.client_token.get().map_err(now)?;
    if token.0.is_some() && header.0.is_some_and(|(name, _)| name == AUTHORIZATION) {
        let wrong = "CLIENT_HEADER and CLIENT_TOKEN: both are Authorization; leave one of them out";
        return Err(wrong.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (flags, name) in [
            (
                ["--client-http-version=2", "--client-proxy=http://host:1"],
                "CLIENT_PROXY",
            ),
            (
                [
                    "--client-token=hidden",
                    "--client-header=authorization: hidden",
                ],
                "CLIENT_TOKEN",
            ),
        ] {
            let words = ["fetcher"].into_iter().chain(flags).map(OsString::from);
            let loaded = settings::load::<Config, ()>("fetcher", "", words, []);
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("hidden"), "{error}");
        }
    }
}
