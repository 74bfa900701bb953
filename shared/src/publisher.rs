//! Confirmed publishing. One task owns the channel, since confirms of several tasks that publish on
//! one channel get mixed up; up to [`WINDOW`] confirms are in flight, since waiting for each in turn
//! is 40 times slower.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use metrics::{Counter, Gauge, Histogram};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::broker::{Broker, BrokerError};
use crate::health::Dependency;
use crate::lag::set_due;
use crate::messages::{Headers, Message, encode};
use crate::metrics::InFlight;
use crate::shutdown::{Shutdown, VitalTask};
use crate::supervisor::Session;
use crate::topology::{Queue, Topology};
use crate::trace::{Spans, messaging};

/// How many confirms may be in flight.
pub const WINDOW: usize = 1_000;

/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// A message on its way to a queue.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Queue that it is for.
    pub queue: Queue,
    /// Type of the body, for the reader in the management UI.
    pub kind: &'static str,
    /// The encoded body.
    pub payload: Bytes,
    /// What travels beside the body.
    pub headers: Headers,
}

impl Publication {
    /// Encodes `body`.
    ///
    /// # Errors
    /// A field cannot be written as JSON.
    pub fn new<M: Message>(
        queue: Queue,
        body: &M,
        headers: Headers,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            queue,
            kind: M::KIND,
            payload: encode(body)?.into(),
            headers,
        })
    }
}

/// Why a message is not known to be safe. The broker may have it nevertheless: publish it again.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PublishError {
    /// No confirm came in time, or the connection was lost before it came.
    #[error("the broker did not confirm in time")]
    Unconfirmed,
    /// The broker said that it could not keep the message.
    #[error("the broker refused the message")]
    Refused,
}

impl PublishError {
    /// The kind of failure, as metrics and traces name it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Refused => "refused",
        }
    }
}

struct Request {
    publication: Publication,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

/// Publishes with confirms. Clones share one channel.
#[derive(Clone, Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
    topology: Arc<Topology>,
    outcomes: Outcomes,
}

/// What is counted of each message: to find its counters anew would cost as much as all else here.
#[derive(Clone, Debug)]
struct Outcomes {
    confirmed: Counter,
    refused: Counter,
    unconfirmed: Counter,
}

impl Outcomes {
    fn new() -> Self {
        let counter = |outcome| metrics::counter!("broker_publishes_total", "outcome" => outcome);
        Self {
            confirmed: counter("confirmed"),
            refused: counter(PublishError::Refused.kind()),
            unconfirmed: counter(PublishError::Unconfirmed.kind()),
        }
    }

    fn count(&self, published: Result<(), PublishError>) {
        let counter = match published {
            Ok(()) => &self.confirmed,
            Err(PublishError::Refused) => &self.refused,
            Err(PublishError::Unconfirmed) => &self.unconfirmed,
        };
        counter.increment(1);
    }
}

impl Publisher {
    /// Starts the task that owns the publishing connection. It ends when all clones are dropped
    /// (whoever waits for a confirm has one), or when the time to drain is over.
    #[must_use]
    pub fn start(broker: Broker, dependency: Dependency, shutdown: &Shutdown) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WINDOW);
        let topology = Arc::new(broker.topology().clone());
        let stop = shutdown.clone();
        let work = async move {
            let mut session = PublishSession {
                broker: broker.clone(),
                requests: receiver,
            };
            tokio::select! {
                () = broker.supervise("publisher", &dependency, &stop, &mut session) => {}
                () = stop.closing() => {}
            }
        };
        (
            Self {
                requests,
                topology,
                outcomes: Outcomes::new(),
            },
            VitalTask::spawn("publisher", shutdown, work),
        )
    }

    /// Publishes once and waits for the confirm.
    ///
    /// # Errors
    /// [`PublishError`] where the message is not confirmed within `timeout`.
    pub async fn publish(
        &self,
        publication: Publication,
        timeout: Duration,
    ) -> Result<(), PublishError> {
        let mut span = self.span(&publication);
        let published = self.publish_in(&span, publication, timeout).await;
        if let Err(error) = published {
            span.fail(error.kind(), &error);
        }
        published
    }

    fn span(&self, publication: &Publication) -> Spans {
        publication.headers.traces.start(|| {
            let (queue, size) = (publication.queue, publication.payload.len());
            messaging::publish(&self.topology, queue, size)
        })
    }

    /// Publishes once, as a part of `span`.
    async fn publish_in(
        &self,
        span: &Spans,
        mut publication: Publication,
        timeout: Duration,
    ) -> Result<(), PublishError> {
        publication.headers.traces = span.traces();
        let published = self.publish_and_wait(publication, timeout).await;
        self.outcomes.count(published);
        published
    }

    async fn publish_and_wait(
        &self,
        publication: Publication,
        timeout: Duration,
    ) -> Result<(), PublishError> {
        let (reply, confirmed) = oneshot::channel();
        let send_and_wait = async {
            let request = Request { publication, reply };
            self.requests
                .send(request)
                .await
                .map_err(|_| PublishError::Unconfirmed)?;
            confirmed.await.unwrap_or(Err(PublishError::Unconfirmed))
        };
        tokio::time::timeout(timeout, send_and_wait)
            .await
            .unwrap_or(Err(PublishError::Unconfirmed))
    }

    /// Publishes until the broker has confirmed, however long that takes. Duplicates may come of
    /// it, losses do not. An attempt that fails has a span of its own, all further ones one together.
    pub async fn publish_until_confirmed(&self, publication: Publication, timeout: Duration) {
        const PAUSE: Duration = Duration::from_millis(100);
        let Err(mut error) = self.publish(publication.clone(), timeout).await else {
            return;
        };
        let mut span = self.span(&publication);
        loop {
            span.fails_unless_done(error.kind(), &error);
            tracing::debug!(%error, kind = publication.kind, "publishing again");
            tokio::time::sleep(PAUSE).await;
            let published = self.publish_in(&span, publication.clone(), timeout);
            match published.await {
                Ok(()) => return span.done(),
                Err(again) => error = again,
            }
        }
    }
}

