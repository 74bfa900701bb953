//! What is checked of a server's certificate.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::provider::provider;

/// What a server's certificate has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// That an authority has signed it for the server's name.
    Name,
    /// That an authority has signed it, for any name.
    Authority,
}

/// Verifies servers by these authorities.
///
/// # Errors
/// There is no authority.
pub fn verifier(
    authorities: RootCertStore,
    check: Check,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider());
    let strict = strict.build().map_err(io::Error::other)?;
    Ok(match check {
        Check::Name => strict,
        Check::Authority => Arc::new(Lenient::new(Some(strict))),
    })
}

/// Takes every certificate.
pub(crate) fn unverified() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Lenient::new(None))
}

/// Does not check the name; without authorities, nothing of the certificate.
#[derive(Debug)]
struct Lenient {
    strict: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Lenient {
    fn new(strict: Option<Arc<WebPkiServerVerifier>>) -> Self {
        Self {
            strict,
            algorithms: provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(strict) = &self.strict else {
            return Ok(ServerCertVerified::assertion());
        };
        match strict.verify_server_cert(certificate, intermediates, name, ocsp, now) {
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
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
