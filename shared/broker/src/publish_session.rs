//! The task that owns the publishing channel: it publishes what it is asked to, and watches that confirms come.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::Connection;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::connection::{Broker, BrokerError};
use crate::outlet::Outlet;
use crate::publication::{PublishError, Request};
use crate::supervisor::{Session, Upturn};

/// Publishes on one connection after the other.
pub(crate) struct PublishSession {
    pub(crate) broker: Broker,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// The channel of the latest connection. It outlives [`Session::run`], so that it is closed together with
    /// the connection.
    pub(crate) outlet: Option<Outlet>,
}

impl Session for PublishSession {
    async fn run(
        &mut self,
        connection: &Connection,
        upturn: &Upturn<'_>,
    ) -> Result<(), BrokerError> {
        let opened = Outlet::open(&self.broker, connection).await?;
        let outlet = self.outlet.insert(opened);
        // Dropped with the session: the callers that wait for a confirm then learn that it is unknown.
        let mut in_flight = FuturesUnordered::new();
        let mut watch = ConfirmWatch::new(self.broker.timeout());
        upturn.ready();
        loop {
            tokio::select! {
                biased;
                Some(answered) = in_flight.next() => {
                    watch.confirmed();
                    let answered = answered?;
                    upturn.works();
                    if answered == Err(PublishError::Refused) && outlet.is_old() {
                        *outlet = Outlet::open(&self.broker, connection).await?;
                    }
                }
                request = self.requests.recv() => {
                    // The callers that wait for a confirm have senders too.
                    let Some(request) = request else { return Ok(()) };
                    if in_flight.is_empty() {
                        watch.confirmed();
                    }
                    if connection.status().blocked() {
                        refuse(request);
                    } else if !request.reply.is_closed() {
                        in_flight.push(outlet.publish(request));
                    }
                }
                overdue = watch.overdue() => {
                    // What an alarm holds up is confirmed after it.
                    if connection.status().blocked() || in_flight.is_empty() {
                        watch.confirmed();
                    } else if overdue {
                        return Err(BrokerError::Timeout("confirming"));
                    }
                }
            }
        }
    }
}

fn refuse(request: Request) {
    if request.reply.send(Err(PublishError::Blocked)).is_err() {
        tracing::trace!("a publisher gave up before it was refused");
    }
}

/// Watches that confirms come.
struct ConfirmWatch {
    limit: Duration,
    confirmed: Instant,
    looks: Interval,
}

impl ConfirmWatch {
    fn new(limit: Duration) -> Self {
        const LOOKS: u32 = 10;
        let mut looks = interval(limit / LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            limit,
            confirmed: Instant::now(),
            looks,
        }
    }

    fn confirmed(&mut self) {
        self.confirmed = Instant::now();
    }

    /// Waits for the next look, and says whether nothing was confirmed for too long.
    async fn overdue(&mut self) -> bool {
        self.looks.tick().await;
        self.confirmed.elapsed() > self.limit
    }
}
