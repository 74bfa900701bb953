//! Keeping a connection to the broker at work.
//!
//! The supervisor owns connection, channels and topology, and replaces them all after any error. The
//! client library's own recovery is not used, because it was seen to hang under cut connections.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt};
use lapin::protocol::AMQPSoftError;
use lapin::{Channel, Connection, Event};
use lifecycle::{Dependency, Shutdown};
use metric_definitions::Label;
use tcp::advised;

use crate::connection::{ADVICE, Broker, BrokerConnection, BrokerError};
use crate::metrics::{CONNECTION_FAILURES, CONNECTIONS_OPENED, Role};

/// Work that needs a connection, and begins again on each one.
pub(crate) trait Session: Send {
    /// Works until it is finished (`Ok`), or until the connection is unusable. Says what it knows of that to `upturn`.
    fn run(
        &mut self,
        connection: &Connection,
        upturn: &Upturn<'_>,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;
}

/// Says when the broker is up. One that lets the user in, and then refuses the work, is down until it takes some.
pub(crate) struct Upturn<'a> {
    dependency: &'a Dependency,
    is_doubted: AtomicBool,
}

impl Upturn<'_> {
    /// All is ready for the work.
    pub(crate) fn ready(&self) {
        if !self.is_doubted.load(Relaxed) {
            self.dependency.up();
        }
    }

    /// The broker has done a part of the work.
    pub(crate) fn works(&self) {
        if self.is_doubted.swap(false, Relaxed) {
            self.dependency.up();
        }
    }
}

impl Broker {
    /// Runs `session` on one connection after the other, until it finishes, or until the shut-down begins
    /// while there is no connection. A session itself decides how it ends at the shut-down.
    pub(crate) async fn supervise(
        &self,
        role: Role,
        dependency: &Dependency,
        shutdown: &Shutdown,
        session: &mut impl Session,
    ) {
        let mut delays = backoff();
        let dependency = &dependency.clone().at(&self.place());
        let mut upturn = Upturn {
            dependency,
            is_doubted: AtomicBool::new(false),
        };
        loop {
            let started = tokio::time::Instant::now();
            match self.run_session(role, &upturn, shutdown, session).await {
                Ok(()) => return,
                Err(error) => {
                    dependency.down(&error);
                    if error.is_soft(&AMQPSoftError::ACCESSREFUSED) {
                        upturn.is_doubted = AtomicBool::new(true);
                    }
                }
            }
            CONNECTION_FAILURES.of(&role).increment(1);
            if started.elapsed() > self.timeout() {
                delays = backoff();
            }
            if !shutdown.sleep(delays.next().unwrap_or(MAX_BACKOFF)).await {
                return;
            }
        }
    }

    async fn run_session(
        &self,
        role: Role,
        upturn: &Upturn<'_>,
        shutdown: &Shutdown,
        session: &mut impl Session,
    ) -> Result<(), BrokerError> {
        // The channel is closed together with the connection: if it were dropped before, the client library would
        // take its close for an error.
        let (connection, mut channel) = tokio::select! {
            opened = self.open(role) => opened?,
            () = shutdown.begun() => return Ok(()),
        };
        CONNECTIONS_OPENED.of(&role).increment(1);
        let events = connection.events_listener();
        let result = tokio::select! {
            result = session.run(&connection, upturn) => result,
            error = failure(events, upturn.dependency) => Err(error.into()),
            error = self.keep_declared(&connection, &mut channel) => Err(error),
        };
        // If the broker does not answer, the connection is only dropped.
        if !matches!(result, Err(BrokerError::Timeout(_)))
            && let Err(error) = self.close(connection).await
        {
            tracing::debug!(%error, role = role.value(), "connection was not closed in order");
        }
        result
    }

    /// Connects, and sees to it that the topology is there.
    async fn open(&self, role: Role) -> Result<(BrokerConnection, Channel), BrokerError> {
        let connection = self.connect(role.value()).await?;
        let channel = self.ensure(&connection, self.topology()).await?;
        Ok((connection, channel))
    }
}

const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// Short and capped, so that work goes on within seconds of the broker's return. Jitter may double a delay.
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
                let reason = format!("blocked by the broker: {reason}");
                dependency.down(&advised(reason, &ADVICE));
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
    fn back_off_is_short_and_capped() {
        // Jitter may double a delay.
        assert!(backoff().take(20).all(|delay| delay <= 2 * MAX_BACKOFF));
    }
}
