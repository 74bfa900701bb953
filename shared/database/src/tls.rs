//! How the connection to the database is encrypted, as `sslmode` and its kin ask for it.

use std::fmt::Display;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The TLS parameters of the database's address, as they were written.
#[derive(Debug, Default)]
pub(crate) struct TlsParameters {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl TlsParameters {
    /// Takes a parameter; false if it is about something else.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> bool {
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }

    /// The configuration that they ask for: `None` if the connection is not encrypted.
    ///
    /// # Errors
    /// Names the parameter that cannot be carried out, and why.
    pub(crate) fn config(&self) -> Result<Option<ClientConfig>, String> {
        let checks_name = match self.mode.as_deref() {
            None | Some("disable" | "prefer") => return self.none(),
            Some("verify-ca") => false,
            Some("require" | "verify-full") => true,
            Some(mode) => {
                return Err(format!(
                    "sslmode={mode} is not disable, prefer, require, verify-ca or verify-full"
                ));
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(self.authorities()?, checks_name, &provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match (&self.certificate, &self.key) {
            (None, None) => Ok(Some(config.with_no_client_auth())),
            (Some(certificate), Some(key)) => {
                let wrong = |error: &dyn Display| format!("sslkey={key}: {error}");
                let chain = certificates("sslcert", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&error))?;
                let config = config.with_client_auth_cert(chain, key);
                config.map(Some).map_err(|error| wrong(&error))
            }
            (Some(_), None) => Err("sslcert needs sslkey".to_owned()),
            (None, Some(_)) => Err("sslkey needs sslcert".to_owned()),
        }
    }

    /// Without encryption, certificates have no use, and are refused.
    fn none(&self) -> Result<Option<ClientConfig>, String> {
        let given = [
            ("sslrootcert", &self.roots),
            ("sslcert", &self.certificate),
            ("sslkey", &self.key),
        ];
        match given.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(format!(
                "{name} needs sslmode=require, verify-ca or verify-full"
            )),
            None => Ok(None),
        }
    }

    fn authorities(&self) -> Result<RootCertStore, String> {
        let (name, found) = match self.roots.as_deref() {
            None | Some("system") => (
                "the system".to_owned(),
                rustls_native_certs::load_native_certs().certs,
            ),
            Some(path) => (
                format!("sslrootcert={path}"),
                certificates("sslrootcert", path)?,
            ),
        };
        let mut roots = RootCertStore::empty();
        match roots.add_parsable_certificates(found) {
            (0, _) => Err(format!("{name} has no certificate authorities")),
            _ => Ok(roots),
        }
    }
}

fn certificates(parameter: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn Display| format!("{parameter}={path}: {error}");
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let found: Result<Vec<_>, _> = found.collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(&"no certificate in this file")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(&error)),
    }
}

fn verifier(
    authorities: RootCertStore,
    checks_name: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider))
            .build()
            .map_err(|error| error.to_string())?;
    Ok(if checks_name {
        verifier
    } else {
        Arc::new(AnyName(verifier))
    })
}

/// Checks that an authority has signed the certificate, for any name: `verify-ca`.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self
            .0
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match checked {
            // The name is checked last, when everything else is in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
