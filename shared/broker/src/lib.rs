//! The broker: which queues there are ([`Topology`]), publishing that is confirmed ([`Publisher`]), and consuming that acks
//! when the work is safe ([`Consumer`]). Each is a session with the broker that is begun again when it fails.

mod amqp_url;
mod brake;
mod connection;
mod consumer;
mod declaration;
mod delivery;
mod handler;
mod headers;
mod hold;
mod lag;
mod lane;
mod metrics;
mod open;
mod publisher;
mod spans;
mod supervisor;
mod topology;

pub use crate::metrics::{CONSUMER_METRICS, DEAD_LETTERS, GivenUp, METRICS};
pub use amqp_url::AmqpUrl;
pub use brake::Brake;
pub use connection::{Broker, BrokerConnection, BrokerError, BrokerSettings};
pub use consumer::{Consumer, Consumption};
pub use handler::{Handler, Outcome};
pub use headers::{ATTEMPT_HEADER, Attempt, Headers, REASON_HEADER, shortened};
pub use hold::Hold;
pub use lag::{DUE_AT_HEADER, lag, set_due};
pub use publisher::{Publication, PublishError, Publisher};
pub use topology::{Delay, Queue, QueuePrefix, Topology};
