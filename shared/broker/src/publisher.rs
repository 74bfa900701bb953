//! Confirmed publishing. One task owns the channel, because confirms of several tasks that publish on
//! one channel get mixed up. Many confirms are in flight, because waiting for each in turn is 40 times
//! slower. Each queue has a lane: one that takes nothing holds up only what is for it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use lifecycle::{Dependency, Shutdown, VitalTask};
use messages::{Message, encode};
use metric_definitions::InFlight;
use metrics::{Counter, Gauge, Histogram};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use trace::Spans;

use crate::connection::{Broker, BrokerError};
use crate::headers::Headers;
use crate::lag::set_due;
use crate::lane::{Lanes, WINDOW};
use crate::metrics::{CONFIRM_DURATION, CONFIRMS_IN_FLIGHT, PUBLISHES, Published, Role};
use crate::spans;
use crate::supervisor::Session;
use crate::topology::{Queue, Topology};

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
    /// The broker blocks publishers because of an alarm. It does not have the message.
    #[error("the broker blocks publishers because of an alarm")]
    Blocked,
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
            Self::Blocked => "blocked",
            Self::Refused => "refused",
        }
    }
}

struct Request {
    publication: Publication,
    reply: oneshot::Sender<Result<(), PublishError>>,
    place: Option<OwnedSemaphorePermit>,
}

/// Publishes with confirms. Clones share one channel.
#[derive(Clone, Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
    lanes: Arc<Lanes>,
    topology: Arc<Topology>,
    outcomes: Outcomes,
}

/// What is counted of each message: to find its counters anew would cost as much as all else here.
#[derive(Clone, Debug)]
struct Outcomes {
    confirmed: Counter,
    refused: Counter,
    unconfirmed: Counter,
    blocked: Counter,
}

impl Outcomes {
    fn new() -> Self {
        let counter = |published| PUBLISHES.of(&Published(published));
        Self {
            confirmed: counter(Ok(())),
            refused: counter(Err(PublishError::Refused)),
            unconfirmed: counter(Err(PublishError::Unconfirmed)),
            blocked: counter(Err(PublishError::Blocked)),
        }
    }

    fn count(&self, published: Result<(), PublishError>) {
        let counter = match published {
            Ok(()) => &self.confirmed,
            Err(PublishError::Refused) => &self.refused,
            Err(PublishError::Unconfirmed) => &self.unconfirmed,
            Err(PublishError::Blocked) => &self.blocked,
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
                () = broker.supervise(Role::Publisher, &dependency, &stop, &mut session) => {}
                () = stop.closing() => {}
            }
        };
        (
            Self {
                requests,
                lanes: Arc::default(),
                topology,
                outcomes: Outcomes::new(),
            },
            VitalTask::spawn("publisher", shutdown, work),
        )
    }

    /// Publishes once and waits for the confirm.
    ///
    /// # Errors
    /// [`PublishError`] where the message is not confirmed within `limit`.
    pub async fn publish(
        &self,
        publication: Publication,
        limit: Duration,
    ) -> Result<(), PublishError> {
        let mut span = self.span(&publication);
        let published = self.publish_in(&span, publication, limit).await;
        if let Err(error) = published {
            span.fail(error.kind(), &error);
        }
        published
    }

    /// Publishes, again where the connection was lost, until the broker has answered or `limit` is
    /// over. Fails at once where an alarm blocks publishers, or the queue did not take what came before.
    ///
    /// # Errors
    /// [`PublishError`] where the message is not confirmed.
    pub async fn offer(
        &self,
        publication: Publication,
        limit: Duration,
    ) -> Result<(), PublishError> {
        let lane = self.lanes.of(publication.queue);
        if !lane.is_worth_a_try() {
            self.outcomes.count(Err(PublishError::Unconfirmed));
            return Err(PublishError::Unconfirmed);
        }
        let answered = self.publish_while(publication, |error| error == PublishError::Unconfirmed);
        let published = timeout(limit, answered).await;
        let published = published.unwrap_or(Err(PublishError::Unconfirmed));
        lane.note(published);
        published
    }

    /// Publishes until the broker has confirmed, however long that takes. Duplicates may come of
    /// it, losses do not.
    pub async fn publish_until_confirmed(&self, publication: Publication) {
        if let Err(error) = self.publish_while(publication, |_| true).await {
            tracing::error!(%error, "publishing was given up");
        }
    }

    /// Publishes again for as long as it fails with an error that `is_passing`. An attempt that fails has
    /// a span of its own, all further ones one together.
    async fn publish_while(
        &self,
        publication: Publication,
        is_passing: impl Fn(PublishError) -> bool,
    ) -> Result<(), PublishError> {
        let mut error = match self.publish(publication.clone(), Duration::MAX).await {
            Err(error) if is_passing(error) => error,
            answered => return answered,
        };
        let (mut span, mut pauses) = (self.span(&publication), pauses());
        loop {
            span.fails_unless_done(error.kind(), &error);
            tracing::debug!(%error, kind = publication.kind, "publishing again");
            sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
            let published = self.publish_in(&span, publication.clone(), Duration::MAX);
            match published.await {
                Ok(()) => {
                    span.done();
                    return Ok(());
                }
                Err(again) if is_passing(again) => error = again,
                Err(answer) => {
                    span.fails_unless_done(answer.kind(), &answer);
                    return Err(answer);
                }
            }
        }
    }

    fn span(&self, publication: &Publication) -> Spans {
        publication.headers.traces.start(|| {
            let (queue, size) = (publication.queue, publication.payload.len());
            spans::publish(&self.topology, queue, size)
        })
    }

    /// Publishes once, as a part of `span`.
    async fn publish_in(
        &self,
        span: &Spans,
        mut publication: Publication,
        limit: Duration,
    ) -> Result<(), PublishError> {
        publication.headers.traces = span.traces();
        let published = timeout(limit, self.publish_and_wait(publication)).await;
        let published = published.unwrap_or(Err(PublishError::Unconfirmed));
        self.outcomes.count(published);
        published
    }

    /// Waits for as long as the session lasts. It ends when nothing at all is confirmed any more.
    async fn publish_and_wait(&self, publication: Publication) -> Result<(), PublishError> {
        let (reply, confirmed) = oneshot::channel();
        let place = self.lanes.of(publication.queue).place().await;
        let request = Request {
            publication,
            reply,
            place,
        };
        if self.requests.send(request).await.is_err() {
            return Err(PublishError::Unconfirmed);
        }
        confirmed.await.unwrap_or(Err(PublishError::Unconfirmed))
    }
}

