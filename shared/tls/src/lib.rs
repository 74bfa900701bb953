//! TLS both ways. Outgoing: whom connections trust, and what they prove to the server ([`Client`]). Incoming: the certificate of
//! a server ([`Acceptor`]). Certificates and keys are PEM files, and are read again when they change. There is one
//! implementation, rustls with ring, for all.

mod file;
mod identity;
mod incoming;
mod outgoing;
mod provider;
mod unverified;
mod verifier;

pub use file::{CertificateFile, FileError, KeyFile, certificates};
pub use identity::{Identity, check_pair};
pub use incoming::{Acceptor, ServerSettings};
pub use outgoing::{Client, TrustSettings, client_config};
pub use provider::install_provider;
pub use tokio_rustls::{client, server};
pub use unverified::connect_unverified;
pub use verifier::{Check, verifier};
