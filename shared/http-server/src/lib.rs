//! An HTTP server with bounds on what a client can take. What a request means is up to a [`Service`]; [`Route`] tells where
//! it goes.
//!
//! The life of a connection: it is *accepted* and gets a *slot*. When all slots are taken, it goes into the *overflow*
//! while the connection that has waited longest for its client is *displaced* and gives up its slot. If no connection has
//! waited for a second, or the overflow is full too, the new one is *refused* with 503. With a slot the connection
//! *shakes hands*, in the time that a head may take: it reads the PROXY header if a proxy has to send one, and then
//! speaks TLS if the server does. Then it *waits* for its client: it is *idle* until a request begins, and then reads its
//! head and body. When the whole request is here, the connection is *busy* and cannot be displaced, until it has answered
//! and waits again. It ends when it is displaced, when a head takes too long, when it is idle for too long, when either
//! side closes it, or with the shut-down; and if the client may still be sending then, it *lingers*: it discards what
//! comes for a second, so that the last answer arrives.

mod activity;
mod connection;
mod descriptors;
mod displacement;
mod handshake;
mod head;
mod lingering_stream;
mod listener;
mod metrics;
mod proxy_protocol;
mod request_body;
mod router;
mod server;

pub use crate::metrics::METRICS;
pub use descriptors::{connections_within_limit, raise_limit};
pub use listener::listen;
pub use request_body::RequestBody;
pub use router::Route;
pub use server::{ServerLimits, Service, serve};
