//! The broker: its queues ([`Topology`]), publishing with confirms ([`Publisher`]), and consuming with acks when the work is
//! safe ([`Consumer`]). Publisher and consumer each have a session with the broker, which begins again when it fails.

mod amqp_url;
mod arguments;
mod brake;
mod connection;
mod consumer;
mod declaration;
mod delay;
mod delivery;
mod handler;
mod headers;
mod hold;
mod lag;
mod lane;
mod metrics;
mod open;
mod outlet;
mod publication;
mod publish_session;
mod publisher;
mod queue;
mod removal;
mod spans;
mod subscription;
mod supervisor;
mod topology;
mod window;

pub use crate::metrics::{CONSUMER_METRICS, DEAD_LETTERS, GivenUp, METRICS};
pub use amqp_url::AmqpUrl;
pub use brake::Brake;
pub use connection::{Broker, BrokerConnection, BrokerError, BrokerSettings};
pub use consumer::{Consumer, Consumption};
pub use delay::Delay;
pub use handler::{Handler, Load, Outcome};
pub use headers::{ACCEPTED_AT_HEADER, ATTEMPT_HEADER, Attempt, Headers, REASON_HEADER, shortened};
pub use hold::Hold;
pub use lag::{DUE_AT_HEADER, lag, set_due};
pub use publication::{Publication, PublishError};
pub use publisher::Publisher;
pub use queue::{Queue, QueuePrefix};
pub use topology::Topology;
