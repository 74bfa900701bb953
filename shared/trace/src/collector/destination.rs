//! Where the requests of an exporter go.

use settings::{Secret, SecretError};
use url::Url;

use crate::config::{Address, TraceSettings};

/// An address, which may be in a file: it is read for each request.
pub(super) struct Destination {
    address: Secret<Address>,
}

impl Destination {
    pub(super) fn zipkin(settings: &TraceSettings) -> Self {
        Self {
            address: settings.zipkin_url.clone(),
        }
    }

    /// Where the next request goes, if anywhere.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn url(&self) -> Result<Option<Url>, SecretError> {
        let Address(url) = self.address.get()?;
        Ok(url)
    }
}