/// Between tries to publish a message: growing, and short enough to be back at work soon.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .build()
}

const MAX_PAUSE: Duration = Duration::from_secs(1);

struct PublishSession {
    broker: Broker,
    requests: mpsc::Receiver<Request>,
}

impl Session for PublishSession {
    async fn run(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        let mut outlet = Outlet::open(&self.broker, connection).await?;
        // Dropped with the session: whoever waits for a confirm then learns that it is unknown.
        let mut in_flight = FuturesUnordered::new();
        let mut watch = ConfirmWatch::new(self.broker.timeout());
        loop {
            tokio::select! {
                biased;
                Some(answered) = in_flight.next() => {
                    watch.confirmed();
                    if answered? == Err(PublishError::Refused) && outlet.is_old() {
                        outlet = Outlet::open(&self.broker, connection).await?;
                    }
                }
                request = self.requests.recv() => {
                    // Those who wait for what is in flight have senders too.
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

/// Now, as AMQP writes it: who reads a dead letter wants to know its age.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The publishing channel of one session.
struct Outlet<'a> {
    topology: &'a Topology,
    exchange: ShortString,
    channel: Channel,
    opened: Instant,
    in_flight: Gauge,
    confirm_duration: Histogram,
}

impl<'a> Outlet<'a> {
    async fn open(broker: &'a Broker, connection: &Connection) -> Result<Self, BrokerError> {
        let channel = broker.channel(connection).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        broker.bounded("turning confirms on", confirms).await?;
        let topology = broker.topology();
        Ok(Self {
            topology,
            exchange: topology.exchange().into(),
            channel,
            opened: Instant::now(),
            in_flight: CONFIRMS_IN_FLIGHT.handle(),
            confirm_duration: CONFIRM_DURATION.handle(),
        })
    }

    /// Whether another channel is worth a try where messages are refused. The broker goes on to refuse
    /// those of a channel after the limit is gone that was the reason.
    fn is_old(&self) -> bool {
        const AGE: Duration = Duration::from_secs(5);
        self.opened.elapsed() > AGE
    }

    /// Publishes the message and waits for its confirm. What the library does first, it does in one
    /// piece: it counts the message and queues its frames, so that any number of these may be under
    /// way in one task. To wait until each is written before the next is queued would cost a write to
    /// the socket for every message.
    fn publish(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Result<(), PublishError>, BrokerError>> + use<'a> {
        let Request {
            publication,
            reply,
            place,
        } = request;
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
        let in_flight = InFlight::in_gauge(self.in_flight.clone());
        let duration = self.confirm_duration.clone();
        async move {
            let _in_flight = (in_flight, place);
            let published = Instant::now();
            let (options, payload) = (BasicPublishOptions::default(), &publication.payload);
            let publish =
                channel.basic_publish(exchange, routing_key, options, payload, properties);
            let result = match publish.await?.await? {
                Confirmation::Ack(_) => Ok(()),
                Confirmation::Nack(_) => Err(PublishError::Refused),
                Confirmation::NotRequested => Err(PublishError::Unconfirmed),
            };
            duration.record(published.elapsed());
            if reply.send(result).is_err() {
                tracing::trace!("a confirm came after its publisher had given up");
            }
            Ok(result)
        }
    }
}
