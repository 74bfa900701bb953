//! Confirmed publishing. One task owns the channel, since confirms of several tasks that publish on
//! one channel get mixed up; up to [`WINDOW`] confirms are in flight, since waiting for each in turn
//! is 40 times slower.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::broker::{Broker, BrokerError};
use crate::health::Dependency;
use crate::messages::{Headers, Message, encode};
use crate::shutdown::{Shutdown, VitalTask};
use crate::supervisor::Session;
use crate::topology::{Queue, Topology};

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

struct Request {
    publication: Publication,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

/// Publishes with confirms. Clones share one channel.
#[derive(Clone, Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
}

impl Publisher {
    /// Starts the task that owns the publishing connection. It ends when all clones are dropped and
    /// what they published is confirmed, or when the time to drain is over.
    #[must_use]
    pub fn start(broker: Broker, dependency: Dependency, shutdown: &Shutdown) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WINDOW);
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
            Self { requests },
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
    /// it, losses do not.
    pub async fn publish_until_confirmed(&self, publication: Publication, timeout: Duration) {
        const PAUSE: Duration = Duration::from_millis(100);
        while let Err(error) = self.publish(publication.clone(), timeout).await {
            tracing::debug!(%error, kind = publication.kind, "publishing again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

struct PublishSession {
    broker: Broker,
    requests: mpsc::Receiver<Request>,
}

impl Session for PublishSession {
    async fn run(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = self.broker.channel(connection).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.broker.bounded("turning confirms on", confirms).await?;
        let outlet = Outlet::new(&self.broker, connection, channel);
        // Dropped with the session: whoever waits for a confirm then learns that it is unknown.
        let mut in_flight = FuturesUnordered::new();
        let mut open = true;
        while open || !in_flight.is_empty() {
            tokio::select! {
                biased;
                Some(confirmed) = in_flight.next() => confirmed?,
                request = self.requests.recv(), if open && in_flight.len() < WINDOW => match request {
                    // Nobody waits any more: its sender has answered without it.
                    Some(request) if request.reply.is_closed() => {}
                    Some(request) => in_flight.push(outlet.publish(request).await?),
                    None => open = false,
                },
            }
            metrics::gauge!("broker_confirms_in_flight")
                .set(u32::try_from(in_flight.len()).unwrap_or(u32::MAX));
        }
        Ok(())
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
        }
    }

    /// Hands the message to the channel; the future that it returns waits for the confirm.
    async fn publish(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = Result<(), BrokerError>> + use<'a>, BrokerError> {
        let Request { publication, reply } = request;
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_type(publication.kind.into())
            .with_timestamp(unix_seconds())
            .with_headers(publication.headers.to_table());
        let routing_key = self.topology.name(publication.queue).into();
        let publish = self.channel.basic_publish(
            self.exchange.clone(),
            routing_key,
            BasicPublishOptions::default(),
            &publication.payload,
            properties,
        );
        let (broker, connection) = (self.broker, self.connection);
        let confirm = broker
            .bounded_unless_blocked(connection, "publishing", publish)
            .await?;
        Ok(async move {
            let step = "confirming";
            let result = match broker
                .bounded_unless_blocked(connection, step, confirm)
                .await?
            {
                Confirmation::Ack(_) => Ok(()),
                Confirmation::Nack(_) => Err(PublishError::Refused),
                Confirmation::NotRequested => Err(PublishError::Unconfirmed),
            };
            if reply.send(result).is_err() {
                tracing::trace!("a confirm came after its publisher had given up");
            }
            Ok(())
        })
    }
}
