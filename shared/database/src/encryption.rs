//! How the connection to the database is encrypted, as `sslmode` and its kin ask for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tls::{Identity, TrustSettings, certificates, client_config, provider};

/// The TLS parameters of the database's address, as they were written.
#[derive(Clone, Debug, Default)]
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

    /// What they ask for: `None` if the connection is not encrypted.
    ///
    /// # Errors
    /// Names the parameter that cannot be carried out, and why.
    pub(crate) fn encryption(&self) -> Result<Option<Encryption>, String> {
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
        let roots = self.roots.as_deref().filter(|roots| *roots != "system");
        let encryption = Encryption {
            checks_name,
            roots: roots.map(PathBuf::from),
            identity: self.identity()?,
        };
        if let Some(file) = &encryption.roots {
            certificates(file).map_err(|error| format!("sslrootcert={error}"))?;
        }
        Ok(Some(encryption))
    }

    fn identity(&self) -> Result<Option<Identity>, String> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let identity = Identity {
                    certificate: certificate.into(),
                    key: key.into(),
                };
                let loaded = identity.load().map(|_| Some(identity));
                loaded.map_err(|error| format!("sslcert and sslkey: {error}"))
            }
            (Some(_), None) => Err("sslcert needs sslkey".to_owned()),
            (None, Some(_)) => Err("sslkey needs sslcert".to_owned()),
        }
    }

    /// Without encryption, certificates have no use, and are refused.
    fn none(&self) -> Result<Option<Encryption>, String> {
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
}

/// How connections are encrypted. The files are read for each of them.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    checks_name: bool,
    /// In place of the authorities that connections trust otherwise.
    roots: Option<PathBuf>,
    identity: Option<Identity>,
}

impl Encryption {
    /// The configuration of a connection.
    ///
    /// # Errors
    /// A file cannot be used, or there is no authority.
    pub(crate) fn config(&self, trust: &TrustSettings) -> io::Result<ClientConfig> {
        let authorities = match &self.roots {
            None => trust.authorities()?,
            Some(file) => authorities(file)?,
        };
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider());
        let verifier = verifier.build().map_err(io::Error::other)?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.checks_name {
            verifier
        } else {
            Arc::new(AnyName(verifier))
        };
        client_config(verifier, self.identity.as_ref())
    }
}

fn authorities(file: &Path) -> io::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(certificates(file)?);
    Ok(authorities)
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
