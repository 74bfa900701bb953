//! TCP connections that are given up in time ([`dial()`]), and the reason why there is none, in full ([`reason()`]).

mod dial;
mod reason;

pub use dial::{Lifeline, connect, dial};
pub use reason::{Protocol, is_loopback, reason, reason_with, stranger};
