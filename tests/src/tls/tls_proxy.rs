//! TLS in front of a server that has none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tls::certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_rustls::TlsAcceptor;

use crate::servers::server::host_of;
use crate::tls::{Authority, Certified};

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// With TLS.
    Tls,
    /// With the question of PostgreSQL's protocol whether TLS is spoken.
    Postgres,
}

/// A proxy that decrypts. It ends with the test's runtime.
pub struct TlsProxy {
    /// Where it listens.
    pub address: SocketAddr,
}

impl TlsProxy {
    /// Leads to `upstream`, and shows a certificate. Clients need one of `clients`, if that is given.
    pub async fn start(
        upstream: SocketAddr,
        speaks: Speaks,
        shown: &Certified,
        clients: Option<&Authority>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config(shown, clients)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                // A connection ends in whatever way its two sides do.
                tokio::spawn(async move { carry(stream, upstream, speaks, acceptor).await.ok() });
            }
        });
        Self { address }
    }

    /// The same to the server at `url`; returns its URL by way of the proxy.
    pub async fn url(
        url: &str,
        speaks: Speaks,
        shown: &Certified,
        clients: Option<&Authority>,
    ) -> String {
        let host = host_of(url);
        let mut addresses = lookup_host(host).await.unwrap();
        let upstream = addresses.find(SocketAddr::is_ipv4).unwrap();
        let proxy = Self::start(upstream, speaks, shown, clients).await;
        url.replacen(host, &proxy.address.to_string(), 1)
    }
}

fn config(shown: &Certified, clients: Option<&Authority>) -> ServerConfig {
    let config = ServerConfig::builder();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(&authority.file()).unwrap());
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            config.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain = certificates(&shown.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&shown.key).unwrap();
    config.with_single_cert(chain, key).unwrap()
}

async fn carry(
    mut stream: TcpStream,
    upstream: SocketAddr,
    speaks: Speaks,
    acceptor: TlsAcceptor,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if speaks == Speaks::Postgres {
        let mut question = [0; 8];
        stream.read_exact(&mut question).await?;
        assert_eq!(question, *b"\x00\x00\x00\x08\x04\xd2\x16\x2f");
        stream.write_all(b"S").await?;
    }
    match acceptor.accept(stream).into_fallible().await {
        Ok(mut stream) => {
            let mut upstream = TcpStream::connect(upstream).await?;
            copy_bidirectional(&mut stream, &mut upstream).await?;
        }
        Err((_, mut stream)) => {
            // Closed at once, the connection would be reset, and the alert lost.
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await?;
        }
    }
    Ok(())
}
