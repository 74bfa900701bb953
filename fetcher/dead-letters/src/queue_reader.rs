//! Reading a queue from its head. Messages that are not acked stay in it.

use std::time::Duration;

use broker::{Broker, BrokerConnection, BrokerError, Queue};
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

/// How many messages are in memory at once.
const PAGE: u16 = 500;

/// Reads as many messages as the queue held at the start. Messages that come in meanwhile, such as replayed
/// ones that died again, are left alone.
pub(crate) struct QueueReader<'a> {
    broker: &'a Broker,
    connection: BrokerConnection,
    channel: Channel,
    queue: String,
    /// How many messages the queue held at the start.
    pub(crate) held: u32,
    /// How many of them did not come, because another consumer has them.
    pub(crate) missing: u32,
    left: u32,
    consumers: u32,
}

impl<'a> QueueReader<'a> {
    pub(crate) async fn open(broker: &'a Broker, queue: Queue) -> Result<Self, BrokerError> {
        let connection = broker.connect("reader").await?;
        let channel = broker.channel(&connection).await?;
        let queue = broker.topology().name(queue);
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let ask = channel.queue_declare(queue.as_str().into(), passive, FieldTable::default());
        let held = broker.bounded("asking for the queue", ask).await?;
        let held = held.message_count();
        Ok(Self {
            broker,
            connection,
            channel,
            queue,
            held,
            missing: 0,
            left: held,
            consumers: 0,
        })
    }

    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    pub(crate) fn connection(&self) -> &BrokerConnection {
        &self.connection
    }

    /// The next messages; none when all were read. They return to the queue when the reader is
    /// closed or dropped, unless they are acked.
    pub(crate) async fn next_page(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        let size = PAGE.min(u16::try_from(self.left).unwrap_or(PAGE));
        if size == 0 {
            return Ok(Vec::new());
        }
        // A prefetch counts for one consumer: the next consumer on the channel gets the messages that
        // follow, and the client never holds more than a page.
        let mut consumer = self.consume(size).await?;
        let page = take(&mut consumer, size, self.broker.timeout()).await?;
        self.cancel(consumer).await?;
        self.left -= u32::try_from(page.len()).unwrap_or(self.left);
        if page.len() < usize::from(size) {
            self.missing = std::mem::take(&mut self.left);
        }
        Ok(page)
    }

    async fn consume(&mut self, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.consumers += 1;
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        self.broker.bounded("setting the prefetch", qos).await?;
        let consume = self.channel.basic_consume(
            self.queue.as_str().into(),
            format!("page-{}", self.consumers).into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        self.broker.bounded("consuming", consume).await
    }

    async fn cancel(&self, consumer: Consumer) -> Result<(), BrokerError> {
        let cancel = self
            .channel
            .basic_cancel(consumer.tag(), BasicCancelOptions::default());
        self.broker.bounded("ending the consumer", cancel).await
    }

    pub(crate) async fn ack(&self, delivery: &Delivery) -> Result<(), BrokerError> {
        let ack = delivery.ack(BasicAckOptions::default());
        let is_acked = self.broker.bounded("acking", ack).await?;
        // Otherwise the channel is lost, and the message will come again.
        is_acked.then_some(()).ok_or(BrokerError::ConsumerEnded)
    }

    /// Returns the messages that are not acked, and makes sure of the acks. While many acks are in flight, a
    /// channel of the broker holds further ones back, and forgets them when it is closed: 466 of 500
    /// did not count. Once it has answered about the queue, the first acks are done and the others
    /// sent; once it has answered again, all are done. After an error, some acked messages may still be in
    /// the queue.
    pub(crate) async fn close(mut self) -> Result<(), BrokerError> {
        for _ in 0..2 {
            let consumer = self.consume(1).await?;
            self.cancel(consumer).await?;
        }
        let closing = self.channel.close(200, "done".into());
        self.broker.bounded("closing the channel", closing).await?;
        self.broker.close(self.connection).await
    }
}

/// Takes `size` messages, or fewer when no more come in time: another consumer has them.
async fn take(
    consumer: &mut Consumer,
    size: u16,
    patience: Duration,
) -> Result<Vec<Delivery>, BrokerError> {
    let mut page = Vec::with_capacity(size.into());
    while page.len() < usize::from(size) {
        match tokio::time::timeout(patience, consumer.next()).await {
            Ok(Some(delivery)) => page.push(delivery?),
            Ok(None) => return Err(BrokerError::ConsumerEnded),
            Err(_) => break,
        }
    }
    Ok(page)
}
