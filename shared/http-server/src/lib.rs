//! An HTTP server that clients cannot wear out. Connections are limited, and at the limit the one that has been idle longest
//! makes room; heads, bodies and idle times are bounded, and what a client did not read is closed so that it still arrives.
//! What a request means is up to a [`Service`].

mod awaited;
mod client;
mod connection;
mod descriptors;
mod head;
mod listener;
mod metrics;
mod request_body;
mod router;
mod server;
mod stream;

pub use crate::metrics::METRICS;
pub use descriptors::{connections_within_limit, raise_limit};
pub use listener::listen;
pub use request_body::RequestBody;
pub use router::Route;
pub use server::{ServerLimits, Service, serve};
