//! Connections to servers.

use std::io;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::load_native_certs;
use settings::Stamp;

use crate::file::{CertificateFile, certificates};
use crate::identity::Identity;
use crate::provider::provider;
use crate::verifier::{Check, verifier};

settings::settings! {
    /// Settings of whom connections trust.
    pub struct TrustSettings {
        /// File with certificates of authorities (PEM). Connections with TLS to broker,
        /// database, client service and collectors of spans trust them in addition to those
        /// of the system.
        /// Read again when it changes.
        pub ca_file: CertificateFile = "",
    } with {}
}

impl TrustSettings {
    /// The authorities of the system and those of `CA_FILE`, as they are now.
    ///
    /// # Errors
    /// The file cannot be used, or there is no authority.
    pub fn authorities(&self) -> io::Result<RootCertStore> {
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(load_native_certs().certs);
        if let Some(file) = self.ca_file.path() {
            authorities.add_parsable_certificates(certificates(file)?);
        }
        if authorities.is_empty() {
            return Err(io::Error::other(
                "the system has no certificate authorities, and CA_FILE names none",
            ));
        }
        Ok(authorities)
    }
}

/// TLS of connections to a server: whom they trust, and what they prove.
#[derive(Clone, Debug)]
pub struct Client {
    trust: TrustSettings,
    identity: Option<Identity>,
}

impl Client {
    /// Trusts the authorities of `trust`, and proves `identity` to servers that ask.
    #[must_use]
    pub fn new(trust: &TrustSettings, identity: Option<Identity>) -> Self {
        Self {
            trust: trust.clone(),
            identity,
        }
    }

    /// The configuration of a connection, from the files as they are now.
    ///
    /// # Errors
    /// A file cannot be used, or there is no authority.
    pub fn config(&self) -> io::Result<ClientConfig> {
        let verifier = verifier(self.trust.authorities()?, Check::Name)?;
        client_config(verifier, self.identity.as_ref())
    }

    /// Tells whether [`Self::config`] would be another one.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let identity = self.identity.iter().flat_map(Identity::files);
        Stamp::of(self.trust.ca_file.path().into_iter().chain(identity))
    }
}

/// The configuration of a connection whose server `verifier` judges, and to which `identity` is proved.
///
/// # Errors
/// A file of the identity cannot be used.
pub fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&Identity>,
) -> io::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let key = SingleCertAndKey::from(identity.load()?);
            config.with_client_cert_resolver(Arc::new(key))
        }
    })
}
