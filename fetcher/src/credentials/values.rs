//! The settings of the credentials: what each may be, and how it is shown.

use http::{HeaderName, HeaderValue};
use settings::{Value, mask_password, parse_url};
use url::Url;

/// A token for `Authorization: Bearer`; none if it is empty.
#[derive(Clone)]
pub struct BearerToken(pub(super) Option<HeaderValue>);

impl Value for BearerToken {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let token = Some(raw.trim()).filter(|token| !token.is_empty());
        let value = token.map(|token| sensitive(&format!("Bearer {token}")));
        value.transpose().map(Self)
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or("", |_| "***").to_owned()
    }
}

/// A header of requests; none if it is empty.
#[derive(Clone)]
pub struct ClientHeader(pub(super) Option<(HeaderName, HeaderValue)>);

/// The headers that say how a request is sent.
const TAKEN: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Value for ClientHeader {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        if raw.trim().is_empty() {
            return Ok(Self(None));
        }
        let (name, value) = raw.split_once(':').ok_or("write it as Name: value")?;
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        let name = name.map_err(|_| "what stands before the colon is no name of a header")?;
        if TAKEN.contains(&name.as_str()) {
            return Err(format!("{name} is not for settings to choose"));
        }
        Ok(Self(Some((name, sensitive(value.trim())?))))
    }

    fn show(&self) -> String {
        let name = self.0.as_ref().map(|(name, _)| format!("{name}:***"));
        name.unwrap_or_default()
    }
}

/// A value that is not logged.
fn sensitive(value: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| "it has characters that are not allowed in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Address of a proxy; none if it is empty.
#[derive(Clone)]
pub struct ProxyUrl(pub(super) Option<Url>);

impl Value for ProxyUrl {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        if raw.trim().is_empty() {
            return Ok(Self(None));
        }
        let url = parse_url(raw)?;
        if url.scheme() != "http" || !url.has_host() {
            return Err("it does not begin with http://".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("a proxy has no path: write http://user:password@host:port".to_owned());
        }
        Ok(Self(Some(url)))
    }

    fn show(&self) -> String {
        self.0.as_ref().map(mask_password).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_a_header_are_sensitive_and_shown_nowhere() {
        let token = BearerToken::parse(" hidden-word\n").unwrap();
        assert_eq!(token.show(), "***");
        let token = token.0.unwrap();
        assert_eq!(token, "Bearer hidden-word");
        let header = ClientHeader::parse("X-Api-Key:  hidden-word ").unwrap();
        assert_eq!(header.show(), "x-api-key:***");
        let (name, value) = header.0.unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-api-key", &b"hidden-word"[..])
        );
        assert!(!format!("{token:?} {value:?}").contains("hidden"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_shown() {
        let tokens = ["hidden\nword", "hidden\u{7f}word"];
        let tokens = tokens.map(|raw| BearerToken::parse(raw).map(drop));
        let headers = [
            "hidden-word",
            "hidden word: x",
            ": hidden-word",
            "X-Key: hidden\r\nHost: other",
            "Host: hidden-word",
            "Content-Length: 7",
        ];
        let headers = headers.map(|raw| ClientHeader::parse(raw).map(drop));
        let proxies = [
            "hidden-word",
            "https://user:hidden-word@host:1",
            "socks5://user:hidden-word@host:1",
            "http://user:hidden-word@host:1/path",
            "http://user:hidden/word@host:1",
            "http://user:hidden-word@host:1?x",
        ];
        let proxies = proxies.map(|raw| ProxyUrl::parse(raw).map(drop));
        for refused in tokens.into_iter().chain(headers).chain(proxies) {
            let error = refused.unwrap_err();
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let proxy = ProxyUrl::parse("http://user:hidden-word@host:3128").unwrap();
        assert_eq!(proxy.show(), "http://user:***@host:3128/");
        assert_eq!(ProxyUrl::parse("").unwrap().show(), "");
    }
}
