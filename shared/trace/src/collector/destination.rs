//! Where the requests of an exporter go, and what they carry.

use http::HeaderMap;
use settings::{Secret, SecretError};
use url::Url;

use crate::config::{Address, TraceSettings};
use crate::pairs::CollectorHeaders;

/// An address and headers. Either may be in a file: they are read for each request.
pub(super) struct Destination {
    address: Secret<Address>,
    /// What follows on the path of the address.
    path: &'static [&'static str],
    headers: Option<Secret<CollectorHeaders>>,
}

impl Destination {
    pub(super) fn zipkin(settings: &TraceSettings) -> Self {
        Self {
            address: settings.zipkin_url.clone(),
            path: &[],
            headers: None,
        }
    }

    /// What is set for traces wins over what is set for all that OpenTelemetry sends.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn otlp(settings: &TraceSettings) -> Result<Self, SecretError> {
        let (whole, base) = (
            &settings.otel_exporter_otlp_traces_endpoint,
            &settings.otel_exporter_otlp_endpoint,
        );
        let (own, common) = (
            &settings.otel_exporter_otlp_traces_headers,
            &settings.otel_exporter_otlp_headers,
        );
        let (address, path) = match whole.get()? {
            Address(Some(_)) => (whole, &[][..]),
            Address(None) => (base, &["v1", "traces"][..]),
        };
        let headers = if own.get()?.is_empty() { common } else { own };
        Ok(Self {
            address: address.clone(),
            path,
            headers: Some(headers.clone()),
        })
    }

    /// Where the next request goes, if anywhere.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn url(&self) -> Result<Option<Url>, SecretError> {
        let Address(mut url) = self.address.get()?;
        if let Some(url) = url.as_mut().filter(|_| !self.path.is_empty())
            && let Ok(mut path) = url.path_segments_mut()
        {
            path.pop_if_empty().extend(self.path);
        }
        Ok(url)
    }

    /// What the next request carries.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn headers(&self) -> Result<HeaderMap, SecretError> {
        let headers = self.headers.as_ref().map(Secret::get).transpose()?;
        Ok(headers.map(CollectorHeaders::into_map).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use settings::load;

    use super::*;

    fn otlp(flags: &[&str]) -> Destination {
        let flags = ["test"].iter().chain(flags).map(OsString::from);
        let loaded = load::<TraceSettings, ()>("test", "", flags, []).unwrap();
        Destination::otlp(&loaded.settings).unwrap()
    }

    fn url(flags: &[&str]) -> Option<String> {
        otlp(flags).url().unwrap().map(String::from)
    }

    #[test]
    fn the_path_follows_on_the_common_address_and_not_on_that_of_traces() {
        for (base, whole) in [
            ("http://host:4318", "http://host:4318/v1/traces"),
            ("http://host/", "http://host/v1/traces"),
            (
                "http://user:word@host/a",
                "http://user:word@host/a/v1/traces",
            ),
            ("http://host/a/?key=1", "http://host/a/v1/traces?key=1"),
        ] {
            let base = format!("--otel-exporter-otlp-endpoint={base}");
            assert_eq!(url(&[&base]).as_deref(), Some(whole));
            let own = "--otel-exporter-otlp-traces-endpoint=http://other:4318";
            assert_eq!(url(&[&base, own]).as_deref(), Some("http://other:4318/"));
        }
        assert_eq!(url(&[]), None);
    }

    #[test]
    fn headers_of_traces_take_the_place_of_the_common_ones() {
        let common = "--otel-exporter-otlp-headers=a=1,b=x%20y";
        let headers = otlp(&[common]).headers().unwrap();
        assert_eq!((headers.len(), headers["b"].to_str().unwrap()), (2, "x y"));
        let own = "--otel-exporter-otlp-traces-headers=c=3";
        let headers = otlp(&[common, own]).headers().unwrap();
        assert_eq!((headers.len(), headers["c"].to_str().unwrap()), (1, "3"));
        assert!(otlp(&[]).headers().unwrap().is_empty());
    }
}
