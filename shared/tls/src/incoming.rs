//! Connections of clients.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use settings::{Renewal, Stamp};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::file::{CertificateFile, FileError, KeyFile};
use crate::identity::{Identity, check_pair};
use crate::provider::provider;

settings::settings! {
    /// Settings of the certificate that a process shows to its clients.
    pub struct ServerSettings {
        /// File with the certificate of this process, then those of its issuers (PEM). With
        /// it, all ports of the process speak TLS only, the admin port too. Read again when
        /// it changes; connections stay open.
        pub tls_certificate_file: CertificateFile = "",
        /// File with the private key of TLS_CERTIFICATE_FILE (PEM).
        pub tls_key_file: KeyFile = "",
    } with {} check pair
}

fn pair(settings: &ServerSettings) -> Result<(), String> {
    check_pair(
        ("TLS_CERTIFICATE_FILE", &settings.tls_certificate_file),
        ("TLS_KEY_FILE", &settings.tls_key_file),
    )
}

impl ServerSettings {
    /// The TLS of a server; `None` if it has no certificate.
    ///
    /// # Errors
    /// A file cannot be used any more.
    pub fn acceptor(&self) -> io::Result<Option<Acceptor>> {
        let identity = Identity::of(&self.tls_certificate_file, &self.tls_key_file);
        identity.map(Acceptor::new).transpose()
    }
}

/// The TLS of a server, for HTTP/2 and HTTP/1.1.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    fn new(identity: Identity) -> io::Result<Self> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificate::new(identity)?));
        config.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(<[u8]>::to_vec).to_vec();
        // With tickets the clients keep what is needed to resume, however many they are.
        config.ticketer = Ticketer::new().map_err(io::Error::other)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client. It may take as long as the client likes.
    ///
    /// # Errors
    /// The client speaks something else, or does not take the certificate, or is gone.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

/// A certificate that is read again when its files have changed.
#[derive(Debug)]
struct Certificate {
    identity: Identity,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renewal: Renewal,
    /// When the files were looked at last.
    looked: Instant,
}

impl Certificate {
    fn new(identity: Identity) -> Result<Self, FileError> {
        let renewal = Renewal::of(Stamp::of(identity.files()));
        let current = Current {
            key: Arc::new(identity.load()?),
            renewal,
            looked: Instant::now(),
        };
        Ok(Self {
            identity,
            current: Mutex::new(current),
        })
    }

    fn renew(&self, current: &mut Current) {
        let stamp = Stamp::of(self.identity.files());
        let warning = "the new certificate is not used, the old one stays";
        let renewed = current
            .renewal
            .renew(stamp, warning, || self.identity.load());
        if let Some(key) = renewed {
            current.key = Arc::new(key);
            tracing::info!("the certificate of TLS_CERTIFICATE_FILE was read again");
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        /// How often files are looked at, at most.
        const INTERVAL: Duration = Duration::from_secs(1);
        let mut current = self.current.lock();
        if current.looked.elapsed() >= INTERVAL {
            current.looked = Instant::now();
            self.renew(&mut current);
        }
        Some(Arc::clone(&current.key))
    }
}
