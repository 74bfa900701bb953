//! The way to the broker: its address, its topology, and steps with it that are bounded in time.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use thiserror::Error;

use crate::config::{Value, mask_password};
use crate::topology::{QueuePrefix, Topology};

/// Seconds without a sign of life after which broker and client each give the connection up.
const HEARTBEAT_SECONDS: u16 = 10;

/// Longest frame, in bytes. The client library keeps 32 of them free in each direction of each
/// connection; the headers of a message have to fit into one.
const FRAME_BYTES: u32 = 32 << 10;

/// Address and credentials of the broker.
#[derive(Clone)]
pub struct AmqpUrl {
    uri: AMQPUri,
    masked: String,
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked)
    }
}

impl Value for AmqpUrl {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let url = url::Url::parse(raw.trim()).map_err(|error| error.to_string())?;
        let mut uri: AMQPUri = raw.trim().parse()?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.frame_max.get_or_insert(FRAME_BYTES);
        Ok(Self {
            uri,
            masked: mask_password(&url),
        })
    }

    fn show(&self) -> String {
        self.masked.clone()
    }
}

crate::settings! {
    /// Settings of the connection to the broker.
    pub struct BrokerSettings {
        /// Address and credentials of RabbitMQ: amqp://user:password@host:port/vhost, or amqps://.
        pub amqp_url: AmqpUrl = "amqp://guest:guest@localhost:5672/%2f",
        /// What the names of queues and exchanges begin with, so that several pipelines can share
        /// a broker.
        pub queue_prefix: QueuePrefix = "",
        /// How long one step with the broker (connect, declare, publish, ack) may take before the
        /// connection is given up and made anew.
        pub broker_timeout: Duration = "5s",
    } with {}
}

/// Why a session with the broker ended.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The broker, or the way to it, failed.
    #[error("{0}")]
    Lapin(#[from] lapin::Error),
    /// A step took longer than `broker_timeout`.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// The broker ended a consumer: its queue was deleted, or moved.
    #[error("the broker ended the consumer")]
    ConsumerEnded,
}

/// The way to a broker: where it is, and what is declared there.
#[derive(Clone, Debug)]
pub struct Broker {
    url: AmqpUrl,
    timeout: Duration,
    topology: Topology,
    process: &'static str,
}

impl Broker {
    /// The broker that `settings` name, where `topology` is declared on each connection. `process`
    /// names the connections in the management UI.
    #[must_use]
    pub fn new(process: &'static str, settings: &BrokerSettings, topology: Topology) -> Self {
        let url = settings.amqp_url.clone();
        Self {
            url,
            timeout: settings.broker_timeout,
            topology,
            process,
        }
    }

    /// Names of the exchange and the queues.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How long one step with the broker may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Bounds a step with the broker: without a bound it can hang for ever on a lost connection.
    ///
    /// # Errors
    /// The step's own error, or [`BrokerError::Timeout`] naming it.
    pub async fn bounded<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(BrokerError::Timeout(step)),
        }
    }

    /// The same for a connection that publishes. While an alarm of the broker blocks it, nothing is
    /// wrong with it: it works again when the alarm clears, and another one would be blocked too.
    ///
    /// # Errors
    /// The step's own error, or [`BrokerError::Timeout`] naming it.
    pub async fn bounded_unless_blocked<T>(
        &self,
        connection: &Connection,
        step: &'static str,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        let mut work = pin!(work);
        loop {
            let was_blocked = connection.status().blocked();
            match tokio::time::timeout(self.timeout, &mut work).await {
                Ok(result) => return Ok(result?),
                // From the end of the alarm on it has its time anew.
                Err(_) if was_blocked || connection.status().blocked() => {}
                Err(_) => return Err(BrokerError::Timeout(step)),
            }
        }
    }

    /// Connects; `role` tells the connections of a process apart.
    ///
    /// # Errors
    /// The broker does not answer in time, or does not let the user in.
    pub async fn connect(&self, role: &'static str) -> Result<Connection, BrokerError> {
        let name = format!("{} {role}", self.process);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        self.bounded(
            "connecting",
            Connection::connect_uri(self.url.uri.clone(), properties),
        )
        .await
    }

    /// Opens a channel for the work of a session.
    ///
    /// # Errors
    /// The connection is lost, or the broker does not answer in time.
    pub async fn channel(&self, connection: &Connection) -> Result<Channel, BrokerError> {
        self.bounded("opening a channel", connection.create_channel())
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_shown_nowhere() {
        let url = <AmqpUrl as Value>::parse("amqp://user:secret@host:5672/%2f").unwrap();
        assert!(!url.show().contains("secret"));
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn an_address_of_another_scheme_is_refused() {
        assert!(<AmqpUrl as Value>::parse("http://host").is_err());
    }
}