struct PublishSession {
    broker: Broker,
    requests: mpsc::Receiver<Request>,
}

impl Session for PublishSession {
    async fn run(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        /// How soon the end of an alarm is noticed.
        const PAUSE: Duration = Duration::from_millis(20);
        let channel = self.broker.channel(connection).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.broker.bounded("turning confirms on", confirms).await?;
        let outlet = Outlet::new(&self.broker, connection, channel);
        // Dropped with the session: whoever waits for a confirm then learns that it is unknown.
        let mut in_flight = FuturesUnordered::new();
        loop {
            // What is published meanwhile is sent when the alarm clears, whoever has given it up by then.
            let blocked = connection.status().blocked();
            tokio::select! {
                biased;
                Some(confirmed) = in_flight.next() => confirmed?,
                () = sleep(PAUSE), if blocked => if self.requests.is_closed() {
                    return Ok(());
                },
                request = self.requests.recv(), if !blocked && in_flight.len() < WINDOW => match request {
                    // Nobody waits any more: its sender has answered without it.
                    Some(request) if request.reply.is_closed() => {}
                    Some(request) => in_flight.push(outlet.publish(request)),
                    // Nor does anybody wait for what is in flight: who waits has a sender.
                    None => return Ok(()),
                },
            }
        }
    }
}

/// Now, as AMQP writes it: who reads a dead letter wants to know its age.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The publishing channel of one session.
struct Outlet<'a> {
    broker: &'a Broker,
    topology: &'a Topology,
    connection: &'a Connection,
    exchange: ShortString,
    channel: Channel,
    in_flight: Gauge,
    confirm_duration: Histogram,
}

impl<'a> Outlet<'a> {
    fn new(broker: &'a Broker, connection: &'a Connection, channel: Channel) -> Self {
        let topology = broker.topology();
        Self {
            broker,
            topology,
            connection,
            exchange: topology.exchange().into(),
            channel,
            in_flight: metrics::gauge!("broker_confirms_in_flight"),
            confirm_duration: metrics::histogram!("broker_confirm_duration_seconds"),
        }
    }

    /// Publishes the message and waits for its confirm. What the library does first, it does in one
    /// piece: it counts the message and queues its frames, so that any number of these may be under
    /// way in one task. To wait until each is written before the next is queued would cost a write to
    /// the socket for every message.
    fn publish(&self, request: Request) -> impl Future<Output = Result<(), BrokerError>> + use<'a> {
        let Request { publication, reply } = request;
        let mut headers = publication.headers.to_table();
        set_due(&mut headers, publication.queue, SystemTime::now());
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_type(publication.kind.into())
            .with_timestamp(unix_seconds())
            .with_headers(headers);
        let routing_key = self.topology.name(publication.queue).into();
        let (exchange, channel) = (self.exchange.clone(), self.channel.clone());
        let (broker, connection) = (self.broker, self.connection);
        let in_flight = InFlight::in_gauge(self.in_flight.clone());
        let duration = self.confirm_duration.clone();
        async move {
            let _in_flight = in_flight;
            let published = Instant::now();
            let (options, payload) = (BasicPublishOptions::default(), &publication.payload);
            let publish =
                channel.basic_publish(exchange, routing_key, options, payload, properties);
            let confirm = broker
                .bounded_unless_blocked(connection, "publishing", publish)
                .await?;
            let confirmation = broker
                .bounded_unless_blocked(connection, "confirming", confirm)
                .await?;
            let result = match confirmation {
                Confirmation::Ack(_) => Ok(()),
                Confirmation::Nack(_) => Err(PublishError::Refused),
                Confirmation::NotRequested => Err(PublishError::Unconfirmed),
            };
            duration.record(published.elapsed());
            if reply.send(result).is_err() {
                tracing::trace!("a confirm came after its publisher had given up");
            }
            Ok(())
        }
    }
}
