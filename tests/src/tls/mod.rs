//! TLS of the tests: certificates of an authority that a test makes, and a proxy that has one.

mod authority;
mod tls_proxy;

pub use authority::{Authority, Certified, replace};
pub use tls_proxy::{Speaks, TlsProxy};
