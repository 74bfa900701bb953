//! The consumers of one queue on one channel. The prefetch of a consumer cannot be changed, so a further consumer
//! lets more messages come, and the end of one fewer.

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, stream};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use crate::connection::{Broker, BrokerError};
use crate::queue::Queue;

/// The consumers of one queue on one channel.
pub(crate) struct Subscription<'a> {
    broker: &'a Broker,
    queue: Queue,
    channel: Channel,
    events: SelectAll<BoxStream<'static, Event>>,
    /// The consumers that were not cancelled, by their numbers.
    consumers: Vec<u32>,
    /// Number of the next consumer. A tag is not used again: RabbitMQ before 3.10.9 then delivers the messages
    /// that are at hand once more.
    next: u32,
}

/// The number of a consumer and what it delivers, or nothing when no more comes.
type Event = (u32, Option<lapin::Result<Delivery>>);

impl<'a> Subscription<'a> {
    /// Opens a channel with one consumer.
    ///
    /// # Errors
    /// See [`Self::add`].
    pub(crate) async fn open(
        broker: &'a Broker,
        connection: &Connection,
        queue: Queue,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let mut subscription = Self {
            broker,
            queue,
            channel: broker.channel(connection).await?,
            events: SelectAll::new(),
            consumers: Vec::new(),
            next: 0,
        };
        subscription.add(prefetch).await?;
        Ok(subscription)
    }

    /// Adds a consumer, which may have `prefetch` messages at hand.
    ///
    /// # Errors
    /// [`BrokerError::ConsumerEnded`] if the queue is gone, or what is wrong with the connection.
    pub(crate) async fn add(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        self.broker.bounded("setting the prefetch", qos).await?;
        let number = self.next;
        let consume = self.channel.basic_consume(
            self.broker.topology().name(self.queue).into(),
            tag(number).into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consuming = self.broker.bounded("consuming", consume).await;
        let deliveries = consuming.map_err(ended_if_gone)?.map(Some);
        let events = deliveries.chain(stream::iter([None]));
        self.events
            .push(events.map(move |event| (number, event)).boxed());
        self.consumers.push(number);
        self.next += 1;
        Ok(())
    }

    /// Ends the last consumer. What it has delivered stays at work, and what is on its way still comes or goes
    /// back to the queue.
    ///
    /// # Errors
    /// What is wrong with the connection.
    pub(crate) async fn end_last(&mut self) -> Result<(), BrokerError> {
        let Some(number) = self.consumers.pop() else {
            return Ok(());
        };
        let options = BasicCancelOptions::default();
        let cancel = self.channel.basic_cancel(tag(number).into(), options);
        self.broker.bounded("cancelling a consumer", cancel).await
    }

    /// Ends all consumers.
    ///
    /// # Errors
    /// What is wrong with the connection.
    pub(crate) async fn end(&mut self) -> Result<(), BrokerError> {
        while !self.consumers.is_empty() {
            self.end_last().await?;
        }
        Ok(())
    }

    /// Closes the channel, so that what is not acked returns to the queue.
    ///
    /// # Errors
    /// What is wrong with the connection.
    pub(crate) async fn close(self) -> Result<(), BrokerError> {
        let close = self.channel.close(200, "done".into());
        self.broker.bounded("closing the channel", close).await
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// No more can come.
    pub(crate) async fn next(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            match self.events.next().await {
                Some((_, Some(delivery))) => return Ok(delivery?),
                Some((number, None)) if !self.consumers.contains(&number) => {}
                _ => return Err(BrokerError::ConsumerEnded),
            }
        }
    }
}

/// Name of a consumer on its channel.
fn tag(number: u32) -> String {
    format!("work-{number}")
}

/// A queue that was deleted ends its consumers, and refuses further ones.
fn ended_if_gone(error: BrokerError) -> BrokerError {
    if error.is_soft(&AMQPSoftError::NOTFOUND) {
        BrokerError::ConsumerEnded
    } else {
        error
    }
}
