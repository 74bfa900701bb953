//! The publishing channel of one session.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use metric_definitions::InFlight;
use metric_definitions::handle::{Gauge, Histogram};

use crate::connection::{Broker, BrokerError};
use crate::lag::set_due;
use crate::metrics::{CONFIRM_DURATION, CONFIRMS_IN_FLIGHT};
use crate::publication::{PublishError, Request};
use crate::topology::Topology;

/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// The publishing channel of one session.
pub(crate) struct Outlet {
    topology: Topology,
    exchange: ShortString,
    channel: Channel,
    opened: Instant,
    in_flight: Gauge,
    confirm_duration: Histogram,
}

impl Outlet {
    pub(crate) async fn open(
        broker: &Broker,
        connection: &Connection,
    ) -> Result<Self, BrokerError> {
        let channel = broker.channel(connection).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        broker.bounded("turning confirms on", confirms).await?;
        let topology = broker.topology().clone();
        Ok(Self {
            exchange: topology.exchange().into(),
            topology,
            channel,
            opened: Instant::now(),
            in_flight: CONFIRMS_IN_FLIGHT.handle(),
            confirm_duration: CONFIRM_DURATION.handle(),
        })
    }

    /// Whether to try another channel when a message is refused. The broker may refuse the messages of a channel
    /// even after the limit that was the reason is gone.
    pub(crate) fn is_old(&self) -> bool {
        const AGE: Duration = Duration::from_secs(5);
        self.opened.elapsed() > AGE
    }

    /// Publishes the message and waits for its confirm. The library counts the message and queues its frames
    /// before it first waits, so that any number of these futures may run in one task. Waiting until each
    /// message is written before the next is queued would cost a write to the socket for every message.
    pub(crate) fn publish(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Result<(), PublishError>, BrokerError>> + use<> {
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

/// Now, as AMQP writes it. It tells the reader of a dead letter its age.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
