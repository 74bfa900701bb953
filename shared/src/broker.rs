//! Connections to the broker, and the supervisor that keeps one working.
//!
//! The supervisor owns connection, channels and topology, and starts all anew on any error. The
//! client library's own recovery is not used: it was seen to hang under cut connections.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use thiserror::Error;

use crate::config::{Value, mask_password};
use crate::health::Dependency;
use crate::shutdown::Shutdown;
use crate::topology::{QueuePrefix, Topology};

/// Seconds without a sign of life after which broker and client each give the connection up.
const HEARTBEAT_SECONDS: u16 = 10;

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

/// Work that needs a connection, done anew on each one.
pub trait Session: Send {
    /// Works until it is finished (`Ok`), or until the connection is of no more use.
    fn run(
        &mut self,
        connection: &Connection,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;
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

    /// Names of exchanges and queues.
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

    /// Runs `session` on one connection after the other, until it finishes or the shut-down begins
    /// while there is no connection. A session itself decides how it ends at the shut-down.
    pub async fn supervise(
        &self,
        role: &'static str,
        dependency: &Dependency,
        shutdown: &Shutdown,
        session: &mut impl Session,
    ) {
        let mut delays = backoff();
        loop {
            let started = tokio::time::Instant::now();
            match self.run_session(role, dependency, shutdown, session).await {
                Ok(()) => return,
                Err(error) => dependency.down(&error),
            }
            metrics::counter!("broker_session_failures_total", "role" => role).increment(1);
            if started.elapsed() > self.timeout {
                delays = backoff();
            }
            if !shutdown.sleep(delays.next().unwrap_or(MAX_BACKOFF)).await {
                return;
            }
        }
    }

    async fn run_session(
        &self,
        role: &'static str,
        dependency: &Dependency,
        shutdown: &Shutdown,
        session: &mut impl Session,
    ) -> Result<(), BrokerError> {
        let (connection, channel) = tokio::select! {
            opened = self.open(role) => opened?,
            () = shutdown.begun() => return Ok(()),
        };
        let events = connection.events_listener();
        dependency.up();
        let result = tokio::select! {
            result = session.run(&connection) => result,
            error = failure(events, dependency) => Err(error.into()),
            error = self.keep_declared(&connection, &channel) => Err(error),
        };
        // Closing in order returns unacked messages at once. A broker that does not answer cannot be
        // waited for: there, dropping the connection has to do.
        if !matches!(result, Err(BrokerError::Timeout(_))) {
            let closing = connection.close(200, "done".into());
            if let Err(error) = self.bounded("closing", closing).await {
                tracing::debug!(%error, role, "connection was not closed in order");
            }
        }
        result
    }

    /// Connects, and declares the topology on a channel that is good for no other work.
    async fn open(&self, role: &'static str) -> Result<(Connection, Channel), BrokerError> {
        let connection = self.connect(role).await?;
        let channel = self.channel(&connection).await?;
        self.bounded("declaring the topology", self.topology.declare(&channel))
            .await?;
        Ok((connection, channel))
    }

    /// Declares the topology again and again, so that a queue that somebody deleted is missing for
    /// seconds only. Returns when that fails.
    async fn keep_declared(&self, connection: &Connection, channel: &Channel) -> BrokerError {
        const INTERVAL: Duration = Duration::from_secs(3);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let declare = self.topology.declare(channel);
            let step = "declaring the topology again";
            if let Err(error) = self.bounded_unless_blocked(connection, step, declare).await {
                return error;
            }
        }
    }

    async fn connect(&self, role: &'static str) -> Result<Connection, BrokerError> {
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

const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Short and capped: work is to go on within seconds of the broker's return.
fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(MAX_BACKOFF)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Waits for the connection to fail. A blocked connection is no failure: it works again when the
/// broker's alarm clears.
async fn failure(events: impl Stream<Item = Event>, dependency: &Dependency) -> lapin::Error {
    let mut events = pin!(events);
    loop {
        match events.next().await {
            Some(Event::Error(error)) => return error,
            Some(Event::ConnectionBlocked(reason)) => {
                dependency.down(&format_args!("blocked by the broker: {reason}"));
            }
            Some(Event::ConnectionUnblocked) => dependency.up(),
            Some(_) => {}
            None => {
                return lapin::ErrorKind::InvalidConnectionState(lapin::ConnectionState::Closed)
                    .into();
            }
        }
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

    #[test]
    fn back_off_is_short_and_capped() {
        // Jitter may double a delay.
        assert!(backoff().take(20).all(|delay| delay <= 2 * MAX_BACKOFF));
    }
}
