//! TCP connections that are given up in time ([`dial()`]), and the reason why there is none, in full ([`reason()`],
//! [`stranger()`]).

mod dial;
mod reason;
mod stranger;

pub use dial::{Lifeline, connect, dial};
pub use reason::{advised, is_loopback, reason, reason_with};
pub use stranger::{AMQP, POSTGRES, Protocol, TLS, stranger};
