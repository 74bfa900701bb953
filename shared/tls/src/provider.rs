//! The one implementation of cryptography.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The implementation, for configurations that are made by hand.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Gives the implementation to libraries that ask the process for one, whether their connections use TLS or not.
pub fn install_provider() {
    if ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
}
